//! Secrets: where a URL comes from, and values that never show themselves.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};

use crate::failure::Failure;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for whoever connects with it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// Where the URL of a store comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum UrlSource {
    /// It is in the file itself, without a password.
    Plain(String),
    /// An environment variable has it.
    Environment(String),
    /// A file has it.
    File(PathBuf),
    /// A command prints it.
    Command(Vec<String>),
}

impl fmt::Debug for UrlSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UrlSource({self})")
    }
}

impl fmt::Display for UrlSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => formatter.write_str("the configuration file"),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Command(command) => {
                let program = command.first().map_or("", String::as_str);
                write!(formatter, "the output of {program}")
            }
        }
    }
}

impl UrlSource {
    /// The same, with a file's path resolved against a directory.
    #[must_use]
    pub(super) fn beside(self, directory: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(directory.join(path)),
            other => other,
        }
    }

    /// Fetches the URL.
    ///
    /// # Errors
    /// Usage: if it is not there.
    pub fn resolve(&self) -> Result<Secret, Failure> {
        let missing = || Failure::usage(format!("read the store's url from {self}"));
        let text = match self {
            Self::Plain(url) => url.clone(),
            Self::Environment(name) => std::env::var(name).map_err(|error| {
                missing()
                    .because(error)
                    .next(format!("set {name}, then run the same command"))
            })?,
            Self::File(path) => fs::read_to_string(path).map_err(|e| missing().because(e))?,
            Self::Command(command) => run(command, &missing)?,
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(missing().because("it is empty"));
        }
        Ok(Secret(text.to_owned()))
    }
}

/// Runs the command and takes what it prints. Its errors go to the terminal as they are.
fn run(command: &[String], missing: &dyn Fn() -> Failure) -> Result<String, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(missing().because("the command is empty"));
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| missing().because(error))?;
    if !output.status.success() {
        return Err(missing().because(format!("it ended with {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| missing().because("it is not UTF-8"))
}

/// Whether a connection string carries a password: in its user part, or as a parameter.
pub(super) fn holds_password(url: &str) -> bool {
    let lower = url.to_ascii_lowercase();
    let parameters = lower.replace(char::is_whitespace, "");
    if parameters.contains("password=") {
        return true;
    }
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':')
}

const FORMS: &str = "{ env = NAME }, { file = PATH } or { command = [PROGRAM, ...] }";

impl<'de> Deserialize<'de> for UrlSource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Source;
        impl<'de> Visitor<'de> for Source {
            type Value = UrlSource;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a url without a password, {FORMS}")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<UrlSource, E> {
                if holds_password(url) {
                    let message = format!("the url holds a password; take it from {FORMS}");
                    return Err(E::custom(message));
                }
                Ok(UrlSource::Plain(url.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UrlSource, A::Error> {
                let mut source = None;
                while let Some(key) = map.next_key::<String>()? {
                    let found = match key.as_str() {
                        "env" => UrlSource::Environment(map.next_value()?),
                        "file" => UrlSource::File(map.next_value()?),
                        "command" => UrlSource::Command(map.next_value()?),
                        other => {
                            return Err(Error::unknown_field(other, &["env", "file", "command"]));
                        }
                    };
                    if source.replace(found).is_some() {
                        return Err(Error::custom(format!(
                            "the url has two sources: one of {FORMS}"
                        )));
                    }
                }
                source
                    .ok_or_else(|| Error::custom(format!("the url has no source: one of {FORMS}")))
            }
        }
        deserializer.deserialize_any(Source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let source = UrlSource::Command(vec!["echo".to_owned(), "postgres://x".to_owned()]);
        let secret = source.resolve().unwrap();
        assert_eq!(secret.reveal(), "postgres://x");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert!(!format!("{source:?}").contains("postgres://x"));
    }

    #[test]
    fn a_source_that_gives_nothing_is_named() {
        let command = |words: &[&str]| {
            UrlSource::Command(words.iter().map(|&word| word.to_owned()).collect())
        };
        for source in [
            command(&["false"]),
            command(&["true"]),
            command(&[]),
            command(&["/nonexistent/program"]),
            UrlSource::Environment("REINSTATE_NO_SUCH_VARIABLE".to_owned()),
            UrlSource::File(PathBuf::from("/nonexistent/url")),
        ] {
            let message = source.resolve().unwrap_err().to_string();
            assert!(message.contains(&source.to_string()), "{message}");
        }
    }
}

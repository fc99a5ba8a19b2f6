//! Failures: what went wrong, why, how the process ends, and what to type next.

use std::error::Error as StdError;

use reinstate::Error;
use reinstate_core::{ErrorKind, RepositoryError, StoreError};
use serde::Serialize;

use crate::exit::{Exit, kind_name, next_step};

type Cause = Box<dyn StdError + Send + Sync>;

/// An error of the tool itself, or one from below with a better way on.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    exit: Exit,
    kind: &'static str,
    message: String,
    next: Option<String>,
    source: Option<Cause>,
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            exit: Exit::of(kind),
            kind: kind_name(kind),
            message: message.into(),
            next: Some(next_step(kind).to_owned()),
            source: None,
        }
    }

    /// A failure that no kind of error stands for.
    #[must_use]
    pub fn ending(exit: Exit, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            exit,
            kind,
            message: message.into(),
            next: None,
            source: None,
        }
    }

    /// Wrong usage or configuration.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// The same with what to type next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same with what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Cause>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// A failure as it is shown.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Always `error`.
    #[serde(rename = "type")]
    pub record: &'static str,
    /// The process' exit code.
    pub exit_code: u8,
    /// The kind of error, by name.
    pub kind: &'static str,
    /// What went wrong.
    pub message: String,
    /// Why, from the nearest cause to the last.
    pub causes: Vec<String>,
    /// What to type next.
    pub next: String,
}

/// Finds out how an error ends the process and what to say.
#[must_use]
pub fn show(error: &anyhow::Error) -> Shown {
    let (exit, kind, next) = classify(error);
    let mut messages: Vec<String> = Vec::new();
    for message in error.chain().map(ToString::to_string) {
        // Some messages end with their cause already.
        if messages.iter().all(|before| !before.ends_with(&message)) {
            messages.push(message);
        }
    }
    let message = messages.remove(0);
    Shown {
        record: "error",
        exit_code: exit.code(),
        kind,
        message,
        causes: messages,
        next,
    }
}

/// The exit of the first error in the chain that has one.
fn classify(error: &anyhow::Error) -> (Exit, &'static str, String) {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            let next = failure.next.clone().unwrap_or_default();
            return (failure.exit, failure.kind, next);
        }
        let kind = if let Some(error) = cause.downcast_ref::<Error>() {
            error.kind()
        } else if let Some(error) = cause.downcast_ref::<StoreError>() {
            error.kind()
        } else if let Some(error) = cause.downcast_ref::<RepositoryError>() {
            error.kind()
        } else {
            continue;
        };
        let next = next_step_of(kind, error.chain());
        return (Exit::of(kind), kind_name(kind), next.to_owned());
    }
    let next = next_step(ErrorKind::Other).to_owned();
    (Exit::Other, kind_name(ErrorKind::Other), next)
}

/// What to do next about an error of this kind that these caused.
pub fn next_step_of<'e>(
    kind: ErrorKind,
    mut chain: impl Iterator<Item = &'e (dyn StdError + 'static)>,
) -> &'static str {
    // What the store's own rules refuse is in no plan's list of conflicts.
    if kind == ErrorKind::Conflict && chain.any(<dyn StdError>::is::<StoreError>) {
        return "see to what the store refuses, then make a new plan";
    }
    next_step(kind)
}

/// How an error ends the process.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> Exit {
    classify(error).0
}

/// An error and its causes in one line.
#[must_use]
pub fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_walked_to_the_root_and_the_kind_found_under_context() {
        let store = StoreError::new(ErrorKind::Locked, "open app.redb: in use")
            .because(std::io::Error::other("flock"));
        let error = anyhow::Error::new(store).context("open the store");
        let shown = show(&error);
        assert_eq!((shown.exit_code, shown.kind), (11, "locked"));
        assert_eq!(shown.message, "open the store");
        assert_eq!(shown.causes, ["open app.redb: in use", "flock"]);
        assert!(!shown.next.is_empty());
    }

    #[test]
    fn what_the_tool_says_comes_before_what_lies_below() {
        let below = RepositoryError::new(ErrorKind::NotFound, "there is no header");
        let failure = Failure::ending(Exit::NoRepository, "no_repository", "no repository")
            .next("reinstate init")
            .because(below);
        let shown = show(&anyhow::Error::new(failure));
        assert_eq!((shown.exit_code, shown.kind), (10, "no_repository"));
        assert_eq!(shown.next, "reinstate init");
    }
}

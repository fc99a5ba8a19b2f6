//! How to reach the server.

use std::env;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use reinstate_core::{ErrorKind, StoreError};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// A connection URL, password and all. Never shown: `Debug` prints a placeholder, and there is
/// no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

/// How to reach a database, and how to behave there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// Where the database is.
    pub url: SecretUrl,
    /// What operators call the store.
    pub name: String,
    /// How many tables a capture reads at the same time; at least one.
    pub lanes: usize,
    /// How many tenants of a run are written at once. Each has a process of the server for itself; while one is
    /// merged, the one before it is verified by another process in any case. More than one is for a server that
    /// has cores to spare: on one that has not, everybody else waits for them.
    pub merges_at_once: NonZeroUsize,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a statement waits for a lock that somebody else holds. Zero: for ever.
    pub lock_timeout: Duration,
    /// How long one statement of a merge may take. Zero: as long as it takes. Captures and reads
    /// have no limit.
    pub statement_timeout: Duration,
    /// How long a merge may say nothing to the server while it holds a tenant. Then the server ends it,
    /// rolls back what it wrote and lets the next one in. Zero: for as long as it is connected.
    pub lease: Duration,
    /// Whether a merge may write to tables where neither guard triggers nor row-level security
    /// would stop it at another tenant's row.
    pub unguarded: bool,
    /// Where a feed keeps long transactions that are not committed yet, in unnamed files.
    pub spill_directory: PathBuf,
}

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Not at all.
    Off,
    /// By TLS; the server's certificate and name are checked, against the certificates in this
    /// file or, without one, those that the machine trusts.
    Verified { root_certificates: Option<String> },
}

impl SecretUrl {
    /// Takes over a URL as it is. It is read when a connection is made.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretUrl(..)")
    }
}

impl ConnectionSettings {
    /// Settings for this database: two lanes, one merge at once, ten seconds for a connection, five for a lock, ten minutes
    /// for a silent merge; merges must be guarded; the system's directory for temporary files.
    #[must_use]
    pub fn new(url: SecretUrl, name: impl Into<String>) -> Self {
        Self {
            url,
            name: name.into(),
            lanes: 2,
            merges_at_once: NonZeroUsize::MIN,
            connect_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::ZERO,
            lease: Duration::from_secs(600),
            unguarded: false,
            spill_directory: env::temp_dir(),
        }
    }

    /// What the driver needs, and how to protect the connection.
    ///
    /// # Errors
    /// `Usage` if the URL is malformed, or asks for protection that cannot be given. The message
    /// holds nothing of the URL but names of options.
    pub(crate) fn driver_config(&self) -> Result<(Config, Protection), StoreError> {
        let (url, tls) = split_tls_options(&self.url.0)?;
        let mut config: Config = url.parse().map_err(|_| malformed())?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(usage(
                "the connection URL names no host; a socket directory is given as \
                 postgres:///database?host=/var/run/postgresql",
            ));
        }
        let protection = tls.decide(&config)?;
        config
            .ssl_mode(match protection {
                Protection::Off => SslMode::Disable,
                Protection::Verified { .. } => SslMode::Require,
            })
            .application_name("reinstate")
            .connect_timeout(self.connect_timeout);
        Ok((config, protection))
    }
}

/// What a URL says about TLS.
#[derive(Default)]
struct TlsOptions {
    mode: Option<String>,
    root_certificates: Option<String>,
}

impl TlsOptions {
    /// Nothing is ever silently left unprotected: what is not said is decided by the host, and
    /// what would fall back to plain text is refused.
    fn decide(self, config: &Config) -> Result<Protection, StoreError> {
        let verified = Protection::Verified {
            root_certificates: self.root_certificates,
        };
        match self.mode.as_deref() {
            Some("disable") => Ok(Protection::Off),
            Some("require" | "verify-ca" | "verify-full") => Ok(verified),
            None if is_local(config) => Ok(Protection::Off),
            None => Ok(verified),
            Some("prefer" | "allow") => Err(usage(
                "sslmode=prefer and sslmode=allow fall back to plain text without a word: say \
                 sslmode=verify-full, or sslmode=disable if plain text is meant",
            )),
            Some(_) => Err(usage(
                "sslmode: expected disable, require, verify-ca or verify-full",
            )),
        }
    }
}

/// Whether every host is this machine.
fn is_local(config: &Config) -> bool {
    let named = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
    });
    named
        && config
            .get_hostaddrs()
            .iter()
            .all(std::net::IpAddr::is_loopback)
}

/// Takes the options about TLS out of the URL: the driver does not know all of them.
fn split_tls_options(url: &str) -> Result<(String, TlsOptions), StoreError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(malformed());
    }
    let mut tls = TlsOptions::default();
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), tls));
    };
    let mut kept = Vec::new();
    for option in query.split('&') {
        match option.split_once('=') {
            Some(("sslmode", mode)) => tls.mode = Some(mode.to_owned()),
            Some(("sslrootcert", path)) => tls.root_certificates = Some(percent_decode(path)?),
            Some(("sslcert" | "sslkey" | "sslpassword" | "sslcrl", _)) => {
                return Err(usage(
                    "client certificates and revocation lists (sslcert, sslkey, sslcrl) are not \
                     supported",
                ));
            }
            _ => kept.push(option),
        }
    }
    Ok((format!("{base}?{}", kept.join("&")), tls))
}

fn percent_decode(text: &str) -> Result<String, StoreError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digits = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(malformed)?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

fn malformed() -> StoreError {
    usage(
        "the connection URL is malformed: expected \
         postgres://user:password@host:port/database?option=value, with %XX for special \
         characters",
    )
}

fn usage(message: &str) -> StoreError {
    StoreError::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(url: &str) -> Result<Protection, String> {
        ConnectionSettings::new(SecretUrl::new(url), "main")
            .driver_config()
            .map(|(_, protection)| protection)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_about_tls_is_decided_by_the_host() {
        let verified = Ok(Protection::Verified {
            root_certificates: None,
        });
        assert_eq!(decide("postgres:///d?host=/tmp"), Ok(Protection::Off));
        assert_eq!(decide("postgres://u:p@localhost/d"), Ok(Protection::Off));
        assert_eq!(decide("postgres://u:p@db.example.com/d"), verified);
        assert_eq!(
            decide("postgres://u:p@localhost/d?sslmode=require"),
            verified
        );
        assert_eq!(
            decide("postgres://u:p@db.example.com/d?sslmode=disable&connect_timeout=3"),
            Ok(Protection::Off)
        );
        assert_eq!(
            decide("postgres://u@h/d?sslmode=verify-full&sslrootcert=/etc/a%20b.pem"),
            Ok(Protection::Verified {
                root_certificates: Some("/etc/a b.pem".to_owned())
            })
        );
    }

    #[test]
    fn a_silent_fall_back_to_plain_text_is_refused() {
        for mode in ["prefer", "allow", "verify", ""] {
            let error = decide(&format!("postgres://u:p@h/d?sslmode={mode}")).unwrap_err();
            assert!(error.contains("sslmode"), "{error}");
        }
    }

    #[test]
    fn no_error_and_no_debug_text_shows_the_password() {
        let mut refused = Vec::new();
        for url in [
            // Odd, but the driver takes these two as passwords.
            "postgres://u:s3cr?et@h/d",
            "postgres://u:s3cr%zzet@h/d",
            "postgres://u:s3cret@h:port/d",
            "postgres://u:s3cret@h/d?nonsense=s3cret",
            "host=h password=s3cret",
            "postgres://u:s3cret@/d",
            "mysql://u:s3cret@h/d",
        ] {
            let settings = ConnectionSettings::new(SecretUrl::new(url), "main");
            let mut texts = format!("{settings:?}");
            if let Err(error) = settings.driver_config().map(drop) {
                texts.push_str(&format!("{error:?} {error}"));
                refused.push(url);
            }
            assert!(!texts.contains("s3cr"), "{texts}");
        }
        assert_eq!(refused.len(), 5, "{refused:?}");
    }
}

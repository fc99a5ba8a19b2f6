//! The configuration file `reinstate.toml`: read strictly, with no key overlooked.

mod bounds;
mod estate;
mod file;
mod into;
mod secret;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reinstate::{BlockLayout, CopyRules, DriftRules};
use reinstate_postgres::TenancyMap;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

pub use bounds::Bounds;
pub use estate::{ESTATE_PATH, EstateConfiguration, EstateStoreConfiguration, IdRule};
pub use secret::UrlSource;

/// Where the configuration is looked for when nobody says.
pub const DEFAULT_PATH: &str = "reinstate.toml";

/// A configuration that was read and checked. Paths in it are resolved against its own place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The file it was read from.
    pub path: PathBuf,
    /// The repository's directory.
    pub repository: PathBuf,
    /// The store's name.
    pub store_name: String,
    /// The store itself.
    pub store: StoreConfiguration,
    /// The kind of id its tenants have, if the file says.
    pub tenant_kind: Option<String>,
    /// What became of tables that changed after a snapshot.
    pub drift: DriftRules,
    /// Whether rows to delete are looked for among those that other tenants had.
    pub check_owners: bool,
    /// What becomes of columns when a tenant is copied under another id.
    pub into: CopyRules,
    /// In which order blocks of new snapshots have the bytes of their rows.
    pub layout: BlockLayout,
    /// How often a log that is followed gets a younger snapshot, made from the last one and itself.
    pub base_every: Option<Duration>,
    /// The database that drills restore into.
    pub drill_into: Option<UrlSource>,
}

/// Which live store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfiguration {
    /// A file of the embedded database.
    Embedded {
        /// That file.
        path: PathBuf,
    },
    /// A PostgreSQL database.
    Postgres(Box<PostgresConfiguration>),
}

/// A PostgreSQL database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfiguration {
    /// Where its URL comes from.
    pub url: UrlSource,
    /// Whose rows are whose.
    pub tenancy: TenancyMap,
    /// Whether merges need no guard in the database.
    pub unguarded: bool,
    /// How many tenants of a run are written to it at once.
    pub merges_at_once: NonZeroUsize,
    /// How long it may keep a run waiting, and a run it.
    pub bounds: Bounds,
}

impl Configuration {
    /// Reads the file.
    ///
    /// # Errors
    /// Usage: if there is none, or it says something that is not understood.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("read configuration {}", path.display()))
                .because(error)
                .next("reinstate init --help")
        })?;
        Self::parse(&text, path)
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let wrong = |fact: String| {
            Failure::usage(format!("configuration {}: {fact}", path.display()))
                .next("correct the file; docs/configuration.md has every key")
        };
        let file: file::File = parse_toml(text).map_err(wrong)?;
        file.check(path).map_err(wrong)
    }
}

/// Reads a file's text strictly. The error names the line.
fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        // The parser's own rendering quotes the line, which may hold a password.
        let line = error.span().map_or(0, |span| {
            text.as_bytes()[..span.start.min(text.len())]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count()
        });
        format!("line {}: {}", line + 1, error.message())
    })
}

/// The directory that a file lies in.
fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reinstate_postgres::{ConnectionSettings, SecretUrl, TableRule, Unowned};

    const POSTGRES: &str = r#"
        version = 1
        [repository]
        url = "file:///var/lib/reinstate"
        [store]
        name = "main"
        kind = "postgres"
        url = { env = "DATABASE_URL" }
        [tenancy]
        kind = "account"
        column = "account_id"
        shared = ["currencies"]
        excluded = ["schema_migrations"]
        [tenancy.table.pgbench_accounts]
        column = "bid"
        [tenancy.table.order_items]
        via = "order_id -> orders.id"
        [tenancy.table.plans]
        shared = true
    "#;
    const EMBEDDED: &str = r#"
        version = 1
        [repository]
        url = "file:backups"
        [store]
        name = "main"
        kind = "embedded"
        path = "app.redb"
        [tenancy]
        kind = "account"
    "#;

    fn parse(text: &str) -> Result<Configuration, String> {
        let path = Path::new("/etc/reinstate.toml");
        Configuration::parse(text, path).map_err(|failure| failure.to_string())
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let message = parse(text).unwrap_err();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        assert!(
            !message.contains("s3cret"),
            "{message:?} holds the password"
        );
    }

    #[test]
    fn the_file_of_the_manual_is_understood() {
        let read = parse(POSTGRES).unwrap();
        assert_eq!(read.repository, Path::new("/var/lib/reinstate"));
        assert_eq!(read.tenant_kind.as_deref(), Some("account"));
        let StoreConfiguration::Postgres(read) = read.store else {
            panic!("not PostgreSQL");
        };
        let PostgresConfiguration {
            url,
            tenancy,
            unguarded,
            merges_at_once,
            bounds,
        } = *read;
        assert!(!unguarded);
        assert_eq!(merges_at_once.get(), 1);
        assert_eq!(bounds, Bounds::default());
        assert_eq!(url, UrlSource::Environment("DATABASE_URL".to_owned()));
        assert_eq!(tenancy.column.as_deref(), Some("account_id"));
        assert_eq!(tenancy.shared, ["currencies"]);
        assert_eq!(tenancy.excluded, ["schema_migrations"]);
        let tables: Vec<_> = tenancy.tables.iter().collect();
        assert_eq!(tables.len(), 3);
        let reference = "order_id -> orders.id".to_owned();
        assert_eq!(
            tables[0].1,
            &TableRule::Via {
                reference,
                unowned: Unowned::Refused
            }
        );
        let column = "bid".to_owned();
        assert_eq!(tables[1].1, &TableRule::Direct { column });
        assert_eq!(tables[2].1, &TableRule::Shared);
    }

    #[test]
    fn paths_are_resolved_against_the_file() {
        let read = parse(EMBEDDED).unwrap();
        assert_eq!(read.repository, Path::new("/etc/backups"));
        let path = PathBuf::from("/etc/app.redb");
        assert_eq!(read.store, StoreConfiguration::Embedded { path });
        let other = EMBEDDED.replace("file:backups", "file://./backups");
        assert_eq!(parse(&other).unwrap().repository, read.repository);
        refused(
            &EMBEDDED.replace("file:backups", "file://host/backups"),
            "file://host",
        );
        refused(&EMBEDDED.replace("file:backups", "file:"), "expected");
    }

    #[test]
    fn unknown_keys_are_named() {
        refused(&EMBEDDED.replace("path =", "paths ="), "paths");
        refused(&EMBEDDED.replace("[tenancy]", "[tenanci]"), "tenanci");
        refused(&POSTGRES.replace("shared = true", "shard = true"), "shard");
        refused(&POSTGRES.replace("env =", "environment ="), "environment");
    }

    #[test]
    fn a_password_in_the_file_is_refused_and_not_repeated() {
        let with = |url: &str| POSTGRES.replace("{ env = \"DATABASE_URL\" }", url);
        for url in [
            "\"postgres://me:s3cret@db/app\"",
            "\"postgresql://db/app?user=me&password=s3cret\"",
            "\"host=db user=me password = s3cret\"",
            "\"host=db user=me PASSWORD='s3cret'\"",
            "\"postgres://me:%733cret@db/app\"",
        ] {
            refused(&with(url), "password");
        }
        assert!(parse(&with("\"postgres://me@db:5432/app\"")).is_ok());
        assert!(parse(&with("\"host=/run/postgresql dbname=app\"")).is_ok());
        refused(&with("\"postgres://me:s3cret@db\" oops"), "line 8");
    }

    #[test]
    fn bounds_are_lengths_of_time_within_reason() {
        let with =
            |line: &str| POSTGRES.replace("name = \"main\"", &format!("name = \"m\"\n{line}"));
        let all = "connect_timeout = \"2s\"\nlock_timeout = \"250ms\"\n\
                   statement_timeout = \"1h\"\nlease = \"30m\"";
        let StoreConfiguration::Postgres(read) = parse(&with(all)).unwrap().store else {
            panic!("not PostgreSQL");
        };
        let mut settings = ConnectionSettings::new(SecretUrl::new(""), "m");
        read.bounds.set(&mut settings);
        assert_eq!(settings.connect_timeout, Duration::from_secs(2));
        assert_eq!(settings.lock_timeout, Duration::from_millis(250));
        assert_eq!(settings.statement_timeout, Duration::from_secs(3600));
        assert_eq!(settings.lease, Duration::from_secs(1800));
        for (line, says) in [
            ("lease = \"9s\"", "from 10s to 24h"),
            ("lease = \"0s\"", "store.lease"),
            ("lease = \"25h\"", "store.lease"),
            ("lock_timeout = \"0s\"", "from 10ms to 10m"),
            ("lock_timeout = \"5\"", "store.lock_timeout"),
            ("lock_timeout = \"-5s\"", "store.lock_timeout"),
            (
                "statement_timeout = \"soon\"",
                "store.statement_timeout = \"soon\"",
            ),
            ("connect_timeout = \"6m\"", "from 100ms to 5m"),
            ("lock_timeout = 5", "line 7"),
        ] {
            refused(&with(line), says);
        }
        refused(
            &EMBEDDED.replace("path =", "lease = \"1m\"\npath ="),
            "store.lease: an embedded",
        );
    }

    #[test]
    fn several_merges_at_once_are_a_number_within_reason() {
        let with = |line: &str| {
            POSTGRES.replace(
                "kind = \"postgres\"",
                &format!("kind = \"postgres\"\n{line}"),
            )
        };
        let StoreConfiguration::Postgres(read) = parse(&with("merges_at_once = 2")).unwrap().store
        else {
            panic!("not PostgreSQL");
        };
        assert_eq!(read.merges_at_once.get(), 2);
        for line in ["merges_at_once = 0", "merges_at_once = 17"] {
            refused(&with(line), "expected a number from 1 to 16");
        }
        refused(
            &EMBEDDED.replace("path =", "merges_at_once = 2\npath ="),
            "store.merges_at_once: an embedded",
        );
    }

    #[test]
    fn what_does_not_fit_the_kind_of_store_is_refused() {
        refused(&EMBEDDED.replace("path = \"app.redb\"", ""), "path");
        refused(&format!("{EMBEDDED}\ncolumn = \"x\""), "column");
        let unguarded = EMBEDDED.replace("path =", "unguarded = true\npath =");
        refused(&unguarded, "unguarded");
        refused(&POSTGRES.replace("\"postgres\"", "\"mysql\""), "mysql");
        refused(&POSTGRES.replace("version = 1", "version = 2"), "version 2");
        refused(&POSTGRES.replace("file:///var", "s3://var"), "s3://");
        refused(&POSTGRES.replace("\"account\"", "\"Account\""), "Account");
        refused(
            &POSTGRES.replace("shared = true", "shared = false"),
            "plans",
        );
        let both = POSTGRES.replace("column = \"bid\"", "column = \"bid\"\nshared = true");
        refused(&both, "pgbench_accounts");
        let twice = POSTGRES.replace("[\"currencies\"]", "[\"currencies\", \"plans\"]");
        refused(&twice, "plans");
    }
}

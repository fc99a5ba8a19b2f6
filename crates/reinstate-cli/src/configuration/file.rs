//! What the file may say, as it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reinstate::{BlockLayout, DriftRules, TableDriftRules};
use reinstate_core::TenantKind;
use reinstate_postgres::{RouteRule, TableRule, TenancyMap, Unowned};
use serde::Deserialize;

use super::bounds::{BoundTexts, length};
use super::{Configuration, PostgresConfiguration, StoreConfiguration, UrlSource, directory_of};

/// The version of the file that is understood.
const VERSION: u32 = 1;

/// How many tenants may be written to a store at once at most.
const MERGES_AT_ONCE_MAX: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    version: u32,
    repository: Repository,
    store: Store,
    tenancy: Option<Tenancy>,
    #[serde(default)]
    drift: Drift,
    #[serde(default)]
    restore: Restore,
    #[serde(default)]
    into: super::into::Into,
    #[serde(default)]
    capture: Capture,
    #[serde(default)]
    drill: Drill,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drill {
    into: Option<UrlSource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Capture {
    base_every: Option<String>,
    #[serde(default)]
    layout: Layout,
}

/// In which order blocks of snapshots have the bytes of their rows.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Layout {
    #[default]
    Rows,
    Columns,
}

impl From<Layout> for BlockLayout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Rows => Self::Rows,
            Layout::Columns => Self::Columns,
        }
    }
}

impl Capture {
    /// How often a log gets a younger snapshot.
    fn base_every(&self) -> Result<Option<Duration>, String> {
        let Some(text) = &self.base_every else {
            return Ok(None);
        };
        let wrong = || {
            format!(
                "capture.base_every = {text:?}: expected a length of time of a minute at least, as in \
                 \"24h\" or \"7 days\""
            )
        };
        let length = length(text).ok_or_else(wrong)?;
        if length < Duration::from_secs(60) {
            return Err(wrong());
        }
        Ok(Some(length))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repository {
    url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    name: String,
    kind: String,
    url: Option<UrlSource>,
    path: Option<PathBuf>,
    unguarded: Option<bool>,
    merges_at_once: Option<usize>,
    connect_timeout: Option<String>,
    lock_timeout: Option<String>,
    statement_timeout: Option<String>,
    lease: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tenancy {
    kind: String,
    column: Option<String>,
    #[serde(default)]
    shared: Vec<String>,
    #[serde(default)]
    excluded: Vec<String>,
    #[serde(default)]
    allowed_triggers: Vec<String>,
    #[serde(default)]
    search_path: Vec<String>,
    #[serde(default)]
    silenced_triggers: Vec<String>,
    #[serde(default)]
    create_missing: Vec<String>,
    #[serde(default)]
    crossing: Vec<String>,
    #[serde(default)]
    counters: Vec<String>,
    #[serde(default)]
    sequences: BTreeMap<String, String>,
    #[serde(default)]
    table: BTreeMap<String, Table>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    column: Option<String>,
    via: Option<String>,
    one_of: Option<Vec<Way>>,
    unowned: Option<UnownedText>,
    shared: Option<bool>,
    excluded: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    when: Option<String>,
    via: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UnownedText {
    Shared,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drift {
    #[serde(default)]
    renamed: BTreeMap<String, String>,
    #[serde(default)]
    dropped: BTreeSet<String>,
    #[serde(default)]
    table: BTreeMap<String, TableDrift>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableDrift {
    #[serde(default)]
    renamed: BTreeMap<String, String>,
    #[serde(default)]
    dropped: BTreeSet<String>,
    #[serde(default)]
    values: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    check_owners: Option<bool>,
}

impl From<Drift> for DriftRules {
    fn from(drift: Drift) -> Self {
        let rules = |(name, table): (String, TableDrift)| {
            let rules = TableDriftRules {
                renamed: table.renamed,
                dropped: table.dropped,
                values: table.values,
            };
            (name, rules)
        };
        Self {
            renamed: drift.renamed,
            dropped: drift.dropped,
            tables: drift.table.into_iter().map(rules).collect(),
        }
    }
}

impl File {
    /// Checks what the grammar does not. The error is what is wrong, without the file's name.
    pub(super) fn check(self, path: &Path) -> Result<Configuration, String> {
        if self.version != VERSION {
            return Err(format!("version {}: expected {VERSION}", self.version));
        }
        if self.store.name.is_empty() {
            return Err("store.name is empty".to_owned());
        }
        let directory = directory_of(path);
        let tenant_kind = self.tenancy.as_ref().map(|tenancy| tenancy.kind.clone());
        if let Some(kind) = &tenant_kind {
            TenantKind::parse(kind).map_err(|error| format!("tenancy.kind: {error}"))?;
        }
        Ok(Configuration {
            path: path.to_owned(),
            repository: directory.join(repository_path(&self.repository.url)?),
            store_name: self.store.name.clone(),
            store: check_store(self.store, self.tenancy, directory)?,
            tenant_kind,
            drift: self.drift.into(),
            check_owners: self.restore.check_owners.unwrap_or(true),
            into: self.into.into(),
            base_every: self.capture.base_every()?,
            layout: self.capture.layout.into(),
            drill_into: self.drill.into.map(|url| url.beside(directory)),
        })
    }
}

/// `file:///absolute`, or `file:relative` and `file://./relative` beside the configuration.
pub(super) fn repository_path(url: &str) -> Result<PathBuf, String> {
    let wrong = || {
        format!(
            "repository.url {url:?}: expected file:///ABSOLUTE/PATH, or file:PATH beside this file"
        )
    };
    let rest = url.strip_prefix("file:").ok_or_else(wrong)?;
    let path = match rest.strip_prefix("//") {
        Some(path)
            if ["/", "./", "../"]
                .iter()
                .any(|start| path.starts_with(start)) =>
        {
            path
        }
        Some(_) => return Err(wrong()),
        None => rest,
    };
    match path.strip_prefix("./").unwrap_or(path) {
        "" => Err(wrong()),
        path => Ok(PathBuf::from(path)),
    }
}

fn check_merges(at_once: Option<usize>) -> Result<NonZeroUsize, String> {
    let at_once = at_once.unwrap_or(1);
    let within = NonZeroUsize::new(at_once).filter(|at_once| at_once.get() <= MERGES_AT_ONCE_MAX);
    within.ok_or_else(|| {
        format!(
            "store.merges_at_once = {at_once}: expected a number from 1 to {MERGES_AT_ONCE_MAX}"
        )
    })
}

fn check_store(
    store: Store,
    tenancy: Option<Tenancy>,
    directory: &Path,
) -> Result<StoreConfiguration, String> {
    let bounds = BoundTexts {
        connect_timeout: store.connect_timeout,
        lock_timeout: store.lock_timeout,
        statement_timeout: store.statement_timeout,
        lease: store.lease,
    };
    match store.kind.as_str() {
        "embedded" => {
            if store.url.is_some() {
                return Err("store.url: an embedded store has a path instead".to_owned());
            }
            if store.unguarded.is_some() {
                return Err("store.unguarded: an embedded store guards itself".to_owned());
            }
            if store.merges_at_once.is_some() {
                let fact = "an embedded store has one writer at a time";
                return Err(format!("store.merges_at_once: {fact}"));
            }
            if let Some(key) = bounds.first() {
                let fact = "an embedded store has no server, and no locks to wait for";
                return Err(format!("store.{key}: {fact}"));
            }
            let path = store
                .path
                .ok_or("store.path is missing: the file of the embedded store")?;
            if let Some(tenancy) = tenancy {
                tenancy.check_only_kind()?;
            }
            let path = directory.join(path);
            Ok(StoreConfiguration::Embedded { path })
        }
        "postgres" => {
            if store.path.is_some() {
                return Err("store.path: a PostgreSQL store has a url instead".to_owned());
            }
            let url = store.url.ok_or("store.url is missing")?;
            let url = url.beside(directory);
            let tenancy = tenancy.ok_or("the section [tenancy] is missing")?;
            let tenancy = tenancy.check_postgres()?;
            let unguarded = store.unguarded.unwrap_or(false);
            Ok(StoreConfiguration::Postgres(Box::new(
                PostgresConfiguration {
                    url,
                    tenancy,
                    unguarded,
                    merges_at_once: check_merges(store.merges_at_once)?,
                    bounds: bounds.check()?,
                },
            )))
        }
        other => Err(format!(
            "store.kind {other:?}: expected \"embedded\" or \"postgres\""
        )),
    }
}

impl Tenancy {
    fn check_only_kind(&self) -> Result<(), String> {
        let surplus = [
            ("column", self.column.is_some()),
            ("shared", !self.shared.is_empty()),
            ("excluded", !self.excluded.is_empty()),
            ("table", !self.table.is_empty()),
            ("allowed_triggers", !self.allowed_triggers.is_empty()),
            ("search_path", !self.search_path.is_empty()),
            ("silenced_triggers", !self.silenced_triggers.is_empty()),
            ("create_missing", !self.create_missing.is_empty()),
            ("crossing", !self.crossing.is_empty()),
            ("counters", !self.counters.is_empty()),
            ("sequences", !self.sequences.is_empty()),
        ];
        match surplus.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(format!(
                "tenancy.{key}: an embedded store keeps every row's owner itself"
            )),
            None => Ok(()),
        }
    }

    fn check_postgres(self) -> Result<TenancyMap, String> {
        let mut seen = BTreeMap::new();
        let listed = self.shared.iter().map(|name| (name, "tenancy.shared"));
        let listed = listed.chain(self.excluded.iter().map(|name| (name, "tenancy.excluded")));
        let listed = listed.chain(
            self.table
                .keys()
                .map(|name| (name, "a [tenancy.table] of its own")),
        );
        for (name, place) in listed {
            if let Some(other) = seen.insert(name, place) {
                return Err(format!("table {name} is in {other} and in {place}"));
            }
        }
        let tables = self
            .table
            .into_iter()
            .map(|(name, table)| {
                let tenancy = table
                    .check()
                    .map_err(|fact| format!("tenancy.table.{name}: {fact}"))?;
                Ok((name, tenancy))
            })
            .collect::<Result<_, String>>()?;
        let kind = TenantKind::parse(&self.kind).map_err(|error| error.to_string())?;
        let mut map = TenancyMap::new(kind);
        map.column = self.column;
        map.shared = self.shared;
        map.excluded = self.excluded;
        map.tables = tables;
        map.allowed_triggers = self.allowed_triggers;
        map.search_path = self.search_path;
        map.silenced_triggers = self.silenced_triggers;
        map.create_missing = self.create_missing;
        map.crossing = self.crossing;
        map.counters = self.counters;
        map.sequences = self.sequences;
        Ok(map)
    }
}

impl Table {
    fn check(self) -> Result<TableRule, String> {
        if self.shared == Some(false) || self.excluded == Some(false) {
            return Err("shared and excluded can only be true".to_owned());
        }
        let unowned = match self.unowned {
            Some(UnownedText::Shared) => Unowned::Shared,
            None => Unowned::Refused,
        };
        let is_way = self.via.is_some() || self.one_of.is_some();
        if self.unowned.is_some() && !is_way {
            return Err("unowned goes with via and one_of".to_owned());
        }
        let said = [
            self.column.map(|column| TableRule::Direct { column }),
            self.via
                .map(|reference| TableRule::Via { reference, unowned }),
            self.one_of.map(|ways| TableRule::OneOf {
                routes: ways.into_iter().map(Way::into_rule).collect(),
                unowned,
            }),
            self.shared.map(|_| TableRule::Shared),
            self.excluded.map(|_| TableRule::Excluded),
        ];
        let mut said = said.into_iter().flatten();
        match (said.next(), said.next()) {
            (Some(tenancy), None) => Ok(tenancy),
            _ => Err("expected exactly one of column, via, one_of, shared, excluded".to_owned()),
        }
    }
}

impl Way {
    fn into_rule(self) -> RouteRule {
        let Self { when, via } = self;
        RouteRule { when, via }
    }
}

//! The estate file `estate.toml`: the stores that a site lives in, and what it has to pass.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use reinstate::{
    CampaignAction, CampaignCheck, CampaignGate, CampaignLink, CampaignStep, PaceLimits,
};
use reinstate_core::TenantKind;
use serde::Deserialize;

use super::bounds::length;
use super::file::repository_path;
use super::{directory_of, parse_toml};
use crate::failure::Failure;

/// Where the estate is looked for when nobody says.
pub const ESTATE_PATH: &str = "estate.toml";

/// The version of the file that is understood.
const VERSION: u32 = 1;
/// How many sites are planned together unless the file says.
const BATCH_SIZE: u32 = 60;
/// The most that can be planned together: their images are held at once.
const BATCH_SIZE_MAX: u32 = 10_000;
/// How many sites one person may approve unless the file says.
const SECOND_APPROVAL_ABOVE: u32 = 100;
/// How many sites are written to one store at once unless the file says.
const CONCURRENCY: u32 = 2;
/// The most: each is a connection and a transaction.
const CONCURRENCY_MAX: u32 = 256;
/// How long a step may take unless the file says.
const TIMEOUT_SECONDS: u32 = 60;

/// How the names of gates begin that every campaign has.
const OWN_GATES: [&str; 2] = ["references, phase", "counters, phase"];

/// An estate: stores that have parts of the same sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EstateConfiguration {
    /// The file it was read from.
    pub path: PathBuf,
    /// What its operators call it.
    pub name: String,
    /// What kind of id the sites have.
    pub kind: TenantKind,
    /// The repository that keeps campaigns and their journals.
    pub repository: PathBuf,
    /// How many sites are planned together.
    pub batch_size: u32,
    /// How many sites one person may approve.
    pub second_approval_above: u32,
    /// The stores, by phase, and in the order of the file within one.
    pub stores: Vec<EstateStoreConfiguration>,
    /// What a site has to pass.
    pub gates: Vec<CampaignGate>,
    /// Which columns refer to rows of other stores.
    pub links: Vec<CampaignLink>,
    /// What closes a site.
    pub close: Option<CampaignAction>,
    /// What opens it.
    pub open: Option<CampaignAction>,
}

/// A store of an estate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EstateStoreConfiguration {
    /// What the estate calls it.
    pub name: String,
    /// Its own configuration.
    pub configuration: PathBuf,
    /// 1 metadata, 2 customer data, 3 ecosystem.
    pub phase: u8,
    /// How many sites are written to it at once.
    pub concurrency: u32,
    /// How fast it may be written to unless somebody says otherwise.
    pub pace: PaceLimits,
    /// How a site's id becomes the tenant's id there.
    pub ids: IdRule,
    /// Under which id a site is restored there if somebody else has its own by now, where that is allowed.
    pub ids_if_taken: Option<IdRule>,
    /// Whether a site may be without rows in it.
    pub may_be_absent: bool,
}

/// How a site's id becomes the tenant's id in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdRule {
    /// It is the same.
    Same,
    /// It is this text, with the site's id in place of `{id}`.
    Template(String),
    /// A file has it: a site, a tab or a comma, and the tenant's id, a line each.
    File(PathBuf),
    /// The store's database answers this query with it.
    Sql(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    name: String,
    kind: String,
    repository: Repository,
    #[serde(default)]
    campaign: Campaign,
    #[serde(default)]
    store: Vec<Store>,
    #[serde(default)]
    gate: Vec<Gate>,
    #[serde(default)]
    link: Vec<Link>,
    close: Option<Step>,
    open: Option<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Repository {
    url: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Campaign {
    batch: Option<u32>,
    second_approval_above: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    name: String,
    configuration: PathBuf,
    phase: u8,
    concurrency: Option<u32>,
    rows_per_second: Option<NonZeroU64>,
    latency_max: Option<String>,
    ids: Option<Ids>,
    ids_if_taken: Option<Ids>,
    #[serde(default)]
    may_be_absent: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ids {
    template: Option<String>,
    file: Option<PathBuf>,
    sql: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gate {
    name: String,
    phase: u8,
    store: Option<String>,
    sql: Option<String>,
    expect: Option<String>,
    command: Option<Vec<String>>,
    #[serde(default)]
    acceptance: bool,
    timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    store: Option<String>,
    sql: Option<String>,
    command: Option<Vec<String>>,
    timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    from: End,
    to: End,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    store: String,
    table: String,
    column: String,
}

impl EstateConfiguration {
    /// Reads the file.
    ///
    /// # Errors
    /// Usage: if there is none, or it says something that is not understood.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("read estate {}", path.display()))
                .because(error)
                .next("write one: docs/campaigns.md has an example; or name it with --estate FILE")
        })?;
        let wrong = |fact: String| {
            Failure::usage(format!("estate {}: {fact}", path.display()))
                .next("correct the file; docs/campaigns.md has every key")
        };
        let file: File = parse_toml(&text).map_err(wrong)?;
        file.check(path).map_err(wrong)
    }
}

impl File {
    /// Checks what the grammar does not. The error is what is wrong, without the file's name.
    fn check(self, path: &Path) -> Result<EstateConfiguration, String> {
        if self.version != VERSION {
            return Err(format!("version {}: expected {VERSION}", self.version));
        }
        if self.name.is_empty() {
            return Err("name is empty".to_owned());
        }
        let kind = TenantKind::parse(&self.kind).map_err(|error| format!("kind: {error}"))?;
        let directory = directory_of(path);
        let stores = check_stores(self.store, directory)?;
        let gates = self.gate.into_iter().map(|gate| {
            let name = gate.name.clone();
            let checked = gate.check(&stores);
            checked.map_err(|fact| format!("gate {name:?}: {fact}"))
        });
        let gates = gates.collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = gates.iter().find(|gate| !names.insert(&gate.name)) {
            return Err(format!("gate {:?} is there twice", twice.name));
        }
        let links = self.link.into_iter().map(|link| link.check(&stores));
        let step = |name: &str, step: Option<Step>| {
            let checked = step.map(|step| step.check(&stores));
            checked
                .transpose()
                .map_err(|fact| format!("{name}: {fact}"))
        };
        Ok(EstateConfiguration {
            path: path.to_owned(),
            name: self.name,
            kind,
            repository: directory.join(repository_path(&self.repository.url)?),
            batch_size: within(
                "campaign.batch",
                self.campaign.batch,
                BATCH_SIZE,
                BATCH_SIZE_MAX,
            )?,
            second_approval_above: self
                .campaign
                .second_approval_above
                .unwrap_or(SECOND_APPROVAL_ABOVE),
            gates,
            links: links.collect::<Result<_, _>>()?,
            close: step("close", self.close)?,
            open: step("open", self.open)?,
            stores,
        })
    }
}

/// A number from 1 to the most.
fn within(key: &str, number: Option<u32>, default: u32, most: u32) -> Result<u32, String> {
    let number = number.unwrap_or(default);
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(format!("{key} = {number}: expected 1 to {most}"))
}

fn check_phase(phase: u8) -> Result<u8, String> {
    if (1..=3).contains(&phase) {
        return Ok(phase);
    }
    Err(format!(
        "phase {phase}: expected 1 (metadata), 2 (customer data) or 3 (ecosystem)"
    ))
}

fn check_stores(
    stores: Vec<Store>,
    directory: &Path,
) -> Result<Vec<EstateStoreConfiguration>, String> {
    if stores.is_empty() {
        return Err("there is no [[store]]".to_owned());
    }
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(stores.len());
    for store in stores {
        let name = store.name;
        if name.is_empty() || !names.insert(name.clone()) {
            return Err(format!("store {name:?} is there twice, or has no name"));
        }
        let wrong = |fact: String| format!("store {name:?}: {fact}");
        checked.push(EstateStoreConfiguration {
            configuration: directory.join(store.configuration),
            phase: check_phase(store.phase).map_err(wrong)?,
            concurrency: within(
                "concurrency",
                store.concurrency,
                CONCURRENCY,
                CONCURRENCY_MAX,
            )
            .map_err(wrong)?,
            pace: PaceLimits {
                rows_per_second: store.rows_per_second,
                latency_max: store
                    .latency_max
                    .map(|text| crate::pacing::parse_length(&text))
                    .transpose()
                    .map_err(|fact| wrong(format!("latency_max: {fact}")))?,
            },
            ids: check_ids(store.ids, directory).map_err(wrong)?,
            ids_if_taken: store
                .ids_if_taken
                .map(|ids| check_ids(Some(ids), directory))
                .transpose()
                .map_err(|fact| wrong(format!("ids_if_taken: {fact}")))?,
            may_be_absent: store.may_be_absent,
            name,
        });
    }
    checked.sort_by_key(|store| store.phase);
    Ok(checked)
}

fn check_ids(ids: Option<Ids>, directory: &Path) -> Result<IdRule, String> {
    let Some(Ids {
        template,
        file,
        sql,
    }) = ids
    else {
        return Ok(IdRule::Same);
    };
    match (template, file, sql) {
        (Some(template), None, None) if template.contains("{id}") => Ok(IdRule::Template(template)),
        (Some(template), None, None) => Err(format!("ids.template {template:?} lacks {{id}}")),
        (None, Some(file), None) => Ok(IdRule::File(directory.join(file))),
        (None, None, Some(sql)) => Ok(IdRule::Sql(sql)),
        _ => Err("ids: expected exactly one of template, file, sql".to_owned()),
    }
}

fn place_of(stores: &[EstateStoreConfiguration], name: &str) -> Result<u32, String> {
    let place = stores.iter().position(|store| store.name == name);
    place
        .and_then(|place| u32::try_from(place).ok())
        .ok_or_else(|| format!("there is no store {name:?}"))
}

impl Step {
    fn check(self, stores: &[EstateStoreConfiguration]) -> Result<CampaignAction, String> {
        let step = match (self.store, self.sql, self.command) {
            (Some(store), Some(text), None) => CampaignStep::Sql {
                store: place_of(stores, &store)?,
                text,
            },
            (None, None, Some(words)) if !words.is_empty() => CampaignStep::Command(words),
            _ => return Err("expected store and sql, or a command".to_owned()),
        };
        Ok(CampaignAction {
            step,
            timeout_seconds: self
                .timeout
                .map_or(Ok(TIMEOUT_SECONDS), |text| seconds(&text))?,
        })
    }
}

impl Gate {
    fn check(self, stores: &[EstateStoreConfiguration]) -> Result<CampaignGate, String> {
        let phase = check_phase(self.phase)?;
        if OWN_GATES.iter().any(|own| self.name.starts_with(own)) {
            return Err("checks of our own are called so: give it another name".to_owned());
        }
        if !stores.iter().any(|store| store.phase == phase) {
            return Err(format!("there is no store of phase {phase}"));
        }
        let check = if self.acceptance {
            if self.sql.is_some() || self.command.is_some() || self.timeout.is_some() {
                return Err("an acceptance waits for somebody: nothing is run".to_owned());
            }
            CampaignCheck::Acceptance
        } else {
            if self.sql.is_some() != self.expect.is_some() {
                return Err("sql and expect go together".to_owned());
            }
            let step = Step {
                store: self.store,
                sql: self.sql,
                command: self.command,
                timeout: self.timeout,
            };
            let action = step.check(stores)?;
            CampaignCheck::Step {
                step: action.step,
                expected: self.expect.unwrap_or_default(),
                timeout_seconds: action.timeout_seconds,
            }
        };
        Ok(CampaignGate {
            name: self.name,
            phase,
            check,
        })
    }
}

impl Link {
    fn check(self, stores: &[EstateStoreConfiguration]) -> Result<CampaignLink, String> {
        Ok(CampaignLink {
            store: place_of(stores, &self.from.store)?,
            table: self.from.table,
            column: self.from.column,
            parent_store: place_of(stores, &self.to.store)?,
            parent_table: self.to.table,
            parent_column: self.to.column,
        })
    }
}

/// A length of time in whole seconds, as in `30s` or `2m`.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong =
        || format!("timeout {text:?}: expected a length of time of a second at least, as in 30s");
    let length = length(text).ok_or_else(wrong)?;
    match u32::try_from(length.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ESTATE: &str = r#"
        version = 1
        name = "shop"
        kind = "site"
        [repository]
        url = "file:campaigns"
        [[store]]
        name = "orders"
        configuration = "orders/reinstate.toml"
        phase = 2
        ids = { template = "c-{id}" }
        [[store]]
        name = "sites"
        configuration = "sites/reinstate.toml"
        phase = 1
        concurrency = 4
        rows_per_second = 5000
        latency_max = "20ms"
        [[gate]]
        name = "orders"
        phase = 2
        store = "orders"
        sql = "SELECT 1"
        expect = "1"
        timeout = "2m"
        [[gate]]
        name = "customer"
        phase = 2
        acceptance = true
        [[link]]
        from = { store = "orders", table = "orders", column = "site_id" }
        to = { store = "sites", table = "sites", column = "id" }
        [open]
        command = ["./open", "{site}"]
    "#;

    fn parse(text: &str) -> Result<EstateConfiguration, String> {
        let file: File = parse_toml(text)?;
        file.check(Path::new("/etc/estate.toml"))
    }

    #[track_caller]
    fn refused(from: &str, to: &str, expected: &str) {
        assert!(ESTATE.contains(from), "{from}");
        let message = parse(&ESTATE.replace(from, to)).unwrap_err();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn stores_go_by_phase_and_what_names_them_follows() {
        let estate = parse(ESTATE).unwrap();
        let names: Vec<_> = estate.stores.iter().map(|store| &store.name).collect();
        assert_eq!(names, ["sites", "orders"]);
        assert_eq!(estate.repository, Path::new("/etc/campaigns"));
        assert_eq!((estate.batch_size, estate.stores[0].concurrency), (60, 4));
        let pace = estate.stores[0].pace;
        assert_eq!(pace.latency_max, Some(Duration::from_millis(20)));
        assert_eq!(pace.rows_per_second, NonZeroU64::new(5000));
        assert_eq!(estate.stores[1].pace, PaceLimits::default());
        assert_eq!(
            (estate.links[0].store, estate.links[0].parent_store),
            (1, 0)
        );
        let CampaignCheck::Step {
            step: CampaignStep::Sql { store, .. },
            timeout_seconds,
            ..
        } = &estate.gates[0].check
        else {
            panic!("{:?}", estate.gates[0]);
        };
        assert_eq!((*store, *timeout_seconds), (1, 120));
        assert_eq!(estate.gates[1].check, CampaignCheck::Acceptance);
        assert_eq!(estate.open.unwrap().timeout_seconds, TIMEOUT_SECONDS);
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        refused("version = 1", "version = 2", "version 2");
        refused("phase = 1", "phase = 4", "phase 4");
        refused("\"sites\"\n", "\"orders\"\n", "twice");
        refused("c-{id}", "c-", "lacks {id}");
        refused("concurrency = 4", "concurrency = 0", "1 to 256");
        refused("concurrency = 4", "concurency = 4", "concurency");
        refused("rows_per_second = 5000", "rows_per_second = 0", "zero");
        refused("\"20ms\"", "\"20\"", "latency_max");
        refused("expect = \"1\"", "", "expect");
        refused("timeout = \"2m\"", "timeout = \"0s\"", "timeout");
        refused("acceptance = true", "", "expected store and sql");
        refused("name = \"customer\"", "name = \"orders\"", "twice");
        let own = "name = \"counters, phase 2\"";
        refused("name = \"customer\"", own, "another name");
        let from = "from = { store = \"orders\"";
        refused(from, "from = { store = \"nowhere\"", "nowhere");
        refused("[\"./open\", \"{site}\"]", "[]", "open: expected");
    }
}

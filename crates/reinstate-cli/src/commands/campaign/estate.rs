//! An estate that is open: its stores, their repositories, and the repository of its campaigns.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use reinstate::{
    CampaignDescription, StoredCampaign, audit_journal, campaigns, check_journals, refuse,
};
use reinstate_core::{ErrorKind, LiveStore, RepositoryId, Tenant};
use reinstate_postgres::PostgresStore;
use reinstate_repository::{LocalRepository, RepositoryLock};

use crate::adapters;
use crate::arguments::{Global, OfCampaign, OfEstate};
use crate::configuration::{
    Configuration, EstateConfiguration, EstateStoreConfiguration, StoreConfiguration,
};
use crate::console::Console;
use crate::failure::{Failure, one_line};
use crate::holder;
use crate::point::PREFIX_DIGITS_MIN;
use crate::session::{Engine, now, random};
use crate::signals::Interruption;

/// The lock of whoever runs a campaign: one at a time in a repository.
const CAMPAIGN_LOCK: &str = "campaign";

/// What the commands about campaigns work with.
#[derive(Debug)]
pub struct Estate<'a> {
    /// Where words go.
    pub console: &'a Console,
    /// Who may stop it.
    pub interruption: &'a Interruption,
    /// Threads and memory.
    pub engine: Engine,
    /// The estate file.
    pub configuration: EstateConfiguration,
    /// Where campaigns are kept.
    pub repository: LocalRepository,
    /// Who asks.
    pub actor: String,
    /// The stores, as soon as they are open.
    opened: OnceLock<Vec<OpenStore>>,
}

/// A store of an estate that is open.
pub struct OpenStore {
    /// What the estate says of it.
    pub of: EstateStoreConfiguration,
    /// Its own configuration.
    pub configuration: Configuration,
    /// Its repository.
    pub repository: LocalRepository,
    /// The live store.
    pub live: Arc<dyn LiveStore>,
    /// The same, for statements, if it is a PostgreSQL database.
    pub postgres: Option<PostgresStore>,
}

impl fmt::Debug for OpenStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "OpenStore({})", self.of.name)
    }
}

impl<'a> Estate<'a> {
    /// Reads the estate file and opens the repository of its campaigns; makes that if it is not there.
    ///
    /// # Errors
    /// Usage.
    pub fn open(
        of: &OfEstate,
        global: &Global,
        console: &'a Console,
        interruption: &'a Interruption,
    ) -> anyhow::Result<Self> {
        let configuration = EstateConfiguration::read(&of.estate)?;
        let path = &configuration.repository;
        let repository = match LocalRepository::open(path) {
            Ok(repository) => repository,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let id = RepositoryId::from_bytes(random()?);
                let made = LocalRepository::init(path, id, now())?;
                console.note(format_args!("made repository {}", path.display()));
                made
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            console,
            interruption,
            engine: Engine::start(global)?,
            configuration,
            repository,
            actor: actor(of),
            opened: OnceLock::new(),
        })
    }

    /// The same estate with stores that are open already: by whoever wants to write to them meanwhile.
    #[must_use]
    pub fn with_stores(mut self, stores: Vec<OpenStore>) -> Self {
        self.opened = OnceLock::from(stores);
        self
    }

    /// Every store, in the order of the estate; opened when they are asked for first.
    ///
    /// # Errors
    /// As the first store that cannot be opened reports it; the message names it.
    pub fn stores(&self) -> anyhow::Result<&[OpenStore]> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let stores = &self.configuration.stores;
        let cache_bytes = self.engine.cache_bytes() / stores.len();
        let opened = stores.iter().map(|store| {
            open_store(store, cache_bytes).map_err(|error| {
                error.context(format!("open store {:?} of the estate", store.name))
            })
        });
        let opened = opened.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(self.opened.get_or_init(|| opened))
    }

    /// Finds a campaign by the first digits of its id.
    ///
    /// # Errors
    /// `NotFound` if none or several begin like this.
    pub fn find(&self, prefix: &str) -> anyhow::Result<StoredCampaign> {
        let digits = prefix.to_ascii_lowercase();
        if digits.len() < PREFIX_DIGITS_MIN {
            let message =
                format!("campaign {prefix:?}: at least {PREFIX_DIGITS_MIN} digits are needed");
            return Err(Failure::usage(message)
                .next("reinstate campaign status")
                .into());
        }
        let mut found = campaigns(&self.repository)?;
        found.retain(|found| id_of(found.description()).starts_with(&digits));
        if found.len() > 1 {
            let ids: Vec<_> = found
                .iter()
                .map(|found| id_of(found.description()))
                .collect();
            let message = format!("{digits:?} begins several campaigns: {}", ids.join(", "));
            return Err(Failure::new(ErrorKind::NotFound, message)
                .next("type more digits")
                .into());
        }
        found.pop().ok_or_else(|| {
            let message = format!("no campaign begins with {digits:?}");
            Failure::new(ErrorKind::NotFound, message)
                .next("reinstate campaign status")
                .into()
        })
    }

    /// The campaign that begins like this; the last one that was planned if none is named.
    ///
    /// # Errors
    /// As [`find`](Self::find); `NotFound` if there is none at all.
    pub fn find_or_last(&self, prefix: Option<&str>) -> anyhow::Result<StoredCampaign> {
        let Some(prefix) = prefix else {
            return campaigns(&self.repository)?.pop().ok_or_else(|| {
                Failure::new(ErrorKind::NotFound, "there is no campaign yet")
                    .next("reinstate campaign plan --help")
                    .into()
            });
        };
        self.find(prefix)
    }

    /// Makes sure that nothing was taken out of the journals.
    ///
    /// # Errors
    /// `Corrupt` if something was.
    pub fn check_journals(&self) -> anyhow::Result<()> {
        let checked = check_journals(&self.repository);
        Ok(checked.map_err(|error| {
            let message = format!("repository {}: {error}", self.repository.path().display());
            Failure::new(error.kind(), message).next(
                "put the repository back from its own backup, and look at who can write to it",
            )
        })?)
    }

    /// Keeps other runs of campaigns away until it is dropped.
    ///
    /// # Errors
    /// `Locked` if one is at work.
    pub fn lock(&self) -> Result<RepositoryLock, Failure> {
        holder::lock(&self.repository, CAMPAIGN_LOCK, || {
            let watch = "watch it: reinstate campaign status";
            format!("another process runs a campaign of this estate ({watch})")
        })
    }

    /// Notes that somebody was refused before there was a campaign, and hands the error on.
    pub fn note_refusal(&self, what: &str, error: anyhow::Error) -> anyhow::Error {
        let fact = format!("{what}: {}", one_line(error.as_ref()));
        let noted = audit_journal(&self.repository)
            .map(|journal| refuse(&journal, &self.actor, now(), ErrorKind::Refused, fact));
        match noted {
            Ok(_) => error,
            Err(lost) => error.context(format!("write down what was refused: {lost}")),
        }
    }
}

/// The whole id of a campaign.
fn id_of(campaign: &CampaignDescription) -> String {
    campaign.campaign.to_string()
}

/// Opens the estate and finds a campaign in it, to say or do something about it.
///
/// # Errors
/// As [`Estate::open`] and [`Estate::find`]; `Corrupt` if the journals are not whole.
pub fn open_campaign<'a>(
    which: &OfCampaign,
    global: &Global,
    console: &'a Console,
    interruption: &'a Interruption,
) -> anyhow::Result<(Estate<'a>, StoredCampaign)> {
    let estate = Estate::open(&which.of, global, console, interruption)?;
    estate.check_journals()?;
    let campaign = estate.find(&which.campaign)?;
    Ok((estate, campaign))
}

fn open_store(of: &EstateStoreConfiguration, cache_bytes: usize) -> anyhow::Result<OpenStore> {
    let configuration = Configuration::read(&of.configuration)?;
    let repository = adapters::open_repository(&configuration.repository)?;
    let (live, postgres): (Arc<dyn LiveStore>, _) = match &configuration.store {
        StoreConfiguration::Postgres(settings) => {
            let store = crate::postgres::connect(&configuration.store_name, settings)?;
            adapters::check(&configuration, &store)?;
            (Arc::new(store.clone()), Some(store))
        }
        StoreConfiguration::Embedded { .. } => {
            let store = adapters::open_store(&configuration, cache_bytes)?;
            (Arc::from(store), None)
        }
    };
    Ok(OpenStore {
        of: of.clone(),
        configuration,
        repository,
        live,
        postgres,
    })
}

/// The stores of a campaign in the order of its plan, by name.
///
/// # Errors
/// Usage if the estate has no store of that name any more.
pub fn in_order<'s>(
    campaign: &CampaignDescription,
    stores: &'s [OpenStore],
) -> Result<Vec<&'s OpenStore>, Failure> {
    let planned = campaign.stores.iter().map(|planned| {
        let open = stores.iter().find(|open| open.of.name == planned.name);
        open.ok_or_else(|| {
            let message = format!(
                "the campaign was planned for a store {:?}, which the estate does not have",
                planned.name
            );
            Failure::usage(message).next("put it back into the estate file")
        })
    });
    planned.collect()
}

/// Keeps other merges and captures away from the repositories of all stores.
///
/// # Errors
/// `Locked` if one is at work.
pub fn lock_all(stores: &[OpenStore]) -> Result<Vec<RepositoryLock>, Failure> {
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut locks = Vec::new();
    for store in stores {
        if seen.insert(store.repository.path().to_owned()) {
            locks.push(adapters::lock(&store.repository)?);
        }
    }
    Ok(locks)
}

/// A site of an estate, from what was typed.
///
/// # Errors
/// Usage if it is of another kind.
pub fn check_kind(estate: &EstateConfiguration, sites: &[Tenant]) -> Result<(), Failure> {
    let other: Vec<String> = sites
        .iter()
        .filter(|site| site.kind != estate.kind)
        .map(ToString::to_string)
        .collect();
    if other.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} of {} ids are not of kind {:?}: {}",
        other.len(),
        sites.len(),
        estate.kind.as_str(),
        other
            .iter()
            .take(10)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    );
    Err(Failure::usage(message).next("give the ids of sites; nothing was done"))
}

/// Who asks.
fn actor(of: &OfEstate) -> String {
    use std::os::unix::fs::MetadataExt;
    if let Some(actor) = &of.actor {
        return actor.clone();
    }
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        (!value.is_empty()).then_some(value)
    });
    named.unwrap_or_else(|| match std::fs::metadata("/proc/self") {
        Ok(metadata) => format!("uid {}", metadata.uid()),
        Err(_) => "unknown".to_owned(),
    })
}

//! The estate of the demo: three stores that have parts of the same sites, each with ids of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use reinstate_core::{LiveStore, RepositoryId, TenantKind};
use reinstate_embedded::EmbeddedStore;
use reinstate_repository::LocalRepository;
use reinstate_synthetic::{Flavour, SpecError, SyntheticSpec, SyntheticStore};

use crate::adapters;
use crate::arguments::{Demo, Global, OfEstate};
use crate::commands::campaign::{Estate, OpenStore};
use crate::configuration::Configuration;
use crate::console::Console;
use crate::progress::Progress;
use crate::session::{now, random};
use crate::signals::Interruption;
use crate::synthetic::create_embedded;

/// The estate file, and what `campaign` looks for.
pub const ESTATE: &str = "estate.toml";
/// How unequal the tenants are.
const SKEW: f64 = 1.0;

/// What one of the stores is like.
#[derive(Debug)]
struct Part {
    name: &'static str,
    phase: u8,
    kind: &'static str,
    /// What a site's id has in front of it there.
    prefix: &'static str,
    /// Its part of all rows, in hundredths.
    percent: u64,
}

const PARTS: [Part; 3] = [
    Part {
        name: "metadata",
        phase: 1,
        kind: "site",
        prefix: "",
        percent: 5,
    },
    Part {
        name: "content",
        phase: 2,
        kind: "account",
        prefix: "c-",
        percent: 75,
    },
    Part {
        name: "ecosystem",
        phase: 3,
        kind: "customer",
        prefix: "e-",
        percent: 20,
    },
];

/// A store of the estate, as the demo has it.
#[derive(Debug)]
pub struct Shop {
    /// What the estate calls it.
    pub name: &'static str,
    /// What is in it before anything happens.
    pub synthetic: SyntheticStore,
    /// The store, open.
    pub store: Arc<EmbeddedStore>,
}

/// What the stores are to hold, in the order of the estate.
///
/// # Errors
/// If there are too many tenants or rows.
pub fn describe(arguments: &Demo) -> Result<Vec<SyntheticStore>, SpecError> {
    let described = (0..).zip(&PARTS).map(|(number, part)| {
        let spec = SyntheticSpec {
            // Rows of one store are never those of another.
            seed: arguments.seed.wrapping_add(number),
            tenant_count: arguments.tenants,
            row_count: arguments.rows * part.percent / 100,
            skew: SKEW,
            large_tenant: None,
        };
        let kind = TenantKind::parse(part.kind).expect("BUG: not a kind");
        let store = SyntheticStore::try_new(spec, Flavour::Native)?;
        Ok(store.with_tenants_named(kind, part.prefix))
    });
    described.collect()
}

/// Writes the estate file and the stores' configurations into a directory, as an operator would.
///
/// # Errors
/// As the system reports it.
pub fn write_configurations(directory: &Path) -> std::io::Result<()> {
    let mut estate = "version = 1\nname = \"demo\"\nkind = \"site\"\n\n[repository]\nurl = \
                      \"file:campaigns\"\n"
        .to_owned();
    for part in &PARTS {
        let name = part.name;
        estate.push_str(&format!(
            "\n[[store]]\nname = \"{name}\"\nconfiguration = \"{name}/reinstate.toml\"\nphase = {}\n",
            part.phase
        ));
        if !part.prefix.is_empty() {
            let template = format!("ids = {{ template = \"{}{{id}}\" }}\n", part.prefix);
            estate.push_str(&template);
        }
        let text = format!(
            "version = 1\n\n[repository]\nurl = \"file:repository\"\n\n[store]\nname = \
             \"{name}\"\nkind = \"embedded\"\npath = \"store.redb\"\n\n[tenancy]\nkind = \
             \"{}\"\n",
            part.kind
        );
        fs::create_dir(directory.join(name))?;
        fs::write(directory.join(name).join("reinstate.toml"), text)?;
    }
    fs::write(directory.join(ESTATE), estate)
}

/// Opens the estate that was written, without its stores.
///
/// # Errors
/// As the campaign's commands report it.
pub fn open<'a>(
    directory: &Path,
    global: &Global,
    console: &'a Console,
    interruption: &'a Interruption,
) -> anyhow::Result<Estate<'a>> {
    let of = OfEstate {
        estate: directory.join(ESTATE),
        actor: Some("ada".to_owned()),
    };
    Estate::open(&of, global, console, interruption)
}

/// Fills a store, and makes its repository. What comes back is the store twice: as the application
/// has it, and as campaigns do.
///
/// # Errors
/// As the store and the repository report it.
pub fn build(
    estate: &Estate<'_>,
    place: usize,
    synthetic: SyntheticStore,
    progress: &Progress,
) -> anyhow::Result<(Shop, OpenStore)> {
    let of = estate.configuration.stores[place].clone();
    let configuration = Configuration::read(&of.configuration)?;
    let path = of.configuration.with_file_name("store.redb");
    let store = create_embedded(
        &path,
        &of.name,
        &synthetic,
        estate.engine.cache_bytes() / PARTS.len(),
        progress,
        estate.interruption.cancellation(),
    )?;
    store.prepare()?;
    adapters::check(&configuration, &store)?;
    let id = RepositoryId::from_bytes(random()?);
    let repository = LocalRepository::init(&configuration.repository, id, now())?;
    let store = Arc::new(store);
    let live: Arc<dyn LiveStore> = Arc::<EmbeddedStore>::clone(&store);
    let shop = Shop {
        name: PARTS[place].name,
        synthetic,
        store,
    };
    let open = OpenStore {
        of,
        configuration,
        repository,
        live,
        postgres: None,
    };
    Ok((shop, open))
}

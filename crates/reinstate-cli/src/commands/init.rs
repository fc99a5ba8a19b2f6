//! `init`: a configuration, a repository, a store that is prepared. What is there already stays.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use reinstate_core::{ErrorKind, LiveStore, RepositoryId};
use reinstate_repository::LocalRepository;
use serde::Serialize;

use crate::adapters;
use crate::arguments::{Global, Init};
use crate::configuration::Configuration;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Engine, now, random};

#[derive(Serialize)]
struct InitRecord {
    #[serde(rename = "type")]
    record: &'static str,
    configuration: String,
    repository: String,
    repository_made: bool,
    store: String,
}

/// `init`.
pub fn run(arguments: &Init, global: &Global, console: &Console) -> anyhow::Result<Exit> {
    let engine = Engine::start(global)?;
    let path = &global.config;
    let mut opened = None;
    if path.exists() {
        if arguments.embedded.is_some() || arguments.postgres_env.is_some() {
            let message = format!("there is a configuration already: {}", path.display());
            return Err(Failure::usage(message)
                .next("edit it, or run `reinstate init` without the store")
                .into());
        }
        console.line(format_args!(
            "configuration  {} is there already",
            path.display()
        ));
    } else {
        opened = write_configuration(arguments, path, engine.cache_bytes())?;
        console.line(format_args!("configuration  {} written", path.display()));
    }
    let configuration = Configuration::read(path)?;
    let repository_made = make_repository(&configuration.repository, console)?;
    let store = match opened {
        Some(store) => store,
        None => adapters::open_store(&configuration, engine.cache_bytes())?,
    };
    store.prepare()?;
    // A capture begun and dropped shows at once what would keep one from being taken.
    let tables = store.begin_capture()?.schema().tables().len();
    let name = store.identity().name;
    console.line(format_args!(
        "store          {name} is prepared: {tables} tables"
    ));
    console.record(&InitRecord {
        record: "initialised",
        configuration: path.display().to_string(),
        repository: configuration.repository.display().to_string(),
        repository_made,
        store: name,
    });
    console.note("next: reinstate capture once");
    Ok(Exit::Done)
}

fn make_repository(path: &Path, console: &Console) -> anyhow::Result<bool> {
    match LocalRepository::open(path) {
        Ok(_) => {
            console.line(format_args!(
                "repository     {} is there already",
                path.display()
            ));
            return Ok(false);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    LocalRepository::init(path, RepositoryId::from_bytes(random()?), now())?;
    console.line(format_args!("repository     {} made", path.display()));
    Ok(true)
}

/// Writes the configuration for the store that the arguments name. An embedded store is opened
/// for that, because it knows its own name, and stays open.
fn write_configuration(
    arguments: &Init,
    path: &Path,
    cache_bytes: usize,
) -> anyhow::Result<Option<Box<dyn LiveStore>>> {
    let mut opened: Option<Box<dyn LiveStore>> = None;
    let text = if let Some(file) = &arguments.embedded {
        let store = adapters::open_embedded(file, cache_bytes)?;
        let text = embedded_text(arguments, path, file, &store)?;
        opened = Some(Box::new(store));
        text
    } else if let Some(variable) = &arguments.postgres_env {
        postgres_text(arguments, path, variable)?
    } else {
        let message = format!(
            "there is no configuration {} yet: name the store",
            path.display()
        );
        return Err(Failure::usage(message)
            .next("reinstate init --embedded FILE, or reinstate init --postgres-env DATABASE_URL")
            .into());
    };
    Configuration::parse(&text, path)?;
    let writing =
        |error| Failure::usage(format!("write configuration {}", path.display())).because(error);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(writing)?;
    file.write_all(text.as_bytes()).map_err(writing)?;
    Ok(opened)
}

fn embedded_text(
    arguments: &Init,
    path: &Path,
    file: &Path,
    store: &dyn LiveStore,
) -> anyhow::Result<String> {
    let name = quote(&store.identity().name)?;
    let kind = quote(store.tenant_kind().as_str())?;
    let file = quote_path(path, file, "")?;
    Ok(format!(
        "version = 1\n\n[repository]\nurl = {}\n\n[store]\nname = {name}\nkind = \"embedded\"\n\
         path = {file}\n\n[tenancy]\nkind = {kind}    # the kind of id a tenant has: {}:42\n",
        quote_path(path, &arguments.repository, "file:")?,
        store.tenant_kind(),
    ))
}

fn postgres_text(arguments: &Init, path: &Path, variable: &str) -> anyhow::Result<String> {
    let column = match &arguments.column {
        Some(column) => format!("column = {}", quote(column)?),
        None => "# column = \"account_id\"    # used by every table that has it".to_owned(),
    };
    Ok(format!(
        "version = 1\n\n[repository]\nurl = {}\n\n[store]\nname = {}\nkind = \"postgres\"\n\
         url = {{ env = {} }}    # or {{ file = ... }} or {{ command = [...] }}\n\n[tenancy]\n\
         kind = {}    # the kind of id a tenant has: {}:42\n{column}\n\
         # shared = [\"currencies\"]           # rows of everybody: captured, never written\n\
         # excluded = [\"schema_migrations\"]  # left out\n\
         #\n\
         # [tenancy.table.order_items]\n\
         # via = \"order_id -> orders.id\"     # or column = \"...\"\n",
        quote_path(path, &arguments.repository, "file:")?,
        quote(&arguments.name)?,
        quote(variable)?,
        quote(&arguments.kind)?,
        arguments.kind,
    ))
}

/// A path as the file at `path` has to write it: paths in it are relative to its directory.
fn quote_path(path: &Path, target: &Path, scheme: &str) -> anyhow::Result<String> {
    let is_beside = path
        .parent()
        .is_none_or(|parent| parent.as_os_str().is_empty());
    let target: PathBuf = if is_beside || target.is_absolute() {
        target.to_owned()
    } else {
        std::path::absolute(target)?
    };
    let Some(text) = target.to_str() else {
        let message = format!("path {}: the configuration needs UTF-8", target.display());
        return Err(Failure::usage(message).into());
    };
    let is_url = !scheme.is_empty() && target.is_absolute();
    let scheme = if is_url { "file://" } else { scheme };
    quote(&format!("{scheme}{text}"))
}

/// A string as TOML has it; JSON's escapes are a subset.
fn quote(text: &str) -> anyhow::Result<String> {
    Ok(serde_json::to_string(text)?)
}

//! An estate of embedded stores in a directory of its own.

use std::collections::BTreeMap;
use std::fs;

use reinstate_core::{
    ContentDigest, LiveStore, OwnedRowBatch, Owner, RowBatch, SnapshotSource, StoreId,
    StoreIdentity, TenantId,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_synthetic::Table;

use crate::sandbox::{Run, Sandbox};

/// What a store holds, by owner and table.
pub type Contents = BTreeMap<(Vec<u8>, u32), ContentDigest>;

/// An estate.
pub struct Ground {
    /// The directory.
    pub sandbox: Sandbox,
    stores: Vec<&'static str>,
}

impl Ground {
    /// Captured stores of these names and phases, and an estate file with this at its end.
    pub fn new(stores: &[(&'static str, u8)], rest: &str) -> Self {
        let sandbox = Sandbox::empty();
        let mut estate = "version = 1\nname = \"shop\"\nkind = \"account\"\n\
             [repository]\nurl = \"file:campaigns\"\n"
            .to_owned();
        for (name, phase) in stores {
            let (file, configuration) = (format!("{name}.redb"), format!("{name}.toml"));
            let repository = format!("{name}-repository");
            let generate = [
                "generate",
                "--into",
                &file,
                "--name",
                name,
                "--tenants",
                "12",
                "--rows",
                "1200",
                "--seed",
                &phase.to_string(),
            ];
            sandbox.run(&generate).done(&[]);
            let config = ["--config", &configuration];
            let init = ["init", "--embedded", &file, "--repository", &repository];
            sandbox.run(&[&init[..], &config].concat()).done(&[]);
            sandbox
                .run(&[&["capture", "once"], &config[..]].concat())
                .done(&[]);
            estate.push_str(&format!(
                "[[store]]\nname = \"{name}\"\nconfiguration = \"{configuration}\"\nphase = {phase}\n"
            ));
        }
        fs::write(sandbox.path("estate.toml"), estate + rest).unwrap();
        let stores = stores.iter().map(|(name, _)| *name).collect();
        Self { sandbox, stores }
    }

    /// A store.
    pub fn store(&self, name: &str) -> EmbeddedStore {
        let path = self.sandbox.path(&format!("{name}.redb"));
        EmbeddedStore::open(path, &EmbeddedOptions::default()).unwrap()
    }

    /// Deletes every row of these sites in a store.
    pub fn destroy_in(&self, name: &str, sites: &[u32]) {
        let store = self.store(name);
        for site in sites {
            let owner = Owner::Tenant(TenantId::try_new(site.to_string()).unwrap());
            store
                .write(|transaction| {
                    for table in Table::OWNED {
                        transaction.table(table.index())?.delete_all(&owner)?;
                    }
                    Ok(())
                })
                .unwrap();
        }
    }

    /// Gives the id of a site to somebody else, who has an issue like one of a third site's.
    pub fn give_away_in(&self, name: &str, site: u32, third: u32) {
        let store = self.store(name);
        let id = |site: u32| TenantId::try_new(site.to_string()).unwrap();
        let table = Table::Issues.index();
        let mut rows = RowBatch::new();
        {
            let view = store.read_view().unwrap();
            let mut stream = view.tenant_rows(&id(third), table).unwrap();
            stream.next_batch(&mut rows).unwrap();
        }
        let row = rows.iter().next().unwrap();
        let owner = Owner::Tenant(id(site));
        store
            .write(|transaction| transaction.table(table)?.put(&owner, row))
            .unwrap();
    }

    /// Lets the users of a site change the title of an issue in a store; returns the row as it was.
    pub fn edit_in(&self, name: &str, site: u32) -> RowBatch {
        let id = TenantId::try_new(site.to_string()).unwrap();
        let table = Table::Issues.index();
        let mut rows = RowBatch::new();
        let title = {
            let store = self.store(name);
            let view = store.read_view().unwrap();
            let mut stream = view.tenant_rows(&id, table).unwrap();
            stream.next_batch(&mut rows).unwrap();
            store.schema().table(table).column("title").unwrap()
        };
        let row = rows.iter().next().unwrap();
        let values = row.values().enumerate().map(|(place, value)| {
            if place == title.get() {
                Some(&b"edited since"[..])
            } else {
                value
            }
        });
        let mut edited = RowBatch::new();
        edited.push(row.key(), values);
        self.put_in(name, site, &edited);
        rows
    }

    /// Lets the users of a site write the first of these issues in a store.
    pub fn put_in(&self, name: &str, site: u32, rows: &RowBatch) {
        let owner = Owner::Tenant(TenantId::try_new(site.to_string()).unwrap());
        let (table, row) = (Table::Issues.index(), rows.iter().next().unwrap());
        self.store(name)
            .write(|transaction| transaction.table(table)?.put(&owner, row))
            .unwrap();
    }

    /// Deletes every row of these sites in every store.
    pub fn destroy(&self, sites: &[u32]) {
        for name in &self.stores {
            self.destroy_in(name, sites);
        }
    }

    /// Makes a new store in the place of the one that was moved to `NAME-lost.redb`: its tables, and
    /// the rows of everybody if it is to have them.
    pub fn create_anew(&self, name: &str, with_shared: bool) {
        let path = self.sandbox.path(&format!("{name}.redb"));
        let _ = fs::remove_file(&path);
        let lost = self.sandbox.path(&format!("{name}-lost.redb"));
        let lost = EmbeddedStore::open(lost, &EmbeddedOptions::default()).unwrap();
        let mut id = [0; 16];
        id[..name.len()].copy_from_slice(name.as_bytes());
        let identity = StoreIdentity {
            id: StoreId::from_bytes(id),
            name: name.to_owned(),
        };
        let (kind, schema) = (lost.tenant_kind().clone(), lost.schema().clone());
        let store =
            EmbeddedStore::create(path, &EmbeddedOptions::default(), identity, kind, schema)
                .unwrap();
        if !with_shared {
            return;
        }
        let view = lost.begin_capture().unwrap();
        let mut batch = OwnedRowBatch::new();
        for (index, table) in lost.schema().iter() {
            if table.tenancy.is_tenant_owned() {
                continue;
            }
            let mut rows = view.table_rows(index).unwrap();
            while rows.next_batch(&mut batch).unwrap() {
                store
                    .write(|transaction| {
                        let mut table = transaction.table(index)?;
                        batch
                            .iter()
                            .try_for_each(|(_, row)| table.put(&Owner::Shared, row))
                    })
                    .unwrap();
            }
        }
    }

    /// What every store holds.
    pub fn contents(&self) -> BTreeMap<&'static str, Contents> {
        let stores = self.stores.iter();
        stores
            .map(|name| (*name, contents_of(&self.store(name))))
            .collect()
    }

    /// Runs the tool.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.sandbox.run(arguments)
    }

    /// Plans a campaign for these sites with the latest snapshots; returns its short id and its digest.
    pub fn plan(&self, sites: &[u32], more: &[&str]) -> (String, String) {
        let sites: Vec<String> = sites.iter().map(|site| format!("account:{site}")).collect();
        let mut arguments = vec!["campaign", "plan", "--at", "latest"];
        arguments.extend(sites.iter().map(String::as_str));
        arguments.extend(more);
        let run = self.sandbox.json(&arguments);
        run.done(&[]);
        id_and_digest(&run.record("campaign_planned"))
    }

    /// Approves a campaign.
    pub fn approve(&self, planned: &(String, String)) {
        approve(&self.sandbox, planned);
    }

    /// Plans and approves a campaign for these sites; returns its short id.
    pub fn approved(&self, sites: &[u32], more: &[&str]) -> String {
        let planned = self.plan(sites, more);
        self.approve(&planned);
        planned.0
    }
}

/// The short id of a campaign that was planned, and its digest.
pub fn id_and_digest(planned: &serde_json::Value) -> (String, String) {
    let text = |key: &str| planned[key].as_str().unwrap().to_owned();
    (text("campaign")[..8].to_owned(), text("digest"))
}

/// Approves a campaign by its short id and its digest.
pub fn approve(sandbox: &Sandbox, (campaign, digest): &(String, String)) {
    sandbox
        .run(&["campaign", "approve", campaign, "--confirm-digest", digest])
        .done(&["approved"]);
}

/// What a store holds.
pub fn contents_of(store: &EmbeddedStore) -> Contents {
    let view = store.begin_capture().unwrap();
    let mut contents = Contents::new();
    let mut batch = OwnedRowBatch::new();
    for (index, _) in view.schema().iter() {
        let mut rows = view.table_rows(index).unwrap();
        while rows.next_batch(&mut batch).unwrap() {
            for (owner, row) in batch.iter() {
                let place = (owner.to_vec(), index.0);
                contents
                    .entry(place)
                    .or_insert(ContentDigest::EMPTY)
                    .add(row);
            }
        }
    }
    contents
}

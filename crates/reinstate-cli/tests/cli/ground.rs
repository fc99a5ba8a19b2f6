//! A PostgreSQL database of its own that was captured, and a directory with a configuration for it.
//!
//! With `REINSTATE_TEST_CONFINED` in the environment the tool runs as a role that `reinstate guard role`
//! describes instead of as a superuser whom nothing stops; it is described anew whenever a test changes
//! the tables.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use crate::sandbox::{OWNER_CONFIGURATION, Run, Sandbox};

/// A database that was captured and is then changed.
pub struct Ground {
    /// Where the tool runs.
    pub sandbox: Sandbox,
    /// The database.
    pub database: TestDatabase<'static>,
    /// What is configured for everybody.
    sections: Mutex<String>,
    /// Whether the tool runs as a confined role.
    is_confined: AtomicBool,
}

/// A variable of the environment: the tool runs as a confined role.
const CONFINED: &str = "REINSTATE_TEST_CONFINED";

impl Ground {
    /// Makes the tables, configures the store with these sections, and takes a snapshot.
    pub fn captured(schema: &str, sections: &str) -> Self {
        let ground = Self::prepared(schema, sections);
        ground.sandbox.run(&["capture", "once"]).done(&[]);
        ground
    }

    /// Makes the tables, and configures the store with these sections.
    pub fn prepared(schema: &str, sections: &str) -> Self {
        let database = shared_cluster().unwrap().fresh_database().unwrap();
        database.psql(schema).unwrap();
        let ground = Self {
            sandbox: Sandbox::empty(),
            database,
            sections: Mutex::default(),
            is_confined: AtomicBool::new(std::env::var_os(CONFINED).is_some()),
        };
        ground.configure_as(None, sections);
        ground.sandbox.run(&["init"]).done(&[]);
        ground.configure(sections);
        ground
    }

    /// Configures the store with other sections. Merges need no guard.
    pub fn configure(&self, sections: &str) {
        sections.clone_into(&mut self.sections.lock().unwrap());
        self.configure_as(None, sections);
        self.confine();
    }

    /// Lets the tool run as a role that may do what `guard role` says, if tests are to run that way.
    fn confine(&self) {
        if !self.is_confined.load(Ordering::Relaxed) {
            return;
        }
        let role = format!("least_{}", self.database.name());
        let is_there = format!("SELECT FROM pg_roles WHERE rolname = '{role}'");
        let create =
            format!("SELECT 'CREATE ROLE {role} LOGIN' WHERE NOT EXISTS ({is_there}) \\gexec");
        self.database.psql(&create).unwrap();
        let sections = self.sections.lock().unwrap();
        self.configure_as(None, &sections);
        let (path, owner) = (self.sandbox.path("reinstate.toml"), OWNER_CONFIGURATION);
        fs::copy(&path, self.sandbox.path(owner)).unwrap();
        self.database.drop_policies().unwrap();
        // What a test is about may be that the tables and the map do not fit.
        let printed = self.sandbox.run(&["guard", "role", &role]);
        if printed.code == 0 {
            self.database.psql(&printed.stdout).unwrap();
        }
        self.configure_as(Some(&role), &sections);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("unguarded = true\n", "")).unwrap();
    }

    /// Installs guard triggers, as the owner of the tables.
    pub fn install_guard(&self) {
        self.sandbox.run(&["guard", "install"]).done(&[]);
    }

    /// The tool runs as the owner from now on: for tests that describe a role of their own.
    pub fn as_owner(&self) {
        if self.is_confined.swap(false, Ordering::Relaxed) {
            self.database.drop_policies().unwrap();
            self.configure_as(None, &self.sections.lock().unwrap());
        }
    }

    /// The same, as another role.
    pub fn configure_as(&self, role: Option<&str>, sections: &str) {
        let url = match role {
            Some(role) => format!("{}&user={role}", self.database.url()),
            None => self.database.url(),
        };
        let head = format!(
            "version = 1\n[repository]\nurl = \"file:repository\"\n\
             [store]\nname = \"main\"\nkind = \"postgres\"\nunguarded = true\n\
             merges_at_once = 2\nurl = {url:?}\n"
        );
        fs::write(self.sandbox.path("reinstate.toml"), head + sections).unwrap();
    }

    /// Runs SQL.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        let mut words = sql.split(|character: char| !character.is_ascii_alphabetic());
        let is_migration = words.any(|word| ["CREATE", "ALTER", "DROP"].contains(&word));
        let is_confined = self.is_confined.load(Ordering::Relaxed);
        if is_migration && is_confined {
            // The server lets nobody alter the type of a column that a policy looks at.
            self.database.drop_policies().unwrap();
        }
        let said = self.database.psql(sql).unwrap();
        if is_migration {
            self.confine();
        }
        said
    }

    /// Restores account 1 to the latest snapshot.
    pub fn restore(&self, options: &[&str]) -> Run {
        let what = ["restore", "account:1", "--at", "latest", "--nearest-before"];
        let all = [&what[..], &["--confirm", "account:1"], options];
        self.sandbox.run(&all.concat())
    }
}

/// Restores account 1 after an incident, takes the restore back, and restores again.
#[track_caller]
pub fn there_and_back_under(schema: &str, tenancy: &str, tables: &[&str], incident: &str) {
    let ground = Ground::captured(schema, tenancy);
    let all = || {
        tables
            .iter()
            .map(|table| ground.psql(&format!("SELECT t.* FROM {table} t ORDER BY id")))
            .collect::<Vec<_>>()
    };
    let before = all();
    ground.psql(incident);
    let after = all();
    assert_ne!(before, after);
    for _ in 0..2 {
        let what = ["restore", "account:1", "--at", "latest", "--nearest-before"];
        let run = ground
            .sandbox
            .json(&[&what[..], &["--confirm", "account:1"]].concat());
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(all(), before);
        let job = run.record("plan")["job"].as_str().unwrap().to_owned();
        ground
            .sandbox
            .run(&["undo", &job, "--confirm", "account:1"])
            .done(&["undone"]);
        assert_eq!(all(), after);
    }
}

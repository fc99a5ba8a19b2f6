//! A PostgreSQL database of its own that was captured, and a directory with a configuration for it.

use std::fs;

use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use crate::sandbox::{Run, Sandbox};

/// A database that was captured and is then changed.
pub struct Ground {
    /// Where the tool runs.
    pub sandbox: Sandbox,
    /// The database.
    pub database: TestDatabase<'static>,
}

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
        };
        ground.configure(sections);
        ground.sandbox.run(&["init"]).done(&[]);
        ground
    }

    /// Configures the store with other sections. Merges need no guard.
    pub fn configure(&self, sections: &str) {
        self.configure_as(None, sections);
    }

    /// The same, as another role.
    pub fn configure_as(&self, role: Option<&str>, sections: &str) {
        let url = match role {
            Some(role) => format!("{}&user={role}", self.database.url()),
            None => self.database.url(),
        };
        let head = format!(
            "version = 1\n[repository]\nurl = \"file:repository\"\n\
             [store]\nname = \"main\"\nkind = \"postgres\"\nunguarded = true\nurl = {url:?}\n"
        );
        fs::write(self.sandbox.path("reinstate.toml"), head + sections).unwrap();
    }

    /// Runs SQL.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        self.database.psql(sql).unwrap()
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

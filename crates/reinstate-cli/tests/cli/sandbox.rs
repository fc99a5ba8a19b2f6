//! A directory of its own with a store, a repository and the tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use reinstate_core::{
    ContentDigest, OwnedRowBatch, Owner, Position, RowBatch, RowStream, SnapshotSource, TenantId,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_synthetic::{Flavour, SyntheticSpec, SyntheticStore, Table};
use serde_json::Value;
use tempfile::TempDir;

/// How many tenants a sandbox's store has.
pub const TENANTS: u32 = 6;
/// How many rows.
pub const ROWS: u64 = 1_500;

/// A directory with a store of synthetic tenants.
pub struct Sandbox {
    directory: TempDir,
}

/// What a run of the tool left.
#[derive(Debug)]
pub struct Run {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Everything a store holds, and its position.
pub type Contents = (Position, Vec<(Vec<u8>, u32, ContentDigest)>);

impl Run {
    /// Checks the exit code and that standard error says each of these.
    #[track_caller]
    pub fn refused(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for text in says {
            assert!(
                self.stderr.contains(text),
                "stderr lacks {text:?}: {self:#?}"
            );
        }
        assert!(self.stderr.contains("error:"), "{self:#?}");
        assert!(self.stderr.contains("next:"), "no next step: {self:#?}");
    }

    /// Checks that it went well and that standard output says each of these.
    #[track_caller]
    pub fn done(&self, says: &[&str]) {
        assert_eq!(self.code, 0, "{self:#?}");
        for text in says {
            assert!(
                self.stdout.contains(text),
                "stdout lacks {text:?}: {self:#?}"
            );
        }
    }

    /// The records of a run with `--json`: standard output must be nothing else.
    #[track_caller]
    pub fn records(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }

    /// The only record of this type.
    #[track_caller]
    pub fn record(&self, name: &str) -> Value {
        let mut found = self.records();
        found.retain(|record| record["type"] == name);
        assert_eq!(found.len(), 1, "records {name:?} in {self:#?}");
        found.remove(0)
    }
}

/// Another configuration, by which the owner of the tables does what a confined role may not.
pub const OWNER_CONFIGURATION: &str = "owner.toml";

/// What takes the owner's rights, or a role with REPLICATION.
const ADMINISTRATION: [&[&str]; 5] = [
    &["init"],
    &["capture", "follow"],
    &["guard", "install"],
    &["guard", "remove"],
    &["guard", "role"],
];

impl Sandbox {
    /// An empty directory.
    pub fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    /// A store and a repository with one snapshot.
    pub fn captured() -> Self {
        Self::captured_with(TENANTS, ROWS)
    }

    /// The same with so many tenants and rows.
    pub fn captured_with(tenants: u32, rows: u64) -> Self {
        let sandbox = Self::empty();
        let (tenants, rows) = (tenants.to_string(), rows.to_string());
        let generate = [
            "generate",
            "--into",
            "app.redb",
            "--tenants",
            &tenants,
            "--rows",
            &rows,
        ];
        sandbox.run(&generate).done(&[]);
        sandbox
            .run(&["init", "--embedded", "app.redb"])
            .done(&["written", "made", "prepared"]);
        sandbox.run(&["capture", "once"]).done(&["captured"]);
        sandbox
    }

    /// The same with a plan `p` that creates every row of account:3, which is gone.
    pub fn planned() -> Self {
        let sandbox = Self::captured();
        sandbox.destroy(3);
        let plan = ["plan", "account:3", "--at", "latest", "--out", "p"];
        sandbox.run(&plan).done(&["saved    p  b3:"]);
        sandbox
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The tool, to be run here.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reinstate"));
        command
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .env_remove("REINSTATE_CONFIG")
            .env("COLUMNS", "100");
        command
    }

    /// The same with what it is to do.
    pub fn command_of(&self, arguments: &[&str]) -> Command {
        let mut command = self.command();
        let mut administration = ADMINISTRATION.iter();
        if administration.any(|begins| arguments.starts_with(begins))
            && self.path(OWNER_CONFIGURATION).exists()
        {
            command.args(["--config", OWNER_CONFIGURATION]);
        }
        command.args(arguments);
        command
    }

    /// Runs the tool.
    pub fn run(&self, arguments: &[&str]) -> Run {
        outcome(&mut self.command_of(arguments))
    }

    /// Runs the tool for machines.
    pub fn json(&self, arguments: &[&str]) -> Run {
        outcome(self.command_of(arguments).arg("--json"))
    }

    /// The generator's answers.
    pub fn synthetic(&self) -> SyntheticStore {
        let spec = SyntheticSpec {
            seed: 1,
            tenant_count: TENANTS,
            row_count: ROWS,
            skew: 1.0,
            large_tenant: None,
        };
        SyntheticStore::try_new(spec, Flavour::Native).unwrap()
    }

    /// The live store.
    pub fn store(&self) -> EmbeddedStore {
        EmbeddedStore::open(self.path("app.redb"), &EmbeddedOptions::default()).unwrap()
    }

    /// Deletes every row of `account:NUMBER`, for good.
    pub fn destroy(&self, number: u32) {
        self.store()
            .write(|transaction| {
                for table in Table::OWNED {
                    transaction
                        .table(table.index())?
                        .delete_all(&owner(number))?;
                }
                Ok(())
            })
            .unwrap();
    }

    /// Lets the application of `account:NUMBER` add a line, and returns the row it wrote.
    pub fn write_to(&self, number: u32) {
        let mut batch = RowBatch::new();
        let synthetic = self.synthetic();
        let table = Table::Activity.index();
        synthetic
            .rows_of(number - 1, table)
            .next_batch(&mut batch)
            .unwrap();
        let row = batch.iter().next().unwrap();
        self.store()
            .write(|transaction| transaction.table(table)?.put(&owner(number), row))
            .unwrap();
    }

    /// Changes the title of an issue of `account:NUMBER`.
    pub fn edit_issue_of(&self, number: u32) {
        let mut batch = RowBatch::new();
        let synthetic = self.synthetic();
        let table = Table::Issues.index();
        synthetic
            .rows_of(number - 1, table)
            .next_batch(&mut batch)
            .unwrap();
        let row = batch.iter().next().unwrap();
        let schema = synthetic.schema().table(table);
        let title = schema.column("title").unwrap();
        let values = row.values().enumerate().map(|(place, value)| {
            if place == title.get() {
                Some(&b"edited since"[..])
            } else {
                value
            }
        });
        let mut edited = RowBatch::new();
        edited.push(row.key(), values);
        let row = edited.iter().next().unwrap();
        self.store()
            .write(|transaction| transaction.table(table)?.put(&owner(number), row))
            .unwrap();
    }

    /// Everything the store holds.
    pub fn contents(&self) -> Contents {
        let store = self.store();
        let view = store.begin_capture().unwrap();
        let mut contents = std::collections::BTreeMap::new();
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
        let contents = contents.into_iter();
        let contents = contents.map(|((owner, table), content)| (owner, table, content));
        (view.position(), contents.collect())
    }

    /// What one tenant holds.
    pub fn contents_of(&self, number: u32) -> Vec<(u32, ContentDigest)> {
        let owner = owner(number);
        let (_, contents) = self.contents();
        let own = contents
            .into_iter()
            .filter(|(of, ..)| of == owner.as_bytes());
        own.map(|(_, table, content)| (table, content)).collect()
    }

    /// What everybody but one tenant holds.
    pub fn contents_but(&self, number: u32) -> Vec<(Vec<u8>, u32, ContentDigest)> {
        let owner = owner(number);
        let (_, mut contents) = self.contents();
        contents.retain(|(of, ..)| of != owner.as_bytes());
        contents
    }

    /// The repository's objects, largest first: the first is the snapshot's segment.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(
            &self.path("reinstate-repository").join("objects"),
            &mut found,
        );
        found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
        found
    }

    /// Changes a file's bytes.
    pub fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        let mut permissions = fs::metadata(path).unwrap().permissions();
        #[expect(
            clippy::permissions_set_readonly_false,
            reason = "a file of the test's own"
        )]
        permissions.set_readonly(false);
        fs::set_permissions(path, permissions).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Runs a command to its end.
pub fn outcome(command: &mut Command) -> Run {
    run_of(command.output().unwrap())
}

/// What a run that was begun left when it ended.
pub fn finished(child: Child) -> Run {
    run_of(child.wait_with_output().unwrap())
}

fn run_of(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn owner(number: u32) -> Owner {
    Owner::Tenant(TenantId::try_new(number.to_string()).unwrap())
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

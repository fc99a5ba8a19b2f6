//! What `test_decoding`, which comes with the server, says of the same transactions.

use std::collections::BTreeMap;

use reinstate::Log;
use reinstate_core::Position;
use reinstate_testkit::cluster::TestDatabase;

use crate::{Row, Rows, State};

/// A commit that changed rows.
#[derive(Debug)]
pub struct Commit {
    /// Of which history.
    pub schema: String,
    /// What that history had after it.
    pub state: State,
    /// The tables whose rows it changed.
    changed: Vec<String>,
}

/// A column that came or went, or both under two names.
#[derive(Debug)]
pub struct Alteration {
    /// The number of the first commit after it.
    before: usize,
    table: String,
    added: Option<String>,
    removed: Option<String>,
}

/// What the words come to.
#[derive(Debug)]
pub struct Replayed {
    /// Before the first commit.
    pub base: World,
    pub commits: Vec<Commit>,
    pub alterations: Vec<Alteration>,
    /// After the last commit.
    pub last: World,
    pub has_unchanged_toast: bool,
}

/// A slot of the witness.
pub struct Witness<'d> {
    database: &'d TestDatabase<'d>,
    slot: String,
}

impl<'d> Witness<'d> {
    pub fn begin(database: &'d TestDatabase<'d>) -> Self {
        let slot = format!("witness_{}", database.name());
        let sql = format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')");
        database.psql(&sql).unwrap();
        Self { database, slot }
    }

    /// Leaves a note among the words, which is no change of a row.
    pub fn note(&self, note: &str) {
        let sql = format!("SELECT pg_logical_emit_message(true, '{note}', '')");
        self.database.psql(&sql).unwrap();
    }

    /// Everything since the slot was made. Drops it.
    pub fn replay(self) -> Replayed {
        let slot = &self.slot;
        let words = self
            .database
            .psql(&format!(
                "SELECT data FROM pg_logical_slot_get_changes('{slot}', NULL, NULL, 'include-xids', '0', 'skip-empty-xacts', '1')"
            ))
            .unwrap();
        self.database
            .psql(&format!("SELECT pg_drop_replication_slot('{slot}')"))
            .unwrap();
        replay(&words)
    }
}

/// All tables by their names, with their columns and rows.
#[derive(Clone, Debug, Default)]
pub struct World(BTreeMap<String, (Vec<String>, Vec<Row>)>);

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |world: &Self| {
            let mut world = world.0.clone();
            world.values_mut().for_each(|(_, rows)| rows.sort());
            world
        };
        sorted(self) == sorted(other)
    }
}

impl World {
    /// The rows of the tables of `known` as the server has them now.
    pub fn read(database: &TestDatabase<'_>, known: &Self) -> Self {
        let rows = |table: &String| {
            format!(
                "SELECT '{table} ' || (SELECT json_object_agg(key, value)
                   FROM jsonb_each_text(to_jsonb(t))) FROM {table} t"
            )
        };
        let queries: Vec<String> = known.0.keys().map(rows).collect();
        let text = database.psql(&queries.join(" UNION ALL ")).unwrap();
        let mut world = Self::default();
        for (table, (columns, _)) in &known.0 {
            world.0.insert(table.clone(), (columns.clone(), Vec::new()));
        }
        for line in text.lines() {
            let (table, row) = line.split_once(' ').unwrap();
            let row: BTreeMap<String, Option<String>> = serde_json::from_str(row).unwrap();
            let row = row
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            world.0.get_mut(table).unwrap().1.push(row.collect());
        }
        world
    }

    /// What the tenants of one schema have, found by walking.
    pub fn state(&self, schema: &str) -> State {
        let table = |name: &str| self.0.get(&format!("{schema}.{name}"));
        let up = |name: &str, id: Option<&String>| {
            let (_, rows) = table(name)?;
            rows.iter().find(|row| row.get("id") == id)
        };
        let owner = |name: &str, row: &Row| {
            let project = match name {
                "visits" | "projects" => return row.get("account_id").cloned(),
                "issues" => up("projects", row.get("project_id"))?,
                _ => {
                    let issue = up("issues", row.get("issue_id"))?;
                    up("projects", issue.get("project_id"))?
                }
            };
            project.get("account_id").cloned()
        };
        let mut state = State::default();
        for name in ["projects", "issues", "comments", "visits"] {
            let Some((columns, rows)) = table(name) else {
                continue;
            };
            let full = format!("{schema}.{name}");
            state.columns.insert(full.clone(), columns.clone());
            for row in rows {
                if let Some(owner) = owner(name, row) {
                    let tables: &mut Rows = state.tenants.entry(owner).or_default();
                    tables.entry(full.clone()).or_default().push(row.clone());
                }
            }
        }
        state
    }

    fn columns(&mut self, table: &str) -> &mut (Vec<String>, Vec<Row>) {
        self.0.entry(table.to_owned()).or_default()
    }

    /// Takes out the row that is meant: where only the key of the old row is told, every other value is
    /// missing.
    fn remove(&mut self, table: &str, row: &Row) -> Row {
        let (_, rows) = self.columns(table);
        let has_key = !table.ends_with(".visits");
        let is_it = |other: &Row| match has_key {
            true => other["id"] == row["id"],
            false => other == row,
        };
        let place = rows.iter().position(is_it);
        rows.swap_remove(place.unwrap_or_else(|| panic!("{table} has no such row: {row:?}")))
    }

    /// Plays `TABLE added NAME DEFAULT`, `TABLE dropped NAME` or `TABLE renamed NAME NAME`.
    fn alter(&mut self, before: usize, note: &str) -> Alteration {
        let words: Vec<&str> = note.split(' ').collect();
        let (columns, rows) = self.columns(words[0]);
        let mut alteration = Alteration {
            before,
            table: words[0].to_owned(),
            added: None,
            removed: None,
        };
        let mut values = Vec::new();
        if let "dropped" | "renamed" = words[1] {
            columns.retain(|name| name != words[2]);
            values = rows.iter_mut().map(|row| row.remove(words[2])).collect();
            alteration.removed = Some(words[2].to_owned());
        }
        let added = match words[1] {
            "renamed" => words[3],
            "added" => {
                let default = words.get(3).map(|value| (*value).to_owned());
                values = vec![default; rows.len()];
                words[2]
            }
            _ => return alteration,
        };
        columns.push(added.to_owned());
        for (row, value) in rows.iter_mut().zip(values) {
            if let Some(value) = value {
                row.insert(added.to_owned(), value);
            }
        }
        alteration.added = Some(added.to_owned());
        alteration
    }
}

/// What a row of words says: `id[integer]:1 name[text]:'x'`. Values that are NULL are left out, those that
/// are not told again are known as such.
fn values(mut text: &str) -> (Vec<String>, Row) {
    let (mut names, mut row) = (Vec::new(), Row::new());
    while let Some((name, rest)) = text.trim_start().split_once('[') {
        let (_, rest) = rest.split_once("]:").unwrap();
        let end = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.find('\'').unwrap() + 2,
            None => rest.find(' ').unwrap_or(rest.len()),
        };
        let (value, rest) = rest.split_at(end);
        names.push(name.to_owned());
        if value != "null" {
            row.insert(name.to_owned(), value.trim_matches('\'').to_owned());
        }
        text = rest;
    }
    (names, row)
}

const UNCHANGED: &str = "unchanged-toast-datum";

fn replay(words: &str) -> Replayed {
    let mut world = World::default();
    let mut replayed = Replayed {
        base: World::default(),
        commits: Vec::new(),
        alterations: Vec::new(),
        last: World::default(),
        has_unchanged_toast: words.contains(UNCHANGED),
    };
    let mut changed: Vec<String> = Vec::new();
    for line in words.lines() {
        if line.starts_with("COMMIT") {
            if let Some(table) = changed.first() {
                let (schema, _) = table.split_once('.').unwrap();
                let is_one = |table: &String| table.split_once('.').unwrap().0 == schema;
                // The first rows are those of all histories.
                assert!(replayed.base.0.is_empty() || changed.iter().all(is_one));
                let (state, schema) = (world.state(schema), schema.to_owned());
                replayed.commits.push(Commit {
                    schema,
                    state,
                    changed: std::mem::take(&mut changed),
                });
            }
        } else if let Some((_, note)) = line.split_once(" content:")
            && line.starts_with("message: ")
        {
            if line.contains("prefix: base,") {
                replayed.base = world.clone();
                replayed.commits.clear();
            } else if line.contains("prefix: altered,") {
                let alteration = world.alter(replayed.commits.len(), note);
                replayed.alterations.push(alteration);
            }
        } else if let Some(change) = line.strip_prefix("table ") {
            let (tables, change) = change.split_once(": ").unwrap();
            take(&mut world, tables, change);
            changed.extend(tables.split(", ").map(str::to_owned));
        }
    }
    replayed.last = world;
    replayed
}

fn take(world: &mut World, tables: &str, change: &str) {
    if change.starts_with("TRUNCATE") {
        for table in tables.split(", ") {
            world.columns(table).1.clear();
        }
        return;
    }
    let (kind, rows) = change.split_once(": ").unwrap();
    let (before, after) = match rows.strip_prefix("old-key: ") {
        Some(both) => both.split_once(" new-tuple: ").unwrap(),
        None => (rows, rows),
    };
    let mut was = Row::new();
    if kind != "INSERT" {
        was = world.remove(tables, &values(before).1);
    }
    if kind != "DELETE" {
        let (names, mut row) = values(after);
        for (name, value) in &mut row {
            if value == UNCHANGED {
                value.clone_from(&was[name]);
            }
        }
        let (columns, rows) = world.columns(tables);
        if columns.is_empty() {
            *columns = names;
        }
        rows.push(row);
    }
}

impl Replayed {
    /// At a commit that changed rows of a table, the log has its columns as they were then: at most, columns
    /// that came later are there already, and some that went later no more.
    pub fn check_columns(&self, log: &Log, positions: &[Position]) {
        for (number, (commit, position)) in self.commits.iter().zip(positions).enumerate() {
            let later = self
                .alterations
                .iter()
                .filter(|later| later.before > number);
            let schema = log.schema_at(*position);
            for table in &commit.changed {
                let later = later.clone().filter(|later| later.table == *table);
                let of_then = &commit.state.columns[table];
                let (_, known) = schema.find(table).unwrap();
                let known: Vec<&String> = known.columns.iter().map(|column| &column.name).collect();
                for name in of_then.iter().filter(|name| !known.contains(name)) {
                    let went = later
                        .clone()
                        .any(|later| later.removed.as_ref() == Some(name));
                    assert!(went, "{table} has no {name} at commit {number}");
                }
                for name in known.into_iter().filter(|name| !of_then.contains(name)) {
                    let came = later
                        .clone()
                        .any(|later| later.added.as_ref() == Some(name));
                    assert!(came, "{table} has {name} at commit {number}");
                }
            }
        }
    }
}

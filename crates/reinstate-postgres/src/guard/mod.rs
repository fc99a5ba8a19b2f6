//! Guard triggers: the database itself aborts a merge that would touch another tenant's row.
//!
//! A merge says in a setting of its transaction which tenant it is about. On every table that it
//! could write to, a trigger looks at the rows that each statement changed, whoever caused it:
//! cascades, other triggers and rules included. Sessions without the setting, which is everybody
//! else, pass it by.
//!
//! The triggers are this crate's own text and are compared with it: a guard that was made for
//! another tenancy map, or that somebody changed, does not count as one.
//!
//! The *fence* is for those who want more: see [`fence`].

mod confined;
mod fence;
mod role;

pub(crate) use fence::is_fence_installed;

use std::collections::{BTreeSet, HashMap};

use reinstate_core::{StoreError, TableIndex, TableName};
use tokio_postgres::types::Type;

use crate::catalog::{Catalog, get};
use crate::owner::{TENANT_SETTING, columns_of_parent, ownership};
use crate::session::Session;
use crate::snapshot::{Access, begin};
use crate::sql::{literal, quote};
use crate::store::PostgresStore;

pub(crate) use confined::confined;

/// The triggers of one table: name, event, and the names of the rows that it looks at.
const TRIGGERS: [(&str, &str, &str); 3] = [
    ("reinstate_guard_insert", "INSERT", "NEW TABLE AS new_rows"),
    (
        "reinstate_guard_update",
        "UPDATE",
        "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    ),
    ("reinstate_guard_delete", "DELETE", "OLD TABLE AS old_rows"),
];

/// When they fire, as the catalogue has it, in order.
const TRIGGER_TYPES: [i32; TRIGGERS.len()] = [4, 8, 16];

/// How a table is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardState {
    /// Its triggers are there, and are those of the tenancy map.
    Armed,
    /// It has triggers of a guard, but not those of the tenancy map, or not all enabled.
    Outdated,
    /// It has none.
    Absent,
}

/// A table and how it is guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedTable {
    /// The table.
    pub table: TableName,
    /// Its guard.
    pub state: GuardState,
    /// Whether its tenants' own writes wait for a merge; never for tables that no tenant owns.
    pub fence: GuardState,
    /// Whether row-level security confines what this role writes to it.
    pub is_confined: bool,
}

impl PostgresStore {
    /// How every table is guarded.
    ///
    /// # Errors
    /// As [`SnapshotSource::begin_capture`](reinstate_core::SnapshotSource::begin_capture).
    pub fn guard_status(&self) -> Result<Vec<GuardedTable>, StoreError> {
        let session = Session::connect(self.settings())?;
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        let guards = Guards::read(&session)?;
        let fences = fence::Fences::read(&session)?;
        let tables = catalog.iter().map(|(index, schema, _)| GuardedTable {
            table: schema.name.clone(),
            state: guards.state(&catalog, index),
            fence: fences.state(&catalog, index),
            is_confined: false,
        });
        let mut tables: Vec<GuardedTable> = tables.collect();
        session.roll_back();
        // Nothing is written, but temporary tables are made in no transaction that only reads.
        session.begin("begin a transaction", "BEGIN")?;
        let indexes = catalog.iter().map(|(index, ..)| index);
        for table in confined(&session, &catalog, indexes)? {
            tables[table.get()].is_confined = true;
        }
        session.roll_back();
        Ok(tables)
    }

    /// Puts guard triggers on every table, or renews them, one table after the other. Each takes a
    /// SHARE ROW EXCLUSIVE lock, which lets others read and waits for writers.
    ///
    /// # Errors
    /// `Refused` if the role owns neither the tables nor the schema of the journal, which must
    /// exist; `Contended` if a table stays locked. Tables that were done stay guarded.
    pub fn install_guard(&self) -> Result<Vec<GuardedTable>, StoreError> {
        let session = Session::connect(self.settings())?;
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        let guards = Guards::read(&session)?;
        session.roll_back();
        for (index, schema, _) in catalog.iter() {
            if guards.state(&catalog, index) != GuardState::Armed {
                let operation = format!("guard table {}", schema.name);
                session.run(&operation, &definition(&catalog, index))?;
            }
        }
        self.guard_status()
    }

    /// Takes the guard triggers, and those of the fence, off every table that has any. Returns how many had.
    ///
    /// # Errors
    /// As [`install_guard`](Self::install_guard).
    pub fn remove_guard(&self) -> Result<u64, StoreError> {
        let session = Session::connect(self.settings())?;
        let sql = "SELECT DISTINCT format('%I.%I', n.nspname, c.relname), p.proname::text
                     FROM pg_trigger t
                     JOIN pg_class c ON c.oid = t.tgrelid
                     JOIN pg_namespace n ON n.oid = c.relnamespace
                     JOIN pg_proc p ON p.oid = t.tgfoid
                     JOIN pg_namespace f ON f.oid = p.pronamespace
                    WHERE f.nspname = 'reinstate' AND t.tgparentid = 0 AND NOT t.tgisinternal
                    ORDER BY 1";
        let mut removed = BTreeSet::new();
        for row in session.rows("look for guard triggers", sql, &[])? {
            let (table, function): (String, String) = (get(&row, 0)?, get(&row, 1)?);
            let triggers = TRIGGERS.iter().chain(&fence::TRIGGERS);
            let drop: String = triggers
                .map(|(name, ..)| format!("DROP TRIGGER IF EXISTS {name} ON {table};\n"))
                .collect();
            let drop = format!("{drop}DROP FUNCTION reinstate.{};", quote(&function));
            session.run(&format!("remove the guard of table {table}"), &drop)?;
            removed.insert(table);
        }
        Ok(removed.len() as u64)
    }
}

/// The triggers of ours that the database has, by table: for each, the text of what it does, and when;
/// none if it is switched off, would keep still with the others, or looks at some statements only.
struct Triggers(HashMap<u32, Vec<Option<(String, i32)>>>);

impl Triggers {
    /// Those whose names begin so.
    fn read(session: &Session, prefix: &str) -> Result<Self, StoreError> {
        // AFTER each statement of one kind: 4 for INSERT, 8 for DELETE, 16 for UPDATE.
        let sql = "SELECT t.tgrelid, p.prosrc, t.tgtype::int4,
                          t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgattr = ''
                     FROM pg_trigger t
                     JOIN pg_proc p ON p.oid = t.tgfoid
                     JOIN pg_namespace f ON f.oid = p.pronamespace
                    WHERE f.nspname = 'reinstate' AND t.tgparentid = 0 AND NOT t.tgisinternal
                      AND starts_with(t.tgname::text, $1)";
        let mut texts: HashMap<u32, Vec<Option<(String, i32)>>> = HashMap::new();
        let values = [(&prefix as _, Type::TEXT)];
        for row in session.rows("look for guard triggers", sql, &values)? {
            let is_awake: bool = get(&row, 3)?;
            let text: (String, i32) = (get(&row, 1)?, get(&row, 2)?);
            let triggers = texts.entry(get(&row, 0)?).or_default();
            triggers.push(is_awake.then_some(text));
        }
        Ok(Self(texts))
    }

    /// Whether a table has all of them, and they do this.
    fn state(&self, table: u32, body: &str) -> GuardState {
        let Some(texts) = self.0.get(&table) else {
            return GuardState::Absent;
        };
        let ours = texts.iter().flatten().filter(|(text, _)| text == body);
        let mut when: Vec<i32> = ours.map(|(_, when)| *when).collect();
        when.sort_unstable();
        if texts.len() == TRIGGERS.len() && when == TRIGGER_TYPES {
            GuardState::Armed
        } else {
            GuardState::Outdated
        }
    }
}

/// The guards that the database has.
pub(crate) struct Guards(Triggers);

impl Guards {
    pub(crate) fn read(session: &Session) -> Result<Self, StoreError> {
        Triggers::read(session, "reinstate_guard_").map(Self)
    }

    pub(crate) fn state(&self, catalog: &Catalog, table: TableIndex) -> GuardState {
        let oid = catalog.tables[table.get()].oid;
        self.0.state(oid, &body(catalog, table))
    }
}

/// The statements that guard a table, as one transaction.
fn definition(catalog: &Catalog, table: TableIndex) -> String {
    let (_, relation) = catalog.table(table);
    let name = relation.sql_name();
    let function = function_name("guard", &name);
    let mut sql = format!(
        "CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
             SET search_path = pg_catalog, pg_temp AS {};\n",
        literal(&body(catalog, table))
    );
    sql.push_str(&create_triggers(&TRIGGERS, &name, &function));
    sql
}

/// The statements that make triggers of a table call a function, and awake whatever sleeps.
fn create_triggers(triggers: &[(&str, &str, &str)], table: &str, function: &str) -> String {
    let statements = triggers.iter().map(|(trigger, event, rows)| {
        format!(
            "CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {table} REFERENCING {rows}
                 FOR EACH STATEMENT EXECUTE FUNCTION {function}();
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger};\n"
        )
    });
    statements.collect()
}

/// A name, as SQL, for the function of a table, which may have any name itself.
fn function_name(purpose: &str, table: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("reinstate 2026 postgres guard v1");
    hasher.update(table.as_bytes());
    let name = format!("{purpose}_{}", &hasher.finalize().to_hex()[..16]);
    format!("reinstate.{}", quote(&name))
}

/// What the function of a table does.
fn body(catalog: &Catalog, table: TableIndex) -> String {
    let (schema, _) = catalog.table(table);
    let check = |rows: &str| {
        let is_foreign = match ownership(catalog, table, "t") {
            Some(owned) => {
                let (joins, is_foreign) = owned.is_foreign_while_writing();
                // One look for each parent, and not for each of its rows.
                let rows = match columns_of_parent(catalog, table) {
                    Some(columns) => format!("(SELECT DISTINCT {columns} FROM {rows})"),
                    None => rows.to_owned(),
                };
                format!("SELECT FROM {rows} AS t{joins} WHERE {is_foreign}")
            }
            None => format!("SELECT FROM {rows}"),
        };
        format!(
            "        IF EXISTS ({is_foreign}) THEN
            RAISE insufficient_privilege USING MESSAGE = {};
        END IF;\n",
            literal(&format!(
                "guard of reinstate: the merge would change rows of {} that are not its tenant's",
                schema.name
            ))
        )
    };
    // Rows of everybody that are gone may be created where the map says so, and nothing else.
    let is_checked = match catalog.tables[table.get()].creates_missing {
        true => "TG_OP = 'UPDATE'",
        false => "TG_OP <> 'DELETE'",
    };
    format!(
        "\nDECLARE
    tenant text := {TENANT_SETTING};
    own xid := pg_current_xact_id_if_assigned()::xid;
BEGIN
    IF coalesce(tenant, '') = '' THEN
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
{}    END IF;
    IF {is_checked} THEN
{}    END IF;
    RETURN NULL;
END
",
        check("old_rows"),
        check("new_rows")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u32 = 16_384;
    const BODY: &str = "what the function does";

    /// The state of a table with these triggers, when the map asks for `BODY`.
    fn state(triggers: &[Option<(&str, i32)>]) -> GuardState {
        let found = triggers.iter().map(|trigger| {
            let (text, when) = (*trigger)?;
            Some((text.to_owned(), when))
        });
        Triggers(HashMap::from([(TABLE, found.collect())])).state(TABLE, BODY)
    }

    #[test]
    fn a_guard_counts_if_it_has_all_its_triggers_and_each_is_that_of_the_map() {
        let ours = [16, 4, 8].map(|when| Some((BODY, when)));
        assert_eq!(state(&ours), GuardState::Armed);
        let none = Triggers(HashMap::new());
        assert_eq!(none.state(TABLE, BODY), GuardState::Absent);

        // One is missing, asleep, another's, or there twice.
        assert_eq!(state(&ours[1..]), GuardState::Outdated);
        for other in [None, Some(("something else", 4)), Some((BODY, 8))] {
            let mut changed = ours;
            changed[1] = other;
            assert_eq!(state(&changed), GuardState::Outdated, "{other:?}");
        }
        // One more than there should be, whatever it does.
        for more in [None, Some(("something else", 4)), Some((BODY, 4))] {
            let more = [&ours[..], &[more]].concat();
            assert_eq!(state(&more), GuardState::Outdated, "{more:?}");
        }
        assert_eq!(state(&[]), GuardState::Outdated);
    }
}

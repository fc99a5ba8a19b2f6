//! From rows of the system catalogue to tables.

use std::collections::{BTreeMap, HashMap};

use reinstate_core::{
    ColumnIndex, ColumnSchema, ErrorKind, KeyForm, Reference, StoreError, StoreSchema, TableIndex,
    TableName, TableSchema, Tenancy,
};

use super::classify::{ForeignKey, classify};
use super::query::{self, get};
use super::{
    Catalog, CatalogColumn, CatalogTable, ComputedKey, OwnedSequence, ReferentialAction,
    TenantType, Trigger, UniqueIndex, display_name,
};
use crate::session::Session;
use crate::tenancy::TenancyMap;

/// A table while it is being put together.
pub(crate) struct Draft {
    pub schema: TableSchema,
    pub catalog: CatalogTable,
    /// Column numbers of the server, in the order of the columns.
    numbers: Vec<i16>,
}

/// The tables of a database before anybody said whose they are.
pub(crate) struct Drafts {
    /// In the order of their names; none has an owner or references yet.
    pub tables: Vec<Draft>,
    pub keys: Vec<ForeignKey>,
    computed_keys: Vec<ComputedKey>,
    partitions: Partitions,
}

/// Reads the tables of a database, in the order of their names, each with its owner.
///
/// # Errors
/// `Unclassified` with every table that no rule covers; `Usage` if a rule names what does not
/// exist; `Refused` if a declared owner cannot be relied on.
pub(crate) fn read_catalog(session: &Session, map: &TenancyMap) -> Result<Catalog, StoreError> {
    let Drafts {
        tables: mut drafts,
        keys,
        computed_keys,
        partitions,
    } = read_drafts(session)?;
    for key in &keys {
        let references = &mut drafts[key.child.get()].schema.references;
        if !references.contains(&key.reference) {
            references.push(key.reference.clone());
        }
    }
    let classes = classify(&drafts, &keys, map)?;
    for (draft, class) in drafts.iter_mut().zip(classes) {
        draft.schema.tenancy = class.tenancy;
        draft.catalog.way_operators = class.way_operators;
        draft.catalog.refuses_unowned = class.refuses_unowned;
        let table = draft.schema.name.as_str();
        for trigger in &mut draft.catalog.triggers {
            trigger.is_silenced = map.silences_trigger(table, &trigger.name);
            trigger.is_allowed = map.allows_trigger(table, &trigger.name);
        }
        draft.schema.references.sort();
    }
    add_actions(&mut drafts, &keys);
    let (schemas, tables) = drafts
        .into_iter()
        .map(|draft| (draft.schema, draft.catalog))
        .unzip();
    let schema = StoreSchema::try_new(schemas).map_err(|error| {
        StoreError::new(ErrorKind::Refused, format!("read the catalogue: {error}"))
    })?;
    let mut catalog = Catalog {
        schema,
        tables,
        foreign_keys: keys,
        computed_keys,
        partitions,
    };
    catalog.let_create(&map.create_missing)?;
    for name in &map.counters {
        let (table, column) = catalog.counting_column(name, "counters")?;
        catalog.tables[table.get()].columns[column.get()].is_counter = true;
    }
    Ok(catalog)
}

/// Reads the tables of a database without asking whose they are.
///
/// # Errors
/// `Refused` if two tables would have the same name, or a key cannot be represented.
pub(crate) fn read_drafts(session: &Session) -> Result<Drafts, StoreError> {
    let mut tables = read_tables(session)?;
    let mut partitions = HashMap::new();
    for (index, draft) in (0..).map(TableIndex).zip(&tables) {
        let oids = &draft.catalog.partition_oids;
        partitions.extend(
            oids.iter()
                .chain([&draft.catalog.oid])
                .map(|&oid| (oid, index)),
        );
    }
    read_columns(session, &mut tables, &partitions)?;
    read_generated(session, &mut tables, &partitions)?;
    read_watched(session, &mut tables, &partitions)?;
    read_indexes(session, &mut tables, &partitions)?;
    let (keys, computed_keys) = read_foreign_keys(session, &tables, &partitions)?;
    read_triggers(session, &mut tables, &partitions)?;
    read_owned_sequences(session, &mut tables, &partitions)?;
    Ok(Drafts {
        tables,
        keys,
        computed_keys,
        partitions,
    })
}

fn read_tables(session: &Session) -> Result<Vec<Draft>, StoreError> {
    let mut drafts = BTreeMap::new();
    for row in query::tables(session)? {
        let (namespace, relation): (String, String) = (get(&row, 1)?, get(&row, 2)?);
        let name = display_name(&namespace, &relation);
        let draft = Draft {
            schema: TableSchema {
                name: TableName::new(name.clone()),
                columns: Vec::new(),
                key: Vec::new(),
                tenancy: Tenancy::Excluded,
                references: Vec::new(),
            },
            catalog: CatalogTable {
                oid: get(&row, 0)?,
                namespace,
                relation,
                is_partitioned: get(&row, 3)?,
                partition_oids: get(&row, 6)?,
                columns: Vec::new(),
                generated: Vec::new(),
                key_operators: Vec::new(),
                way_operators: Vec::new(),
                refuses_unowned: false,
                unique_indexes: Vec::new(),
                triggers: Vec::new(),
                sequences: Vec::new(),
                actions: Vec::new(),
                is_policed: get(&row, 4)?,
                shows_all_rows: get(&row, 7)?,
                names_tenant_in_policies: get(&row, 4)? && get(&row, 8)?,
                is_readable: get(&row, 5)?,
                creates_missing: false,
                page_count: get(&row, 9)?,
            },
            numbers: Vec::new(),
        };
        // A table "b" of a schema "a", and a table "a.b" of the schema public.
        if drafts.insert(name.clone(), draft).is_some() {
            let message = format!("read the catalogue: two tables are called {name}");
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
    }
    Ok(drafts.into_values().collect())
}

type Partitions = HashMap<u32, TableIndex>;

/// The draft of a table itself, not of what it is a partition of.
fn draft_of<'d>(drafts: &'d mut [Draft], tables: &Partitions, oid: u32) -> Option<&'d mut Draft> {
    let draft = &mut drafts[tables.get(&oid)?.get()];
    (draft.catalog.oid == oid).then_some(draft)
}

fn read_columns(
    session: &Session,
    drafts: &mut [Draft],
    tables: &Partitions,
) -> Result<(), StoreError> {
    for row in query::columns(session)? {
        let Some(draft) = draft_of(drafts, tables, get(&row, 0)?) else {
            continue;
        };
        let name: String = get(&row, 2)?;
        let type_sql: String = get(&row, 3)?;
        let (type_oid, base_oid): (u32, u32) = (get(&row, 7)?, get(&row, 8)?);
        let enumeration: Option<String> = get(&row, 9)?;
        let tenant_type = match enumeration {
            Some(name) => Some(TenantType::Enumeration(name, get(&row, 10)?)),
            None => TenantType::of_builtin(base_oid),
        };
        let number = get(&row, 1)?;
        draft.numbers.push(number);
        draft.schema.columns.push(ColumnSchema {
            name: name.clone(),
            type_name: type_sql.clone(),
            nullable: get(&row, 4)?,
            key_form: match type_oid {
                20 | 21 | 23 => KeyForm::Integer,
                _ => KeyForm::Bytes,
            },
        });
        draft.catalog.columns.push(CatalogColumn {
            name,
            number,
            type_sql,
            is_identity_always: get(&row, 5)?,
            is_counter: false,
            is_deterministic: get(&row, 6)?,
            is_watched: false,
            tenant_type,
        });
    }
    Ok(())
}

fn read_generated(
    session: &Session,
    drafts: &mut [Draft],
    tables: &Partitions,
) -> Result<(), StoreError> {
    for row in query::generated_columns(session)? {
        if let Some(draft) = draft_of(drafts, tables, get(&row, 0)?) {
            let column = (get(&row, 1)?, get(&row, 2)?);
            draft.catalog.generated.push(column);
        }
    }
    Ok(())
}

fn read_watched(
    session: &Session,
    drafts: &mut [Draft],
    tables: &Partitions,
) -> Result<(), StoreError> {
    for row in query::watched_columns(session)? {
        let name: String = get(&row, 1)?;
        if let Some(draft) = draft_of(drafts, tables, get(&row, 0)?)
            && let Some(column) = draft.schema.column(&name)
        {
            draft.catalog.columns[column.get()].is_watched = true;
        }
    }
    Ok(())
}

fn read_indexes(
    session: &Session,
    drafts: &mut [Draft],
    tables: &Partitions,
) -> Result<(), StoreError> {
    for row in query::unique_indexes(session)? {
        let Some(draft) = draft_of(drafts, tables, get(&row, 0)?) else {
            continue;
        };
        let is_primary: bool = get(&row, 2)?;
        let numbers: Vec<i16> = get(&row, 6)?;
        let operators: Vec<String> = get(&row, 7)?;
        let predicate: Option<String> = get(&row, 4)?;
        let columns: Option<Vec<ColumnIndex>> = numbers
            .iter()
            .map(|&number| column_at(draft, number))
            .collect();
        if !is_primary && draft.schema.key.is_empty() && get(&row, 8)? {
            // Rows that any key tells apart can be put back, and not only deleted and created.
            let columns = columns.as_deref().unwrap_or_default();
            let is_key = |column: &ColumnIndex| !draft.schema.columns[column.get()].nullable;
            if columns.iter().all(is_key) {
                draft.schema.key = columns.to_vec();
                draft.catalog.key_operators.clone_from(&operators);
            }
        }
        if is_primary {
            draft.catalog.key_operators.clone_from(&operators);
            draft.schema.key = columns.clone().ok_or_else(|| {
                let message = format!(
                    "read the catalogue: the primary key of {} has a generated column",
                    draft.schema.name
                );
                StoreError::new(ErrorKind::Refused, message)
            })?;
        }
        draft.catalog.unique_indexes.push(UniqueIndex {
            name: get(&row, 1)?,
            is_primary: get(&row, 2)?,
            expressions: get(&row, 5)?,
            operators,
            columns: columns.filter(|_| predicate.is_none()),
            predicate,
            nulls_are_equal: get(&row, 3)?,
            is_immediate: get(&row, 9)?,
            is_exclusion: get(&row, 10)?,
            finds_values: get(&row, 11)?,
        });
    }
    Ok(())
}

fn column_at(draft: &Draft, number: i16) -> Option<ColumnIndex> {
    let place = draft.numbers.iter().position(|&other| other == number)?;
    u32::try_from(place).ok().map(ColumnIndex)
}

fn read_foreign_keys(
    session: &Session,
    drafts: &[Draft],
    tables: &Partitions,
) -> Result<(Vec<ForeignKey>, Vec<ComputedKey>), StoreError> {
    let (mut keys, mut computed_keys) = (Vec::new(), Vec::new());
    for row in query::foreign_keys(session)? {
        let (child, parent): (u32, u32) = (get(&row, 1)?, get(&row, 2)?);
        let (Some(&child), Some(&parent)) = (tables.get(&child), tables.get(&parent)) else {
            continue;
        };
        let indexes = |table: TableIndex, names: &[String]| -> Option<Vec<ColumnIndex>> {
            let schema = &drafts[table.get()].schema;
            names.iter().map(|name| schema.column(name)).collect()
        };
        let (columns, parent_columns): (Vec<String>, Vec<String>) = (get(&row, 6)?, get(&row, 7)?);
        let acts = |action: &str| !matches!(action, "a" | "r");
        let (on_delete, on_update): (String, String) = (get(&row, 4)?, get(&row, 5)?);
        // A key on a generated column cannot be followed through what rows carry.
        let (Some(columns), Some(parent_columns)) =
            (indexes(child, &columns), indexes(parent, &parent_columns))
        else {
            computed_keys.push(ComputedKey {
                name: get(&row, 0)?,
                child,
                parent,
                waits: get::<bool>(&row, 9)? && !acts(&on_delete) && !acts(&on_update),
            });
            continue;
        };
        keys.push(ForeignKey {
            name: get(&row, 0)?,
            child,
            reference: Reference {
                columns,
                parent,
                parent_columns,
            },
            is_validated: get(&row, 3)?,
            acts_on_delete: acts(&on_delete),
            restricts_delete: on_delete == "r",
            acts_on_update: acts(&on_update),
            cascades_update: on_update == "c",
            operators: get(&row, 8)?,
            is_deferrable: get(&row, 9)?,
            is_match_full: get(&row, 10)?,
        });
    }
    Ok((keys, computed_keys))
}

fn add_actions(drafts: &mut [Draft], keys: &[ForeignKey]) {
    for key in keys {
        if !key.acts_on_delete && !key.acts_on_update {
            continue;
        }
        let child = &drafts[key.child.get()].schema;
        let (child, child_is_owned) = (child.name.to_string(), child.tenancy.is_tenant_owned());
        let parent = &mut drafts[key.reference.parent.get()];
        let primary = &parent.schema.key;
        let outside = |column: &ColumnIndex| !primary.contains(column);
        parent.catalog.actions.push(ReferentialAction {
            constraint: key.name.clone(),
            child,
            child_is_owned,
            on_delete: key.acts_on_delete,
            on_update: key.acts_on_update,
            can_change: key.reference.parent_columns.iter().any(outside),
        });
    }
}

fn read_triggers(
    session: &Session,
    drafts: &mut [Draft],
    tables: &Partitions,
) -> Result<(), StoreError> {
    for row in query::triggers(session)? {
        let oid: u32 = get(&row, 0)?;
        let Some(index) = tables.get(&oid) else {
            continue;
        };
        let events: i32 = get(&row, 2)?;
        drafts[index.get()].catalog.triggers.push(Trigger {
            name: get(&row, 1)?,
            is_silenced: false,
            is_allowed: false,
            on_insert: events & 4 != 0,
            on_delete: events & 8 != 0,
            on_update: events & 16 != 0,
        });
    }
    Ok(())
}

fn read_owned_sequences(
    session: &Session,
    drafts: &mut [Draft],
    tables: &Partitions,
) -> Result<(), StoreError> {
    for row in query::sequences(session)? {
        let Some(draft) = draft_of(drafts, tables, get(&row, 0)?) else {
            continue;
        };
        let number: i32 = get(&row, 1)?;
        let number = i16::try_from(number).unwrap_or(0);
        let Some(column) = column_at(draft, number) else {
            continue;
        };
        let (namespace, relation): (String, String) = (get(&row, 2)?, get(&row, 3)?);
        draft.catalog.sequences.push(OwnedSequence {
            display_name: display_name(&namespace, &relation),
            namespace,
            relation,
            column,
            increment: get(&row, 4)?,
            value_max: get(&row, 5)?,
            is_cycle: get(&row, 6)?,
        });
    }
    Ok(())
}

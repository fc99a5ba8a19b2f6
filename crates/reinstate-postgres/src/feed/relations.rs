//! From the columns of a relation in the stream to rows of a table.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reinstate_core::{
    ErrorKind, FeedRow, KeyForm, KeyWriter, ROW_BYTES_MAX, RowBuilder, StoreError, StoreSchema,
    TableIndex,
};
use tokio_postgres::types::Type;

use super::message::{Field, Relation};
use super::publication::followed;
use crate::catalog::{Catalog, get};
use crate::session::Session;

/// The relations that hold rows of followed tables: the tables, and partitions in place of what
/// they are partitions of.
#[derive(Debug)]
pub(super) struct Relations {
    by_id: HashMap<u32, Followed>,
    /// What holds the rows of each table.
    of_table: BTreeMap<TableIndex, BTreeSet<u32>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Followed {
    pub table: TableIndex,
    /// Names, types and modifiers of its columns, in its own order.
    columns: Vec<(String, u32, i32)>,
    /// For each column of the table, its place among them.
    places: Vec<usize>,
    key: Vec<(usize, KeyForm)>,
}

impl Relations {
    /// The relations of a catalogue that was read in the session's transaction.
    pub(super) fn read(session: &Session, catalog: &Catalog) -> Result<Self, StoreError> {
        let oids: Vec<u32> = followed(catalog)
            .flat_map(|(_, table)| table.partition_oids.iter().chain([&table.oid]))
            .copied()
            .collect();
        let sql = "SELECT c.oid, a.attname::text, a.atttypid, a.atttypmod
                     FROM pg_class c
                     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                          AND NOT a.attisdropped AND a.attgenerated = ''
                    WHERE c.oid = ANY($1) AND c.relkind = 'r'
                    ORDER BY c.oid, a.attnum";
        let rows = session.rows("read the columns", sql, &[(&oids, Type::OID_ARRAY)])?;
        let mut columns: BTreeMap<u32, Vec<(String, u32, i32)>> = BTreeMap::new();
        for row in &rows {
            let columns = columns.entry(get(row, 0)?).or_default();
            if let Some(name) = get::<Option<String>>(row, 1)? {
                columns.push((name, get(row, 2)?, get(row, 3)?));
            }
        }
        let mut relations = Self {
            by_id: HashMap::new(),
            of_table: BTreeMap::new(),
        };
        for (id, columns) in columns {
            let Some(table) = catalog.by_oid(id) else {
                continue;
            };
            let followed = Followed::new(&catalog.schema, table, columns)?;
            relations.by_id.insert(id, followed);
            relations.of_table.entry(table).or_default().insert(id);
        }
        Ok(relations)
    }

    /// The relation with this id.
    ///
    /// # Errors
    /// `Stale` if none of the followed ones has it.
    pub(super) fn get(&self, id: u32) -> Result<&Followed, StoreError> {
        self.by_id.get(&id).ok_or_else(|| {
            stale(&format!(
                "the relation with id {id} is none of the tables that are followed"
            ))
        })
    }

    /// Compares what the stream says of a relation with what is known.
    ///
    /// # Errors
    /// `Stale` if it was altered, or its old rows are not told whole.
    pub(super) fn check(&self, found: &Relation) -> Result<(), StoreError> {
        let name = crate::catalog::display_name(&found.namespace, &found.name);
        let Some(known) = self.by_id.get(&found.id) else {
            return Err(stale(&format!("table {name} is new")));
        };
        if known.columns != found.columns {
            return Err(stale(&format!(
                "the columns of table {name} are not what they were"
            )));
        }
        if found.identity != b'f' {
            return Err(stale(&format!(
                "table {name} no longer logs its old rows whole (ALTER TABLE {name} REPLICA \
                 IDENTITY FULL)"
            )));
        }
        Ok(())
    }

    /// The tables whose rows are all gone when these relations are emptied.
    ///
    /// # Errors
    /// `Stale` if partitions of a table are emptied and others are not.
    pub(super) fn emptied(
        &self,
        schema: &StoreSchema,
        ids: &[u32],
    ) -> Result<Vec<TableIndex>, StoreError> {
        let mut emptied: BTreeMap<TableIndex, BTreeSet<u32>> = BTreeMap::new();
        for &id in ids {
            emptied.entry(self.get(id)?.table).or_default().insert(id);
        }
        for (table, ids) in &emptied {
            if self.of_table.get(table) != Some(ids) {
                let name = &schema.table(*table).name;
                return Err(stale(&format!(
                    "single partitions of table {name} were emptied by TRUNCATE, of which the log \
                     does not say the rows"
                )));
            }
        }
        Ok(emptied.into_keys().collect())
    }
}

impl Followed {
    fn new(
        schema: &StoreSchema,
        table: TableIndex,
        columns: Vec<(String, u32, i32)>,
    ) -> Result<Self, StoreError> {
        let schema = schema.table(table);
        let place = |name: &str| columns.iter().position(|(other, _, _)| other == name);
        let places = schema.columns.iter().map(|column| place(&column.name));
        let places: Option<Vec<usize>> = places.collect();
        let Some(places) = places.filter(|places| places.len() == columns.len()) else {
            let message = format!(
                "follow table {}: its columns cannot be told apart",
                schema.name
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        };
        let key = schema.key.iter().map(|column| {
            let form = schema.columns[column.get()].key_form;
            (column.get(), form)
        });
        Ok(Self {
            table,
            columns,
            places,
            key: key.collect(),
        })
    }

    /// Whether its rows say nothing.
    pub(super) const fn is_without_columns(&self) -> bool {
        self.places.is_empty()
    }
}

/// Builds rows from tuples, with buffers that it reuses.
#[derive(Debug, Default)]
pub(super) struct RowMaker {
    key: KeyWriter,
    builder: RowBuilder,
}

impl RowMaker {
    /// The row of a tuple. What the tuple says is unchanged is taken from the row as it was.
    ///
    /// # Errors
    /// `Stale` if a value is nowhere, or there are fewer or more than columns; `Refused` if the row
    /// is too long.
    pub(super) fn make(
        &mut self,
        relation: &Followed,
        message: &[u8],
        fields: &[Field],
        old: &[Field],
    ) -> Result<FeedRow<'_>, StoreError> {
        if fields.len() != relation.places.len() {
            return Err(stale("a row has another number of columns than its table"));
        }
        if message.len() > ROW_BYTES_MAX / 2 {
            let text = format!(
                "follow the log: a change of {} bytes: at most {}",
                message.len(),
                ROW_BYTES_MAX / 2
            );
            return Err(StoreError::new(ErrorKind::Refused, text));
        }
        let value = |column: usize| -> Result<Option<&[u8]>, StoreError> {
            let place = relation.places[column];
            let field = match &fields[place] {
                Field::Unchanged => old.get(place).unwrap_or(&Field::Unchanged),
                field => field,
            };
            match field {
                Field::Null => Ok(None),
                Field::Text(range) => Ok(Some(&message[range.clone()])),
                Field::Unchanged => Err(stale(&format!(
                    "the log does not say the value of column {}",
                    relation.columns[place].0
                ))),
            }
        };
        self.key.clear();
        for &(column, form) in &relation.key {
            let Some(text) = value(column)? else {
                return Err(stale("a column of a key is NULL"));
            };
            self.key.push(form, text);
        }
        self.builder.start(self.key.as_bytes());
        for column in 0..relation.places.len() {
            self.builder.push(value(column)?);
        }
        Ok(FeedRow {
            owner: None,
            row: self.builder.row(),
        })
    }
}

/// The feed ends, since tables are not what they were.
pub(super) fn stale(what: &str) -> StoreError {
    let message = format!(
        "follow the log: {what}. The feed ends before it: take a new snapshot (reinstate capture \
         once)"
    );
    StoreError::new(ErrorKind::Stale, message)
}

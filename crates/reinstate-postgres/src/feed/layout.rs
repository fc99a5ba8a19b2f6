//! What a feed knows of the tables of one moment, and keeps where its log is.
//!
//! The stream tells columns by their names as of each change, and says nothing of what altered them.
//! Numbers of columns and of files never come back, and tell what happened in between: a column that
//! has its number is the same one, whatever its name; a relation that has its file was not written
//! anew.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ErrorKind, StoreError, StoreSchema, TableIndex};
use tokio_postgres::types::Type;

use super::facts::Facts;
use super::fresh::Fresh;
use super::publication::PUBLICATION;
use crate::catalog::{Catalog, get};
use crate::session::Session;
use crate::sql::literal;

/// The first line of what is kept.
const FIRST_LINE: &str = "reinstate tables 1";

/// The followed tables as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The digest of the facts of the same moment.
    pub digest: String,
    /// What was altered up to then was committed before this place of the server's log.
    pub reached: u64,
    /// How the publication publishes.
    pub publication: String,
    /// Labels of enumerations, by their ids.
    pub labels: BTreeMap<u32, String>,
    /// By their ids.
    pub tables: BTreeMap<u32, TableLayout>,
    /// Relations that are gone, and of which the stream may still tell up to `reached`.
    pub gone: BTreeSet<u32>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TableLayout {
    pub name: String,
    /// Its place in the publication.
    pub published: String,
    /// What was written to it before this place of the server's log is not followed: it was new then.
    pub since: u64,
    /// The transaction in whose place its rows of then are handed over, where that is to come.
    pub awaits: Option<u32>,
    /// What holds its rows, by their ids: the table itself, or its partitions.
    pub relations: BTreeMap<u32, RelationLayout>,
}

/// What holds rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RelationLayout {
    /// Its kind, whether it is logged, and how it logs its old rows.
    pub kind: String,
    /// The number of its file.
    pub storage: u32,
    /// The greatest number that a column of it ever had.
    pub allocated: i16,
    /// Those that there are, by their numbers.
    pub columns: Vec<ColumnLayout>,
    /// What the stream may still show in place of them, with the greatest number then.
    pub earlier: Option<(i16, Vec<ColumnLayout>)>,
    /// What made it a partition of the table, from itself upwards: each a relation, what that is a part of,
    /// and by which transaction. Nothing where it is the table itself.
    pub attached: Vec<String>,
    /// What of its rows is known. It is not kept.
    pub birth: Birth,
}

/// What is known of the rows that a partition had before it was one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Birth {
    pub name: String,
    /// Those of the steps in `attached` that did not come with the relation itself: it was there before,
    /// or may have been.
    pub later: Vec<String>,
    /// Whether it has no rows, and room for none.
    pub is_empty: bool,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ColumnLayout {
    pub number: i16,
    /// Which transaction altered it last.
    pub altered_by: String,
    pub name: String,
    pub type_id: u32,
    pub modifier: i32,
    /// Whether the server computes it: then it is not in the stream.
    pub is_computed: bool,
    /// What it holds in rows that were written before it was added.
    pub missing: Option<String>,
}

impl Layout {
    /// The layout of a catalogue that was read in the session's transaction, with the facts of the same.
    pub(super) fn read(
        session: &Session,
        catalog: &Catalog,
        facts: &Facts,
    ) -> Result<Self, StoreError> {
        let mut layout = Self {
            digest: facts.digest(),
            ..Self::default()
        };
        for (name, (oid, _)) in &facts.tables {
            let table = TableLayout {
                name: name.clone(),
                ..TableLayout::default()
            };
            layout.tables.insert(*oid, table);
        }
        layout.read_relations(session, catalog)?;
        layout.read_partitions(session)?;
        layout.read_labels(session)?;
        layout.read_published(session)?;
        Ok(layout)
    }

    fn read_relations(&mut self, session: &Session, catalog: &Catalog) -> Result<(), StoreError> {
        let mut roots: BTreeMap<u32, u32> = BTreeMap::new();
        for (_, _, table) in catalog.iter() {
            let held = table.partition_oids.iter().chain([&table.oid]);
            roots.extend(held.map(|relation| (*relation, table.oid)));
        }
        let oids: Vec<u32> = roots.keys().copied().collect();
        let sql = "SELECT c.oid, concat(c.relkind, c.relpersistence, c.relreplident),
                          c.relfilenode, c.relnatts, a.attnum, a.xmin::text, a.attname::text,
                          a.atttypid, a.atttypmod, a.attgenerated <> '',
                          CASE WHEN a.atthasmissing THEN array_to_string(a.attmissingval, '') END
                     FROM pg_class c
                     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                          AND NOT a.attisdropped
                    WHERE c.oid = ANY($1) AND c.relkind IN ('r', 'f')
                    ORDER BY c.oid, a.attnum";
        for row in &session.rows("read the columns", sql, &[(&oids, Type::OID_ARRAY)])? {
            let oid: u32 = get(row, 0)?;
            let Some(table) = roots.get(&oid).and_then(|root| self.tables.get_mut(root)) else {
                continue;
            };
            let relation = table.relations.entry(oid).or_default();
            relation.kind = get(row, 1)?;
            relation.storage = get(row, 2)?;
            relation.allocated = get(row, 3)?;
            if let Some(number) = get(row, 4)? {
                relation.columns.push(ColumnLayout {
                    number,
                    altered_by: get(row, 5)?,
                    name: get(row, 6)?,
                    type_id: get(row, 7)?,
                    modifier: get(row, 8)?,
                    is_computed: get(row, 9)?,
                    missing: get(row, 10)?,
                });
            }
        }
        Ok(())
    }

    /// What made relations partitions.
    ///
    /// One that was made as a partition has columns that came from its parent when it was made, by the same
    /// command as those that every table has. Attaching it writes them anew.
    fn read_partitions(&mut self, session: &Session) -> Result<(), StoreError> {
        let relations = || {
            self.tables
                .values()
                .flat_map(|table| table.relations.keys())
        };
        let oids: Vec<u32> = relations().copied().collect();
        let sql = "WITH RECURSIVE up AS (
                       SELECT c.oid AS leaf, c.oid AS child, 1 AS step FROM pg_class c
                        WHERE c.oid = ANY($1) AND c.relispartition
                       UNION ALL
                       SELECT u.leaf, p.oid, u.step + 1
                         FROM up u JOIN pg_inherits i ON i.inhrelid = u.child
                         JOIN pg_class p ON p.oid = i.inhparent AND p.relispartition)
                   SELECT u.leaf, concat_ws(' ', u.child, i.inhparent, i.xmin),
                          coalesce(i.xmin = own.xmin AND EXISTS (
                              SELECT FROM pg_attribute a
                               WHERE a.attrelid = u.child AND a.attnum > 0 AND a.attinhcount > 0
                                 AND NOT a.attislocal AND a.xmin = own.xmin
                                 AND a.cmin = own.cmin), false),
                          c.relkind = 'r' AND pg_relation_size(u.leaf) = 0, c.relname::text
                     FROM up u JOIN pg_inherits i ON i.inhrelid = u.child
                     JOIN pg_class c ON c.oid = u.leaf
                     LEFT JOIN pg_attribute own
                          ON own.attrelid = u.child AND own.attname = 'tableoid'
                    ORDER BY u.leaf, u.step";
        let rows = session.rows("read the partitions", sql, &[(&oids, Type::OID_ARRAY)])?;
        for row in &rows {
            let (oid, step): (u32, String) = (get(row, 0)?, get(row, 1)?);
            let mut tables = self.tables.values_mut();
            let Some(relation) = tables.find_map(|table| table.relations.get_mut(&oid)) else {
                continue;
            };
            if !get::<bool>(row, 2)? {
                relation.birth.later.push(step.clone());
            }
            relation.attached.push(step);
            // Gone by now: what there is to it is said by whoever looks next.
            relation.birth.is_empty = get::<Option<bool>>(row, 3)?.unwrap_or(false);
            relation.birth.name = get(row, 4)?;
        }
        Ok(())
    }

    fn read_labels(&mut self, session: &Session) -> Result<(), StoreError> {
        let publication = literal(PUBLICATION);
        let sql = format!(
            "SELECT e.oid, e.enumlabel::text FROM pg_enum e
             UNION ALL
             SELECT 0, concat_ws(',', p.oid, p.xmin) FROM pg_publication p
              WHERE p.pubname = {publication}"
        );
        for row in &session.rows("read the types", &sql, &[])? {
            let (oid, text): (u32, String) = (get(row, 0)?, get(row, 1)?);
            match oid {
                0 => self.publication = text,
                _ => {
                    self.labels.insert(oid, text);
                }
            }
        }
        Ok(())
    }

    /// The places of the tables in the publication.
    pub(super) fn read_published(&mut self, session: &Session) -> Result<(), StoreError> {
        let publication = literal(PUBLICATION);
        let sql = format!(
            "SELECT l.prrelid, concat_ws(',', l.oid, l.xmin)
               FROM pg_publication_rel l JOIN pg_publication p ON p.oid = l.prpubid
              WHERE p.pubname = {publication}"
        );
        for row in &session.rows("read the publication", &sql, &[])? {
            if let Some(table) = self.tables.get_mut(&get(row, 0)?) {
                table.published = get(row, 1)?;
            }
        }
        Ok(())
    }

    /// The tables of which some relation tells old rows by their keys, in order.
    pub(super) fn told_by_key(&self, schema: &StoreSchema) -> Vec<TableIndex> {
        let by_key = |table: &&TableLayout| {
            let mut relations = table.relations.values();
            relations.any(RelationLayout::is_by_key)
        };
        let tables = self.tables.values().filter(by_key);
        let mut tables: Vec<TableIndex> = tables
            .filter_map(|table| Some(schema.find(&table.name)?.0))
            .collect();
        tables.sort();
        tables
    }

    /// Takes note of files that are others now, where nothing else changed.
    pub(super) fn note_storage(&mut self, facts: &Facts) {
        for table in self.tables.values_mut() {
            for (oid, relation) in &mut table.relations {
                if let Some(storage) = facts.storage.get(oid) {
                    relation.storage = *storage;
                }
            }
        }
    }

    /// Takes over what is known of tables that were new.
    pub(super) fn keep_since(&mut self, before: &Self, fresh: &[Fresh]) {
        for (oid, table) in &mut self.tables {
            if let Some(known) = before.tables.get(oid) {
                (table.since, table.awaits) = (known.since, known.awaits);
            }
            let mut fresh = fresh.iter();
            if let Some(fresh) = fresh.find(|fresh| fresh.tables.contains_key(oid)) {
                (table.since, table.awaits) = (fresh.since, Some(fresh.transaction));
            }
        }
    }

    /// Notes what the columns of tables that were new were when they were read: the stream tells nothing
    /// earlier of them.
    pub(super) fn note_taken(&mut self, fresh: &[Fresh]) {
        for (oid, taken) in fresh.iter().flat_map(|fresh| &fresh.tables) {
            let Some(table) = self.tables.get_mut(oid) else {
                continue;
            };
            for (oid, relation) in &mut table.relations {
                let read = taken.layout.relations.get(oid).cloned().unwrap_or_default();
                let is_same =
                    read.allocated == relation.allocated && read.columns == relation.columns;
                relation.earlier = (!is_same).then_some((read.allocated, read.columns));
            }
        }
    }

    /// The tables whose rows of then are to come in the place of this transaction, which is committed here.
    pub(super) fn awaiting(
        &self,
        (transaction, commit): (u32, u64),
    ) -> impl Iterator<Item = (u32, &TableLayout)> {
        // Numbers of transactions start anew some time: only those of these places are meant.
        let is_meant = move |table: &TableLayout| {
            let places = table.since..self.reached.max(table.since);
            table.awaits == Some(transaction) && places.contains(&commit)
        };
        let tables = self.tables.iter();
        tables
            .filter(move |(_, table)| is_meant(table))
            .map(|(oid, table)| (*oid, table))
    }

    /// Takes over what added columns held in rows that were there, which the server forgets once it
    /// wrote them anew.
    pub(super) fn keep_missing(&mut self, before: &Self) {
        for (oid, table) in &mut self.tables {
            let known = before.tables.get(oid).map(|table| &table.relations);
            for (oid, relation) in &mut table.relations {
                let Some(known) = known.and_then(|known| known.get(oid)) else {
                    continue;
                };
                for column in &mut relation.columns {
                    let mut columns = known.columns.iter();
                    let known = columns.find(|known| known.number == column.number);
                    if let (None, Some(known)) = (&column.missing, known) {
                        column.missing.clone_from(&known.missing);
                    }
                }
            }
        }
    }

    /// What is kept.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = Writer(format!("{FIRST_LINE}\n"));
        text.line("digest", &[&self.digest, &self.reached, &self.publication]);
        for (oid, label) in &self.labels {
            text.line("label", &[oid, label]);
        }
        for oid in &self.gone {
            text.line("gone", &[oid]);
        }
        for (oid, table) in &self.tables {
            let awaits = table.awaits.unwrap_or(0);
            let table_line: [&dyn ToString; 5] =
                [oid, &table.name, &table.published, &table.since, &awaits];
            text.line("table", &table_line);
            for (oid, relation) in &table.relations {
                let attached = relation.attached.join(",");
                let relation_line: [&dyn ToString; 5] = [
                    oid,
                    &relation.kind,
                    &relation.storage,
                    &relation.allocated,
                    &attached,
                ];
                text.line("relation", &relation_line);
                text.columns("column", &relation.columns);
                if let Some((allocated, columns)) = &relation.earlier {
                    text.line("earlier", &[allocated]);
                    text.columns("was", columns);
                }
            }
        }
        text.0.into_bytes()
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// `Stale` if it is nothing of the kind.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        parse(bytes).ok_or_else(|| {
            let message = "follow the log: what was noted of its tables makes no sense, or is of a \
                           newer version";
            StoreError::new(ErrorKind::Stale, message)
        })
    }
}

impl RelationLayout {
    /// Whether it tells old rows by their keys alone.
    fn is_by_key(&self) -> bool {
        self.kind.ends_with(['d', 'i'])
    }

    /// Those of its columns that are in the stream.
    pub(super) fn streamed(&self) -> impl Iterator<Item = &ColumnLayout> {
        streamed(&self.columns)
    }
}

pub(super) fn streamed(columns: &[ColumnLayout]) -> impl Iterator<Item = &ColumnLayout> {
    columns.iter().filter(|column| !column.is_computed)
}

/// Lines of fields.
struct Writer(String);

impl Writer {
    fn line(&mut self, kind: &str, fields: &[&dyn ToString]) {
        self.0.push_str(kind);
        for field in fields {
            self.0.push('\t');
            self.0.push_str(&escape(&field.to_string()));
        }
        self.0.push('\n');
    }

    fn columns(&mut self, kind: &str, columns: &[ColumnLayout]) {
        for column in columns {
            let mut fields: Vec<&dyn ToString> = vec![
                &column.number,
                &column.altered_by,
                &column.name,
                &column.type_id,
                &column.modifier,
                &column.is_computed,
            ];
            if let Some(missing) = &column.missing {
                fields.push(missing);
            }
            self.line(kind, &fields);
        }
    }
}

fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\\\");
    text.replace('\t', "\\t").replace('\n', "\\n")
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

fn parse(bytes: &[u8]) -> Option<Layout> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let mut lines = text.split('\n');
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let mut layout = Layout::default();
    for line in lines {
        let (kind, fields) = line.split_once('\t')?;
        let fields: Option<Vec<String>> = fields.split('\t').map(unescape).collect();
        let fields = fields?;
        let field = |place: usize| fields.get(place).cloned();
        match kind {
            "digest" => {
                layout.digest = field(0)?;
                layout.reached = field(1)?.parse().ok()?;
                layout.publication = field(2)?;
            }
            "label" => {
                layout.labels.insert(field(0)?.parse().ok()?, field(1)?);
            }
            "gone" => {
                layout.gone.insert(field(0)?.parse().ok()?);
            }
            "table" => {
                let table = TableLayout {
                    name: field(1)?,
                    published: field(2)?,
                    since: field(3)?.parse().ok()?,
                    awaits: Some(field(4)?.parse().ok()?).filter(|transaction| *transaction != 0),
                    relations: BTreeMap::new(),
                };
                layout.tables.insert(field(0)?.parse().ok()?, table);
            }
            _ => parse_relation(&mut layout, kind, &fields)?,
        }
    }
    Some(layout)
}

fn attached(text: &str) -> Vec<String> {
    let steps = text.split(',').filter(|step| !step.is_empty());
    steps.map(str::to_owned).collect()
}

/// A line that belongs to the table before it.
fn parse_relation(layout: &mut Layout, kind: &str, fields: &[String]) -> Option<()> {
    // Tables were written in the order of their ids, and so were their relations.
    let table = layout.tables.last_entry()?.into_mut();
    let field = |place: usize| fields.get(place).cloned();
    if kind == "relation" {
        let relation = RelationLayout {
            kind: field(1)?,
            storage: field(2)?.parse().ok()?,
            allocated: field(3)?.parse().ok()?,
            // Of an older version it has none.
            attached: attached(&field(4).unwrap_or_default()),
            ..RelationLayout::default()
        };
        table.relations.insert(field(0)?.parse().ok()?, relation);
        return Some(());
    }
    let relation = table.relations.last_entry()?.into_mut();
    if kind == "earlier" {
        relation.earlier = Some((field(0)?.parse().ok()?, Vec::new()));
        return Some(());
    }
    let columns = match kind {
        "column" => &mut relation.columns,
        "was" => &mut relation.earlier.as_mut()?.1,
        _ => return None,
    };
    columns.push(ColumnLayout {
        number: field(0)?.parse().ok()?,
        altered_by: field(1)?,
        name: field(2)?,
        type_id: field(3)?.parse().ok()?,
        modifier: field(4)?.parse().ok()?,
        is_computed: field(5)?.parse().ok()?,
        missing: field(6),
    });
    Some(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn column(number: i16, name: &str, type_id: u32) -> ColumnLayout {
        ColumnLayout {
            number,
            altered_by: "7".to_owned(),
            name: name.to_owned(),
            type_id,
            modifier: -1,
            is_computed: false,
            missing: None,
        }
    }

    #[test]
    fn a_layout_reads_back_and_anything_else_is_refused() {
        let mut odd = column(3, "a\tb\\n\n", 25);
        odd.missing = Some("a\\\nb".to_owned());
        let relation = RelationLayout {
            kind: "rpf".to_owned(),
            storage: 16_400,
            allocated: 3,
            columns: vec![column(1, "id", 20), odd],
            earlier: Some((1, vec![column(1, "old", 23)])),
            attached: vec!["7 8 100".to_owned(), "8 9 101".to_owned()],
            birth: Birth::default(),
        };
        let table = TableLayout {
            name: "t".to_owned(),
            published: "1,2".to_owned(),
            since: 12,
            awaits: Some(34),
            relations: BTreeMap::from([(7, relation)]),
        };
        let layout = Layout {
            digest: "0123456789abcdef".to_owned(),
            reached: 99,
            publication: "5,6".to_owned(),
            labels: BTreeMap::from([(4, "good".to_owned())]),
            tables: BTreeMap::from([(7, table.clone()), (9, table)]),
            gone: BTreeSet::from([3, 5]),
        };
        let bytes = layout.encode();
        assert_eq!(Layout::decode(&bytes).unwrap(), layout);
        for end in 0..bytes.len() {
            if let Ok(other) = Layout::decode(&bytes[..end]) {
                assert_ne!(other, layout);
            }
        }
        assert!(Layout::decode(b"").is_err());
        assert!(Layout::decode(b"reinstate tables 2\ndigest\t1\t1\t1\n").is_err());
    }
}

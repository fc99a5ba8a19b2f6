//! The relations of the followed tables, as the stream tells them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reinstate_core::{ErrorKind, KeyForm, StoreError, StoreSchema, TableIndex, TableSchema};

use super::layout::{Layout, RelationLayout, TableLayout};
use super::message::Relation;
use super::told::{State, identify};

/// The relations that hold rows of followed tables: the tables, and partitions in place of what
/// they are partitions of.
#[derive(Debug)]
pub(super) struct Relations {
    by_id: HashMap<u32, Followed>,
    /// What holds the rows of each table.
    of_table: BTreeMap<TableIndex, BTreeSet<u32>>,
    /// Those of tables that are gone by now, and may still be in the stream.
    gone: BTreeSet<u32>,
    /// Those of tables that are new and not yet in the tables of the feed, or are gone before they were.
    coming: BTreeSet<u32>,
    /// Those that a follower took in of which nothing else is known, and that are in no catalogue.
    passing: BTreeSet<u32>,
    /// What the stream told last of those that were not followed yet: it does not tell it again.
    early: HashMap<u32, Relation>,
    /// Whether the stream is beyond all that was altered up to now.
    pub is_settled: bool,
    /// The commit of the transaction in the stream.
    pub commit: u64,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Followed {
    pub table: TableIndex,
    /// As it is in the tables of the feed.
    now: RelationLayout,
    /// As the stream last told it, or as it was before it told anything.
    told: State,
    /// The numbers of the columns in the stream, in its own order.
    pub numbers: Vec<i16>,
    /// For each column of the table, where its values are.
    pub places: Vec<Place>,
    pub key: Vec<(usize, KeyForm)>,
    /// Whether old rows are told by their keys alone.
    is_by_key: bool,
    /// Whether it was told since it was last certain what the tables are.
    is_fresh: bool,
    /// What was committed before is not followed: the table was new then.
    since: u64,
}

/// Where the values of a column are.
#[derive(Debug)]
pub(super) enum Place {
    /// In this place of the stream's row.
    At(usize),
    /// Nowhere yet: this is what it holds in rows that were written before it was added.
    Missing(Option<String>),
}

impl Relations {
    /// The relations of these tables.
    ///
    /// # Errors
    /// `Refused` if their columns cannot be told apart.
    pub(super) fn new(schema: &StoreSchema, layout: &Layout) -> Result<Self, StoreError> {
        let mut relations = Self {
            by_id: HashMap::new(),
            of_table: BTreeMap::new(),
            gone: layout.gone.clone(),
            coming: BTreeSet::new(),
            passing: BTreeSet::new(),
            early: HashMap::new(),
            is_settled: false,
            commit: 0,
        };
        for table in layout.tables.values() {
            let Some((index, described)) = schema.find(&table.name) else {
                continue;
            };
            for (id, relation) in &table.relations {
                let followed = Followed::new(described, index, (relation, table.since))?;
                relations.by_id.insert(*id, followed);
                relations.of_table.entry(index).or_default().insert(*id);
            }
        }
        Ok(relations)
    }

    /// The relations of the tables that follow, of which the stream may still tell what was before; but of
    /// the tables in `awaited` nothing that was told before is followed.
    pub(super) fn go_on(
        &self,
        schema: &StoreSchema,
        next: &Layout,
        awaited: &BTreeSet<u32>,
    ) -> Result<Self, StoreError> {
        let mut relations = Self::new(schema, next)?;
        let awaited = next.tables.iter().filter(|(oid, _)| awaited.contains(oid));
        let awaited: BTreeSet<&u32> = awaited
            .flat_map(|(_, table)| table.relations.keys())
            .collect();
        for (id, known) in &self.by_id {
            let Some(followed) = relations.by_id.get_mut(id) else {
                continue;
            };
            if awaited.contains(id) {
                continue;
            }
            followed.told = known.told.clone();
            followed.numbers.clone_from(&known.numbers);
            followed.is_fresh = known.is_fresh;
            followed.is_by_key = known.is_by_key;
            followed.arrange(schema.table(followed.table))?;
        }
        relations.early.clone_from(&self.early);
        Ok(relations)
    }

    /// Takes note of new tables in what the tables are next.
    pub(super) fn note_coming(&mut self, now: &Layout, next: &Layout) {
        let (known, new): (Vec<_>, Vec<_>) = next
            .tables
            .iter()
            .partition(|(oid, _)| now.tables.contains_key(oid));
        for (_, table) in known {
            // What came as a table can have become a partition.
            for id in table.relations.keys() {
                self.coming.remove(id);
            }
        }
        let relations = new.iter().flat_map(|(_, table)| table.relations.keys());
        self.coming.extend(relations);
    }

    /// Takes note of relations that a follower took in: whether some of them are not known at all.
    pub(super) fn note_taken_in(&mut self, ids: &[u32]) -> bool {
        let is_unknown = |id: &&u32| !self.is_known(**id);
        let unknown: Vec<u32> = ids.iter().filter(is_unknown).copied().collect();
        self.passing.extend(&unknown);
        !unknown.is_empty()
    }

    fn is_known(&self, id: u32) -> bool {
        self.by_id.contains_key(&id)
            || [&self.gone, &self.coming, &self.passing]
                .iter()
                .any(|known| known.contains(&id))
    }

    /// Whether one of these, which a follower took in, is only known to whoever reads now: behind the transaction
    /// that says so, nobody else would know it.
    pub(super) fn are_unnoted(&self, ids: &[u32]) -> bool {
        ids.iter().any(|id| self.is_passed_over(*id))
    }

    /// Those that are gone where the tables are these; `is_settled` says that the stream tells nothing more
    /// of those that were gone before.
    pub(super) fn gone_by(&self, next: &Layout, is_settled: bool) -> BTreeSet<u32> {
        let tables = next.tables.values();
        let there: BTreeSet<&u32> = tables.flat_map(|table| table.relations.keys()).collect();
        let known = self.by_id.keys().chain(&self.coming).chain(&self.passing);
        let before = self.gone.iter().filter(|_| !is_settled);
        let gone = known.chain(before).filter(|id| !there.contains(id));
        gone.copied().collect()
    }

    /// Begins to follow a table: what was told of it before holds, as long as nothing else is told.
    pub(super) fn begin_with(&mut self, table: &TableLayout) {
        for id in table.relations.keys() {
            let told = self.early.remove(id);
            let Some((followed, found)) = self.by_id.get_mut(id).zip(told) else {
                continue;
            };
            let is_same = followed.told.is_told(&found.columns);
            followed.is_by_key = is_same
                && found.identity != b'f'
                && followed.key_places().as_ref() == Some(&found.key);
        }
    }

    /// Notes beside the tables that follow what the stream may still tell in place of them. Of a partition that
    /// came it may tell any of the columns, from the first on.
    pub(super) fn note_earlier(&self, next: &mut Layout) {
        let tables = next.tables.values_mut();
        for (id, relation) in tables.flat_map(|table| &mut table.relations) {
            let Some(known) = self.by_id.get(id) else {
                relation.earlier = Some((0, Vec::new()));
                continue;
            };
            let told = &known.told;
            let is_same = told.allocated == relation.allocated && told.columns == relation.columns;
            relation.earlier = (!is_same).then(|| (told.allocated, told.columns.clone()));
        }
    }

    /// The relation with this id; none if its table is gone by now, or was not followed yet.
    ///
    /// # Errors
    /// `Stale` if none of the followed ones has it.
    pub(super) fn get(&self, id: u32) -> Result<Option<&Followed>, StoreError> {
        match self.by_id.get(&id) {
            Some(followed) => Ok(Some(followed).filter(|table| table.since <= self.commit)),
            None if self.is_passed_over(id) => Ok(None),
            None if self.gone.contains(&id) && !self.is_settled => Ok(None),
            None => Err(stale(&format!(
                "the relation with id {id} is none of the tables that are followed"
            ))),
        }
    }

    fn is_passed_over(&self, id: u32) -> bool {
        self.coming.contains(&id) || self.passing.contains(&id)
    }

    /// Whether the stream, in a transaction that is committed here, tells a relation otherwise than it is in
    /// the tables of the feed, so that those of `next` are in force.
    ///
    /// # Errors
    /// `Stale` if that cannot be said.
    pub(super) fn shows(
        &self,
        found: &Relation,
        commit: u64,
        next: &Layout,
    ) -> Result<bool, StoreError> {
        let Some(followed) = self.by_id.get(&found.id) else {
            return Ok(!self.is_passed_over(found.id));
        };
        if followed.since > commit {
            return Ok(false);
        }
        let mut tables = next.tables.values();
        let Some(now) = tables.find_map(|table| table.relations.get(&found.id)) else {
            return Ok(!State::of(&followed.now).is_told(&found.columns));
        };
        let current = State::of(&followed.now);
        let certain = if self.is_settled {
            &current
        } else {
            &followed.told
        };
        let numbers = identify(certain, now, &found.columns).ok_or_else(|| unclear(found))?;
        Ok(numbers != current.numbers() || !current.is_told(&found.columns))
    }

    /// Refuses what the stream told since it was last certain what the tables are, if in view of what
    /// they are next it can be read in two ways.
    pub(super) fn recheck(&self, next: &Layout) -> Result<(), StoreError> {
        let tables = next.tables.values();
        for (id, now) in tables.flat_map(|table| &table.relations) {
            let Some(followed) = self.by_id.get(id).filter(|followed| followed.is_fresh) else {
                continue;
            };
            let told = State::of(&followed.now);
            let columns = super::layout::streamed(&told.columns);
            let columns: Vec<_> = columns
                .map(|column| (column.name.clone(), column.type_id, column.modifier))
                .collect();
            if identify(&told, now, &columns) != Some(told.numbers()) {
                return Err(stale("a table was altered in more ways than one"));
            }
        }
        Ok(())
    }

    /// Notes that it is certain what the tables are, up to what the stream told last.
    pub(super) fn note_certain(&mut self) {
        for followed in self.by_id.values_mut() {
            followed.is_fresh = false;
        }
    }

    /// Takes note of what the stream says of a relation.
    ///
    /// # Errors
    /// `Stale` if it was altered and it cannot be said how, or its old rows are not told whole.
    pub(super) fn tell(
        &mut self,
        schema: &StoreSchema,
        found: &Relation,
    ) -> Result<(), StoreError> {
        let name = crate::catalog::display_name(&found.namespace, &found.name);
        let is_settled = self.is_settled;
        let is_early = match self.by_id.get(&found.id) {
            Some(followed) => followed.since > self.commit,
            None => self.is_passed_over(found.id),
        };
        if is_early {
            self.early.insert(found.id, found.clone());
            return Ok(());
        }
        let Some(followed) = self.by_id.get_mut(&found.id) else {
            if self.gone.contains(&found.id) && !is_settled {
                return Ok(());
            }
            return Err(stale(&format!("table {name} is new")));
        };
        let now = State::of(&followed.now);
        if is_settled || followed.told == now {
            if !now.is_told(&found.columns) {
                return Err(stale(&format!(
                    "the columns of table {name} are not what they were"
                )));
            }
            followed.numbers = now.numbers();
            followed.told = now;
        } else {
            let numbers = identify(&followed.told, &followed.now, &found.columns);
            followed.numbers = numbers.ok_or_else(|| unclear(found))?;
            followed.told = followed.state(&followed.numbers, found);
        }
        followed.is_fresh = true;
        followed.arrange(schema.table(followed.table))?;
        followed.is_by_key = found.identity != b'f';
        let was_whole = followed.now.kind.ends_with('f');
        if followed.is_by_key && (was_whole || followed.key_places().as_ref() != Some(&found.key)) {
            return Err(stale(&format!(
                "table {name} logs its old rows neither whole nor by their keys (ALTER TABLE {name} \
                 REPLICA IDENTITY FULL)"
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
            if let Some(followed) = self.get(id)? {
                emptied.entry(followed.table).or_default().insert(id);
            }
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
        schema: &TableSchema,
        table: TableIndex,
        (now, since): (&RelationLayout, u64),
    ) -> Result<Self, StoreError> {
        let told = match &now.earlier {
            None => State::of(now),
            Some((allocated, columns)) => State {
                allocated: *allocated,
                columns: columns.clone(),
            },
        };
        let key = schema.key.iter().map(|column| {
            let form = schema.columns[column.get()].key_form;
            (column.get(), form)
        });
        let mut now = now.clone();
        now.earlier = None;
        let mut followed = Self {
            table,
            numbers: told.numbers(),
            told,
            now,
            places: Vec::new(),
            key: key.collect(),
            is_by_key: false,
            is_fresh: false,
            since,
        };
        followed.arrange(schema)?;
        Ok(followed)
    }

    /// What the stream just told, with columns that will be gone.
    fn state(&self, numbers: &[i16], found: &Relation) -> State {
        let known = |number: i16| {
            let columns = self.now.columns.iter().chain(&self.told.columns);
            let mut columns = columns.filter(|column| column.number == number);
            columns.next().cloned()
        };
        let columns = numbers.iter().zip(&found.columns).map(|(&number, told)| {
            let mut column = known(number).unwrap_or_default();
            column.number = number;
            (column.name, column.type_id, column.modifier) = told.clone();
            column
        });
        let last = numbers.last().copied().unwrap_or(0);
        State {
            allocated: last.max(self.told.allocated),
            columns: columns.collect(),
        }
    }

    /// Finds out where the values of the table's columns are.
    fn arrange(&mut self, schema: &TableSchema) -> Result<(), StoreError> {
        let places = schema.columns.iter().map(|column| {
            let mut columns = self.now.streamed();
            let known = columns.find(|known| known.name == column.name)?;
            let mut numbers = self.numbers.iter();
            Some(match numbers.position(|number| *number == known.number) {
                Some(place) => Place::At(place),
                None => Place::Missing(known.missing.clone()),
            })
        });
        let places: Option<Vec<Place>> = places.collect();
        let count = self.now.streamed().count();
        let Some(places) = places.filter(|places| places.len() == count) else {
            let message = format!(
                "follow table {}: its columns cannot be told apart",
                schema.name
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        };
        self.places = places;
        Ok(())
    }

    /// Where the columns of the key are in the stream's row, in the order of the places; none if there is
    /// no key.
    fn key_places(&self) -> Option<Vec<usize>> {
        let places = self
            .key
            .iter()
            .map(|(column, _)| match self.places[*column] {
                Place::At(place) => Some(place),
                Place::Missing(_) => None,
            });
        let mut places = places.collect::<Option<Vec<usize>>>()?;
        places.sort_unstable();
        Some(places).filter(|places| !places.is_empty())
    }

    /// Whether old rows are told by their keys alone.
    pub(super) const fn is_by_key(&self) -> bool {
        self.is_by_key
    }

    /// Whether its rows say nothing.
    pub(super) const fn is_without_columns(&self) -> bool {
        self.numbers.is_empty()
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

fn unclear(found: &Relation) -> StoreError {
    let name = crate::catalog::display_name(&found.namespace, &found.name);
    stale(&format!(
        "columns of table {name} came and went at once, and what the log says of its rows can be read \
         in more ways than one"
    ))
}

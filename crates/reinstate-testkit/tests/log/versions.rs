//! Histories in which the tables change: columns come, go and get other names and places, tables too.
//! Rows are as they were at every commit, in the tables of that commit.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reinstate::Log;
use reinstate_core::{
    ColumnIndex, ColumnOrigin, ColumnSchema, ErrorKind, KeyForm, Reference, SchemaChange,
    StoreSchema, TableIndex, TableName, TableOrigin, TableSchema, Tenancy, Timestamp,
};

use crate::ground::Ground;
use crate::histories::{Draw, TENANTS, check, draws, history, try_all, ways};
use crate::model::{
    ACTIVITY, COMMENTS, ISSUES, MARKS, Model, NOTES, PROJECTS, Step, Values, schema, values,
};

/// The tables that the histories are about, by their indexes there, and those added since.
type Logical = u32;

/// A column: one of the table as it was in the beginning, or one that was added.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Own(u32),
    Added(u32, Option<String>),
}

/// A row as the histories have it, and what it holds in columns that were added.
type Row = (Values, BTreeMap<u32, Option<String>>);

/// What the tables look like.
#[derive(Clone, Debug)]
struct Layout {
    tables: Vec<(Logical, String, Vec<Column>)>,
}

impl Layout {
    fn first() -> Self {
        let schema = schema();
        let tables = schema.iter().map(|(index, table)| {
            let columns = (0..).map(Column::Own).take(table.columns.len());
            (index.0, table.name.to_string(), columns.collect())
        });
        Self {
            tables: tables.collect(),
        }
    }

    fn place(&self, logical: Logical) -> Option<u32> {
        let mut tables = self.tables.iter();
        let place = tables.position(|(other, ..)| *other == logical)?;
        u32::try_from(place).ok()
    }

    fn column(&self, logical: Logical, own: u32) -> ColumnIndex {
        let table = self.place(logical).unwrap() as usize;
        let mut columns = self.tables[table].2.iter();
        let place = columns.position(|column| *column == Column::Own(own));
        ColumnIndex(u32::try_from(place.unwrap()).unwrap())
    }

    fn reference(&self, logical: Logical, reference: &Reference) -> Reference {
        let parent = reference.parent.0;
        let columns = |table, columns: &[ColumnIndex]| {
            let columns = columns.iter();
            columns.map(|column| self.column(table, column.0)).collect()
        };
        Reference {
            columns: columns(logical, &reference.columns),
            parent: TableIndex(self.place(parent).unwrap()),
            parent_columns: columns(parent, &reference.parent_columns),
        }
    }

    fn tenancy(&self, logical: Logical, tenancy: &Tenancy) -> Tenancy {
        let mut tenancy = tenancy.clone();
        match &mut tenancy {
            Tenancy::Direct { column } => *column = self.column(logical, column.0),
            Tenancy::Via { reference } => *reference = self.reference(logical, reference),
            Tenancy::OneOf { routes } => {
                for route in routes {
                    route.reference = self.reference(logical, &route.reference);
                    let condition = route.condition.as_mut().unwrap();
                    condition.column = self.column(logical, condition.column.0);
                }
            }
            _ => {}
        }
        tenancy
    }

    fn schema(&self) -> StoreSchema {
        let tables = self.tables.iter().map(|(logical, name, columns)| {
            let was = original(*logical);
            let column = |column: &Column| match column {
                Column::Own(own) => was.columns[*own as usize].clone(),
                Column::Added(id, _) => ColumnSchema {
                    name: format!("added{id}"),
                    type_name: "text".to_owned(),
                    nullable: true,
                    key_form: KeyForm::Bytes,
                },
            };
            let tenancy = self.tenancy(*logical, &was.tenancy);
            TableSchema {
                name: TableName::new(name.clone()),
                columns: columns.iter().map(column).collect(),
                key: was
                    .key
                    .iter()
                    .map(|key| self.column(*logical, key.0))
                    .collect(),
                references: tenancy.references().cloned().collect(),
                tenancy,
            }
        });
        StoreSchema::try_new(tables.collect()).unwrap()
    }

    fn change_from(&self, before: &Self) -> SchemaChange {
        let origins = self.tables.iter().map(|(logical, _, columns)| {
            let was = before.place(*logical)?;
            let known = &before.tables[was as usize].2;
            let columns =
                columns.iter().map(
                    |column| match known.iter().position(|other| other == column) {
                        Some(place) => {
                            ColumnOrigin::From(ColumnIndex(u32::try_from(place).unwrap()))
                        }
                        None => match column {
                            Column::Added(_, filling) => {
                                ColumnOrigin::Filled(filling.clone().map(String::into_bytes))
                            }
                            Column::Own(_) => panic!("a column that comes back"),
                        },
                    },
                );
            Some(TableOrigin {
                table: TableIndex(was),
                columns: columns.collect(),
            })
        });
        let origins = origins.collect();
        SchemaChange::try_new(&before.schema(), self.schema(), origins, Vec::new()).unwrap()
    }

    fn values(&self, table: u32, (own, added): &Row) -> Values {
        let columns = self.tables[table as usize].2.iter();
        columns
            .map(|column| match column {
                Column::Own(place) => own[*place as usize].clone(),
                Column::Added(id, _) => added.get(id).cloned().flatten(),
            })
            .collect()
    }
}

/// What a table was in the beginning; those added since go by issues.
fn original(logical: Logical) -> TableSchema {
    let mut tables = schema().tables().to_vec();
    if (logical as usize) < tables.len() {
        return tables.swap_remove(logical as usize);
    }
    tables.swap_remove(COMMENTS as usize)
}

/// Turns a history into one in which the tables change.
struct Translator {
    layout: Layout,
    rows: BTreeMap<Logical, Vec<Row>>,
    next: u32,
}

impl Translator {
    fn new(base: &Model) -> Self {
        let tables = (0..).zip(&base.tables);
        let rows = tables.map(|(table, rows)| {
            let rows = rows.iter().map(|row| (row.clone(), BTreeMap::new()));
            (table, rows.collect())
        });
        Self {
            layout: Layout::first(),
            rows: rows.collect(),
            next: 100,
        }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn model(&self) -> Model {
        let mut model = Model::new(&self.layout.schema());
        for (place, (logical, ..)) in (0..).zip(&self.layout.tables) {
            let rows = self.rows[logical].iter();
            let rows = rows.map(|row| self.layout.values(place, row));
            model.tables[place as usize] = rows.collect();
        }
        model
    }

    /// Alters the tables; none if this draw alters nothing.
    fn alter(&mut self, (kind, table, pick): (u8, u8, u8)) -> Option<(SchemaChange, Model)> {
        let before = self.layout.clone();
        let number = self.number();
        let place = usize::from(table) % self.layout.tables.len();
        let (logical, name, columns) = &mut self.layout.tables[place];
        let (logical, is_keyed) = (*logical, !original(*logical).key.is_empty());
        match kind {
            0..=2 => {
                let filling = (kind > 0).then(|| format!("default {number}"));
                for (_, added) in self.rows.get_mut(&logical).unwrap() {
                    added.insert(number, filling.clone());
                }
                let at = usize::from(pick) % (columns.len() + 1);
                columns.insert(at, Column::Added(number, filling));
            }
            3 | 4 if is_keyed => {
                let last = u32::try_from(original(logical).columns.len()).unwrap() - 1;
                let may_go = |column: &Column| match column {
                    Column::Own(own) => *own == last,
                    Column::Added(..) => true,
                };
                let gone = columns.iter().position(may_go)?;
                columns.remove(gone);
            }
            5 if is_keyed => {
                let places = usize::from(pick) % columns.len();
                columns.rotate_left(places);
            }
            6 => *name = format!("renamed{number}"),
            7 if ![PROJECTS, ISSUES].contains(&logical) && pick % 2 == 0 => {
                self.layout.tables.remove(place);
            }
            8 => {
                self.rows.insert(number, Vec::new());
                let columns = (0..3).map(Column::Own).collect();
                let at = usize::from(pick) % (self.layout.tables.len() + 1);
                let table = (number, format!("new{number}"), columns);
                self.layout.tables.insert(at, table);
            }
            9 => self.layout.tables.rotate_left(usize::from(pick) % 3),
            _ => return None,
        }
        Some((self.layout.change_from(&before), self.model()))
    }

    fn insert(&mut self, table: Logical, own: &Values, steps: &mut Vec<Step>) {
        let Some(place) = self.layout.place(table) else {
            return;
        };
        let number = self.number();
        let columns = self.layout.tables[place as usize].2.iter();
        let added = columns.filter_map(|column| match column {
            Column::Own(_) => None,
            Column::Added(id, filling) => Some(match number % 3 {
                0 => (*id, filling.clone()),
                1 => (*id, None),
                _ => (*id, Some(number.to_string())),
            }),
        });
        let row = (own.clone(), added.collect());
        steps.push(Step::Insert(place, self.layout.values(place, &row)));
        self.rows.get_mut(&table).unwrap().push(row);
    }

    fn take(&mut self, table: Logical, own: &Values) -> Option<(u32, Row)> {
        let place = self.layout.place(table)?;
        let rows = self.rows.get_mut(&table).unwrap();
        let at = rows.iter().position(|(other, _)| other == own).unwrap();
        Some((place, rows.remove(at)))
    }

    fn translate(&mut self, step: &Step, steps: &mut Vec<Step>) {
        match step {
            Step::Insert(table, own) => self.insert(*table, own, steps),
            Step::Update(table, before, after) => {
                let number = self.number();
                let Some((place, was)) = self.take(*table, before) else {
                    return;
                };
                let mut is = (after.clone(), was.1.clone());
                if let Some(value) = is.1.values_mut().next()
                    && number.is_multiple_of(3)
                {
                    *value = Some(format!("updated {number}"));
                }
                let [was, is_now] = [&was, &is].map(|row| self.layout.values(place, row));
                steps.push(Step::Update(place, was, is_now));
                self.rows.get_mut(table).unwrap().push(is);
            }
            Step::Delete(table, own) => {
                if let Some((place, was)) = self.take(*table, own) {
                    steps.push(Step::Delete(place, self.layout.values(place, &was)));
                }
                if *table == ISSUES {
                    self.cascade(own[0].as_ref(), steps);
                }
            }
            Step::Truncate(table) => {
                let mut tables = vec![*table];
                if *table == ISSUES {
                    tables.extend(self.added());
                }
                for table in tables {
                    if let Some(place) = self.layout.place(table) {
                        steps.push(Step::Truncate(place));
                        self.rows.get_mut(&table).unwrap().clear();
                    }
                }
            }
        }
    }

    fn added(&self) -> Vec<Logical> {
        let tables = self.layout.tables.iter();
        let added = tables.map(|(logical, ..)| *logical);
        added.filter(|logical| *logical > MARKS).collect()
    }

    fn cascade(&mut self, issue: Option<&String>, steps: &mut Vec<Step>) {
        for table in self.added() {
            let rows = self.rows[&table].clone();
            for (own, _) in rows.iter().filter(|(own, _)| own[1].as_ref() == issue) {
                let (place, was) = self.take(table, own).unwrap();
                steps.push(Step::Delete(place, self.layout.values(place, &was)));
            }
        }
    }

    /// A row in a table that was added.
    fn extend(&mut self, draw: u8, steps: &mut Vec<Step>) {
        let (added, issues) = (self.added(), &self.rows[&ISSUES]);
        if added.is_empty() || issues.is_empty() {
            return;
        }
        let table = added[usize::from(draw) % added.len()];
        let issue = issues[usize::from(draw) % issues.len()].0[0].clone();
        let id = self.number().to_string();
        self.insert(table, &vec![Some(id), issue, Some("new".to_owned())], steps);
    }
}

type Alteration = (u8, u8, u8);

fn ground(base: &[Vec<Draw>], after: &[Vec<Draw>], alterations: &[Option<Alteration>]) -> Ground {
    let (base, transactions) = history(base, after);
    let mut translator = Translator::new(&base);
    let mut changes = BTreeMap::new();
    let mut translated = Vec::new();
    let mut alterations = alterations.iter().cycle();
    for (number, transaction) in transactions.iter().enumerate() {
        let alteration = alterations.next().copied().flatten();
        if let Some(change) = alteration.and_then(|draw| translator.alter(draw)) {
            changes.insert(number, change);
        }
        let mut steps = Vec::new();
        for step in transaction {
            translator.translate(step, &mut steps);
        }
        translator.extend(u8::try_from(number % 256).unwrap(), &mut steps);
        translated.push(steps);
    }
    Ground::with_changes(base, &changes, translated)
}

#[test]
fn rows_are_as_they_were_in_the_tables_of_every_commit() {
    let alteration = proptest::option::of((0_u8..10, any::<u8>(), any::<u8>()));
    let alterations = proptest::collection::vec(alteration, 1..8);
    let strategy = (draws(), draws(), alterations, ways());
    try_all(
        "histories-altered-in-memory",
        2,
        &strategy,
        |(base, after, alterations, ways)| {
            let ground = ground(&base, &after, &alterations);
            (ground.script.transactions.len(), check(ground, &ways))
        },
    );
}

/// Nothing became of its rows, and it has another index than in the snapshot: they were handed out as those of the
/// table that had it.
#[test]
fn rows_of_a_table_that_has_another_index_by_then_are_handed_out_as_its_own() {
    let draws = [vec![(0, 0, 3, 0)], Vec::new(), Vec::new()];
    let ground = ground(&[Vec::new()], &draws, &[Some((8, 0, 27))]);
    check(ground, &(Vec::new(), true, 1, 0));
}

/// A column that is added with a default, one that goes, and a table that is renamed.
fn simple() -> Ground {
    let schema = schema();
    let mut base = Model::new(&schema);
    for (id, account) in [("1", "a"), ("2", "b")] {
        base.apply(&Step::Insert(PROJECTS, values(&[id, account, "x"])));
        base.apply(&Step::Insert(ISSUES, values(&[id, id, "x"])));
    }
    let mut translator = Translator::new(&base);
    let mut changes = BTreeMap::new();
    let projects = u8::try_from(PROJECTS).unwrap();
    let mut transactions = Vec::new();
    let alterations = [
        None,
        Some((1, projects, 3)),
        Some((3, projects, 0)),
        Some((6, 2, 0)),
    ];
    for (number, alteration) in alterations.into_iter().enumerate() {
        if let Some(alteration) = alteration {
            changes.insert(number, translator.alter(alteration).unwrap());
        }
        let mut steps = Vec::new();
        let row = values(&[&(number + 3).to_string(), "a", "y"]);
        translator.translate(&Step::Insert(PROJECTS, row), &mut steps);
        transactions.push(steps);
    }
    Ground::with_changes(base, &changes, transactions)
}

fn versions(log: &Log) -> Vec<(u64, usize)> {
    let versions = log.versions().iter();
    versions
        .map(|version| {
            let after = version.description.after.commit;
            (
                after,
                version
                    .description
                    .change
                    .schema()
                    .table(TableIndex(PROJECTS))
                    .columns
                    .len(),
            )
        })
        .collect()
}

#[test]
fn a_log_says_where_its_tables_changed_however_it_was_followed() {
    for follow in [&[][..], &[(1, 1); 4], &[(2, 1), (1, 200)]] {
        let ground = simple();
        ground.follow(follow);
        let base = ground.base.commit;
        let expected = [(base + 10, 4), (base + 20, 3), (base + 30, 3)];
        assert_eq!(versions(&ground.log()), expected);
        ground.check(&TENANTS);
    }
}

#[test]
fn tables_that_cannot_follow_those_of_the_log_end_it_and_what_came_before_stays() {
    let schema = schema();
    let mut base = Model::new(&schema);
    base.apply(&Step::Insert(PROJECTS, values(&["1", "a", "x"])));
    let mut tables = schema.tables().to_vec();
    // Notes belong to nobody any more.
    tables[NOTES as usize].tenancy = Tenancy::Shared;
    let other = StoreSchema::try_new(tables).unwrap();
    let change = SchemaChange::unchanged(&other, Vec::new());
    let step = |note: &str| vec![Step::Insert(ACTIVITY, values(&["a", note]))];
    let changes = BTreeMap::from([(1, (change, base.clone()))]);
    let ground = Ground::with_changes(base, &changes, vec![step("one"), step("two")]);
    let mut follower = ground.follower(9, 1 << 20);
    let error = follower.step(Timestamp::from_micros(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(
        text.contains("table notes belong to their tenants by another rule"),
        "{text}"
    );
    let log = ground.log();
    assert_eq!((log.runs().len(), log.versions().len()), (1, 0));
    assert_eq!(log.through().commit, ground.base.commit + 10);
    assert!(ground.image(&log, log.through().commit, "a").is_some());
}

#[test]
fn a_record_of_tables_that_is_missing_or_altered_ends_the_log_before_it() {
    let ground = simple();
    ground.follow(&[(1, 1); 4]);
    let log = ground.log();
    let previous = log.versions()[1].description.previous;
    let name = crate::ground::record_name(&ground.repository, previous);
    let end = log.versions()[1].description.after;
    let bytes = reinstate_core::Repository::read(&ground.repository, "log", name).unwrap();
    for at in (0..bytes.len()).step_by(13) {
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1;
        assert!(ground.repository.tamper_record("log", name, flip));
        let cut = ground.log();
        assert_eq!((cut.through(), cut.versions().len()), (end, 1), "byte {at}");
        assert!(cut.damage().is_some(), "byte {at}");
        assert!(ground.repository.tamper_record("log", name, flip));
    }
    assert!(ground.repository.remove_record("log", name));
    let cut = ground.log();
    assert_eq!((cut.through(), cut.versions().len()), (end, 1));
    assert!(cut.damage().is_none());
    let (_, unreachable) = reinstate::logs(&ground.repository).unwrap();
    assert_eq!(unreachable.len(), log.runs().len() - cut.runs().len() + 1);
}

//! Threads that write to one store of the embedded database.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use reinstate_core::{
    ColumnIndex, ColumnSchema, KeyForm, Owner, RowBuilder, StoreId, StoreIdentity, StoreSchema,
    TableIndex, TableName, TableSchema, Tenancy, TenantId, TenantKind, Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};

use super::{Dice, Followed, Row, Rows, seeds};

const TENANTS: [&str; 3] = ["a", "b", "ab"];
const WRITERS: u64 = 3;
const KEYED: TableIndex = TableIndex(0);
const KEYLESS: TableIndex = TableIndex(1);

static NOW: AtomicI64 = AtomicI64::new(1_000);

fn clock() -> Timestamp {
    Timestamp::from_micros(NOW.fetch_add(1, Ordering::SeqCst))
}

fn schema() -> StoreSchema {
    let column = |name: &str| ColumnSchema {
        name: name.to_owned(),
        type_name: "text".to_owned(),
        nullable: true,
        key_form: KeyForm::Integer,
    };
    let table = |name: &str, key: Vec<ColumnIndex>| TableSchema {
        name: TableName::new(name),
        columns: vec![column("id"), column("text")],
        key,
        tenancy: Tenancy::Native,
        references: Vec::new(),
    };
    StoreSchema::try_new(vec![
        table("notes", vec![ColumnIndex(0)]),
        table("events", Vec::new()),
    ])
    .unwrap()
}

fn encode(schema: &StoreSchema, table: TableIndex, row: &Row) -> RowBuilder {
    let values: Vec<Option<&[u8]>> = row
        .iter()
        .map(|value| value.as_deref().map(str::as_bytes))
        .collect();
    let mut encoded = RowBuilder::new();
    schema
        .table(table)
        .encode_row(&values, &mut encoded)
        .unwrap();
    encoded
}

/// What every tenant has.
type World = BTreeMap<String, Rows>;

/// One change of one tenant, in the store and in the world that is kept beside it.
#[derive(Clone, Debug)]
enum Step {
    Put(TableIndex, Row),
    Delete(TableIndex, Row),
    DeleteAll(TableIndex),
}

fn step(dice: &mut Dice) -> Step {
    let id = dice.below(6).to_string();
    let text = ["x", "", "longer"][usize::try_from(dice.below(3)).unwrap()];
    let row = vec![Some(id), Some(text.to_owned())];
    let table = if dice.below(2) == 0 { KEYED } else { KEYLESS };
    match dice.below(12) {
        0..=7 => Step::Put(table, row),
        8..=10 => Step::Delete(table, row),
        _ => Step::DeleteAll(table),
    }
}

/// Applies a step to what one tenant has.
fn apply(rows: &mut Rows, schema: &StoreSchema, step: &Step) {
    let name = |table: &TableIndex| schema.table(*table).name.to_string();
    match step {
        Step::Put(table, row) => {
            let all = rows.entry(name(table)).or_default();
            if *table == KEYED {
                all.retain(|other| other[0] != row[0]);
            }
            all.push(row.clone());
            all.sort();
        }
        Step::Delete(table, row) => {
            let all = rows.entry(name(table)).or_default();
            let is_it = |other: &Row| match *table {
                KEYED => other[0] == row[0],
                _ => other == row,
            };
            if let Some(place) = all.iter().position(is_it) {
                all.remove(place);
            }
        }
        Step::DeleteAll(table) => {
            rows.remove(&name(table));
        }
    }
    rows.retain(|_, all| !all.is_empty());
}

fn write(store: &EmbeddedStore, worlds: &Mutex<Vec<World>>, dice: &mut Dice) {
    let schema = schema();
    let changes: Vec<(&str, Step)> = (0..=dice.below(4))
        .map(|_| (TENANTS[usize::try_from(dice.below(3)).unwrap()], step(dice)))
        .collect();
    let is_given_up = dice.below(5) == 0;
    let mut world = None;
    let written = store.write(|transaction| {
        // The store has one writer: nobody else is here.
        let mut next = worlds.lock().unwrap().last().unwrap().clone();
        for (tenant, step) in &changes {
            let owner = Owner::Tenant(tenant.parse::<TenantId>().unwrap());
            apply(next.entry((*tenant).to_owned()).or_default(), &schema, step);
            match step {
                Step::Put(table, row) => {
                    let row = encode(&schema, *table, row);
                    transaction.table(*table)?.put(&owner, row.row())?;
                }
                Step::Delete(table, row) => {
                    let row = encode(&schema, *table, row);
                    transaction.table(*table)?.delete(&owner, row.row())?;
                }
                Step::DeleteAll(table) => {
                    transaction.table(*table)?.delete_all(&owner).map(drop)?;
                }
            }
        }
        if is_given_up {
            return Err(reinstate_core::StoreError::new(
                reinstate_core::ErrorKind::Cancelled,
                "given up",
            ));
        }
        let mut worlds = worlds.lock().unwrap();
        worlds.push(next.clone());
        world = Some(next);
        Ok(())
    });
    assert_eq!(written.is_ok(), world.is_some());
}

fn check_history(seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let identity = StoreIdentity {
        id: StoreId::from_bytes([1; 16]),
        name: "followed".to_owned(),
    };
    let mut options = EmbeddedOptions::default();
    options.clock = clock;
    let path = directory.path().join("app.redb");
    let kind = TenantKind::parse("account").unwrap();
    let store = EmbeddedStore::create(&path, &options, identity, kind, schema()).unwrap();
    let worlds = Mutex::new(vec![World::new()]);
    let mut dice = Dice(seed);
    for _ in 0..5 {
        write(&store, &worlds, &mut dice);
    }
    let followed = Followed::begin(&store);
    let base = worlds.lock().unwrap().pop().unwrap();
    *worlds.lock().unwrap() = vec![base];
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, worlds) = (&store, &worlds);
            scope.spawn(move || {
                let mut dice = Dice(seed * 100 + writer);
                (0..12).for_each(|_| write(store, worlds, &mut dice));
            });
        }
        for _ in 0..3 {
            followed.follow(&store, 200);
        }
    });
    followed.follow(&store, 1 << 20);
    // A transaction that left everything as it was is none of the log's.
    let worlds = worlds.into_inner().unwrap();
    followed.check_distinct(&TENANTS, &worlds);
}

#[test]
fn every_tenant_at_every_commit_of_an_embedded_store_is_what_its_writers_wrote() {
    for seed in seeds(4) {
        println!("seed {seed}");
        check_history(seed);
    }
}

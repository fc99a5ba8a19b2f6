//! Random histories of an application and of merges, beside a model.

use proptest::prelude::*;
use reinstate_core::{Owner, TableIndex};
use reinstate_embedded::EmbeddedStore;

use crate::support::{
    EVENTS, ISSUES, LABELS, State, Way, World, capture, create, delete, merge, owner, put, read,
    row, tenant, without_nothing,
};

/// Ids of which some begin like others, or like what precedes a row's key in the file.
pub(crate) const TENANTS: [&[u8]; 6] = [b"a", b"ab", b"a\0", b"b", b"\xff\xff", b"\0\x01a"];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// One transaction of the application, on several tenants.
    Write(Vec<(Change, usize)>),
    /// Deletes everything that a tenant has in a table.
    DeleteAll(usize, TableIndex),
    /// A merge that leaves a tenant with these rows.
    Merge(usize, Vec<(TableIndex, u64, Option<String>)>),
    /// The process ends and another one starts.
    Reopen,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(TableIndex, u64, Option<String>),
    Delete(TableIndex, u64, Option<String>),
    PutLabel(u64),
}

fn text() -> impl Strategy<Value = Option<String>> {
    prop_oneof![Just(None), "[ab]{0,2}".prop_map(Some)]
}

fn place() -> impl Strategy<Value = (TableIndex, u64, Option<String>)> {
    (prop_oneof![Just(ISSUES), Just(EVENTS)], 0..12_u64, text())
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        4 => place().prop_map(|(table, id, text)| Change::Put(table, id, text)),
        3 => place().prop_map(|(table, id, text)| Change::Delete(table, id, text)),
        1 => (0..5_u64).prop_map(Change::PutLabel),
    ];
    let whose = 0..TENANTS.len();
    prop_oneof![
        6 => prop::collection::vec((change, whose.clone()), 1..12).prop_map(Step::Write),
        1 => (whose.clone(), prop_oneof![Just(ISSUES), Just(EVENTS)])
            .prop_map(|(whose, table)| Step::DeleteAll(whose, table)),
        5 => (whose, prop::collection::vec(place(), 0..25))
            .prop_map(|(whose, rows)| Step::Merge(whose, rows)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_store_holds_what_was_written_and_merged_and_nothing_else(
        steps in prop::collection::vec(step(), 1..25),
        ways in prop::collection::vec(prop_oneof![Just(Way::InPlace), Just(Way::Aside)], 1..4),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let mut ways = ways.into_iter().cycle();
        let mut store = create(&path, ways.next().unwrap());
        let mut world = World::new();
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Reopen => {
                    drop(store);
                    store = EmbeddedStore::open(&path, &ways.next().unwrap().options()).unwrap();
                }
                step => take(&store, &mut world, step, u8::try_from(number).unwrap()),
            }
            check(&store, &world);
        }
    }
}

/// Does a step to a store and to the model of it.
pub(crate) fn take(store: &EmbeddedStore, world: &mut World, step: &Step, number: u8) {
    match step {
        Step::Write(changes) => write(store, world, changes),
        Step::DeleteAll(whose, table) => {
            let id = TENANTS[*whose];
            let deleted = store
                .write(|transaction| transaction.table(*table)?.delete_all(&owner(id)))
                .unwrap();
            let had = world.entry(id.to_vec()).or_default().remove(table);
            assert_eq!(deleted, had.unwrap_or_default().len() as u64);
        }
        Step::Merge(whose, rows) => {
            let id = TENANTS[*whose];
            let mut after = State::new();
            for (table, id, text) in rows {
                put(&mut after, *table, row(*table, *id, text.as_deref()).row());
            }
            let before = world.entry(id.to_vec()).or_default();
            merge(store, &tenant(id), before, &after, number).unwrap();
            *before = after;
        }
        Step::Reopen => {}
    }
}

fn write(store: &EmbeddedStore, world: &mut World, changes: &[(Change, usize)]) {
    store
        .write(|transaction| {
            for (change, whose) in changes {
                let id = TENANTS[*whose];
                match change {
                    Change::Put(table, number, text) => {
                        let row = row(*table, *number, text.as_deref());
                        transaction.table(*table)?.put(&owner(id), row.row())?;
                        put(world.entry(id.to_vec()).or_default(), *table, row.row());
                    }
                    Change::Delete(table, number, text) => {
                        let row = row(*table, *number, text.as_deref());
                        let found = transaction.table(*table)?.delete(&owner(id), row.row())?;
                        let state = world.entry(id.to_vec()).or_default();
                        assert_eq!(found, delete(state, *table, row.row()));
                    }
                    Change::PutLabel(number) => {
                        let row = row(LABELS, *number, None);
                        transaction.table(LABELS)?.put(&Owner::Shared, row.row())?;
                        put(world.entry(Vec::new()).or_default(), LABELS, row.row());
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[track_caller]
fn check(store: &EmbeddedStore, world: &World) {
    let mut expected = World::new();
    for (id, state) in world {
        let state = without_nothing(state.clone());
        let owner = if id.is_empty() {
            Owner::Shared
        } else {
            owner(id)
        };
        assert_eq!(read(store, &owner), state);
        if !state.is_empty() {
            expected.insert(id.clone(), state);
        }
    }
    assert_eq!(capture(store), expected);
}

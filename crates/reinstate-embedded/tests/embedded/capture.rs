//! Capture sees one moment, whoever writes meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use reinstate_core::{LiveStore, OwnedRowBatch, SnapshotSource};
use reinstate_embedded::EmbeddedStore;

use crate::support::{ISSUES, State, Way, create, many, merge, owner, row, tenant};

const ACCOUNTS: [&[u8]; 2] = [b"giver", b"taker"];

fn write_balances(store: &EmbeddedStore, giver: u64) {
    let balances = [giver, 1_000_000 - giver];
    store
        .write(|transaction| {
            let mut table = transaction.table(ISSUES)?;
            for (id, balance) in ACCOUNTS.into_iter().zip(balances) {
                table.put(&owner(id), row(ISSUES, 1, Some(&balance.to_string())).row())?;
            }
            Ok(())
        })
        .unwrap();
}

fn balances(view: &dyn reinstate_core::CaptureView) -> Vec<u64> {
    let mut rows = view.table_rows(ISSUES).unwrap();
    let mut batch = OwnedRowBatch::new();
    let mut balances = Vec::new();
    while rows.next_batch(&mut batch).unwrap() {
        for (owner, row) in batch.iter() {
            if ACCOUNTS.contains(&owner) {
                let text = row.values().nth(1).flatten().unwrap();
                balances.push(std::str::from_utf8(text).unwrap().parse::<u64>().unwrap());
            }
        }
    }
    balances
}

#[test]
fn a_capture_is_of_one_moment_while_others_write_and_restore() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&directory.path().join("store"), Way::Aside);
    write_balances(&store, 1_000_000);
    let states = [State::new(), many(3_000, 1), many(3_000, 2)];
    merge(&store, &tenant(b"restored"), &states[0], &states[1], 0).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for giver in (0..1_000_000).rev() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                write_balances(&store, giver);
            }
        });
        scope.spawn(|| {
            for round in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (before, after) = (&states[1 + round % 2], &states[2 - round % 2]);
                merge(&store, &tenant(b"restored"), before, after, 1).unwrap();
            }
        });
        let checked = thread::Builder::new()
            .spawn_scoped(scope, || {
                let mut positions = Vec::new();
                for _ in 0..60 {
                    let view = store.begin_capture().unwrap();
                    positions.push(view.position());
                    // Two streams of one view, read by two threads.
                    let seen = thread::scope(|inner| {
                        let first = inner.spawn(|| balances(&*view));
                        [balances(&*view), first.join().unwrap()]
                    });
                    assert_eq!(seen[0], seen[1]);
                    assert_eq!(seen[0].iter().sum::<u64>(), 1_000_000);
                    let restored = rows_of(&*view, b"restored");
                    let expected = states[1..].iter().map(|state| state[&ISSUES].len());
                    assert!(
                        expected.clone().any(|count| count == restored),
                        "{restored}"
                    );
                }
                assert!(positions.is_sorted());
                assert!(positions.first() < positions.last());
            })
            .unwrap()
            .join();
        stop.store(true, Ordering::SeqCst);
        checked.unwrap();
    });
}

fn rows_of(view: &dyn reinstate_core::CaptureView, id: &[u8]) -> usize {
    let mut rows = view.table_rows(ISSUES).unwrap();
    let mut batch = OwnedRowBatch::new();
    let mut count = 0;
    while rows.next_batch(&mut batch).unwrap() {
        count += batch.iter().filter(|(owner, _)| *owner == id).count();
    }
    count
}

#[test]
fn a_view_stays_at_its_position_and_knows_the_tenant_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&directory.path().join("store"), Way::InPlace);
    write_balances(&store, 10);
    let view = store.read_view().unwrap();
    let (position, before) = (
        view.position(),
        view.fingerprint(&tenant(b"giver")).unwrap(),
    );
    write_balances(&store, 9);
    assert_eq!(view.position(), position);
    assert_eq!(view.fingerprint(&tenant(b"giver")).unwrap(), before);
    let later = store.read_view().unwrap();
    assert!(later.position() > position);
    assert_ne!(later.fingerprint(&tenant(b"giver")).unwrap(), before);
    let untouched = tenant(b"somebody else");
    assert_eq!(
        later.fingerprint(&untouched).unwrap(),
        view.fingerprint(&untouched).unwrap()
    );
}

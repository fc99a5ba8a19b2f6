//! Merges that are taken over, and the fence before a tenant.

use std::path::Path;
use std::sync::Mutex;

use reinstate_core::{
    ChangeCounts, ChangeSource, ErrorKind, LiveStore, RowRole, RowStream, StoreError, TableIndex,
};
use reinstate_embedded::EmbeddedStore;

use crate::merges::{keys, rows_in_file};
use crate::support::{
    ISSUES, Plan, State, Way, create, entry, fingerprint, many, merge, owner, read, row, tenant,
};

#[test]
fn a_merge_that_was_taken_over_commits_nothing() {
    let (first, second, third) = (many(3_000, 1), many(3_000, 2), many(3_000, 3));
    for way in [Way::InPlace, Way::Aside] {
        for is_applied in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store");
            let store = create(&path, way);
            let target = tenant(b"a");
            assert!(!store.take_over(&target));
            merge(&store, &target, &State::new(), &first, 1).unwrap();
            let begin =
                || store.begin_merge(&target, &fingerprint(&store, &target), store.schema());
            let mut stuck = begin().unwrap();
            if is_applied {
                stuck.apply(&Plan::new(&first, &second)).unwrap();
            }
            assert_eq!(begin().err().unwrap().kind(), ErrorKind::Locked);
            assert!(store.take_over(&target));
            if is_applied && way == Way::InPlace {
                // It has the turn, so that nobody gets on before it wakes up.
                let error = stuck.commit(&entry(&target, 2)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                merge(&store, &target, &first, &third, 3).unwrap();
            } else {
                let next = begin().unwrap();
                if !is_applied {
                    let error = stuck.apply(&Plan::new(&first, &second)).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                }
                let error = stuck.commit(&entry(&target, 2)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
                // The one who lost the tenant does not take it from the next when it goes.
                assert_eq!(begin().err().unwrap().kind(), ErrorKind::Locked);
                drop(next);
                merge(&store, &target, &first, &third, 3).unwrap();
            }
            assert!(read(&store, &owner(b"a")) == third, "{way:?} {is_applied}");
            let journal = |job: u8| store.journal_entry(entry(&target, job).job, &target);
            assert!(journal(2).unwrap().is_none() && journal(3).unwrap().is_some());
            merge(&store, &target, &third, &first, 4).unwrap();
            drop(store);
            tidy(&path);
            assert_eq!(rows_in_file(&path), keys(&[&first]));
        }
    }
}

/// Opening a store removes what nobody sees.
fn tidy(path: &Path) {
    drop(EmbeddedStore::open(path, &Way::Aside.options()).unwrap());
}

/// Changes in the middle of whose reading something happens, once.
struct Interrupted<'p> {
    plan: Plan,
    happens: Mutex<Option<Box<dyn FnOnce() + Send + 'p>>>,
}

impl ChangeSource for Interrupted<'_> {
    fn tables(&self) -> &[TableIndex] {
        self.plan.tables()
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        self.plan.counts(table)
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        if role == RowRole::Deleted
            && let Some(happens) = self.happens.lock().unwrap().take()
        {
            happens();
        }
        self.plan.rows(table, role)
    }
}

/// The one who lost the tenant had chosen its next generation, the next one chose the same, and the
/// first one cleans up when it is refused.
#[test]
fn what_the_next_one_built_is_not_removed_by_the_one_who_was_taken_over() {
    let (first, second, third) = (many(3_000, 1), many(3_000, 2), many(3_000, 3));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = create(&path, Way::Aside);
    let target = tenant(b"a");
    merge(&store, &target, &State::new(), &first, 1).unwrap();
    let mut stuck = store
        .begin_merge(&target, &fingerprint(&store, &target), store.schema())
        .unwrap();
    let happens = || {
        assert!(store.take_over(&target));
        merge(&store, &target, &first, &third, 3).unwrap();
    };
    let plan = Interrupted {
        plan: Plan::new(&first, &second),
        happens: Mutex::new(Some(Box::new(happens))),
    };
    let error = stuck.apply(&plan).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    drop(stuck);
    assert!(plan.happens.lock().unwrap().is_none(), "it never happened");
    assert!(read(&store, &owner(b"a")) == third);
    drop(plan);
    drop(store);
    tidy(&path);
    assert_eq!(rows_in_file(&path), keys(&[&third]));
}

#[test]
fn behind_a_fence_only_the_merge_writes_to_the_tenant() {
    let (first, second) = (many(300, 1), many(300, 2));
    for way in [Way::InPlace, Way::Aside] {
        let directory = tempfile::tempdir().unwrap();
        let store = create(&directory.path().join("store"), way);
        let target = tenant(b"a");
        merge(&store, &target, &State::new(), &first, 1).unwrap();
        let one = row(ISSUES, 9_000, Some("new"));
        let write = |id: &[u8]| {
            store.write(|transaction| {
                let mut table = transaction.table(ISSUES)?;
                table.put(&owner(b"b"), one.row())?;
                table.put(&owner(id), one.row())
            })
        };
        let fences = [store.fence(&target), store.fence(&target)];
        for attempt in 0..2 {
            let refused = write(b"a").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Locked, "{refused}");
            let delete = store.write(|transaction| {
                let mut table = transaction.table(ISSUES)?;
                table.delete_all(&owner(b"a"))
            });
            assert_eq!(delete.unwrap_err().kind(), ErrorKind::Locked);
            // Nothing of that transaction is there, and others go on.
            assert!(attempt > 0 || read(&store, &owner(b"b")).is_empty());
            write(b"aa").unwrap();
            if attempt == 0 {
                merge(&store, &target, &first, &second, 2).unwrap();
            }
        }
        assert!(read(&store, &owner(b"a")) == second);
        let [one_fence, other] = fences;
        drop(one_fence);
        assert_eq!(write(b"a").unwrap_err().kind(), ErrorKind::Locked);
        drop(other);
        write(b"a").unwrap();
    }
}

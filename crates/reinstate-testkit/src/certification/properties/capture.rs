//! What a capture must hold.

use reinstate_core::{OwnedRowBatch, RowBatch, Tenancy};

use crate::ApplicationChange;
use crate::certification::scenario::Scenario;
use crate::certification::{Contents, Fixture, Violation, captured, ensure, owner, tenant};

/// How many bytes a batch may hold: a few times the target, and one long row.
pub(super) const BATCH_BYTES_MAX: usize = 4 * RowBatch::TARGET_BYTES;

pub(super) fn a_capture_holds_every_row_once_with_its_owner(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    captured(scenario.store())?.expect(&scenario.expected, "a capture")?;
    let rows = scenario.rows_of("acme");
    scenario.write(&[
        ApplicationChange::Delete(rows[7].clone()),
        ApplicationChange::Delete(rows[6].clone()),
        ApplicationChange::Put(rows[9].clone()),
    ])?;
    captured(scenario.store())?.expect(&scenario.expected, "a capture after more writes")
}

pub(super) fn a_capture_stays_at_its_position(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let before = scenario.expected.clone();
    let view = scenario.store().begin_capture()?;
    let rows = scenario.rows_of("acme");
    let more = scenario
        .rows
        .project(&owner("acme"), scenario.id("acme", 77), None);
    scenario.write(&[
        ApplicationChange::Delete(rows[5].clone()),
        ApplicationChange::Put(more),
        ApplicationChange::Put(rows[7].clone()),
    ])?;
    let mut found = Contents::default();
    let mut batch = OwnedRowBatch::new();
    for (index, table) in view.schema().iter() {
        if table.tenancy == Tenancy::Excluded {
            continue;
        }
        let mut rows = view.table_rows(index)?;
        while rows.next_batch(&mut batch)? {
            for (owner, row) in batch.iter() {
                found.add(owner, table.name.as_str(), row.key(), row.columns());
            }
        }
    }
    found.expect(&before, "a capture that was opened before a write")
}

pub(super) fn captured_tables_can_be_read_at_the_same_time(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let view = scenario.store().begin_capture()?;
    ensure!(view.lanes() >= 1, "a capture has {} lanes", view.lanes());
    let lanes = view.lanes().min(4);
    let view = view.as_ref();
    let tables: Vec<_> = view
        .schema()
        .iter()
        .filter(|(_, table)| table.tenancy != Tenancy::Excluded)
        .collect();
    let mut found = Contents::default();
    for group in tables.chunks(lanes) {
        let read = std::thread::scope(|scope| {
            let threads: Vec<_> = group
                .iter()
                .map(|(index, table)| {
                    scope.spawn(move || {
                        let mut rows = view.table_rows(*index)?;
                        let mut batch = OwnedRowBatch::new();
                        let mut read = Vec::new();
                        while rows.next_batch(&mut batch)? {
                            read.extend(batch.iter().map(|(owner, row)| {
                                (owner.to_vec(), row.key().to_vec(), row.columns().to_vec())
                            }));
                        }
                        Ok((table.name.as_str(), read))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a lane that does not panic"))
                .collect::<Result<Vec<_>, reinstate_core::StoreError>>()
        })?;
        for (table, rows) in read {
            for (owner, key, columns) in rows {
                found.add(&owner, table, &key, &columns);
            }
        }
    }
    found.expect(&scenario.expected, "tables captured on several lanes")
}

pub(super) fn a_capture_hands_out_bounded_batches(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    write_much(&mut scenario)?;
    let view = scenario.store().begin_capture()?;
    let Some((activity, _)) = view.schema().find("activity") else {
        return Err(Violation::new("there is no table activity"));
    };
    let mut rows = view.table_rows(activity)?;
    let mut batch = OwnedRowBatch::new();
    let mut row_count = 0;
    while rows.next_batch(&mut batch)? {
        ensure!(!batch.is_empty(), "a stream went on with an empty batch");
        let bytes = batch.byte_count();
        ensure!(
            bytes <= BATCH_BYTES_MAX,
            "a batch of {bytes} bytes; at most {BATCH_BYTES_MAX}"
        );
        row_count += batch.len();
    }
    ensure!(batch.is_empty(), "a stream ended with rows in its batch");
    let expected = scenario.expected.rows_in("activity");
    ensure!(row_count == expected, "{row_count} rows of {expected}");
    Ok(())
}

pub(super) fn positions_advance_with_every_commit(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let store = scenario.store();
    let mut last = store.begin_capture()?.position();
    for number in 0..3 {
        let row = scenario
            .rows
            .setting(&owner("acme"), "theme", Some(&number.to_string()));
        scenario.write(&[ApplicationChange::Put(row)])?;
        let capture = store.begin_capture()?.position();
        ensure!(
            capture > last,
            "a capture after a commit is at {capture:?}, before it {last:?}"
        );
        let view = store.read_view()?.position();
        ensure!(
            view >= capture,
            "a later view is at {view:?}, a capture before at {capture:?}"
        );
        last = view;
    }
    let mut changes = scenario.changes();
    changes.create(&scenario.rows.activity(&owner("acme"), None, Some("merged")))?;
    let committed = scenario.merge(&tenant("acme"), &changes, 1)?.position;
    ensure!(
        committed > last,
        "a merge committed at {committed:?}, before it {last:?}"
    );
    let view = store.read_view()?.position();
    ensure!(
        view >= committed,
        "a view after a merge at {committed:?} is at {view:?}"
    );
    Ok(())
}

/// How many rows [`write_much`] writes: about 3 MB.
const MUCH_ROWS: usize = 3_000;

/// Gives one tenant more rows in `activity` than fit in a few batches.
pub(super) fn write_much(scenario: &mut Scenario<'_>) -> Result<(), Violation> {
    let filler = "x".repeat(1_000);
    let rows = scenario.rows;
    let changes: Vec<_> = (0..MUCH_ROWS)
        .map(|number| {
            let subject = number.to_string();
            rows.activity(&owner("acme"), Some(&subject), Some(&filler))
        })
        .map(ApplicationChange::Put)
        .collect();
    scenario.write(&changes)
}

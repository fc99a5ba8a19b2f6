//! What the proof of a restore reads on a real server.

use std::sync::atomic::{AtomicU64, Ordering};

use reinstate_core::{Event, Observer, Phase};

use crate::retries::Ground;

/// Counts bytes of rows that were read to verify, and lets something happen right before that.
struct Verifying<'a> {
    bytes: AtomicU64,
    before: &'a (dyn Fn() + Sync),
}

impl Observer for Verifying<'_> {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Started {
                phase: Phase::Verify,
                ..
            } => (self.before)(),
            Event::Advanced {
                phase: Phase::Verify,
                bytes,
                ..
            } => {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn read_to_verify(ground: &Ground, job: u8, before: &(dyn Fn() + Sync)) -> (u64, bool) {
    let observer = Verifying {
        bytes: AtomicU64::new(0),
        before,
    };
    let outcomes = ground.restore_watched(job, &["account:1"], &observer);
    let is_restored = outcomes.unwrap()[0].is_restored();
    (observer.bytes.into_inner(), is_restored)
}

#[test]
fn rows_that_are_as_they_were_read_back_are_not_read_again_and_others_are() {
    let ground = Ground::new(|_| {});
    assert_eq!(read_to_verify(&ground, 3, &|| {}), (0, true));
    // Somebody else's rows are none of it.
    ground.psql("UPDATE notes SET body = 'x' WHERE account_id = 1");
    let other = || drop(ground.psql("UPDATE notes SET body = 'y' WHERE account_id = 2"));
    assert_eq!(read_to_verify(&ground, 4, &other), (0, true));
    // The same contents in other versions of the rows: not known before they are read.
    ground.psql("UPDATE notes SET body = 'x' WHERE account_id = 1");
    let same = || drop(ground.psql("UPDATE notes SET body = body WHERE account_id = 1"));
    let (bytes, is_restored) = read_to_verify(&ground, 5, &same);
    assert!(bytes > 0 && is_restored, "{bytes}");
    ground.psql("UPDATE notes SET body = 'x' WHERE account_id = 1");
    let mine = || drop(ground.psql("UPDATE notes SET body = 'mine' WHERE id = 4"));
    let (bytes, is_restored) = read_to_verify(&ground, 6, &mine);
    assert!(bytes > 0 && !is_restored, "{bytes}");
}

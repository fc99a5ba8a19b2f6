//! Clocks that jump while snapshots are taken: the order of commits is the store's, and what a time means
//! is said or refused.

use reinstate::{CaptureOptions, Context, ResourceOptions, Resources};
use reinstate_core::{Cancellation, Silent, SnapshotId, Timestamp};
use reinstate_repository::LocalRepository;

use crate::sandbox::Sandbox;

/// 2036-01-01 and 2001-01-01, in microseconds.
const AHEAD: i64 = 2_082_758_400_000_000;
const BEHIND: i64 = 978_307_200_000_000;

/// Takes a snapshot by a clock that says this.
fn capture(sandbox: &Sandbox, number: u8, micros: i64) {
    let repository = LocalRepository::open(sandbox.path("reinstate-repository")).unwrap();
    let resources = Resources::try_new(ResourceOptions::default()).unwrap();
    let cancellation = Cancellation::new();
    let context = Context::new(&resources, &Silent, &cancellation);
    let id = SnapshotId::from_bytes([number; 16]);
    let options = CaptureOptions::new(id, Timestamp::from_micros(micros));
    reinstate::capture(context, &sandbox.store(), &repository, &options).unwrap();
}

#[test]
fn a_clock_that_jumps_between_snapshots_loses_none_and_mixes_none_up() {
    let sandbox = Sandbox::captured();
    let first = sandbox.contents_of(3);
    sandbox.write_to(3);
    capture(&sandbox, 0xaa, AHEAD);
    let second = sandbox.contents_of(3);
    sandbox.destroy(3);
    capture(&sandbox, 0xbb, BEHIND);
    assert_ne!(first, second);

    // The latest is the one after all others, whatever its clock said.
    let tenants = |at: &str| sandbox.run(&["tenants", "--at", at]).stdout;
    assert!(!tenants("latest").contains("account:3"));
    assert!(tenants("latest~1").contains("account:3"));
    let restore = |at: &str| {
        let restore = ["restore", "account:3", "--at", at, "--confirm", "account:3"];
        sandbox.run(&restore)
    };
    restore("latest").refused(8, &["account:3"]);
    restore("snap:aaaa").done(&["restored"]);
    assert_eq!(sandbox.contents_of(3), second);
    restore("latest~2").done(&["restored"]);
    assert_eq!(sandbox.contents_of(3), first);
    // Between what the clocks said, and after it: refused, with the ones around it.
    for at in ["2020-01-01T00:00:00Z", "2039-01-01T00:00:00Z"] {
        restore(at).refused(7, &["snap:"]);
    }
    restore("2000-01-01T00:00:00Z").refused(7, &["lies before the first snapshot"]);
    assert_eq!(sandbox.contents_of(3), first);
    sandbox.run(&["verify"]).done(&[]);
}

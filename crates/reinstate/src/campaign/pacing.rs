//! The pace of a run: what somebody says about it while it goes on is kept to at once.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::run::CampaignRun;
use crate::Error;

/// How often the journal is looked at for other limits, also in the middle of a tenant.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Does the work of a run, and keeps each store to the limits that the journal says last.
pub(super) fn keeping_pace<T>(
    run: &CampaignRun<'_>,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    set_limits(run);
    thread::scope(|scope| {
        // Dropped when the work ends, however it does.
        let (_working, ended) = channel::<()>();
        scope.spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // What cannot be read now stops the work at its next step, or is read the next time.
                if run.journal.refresh().is_ok() {
                    set_limits(run);
                }
            }
        });
        work()
    })
}

fn set_limits(run: &CampaignRun<'_>) {
    for (store, open) in (0..).zip(run.estate) {
        if let (Some(pace), Some(limits)) = (open.pace, run.journal.limits(store)) {
            pace.set_limits(limits);
        }
    }
}

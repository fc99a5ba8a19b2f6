//! Exit codes: the one table that turns what went wrong into a number and a name.

use reinstate_core::ErrorKind;

/// How the process ends. The numbers are an interface: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done, and verified where there is something to verify.
    Done = 0,
    /// Anything else that went wrong.
    Other = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Some tenants failed, others did not.
    Partial = 3,
    /// Verification failed, or bytes are corrupt.
    Unproven = 4,
    /// Conflicts, under the policy to fail on them.
    Conflict = 5,
    /// The plan is stale, altered or not approved.
    Stale = 6,
    /// No snapshot covers the point in time.
    NotRecoverable = 7,
    /// No such tenant, snapshot or job, or more than one.
    NotFound = 8,
    /// There is no repository.
    NoRepository = 10,
    /// Somebody else holds the store, the repository or the tenant.
    Locked = 11,
    /// There are changes. Only where `--detailed-exitcode` asks for it.
    Changes = 20,
    /// Interrupted; the same command goes on where it stopped.
    Interrupted = 75,
    /// Interrupted by the terminal.
    SignalInterrupt = 130,
    /// Asked to end by another process.
    SignalTerminate = 143,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// How an error of this kind ends the process.
    #[must_use]
    pub const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage | ErrorKind::Unclassified => Self::Usage,
            ErrorKind::Corrupt | ErrorKind::Unverified => Self::Unproven,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Stale | ErrorKind::Altered => Self::Stale,
            ErrorKind::NotRecoverable => Self::NotRecoverable,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Locked => Self::Locked,
            ErrorKind::Cancelled => Self::Interrupted,
            _ => Self::Other,
        }
    }
}

/// The name of a kind of error, for machines.
#[must_use]
pub const fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "usage",
        ErrorKind::Unclassified => "unclassified",
        ErrorKind::Refused => "refused",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Stale => "stale",
        ErrorKind::Altered => "altered",
        ErrorKind::NotRecoverable => "not_recoverable",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Locked => "locked",
        ErrorKind::Contended => "contended",
        ErrorKind::Full => "full",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::NotFound => "not_found",
        ErrorKind::OutcomeUnknown => "outcome_unknown",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Unverified => "unverified",
        _ => "other",
    }
}

/// What to do next about an error of this kind, where the command knows nothing better.
#[must_use]
pub const fn next_step(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "reinstate --help",
        ErrorKind::Unclassified => "classify the tables in reinstate.toml, then: reinstate doctor",
        ErrorKind::Stale | ErrorKind::Altered => "make a new plan: reinstate plan --help",
        ErrorKind::NotRecoverable => "reinstate snapshots",
        ErrorKind::Conflict => "plan again with --on-conflict keep-live to leave such rows out",
        ErrorKind::Locked => "wait until the other process is done, then run the same command",
        ErrorKind::Contended => "run the same command again",
        ErrorKind::Full => "make room, then run the same command again",
        ErrorKind::Corrupt => "see what is damaged and what is not: reinstate verify",
        ErrorKind::NotFound => "reinstate snapshots; reinstate tenants",
        ErrorKind::OutcomeUnknown => "when the store is back, run the same command again",
        ErrorKind::Cancelled => "run the same command again",
        ErrorKind::Unverified => "run the same command again: it finds the commit",
        _ => "reinstate doctor",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_interface_has_its_number() {
        for (kind, code) in [
            (ErrorKind::Usage, 2),
            (ErrorKind::Unclassified, 2),
            (ErrorKind::Refused, 1),
            (ErrorKind::Unavailable, 1),
            (ErrorKind::Stale, 6),
            (ErrorKind::Altered, 6),
            (ErrorKind::NotRecoverable, 7),
            (ErrorKind::Conflict, 5),
            (ErrorKind::Locked, 11),
            (ErrorKind::Contended, 1),
            (ErrorKind::Full, 1),
            (ErrorKind::Corrupt, 4),
            (ErrorKind::NotFound, 8),
            (ErrorKind::OutcomeUnknown, 1),
            (ErrorKind::Cancelled, 75),
            (ErrorKind::Unverified, 4),
            (ErrorKind::Other, 1),
        ] {
            assert_eq!(Exit::of(kind).code(), code, "{}", kind_name(kind));
        }
    }
}

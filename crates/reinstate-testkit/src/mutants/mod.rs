//! Stores that are each wrong in exactly one way.
//!
//! A property that no mutant breaks cannot fail and proves nothing; a mutant that no property
//! catches shows a promise that nobody checks. Both are tested.

mod reading;
mod store;
mod writing;

pub use store::{MutantFixture, MutantStore};

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is wrong with a mutant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Mutation {
            $($(#[$doc])* $name,)*
        }

        impl Mutation {
            /// Every mutation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

mutations! {
    /// A capture leaves out what is in its last batch.
    CaptureMissesTheLastBatch,
    /// A capture hands the first row of a table out twice.
    CaptureRepeatsARow,
    /// A capture gives a tenant the comments of the one whose id starts alike.
    CaptureMisattributesAnOwner,
    /// A capture takes rows without a key that are equal for one row.
    CaptureMergesDuplicates,
    /// A capture reads NULL as an empty text.
    CaptureReadsNullAsEmpty,
    /// Each table of a capture is read at the position at which it is asked for.
    CaptureSeesLaterWrites,
    /// A capture hands a table out in one batch.
    CaptureReadsATableAtOnce,
    /// A capture says that it has no lanes.
    CaptureHasNoLanes,
    /// A capture calls rows whose tenant is NULL or empty its first tenant's.
    CaptureGivesSharedRowsAway,
    /// A view is not of one position.
    ViewSeesLaterWrites,
    /// A view finds the rows of every tenant whose id starts with the asked one.
    ViewMatchesPrefixes,
    /// A view compares tenants without regard to case.
    ViewFoldsCase,
    /// A view takes rows without a key that are equal for one row.
    ViewMergesDuplicates,
    /// A view says that its rows are sorted, and hands them out backwards.
    ViewIsNotSortedAsClaimed,
    /// A view hands a tenant's table out in one batch.
    ViewReadsATableAtOnce,
    /// Positions of captures and views never change.
    PositionStandsStill,
    /// A fingerprint is that of the whole store.
    FingerprintIsTheStores,
    /// A fingerprint counts rows, and does not see one replaced.
    FingerprintCountsRows,
    /// A fingerprint leaves out tables without a key.
    FingerprintSkipsKeylessTables,
    /// A fingerprint leaves out tables that reach the tenant through another.
    FingerprintSkipsIndirectTables,
    /// A merge leaves the fingerprint as it was.
    FingerprintIgnoresMerges,
    /// Nothing is ever held by others.
    HeldIsAlwaysEmpty,
    /// The tenant's own keys are held by others, too.
    HeldNamesOwnKeys,
    /// A merge begins whatever the tenant's fingerprint is.
    MergeIgnoresTheFingerprint,
    /// A merge begins whatever the tables are.
    MergeIgnoresTheSchema,
    /// Two runs may write to one tenant at the same time.
    MergeLetsTwoRunsIn,
    /// Only the first batch of every table and role is written.
    MergeWritesTheFirstBatchOnly,
    /// Of equal rows to be created or deleted, one is left out.
    MergeLosesADuplicate,
    /// A row created with NULL has an empty text.
    MergeWritesNullAsEmpty,
    /// The counts are those of the plan, whatever happened.
    MergeCountsWhatWasAsked,
    /// A row to be created replaces the one that has its key, and counts as created.
    MergeTakesKeys,
    /// Rows of others that a plan names are written.
    MergeAcceptsForeignRows,
    /// Settings are deleted for every tenant whose id starts with the merged one's.
    MergeDeletesByPrefix,
    /// A foreign row disappears with the tenant's, as by a cascading key.
    MergeCascadesIntoNeighbours,
    /// A foreign row is written again as it was, and so carries the mark of the commit.
    MergeRewritesANeighbour,
    /// Reading back inside a transaction shows what was committed before it.
    ReadBackShowsTheOutside,
    /// The last change of a plan is not committed.
    CommitLeavesTheLastChangeOut,
    /// A commit puts back the store as it was when the writer was opened.
    CommitLosesConcurrentWrites,
    /// A commit leaves no journal entry.
    CommitForgetsTheJournal,
    /// A writer that is dropped has written.
    DropCommits,
    /// The journal answers for any tenant of a run.
    JournalIgnoresTheTenant,
    /// Preparing begins a new journal.
    PrepareForgetsTheJournal,
    /// A commit that is read back has no counters.
    CommitIsReadBackWithoutCounters,
    /// A commit that is read back has the mark of the last one.
    CommitIsReadBackAsOfNow,
    /// No row ever carries a commit's mark.
    MarkFindsNothing,
    /// The tenant's own rows count as foreign.
    MarkFindsOwnRows,
    /// Counters are not raised.
    CountersAreForgotten,
    /// Counters are set to the last restored value, even if that lowers them.
    CountersAreLowered,
}

//! What a reviewer of a plan should know besides the rows that change.

/// What a note is about. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum NoteKind {
    /// A live table that the snapshot does not have.
    TableAdded = 1,
    /// A table of the snapshot that is gone, with rows that are not restored.
    TableGone = 2,
    /// A table with another name than in the snapshot.
    TableRenamed = 3,
    /// A live column that the snapshot does not have.
    ColumnAdded = 4,
    /// A column of the snapshot that is gone.
    ColumnDropped = 5,
    /// A column with another name than in the snapshot.
    ColumnRenamed = 6,
    /// A column with another type than in the snapshot.
    TypeChanged = 7,
    /// Something that the store does by itself when the rows change, and that is allowed.
    EffectAllowed = 8,
    /// Something that the store does by itself and that nobody has allowed: an obstacle.
    EffectRefused = 9,
    /// Rows to be written refer to a row that nobody has: an obstacle.
    ParentMissing = 10,
    /// Rows to be written refer to a row of another tenant.
    ParentForeign = 11,
    /// Rows that an incident left behind without the row they belong to, and that are the tenant's
    /// again.
    LeftBehind = 12,
    /// The rows are those of a copy of another tenant.
    Copied = 13,
    /// A key of the copy's rows is another than the original's.
    KeyChanged = 14,
    /// Columns of the copy that may refer to rows of the original, and of which nothing says so.
    ReferenceKept = 15,
    /// A table of which the copy has no rows.
    LeftOut = 16,
    /// New numbers of a copy that nothing in the store is moved beyond.
    KeyUncounted = 17,
    /// Rows of everybody that rows to be written refer to are not what they were.
    ParentChanged = 18,
    /// Relations of one kind that are no ordinary tables, and what becomes of them.
    OtherRelations = 19,
    /// Rows of everybody that are gone are created because rows to be written refer to them.
    ParentCreated = 20,
    /// A transaction after the restore point that was the last to change rows of the plan.
    ChangedBy = 21,
    /// Rows of the plan that changed after what the change log has, or without its saying so.
    ChangedLater = 22,
    /// Only rows that this transaction changed last go back.
    OnlyChangedBy = 23,
    /// Rows of another tenant of the plan refer to rows that go: that one's turn is before.
    ComesAfter = 24,
}

impl NoteKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 24] = [
        Self::TableAdded,
        Self::TableGone,
        Self::TableRenamed,
        Self::ColumnAdded,
        Self::ColumnDropped,
        Self::ColumnRenamed,
        Self::TypeChanged,
        Self::EffectAllowed,
        Self::EffectRefused,
        Self::ParentMissing,
        Self::ParentForeign,
        Self::LeftBehind,
        Self::Copied,
        Self::KeyChanged,
        Self::ReferenceKept,
        Self::LeftOut,
        Self::KeyUncounted,
        Self::ParentChanged,
        Self::OtherRelations,
        Self::ParentCreated,
        Self::ChangedBy,
        Self::ChangedLater,
        Self::OnlyChangedBy,
        Self::ComesAfter,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == number)
    }

    /// What it is called in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TableAdded => "table_added",
            Self::TableGone => "table_gone",
            Self::TableRenamed => "table_renamed",
            Self::ColumnAdded => "column_added",
            Self::ColumnDropped => "column_dropped",
            Self::ColumnRenamed => "column_renamed",
            Self::TypeChanged => "type_changed",
            Self::EffectAllowed => "effect_allowed",
            Self::EffectRefused => "effect_refused",
            Self::ParentMissing => "parent_missing",
            Self::ParentForeign => "parent_foreign",
            Self::LeftBehind => "left_behind",
            Self::Copied => "copied",
            Self::KeyChanged => "key_changed",
            Self::ReferenceKept => "reference_kept",
            Self::LeftOut => "left_out",
            Self::KeyUncounted => "key_uncounted",
            Self::ParentChanged => "parent_changed",
            Self::OtherRelations => "other_relations",
            Self::ParentCreated => "parent_created",
            Self::ChangedBy => "changed_by",
            Self::ChangedLater => "changed_later",
            Self::OnlyChangedBy => "only_changed_by",
            Self::ComesAfter => "comes_after",
        }
    }

    /// Whether a plan with such a note cannot be applied.
    #[must_use]
    pub const fn is_obstacle(self) -> bool {
        match self {
            Self::EffectRefused | Self::ParentMissing => true,
            Self::TableAdded
            | Self::TableGone
            | Self::TableRenamed
            | Self::ColumnAdded
            | Self::ColumnDropped
            | Self::ColumnRenamed
            | Self::TypeChanged
            | Self::EffectAllowed
            | Self::ParentForeign
            | Self::LeftBehind
            | Self::Copied
            | Self::KeyChanged
            | Self::ReferenceKept
            | Self::LeftOut
            | Self::KeyUncounted
            | Self::ParentChanged
            | Self::OtherRelations
            | Self::ParentCreated
            | Self::ChangedBy
            | Self::ChangedLater
            | Self::OnlyChangedBy
            | Self::ComesAfter => false,
        }
    }
}

/// Something that a reviewer of a plan should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanNote {
    /// What it is about.
    pub kind: NoteKind,
    /// The table, column, key or trigger.
    pub object: String,
    /// What about it, in words; without values of anybody but the plan's tenants.
    pub detail: String,
    /// How many rows it touches; 0 where rows are not counted.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back_from_their_numbers() {
        for (kind, number) in NoteKind::ALL.into_iter().zip(1..) {
            assert_eq!(NoteKind::from_number(number), Some(kind));
        }
        assert_eq!(NoteKind::from_number(0), None);
        assert_eq!(NoteKind::from_number(25), None);
    }
}

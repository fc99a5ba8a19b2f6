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
    /// A trigger or rule that fires, and is allowed to.
    TriggerFires = 8,
    /// A trigger or rule that would fire, and that nobody has allowed: an obstacle.
    TriggerUnknown = 9,
    /// A row of everybody that rows to be written refer to is gone: an obstacle.
    SharedMissing = 10,
    /// A row of everybody that rows to be written refer to is not what it was.
    SharedChanged = 11,
    /// Rows to be written refer to a row of another tenant: an obstacle.
    ForeignParent = 12,
    /// Rows to be written refer to a row that nobody has: an obstacle.
    ParentGone = 13,
}

impl NoteKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::TableAdded,
        Self::TableGone,
        Self::TableRenamed,
        Self::ColumnAdded,
        Self::ColumnDropped,
        Self::ColumnRenamed,
        Self::TypeChanged,
        Self::TriggerFires,
        Self::TriggerUnknown,
        Self::SharedMissing,
        Self::SharedChanged,
        Self::ForeignParent,
        Self::ParentGone,
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
            Self::TriggerFires => "trigger_fires",
            Self::TriggerUnknown => "trigger_unknown",
            Self::SharedMissing => "shared_missing",
            Self::SharedChanged => "shared_changed",
            Self::ForeignParent => "foreign_parent",
            Self::ParentGone => "parent_gone",
        }
    }

    /// Whether a plan with such a note cannot be applied.
    #[must_use]
    pub const fn is_obstacle(self) -> bool {
        match self {
            Self::TriggerUnknown | Self::SharedMissing | Self::ForeignParent | Self::ParentGone => {
                true
            }
            Self::TableAdded
            | Self::TableGone
            | Self::TableRenamed
            | Self::ColumnAdded
            | Self::ColumnDropped
            | Self::ColumnRenamed
            | Self::TypeChanged
            | Self::TriggerFires
            | Self::SharedChanged => false,
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
        assert_eq!(NoteKind::from_number(14), None);
    }
}

//! What a plan may change, and how much.

use std::ops::AddAssign;

/// What a run of rows in a segment is. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RowRole {
    /// Rows of a snapshot.
    Image = 0,
    /// Rows that the live tenant lacks and a plan creates.
    Created = 1,
    /// Live rows that a plan puts back, as they are before.
    PutBackBefore = 2,
    /// The same rows, key by key, as they are after.
    PutBackAfter = 3,
    /// Live rows that a plan deletes.
    Deleted = 4,
    /// Rows of everybody that are gone and that a tenant's plan creates, because its rows refer to
    /// them.
    SharedCreated = 5,
    /// Of each row that a plan creates, puts back or deletes, what is known about what changed it last.
    LastChange = 6,
}

impl RowRole {
    /// Every role, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Image,
        Self::Created,
        Self::PutBackBefore,
        Self::PutBackAfter,
        Self::Deleted,
        Self::SharedCreated,
        Self::LastChange,
    ];

    /// The role with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&role| role as u8 == number)
    }

    /// The role of the same rows in the plan that undoes this one. What was created for everybody, and
    /// what changed rows before, is in none.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Image => Self::Image,
            Self::Created => Self::Deleted,
            Self::PutBackBefore => Self::PutBackAfter,
            Self::PutBackAfter => Self::PutBackBefore,
            Self::Deleted => Self::Created,
            Self::SharedCreated => Self::SharedCreated,
            Self::LastChange => Self::LastChange,
        }
    }
}

/// How many rows of a table change, by kind of change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChangeCounts {
    /// Rows created.
    pub created: u64,
    /// Rows put back: present, with other contents.
    pub put_back: u64,
    /// Rows deleted.
    pub deleted: u64,
}

impl ChangeCounts {
    /// No change.
    pub const NONE: Self = Self {
        created: 0,
        put_back: 0,
        deleted: 0,
    };

    /// Rows changed in any way.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.created + self.put_back + self.deleted
    }

    /// The counts of the opposite change.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            created: self.deleted,
            put_back: self.put_back,
            deleted: self.created,
        }
    }
}

impl AddAssign for ChangeCounts {
    fn add_assign(&mut self, other: Self) {
        self.created += other.created;
        self.put_back += other.put_back;
        self.deleted += other.deleted;
    }
}

/// Whether a kind of change may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// It may.
    On,
    /// It may not: such rows stay as they are, and the plan counts them as kept.
    Off,
}

/// What to do with a row whose place is taken by a row that the plan does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConflictPolicy {
    /// The plan cannot be applied.
    Fail,
    /// The live row stays; the snapshot's row is left out, and the outcome is incomplete.
    KeepLive,
    /// The snapshot's row is written in its place, if the live row is the tenant's own. A row of
    /// another tenant always stays.
    TakeSnapshot,
}

/// Which changes a plan may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Rows that the tenant had and has no more.
    pub create: Switch,
    /// Rows that the tenant has, with other contents.
    pub put_back: Switch,
    /// Rows that the tenant has and did not have.
    pub delete: Switch,
    /// Rows whose place is taken.
    pub on_conflict: ConflictPolicy,
}

impl Policy {
    /// The tenant exactly as it was; nothing is written where a place is taken.
    pub const EXACT: Self = Self {
        create: Switch::On,
        put_back: Switch::On,
        delete: Switch::On,
        on_conflict: ConflictPolicy::Fail,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_back_from_their_numbers_and_reverse_twice_to_themselves() {
        for role in RowRole::ALL {
            assert_eq!(RowRole::from_number(role as u8), Some(role));
            assert_eq!(role.reversed().reversed(), role);
        }
        assert_eq!(RowRole::from_number(7), None);
    }
}

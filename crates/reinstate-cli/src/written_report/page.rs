//! The page: everything as the text that stands on it. The template escapes all of it.

use askama::Template;
use reinstate::TablePlan;
use reinstate_core::{ChangeCounts, ContentDigest};

use crate::render::count;

/// A report, ready to be written.
#[derive(Debug, Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    pub(super) version: &'static str,
    pub(super) written_at: String,
    /// What kind of report it is.
    pub(super) kind: &'static str,
    pub(super) title: String,
    pub(super) status: Status,
    /// The outcome in a sentence.
    pub(super) lede: String,
    pub(super) figures: Vec<Fact>,
    /// What whoever reads only the top has to know.
    pub(super) cautions: Vec<String>,
    /// To which moment, and what lies behind it.
    pub(super) moment: Vec<Fact>,
    /// What each of the subjects is.
    pub(super) each: &'static str,
    pub(super) subjects: Vec<Subject>,
    /// What the outcome rests on.
    pub(super) proof: &'static str,
    pub(super) evidence: Vec<Fact>,
}

/// A name and what it stands for.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) value: String,
}

impl Fact {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "most values are made in place"
    )]
    pub(super) fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self {
            name: name.into(),
            value: value.to_string(),
        }
    }
}

/// How something came out: in words, with the colour that goes with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) label: String,
    pub(super) class: &'static str,
}

impl Status {
    fn new(label: impl Into<String>, class: &'static str) -> Self {
        let label = label.into();
        Self { label, class }
    }

    pub(super) fn good(label: impl Into<String>) -> Self {
        Self::new(label, "good")
    }

    pub(super) fn warn(label: impl Into<String>) -> Self {
        Self::new(label, "warn")
    }

    pub(super) fn bad(label: impl Into<String>) -> Self {
        Self::new(label, "bad")
    }

    /// Neither: it is under way, or there was nothing to do.
    pub(super) fn still(label: impl Into<String>) -> Self {
        Self::new(label, "still")
    }
}

/// A tenant.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// What the overview leads to: made of digits, not of the name.
    pub(super) anchor: String,
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) rows_changed: String,
    pub(super) remark: String,
    pub(super) parts: Vec<Part>,
    pub(super) gates: Vec<Gate>,
}

/// A tenant in one store.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// Empty where there is only one store.
    pub(super) name: String,
    pub(super) facts: Vec<Fact>,
    pub(super) tables: Vec<TableLine>,
    pub(super) totals: Vec<String>,
    pub(super) missing: Vec<String>,
    pub(super) evidence: Vec<Fact>,
}

/// A table of a tenant: its columns as the template has them.
#[derive(Clone, Debug)]
pub(super) struct TableLine {
    pub(super) name: String,
    pub(super) numbers: Vec<String>,
}

/// A gate of a tenant.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) detail: String,
    pub(super) when: String,
}

/// The numbers of one table, or of several.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) counts: ChangeCounts,
    pub(super) same: u64,
    pub(super) left: u64,
    pub(super) after: u64,
}

impl Numbers {
    pub(super) fn of(table: &TablePlan) -> Self {
        Self {
            counts: table.counts,
            same: table.same,
            left: table.kept + table.conflicts,
            after: table.expected.row_count(),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.counts += other.counts;
        self.same += other.same;
        self.left += other.left;
        self.after += other.after;
    }

    pub(super) fn cells(self) -> Vec<String> {
        let Self {
            counts,
            same,
            left,
            after,
        } = self;
        let ChangeCounts {
            created,
            put_back,
            deleted,
        } = counts;
        [created, put_back, deleted, same, left, after]
            .map(count)
            .to_vec()
    }
}

/// A content's digest, as it is written.
pub(super) fn content(digest: ContentDigest) -> String {
    format!("{:032x}", digest.sum())
}

//! How values are shown, to people and to machines.

mod outcome;
mod plan;
mod row;
mod snapshot;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{BinaryBytes, HumanCount};
use reinstate_core::{Tenant, TenantId, TenantKind};

pub use outcome::{findings, outcome_line, outcome_record};
pub use plan::{LISTED_CONFLICTS_MAX, Totals, notes, plan_head, plan_tables, record_plan, totals};
pub use row::{ChangeRecord, ExportedRow, key_parts, key_text, row_text, row_value};
pub use snapshot::{TenantRecord, snapshot_record};

/// A table without lines. Columns whose title begins with `>` hold numbers: to the right.
#[must_use]
pub fn grid(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let titles = header.iter().map(|title| title.trim_start_matches('>'));
    table.set_header(titles.collect::<Vec<_>>());
    table.add_rows(rows);
    for (place, column) in table.column_iter_mut().enumerate() {
        if header
            .get(place)
            .is_some_and(|title| title.starts_with('>'))
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// A number with its thousands apart.
#[must_use]
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A number of things, with its thousands apart.
#[must_use]
pub fn counted(number: u64, one: &str, several: &str) -> String {
    format!(
        "{} {}",
        count(number),
        if number == 1 { one } else { several }
    )
}

/// A number of bytes in binary units.
#[must_use]
pub fn bytes(number: u64) -> String {
    BinaryBytes(number).to_string()
}

/// A tenant from its parts.
#[must_use]
pub fn tenant(kind: &TenantKind, id: &TenantId) -> Tenant {
    Tenant {
        kind: kind.clone(),
        id: id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_under_each_other() {
        let rows = [("a", 1), ("long name", 12_345)];
        let rows = rows.map(|(name, number)| vec![name.to_owned(), count(number)]);
        let lines = grid(&["table", ">rows"], rows);
        assert_eq!(
            lines,
            [
                " table        rows",
                " a               1",
                " long name  12,345"
            ]
        );
    }
}

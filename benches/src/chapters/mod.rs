//! What is measured, one chapter a file.

pub mod batch;
pub mod extract;
pub mod follow;
pub mod log;
pub mod memory;
pub mod merge;
pub mod postgres;
pub mod restore;
pub mod schema;
pub mod waits;

use anyhow::Result;

/// One measured figure with what it should be.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub figure: String,
    /// What it is beside, and what that took.
    pub beside: String,
    /// What it should be.
    pub target: &'static str,
    /// Whether it is; none where there is no target.
    pub reached: Option<bool>,
}

/// Measures everything.
///
/// # Errors
/// As the stores report it.
pub fn all(full: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    rows.extend(extract::measure()?);
    rows.extend(log::measure()?);
    rows.extend(follow::measure()?);
    rows.extend(merge::measure()?);
    rows.extend(restore::measure()?);
    rows.extend(batch::measure()?);
    rows.extend(memory::measure(full)?);
    rows.extend(postgres::measure()?);
    Ok(rows)
}

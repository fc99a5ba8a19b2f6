//! The tables that every application has many of: an id, a parent, some columns.

/// An ordinary table.
pub struct Ordinary {
    pub name: String,
    /// SQL that tells whose a row is.
    pub owner: &'static str,
    /// What makes it.
    pub definition: String,
    /// What fills it.
    pub rows: String,
}

/// Ordinary tables, the same ones for the same seed.
pub fn tables(_seed: u64) -> Vec<Ordinary> {
    Vec::new()
}

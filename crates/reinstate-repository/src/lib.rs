//! Snapshots and plans in a local directory.

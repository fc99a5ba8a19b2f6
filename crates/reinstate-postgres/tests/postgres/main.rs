//! The adapter against a real server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cycles;
mod faults;
mod feed;
mod fences;
mod ground;
mod guards;
mod held;
mod kept;
mod lease;
mod merge;
mod protection;
mod quiet;
mod reading;
mod scans;
mod states;
mod tenancy;
mod together;
mod types;
mod versions;
mod ways;

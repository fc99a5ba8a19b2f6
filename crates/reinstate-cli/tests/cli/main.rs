//! The tool as its users meet it: run in a directory, judged by exit code, words and rows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod any_commit;
mod approval;
mod bad_input;
mod campaign;
mod clocks;
mod conflicts;
mod copying;
mod corruption;
mod counting;
mod creating;
mod cycles;
mod demo;
mod drift;
mod drilling;
mod equal_keys;
mod fencing;
mod follow;
mod follow_embedded;
mod full;
mod ground;
mod guard;
mod help;
mod json;
mod killed;
mod layout;
mod lease;
mod left_behind;
mod looking;
mod moving;
mod neighbours;
mod obstacles;
mod prompting;
mod proving;
mod reporting;
mod restoring;
mod retries;
mod rules;
mod sandbox;
mod stopping;
mod surroundings;
mod tenancy;
mod together;
mod traps;

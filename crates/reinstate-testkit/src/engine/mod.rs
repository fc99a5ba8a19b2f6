//! The engine on any store: suites of random histories.
//!
//! An adapter that has its [`Fixture`] calls
//! `reinstate_testkit::certify_engine!(Its, cases = 20)` in an integration test. Each suite makes
//! that many stores, gives each a random history with a snapshot in it, and shrinks what fails.

mod batch;
mod history;
mod load;
mod oracle;
mod run;
mod suites;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::certification::{Fixture, Violation};
use history::{History, histories};
pub use load::{Load, LoadReport, check_load, try_load};

/// How often a failing history is made smaller, at most.
const SHRINKS_MAX: u32 = 300;

/// One thing that must be true of the engine on any store.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// What it is, as a sentence.
    pub name: &'static str,
    run: fn(&dyn Fixture, &History) -> Result<(), Violation>,
}

/// Runs one suite on so many histories, each on a store of its own.
///
/// The seed is printed. The environment variables `PROPTEST_RNG_SEED` and `PROPTEST_CASES` say
/// otherwise.
///
/// # Panics
/// If it does not hold, with the smallest history found; or if there is no suite of that name.
pub fn check<F: Fixture>(name: &str, cases: u32) {
    let seed = variable("PROPTEST_RNG_SEED").unwrap_or_else(fresh_seed);
    let cases = variable("PROPTEST_CASES").unwrap_or(cases);
    println!("{name}: PROPTEST_RNG_SEED={seed}, {cases} histories");
    if let Err(violation) = try_suite(name, F::create, cases, seed) {
        panic!("{name}, PROPTEST_RNG_SEED={seed}: {violation}");
    }
}

/// Runs one suite on so many histories from this seed, on fixtures that `create` makes.
///
/// # Errors
/// If it does not hold, with the smallest history found.
///
/// # Panics
/// If there is no suite of that name.
pub fn try_suite<F: Fixture>(
    name: &str,
    create: impl Fn() -> F,
    cases: u32,
    seed: u64,
) -> Result<(), Violation> {
    let suite = SUITES.iter().find(|suite| suite.name == name);
    let suite = suite.expect("a suite of that name");
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: SHRINKS_MAX,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let run = |history| {
        let fixture = create();
        (suite.run)(&fixture, &history).map_err(|violation| TestCaseError::fail(violation.0))
    };
    let result = TestRunner::new(config).run(&histories(), run);
    result.map_err(|error| Violation::new(error.to_string()))
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .ok()
            .expect("a number in the environment variable"),
    )
}

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};

    RandomState::new().hash_one(std::process::id())
}

/// Calls a macro with the names of all suites after its own arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! with_suites {
    ($($then:tt)::+, $($arguments:tt)*) => {
        $($then)::+! {
            $($arguments)*
            other_tenants_keep_every_byte
            a_second_restore_writes_nothing
            undo_gives_back_every_byte
            what_is_planned_is_what_changes
            a_restore_leaves_what_the_oracle_says
            threads_and_memory_change_nothing
            a_batch_is_planned_as_singles_are
        }
    };
}

macro_rules! suite_table {
    ($($name:ident)*) => {
        /// Every suite.
        pub const SUITES: &[Suite] = &[
            $(Suite { name: stringify!($name), run: suites::$name },)*
        ];
    };
}

with_suites!(suite_table,);

/// Makes one test of each suite for a [`Fixture`](crate::certification::Fixture).
#[macro_export]
macro_rules! certify_engine {
    ($fixture:ty, cases = $cases:expr) => {
        $crate::with_suites!($crate::engine_tests, $fixture; $cases;);
    };
}

/// The tests of [`certify_engine`].
#[doc(hidden)]
#[macro_export]
macro_rules! engine_tests {
    ($fixture:ty; $cases:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::engine::check::<$fixture>(stringify!($name), $cases);
            }
        )*
    };
}

//! Every property catches a mutant, and every mutant is caught.

use std::collections::BTreeMap;

use reinstate_testkit::certification::PROPERTIES;
use reinstate_testkit::engine::try_suite;
use reinstate_testkit::mutants::{MutantFixture, Mutation};

/// Which properties catch which mutants.
fn matrix() -> BTreeMap<Mutation, Vec<&'static str>> {
    let catch = |mutation: Mutation| {
        let caught = PROPERTIES
            .iter()
            .filter(|property| (property.run)(&MutantFixture::new(mutation)).is_err());
        (mutation, caught.map(|property| property.name).collect())
    };
    std::thread::scope(|scope| {
        let (left, right) = Mutation::ALL.split_at(Mutation::ALL.len() / 2);
        let threads = [left, right].map(|mutations| {
            scope.spawn(move || mutations.iter().copied().map(catch).collect::<Vec<_>>())
        });
        let caught = threads.map(|thread| thread.join().expect("properties do not panic"));
        caught.into_iter().flatten().collect()
    })
}

#[test]
fn every_mutant_is_caught_and_every_property_catches_one() {
    let matrix = matrix();
    for (mutation, properties) in &matrix {
        println!("{mutation:?}: {}", properties.join(", "));
    }
    let alive: Vec<_> = matrix
        .iter()
        .filter(|(_, caught)| caught.is_empty())
        .collect();
    assert!(alive.is_empty(), "nobody catches {alive:?}");
    assert_eq!(matrix.len(), Mutation::ALL.len());
    let idle: Vec<_> = PROPERTIES
        .iter()
        .map(|property| property.name)
        .filter(|name| !matrix.values().any(|caught| caught.contains(name)))
        .collect();
    assert!(
        idle.is_empty(),
        "these properties catch no mutant: {idle:?}"
    );
}

/// A suite and a mutant on which it must not hold. That threads change nothing has none: it is
/// about the engine alone.
const CAUGHT: [(&str, Mutation); 8] = [
    (
        "other_tenants_keep_every_byte",
        Mutation::MergeCascadesIntoNeighbours,
    ),
    (
        "other_tenants_keep_every_byte",
        Mutation::MergeDeletesByPrefix,
    ),
    (
        "a_second_restore_writes_nothing",
        Mutation::CommitLeavesTheLastChangeOut,
    ),
    (
        "undo_gives_back_every_byte",
        Mutation::CommitForgetsTheJournal,
    ),
    (
        "undo_gives_back_every_byte",
        Mutation::CommitLeavesTheLastChangeOut,
    ),
    (
        "what_is_planned_is_what_changes",
        Mutation::MergeCascadesIntoNeighbours,
    ),
    (
        "what_is_planned_is_what_changes",
        Mutation::CommitLeavesTheLastChangeOut,
    ),
    (
        "a_restore_leaves_what_the_oracle_says",
        Mutation::ViewMatchesPrefixes,
    ),
];

#[test]
fn suites_of_the_engine_do_not_hold_on_mutants() {
    for (suite, mutation) in CAUGHT {
        let result = try_suite(suite, || MutantFixture::new(mutation), 60, 1);
        assert!(result.is_err(), "{suite} holds on {mutation:?}");
    }
}

/// Mutants whose lies the engine finds out by itself, before or after the commit.
const FOUND_OUT: [Mutation; 8] = [
    Mutation::MergeLosesADuplicate,
    Mutation::MergeWritesNullAsEmpty,
    Mutation::MergeWritesTheFirstBatchOnly,
    Mutation::MergeAcceptsForeignRows,
    Mutation::ReadBackShowsTheOutside,
    Mutation::HeldIsAlwaysEmpty,
    Mutation::MergeTakesKeys,
    Mutation::MergeCountsWhatWasAsked,
];

#[test]
fn the_engine_harms_nobody_on_a_store_that_writes_wrongly_before_the_commit() {
    for mutation in FOUND_OUT {
        let suite = "other_tenants_keep_every_byte";
        let result = try_suite(suite, || MutantFixture::new(mutation), 60, 1);
        assert!(
            result.is_ok(),
            "{suite} does not hold on {mutation:?}: {result:?}"
        );
    }
}

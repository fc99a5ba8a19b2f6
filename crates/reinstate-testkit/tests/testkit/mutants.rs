//! Every property catches a mutant, and every mutant is caught.

use std::collections::BTreeMap;

use reinstate_testkit::certification::PROPERTIES;
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

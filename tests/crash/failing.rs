//! Each step fails once, and from each step on everything fails.
//!
//! A disk that is full or broken may end what is done, and never in the middle. What was answered with
//! success is there, what was answered with failure is not, and where nobody can know, the answer says
//! so. Then the machine goes down as well: what a failed sync was to bring to the disk may be there or
//! not.

use reinstate_core::ErrorKind;
use reinstate_testkit::figures;

use crate::disk::{Disk, Failing, State};
use crate::facts::{Facts, Reading, RepositoryFacts, StoreFacts};
use crate::failed::Failed;
use crate::image::{Honesty, Moment};
use crate::life::{Life, STEPS, Step, Way};
use crate::random::Random;

/// EIO and ENOSPC.
const CODES: [i32; 2] = [5, 28];
/// Disks that are looked at after each failure: as it is, and as crashes leave it.
const CRASHES: usize = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// Steps that failed, once or for ever.
    faults: u64,
    /// Runs that succeeded all the same: what failed was not needed.
    tolerated: u64,
    /// Runs that said that nobody can know.
    unknown: u64,
    /// Disks that were opened and read afterwards.
    recoveries: u64,
}

/// Fails every step of writing of one thing that the user asks for.
fn fail_everywhere(
    way: Way,
    state: &State,
    step: Step,
    [before, after]: [&Facts; 2],
    figures: &mut Figures,
) {
    let mut random = Random::new(7);
    for mode in [Failing::Once, Failing::From] {
        for number in 0.. {
            let disk = Disk::new(state.clone(), 2);
            let life = Life::open(&disk, way).expect("a disk that works");
            let opened = disk.log().len();
            disk.fail(mode(number), CODES[random.below(2)]);
            let result = life.take(step);
            let was_met = disk.step_count() > number;
            // A process that goes away, and takes nothing to the disk any more.
            disk.fail(Failing::From(0), CODES[0]);
            drop(life);
            if !was_met {
                result.expect("nothing failed");
                break;
            }
            figures.faults += 1;
            let mut found = vec![disk.state()];
            let mut moment = Moment::new(state.clone(), Honesty::Honest);
            for operation in disk.log() {
                moment.advance(&operation);
            }
            assert!(opened <= disk.log().len());
            found.extend((0..CRASHES).map(|_| moment.image(&mut random).0));
            for state in found {
                figures.recoveries += 1;
                let what = format!("{way:?}, {step:?}, {:?}", mode(number));
                check(&state, way, &result, [before, after], &what);
            }
            match result {
                Ok(()) => figures.tolerated += 1,
                Err(error) if error.kind == ErrorKind::OutcomeUnknown => figures.unknown += 1,
                Err(_) => {}
            }
        }
    }
}

/// What is found fits what was answered.
#[track_caller]
fn check(
    state: &State,
    way: Way,
    answer: &Result<(), Failed>,
    [before, after]: [&Facts; 2],
    what: &str,
) {
    let disk = || Disk::new(state.clone(), 3);
    let what = match answer {
        Ok(()) => format!("{what}, answered with success"),
        Err(error) => format!("{what}, answered with {error}"),
    };
    let kept = RepositoryFacts::read(&disk(), Reading::EveryRow)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let live = StoreFacts::read(&disk(), way).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        live == before.store || live == after.store,
        "{what}: a tenant is neither as before nor as after"
    );
    assert!(kept.can_undo(&live), "{what}: it cannot be taken back");
    let least = if answer.is_ok() { after } else { before };
    assert!(
        kept.is_between(&least.repository, &after.repository),
        "{what}: found {kept:?}"
    );
    match answer {
        Ok(()) => assert_eq!(live, after.store, "{what}"),
        Err(error) => {
            let is_open = matches!(
                error.kind,
                ErrorKind::OutcomeUnknown | ErrorKind::Unverified
            ) || error.to_string().contains("are committed");
            assert!(is_open || live == before.store, "{what}: but it was done");
            let is_damage = matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Altered);
            assert!(!is_damage, "{what}: nothing is damaged");
        }
    }
}

/// Fails every step of every thing in a life that these want.
fn fail_in_life(way: Way, wanted: impl Fn(Step) -> bool) {
    let (mut state, _) = Life::prepare(way);
    let mut before = Facts::of(&state, way);
    let mut found = Figures::default();
    for step in STEPS {
        let disk = Disk::new(state.clone(), 2);
        let life = Life::open(&disk, way).expect("what was prepared");
        life.take(step).expect("a disk that works");
        drop(life);
        let after = Facts::of(&disk.state(), way);
        if wanted(step) {
            fail_everywhere(way, &state, step, [&before, &after], &mut found);
        }
        (state, before) = (disk.state(), after);
    }
    let name = match way {
        Way::InPlace => "failing-steps-in-place",
        Way::Aside => "failing-steps-aside",
    };
    figures::record(
        name,
        &[
            ("faults", found.faults),
            ("answered with success", found.tolerated),
            ("answered with outcome unknown", found.unknown),
            ("disks read", found.recoveries),
            ("violations", 0),
        ],
    );
    assert!(found.faults > 100 && found.unknown > 0, "{found:?}");
}

#[test]
fn whatever_fails_the_answer_is_true_while_merges_are_in_place() {
    fail_in_life(Way::InPlace, |_| true);
}

#[test]
fn whatever_fails_the_answer_is_true_while_merges_are_aside() {
    fail_in_life(Way::Aside, |step| {
        matches!(step, Step::Restore { .. } | Step::Undo { .. })
    });
}

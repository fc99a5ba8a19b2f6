//! Every moment of a life, and disks as a crash at that moment may leave them.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use reinstate_core::ErrorKind;
use reinstate_testkit::figures;

use crate::disk::{Disk, Node, Operation, State};
use crate::facts::{Facts, Published, Reading, RepositoryFacts, StoreFacts};
use crate::failed::Failed;
use crate::image::{Honesty, Moment};
use crate::life::{Life, Way, live, proven, snapshot_id};
use crate::random::Random;

/// Where choices start unless the environment says otherwise.
const SEED: u64 = 20_261_130;
/// How many disks are made of each half at each moment.
const IMAGES_PER_MOMENT: usize = 34;
/// Of so many disks one is recovered while that is stopped as well.
const RECOVERIES_STOPPED_ONE_IN: u64 = 40;
/// How many disks are made of each moment of a recovery.
const IMAGES_OF_RECOVERY: usize = 2;
/// Of so many moments, one is gone on from: followed, restored.
const GONE_ON_ONE_IN: usize = 12;

/// What was found. Printed at the end.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// Steps of writing, after each of which there was a crash.
    moments: u64,
    /// Disks, told apart by what is on them.
    images: u64,
    /// Stores and repositories that were opened and read.
    recoveries: u64,
    /// Of those, after a second crash, in the middle of a recovery.
    second_crashes: u64,
    /// Disks on which the store was then followed and restored.
    gone_on: u64,
    lost: u64,
    unreadable: u64,
    mixed: u64,
}

impl Figures {
    fn violations(&self) -> u64 {
        self.lost + self.unreadable + self.mixed
    }
}

/// A store or a repository, at one moment of the life of both.
struct Half<F> {
    moment: Moment,
    /// What is found on each disk; none if it cannot be read.
    found: Vec<(State, Option<F>)>,
    images_each: usize,
}

impl<F: PartialEq> Half<F> {
    fn new(state: &State, honesty: Honesty, images_each: usize) -> Self {
        Self {
            moment: Moment::new(state.clone(), honesty),
            found: Vec::new(),
            images_each,
        }
    }

    fn draw(
        &mut self,
        random: &mut Random,
        figures: &mut Figures,
        read: impl Fn(&Disk) -> Result<F, Failed>,
    ) {
        let mut drawn = BTreeMap::new();
        for _ in 0..self.images_each {
            let (state, number) = self.moment.image(random);
            drawn.entry(number).or_insert(state);
        }
        self.found.clear();
        for state in drawn.into_values() {
            let disk = Disk::new(state.clone(), 4);
            figures.recoveries += 1;
            let found = read_or_panic(&disk, &read);
            if let Err(error) = &found
                && figures.unreadable == 0
            {
                println!("unreadable: {error}");
            }
            let found = found.ok();
            if random.next().is_multiple_of(RECOVERIES_STOPPED_ONE_IN) {
                self.stop_recovery(&state, &disk, found.as_ref(), random, figures, &read);
            }
            self.found.push((state, found));
        }
    }

    /// Crashes again, in the middle of the recovery that was written down: it finds the same.
    fn stop_recovery(
        &self,
        state: &State,
        recovered: &Disk,
        found: Option<&F>,
        random: &mut Random,
        figures: &mut Figures,
        read: impl Fn(&Disk) -> Result<F, Failed>,
    ) {
        let mut moment = Moment::new(state.clone(), Honesty::Honest);
        for operation in recovered.log() {
            moment.advance(&operation);
            for _ in 0..IMAGES_OF_RECOVERY {
                let (image, _) = moment.image(random);
                figures.recoveries += 1;
                figures.second_crashes += 1;
                match (read_or_panic(&Disk::new(image, 5), &read).ok(), found) {
                    (Some(again), Some(found)) => figures.mixed += u64::from(again != *found),
                    (None, Some(_)) => figures.unreadable += 1,
                    (_, None) => {}
                }
            }
        }
    }
}

/// Reads a disk; a panic is as bad as an error.
fn read_or_panic<F>(disk: &Disk, read: impl Fn(&Disk) -> Result<F, Failed>) -> Result<F, Failed> {
    let result = panic::catch_unwind(AssertUnwindSafe(|| read(disk)));
    result.unwrap_or_else(|_| Err(Failed::new(ErrorKind::Other, "it panics")))
}

/// Every moment of a life in which merges are made this way, on a disk of this honesty.
fn crash_everywhere(way: Way, honesty: Honesty, seed: u64, images_each: usize) -> Figures {
    let (state, file, disk, promises) = live(way);
    let mut random = Random::new(seed);
    let mut figures = Figures::default();
    let mut repository = Half::new(&state, honesty, images_each);
    let mut store = Half::new(&state, honesty, images_each);
    let mut promised = 0;
    let read_store = |disk: &Disk| StoreFacts::read(disk, way);
    let published = Published::of(&disk.state());
    let read_repository = |disk: &Disk| read_repository(disk, &published);
    repository.draw(&mut random, &mut figures, read_repository);
    store.draw(&mut random, &mut figures, read_store);
    for operation in disk.log() {
        let is_of_store = operation.node() == Some(file);
        match operation {
            Operation::Make { .. } => {
                repository.moment.advance(&operation);
                store.moment.advance(&operation);
                continue;
            }
            Operation::Promise(number) => promised = number,
            _ if is_of_store => {
                store.moment.advance(&operation);
                store.draw(&mut random, &mut figures, read_store);
            }
            _ => {
                repository.moment.advance(&operation);
                repository.draw(&mut random, &mut figures, read_repository);
            }
        }
        figures.moments += 1;
        let before = &promises[promised];
        let after = promises.get(promised + 1).unwrap_or(before);
        check_pairs(&repository, &store, before, after, &mut figures);
        if honesty != Honesty::Honest && figures.violations() > 0 {
            break;
        }
        if random.below(GONE_ON_ONE_IN) == 0 && figures.violations() == 0 {
            let (on_disk, _) = &repository.found[random.below(repository.found.len())];
            let (of_store, found) = &store.found[random.below(store.found.len())];
            let found = found.as_ref().expect("a store that could be read");
            go_on(joined(on_disk, of_store, file), way, found);
            figures.gone_on += 1;
        }
    }
    figures
}

/// Reads a repository as a process that starts: it takes away what another left, too.
fn read_repository(disk: &Disk, published: &Published) -> Result<RepositoryFacts, Failed> {
    let facts = RepositoryFacts::read(disk, Reading::EveryByte(published))?;
    let files = Arc::new(disk.clone());
    let swept = reinstate_repository::LocalRepository::open_on(files, crate::life::REPOSITORY)
        .and_then(|repository| repository.sweep_temporary());
    swept?;
    Ok(facts)
}

/// Every disk of a moment: one half of each kind.
fn check_pairs(
    repository: &Half<RepositoryFacts>,
    store: &Half<StoreFacts>,
    before: &Facts,
    after: &Facts,
    figures: &mut Figures,
) {
    for (_, kept) in &repository.found {
        for (_, live) in &store.found {
            figures.images += 1;
            let (Some(kept), Some(live)) = (kept, live) else {
                figures.unreadable += 1;
                continue;
            };
            figures.lost += u64::from(!kept.is_between(&before.repository, &after.repository));
            // A tenant is exactly before or exactly after, and the journal says which.
            let is_whole = *live == before.store || *live == after.store;
            figures.mixed += u64::from(!is_whole || !kept.can_undo(live));
        }
    }
}

/// The disk with the repository of one and the store of another.
fn joined(repository: &State, store: &State, file: Node) -> State {
    let mut state = repository.clone();
    state[file] = Arc::clone(&store[file]);
    state
}

/// What the next process does on a disk works: it follows, and restores the tenant and nobody else.
fn go_on(state: State, way: Way, found: &StoreFacts) {
    let disk = Disk::new(state, 6);
    let repository =
        RepositoryFacts::read(&disk, Reading::EveryRow).expect("it could be read before");
    let life = Life::open(&disk, way).expect("it could be opened before");
    if !repository.has(snapshot_id(crate::life::BASE)) {
        // Nothing was promised yet; a feed without its snapshot is ended by name.
        return;
    }
    life.follow().expect("the log goes on");
    let log = reinstate::log_of(&life.repository, snapshot_id(crate::life::BASE)).expect("a log");
    assert_eq!(log.damage(), None);
    let outcomes = life.restore(crate::life::BASE, 99).expect("a plan");
    proven(outcomes).expect("restored");
    let restored = StoreFacts::of(&life.store).expect("a store");
    assert!(restored.has_same_others(found), "another tenant changed");
}

/// Crashes everywhere, and fails unless there is nothing to complain of.
#[track_caller]
fn check(way: Way, name: &str) {
    let seed = figures::seed(SEED);
    println!("{way:?}, {}={seed}", figures::SEED_VARIABLE);
    let found = crash_everywhere(
        way,
        Honesty::Honest,
        seed,
        IMAGES_PER_MOMENT * figures::scale(),
    );
    figures::record(
        name,
        &[
            ("moments", found.moments),
            ("crash images", found.images),
            ("recoveries", found.recoveries),
            ("of them second crashes", found.second_crashes),
            ("gone on from", found.gone_on),
            ("promises lost", found.lost),
            ("unreadable", found.unreadable),
            ("tenants neither before nor after", found.mixed),
        ],
    );
    assert_eq!(found.violations(), 0, "{found:?}");
    assert!(found.images >= 50_000, "{found:?}");
}

#[test]
fn nothing_promised_is_lost_after_a_crash_while_merges_are_in_place() {
    check(Way::InPlace, "crash-images-in-place");
}

#[test]
fn nothing_promised_is_lost_after_a_crash_while_merges_are_aside() {
    check(Way::Aside, "crash-images-aside");
}

/// The proof that a missing sync would be seen: on a disk that forgets them promises are lost.
#[test]
fn a_disk_that_forgets_what_was_synced_is_found_out() {
    let (_, store) = Life::prepare(Way::InPlace);
    for honesty in [
        Honesty::ForgetsFilesBut(store),
        Honesty::ForgetsDirectories,
        Honesty::Forgets(store),
    ] {
        let found = crash_everywhere(Way::InPlace, honesty, SEED, 3);
        println!("{honesty:?}: {found:?}");
        assert!(found.violations() > 0, "{honesty:?}: {found:?}");
    }
}

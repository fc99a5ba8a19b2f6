//! A repository that is being made: wherever that ends, it can be made again, and never lost its header.

use std::sync::Arc;

use reinstate_core::{ErrorKind, Repository, RepositoryId};
use reinstate_repository::LocalRepository;
use reinstate_testkit::figures;

use crate::disk::{Disk, Failing, Operation, State, empty};
use crate::image::{Honesty, Moment};
use crate::life::{NOW, REPOSITORY};
use crate::random::Random;

const ID: RepositoryId = RepositoryId::from_bytes([1; 16]);
/// Disks of each moment.
const IMAGES_PER_MOMENT: usize = 4;

/// Opens the repository, or makes it where there is none; whether there was one.
fn open_or_make(state: State) -> bool {
    let disk = Arc::new(Disk::new(state, 8));
    match LocalRepository::open_on(disk.clone(), REPOSITORY) {
        Ok(found) => {
            assert_eq!(found.id(), ID);
            found.list_objects().expect("every directory is there");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            LocalRepository::init_on(disk, REPOSITORY, ID, NOW).expect("it can be made again");
            false
        }
    }
}

#[test]
fn wherever_making_a_repository_ends_it_is_there_or_can_be_made() {
    let disk = Disk::new(empty(), 8);
    let files = Arc::new(disk.clone());
    LocalRepository::init_on(files, REPOSITORY, ID, NOW).expect("a disk that works");
    disk.promise(0);
    let mut random = Random::new(figures::seed(9));
    let mut moment = Moment::new(empty(), Honesty::Honest);
    let (mut images, mut made, mut lost) = (0, 0, 0);
    for operation in disk.log() {
        moment.advance(&operation);
        for _ in 0..IMAGES_PER_MOMENT {
            let found = open_or_make(moment.image(&mut random).0);
            images += 1;
            made += u64::from(found);
            lost += u64::from(!found && matches!(operation, Operation::Promise(_)));
        }
    }
    let mut faults = 0;
    for number in 0.. {
        let disk = Disk::new(empty(), 8);
        disk.fail(Failing::Once(number), 28);
        let made = LocalRepository::init_on(Arc::new(disk.clone()), REPOSITORY, ID, NOW);
        if disk.step_count() <= number {
            made.expect("nothing failed");
            break;
        }
        faults += 1;
        let found = open_or_make(disk.state());
        lost += u64::from(made.is_ok() && !found);
    }
    figures::record(
        "making-a-repository",
        &[
            ("crash images", images),
            ("of them with a repository", made),
            ("faults", faults),
            ("repositories lost", lost),
        ],
    );
    assert_eq!(lost, 0);
    assert!(made > 0 && made < images);
}

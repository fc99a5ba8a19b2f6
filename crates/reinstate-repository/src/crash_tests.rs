//! Processes that are killed, and steps that fail, at every point of writing.
//!
//! A test runs its own binary again and has it stop just before the step of a given number; then
//! it kills it and looks at what is there. It goes on with the next number until the work gets
//! done, so every step has been the last one once.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use reinstate_core::{
    ErrorKind, ObjectReader, ObjectWriter, Repository, RepositoryError, RepositoryId, Timestamp,
};
use tempfile::TempDir;

use crate::file::create_file_on;
use crate::stopping::{Fault, Step, StoppingFileSystem};
use crate::{FileSystem, LocalRepository, create_file, open_file};

/// In the process that is to be killed: the directory, the work, the number of the step.
const ORDERS: [&str; 3] = ["CRASH_DIRECTORY", "CRASH_WORK", "CRASH_STEP"];

/// A part of an object, longer than what is gathered before it is written.
static PART: [u8; 300_000] = [0x5a; 300_000];
const PART_COUNT: usize = 3;
const RECORD: &[u8] = b"a manifest";
const NAME: [u8; 16] = [7; 16];

/// How every work ends: nothing has a name before it is on the disk, and nothing is promised before
/// its name is.
const ORDER: [&str; 6] = [
    "Write",
    "SyncFile",
    "Link",
    "SyncDirectory",
    "Unlink",
    "the end",
];

const WORKS: [Work; 4] = [Work::Init, Work::Object, Work::Record, Work::File];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Init,
    Object,
    Record,
    File,
}

impl Work {
    /// What has to be there before.
    fn prepare(self, directory: &Path) {
        if self != Self::Init {
            Self::Init.run(&unstopped(), directory).unwrap();
        }
    }

    fn run(self, files: &StoppingFileSystem, directory: &Path) -> Result<(), RepositoryError> {
        let files: Arc<dyn FileSystem> = Arc::new(files.clone());
        let root = directory.join("r");
        if self == Self::Init {
            let id = RepositoryId::from_bytes(NAME);
            return LocalRepository::init_on(files, root, id, Timestamp::from_micros(0)).map(drop);
        }
        let repository = LocalRepository::open_on(Arc::clone(&files), root)?;
        match self {
            Self::Record => repository.publish("snapshot", NAME, RECORD),
            Self::File => write_parts(Box::new(create_file_on(&files, &directory.join("p"))?)),
            _ => write_parts(repository.create_object()?),
        }
    }

    /// Whether what the work makes is there. Panics if it is there in part.
    fn is_done(self, directory: &Path) -> bool {
        let result = LocalRepository::open(directory.join("r"));
        let repository = match result {
            Err(error) if self == Self::Init && error.kind() == ErrorKind::NotFound => {
                return false;
            }
            result => result.unwrap(),
        };
        let is_whole = |reader: &dyn ObjectReader| {
            let mut bytes = vec![0; usize::try_from(reader.byte_count()).unwrap()];
            reader.read_exact_at(0, &mut bytes).unwrap();
            assert!(bytes == PART.repeat(PART_COUNT), "{} bytes", bytes.len());
        };
        let objects = repository.list_objects().unwrap();
        let found = match self {
            Self::Init => Ok(()),
            Self::Object => match objects.as_slice() {
                [] => return false,
                [object] => repository
                    .open_object(*object)
                    .map(|reader| is_whole(&*reader)),
                several => panic!("{} objects", several.len()),
            },
            Self::Record => repository.read("snapshot", NAME).map(|bytes| {
                assert_eq!(bytes, RECORD);
                assert_eq!(repository.list("snapshot").unwrap(), [NAME]);
            }),
            Self::File => open_file(&directory.join("p")).map(|reader| is_whole(&*reader)),
        };
        match found {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn write_parts(mut writer: Box<dyn ObjectWriter + '_>) -> Result<(), RepositoryError> {
    for _ in 0..PART_COUNT {
        writer.write(&PART)?;
    }
    writer.seal().map(drop)
}

/// What is done instead of the step of this number.
fn at_step(number: usize, mut act: impl FnMut(Step) -> io::Result<()> + Send + 'static) -> Fault {
    let mut count = 0;
    Box::new(move |step| {
        count += 1;
        if count == number + 1 {
            act(step)
        } else {
            Ok(())
        }
    })
}

/// A file system in which nothing goes wrong.
fn unstopped() -> StoppingFileSystem {
    StoppingFileSystem::new(Box::new(|_| Ok(())))
}

/// The part of the process that gets killed; `false` in any other.
fn is_victim() -> bool {
    let [Some(directory), Some(work), Some(number)] = ORDERS.map(std::env::var_os) else {
        return false;
    };
    let work = WORKS
        .into_iter()
        .find(|known| *format!("{known:?}") == *work);
    let number = number.to_str().and_then(|number| number.parse().ok());
    let files = StoppingFileSystem::new(at_step(number.unwrap(), |step| {
        println!("\nreached {step:?}");
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }));
    work.unwrap().run(&files, Path::new(&directory)).unwrap();
    println!("\nreached the end");
    true
}

/// Runs this test in another process up to a step, kills it there and says which step it was.
fn kill_before_step(test: &str, directory: &Path, work: Work, number: usize) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(ORDERS[0], directory)
        .env(ORDERS[1], format!("{work:?}"))
        .env(ORDERS[2], number.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let step = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("reached ").map(str::to_owned));
    child.kill().unwrap();
    child.wait().unwrap();
    step.unwrap()
}

#[test]
fn a_process_killed_before_any_step_leaves_all_or_nothing() {
    const TEST: &str = "crash_tests::a_process_killed_before_any_step_leaves_all_or_nothing";
    if is_victim() {
        return;
    }
    for work in WORKS {
        let mut steps = Vec::new();
        while steps.last().is_none_or(|step| step != "the end") {
            let directory = TempDir::new().unwrap();
            work.prepare(directory.path());
            let step = kill_before_step(TEST, directory.path(), work, steps.len());
            let is_done = work.is_done(directory.path());
            let is_linked = steps.iter().any(|step| step == "Link");
            assert_eq!(is_done, is_linked, "{work:?}, killed before {step}");
            check_recovery(work, directory.path(), is_done);
            steps.push(step);
        }
        assert!(
            steps.ends_with(&ORDER.map(str::to_owned)),
            "{work:?}: {steps:?}"
        );
    }
}

/// What a killed process left can be swept and is in nobody's way.
fn check_recovery(work: Work, directory: &Path, is_done: bool) {
    match work.run(&unstopped(), directory) {
        Ok(()) => {}
        Err(error) => {
            // Only what replaces nothing refuses to be done again.
            assert!(
                is_done && matches!(work, Work::Init | Work::File),
                "{error}"
            );
            assert_eq!(error.kind(), ErrorKind::Usage);
        }
    }
    let repository = LocalRepository::open(directory.join("r")).unwrap();
    repository.sweep_temporary().unwrap();
    assert_eq!(repository.sweep_temporary().unwrap().file_count, 0);
    assert_eq!(
        fs::read_dir(directory.join("r/temporary")).unwrap().count(),
        0
    );
    if work != Work::Object {
        assert!(work.is_done(directory));
    } else if is_done {
        assert_eq!(repository.list_objects().unwrap().len(), 2);
    }
}

#[test]
fn a_step_that_fails_is_reported_and_leaves_all_or_nothing() {
    for work in WORKS {
        let mut failed_steps = Vec::new();
        for number in 0.. {
            let directory = TempDir::new().unwrap();
            work.prepare(directory.path());
            let (sender, receiver) = std::sync::mpsc::channel();
            let files = StoppingFileSystem::new(at_step(number, move |step| {
                sender.send(step).unwrap();
                Err(io::ErrorKind::StorageFull.into())
            }));
            let result = work.run(&files, directory.path());
            let Ok(step) = receiver.try_recv() else {
                result.unwrap();
                break;
            };
            let is_done = work.is_done(directory.path());
            if step == Step::Unlink {
                result.unwrap();
                assert!(is_done);
            } else {
                assert_eq!(
                    result.unwrap_err().kind(),
                    ErrorKind::Full,
                    "{work:?}, {step:?}"
                );
                // Nobody knows the name of an object or of a file yet; a record's may be known.
                let may_stay = step == Step::SyncDirectory && failed_steps.contains(&Step::Link);
                let may_stay = may_stay && matches!(work, Work::Init | Work::Record);
                assert_eq!(is_done, may_stay, "{work:?}, {step:?}");
            }
            check_recovery(work, directory.path(), is_done);
            failed_steps.push(step);
        }
        assert!(
            failed_steps.contains(&Step::SyncFile),
            "{work:?}: {failed_steps:?}"
        );
    }
}

#[test]
fn after_a_failed_write_an_object_cannot_be_sealed() {
    let directory = TempDir::new().unwrap();
    Work::Object.prepare(directory.path());
    let files = unstopped();
    let root = directory.path().join("r");
    let repository = LocalRepository::open_on(Arc::new(files.clone()), root).unwrap();
    let mut writer = repository.create_object().unwrap();
    files.inject(at_step(0, |_| Err(io::ErrorKind::StorageFull.into())));
    assert_eq!(writer.write(&PART).unwrap_err().kind(), ErrorKind::Full);
    files.inject(Box::new(|_| Ok(())));
    assert_eq!(writer.write(&PART).unwrap_err().kind(), ErrorKind::Other);
    assert_eq!(writer.seal().unwrap_err().kind(), ErrorKind::Other);
    assert_eq!(repository.list_objects().unwrap(), []);
    assert_eq!(
        fs::read_dir(directory.path().join("r/temporary"))
            .unwrap()
            .count(),
        0
    );
}

/// A limit on the length of files stands in for a full disk: the operating system refuses the
/// write in the same place, for root too, and without a file system of our own.
#[test]
fn where_the_system_has_no_room_nothing_is_published() {
    const TEST: &str = "crash_tests::where_the_system_has_no_room_nothing_is_published";
    if let Some(directory) = std::env::var_os(ORDERS[0]) {
        return check_without_room(Path::new(&directory));
    }
    let directory = TempDir::new().unwrap();
    Work::Object.prepare(directory.path());
    // Units of 512 or of 1024 bytes, as the shell has it: both are less than one part.
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", TEST])
        .env(ORDERS[0], directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(directory.path().join("checked").exists(), "{said}");
}

fn check_without_room(directory: &Path) {
    let repository = LocalRepository::open(directory.join("r")).unwrap();
    let error = write_parts(repository.create_object().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    let error = repository.publish("snapshot", NAME, &PART).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    let plan = directory.join("p");
    let error = write_parts(Box::new(create_file(&plan).unwrap())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(!plan.exists());
    // Short enough to be gathered: the system refuses it only when the object is sealed.
    let mut writer = repository.create_object().unwrap();
    writer.write(&PART[..200_000]).unwrap();
    let error = writer.seal().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");

    assert_eq!(repository.list_objects().unwrap(), []);
    assert_eq!(repository.list("snapshot").unwrap(), [[0u8; 16]; 0]);
    assert_eq!(
        fs::read_dir(directory.join("r/temporary")).unwrap().count(),
        0
    );
    // What fits can still be written.
    repository.publish("snapshot", NAME, RECORD).unwrap();
    fs::write(directory.join("checked"), b"").unwrap();
}

//! A disk in memory that writes down every step, fails on demand, and forgets what was not synced.
//!
//! It is the file system of a repository and the storage of an embedded store at once, with one log of
//! what was done to either: a crash stops both at the same moment.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reinstate_repository::{
    DirectoryEntry, FileKind, FileStatus, FileSystem, OpenMode, StoredFile,
};

use crate::contents::Contents;
use crate::random::Random;

/// A file or directory, whatever its names.
pub type Node = usize;

/// The directory above all.
pub const ROOT: Node = 0;

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Holds {
    File(Contents),
    Directory(BTreeMap<OsString, Node>),
}

/// Everything on a disk at one moment.
pub type State = Vec<Arc<Holds>>;

/// A step that changes what a later process may find.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A file or directory without a name.
    Make {
        is_directory: bool,
    },
    Name {
        directory: Node,
        name: OsString,
        node: Node,
    },
    Unname {
        directory: Node,
        name: OsString,
    },
    Write {
        file: Node,
        offset: usize,
        bytes: Arc<[u8]>,
    },
    SetLength {
        file: Node,
        length: usize,
    },
    /// Brings what was done to this node before to the disk.
    Sync {
        node: Node,
    },
    /// The program told its user that something is done.
    Promise(usize),
}

impl Operation {
    /// What it changes.
    pub fn node(&self) -> Option<Node> {
        match *self {
            Self::Name { directory, .. } | Self::Unname { directory, .. } => Some(directory),
            Self::Write { file, .. } | Self::SetLength { file, .. } => Some(file),
            Self::Sync { node } => Some(node),
            Self::Make { .. } | Self::Promise(_) => None,
        }
    }

    pub fn apply(&self, state: &mut State) {
        match self {
            Self::Make { is_directory } => state.push(Arc::new(if *is_directory {
                Holds::Directory(BTreeMap::new())
            } else {
                Holds::File(Contents::default())
            })),
            Self::Name {
                directory,
                name,
                node,
            } => {
                names(state, *directory).insert(name.clone(), *node);
            }
            Self::Unname { directory, name } => {
                names(state, *directory).remove(name);
            }
            Self::Write {
                file,
                offset,
                bytes,
            } => contents(state, *file).write(*offset, bytes),
            Self::SetLength { file, length } => contents(state, *file).set_length(*length),
            Self::Sync { .. } | Self::Promise(_) => {}
        }
    }
}

fn names(state: &mut State, node: Node) -> &mut BTreeMap<OsString, Node> {
    match Arc::make_mut(&mut state[node]) {
        Holds::Directory(names) => names,
        Holds::File(_) => panic!("BUG: node {node} is a file"),
    }
}

/// What a file holds, to change it.
pub fn contents(state: &mut State, node: Node) -> &mut Contents {
    match Arc::make_mut(&mut state[node]) {
        Holds::File(contents) => contents,
        Holds::Directory(_) => panic!("BUG: node {node} is a directory"),
    }
}

/// Every file below a directory, by its path from there.
pub fn files_below(state: &State, path: &Path) -> BTreeMap<PathBuf, Contents> {
    let mut found = BTreeMap::new();
    let mut waiting: Vec<(PathBuf, Node)> = vec![(PathBuf::new(), find(state, path))];
    while let Some((path, node)) = waiting.pop() {
        match &*state[node] {
            Holds::Directory(names) => {
                waiting.extend(names.iter().map(|(name, node)| (path.join(name), *node)));
            }
            Holds::File(contents) => {
                found.insert(path, contents.clone());
            }
        }
    }
    found
}

/// The node of a path that is there.
pub fn find(state: &State, path: &Path) -> Node {
    let mut node = ROOT;
    for part in path.components() {
        if let Component::Normal(name) = part {
            match &*state[node] {
                Holds::Directory(names) => node = names[name],
                Holds::File(_) => panic!("BUG: a file above {}", path.display()),
            }
        }
    }
    node
}

/// A disk with nothing on it.
pub fn empty() -> State {
    vec![Arc::new(Holds::Directory(BTreeMap::new()))]
}

/// Which steps fail, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    Never,
    Once(u64),
    From(u64),
}

/// A disk that programs work on. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Work>>);

#[derive(Debug)]
struct Work {
    state: State,
    log: Vec<Operation>,
    locked: HashSet<Node>,
    names: Random,
    /// Which steps fail, with the system's number of the error.
    failing: (Failing, i32),
    steps: u64,
}

impl Disk {
    pub fn new(state: State, seed: u64) -> Self {
        // What goes on from an earlier disk draws other names than that did.
        let names = Random::new(seed.wrapping_add((state.len() as u64) << 32));
        Self(Arc::new(Mutex::new(Work {
            state,
            log: Vec::new(),
            locked: HashSet::new(),
            names,
            failing: (Failing::Never, 0),
            steps: 0,
        })))
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on it now, as a process sees it.
    pub fn state(&self) -> State {
        self.work().state.clone()
    }

    /// What was done to it.
    pub fn log(&self) -> Vec<Operation> {
        self.work().log.clone()
    }

    /// From now on these steps fail; they are counted anew.
    pub fn fail(&self, failing: Failing, code: i32) {
        let mut work = self.work();
        (work.failing, work.steps) = ((failing, code), 0);
    }

    /// How many steps there were since they are counted.
    pub fn step_count(&self) -> u64 {
        self.work().steps
    }

    /// Notes that the program told its user that something is done.
    pub fn promise(&self, number: usize) {
        self.work().log.push(Operation::Promise(number));
    }

    /// A file as storage of an embedded store; it is made if it is not there.
    pub fn storage(&self, path: &Path) -> Storage {
        let mut work = self.work();
        let (directory, name) = work.place(path).expect("a directory");
        let node = match work.names(directory).get(name) {
            Some(node) => *node,
            None => work.make(directory, name, false).expect("a new file"),
        };
        Storage {
            disk: self.clone(),
            node,
        }
    }
}

impl Work {
    /// Does something that changes the disk, or fails.
    fn change(&mut self, operation: Operation) -> io::Result<()> {
        let (failing, code) = self.failing;
        let step = self.steps;
        self.steps += 1;
        let fails = match failing {
            Failing::Never => false,
            Failing::Once(number) => step == number,
            Failing::From(number) => step >= number,
        };
        if fails {
            return Err(io::Error::from_raw_os_error(code));
        }
        operation.apply(&mut self.state);
        self.log.push(operation);
        Ok(())
    }

    fn names(&self, directory: Node) -> &BTreeMap<OsString, Node> {
        match &*self.state[directory] {
            Holds::Directory(names) => names,
            Holds::File(_) => panic!("BUG: node {directory} is a file"),
        }
    }

    fn file(&self, node: Node) -> &Contents {
        match &*self.state[node] {
            Holds::File(contents) => contents,
            Holds::Directory(_) => panic!("BUG: node {node} is a directory"),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let Holds::Directory(names) = &*self.state[node] else {
                    return Err(io::ErrorKind::NotADirectory.into());
                };
                node = *names.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(node)
    }

    /// The directory that a path is in, and its name there.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(Node, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.find(path.parent().unwrap_or(Path::new("/")))?, name))
    }

    fn make(&mut self, directory: Node, name: &OsStr, is_directory: bool) -> io::Result<Node> {
        if self.names(directory).contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.state.len();
        // Without a name it is nothing; it is made first so that the name has something to mean.
        let made = Operation::Make { is_directory };
        made.apply(&mut self.state);
        self.log.push(made);
        self.change(Operation::Name {
            directory,
            name: name.to_owned(),
            node,
        })?;
        Ok(node)
    }

    fn status(&self, node: Node) -> FileStatus {
        let is_it = |holds: &Arc<Holds>| match &**holds {
            Holds::Directory(names) => names.values().filter(|named| **named == node).count(),
            Holds::File(_) => 0,
        };
        let (kind, byte_count) = match &*self.state[node] {
            Holds::File(contents) => (FileKind::File, contents.len() as u64),
            Holds::Directory(_) => (FileKind::Directory, 0),
        };
        FileStatus {
            kind,
            identity: (0, node as u64),
            byte_count,
            link_count: self.state.iter().map(is_it).sum::<usize>() as u64,
        }
    }
}

impl FileSystem for Disk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut work = self.work();
        let (directory, name) = work.place(path)?;
        work.make(directory, name, true).map(drop)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut work = self.work();
        let node = work.find(path)?;
        work.change(Operation::Sync { node })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let work = self.work();
        let node = work.find(path)?;
        let Holds::Directory(names) = &*work.state[node] else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        let entries = names.iter().map(|(name, node)| DirectoryEntry {
            name: name.clone(),
            kind: match &*work.state[*node] {
                Holds::File(_) => FileKind::File,
                Holds::Directory(_) => FileKind::Directory,
            },
        });
        Ok(entries.collect())
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        let work = self.work();
        Ok(work.status(work.find(path)?))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoredFile>> {
        let mut work = self.work();
        let (directory, name) = work.place(path)?;
        let found = work.names(directory).get(name).copied();
        let node = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(node), _) => node,
            (None, OpenMode::CreateNew | OpenMode::OpenOrCreate) => {
                work.make(directory, name, false)?
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            node,
            holds_lock: Mutex::new(false),
        }))
    }

    fn link(&self, path: &Path, name: &Path) -> io::Result<()> {
        let mut work = self.work();
        let node = work.find(path)?;
        let (directory, name) = work.place(name)?;
        if work.names(directory).contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = name.to_owned();
        work.change(Operation::Name {
            directory,
            name,
            node,
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut work = self.work();
        work.find(path)?;
        let (directory, name) = work.place(path)?;
        let name = name.to_owned();
        work.change(Operation::Unname { directory, name })
    }

    fn draw_name(&self, name: &mut [u8; 16]) -> io::Result<()> {
        let mut work = self.work();
        name[..8].copy_from_slice(&work.names.next().to_le_bytes());
        name[8..].copy_from_slice(&work.names.next().to_le_bytes());
        Ok(())
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Disk,
    node: Node,
    holds_lock: Mutex<bool>,
}

impl StoredFile for OpenFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut work = self.disk.work();
        let offset = work.file(self.node).len();
        work.change(Operation::Write {
            file: self.node,
            offset,
            bytes: bytes.into(),
        })
    }

    fn sync(&self) -> io::Result<()> {
        let node = self.node;
        self.disk.work().change(Operation::Sync { node })
    }

    fn clear(&self) -> io::Result<()> {
        let file = self.node;
        self.disk
            .work()
            .change(Operation::SetLength { file, length: 0 })
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        Ok(self.disk.work().file(self.node).read(offset, bytes))
    }

    fn status(&self) -> io::Result<FileStatus> {
        Ok(self.disk.work().status(self.node))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut holds = self
            .holds_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *holds = *holds || self.disk.work().locked.insert(self.node);
        Ok(*holds)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if *self
            .holds_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            self.disk.work().locked.remove(&self.node);
        }
    }
}

/// A file of a disk as an embedded database uses one.
#[derive(Debug)]
pub struct Storage {
    disk: Disk,
    node: Node,
}

impl redb::StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.work().file(self.node).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.work().file(self.node).read_exact(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let file = self.node;
        self.disk
            .work()
            .change(Operation::SetLength { file, length })
    }

    fn sync_data(&self) -> io::Result<()> {
        let node = self.node;
        self.disk.work().change(Operation::Sync { node })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let file = self.node;
        self.disk.work().change(Operation::Write {
            file,
            offset,
            bytes: data.into(),
        })
    }
}

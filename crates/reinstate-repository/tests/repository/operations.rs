//! Any sequence of operations against a model of what a repository holds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use reinstate_core::{ErrorKind, ObjectId, Repository};
use reinstate_repository::LocalRepository;

use crate::{Fixture, check_error, files, fixture, get};

const KINDS: [&str; 2] = ["snapshot", "receipt"];

#[derive(Clone, Debug)]
enum Operation {
    Put {
        parts: Vec<Vec<u8>>,
    },
    Abandon {
        parts: Vec<Vec<u8>>,
    },
    Publish {
        kind: usize,
        name: u8,
        bytes: Vec<u8>,
    },
    Read {
        object: Index,
        from: Index,
        to: Index,
    },
    Adopt {
        object: Index,
    },
    Sweep,
    Reopen,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let part = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        // Around the size of the writer's buffer.
        (any::<u8>(), 262_140..262_150usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    let parts = proptest::collection::vec(part, 0..4);
    let operation = prop_oneof![
        3 => parts.clone().prop_map(|parts| Operation::Put { parts }),
        1 => parts.prop_map(|parts| Operation::Abandon { parts }),
        // Few names and contents, so that they meet.
        3 => (0..2usize, 0..3u8, proptest::collection::vec(0..2u8, 0..2))
            .prop_map(|(kind, name, bytes)| Operation::Publish { kind, name, bytes }),
        3 => any::<(Index, Index, Index)>()
            .prop_map(|(object, from, to)| Operation::Read { object, from, to }),
        1 => any::<Index>().prop_map(|object| Operation::Adopt { object }),
        1 => Just(Operation::Sweep),
        1 => Just(Operation::Reopen),
    ];
    proptest::collection::vec(operation, 0..30)
}

#[derive(Default)]
struct Model {
    objects: BTreeMap<ObjectId, Vec<u8>>,
    records: BTreeMap<(usize, u8), Vec<u8>>,
}

impl Model {
    fn apply(&mut self, fixture: &mut Fixture, operation: Operation) {
        let repository = &fixture.repository;
        match operation {
            Operation::Put { parts } => {
                let mut writer = repository.create_object().unwrap();
                for part in &parts {
                    writer.write(part).unwrap();
                }
                let object = writer.seal().unwrap();
                assert_eq!(self.objects.insert(object, parts.concat()), None);
            }
            Operation::Abandon { parts } => {
                let mut writer = repository.create_object().unwrap();
                for part in &parts {
                    writer.write(part).unwrap();
                }
            }
            Operation::Publish { kind, name, bytes } => {
                let result = repository.publish(KINDS[kind], [name; 16], &bytes);
                let there = self
                    .records
                    .entry((kind, name))
                    .or_insert_with(|| bytes.clone());
                if *there == bytes {
                    result.unwrap();
                } else {
                    check_error(result, ErrorKind::Conflict, KINDS[kind]);
                }
            }
            Operation::Read { object, from, to } => self.read(repository, object, from, to),
            Operation::Adopt { object } => {
                let Some(object) = self.pick(object) else {
                    return;
                };
                let reader = repository.open_object(object).unwrap();
                let copy = repository.adopt(&*reader).unwrap();
                let bytes = self.objects[&object].clone();
                assert_eq!(self.objects.insert(copy, bytes), None);
            }
            Operation::Sweep => {
                let swept = repository.sweep_temporary().unwrap();
                assert_eq!((swept.file_count, swept.kept_count), (0, 0));
            }
            Operation::Reopen => {
                fixture.repository = LocalRepository::open(repository.path()).unwrap();
            }
        }
    }

    fn pick(&self, index: Index) -> Option<ObjectId> {
        let objects: Vec<_> = self.objects.keys().copied().collect();
        (!objects.is_empty()).then(|| *index.get(&objects))
    }

    fn read(&self, repository: &LocalRepository, object: Index, from: Index, to: Index) {
        let Some(object) = self.pick(object) else {
            return;
        };
        let expected = &self.objects[&object];
        let reader = repository.open_object(object).unwrap();
        assert_eq!(reader.byte_count(), expected.len() as u64);
        let (from, to) = (from.index(expected.len() + 2), to.index(expected.len() + 2));
        let (from, to) = (from.min(to), from.max(to));
        let mut bytes = vec![0; to - from];
        let result = reader.read_exact_at(from as u64, &mut bytes);
        // Nothing at all can be read from anywhere.
        if to <= expected.len() {
            result.unwrap();
            assert_eq!(bytes, expected[from..to]);
        } else if from < to {
            check_error(result, ErrorKind::Corrupt, &object.to_string());
        }
    }

    fn check(&self, repository: &LocalRepository) {
        let listed = repository.list_objects().unwrap();
        assert!(listed.iter().eq(self.objects.keys()));
        for (&object, bytes) in &self.objects {
            assert_eq!(get(&*repository.open_object(object).unwrap()), *bytes);
        }
        for (number, kind) in KINDS.into_iter().enumerate() {
            let of_kind = self.records.iter().filter(|((of, _), _)| *of == number);
            let mut names = Vec::new();
            for ((_, name), bytes) in of_kind {
                assert_eq!(repository.read(kind, [*name; 16]).unwrap(), *bytes);
                names.push([*name; 16]);
            }
            assert_eq!(repository.list(kind).unwrap(), names);
        }
        assert!(files(&repository.path().join("temporary")).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_repository_holds_exactly_what_was_sealed_and_published(operations in operations()) {
        let mut fixture = fixture();
        let mut model = Model::default();
        for operation in operations {
            model.apply(&mut fixture, operation);
        }
        model.check(&fixture.repository);
    }
}

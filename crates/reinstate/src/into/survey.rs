//! One look at the image before it is compared: how far its numbers reach, and which references
//! lead out of the tenant.
//!
//! A value that no row of the tenant has stays as it is wherever it stands: it refers to a row of
//! everybody, of another tenant, or to none. Values and what they should be found among are sorted
//! side by side, on disk if need be, so that only those that lead out are held in memory.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use reinstate_core::{ErrorKind, RouteCondition, RowBuilder, TableIndex, ValueKind};

use super::Source;
use super::classes::{Class, Classes, Place};
use super::decide::{Decision, Decisions};
use super::json::{Scalar, Step, rewrite};
use crate::Error;
use crate::plan::{RowCursor, finish_sort, start_sort};
use crate::sort::{Cursor, Sorter};

/// The part of the memory that values which lead out may take.
const MEMORY_PART: usize = 8;

/// What a value takes in a set besides its bytes.
const ENTRY_BYTES: usize = 48;

/// Values of references that lead out of the tenant.
pub(super) type Strangers = Arc<HashSet<Box<[u8]>>>;

/// What was found out about the image.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The least and the greatest number of classes that get new ones.
    pub(super) ranges: BTreeMap<Class, (i64, i64)>,
    /// By class, for references that hold for all rows.
    of_classes: BTreeMap<Class, Strangers>,
    /// By their place in the list, for all others.
    of_follows: BTreeMap<usize, Strangers>,
}

impl Survey {
    /// What a reference may hold that is not to be changed.
    pub(super) fn strangers(&self, class: Class, follow: Option<usize>) -> Vec<Strangers> {
        let own = follow.and_then(|follow| self.of_follows.get(&follow));
        let of_class = self.of_classes.get(&class);
        own.into_iter().chain(of_class).cloned().collect()
    }
}

/// What is looked at in a column.
enum Task {
    /// How far its numbers reach.
    Range(Class),
    /// Its values are the tenant's own.
    Own(Class, u32),
    /// Its values should be.
    Child(Class, u32, Option<RouteCondition>),
    /// The values at the end of these paths should be.
    Documents(Vec<(Class, u32, Vec<Step>)>),
}

/// What is looked at, by table.
#[derive(Default)]
struct Tasks {
    tables: BTreeMap<TableIndex, Vec<(usize, Task)>>,
    /// Columns with own values, by their tags.
    own: BTreeMap<Place, u32>,
    /// What each tag above those is: the reference's place in the list, and the tags of columns that
    /// have to have its values.
    children: BTreeMap<u32, (usize, Vec<u32>)>,
}

/// Reads the image once, if there is anything to be found out.
///
/// # Errors
/// `Refused` if more values lead out than fit in memory; otherwise as the image is read.
pub(super) fn survey(
    source: &Source<'_>,
    classes: &Classes,
    decisions: &Decisions,
) -> Result<Survey, Error> {
    let tasks = find_tasks(source, classes, decisions);
    let mut survey = Survey::default();
    let mut sorter = start_sort(source.context);
    for (table, tasks) in &tasks.tables {
        let mut rows = source.rows(*table)?;
        let mut passed = 0_u32;
        while rows.advance()? {
            look_at(rows.as_ref(), tasks, &mut survey, &mut sorter)?;
            passed = passed.wrapping_add(1);
            if passed.is_multiple_of(4096) {
                source.context.check()?;
            }
        }
    }
    if !tasks.children.is_empty() {
        find_strangers(source, classes, &tasks, sorter, &mut survey)?;
    }
    Ok(survey)
}

fn find_tasks(source: &Source<'_>, classes: &Classes, decisions: &Decisions) -> Tasks {
    let mut tasks = Tasks::default();
    let mut add = |place: Place, task| {
        let list = tasks.tables.entry(place.0).or_default();
        list.push((place.1.get(), task));
    };
    let (mut own, mut own_count) = (BTreeMap::new(), 0_u32);
    let mut ranged = Vec::new();
    let mut waiting = Vec::new();
    for (number, follow) in classes.follows.iter().enumerate() {
        let is_changed = match decisions.of(follow.class) {
            None | Some(Decision::Tenant) => false,
            Some(_) => !decisions.is_null(follow.child),
        };
        if !is_changed || follow.is_sure || !source.has_rows(follow.child.0) {
            continue;
        }
        let parents = match follow.target {
            Some(target) if !follow.is_whole => vec![target],
            _ => classes.roots(follow.class),
        };
        for parent in parents.iter().filter(|parent| source.has_rows(parent.0)) {
            own.entry(*parent).or_insert_with(|| {
                own_count += 1;
                add(*parent, Task::Own(follow.class, own_count));
                own_count
            });
        }
        waiting.push((number, follow, parents));
    }
    for (class, decision) in decisions.all() {
        let is_number = matches!(decision, Decision::New(ValueKind::Integer { .. }));
        ranged.extend(is_number.then_some(class));
    }
    for class in ranged {
        let roots = classes.roots(class).into_iter();
        for root in roots.filter(|root| source.has_rows(root.0)) {
            add(root, Task::Range(class));
        }
    }
    let mut documents: BTreeMap<Place, Vec<(Class, u32, Vec<Step>)>> = BTreeMap::new();
    for ((number, follow, parents), tag) in waiting.into_iter().zip(own_count + 1..) {
        match &follow.path {
            Some(path) => {
                let list = documents.entry(follow.child).or_default();
                list.push((follow.class, tag, path.clone()));
            }
            None => add(
                follow.child,
                Task::Child(follow.class, tag, follow.condition.clone()),
            ),
        }
        let among = parents.iter().filter_map(|parent| own.get(parent).copied());
        tasks.children.insert(tag, (number, among.collect()));
    }
    for (place, list) in documents {
        let list = Task::Documents(list);
        tasks
            .tables
            .entry(place.0)
            .or_default()
            .push((place.1.get(), list));
    }
    tasks.own = own;
    tasks
}

/// Does what there is to do with one row.
fn look_at(
    rows: &dyn RowCursor,
    tasks: &[(usize, Task)],
    survey: &mut Survey,
    sorter: &mut Sorter<'_>,
) -> Result<(), Error> {
    let values: Vec<Option<&[u8]>> = rows.row().values().collect();
    let mut builder = RowBuilder::new();
    let mut push = |class: Class, tag: u32, value: &[u8]| {
        builder.start(value);
        builder.push(Some(&tag.to_be_bytes()));
        sorter.push(&[], class.as_table(), builder.row())
    };
    for (column, task) in tasks {
        let Some(value) = values.get(*column).copied().flatten() else {
            continue;
        };
        match task {
            Task::Range(class) => {
                let number = std::str::from_utf8(value).ok();
                let Some(number) = number.and_then(|text| text.parse::<i64>().ok()) else {
                    let message = "read the snapshot's rows: a number that is none";
                    return Err(Error::new(ErrorKind::Corrupt, message));
                };
                let range = survey.ranges.entry(*class).or_insert((number, number));
                *range = (range.0.min(number), range.1.max(number));
            }
            Task::Own(class, tag) => push(*class, *tag, value)?,
            Task::Child(class, tag, condition) => {
                if condition
                    .as_ref()
                    .is_none_or(|condition| holds(condition, &values))
                {
                    push(*class, *tag, value)?;
                }
            }
            Task::Documents(list) => {
                let paths: Vec<&[Step]> = list.iter().map(|(.., path)| path.as_slice()).collect();
                let mut found = Vec::new();
                let each = |place: usize, scalar: Scalar<'_>| {
                    found.push((place, scalar.text().to_owned()));
                    None
                };
                if let Ok(text) = std::str::from_utf8(value) {
                    let _whole = rewrite(text, &paths, each, &mut Vec::new());
                }
                for (place, text) in found {
                    push(list[place].0, list[place].1, text.as_bytes())?;
                }
            }
        }
    }
    Ok(())
}

/// Whether a row says what a condition asks for.
pub(super) fn holds(condition: &RouteCondition, values: &[Option<&[u8]>]) -> bool {
    let value = values.get(condition.column.get()).copied().flatten();
    value == Some(condition.value.as_bytes())
}

/// Walks through all values in order: those of columns with own values come before the references to
/// the same ones.
fn find_strangers(
    source: &Source<'_>,
    classes: &Classes,
    tasks: &Tasks,
    sorter: Sorter<'_>,
    survey: &mut Survey,
) -> Result<(), Error> {
    let mut sorted = finish_sort(source.context, sorter)?;
    let own_count = u32::try_from(tasks.own.len()).expect("BUG: more columns than tags");
    let mut sets: BTreeMap<u32, HashSet<Box<[u8]>>> = BTreeMap::new();
    let mut bytes = 0;
    let mut current: Option<(TableIndex, Vec<u8>)> = None;
    let mut owners: Vec<u32> = Vec::new();
    while Cursor::advance(&mut sorted)? {
        let item = sorted.current();
        let (class, value) = (item.table, item.row.key());
        let is_same = current
            .as_ref()
            .is_some_and(|(table, of)| *table == class && of == value);
        if !is_same {
            current = Some((class, value.to_vec()));
            owners.clear();
            source.context.check()?;
        }
        let tag = item.row.values().next().flatten();
        let tag = tag
            .and_then(|tag| tag.try_into().ok())
            .map(u32::from_be_bytes);
        let tag = tag.expect("BUG: a value without a tag");
        if tag <= own_count {
            owners.push(tag);
            owners.dedup();
            continue;
        }
        let (_, among) = &tasks.children[&tag];
        if among.iter().any(|own| owners.contains(own)) {
            continue;
        }
        if sets.entry(tag).or_default().insert(value.into()) {
            bytes += value.len() + ENTRY_BYTES;
        }
        if bytes > source.context.resources.memory_bytes_max() / MEMORY_PART {
            let message = "copy: more references lead out of the tenant than fit in memory: give \
                           more --memory. Nothing was written";
            return Err(Error::new(ErrorKind::Refused, message));
        }
    }
    let mut of_classes: BTreeMap<Class, HashSet<Box<[u8]>>> = BTreeMap::new();
    for (tag, set) in sets {
        let number = tasks.children[&tag].0;
        let follow = &classes.follows[number];
        if follow.is_whole {
            of_classes.entry(follow.class).or_default().extend(set);
        } else {
            survey.of_follows.insert(number, Arc::new(set));
        }
    }
    let of_classes = of_classes.into_iter();
    survey.of_classes = of_classes
        .map(|(class, set)| (class, Arc::new(set)))
        .collect();
    Ok(())
}

//! Which columns a relation has in the stream, by what is certain about it.
//!
//! A relation in the stream is a list of names and types. Names can be given to other columns; numbers
//! cannot, come up one after the other, and stay gone once dropped. So of all sets of columns that the
//! relation can have had since it was last certain, only those count that have as many columns as
//! there are, of these types, in the order of their numbers. If exactly one is left, it is that one,
//! whatever the names were in between; else the feed ends.

use super::layout::{ColumnLayout, RelationLayout, streamed};

/// A column in the stream: its name, type and modifier.
pub(super) type Told = (String, u32, i32);

/// More columns that came and went than this are not looked into.
const UNCERTAIN_MAX: usize = 10;

/// What is certain of a relation at one place of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// The greatest number that a column of it had.
    pub allocated: i16,
    pub columns: Vec<ColumnLayout>,
}

impl State {
    pub(super) fn of(relation: &RelationLayout) -> Self {
        Self {
            allocated: relation.allocated,
            columns: relation.columns.clone(),
        }
    }

    /// Whether the columns are told as these.
    pub(super) fn is_told(&self, told: &[Told]) -> bool {
        let columns = streamed(&self.columns);
        let columns = columns.map(|column| (&column.name, column.type_id, column.modifier));
        let told = told
            .iter()
            .map(|(name, kind, modifier)| (name, *kind, *modifier));
        columns.eq(told)
    }

    /// The numbers of the columns in the stream.
    pub(super) fn numbers(&self) -> Vec<i16> {
        streamed(&self.columns)
            .map(|column| column.number)
            .collect()
    }
}

/// The numbers of the columns that are told, of a relation that was `then` at an earlier place of the
/// stream, and is `now` at a later one. None if it cannot be said.
pub(super) fn identify(then: &State, now: &RelationLayout, told: &[Told]) -> Option<Vec<i16>> {
    let is_in = |columns: &[ColumnLayout], number: i16| {
        columns.iter().any(|column| column.number == number)
    };
    let stays = |column: &&ColumnLayout| is_in(&now.columns, column.number);
    let kept: Vec<i16> = streamed(&then.columns)
        .filter(stays)
        .map(|column| column.number)
        .collect();
    // Dropped at some time in between.
    let gone = streamed(&then.columns).filter(|column| !stays(column));
    let gone: Vec<i16> = gone.map(|column| column.number).collect();
    let added: Vec<i16> = now
        .streamed()
        .map(|column| column.number)
        .filter(|number| *number > then.allocated)
        .collect();
    // Added and dropped in between.
    let passing: Vec<i16> = (then.allocated + 1..=now.allocated)
        .filter(|number| !is_in(&now.columns, *number))
        .collect();
    let uncertain: Vec<i16> = gone.iter().chain(&passing).copied().collect();
    if uncertain.len() > UNCERTAIN_MAX {
        return None;
    }
    let mut found: Option<Vec<i16>> = None;
    for added_count in 0..=added.len() {
        // What comes after one that is not there yet is not there either.
        let end = added.get(added_count).copied().unwrap_or(i16::MAX);
        for choice in 0..1_u32 << uncertain.len() {
            let chosen = uncertain.iter().enumerate();
            let chosen = chosen.filter(|(place, _)| choice >> place & 1 == 1);
            let chosen: Vec<i16> = chosen.map(|(_, number)| *number).collect();
            if chosen.iter().any(|number| *number > end) {
                continue;
            }
            let mut numbers = kept.clone();
            numbers.extend(&added[..added_count]);
            numbers.extend(chosen);
            numbers.sort_unstable();
            if numbers.len() == told.len() && fits(&numbers, then, now, told) {
                if found.is_some() {
                    return None;
                }
                found = Some(numbers);
            }
        }
    }
    found
}

/// Whether whatever is told of a relation that was `then` at an earlier place of the stream, and is `now` at a
/// later one, can be read in one way only.
pub(super) fn is_told_apart(then: &RelationLayout, now: &RelationLayout) -> bool {
    let is_in = |columns: &[ColumnLayout], number: i16| {
        columns.iter().any(|column| column.number == number)
    };
    let columns = then.columns.iter();
    let gone = columns.filter(|column| !is_in(&now.columns, column.number));
    let passing = (then.allocated + 1..=now.allocated).filter(|n| !is_in(&now.columns, *n));
    let uncertain_count = gone.count() + passing.count();
    let has_added = now
        .columns
        .iter()
        .any(|column| column.number > then.allocated);
    uncertain_count == 0 || (uncertain_count == 1 && !has_added)
}

/// Whether the columns with these numbers can have been told so: by their types then or now.
fn fits(numbers: &[i16], then: &State, now: &RelationLayout, told: &[Told]) -> bool {
    numbers
        .iter()
        .zip(told)
        .all(|(number, (_, kind, modifier))| {
            let known = then.columns.iter().chain(&now.columns);
            let mut known = known.filter(|column| column.number == *number).peekable();
            // Of one that came and went the type is forgotten.
            known.peek().is_none()
                || known.any(|column| (column.type_id, column.modifier) == (*kind, *modifier))
        })
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::column;
    use super::*;

    fn relation(allocated: i16, columns: &[(i16, &str, u32)]) -> RelationLayout {
        let columns = columns.iter();
        RelationLayout {
            allocated,
            columns: columns
                .map(|(number, name, kind)| column(*number, name, *kind))
                .collect(),
            ..RelationLayout::default()
        }
    }

    #[track_caller]
    fn check(then: &RelationLayout, now: &RelationLayout, told: &[(&str, u32)], expected: &[i16]) {
        let told: Vec<Told> = told
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), *kind, -1))
            .collect();
        let expected = (!expected.is_empty()).then(|| expected.to_vec());
        assert_eq!(identify(&State::of(then), now, &told), expected);
    }

    const INT: u32 = 23;
    const TEXT: u32 = 25;

    #[test]
    fn columns_that_only_come_or_only_go_are_told_by_their_count() {
        let then = relation(2, &[(1, "id", INT), (2, "a", TEXT)]);
        let two = relation(
            4,
            &[
                (1, "id", INT),
                (2, "a", TEXT),
                (3, "b", TEXT),
                (4, "c", TEXT),
            ],
        );
        check(&then, &two, &[("id", INT), ("a", TEXT)], &[1, 2]);
        // The first comes before the second, whatever it is called.
        check(
            &then,
            &two,
            &[("id", INT), ("a", TEXT), ("x", TEXT)],
            &[1, 2, 3],
        );
        check(
            &then,
            &two,
            &[("id", INT), ("a", TEXT), ("b", TEXT), ("c", TEXT)],
            &[1, 2, 3, 4],
        );
        check(&two, &then, &[("id", INT), ("a", TEXT)], &[1, 2]);
        check(&then, &two, &[("id", INT)], &[]);
        check(&then, &two, &[("id", INT), ("a", INT)], &[]);
    }

    #[test]
    fn columns_that_come_and_go_at_once_are_not_told_apart_in_advance() {
        let columns = |numbers: &[i16]| -> Vec<(i16, &'static str, u32)> {
            numbers.iter().map(|number| (*number, "c", INT)).collect()
        };
        for (allocated, now, expected) in [
            (2, &[1, 2][..], true),
            (4, &[1, 2, 3, 4], true),
            (2, &[1], true),
            (2, &[], false),
            (3, &[1, 3], false),
            (3, &[1, 2], true),
            (4, &[1, 2], false),
            (4, &[1, 2, 4], false),
            (3, &[1], false),
        ] {
            let then = relation(2, &columns(&[1, 2]));
            let now = relation(allocated, &columns(now));
            assert_eq!(is_told_apart(&then, &now), expected, "{now:?}");
        }
    }

    #[test]
    fn names_may_change_places() {
        let then = relation(3, &[(1, "id", INT), (2, "a", TEXT), (3, "b", TEXT)]);
        let now = relation(3, &[(1, "id", INT), (2, "b", TEXT), (3, "a", TEXT)]);
        for names in [["a", "b"], ["b", "a"], ["t", "b"]] {
            check(
                &then,
                &now,
                &[("id", INT), (names[0], TEXT), (names[1], TEXT)],
                &[1, 2, 3],
            );
        }
    }

    #[test]
    fn a_column_in_the_place_of_another_is_told_by_its_type_or_not_at_all() {
        let then = relation(2, &[(1, "id", INT), (2, "a", TEXT)]);
        let other = relation(3, &[(1, "id", INT), (3, "b", INT)]);
        check(&then, &other, &[("id", INT), ("a", TEXT)], &[1, 2]);
        check(&then, &other, &[("id", INT), ("b", INT)], &[1, 3]);
        // Renamed, and dropped and added again: nobody knows which this is.
        let same = relation(3, &[(1, "id", INT), (3, "a", TEXT)]);
        check(&then, &same, &[("id", INT), ("a", TEXT)], &[]);
        check(
            &then,
            &same,
            &[("id", INT), ("a", TEXT), ("b", TEXT)],
            &[1, 2, 3],
        );
        check(&then, &same, &[("id", INT)], &[1]);
        // Once both were seen, it is certain.
        let both = relation(3, &[(1, "id", INT), (2, "a", TEXT), (3, "b", TEXT)]);
        check(&both, &same, &[("id", INT), ("a", TEXT)], &[1, 3]);
    }

    #[test]
    fn one_that_came_and_went_can_have_had_any_type() {
        let then = relation(1, &[(1, "id", INT)]);
        let now = relation(3, &[(1, "id", INT), (3, "b", TEXT)]);
        check(&then, &now, &[("id", INT), ("x", INT)], &[1, 2]);
        check(&then, &now, &[("id", INT), ("x", TEXT)], &[]);
    }
}

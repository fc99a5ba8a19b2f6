//! How the values of a class change.

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate_core::{ErrorKind, LiveView, ValueKind};
use reinstate_format::{NoteKind, PlanNote};

use super::classes::{Class, Classes, TENANT};
use super::decide::{Decision, Decisions};
use super::survey::Survey;
use super::{CopyRequest, Source};
use crate::Error;

/// How many numbers are left free, if there is room, for rows that are added between the plan and its
/// application.
const GAP_MAX: i64 = 1_000_000;

/// The part of a type's numbers that the gap may take: a larger one leaves small types no room.
const GAP_PART: i64 = 1 << 14;

/// Offsets are multiples of this where there is room: new numbers then look like the old ones, and keep
/// the steps in which they were given away.
const ROUND: i128 = 1000;

/// A function from the original's values to the copy's. No two values become the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The tenant's id becomes another; other ids stay.
    Tenant { from: String, to: String },
    /// A number moves up by this much.
    Offset(i64),
    /// A uuid becomes a hash of itself, by this key.
    Uuid([u8; 32]),
    /// Bytes become a hash of themselves, by this key, of the same length.
    Bytes([u8; 32]),
    /// A text becomes a hash of itself, by this key, in as many hexadecimal digits.
    Text([u8; 32]),
    /// Something stands before and after a text.
    Affix { prefix: String, suffix: String },
}

/// What becomes of the classes that change.
pub(super) type Changes = BTreeMap<Class, Arc<Change>>;

impl Change {
    /// The copy's value; none if this one stays.
    ///
    /// # Errors
    /// If it is none that the function was made for.
    pub(super) fn of(&self, value: &str) -> Result<Option<String>, &'static str> {
        match self {
            Self::Tenant { from, to } => Ok((value == from).then(|| to.clone())),
            Self::Affix { prefix, suffix } => Ok(Some(format!("{prefix}{value}{suffix}"))),
            Self::Offset(offset) => {
                let Ok(number) = value.parse::<i64>() else {
                    return Ok(None);
                };
                let moved = number.checked_add(*offset);
                let moved = moved.ok_or("a number that no row of the tenant has as its own")?;
                Ok(Some(moved.to_string()))
            }
            Self::Uuid(key) => Ok(hashed_uuid(key, value)),
            Self::Bytes(key) => Ok(value.strip_prefix("\\x").map(|digits| {
                let new = hashed_digits(key, digits, digits.len());
                format!("\\x{new}")
            })),
            Self::Text(key) => Ok(Some(hashed_digits(key, value, value.chars().count()))),
        }
    }
}

/// A new uuid, made of an old one; none if that is none. What tells its kind stays, and so does the
/// time of version 7, so that new ones sort as the old ones did.
fn hashed_uuid(key: &[u8; 32], old: &str) -> Option<String> {
    let digits: String = old.chars().filter(|character| *character != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    if digits.len() != 32 || old.len() != 36 {
        return None;
    }
    let hash = blake3::keyed_hash(key, &number.to_be_bytes());
    let hash = hash.as_bytes().first_chunk();
    let hash = u128::from_be_bytes(*hash.expect("BUG: a digest of less than 16 bytes"));
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0x3 << 62;
    const TIME: u128 = 0xffff_ffff_ffff << 80;
    let (kept, version) = match number >> 76 & 0xf {
        7 => (number & TIME, 7),
        4 => (hash & TIME, 4),
        // Of any other kind a hash is none.
        _ => (hash & TIME, 8),
    };
    let new = (hash & !TIME & !VERSION & !VARIANT) | kept | version << 76 | 0x2 << 62;
    let text = format!("{new:032x}");
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    Some(parts.join("-"))
}

/// So many hexadecimal digits of a hash. If they are few, those of several values may be the same: the
/// store then refuses them.
fn hashed_digits(key: &[u8; 32], old: &str, digit_count: usize) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key);
    let mut output = hasher.update(old.as_bytes()).finalize_xof();
    let mut bytes = vec![0; digit_count.div_ceil(2)];
    output.fill(&mut bytes);
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digit_count);
    text
}

/// The function for every class that changes.
///
/// # Errors
/// `Refused` if there is no room for a class's numbers; otherwise as the store reports it.
pub(super) fn find(
    source: &Source<'_>,
    classes: &Classes,
    decisions: &Decisions,
    survey: &Survey,
    request: &CopyRequest,
    job: &[u8; 16],
) -> Result<Changes, Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut changes = Changes::new();
    let mut full = Vec::new();
    for (class, decision) in decisions.all() {
        let change = match decision {
            Decision::Tenant => Change::Tenant {
                from: text(source.image.tenant().id.as_bytes()),
                to: text(request.tenant.as_bytes()),
            },
            Decision::Affix { prefix, suffix } => Change::Affix {
                prefix: prefix.clone(),
                suffix: suffix.clone(),
            },
            Decision::New(ValueKind::Integer { max, .. }) => {
                let Some(range) = survey.ranges.get(&class) else {
                    continue;
                };
                match offset(source, classes, class, *range, *max)? {
                    Some(offset) => Change::Offset(offset),
                    None => {
                        full.push(format!(
                            "{} (from {} to {}, and {max} is the greatest possible)",
                            names(source.view, classes, class),
                            range.0,
                            range.1
                        ));
                        continue;
                    }
                }
            }
            Decision::New(kind) => {
                let context = "reinstate 2026 keys of a copy v1";
                let mut material = job.to_vec();
                material.extend_from_slice(request.tenant.as_bytes());
                let key = blake3::derive_key(context, &material);
                match kind {
                    ValueKind::Bytes => Change::Bytes(key),
                    ValueKind::Text { .. } => Change::Text(key),
                    _ => Change::Uuid(key),
                }
            }
        };
        changes.insert(class, Arc::new(change));
    }
    if full.is_empty() {
        return Ok(changes);
    }
    let message = format!(
        "there is no room above the greatest number in use for the copy's numbers in {}: give the \
         columns a larger type first. Nothing was written",
        full.join("; ")
    );
    Err(Error::new(ErrorKind::Refused, message))
}

/// By how much the numbers of a class move, so that they are beyond all that the store has or the
/// snapshot had; none if they then do not fit.
fn offset(
    source: &Source<'_>,
    classes: &Classes,
    class: Class,
    (least, greatest): (i64, i64),
    max: i64,
) -> Result<Option<i64>, Error> {
    let mut ceiling = greatest;
    for (table, column) in classes.roots(class) {
        let live = source.view.greatest(table, column);
        let live = live.map_err(Error::store("look for free numbers"))?;
        ceiling = ceiling.max(live.unwrap_or(ceiling));
    }
    let wide = |number: i64| i128::from(number);
    let least_offset = wide(ceiling) + 1 - wide(least);
    let room = wide(max) - (wide(greatest) + least_offset);
    if room < 0 {
        return Ok(None);
    }
    // Others need numbers after the copy's: a counter at its very end gives none away.
    let offset = least_offset + (room / 2).min(wide((max / GAP_PART).min(GAP_MAX)));
    let rounded = (offset + ROUND - 1) / ROUND * ROUND;
    let fits = rounded < least_offset + room;
    Ok(i64::try_from(if fits { rounded } else { offset }).ok())
}

/// The columns that a class takes its values from.
fn names(view: &dyn LiveView, classes: &Classes, class: Class) -> String {
    let roots = classes.roots(class).into_iter();
    let names = roots.map(|(table, column)| {
        let table = view.schema().table(table);
        format!("{}.{}", table.name, table.columns[column.get()].name)
    });
    names.collect::<Vec<_>>().join(", ")
}

/// What becomes of which columns.
pub(super) fn notes(
    source: &Source<'_>,
    classes: &Classes,
    survey: &Survey,
    changes: &Changes,
) -> Vec<PlanNote> {
    let view = source.view;
    let note = |kind, object, detail| PlanNote {
        kind,
        object,
        detail,
        count: 0,
    };
    let mut notes = Vec::new();
    for (class, change) in changes.iter().filter(|(class, _)| **class != TENANT) {
        let object = names(view, classes, *class);
        let what = match change.as_ref() {
            Change::Offset(offset) => format!("{offset} is added"),
            Change::Uuid(_) => "new uuids".to_owned(),
            Change::Bytes(_) => "new bytes".to_owned(),
            Change::Text(_) => "new digits".to_owned(),
            Change::Affix { prefix, suffix } if suffix.is_empty() => {
                format!("{prefix:?} before it")
            }
            Change::Affix { suffix, .. } => format!("{suffix:?} after it"),
            Change::Tenant { to, .. } => to.clone(),
        };
        let detail = format!("and what refers to it: {what}");
        notes.push(note(NoteKind::KeyChanged, object.clone(), detail));
        let roots = classes.roots(*class);
        let mut roots = roots.iter().filter(|root| source.has_rows(root.0));
        let is_counted = roots.all(|(table, column)| view.is_counted_up(*table, *column));
        if let (Change::Offset(offset), Some((_, greatest)), false) =
            (change.as_ref(), survey.ranges.get(class), is_counted)
        {
            let greatest = i128::from(*greatest) + i128::from(*offset);
            let detail = format!(
                "goes up to {greatest} in the copy, and no sequence of the column is moved beyond that: \
                 see to it that whatever gives its numbers away does not come to the copy's"
            );
            notes.push(note(NoteKind::KeyUncounted, object, detail));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_uuid_has_the_shape_of_the_old_one() {
        let key = [7; 32];
        let four = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let seven = "018f4e2a-7b1c-7def-8abc-0123456789ab";
        let one = "c232ab00-9414-11ec-b3c8-9f6bdeced846";
        for (old, version) in [(four, '4'), (seven, '7'), (one, '8')] {
            let new = hashed_uuid(&key, old).unwrap();
            assert_eq!(
                hashed_uuid(&key, old).as_ref(),
                Some(&new),
                "not a function"
            );
            assert_ne!(hashed_uuid(&[8; 32], old).as_ref(), Some(&new));
            assert_eq!(new.len(), 36);
            assert_eq!(new.chars().nth(14), Some(version));
            assert!(
                matches!(new.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
                "{new}"
            );
            assert_ne!(new[24..], old[24..]);
            for place in [8, 13, 18, 23] {
                assert_eq!(new.as_bytes()[place], b'-');
            }
        }
        assert_eq!(hashed_uuid(&key, seven).unwrap()[..13], seven[..13]);
        assert_eq!(hashed_uuid(&key, "42"), None);
    }

    #[test]
    fn new_bytes_and_texts_are_as_long_as_the_old_ones() {
        let bytes = Change::Bytes([7; 32]).of("\\x00ff10").unwrap().unwrap();
        assert!(bytes.len() == 8 && bytes.starts_with("\\x"), "{bytes}");
        assert_ne!(bytes, "\\x00ff10");
        assert_eq!(Change::Bytes([7; 32]).of("00"), Ok(None));
        let text = Change::Text([7; 32]).of("\u{e4}bc").unwrap().unwrap();
        assert!(
            text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{text}"
        );
    }

    #[test]
    fn a_number_that_cannot_move_is_an_error_and_what_is_no_number_stays() {
        let change = Change::Offset(10);
        assert_eq!(change.of("-3"), Ok(Some("7".to_owned())));
        assert_eq!(change.of("x"), Ok(None));
        assert!(change.of(&i64::MAX.to_string()).is_err());
    }
}

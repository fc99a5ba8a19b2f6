//! Points in time as they are typed: `--at` and what follows `@`.

use std::fmt;

use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::{Disambiguation, OffsetConflict, TimeZone};
use jiff::{SignedDuration, Span, Zoned};
use reinstate_core::{PositionNotation, Timestamp};

use crate::failure::Failure;

/// The fewest digits of an id that are looked up.
pub const PREFIX_DIGITS_MIN: usize = 4;

const FORMS: &str = "expected a time with its offset (2026-04-05T07:38Z, 2026-04-05T09:38+02:00), \
     a time in a zone (2026-04-05T09:38[Europe/Brussels]), a time ago (-5m, \"1h30m ago\"), a \
     position (lsn:0/16B374D8, commit:42), snap:ID, latest, or latest~N";

/// A point in time as it was typed, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointInTime {
    /// A snapshot, by the first digits of its id.
    Snapshot(String),
    /// The latest snapshot, or the one so many before it.
    Latest {
        /// How many to go back.
        back: usize,
    },
    /// A moment.
    Time(Timestamp),
    /// So long before now, in microseconds.
    Ago {
        /// Microseconds; not negative.
        micros: i64,
    },
    /// A local time of which nobody can tell which moment it means. Never found; what it could mean is only
    /// said.
    Unclear {
        /// As it was typed.
        text: String,
        /// Why.
        fact: String,
        /// The moments that it could mean: one or two, in order. Without a zone, that of UTC.
        readings: Vec<Timestamp>,
    },
    /// A place in the store's commit order.
    Commit {
        /// The store's own number.
        commit: u64,
        /// How it was written.
        notation: PositionNotation,
    },
}

impl PointInTime {
    /// Reads a point in time.
    ///
    /// # Errors
    /// Usage: if it is none of the forms.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |fact: &str| {
            Failure::usage(format!("point in time {text:?}: {fact}"))
                .next("choose one of: reinstate snapshots")
        };
        if let Some(rest) = text.strip_prefix("latest") {
            return parse_latest(rest).ok_or_else(|| wrong("expected latest or latest~N"));
        }
        if let Some(prefix) = text.strip_prefix("snap:") {
            return parse_prefix(prefix).map_err(|fact| wrong(&fact));
        }
        if let Some(number) = text.strip_prefix("commit:") {
            let commit = number
                .parse()
                .map_err(|_| wrong("expected commit:NUMBER"))?;
            let notation = PositionNotation::Commit;
            return Ok(Self::Commit { commit, notation });
        }
        if let Some(number) = text.strip_prefix("lsn:") {
            let commit = parse_lsn(number).ok_or_else(|| wrong("expected lsn:HIGH/LOW"))?;
            let notation = PositionNotation::Lsn;
            return Ok(Self::Commit { commit, notation });
        }
        match text.bytes().next() {
            Some(b'0'..=b'9') if text.len() >= 10 && text.as_bytes()[4] == b'-' => {
                parse_time(text).map_err(|fact| wrong(&fact))
            }
            Some(_) => parse_ago(text).map_err(|fact| wrong(&fact)),
            None => Err(wrong(FORMS)),
        }
    }
}

impl fmt::Display for PointInTime {
    /// A form that can be typed again.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(prefix) => write!(formatter, "snap:{prefix}"),
            Self::Latest { back: 0 } => formatter.write_str("latest"),
            Self::Latest { back } => write!(formatter, "latest~{back}"),
            Self::Time(time) => time.fmt(formatter),
            Self::Unclear { text, .. } => formatter.write_str(text),
            Self::Ago { micros } => {
                write!(formatter, "{:#} ago", SignedDuration::from_micros(*micros))
            }
            Self::Commit { commit, notation } => {
                let position = reinstate_core::Position {
                    commit: *commit,
                    ordinal: 0,
                };
                formatter.write_str(&position.display(*notation))
            }
        }
    }
}

fn parse_latest(rest: &str) -> Option<PointInTime> {
    let back = match rest {
        "" => 0,
        _ => rest.strip_prefix('~')?.parse().ok()?,
    };
    Some(PointInTime::Latest { back })
}

fn parse_prefix(prefix: &str) -> Result<PointInTime, String> {
    let is_hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && (PREFIX_DIGITS_MIN..=32).contains(&prefix.len()) {
        Ok(PointInTime::Snapshot(prefix.to_ascii_lowercase()))
    } else {
        Err(format!(
            "expected snap: and {PREFIX_DIGITS_MIN} to 32 hexadecimal digits"
        ))
    }
}

fn parse_lsn(number: &str) -> Option<u64> {
    let (high, low) = number.split_once('/')?;
    let half = |digits: &str| {
        let valid = (1..=8).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        valid
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten()
    };
    Some(half(high)? << 32 | half(low)?)
}

fn parse_time(text: &str) -> Result<PointInTime, String> {
    let parser = DateTimeParser::new()
        .disambiguation(Disambiguation::Reject)
        .offset_conflict(OffsetConflict::Reject);
    let exact = |moment: jiff::Timestamp| {
        PointInTime::Time(Timestamp::from_micros(moment.as_microsecond()))
    };
    if text.contains('[') {
        let read = parser.parse_zoned(text);
        return read
            .map(|zoned: Zoned| exact(zoned.timestamp()))
            .or_else(|error| parse_skipped_or_twice(text, error.to_string()));
    }
    match parser.parse_timestamp(text) {
        Ok(moment) => Ok(exact(moment)),
        Err(error) => {
            let Ok(naked) = parser.parse_datetime(text) else {
                return Err(error.to_string());
            };
            let in_utc = naked
                .to_zoned(TimeZone::UTC)
                .map_err(|error| error.to_string())?;
            Ok(PointInTime::Unclear {
                text: text.to_owned(),
                fact: format!(
                    "it does not say in which zone: add Z, an offset or a zone, as in {text}Z or \
                     {text}[Europe/Brussels]"
                ),
                readings: vec![Timestamp::from_micros(in_utc.timestamp().as_microsecond())],
            })
        }
    }
}

/// A time that the clocks of its zone skipped, or showed twice.
fn parse_skipped_or_twice(text: &str, fact: String) -> Result<PointInTime, String> {
    let readings = [Disambiguation::Earlier, Disambiguation::Later].map(|which| {
        let parser = DateTimeParser::new()
            .disambiguation(which)
            .offset_conflict(OffsetConflict::Reject);
        let zoned = parser.parse_zoned(text).ok()?;
        Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
    });
    let mut readings: Vec<Timestamp> = readings.into_iter().flatten().collect();
    readings.sort();
    readings.dedup();
    if readings.is_empty() {
        return Err(fact);
    }
    Ok(PointInTime::Unclear {
        text: text.to_owned(),
        fact,
        readings,
    })
}

fn parse_ago(text: &str) -> Result<PointInTime, String> {
    let Ok(span) = text.parse::<Span>() else {
        return Err(FORMS.to_owned());
    };
    if span.is_positive() {
        return Err(format!(
            "it lies in the future; for the past: -{text}, \"{text} ago\""
        ));
    }
    // Days and weeks are 24 and 168 hours here, as in UTC; months and years have no fixed length.
    let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    if span.get_months() != 0 || span.get_years() != 0 {
        return Err("months and years have no fixed length: use days".to_owned());
    }
    let duration = span
        .to_duration(&epoch)
        .map_err(|error| error.to_string())?;
    let micros = i64::try_from(duration.as_micros()).map_err(|error| error.to_string())?;
    Ok(PointInTime::Ago { micros: -micros })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> String {
        match PointInTime::parse(text).unwrap() {
            PointInTime::Time(time) => time.to_string(),
            other => panic!("{text:?} is {other:?}"),
        }
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let message = PointInTime::parse(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }

    #[test]
    fn times_say_their_offset_or_zone() {
        let utc = "2026-04-05T07:38:00.000000Z";
        assert_eq!(time("2026-04-05T07:38Z"), utc);
        assert_eq!(time("2026-04-05 07:38:00Z"), utc);
        assert_eq!(time("2026-04-05T09:38+02:00"), utc);
        assert_eq!(time("2026-04-05T09:38[Europe/Brussels]"), utc);
        assert_eq!(time("2026-04-05T09:38+02:00[Europe/Brussels]"), utc);
        let exact = "2026-04-05T07:38:00.123456Z";
        assert_eq!(time(exact), exact);
    }

    #[track_caller]
    fn unclear(text: &str, says: &str, expected: &[&str]) {
        let point = PointInTime::parse(text).unwrap();
        assert_eq!(point.to_string(), text);
        let PointInTime::Unclear { fact, readings, .. } = point else {
            panic!("{text:?} is {point:?}")
        };
        assert!(fact.contains(says), "{fact:?} lacks {says:?}");
        let readings: Vec<String> = readings.iter().map(ToString::to_string).collect();
        assert_eq!(readings, expected);
    }

    #[test]
    fn naked_local_times_mean_no_moment() {
        unclear("2026-04-05T07:38", "zone", &["2026-04-05T07:38:00.000000Z"]);
        unclear(
            "2026-04-05 07:38:00",
            "zone",
            &["2026-04-05T07:38:00.000000Z"],
        );
        unclear("2026-04-05", "zone", &["2026-04-05T00:00:00.000000Z"]);
    }

    #[test]
    fn times_that_clocks_skipped_or_showed_twice_mean_no_moment() {
        // In 2026 Brussels goes from 02:00 to 03:00 on 29 March, and back on 25 October.
        let skipped = ["2026-03-29T00:30:00.000000Z", "2026-03-29T01:30:00.000000Z"];
        unclear(
            "2026-03-29T02:30[Europe/Brussels]",
            "falls into a gap",
            &skipped,
        );
        let twice = ["2026-10-25T00:30:00.000000Z", "2026-10-25T01:30:00.000000Z"];
        unclear(
            "2026-10-25T02:30[Europe/Brussels]",
            "falls into a fold",
            &twice,
        );
        let twice = "2026-10-25T02:30+01:00[Europe/Brussels]";
        assert_eq!(time(twice), "2026-10-25T01:30:00.000000Z");
        refused("2026-04-05T09:38+05:00[Europe/Brussels]", "05:00");
        refused("2026-04-05T09:38[Europe/Nowhere]", "Nowhere");
    }

    #[test]
    fn times_ago_are_spans_without_months() {
        let ago = |text: &str| match PointInTime::parse(text).unwrap() {
            PointInTime::Ago { micros } => micros / 1_000_000,
            other => panic!("{text:?} is {other:?}"),
        };
        assert_eq!(ago("-5m"), 300);
        assert_eq!(ago("1h30m ago"), 5400);
        assert_eq!(ago("2 days ago"), 172_800);
        assert_eq!(ago("-1w"), 604_800);
        assert_eq!(ago("-PT10S"), 10);
        refused("5m", "future");
        refused("-1mo", "months");
        refused("yesterday", "expected a time");
        refused("", "expected a time");
    }

    #[test]
    fn positions_and_snapshots_are_read() {
        let parse = |text: &str| PointInTime::parse(text).unwrap();
        let notation = PositionNotation::Lsn;
        let commit = 0x16B3_74D8;
        assert_eq!(
            parse("lsn:0/16B374D8"),
            PointInTime::Commit { commit, notation }
        );
        let notation = PositionNotation::Commit;
        let commit = 42;
        assert_eq!(parse("commit:42"), PointInTime::Commit { commit, notation });
        assert_eq!(parse("latest~2"), PointInTime::Latest { back: 2 });
        assert_eq!(parse("latest"), PointInTime::Latest { back: 0 });
        assert_eq!(parse("snap:3F9A"), PointInTime::Snapshot("3f9a".to_owned()));
        for bad in [
            "snap:3f9",
            "snap:xyzw",
            "lsn:0",
            "lsn:g/0",
            "commit:-1",
            "latest~",
            "latest2",
        ] {
            assert!(PointInTime::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_any_text_never_panics(text: String) {
            let _ = PointInTime::parse(&text);
        }

        #[test]
        fn what_is_shown_can_be_typed_again(micros in -4_000_000_000_000_000_i64..4_000_000_000_000_000) {
            prop_assume!(micros >= -2_000_000_000_000_000);
            let point = PointInTime::Time(Timestamp::from_micros(micros));
            prop_assert_eq!(PointInTime::parse(&point.to_string()).unwrap(), point);
        }
    }
}

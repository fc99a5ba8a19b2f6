//! Places in a store's commit order, and wall-clock times.

use std::fmt;

/// A place in a store's commit order: after everything up to and including this commit.
///
/// Never a clock. `commit` is the store's own number (a PostgreSQL LSN, the embedded store's
/// commit counter); `ordinal` orders what shares one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The store's own commit number.
    pub commit: u64,
    /// Place among what shares that number; zero for a snapshot.
    pub ordinal: u32,
}

/// How a store's users write positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PositionNotation {
    /// `commit:1234`
    Commit,
    /// `lsn:0/16B374D8`
    Lsn,
}

impl Position {
    /// The text form in the store's notation. The ordinal is shown when it is not zero.
    #[must_use]
    pub fn display(self, notation: PositionNotation) -> String {
        let commit = match notation {
            PositionNotation::Commit => format!("commit:{}", self.commit),
            PositionNotation::Lsn => {
                format!(
                    "lsn:{:X}/{:X}",
                    self.commit >> 32,
                    self.commit & 0xffff_ffff
                )
            }
        };
        match self.ordinal {
            0 => commit,
            ordinal => format!("{commit}+{ordinal}"),
        }
    }
}

/// A moment in microseconds since 1970-01-01 00:00:00 UTC; may be negative.
///
/// A label for people. Nothing is ordered or decided by it except the choice of a snapshot "at or
/// before" a time, which resolves to a [`Position`] once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment this many microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds after the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds, as in `2026-04-05T07:38:00.000000Z`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1_000_000);
        let micros = self.0.rem_euclid(1_000_000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        write!(formatter, ".{micros:06}Z")
    }
}

/// Proleptic Gregorian date of a day number. An era is 400 years = 146,097 days, and a year that
/// starts in March puts the leap day last, so that both divisions are exact.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_their_store_writes_them() {
        let position = Position {
            commit: 0x16B3_74D8,
            ordinal: 0,
        };
        assert_eq!(position.display(PositionNotation::Lsn), "lsn:0/16B374D8");
        let position = Position {
            commit: 0x1_0000_0002,
            ordinal: 3,
        };
        assert_eq!(position.display(PositionNotation::Lsn), "lsn:1/2+3");
        assert_eq!(
            position.display(PositionNotation::Commit),
            "commit:4294967298+3"
        );
    }

    #[test]
    fn timestamps_are_written_in_utc() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_775_374_680_000_001, "2026-04-05T07:38:00.000001Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).to_string(), text);
        }
    }
}

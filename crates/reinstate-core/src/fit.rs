//! Whether a value that was written into one column can be written into another.

/// What a value must be to stand in a column that has another type than the one it came from.
/// Its text is the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Every value fits.
    Every,
    /// A whole number between these two, both included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A text of at most this many characters.
    Characters(u64),
    /// One of these texts.
    OneOf(Vec<String>),
}

impl Fit {
    /// Whether this value fits.
    #[must_use]
    pub fn admits(&self, value: &[u8]) -> bool {
        let text = || std::str::from_utf8(value);
        match self {
            Self::Every => true,
            Self::Integer { min, max } => text()
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*min..=*max).contains(&number)),
            Self::Characters(max) => text().is_ok_and(|text| {
                (text.len() as u64) <= *max || text.chars().count() as u64 <= *max
            }),
            Self::OneOf(texts) => texts.iter().any(|text| text.as_bytes() == value),
        }
    }
}

/// What a column that was added to a table holds in a row from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filling {
    /// This value, as if the row had been there when the column was added; none is NULL.
    Value(Option<Vec<u8>>),
    /// Nobody can know; says why.
    Unknown(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_up_to_the_bound_and_not_beyond() {
        let small = Fit::Integer {
            min: -32768,
            max: 32767,
        };
        for (value, fits) in [
            ("32767", true),
            ("32768", false),
            ("-32768", true),
            ("-32769", false),
            ("x", false),
        ] {
            assert_eq!(small.admits(value.as_bytes()), fits, "{value}");
        }
        let three = Fit::Characters(3);
        for (value, fits) in [
            ("abc", true),
            ("\u{e4}\u{e4}\u{e4}", true),
            ("abcd", false),
            ("", true),
        ] {
            assert_eq!(three.admits(value.as_bytes()), fits, "{value}");
        }
        let labels = Fit::OneOf(vec!["open".to_owned(), "done".to_owned()]);
        assert!(labels.admits(b"done") && !labels.admits(b"don") && !labels.admits(b""));
        assert!(Fit::Every.admits(&[255]) && !three.admits(&[255]));
    }
}

//! From the server's errors to what a caller can do about them.

use std::borrow::Cow;

use reinstate_core::{ErrorKind, StoreError};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What the server said, without its detail line: that one holds values of rows.
#[derive(Debug, thiserror::Error)]
#[error("SQLSTATE {code}: {message}{place}")]
struct ServerReport {
    code: String,
    message: String,
    place: String,
}

/// An error of an operation that the server or the connection ended.
pub(crate) fn store_error(operation: &str, error: &Error) -> StoreError {
    let Some(report) = error.as_db_error() else {
        return connection_error(operation, error);
    };
    let place = match (report.table(), report.constraint()) {
        (Some(table), Some(constraint)) => format!(" (table {table}, constraint {constraint})"),
        (Some(table), None) => format!(" (table {table})"),
        _ => String::new(),
    };
    let code = report.code();
    let said = without_value(code, report.message());
    let message = format!("{operation}: {said}{}", advice(code));
    StoreError::new(kind_of(code), message).because(ServerReport {
        code: code.code().to_owned(),
        message: said.into_owned(),
        place,
    })
}

/// What the server said, if that cannot hold a value of a row. What it says of data (class 22) does, in
/// whatever language it speaks: that is said anew, by its code.
fn without_value<'m>(code: &SqlState, message: &'m str) -> Cow<'m, str> {
    let Some(condition) = code.code().strip_prefix("22") else {
        return message.into();
    };
    let said = match condition {
        "P02" => "a value is not written as its type is",
        "003" => "a number is out of range",
        "001" => "a text is too long for its type",
        "007" => "a date or time is not written as one",
        "008" => "a date or time is out of range",
        "009" => "a time zone is out of range",
        "012" => "a division by zero",
        "015" => "an interval is out of range",
        "021" => "a text has bytes that are no characters of its encoding",
        "023" => "a parameter has a value that it does not take",
        "026" => "a bit string has another length than its type",
        "02E" => "an array has another number of subscripts",
        "P03" => "a value is not written in the binary form of its type",
        "P04" => "a line of COPY is not what it should be",
        "P05" => "a text has a character that the database's encoding does not have",
        "030" | "031" | "032" | "033" | "034" | "035" | "036" | "037" | "038" | "039" => {
            "a value of JSON is not what was expected"
        }
        "00M" | "00N" | "00S" | "00T" => "a value of XML is not what was expected",
        "01B" => "a regular expression is none",
        "004" => "NULL is not taken here",
        _ => "a value is not taken",
    };
    said.into()
}

/// An error that the server reported outside of the driver.
pub(crate) fn reported_error(operation: &str, code: &str, text: &str) -> StoreError {
    let state = SqlState::from_code(code);
    let said = without_value(&state, text);
    let message = format!("{operation}: {said}{}", advice(&state));
    StoreError::new(kind_of(&state), message).because(ServerReport {
        code: code.to_owned(),
        message: said.into_owned(),
        place: String::new(),
    })
}

fn connection_error(operation: &str, error: &Error) -> StoreError {
    // The text of an error of the library never holds the URL, but one about its own misuse is
    // not a lost connection.
    let kind = if is_lost(error) {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Other
    };
    let mut message = format!("{operation}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    StoreError::new(kind, message)
}

fn is_lost(error: &Error) -> bool {
    let caused_by_io =
        std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
    error.is_closed() || caused_by_io || error.to_string().starts_with("error connecting")
}

/// Whether this error leaves open what became of a statement that was sent.
pub(crate) fn is_without_answer(error: &Error) -> bool {
    match error.as_db_error() {
        None => true,
        Some(report) => kind_of(report.code()) == ErrorKind::Unavailable,
    }
}

fn kind_of(code: &SqlState) -> ErrorKind {
    match code.code() {
        "40001" | "40P01" | "55P03" => ErrorKind::Contended,
        "57014" => ErrorKind::Contended,
        "42501" | "28000" | "28P01" => ErrorKind::Refused,
        "3D000" => ErrorKind::Usage,
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03" => ErrorKind::Unavailable,
        "53100" => ErrorKind::Full,
        other => match &other[..2.min(other.len())] {
            "08" => ErrorKind::Unavailable,
            "23" => ErrorKind::Conflict,
            _ => ErrorKind::Other,
        },
    }
}

fn advice(code: &SqlState) -> &'static str {
    match code.code() {
        "55P03" => " (another session holds the lock)",
        "57014" => " (a time limit of the connection, or an administrator, ended it)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that speaks German puts the value elsewhere, between other quotes.
    #[test]
    fn values_are_not_repeated_in_any_language() {
        for (code, message) in [
            ("22P02", "invalid input value for enum mood: \"secret\""),
            ("22P02", "ungueltige Eingabe fuer Enum mood: >>secret<<"),
            ("22003", "value \"secret\" is out of range for type integer"),
            (
                "22003",
                "Wert >>secret<< ist ausserhalb des gueltigen Bereichs",
            ),
            ("22007", "syntaxe invalide : << secret >>"),
            ("22999", "secret"),
        ] {
            let said = without_value(&SqlState::from_code(code), message);
            assert!(!said.contains("secret"), "{said}");
            let reported = reported_error("read", code, message);
            let said = format!("{reported} {:?}", std::error::Error::source(&reported));
            assert!(!said.contains("secret"), "{said}");
        }
        let other = "relation \"mood\" does not exist";
        assert_eq!(without_value(&SqlState::from_code("42P01"), other), other);
    }

    #[test]
    fn server_codes_say_what_can_be_done() {
        for (code, kind) in [
            ("40001", ErrorKind::Contended),
            ("40P01", ErrorKind::Contended),
            ("55P03", ErrorKind::Contended),
            ("23505", ErrorKind::Conflict),
            ("23503", ErrorKind::Conflict),
            ("42501", ErrorKind::Refused),
            ("53100", ErrorKind::Full),
            ("57P01", ErrorKind::Unavailable),
            ("08006", ErrorKind::Unavailable),
            ("XX000", ErrorKind::Other),
        ] {
            assert_eq!(kind_of(&SqlState::from_code(code)), kind, "{code}");
        }
    }
}

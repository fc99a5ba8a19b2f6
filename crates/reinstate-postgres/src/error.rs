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

/// What the server said of a value that is none of its type, without the value: it ends the message, or
/// begins it when it is out of range.
fn without_value<'m>(code: &SqlState, message: &'m str) -> Cow<'m, str> {
    if !code.code().starts_with("22") {
        return message.into();
    }
    if let Some((said, _)) = message.split_once(": \"") {
        return said.into();
    }
    match (message.split_once('"'), message.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) if after.starts_with(" is out of range") => {
            format!("{before}a value{after}")
                .replacen("value a value", "a value", 1)
                .into()
        }
        _ => message.into(),
    }
}

/// An error that the server reported outside of the driver.
pub(crate) fn reported_error(operation: &str, code: &str, text: &str) -> StoreError {
    let state = SqlState::from_code(code);
    let message = format!("{operation}: {text}{}", advice(&state));
    StoreError::new(kind_of(&state), message).because(ServerReport {
        code: code.to_owned(),
        message: text.to_owned(),
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

    #[test]
    fn a_value_that_is_none_is_not_repeated() {
        let invalid = SqlState::from_code("22P02");
        let message = "invalid input value for enum mood: \"secret\"";
        let said = "invalid input value for enum mood";
        assert_eq!(without_value(&invalid, message), said);
        assert_eq!(
            without_value(&SqlState::from_code("42P01"), message),
            message
        );
        let range = SqlState::from_code("22003");
        for (message, said) in [
            (
                "value \"4111111111111111\" is out of range for type integer",
                "a value is out of range for type integer",
            ),
            (
                "\"1e999\" is out of range for type double precision",
                "a value is out of range for type double precision",
            ),
            ("integer out of range", "integer out of range"),
        ] {
            assert_eq!(without_value(&range, message), said);
        }
        assert_eq!(without_value(&invalid, said), said);
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

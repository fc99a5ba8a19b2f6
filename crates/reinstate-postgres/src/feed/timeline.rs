//! Timelines: a standby that was promoted goes on with another one.

use reinstate_core::{ErrorKind, Position, StoreError};
use tokio_postgres::types::Type;

use super::{parse_lsn, position};
use crate::catalog::get;
use crate::session::Session;
use crate::store::PostgresStore;

/// The timeline on which the server writes; none while it follows another one.
pub(crate) fn timeline(session: &Session) -> Result<Option<u32>, StoreError> {
    // Not the control file's, which is behind for a while after a promotion.
    let sql = "SELECT CASE WHEN NOT pg_is_in_recovery()
                      THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";
    let operation = "find out the timeline";
    let row = session.row(operation, sql, &[])?;
    let Some(digits) = get::<Option<String>>(&row, 0)? else {
        return Ok(None);
    };
    let timeline = u32::from_str_radix(&digits, 16).map_err(|error| {
        let message = format!("{operation}: the server calls it {digits:?}");
        StoreError::new(ErrorKind::Other, message).because(error)
    })?;
    Ok(Some(timeline))
}

/// Where the server's timeline left an earlier one; none if it does not come from that.
pub(crate) fn timeline_end(
    store: &PostgresStore,
    session: &Session,
    earlier: u32,
) -> Result<Option<Position>, StoreError> {
    match timeline(session)? {
        Some(now) if earlier < now => {
            let history = history(store, session, now)?;
            Ok(parse_history(&history, earlier).map(position))
        }
        _ => Ok(None),
    }
}

/// The history of a timeline, as the server keeps it: by a file that few may read, or by the
/// replication protocol, which others may use.
fn history(store: &PostgresStore, session: &Session, now: u32) -> Result<String, StoreError> {
    let operation = "read the history of the timelines";
    let file = format!("pg_wal/{now:08X}.history");
    let sql = "SELECT pg_read_file($1)";
    let refused = match session.row(operation, sql, &[(&file, Type::TEXT)]) {
        Ok(row) => return get(&row, 0),
        Err(error) if error.kind() == ErrorKind::Refused => error,
        Err(error) => return Err(error),
    };
    let asked = store
        .walsender()
        .and_then(|mut walsender| walsender.ask(operation, &format!("TIMELINE_HISTORY {now}")));
    let rows = asked.map_err(|error| {
        let message = format!(
            "{operation}: the role may neither read it ({refused}) nor replicate ({error}). Grant it \
             pg_read_server_files, or ALTER ROLE ... REPLICATION"
        );
        StoreError::new(ErrorKind::Refused, message)
    })?;
    let content = rows
        .into_iter()
        .next()
        .and_then(|row| row.into_iter().nth(1));
    content.ok_or_else(|| {
        let message = format!("{operation}: the server's answer makes no sense");
        StoreError::new(ErrorKind::Other, message)
    })
}

/// Where a timeline ended, by a history: lines of a number, a place, and words.
fn parse_history(history: &str, earlier: u32) -> Option<u64> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let timeline: u32 = words.next()?.parse().ok()?;
        let end = parse_lsn(words.next()?)?;
        (timeline == earlier).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_says_where_each_timeline_ended() {
        let history = "1\t0/3000148\tno recovery target specified\n\n# a comment\n\
                       2\t1/A\tbefore 2026-01-01\n";
        assert_eq!(parse_history(history, 1), Some(0x0300_0148));
        assert_eq!(parse_history(history, 2), Some(0x1_0000_000A));
        assert_eq!(parse_history(history, 3), None);
        assert_eq!(parse_history("", 1), None);
    }
}

//! The journal: what the store remembers of each merge, written in the merge's own transaction.

use reinstate_core::{
    Committed, Digest, ErrorKind, JobId, JournalEntry, Position, SequenceRaise, StoreError,
    TenantId, TenantKind,
};
use tokio_postgres::types::Type;

use crate::catalog::{OWN_NAMESPACE, get};
use crate::lease::{self, lock_number};
use crate::session::Session;

/// What an administrator runs where the role may not.
const DEFINITION: &str = "\
CREATE SCHEMA IF NOT EXISTS reinstate;
CREATE TABLE IF NOT EXISTS reinstate.journal (
    job bytea NOT NULL,
    tenant bytea NOT NULL,
    plan bytea NOT NULL,
    payload bytea NOT NULL,
    transaction_id xid8 NOT NULL,
    commit_mark bytea NOT NULL,
    sequences_raised text[] NOT NULL,
    written_at pg_lsn NOT NULL DEFAULT pg_current_wal_insert_lsn(),
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, tenant)
);
";

/// Whether the journal is there and the role may use it.
fn is_usable(session: &Session) -> Result<Option<bool>, StoreError> {
    let sql = "SELECT has_schema_privilege(n.oid, 'USAGE')
                  AND has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'reinstate' AND c.relname = 'journal'";
    let rows = session.rows("look for the journal", sql, &[])?;
    rows.first().map(|row| get(row, 0)).transpose()
}

/// Whether the journal is there and the role may use it.
///
/// # Errors
/// `Refused` if it is one of before the first release.
pub(crate) fn is_prepared(session: &Session) -> Result<bool, StoreError> {
    if is_usable(session)? != Some(true) {
        return Ok(false);
    }
    check_columns(session)?;
    Ok(true)
}

/// Creates the journal unless it is there.
///
/// # Errors
/// `Refused` if it is not there and the role may not create it, or may not use it; the message
/// holds the statements for somebody who may.
pub(crate) fn prepare(session: &Session) -> Result<(), StoreError> {
    match is_usable(session)? {
        Some(true) => return check_columns(session),
        Some(false) => {
            let message = "prepare the store: the role may not use the journal. An administrator \
                 runs: GRANT USAGE ON SCHEMA reinstate TO role; GRANT SELECT, INSERT ON \
                 reinstate.journal TO role";
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        None => {}
    }
    match session.run("create the journal", DEFINITION) {
        // Two runs at once: the other one was faster.
        Err(_) if is_usable(session)? == Some(true) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Refused => {
            let message = format!(
                "prepare the store: the role may not create the schema {OWN_NAMESPACE}. An \
                 administrator runs:\n{DEFINITION}GRANT USAGE ON SCHEMA reinstate TO role;\n\
                 GRANT SELECT, INSERT ON reinstate.journal TO role;"
            );
            Err(StoreError::new(ErrorKind::Refused, message).because(error))
        }
        result => result,
    }
}

/// Refuses a journal of before the first release: a merge could not write into it.
fn check_columns(session: &Session) -> Result<(), StoreError> {
    let sql = "SELECT count(*) = 9 FROM pg_attribute
                WHERE attrelid = 'reinstate.journal'::regclass AND NOT attisdropped
                  AND attname IN ('job', 'tenant', 'plan', 'payload', 'transaction_id',
                                  'commit_mark', 'sequences_raised', 'written_at', 'committed_at')";
    let row = session.row("look at the columns of the journal", sql, &[])?;
    if get::<bool>(&row, 0)? {
        return Ok(());
    }
    let message = "prepare the store: a version from before the first release made reinstate.journal, \
         without what a commit leaves. The restores in it can be undone with that version only. To go on \
         with this one, its owner runs: ALTER TABLE reinstate.journal RENAME TO journal_before; then run \
         reinstate init again";
    Err(StoreError::new(ErrorKind::Refused, message))
}

/// The number of the session's transaction.
pub(crate) fn transaction(session: &Session) -> Result<u64, StoreError> {
    let sql = "SELECT pg_current_xact_id()::text::int8";
    let row = session.row("number the transaction", sql, &[])?;
    Ok(get::<i64>(&row, 0)?.cast_unsigned())
}

/// Writes an entry in the session's transaction, with what its commit will leave.
///
/// # Errors
/// As the server reports it; `Conflict` if the run is in the journal already.
pub(crate) fn write(
    session: &Session,
    entry: &JournalEntry,
    commit_mark: &[u8],
    sequences_raised: &[SequenceRaise],
) -> Result<(), StoreError> {
    let sql = "INSERT INTO reinstate.journal
                      (job, tenant, plan, payload, transaction_id, commit_mark, sequences_raised)
               VALUES ($1, $2, $3, $4, pg_current_xact_id(), $5, $6)
               RETURNING true";
    let (job, plan) = (
        entry.job.as_bytes().as_slice(),
        entry.plan.as_bytes().as_slice(),
    );
    let (tenant, payload) = (entry.tenant.as_bytes(), entry.payload.as_slice());
    let raised = sequences_raised.iter().map(raise_text);
    let raised: Vec<String> = raised.collect();
    session.row(
        "write the journal",
        sql,
        &[
            (&job, Type::BYTEA),
            (&tenant, Type::BYTEA),
            (&plan, Type::BYTEA),
            (&payload, Type::BYTEA),
            (&commit_mark, Type::BYTEA),
            (&raised, Type::TEXT_ARRAY),
        ],
    )?;
    Ok(())
}

/// A sequence that was raised, in the journal: `from to name`.
fn raise_text(raise: &SequenceRaise) -> String {
    format!("{} {} {}", raise.from, raise.to, raise.name)
}

fn parse_raise(text: &str) -> Option<SequenceRaise> {
    let mut words = text.splitn(3, ' ');
    let (from, to) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let name = words.next()?.to_owned();
    Some(SequenceRaise { name, from, to })
}

/// What the commit of a merge left; none if that merge is not in the journal. That there is none proves
/// nothing: see [`read`].
///
/// # Errors
/// As the server reports it; `Corrupt` if the entry is not what a merge writes.
pub(crate) fn committed(
    session: &Session,
    job: JobId,
    tenant: &TenantId,
) -> Result<Option<Committed>, StoreError> {
    if is_usable(session)?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT commit_mark, sequences_raised, (written_at - '0/0')::int8
                 FROM reinstate.journal WHERE job = $1 AND tenant = $2";
    let (job, tenant) = (job.as_bytes().as_slice(), tenant.as_bytes());
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&job, Type::BYTEA), (&tenant, Type::BYTEA)];
    let rows = session.rows("read the journal", sql, &values)?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let raised: Vec<String> = get(row, 1)?;
    let raised = raised.iter().map(|text| parse_raise(text));
    let raised = raised.collect::<Option<_>>().ok_or_else(|| {
        let message = "read the journal: a sequence that was raised is not written as it should be";
        StoreError::new(ErrorKind::Corrupt, message)
    })?;
    Ok(Some(Committed {
        position: Position {
            commit: get::<i64>(row, 2)?.cast_unsigned(),
            ordinal: 0,
        },
        commit_mark: get(row, 0)?,
        sequences_raised: raised,
    }))
}

/// Reads an entry; none if that merge was not committed and never will be.
///
/// That there is none proves nothing as long as a commit may be under way in a server process whose
/// connection is gone. A merge holds its tenant's lock until its process is done, so that the
/// absence counts once the lock is free.
///
/// # Errors
/// As the server reports it; `Locked` if a merge of the tenant is under way; `Corrupt` if the entry
/// is not what a merge writes.
pub(crate) fn read(
    session: &Session,
    job: JobId,
    kind: &TenantKind,
    tenant: &TenantId,
) -> Result<Option<JournalEntry>, StoreError> {
    if is_usable(session)?.is_none() {
        return Ok(None);
    }
    if let Some(entry) = look(session, job, tenant)? {
        return Ok(Some(entry));
    }
    let number = lock_number(tenant);
    let operation = "see whether a merge is under way";
    let lock = "SELECT pg_try_advisory_lock($1)";
    if !get::<bool>(&session.row(operation, lock, &[(&number, Type::INT8)])?, 0)? {
        return Err(lease::held(session, "read the journal", kind, tenant)?);
    }
    let entry = look(session, job, tenant);
    let unlock = "SELECT pg_advisory_unlock($1)";
    session.row(operation, unlock, &[(&number, Type::INT8)])?;
    entry
}

fn look(
    session: &Session,
    job: JobId,
    tenant: &TenantId,
) -> Result<Option<JournalEntry>, StoreError> {
    let sql = "SELECT plan, payload FROM reinstate.journal WHERE job = $1 AND tenant = $2";
    let (job_bytes, tenant_bytes) = (job.as_bytes().as_slice(), tenant.as_bytes());
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&job_bytes, Type::BYTEA), (&tenant_bytes, Type::BYTEA)];
    let rows = session.rows("read the journal", sql, &values)?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let plan: Vec<u8> = get(row, 0)?;
    let plan = <[u8; 32]>::try_from(plan).map_err(|plan| {
        let message = format!("read the journal: a digest of {} bytes", plan.len());
        StoreError::new(ErrorKind::Corrupt, message)
    })?;
    Ok(Some(JournalEntry {
        job,
        tenant: tenant.clone(),
        plan: Digest::from_bytes(plan),
        payload: get(row, 1)?,
    }))
}

//! The lease on a tenant: who writes to it, and taking it over from whoever does not get on.
//!
//! A lease is two locks of the server's, held by the session that merges. Whatever becomes of the
//! client (killed, stopped, cut off, its clock changed), the lease and the transaction of the merge
//! have the same life: the server frees the first only when the second can no longer commit. So
//! nobody who lost a lease can write under it, and nobody has to compare clocks.
//!
//! The server ends the session of a merge that says nothing for as long as
//! [`ConnectionSettings::lease`](crate::ConnectionSettings::lease), and of one whose client is gone,
//! by its own timers. [`PostgresStore::take_over`] ends it at once.
//!
//! The second lock is the *fence*: see [`crate::guard`]. Writers of the tenant hold it in shared mode
//! until their transactions end, where the fence is installed. There a run puts it up before its merge and
//! keeps it until the result is verified; the lease is the merge's alone, so that the journal can be read
//! again as soon as that is over.

use std::fmt;
use std::time::Duration;

use reinstate_core::{ErrorKind, StoreError, TenantId, TenantKind};
use tokio_postgres::types::Type;

use crate::catalog::get;
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::store::PostgresStore;

/// How long a session that is to end may take to roll back.
const END_MAX: Duration = Duration::from_secs(30);

/// The fence of the tenant whose id is the text that `{tenant}` stands for, as a number.
///
/// Made by the server, for the trigger has nothing else: stable within one server, which is all
/// that locks need.
pub(crate) const FENCE_NUMBER: &str =
    "hashtextextended('reinstate fence ' || ({tenant}) COLLATE \"C\", 5213974402857)";

/// Who holds the lease on a tenant. What the role may not know of others is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseHolder {
    /// The server's process that serves it.
    pub process: i32,
    /// The role that it is connected as.
    pub role: Option<String>,
    /// The address that it came from; none for a socket of the server's own machine.
    pub address: Option<String>,
    /// When its transaction began, by the server's clock, in UTC.
    pub since: Option<String>,
    /// For how long the server has waited for its next statement.
    pub silent_for: Option<Duration>,
}

impl fmt::Display for LeaseHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "server process {}", self.process)?;
        if let Some(role) = &self.role {
            write!(formatter, " of role {role}")?;
        }
        if let Some(address) = &self.address {
            write!(formatter, " from {address}")?;
        }
        if let Some(since) = &self.since {
            write!(formatter, " since {since}")?;
        }
        if let Some(silent) = self.silent_for {
            write!(formatter, ", silent for {} s", silent.as_secs())?;
        }
        Ok(())
    }
}

impl PostgresStore {
    /// Who is writing to a tenant; none if nobody is.
    ///
    /// # Errors
    /// As the server reports it.
    pub fn lease_holder(&self, tenant: &TenantId) -> Result<Option<LeaseHolder>, StoreError> {
        holder(&Session::connect(self.settings())?, tenant)
    }

    /// Ends the merge that holds a tenant, wherever its client is and whatever it does, and waits until
    /// its transaction is rolled back, or, if it was committing, done. From then on it can write nothing.
    /// Returns who that was; none if nobody held the tenant.
    ///
    /// # Errors
    /// `Refused` if this role may not end sessions of that one; `Locked` if the server could not end it
    /// within half a minute.
    pub fn take_over(&self, tenant: &TenantId) -> Result<Option<LeaseHolder>, StoreError> {
        let session = Session::connect(self.settings())?;
        let Some(holder) = holder(&session, tenant)? else {
            return Ok(None);
        };
        let operation = format!("end server process {}", holder.process);
        // Only as long as it holds the lease: the process may serve somebody else by now.
        let sql = format!(
            "SELECT pg_terminate_backend(h.pid, $3)
               FROM (SELECT l.pid FROM pg_locks l WHERE l.pid = $4 AND {} LIMIT 1) h",
            holds()
        );
        let (number, name) = (lock_number(tenant), name(tenant));
        let wait = i64::try_from(END_MAX.as_millis()).unwrap_or(i64::MAX);
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&number, Type::INT8),
            (&name, Type::TEXT),
            (&wait, Type::INT8),
            (&holder.process, Type::INT4),
        ];
        for row in session.rows(&operation, &sql, &values)? {
            if !get::<bool>(&row, 0)? {
                let message = format!("{operation}: it goes on rolling back; try again later");
                return Err(StoreError::new(ErrorKind::Locked, message));
            }
        }
        Ok(Some(holder))
    }
}

/// That a row of pg_locks is the lease whose number is `$1`, or the fence of the tenant `$2`, and that a
/// run has it: the tenant's users have the fence in shared mode.
fn holds() -> String {
    format!(
        "l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
         AND l.mode = 'ExclusiveLock' AND l.pid <> pg_backend_pid()
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND (l.classid::int8 << 32) | l.objid::int8 IN ($1::int8, {})",
        FENCE_NUMBER.replace("{tenant}", "$2")
    )
}

fn holder(session: &Session, tenant: &TenantId) -> Result<Option<LeaseHolder>, StoreError> {
    // Whoever has the fence may keep somebody waiting who has the lease.
    let sql = format!(
        "SELECT l.pid, a.usename::text, host(a.client_addr),
                to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                CASE WHEN a.wait_event = 'ClientRead' THEN
                    greatest(0, extract(epoch FROM clock_timestamp() - a.state_change) * 1000)::int8
                END
           FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE {}
          ORDER BY (l.classid::int8 << 32) | l.objid::int8 = $1",
        holds()
    );
    let (number, name) = (lock_number(tenant), name(tenant));
    let operation = format!("see who writes to {tenant}");
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&number, Type::INT8), (&name, Type::TEXT)];
    let rows = session.rows(&operation, &sql, &values)?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let silent: Option<i64> = get(row, 4)?;
    Ok(Some(LeaseHolder {
        process: get(row, 0)?,
        role: get(row, 1)?,
        address: get(row, 2)?,
        since: get(row, 3)?,
        silent_for: silent.map(|millis| Duration::from_millis(millis.unsigned_abs())),
    }))
}

/// The advisory lock that stands for a tenant.
pub(crate) fn lock_number(tenant: &TenantId) -> i64 {
    let mut hasher = blake3::Hasher::new_derive_key("reinstate 2026 postgres tenant lock v1");
    hasher.update(tenant.as_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    i64::from_le_bytes(number)
}

/// A tenant's id as the text that the fence is told by.
fn name(tenant: &TenantId) -> String {
    String::from_utf8_lossy(tenant.as_bytes()).into_owned()
}

/// A new session for a merge, which the server ends when its client is silent for too long, or gone.
///
/// # Errors
/// As [`Session::connect`].
pub(crate) fn session(settings: &ConnectionSettings) -> Result<Session, StoreError> {
    // New, so that it obeys whatever was set for the role or the database by now.
    let session = Session::connect_for_tenant(settings)?;
    limit(&session, settings)?;
    Ok(session)
}

/// Takes the lease on a tenant: nobody else merges into it until the session ends or
/// [lets go](let_go) of it.
///
/// # Errors
/// `Locked` if another run holds the tenant.
pub(crate) fn take(
    session: &Session,
    kind: &TenantKind,
    tenant: &TenantId,
) -> Result<(), StoreError> {
    let number = lock_number(tenant);
    let sql = "SELECT pg_try_advisory_lock($1)";
    let row = session.row("lock the tenant", sql, &[(&number, Type::INT8)])?;
    match get::<bool>(&row, 0)? {
        true => Ok(()),
        false => Err(held(session, "lock it", kind, tenant)?),
    }
}

/// Lets go of the lease, which whoever reads the journal asks for. What cannot be freed here is freed when the
/// server notices that the connection is gone.
///
/// What the session wrote is counted to the end: the counts of a transaction that was rolled back would be
/// there in the next one else, until the server comes to them by itself, up to a second later.
pub(crate) fn let_go(session: &Session, tenant: &TenantId) {
    let sql = format!(
        "SELECT pg_advisory_unlock({}), pg_stat_force_next_flush()",
        lock_number(tenant)
    );
    session.free(&sql);
}

/// Puts the tenant's fence up until the session ends or unlocks: its users' writes wait where the fence is
/// installed. Those under way are waited for.
///
/// # Errors
/// `Locked` if another run holds the tenant; `Contended` if its users have a transaction open that
/// wrote to it and does not end within the session's lock timeout.
pub(crate) fn raise_fence(
    session: &Session,
    kind: &TenantKind,
    tenant: &TenantId,
) -> Result<(), StoreError> {
    let name = name(tenant);
    let fence = FENCE_NUMBER.replace("{tenant}", "$1");
    let operation = format!("wait until the users of {tenant} ended what they were writing");
    let ask = |sql: String| session.row(&operation, &sql, &[(&name, Type::TEXT)]);
    let row = ask(format!("SELECT pg_try_advisory_lock({fence})"))?;
    if get::<bool>(&row, 0)? {
        return Ok(());
    }
    if holder(session, tenant)?.is_some() {
        return Err(held(session, "lock it", kind, tenant)?);
    }
    ask(format!("SELECT pg_advisory_lock({fence})")).map(drop)
}

/// The error of an operation that has to wait until nobody writes to the tenant, with who does.
///
/// # Errors
/// As the server reports it.
pub(crate) fn held(
    session: &Session,
    operation: &str,
    kind: &TenantKind,
    tenant: &TenantId,
) -> Result<StoreError, StoreError> {
    let who = match holder(session, tenant)? {
        Some(holder) => format!(" ({holder})"),
        None => String::new(),
    };
    let message = format!(
        "{operation}: another run is writing to {kind}:{tenant}{who}. If it does not get on: reinstate \
         lease {kind}:{tenant} --take-over"
    );
    Ok(StoreError::new(ErrorKind::Locked, message))
}

/// Has the server end the session when its client is silent for too long, or gone.
fn limit(session: &Session, settings: &ConnectionSettings) -> Result<(), StoreError> {
    let lease = settings.lease.as_millis();
    session.run(
        "limit the lease",
        &format!(
            "SET idle_in_transaction_session_timeout = {lease}; SET idle_session_timeout = {lease};
             SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10;
             SET tcp_keepalives_count = 3;"
        ),
    )?;
    // Not every system can look whether a client is there while a statement runs. What cannot finds it
    // out when the statement ends.
    let _ = session.run(
        "notice a client that is gone",
        "SET client_connection_check_interval = '10s'",
    );
    Ok(())
}

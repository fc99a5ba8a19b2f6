//! Others who come in the way of a merge on a real server: the whole transaction is tried again, so
//! often and no more, or the plan is stale.
//!
//! A transaction of a merge has rows of one tenant and the lock of that tenant. What two merges can both want
//! are rows of everybody that are gone and that both of their tenants refer to.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reinstate::{
    CaptureOptions, Context, DriftRules, Error, ResourceOptions, Resources, RestoreRequest,
    TenantOutcome,
};
use reinstate_core::{
    Cancellation, ErrorKind, JobId, LiveStore, Observer, Policy, Repository, RepositoryId, Silent,
    SnapshotDescription, SnapshotId, Tenant, TenantKind, Timestamp,
};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};
use reinstate_testkit::MemoryRepository;
use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use crate::lease::Prompt;

pub const NOW: Timestamp = Timestamp::from_micros(0);

const NOTES: &str = "\
CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, body text);
INSERT INTO notes SELECT n, n % 3, 'n' || n FROM generate_series(1, 30) n;
";

pub struct Ground {
    pub database: TestDatabase<'static>,
    pub store: PostgresStore,
    pub repository: MemoryRepository,
    pub snapshot: Arc<SnapshotDescription>,
    pub resources: Resources,
    pub cancellation: Cancellation,
}

impl Ground {
    /// A tenant of many rows, all of which changed since its snapshot.
    pub fn new(adapt: impl FnOnce(&mut ConnectionSettings)) -> Self {
        let incident = "UPDATE notes SET body = 'x' WHERE account_id = 1";
        Self::after(NOTES, incident, |settings, _| adapt(settings))
    }

    /// Tables with a snapshot, and what became of them.
    pub fn after(
        schema: &str,
        incident: &str,
        adapt: impl FnOnce(&mut ConnectionSettings, &mut TenancyMap),
    ) -> Self {
        let database = shared_cluster().unwrap().fresh_database().unwrap();
        database.psql(schema).unwrap();
        let mut settings = ConnectionSettings::new(SecretUrl::new(database.url()), "main");
        settings.merges_at_once = NonZeroUsize::new(2).unwrap();
        settings.unguarded = true;
        let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
        map.column = Some("account_id".to_owned());
        adapt(&mut settings, &mut map);
        let store = PostgresStore::connect(settings, map).unwrap();
        store.prepare().unwrap();
        let options = ResourceOptions {
            threads: NonZeroUsize::new(2).unwrap(),
            ..ResourceOptions::default()
        };
        let resources = Resources::try_new(options).unwrap();
        let repository = MemoryRepository::new(RepositoryId::from_bytes([1; 16]));
        let cancellation = Cancellation::new();
        let context = Context::new(&resources, &Silent, &cancellation);
        let options = CaptureOptions::new(SnapshotId::from_bytes([2; 16]), NOW);
        let snapshot = reinstate::capture(context, &store, &repository, &options).unwrap();
        database.psql(incident).unwrap();
        Self {
            snapshot: Arc::new(snapshot),
            database,
            store,
            repository,
            resources,
            cancellation,
        }
    }

    pub fn psql(&self, sql: &str) -> String {
        self.database.psql(sql).unwrap()
    }

    fn restore(&self, job: u8) -> Result<reinstate::Restored, Error> {
        self.restore_all(job, &["account:1"])?.remove(0).result
    }

    fn restore_all(&self, job: u8, tenants: &[&str]) -> Result<Vec<TenantOutcome>, Error> {
        self.restore_watched(job, tenants, &Silent)
    }

    pub fn restore_watched(
        &self,
        job: u8,
        tenants: &[&str],
        observer: &dyn Observer,
    ) -> Result<Vec<TenantOutcome>, Error> {
        let request = RestoreRequest {
            job: JobId::from_bytes([job; 16]),
            snapshot: Arc::clone(&self.snapshot),
            tenants: tenants
                .iter()
                .map(|tenant| tenant.parse::<Tenant>().unwrap())
                .collect(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            requested_at: NOW,
        };
        let context = Context::new(&self.resources, observer, &self.cancellation);
        let repository: &dyn Repository = &self.repository;
        reinstate::restore(context, &self.store, repository, &request)
    }

    /// Restores beside somebody who has row 1 locked, and calls `meet` with the number of transactions
    /// that met the lock so far whenever there is one more. Returns how many did.
    fn restore_beside(
        &self,
        mut meet: impl FnMut(usize),
    ) -> (Result<reinstate::Restored, Error>, usize) {
        let is_over = AtomicBool::new(false);
        // Each attempt is a session of its own.
        let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                          AND application_name = 'reinstate' AND wait_event_type = 'Lock'";
        let mut seen = BTreeSet::new();
        let result = std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                let result = self.restore(3);
                is_over.store(true, Ordering::SeqCst);
                result
            });
            while !is_over.load(Ordering::SeqCst) {
                let found = self.psql(waiting);
                if !found.is_empty() && seen.insert(found) {
                    meet(seen.len());
                }
            }
            run.join().unwrap()
        });
        (result, seen.len())
    }

    /// The tenant is as it was in the snapshot, by one transaction.
    fn expect_restored(&self, result: Result<reinstate::Restored, Error>) {
        assert!(result.unwrap().verdict.is_restored());
        let changed = "SELECT count(*) FROM notes WHERE body <> 'n' || id";
        assert_eq!(self.psql(changed), "0");
        assert_eq!(self.psql("SELECT count(*) FROM reinstate.journal"), "1");
    }

    /// Nothing was written.
    fn expect_untouched(&self) {
        let changed = "SELECT count(*) FROM notes WHERE account_id = 1 AND body = 'x'";
        assert_eq!(self.psql(changed), "10");
        assert_eq!(self.psql("SELECT count(*) FROM reinstate.journal"), "0");
    }
}

const LOCK_ONE: &str = "SELECT id FROM notes WHERE id = 1 FOR UPDATE";

#[test]
fn a_lock_or_a_statement_that_takes_too_long_has_the_merge_tried_again() {
    let short = Duration::from_millis(300);
    for is_lock in [true, false] {
        let ground = Ground::new(|settings| {
            settings.lock_timeout = if is_lock { short } else { Duration::ZERO };
            settings.statement_timeout = if is_lock { Duration::ZERO } else { short };
        });
        let mut holder = Some(Prompt::after(&ground.database, LOCK_ONE));
        let (result, attempts) = ground.restore_beside(|attempt| {
            if attempt == 2 {
                drop(holder.take());
            }
        });
        assert!(attempts >= 2, "{attempts}");
        ground.expect_restored(result);
    }
}

#[test]
fn a_merge_is_not_tried_for_ever() {
    let ground = Ground::new(|settings| settings.lock_timeout = Duration::from_millis(200));
    let holder = Prompt::after(&ground.database, LOCK_ONE);
    let (result, attempts) = ground.restore_beside(|_| {});
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
    assert!((2..=5).contains(&attempts), "{attempts}");
    ground.expect_untouched();
    drop(holder);
    ground.expect_restored(ground.restore(4));
}

/// Somebody waits for the merge, and the merge for him: the server gives the merge up.
#[test]
fn a_deadlock_has_the_merge_tried_again() {
    let ground = Ground::new(|_| {});
    // The merge looks for a deadlock long before the other one does, and not before there is one.
    ground.psql(&format!(
        "ALTER DATABASE {} SET deadlock_timeout = '2s'",
        ground.database.name()
    ));
    let patient = format!("SET deadlock_timeout = '60s'; {LOCK_ONE}");
    let mut holder = Some(Prompt::after(&ground.database, &patient));
    let (result, attempts) = ground.restore_beside(|attempt| match (attempt, &mut holder) {
        (1, Some(holder)) => {
            holder.say("SELECT id FROM notes WHERE account_id = 1 FOR UPDATE; SELECT 'has all';");
            // Its answer comes when the merge gave way.
            holder.hears("has all");
        }
        _ => drop(holder.take()),
    });
    assert!(attempts >= 2, "the merge was not the one to give way");
    ground.expect_restored(result);
}

/// A row of the plan changes while the merge waits for it: tried again, it sees that the tenant is not
/// what it was.
#[test]
fn a_serialization_failure_ends_as_a_stale_plan_and_the_others_write_stays() {
    let ground = Ground::new(|_| {});
    let mut holder = Some(Prompt::after(&ground.database, LOCK_ONE));
    let (result, _) = ground.restore_beside(|_| {
        if let Some(mut holder) = holder.take() {
            holder.say("UPDATE notes SET body = 'x' WHERE id = 1; COMMIT; SELECT 'committed';");
            holder.hears("committed");
        }
    });
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    ground.expect_untouched();
}

/// Rows of everybody that are gone and that accounts 1 and 2 refer to. Accounts 1 and 3 get on only when
/// somebody lets go of a lock that the trigger looks for.
const SHARED: &str = "\
CREATE TABLE kinds (id int PRIMARY KEY, name text);
CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, body text, kind int REFERENCES kinds);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    WHILE NEW.account_id IN (1, 3) AND NOT pg_try_advisory_xact_lock(NEW.account_id) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN NEW;
END $$;
INSERT INTO kinds VALUES (1, 'one'), (2, 'two');
INSERT INTO notes SELECT n, n % 5, 'n' || n, CASE WHEN n % 5 > 2 THEN 2 ELSE 1 END FROM generate_series(1, 40) n;
CREATE TRIGGER wait BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION wait();
";

/// One of them waits for the other all the time that it is ready to wait, and another one comes after them:
/// whoever would have come back alone comes back with others.
#[test]
fn who_waited_in_vain_for_another_tenant_of_the_run_is_tried_again_after_it() {
    let incident = "DELETE FROM notes WHERE account_id > 0; UPDATE notes SET kind = 2;
                    DELETE FROM kinds WHERE id = 1";
    let ground = Ground::after(SHARED, incident, |settings, map| {
        settings.lock_timeout = Duration::from_millis(100);
        map.shared.push("kinds".to_owned());
        map.create_missing.push("kinds".to_owned());
        map.allowed_triggers.push("notes.wait".to_owned());
    });
    let hold = |lock: &str| format!("SELECT pg_advisory_xact_lock({lock})");
    let first = Prompt::after(&ground.database, &hold("1"));
    let beside = Prompt::after(&ground.database, &hold("3"));
    let order = ["account:1", "account:3", "account:2", "account:4"];
    let outcomes = std::thread::scope(|scope| {
        let run = scope.spawn(|| ground.restore_all(3, &order));
        let creating =
            "SELECT count(*) FROM pg_locks WHERE relation = 'kinds'::regclass AND granted
                           AND mode = 'RowExclusiveLock'";
        while !run.is_finished() && ground.psql(creating) == "0" {}
        // It is the turn of account 2 when account 1 has created what both refer to.
        drop(beside);
        // And that of account 4 only when account 2 was given up.
        let is_next = "SELECT count(*) FROM reinstate.journal WHERE tenant = '4'";
        while !run.is_finished() && ground.psql(is_next) == "0" {}
        assert_eq!(ground.psql("SELECT count(*) FROM reinstate.journal"), "2");
        drop(first);
        run.join().unwrap().unwrap()
    });
    for TenantOutcome { tenant, result } in outcomes {
        let restored = result.unwrap_or_else(|error| panic!("{tenant}: {error}"));
        assert!(restored.verdict.is_restored(), "{tenant}");
    }
    assert_eq!(ground.psql("SELECT count(*) FROM notes"), "40");
    assert_eq!(ground.psql("SELECT count(*) FROM kinds"), "2");
}

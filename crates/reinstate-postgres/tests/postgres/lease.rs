//! The lease on a tenant, which ends with whoever holds it, and the fence on its users' writes.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use reinstate_core::{ErrorKind, JobId, LiveStore};
use reinstate_postgres::{ConnectionSettings, GuardState, PostgresStore, SecretUrl, TenancyMap};

use crate::ground::{Ground, Plan, bind, entry, restore, tenant, via};
use crate::guards::documents;

/// A store on the same database with settings of its own.
fn store_with(ground: &Ground, adapt: impl FnOnce(&mut ConnectionSettings)) -> PostgresStore {
    let mut settings = ConnectionSettings::new(SecretUrl::new(ground.database.url()), "other");
    settings.unguarded = true;
    adapt(&mut settings);
    let mut map = TenancyMap::new(ground.store.tenant_kind().clone());
    map.column = Some("account_id".to_owned());
    via(&mut map, "pages", "document_id -> documents.id");
    PostgresStore::connect(settings, map).unwrap()
}

/// Waits until it is so, which no test is to do for ever.
#[track_caller]
pub fn eventually(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "it never came to that");
    }
}

/// Somebody at a prompt, with a transaction open.
pub struct Prompt {
    psql: Child,
}

impl Prompt {
    /// Begins a transaction with this statement, and waits until that is done.
    pub fn after(ground: &Ground, name: &str, sql: &str) -> Self {
        let mut command = ground.database.cluster().command("psql").unwrap();
        command
            .args(["-X", "-q", "-d", ground.database.name()])
            .env("PGAPPNAME", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut psql = command.spawn().unwrap();
        let stdin = psql.stdin.as_mut().unwrap();
        writeln!(stdin, "BEGIN; {sql};").unwrap();
        let is_done = format!(
            "SELECT count(*) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = '{name}'
                AND state LIKE 'idle in transaction%' AND query NOT LIKE 'BEGIN%'"
        );
        eventually(|| ground.psql(&is_done) == "1");
        Self { psql }
    }

    fn say(&mut self, sql: &str) {
        writeln!(self.psql.stdin.as_mut().unwrap(), "{sql}").unwrap();
    }

    pub fn commit(mut self) {
        let mut stdin = self.psql.stdin.take().unwrap();
        writeln!(stdin, "COMMIT;").unwrap();
        drop(stdin);
        self.psql.wait().unwrap();
    }
}

#[test]
fn a_merge_that_was_taken_over_writes_nothing_more() {
    let ground = documents("");
    let image = ground.image("acme");
    ground.psql("UPDATE documents SET title = 'x' WHERE id = 2");
    let id = tenant("acme");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let plan = Plan::between(&schema, &ground.image("acme"), &image);
    assert_eq!(ground.store.take_over(&id).unwrap(), None);
    // Whatever it has done by then.
    for steps in 0..2 {
        let begun = ground.store.begin_merge(&id, &fingerprint, &schema);
        let mut stuck = begun.unwrap();
        if steps > 0 {
            stuck.apply(&plan).unwrap();
        }
        let process = ground.merging_process();
        let other = store_with(&ground, |_| {});
        let error = other
            .begin_merge(&id, &fingerprint, &schema)
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        for said in [
            format!("server process {process}"),
            "--take-over".to_owned(),
        ] {
            assert!(error.to_string().contains(&said), "{error}");
        }
        assert_eq!(ground.store.lease_holder(&tenant("beta")).unwrap(), None);
        let holder = other.take_over(&id).unwrap().unwrap();
        assert_eq!(holder.process.to_string(), process);
        assert!(holder.role.is_some() && holder.since.is_some(), "{holder}");
        assert_eq!(other.lease_holder(&id).unwrap(), None);

        // The next one has it, and the first wakes up in the middle of that.
        let next = other.begin_merge(&id, &fingerprint, &schema).unwrap();
        if steps == 0 {
            let error = stuck.apply(&plan).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        let error = stuck.commit(&entry(1, &id)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        drop(next);
        let job = JobId::from_bytes([1; 16]);
        assert_eq!(ground.store.journal_entry(job, &id).unwrap(), None);
        assert_eq!(ground.psql("SELECT title FROM documents WHERE id = 2"), "x");
    }
    restore(&ground.store, "acme", &image, 2).unwrap();
    assert_eq!(ground.image("acme"), image);
}

#[test]
fn a_merge_that_is_silent_for_too_long_is_ended_by_the_server() {
    let ground = documents("");
    let image = ground.image("acme");
    ground.psql("UPDATE documents SET title = 'x' WHERE id = 2");
    let id = tenant("acme");
    let brief = store_with(&ground, |settings| {
        settings.lease = Duration::from_millis(50);
    });
    let (fingerprint, schema) = bind(&ground.store, &id);
    let stuck = brief.begin_merge(&id, &fingerprint, &schema).unwrap();
    // Nobody is asked to do anything.
    eventually(|| ground.store.lease_holder(&id).unwrap().is_none());
    restore(&ground.store, "acme", &image, 2).unwrap();
    let error = stuck.commit(&entry(1, &id)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let job = JobId::from_bytes([1; 16]);
    assert_eq!(ground.store.journal_entry(job, &id).unwrap(), None);
    assert_eq!(ground.image("acme"), image);
}

#[test]
fn the_users_of_a_tenant_wait_behind_the_fence_while_it_is_restored_and_others_do_not() {
    let ground = documents("");
    let image = ground.image("acme");
    ground.psql("UPDATE documents SET title = 'x' WHERE id = 2");
    let id = tenant("acme");
    let fenced = ground.owners().install_fence().unwrap();
    assert!(fenced.iter().all(|table| table.fence == GuardState::Armed));
    let (fingerprint, schema) = bind(&ground.store, &id);
    let plan = Plan::between(&schema, &ground.image("acme"), &image);
    let mut writer = ground
        .store
        .begin_merge(&id, &fingerprint, &schema)
        .unwrap();
    let writes = [
        "INSERT INTO documents VALUES (900, 'acme')",
        "INSERT INTO documents VALUES (901, 'beta'), (902, 'acme')",
        "UPDATE documents SET title = 'y' WHERE id = 4",
        "UPDATE documents SET account_id = 'acme' WHERE id = 1",
        "UPDATE documents SET account_id = 'beta' WHERE id = 4",
        "DELETE FROM pages WHERE document_id = 8",
        "UPDATE pages SET document_id = 1 WHERE document_id = 8",
        "INSERT INTO audit (account_id) VALUES ('acme')",
    ];
    for write in writes {
        let refused = ground.database.psql(write).unwrap_err().to_string();
        assert!(
            refused.contains("acme is being restored"),
            "{write}: {refused}"
        );
    }
    // Everybody else, and everybody who reads.
    for write in [
        "UPDATE documents SET title = 'n' WHERE account_id = 'beta'",
        "INSERT INTO documents VALUES (903, 'ACME'), (904, ''), (905, NULL)",
        "SELECT * FROM documents",
        "UPDATE documents SET title = 'n' WHERE false",
    ] {
        ground.psql(write);
    }
    writer.apply(&plan).unwrap();
    ground.database.psql(writes[0]).unwrap_err();
    writer.commit(&entry(1, &id)).unwrap();
    assert_eq!(ground.image("acme"), image);
    for write in writes {
        ground.psql(&format!("BEGIN; {write}; ROLLBACK"));
    }
    assert!(ground.owners().remove_guard().unwrap() > 0);
    let open = ground.store.guard_status().unwrap();
    assert!(open.iter().all(|table| table.fence == GuardState::Absent));
}

#[test]
fn a_merge_waits_until_what_the_tenants_users_are_writing_is_committed() {
    let ground = documents("");
    let id = tenant("acme");
    ground.owners().install_fence().unwrap();
    let (fingerprint, schema) = bind(&ground.store, &id);
    let impatient = store_with(&ground, |settings| {
        settings.lock_timeout = Duration::from_millis(50);
    });
    let others = Prompt::after(
        &ground,
        "others",
        "UPDATE documents SET title = 'x' WHERE id = 1",
    );
    drop(impatient.begin_merge(&id, &fingerprint, &schema).unwrap());
    let own = Prompt::after(&ground, "own", "INSERT INTO documents VALUES (900, 'acme')");
    let error = impatient
        .begin_merge(&id, &fingerprint, &schema)
        .map(drop)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
    // It did not keep the lease.
    assert_eq!(ground.store.lease_holder(&id).unwrap(), None);
    own.commit();
    others.commit();
    let error = impatient
        .begin_merge(&id, &fingerprint, &schema)
        .map(drop)
        .unwrap_err();
    // What it waited for is seen: it looks at the tenant after that.
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

/// Locks of everybody at once would fill the server's table of locks.
#[test]
fn a_statement_that_changes_very_many_tenants_passes_the_fence_by() {
    let ground = documents("");
    let id = tenant("acme");
    ground.owners().install_fence().unwrap();
    let (fingerprint, schema) = bind(&ground.store, &id);
    let open = ground.store.begin_merge(&id, &fingerprint, &schema);
    let open = open.unwrap();
    let insert = |others: u32| {
        let sql = format!(
            "INSERT INTO documents SELECT 1000 + n, CASE n WHEN 0 THEN 'acme' ELSE 't' || n END
               FROM generate_series(0, {others}) n"
        );
        ground.database.psql(&sql)
    };
    insert(63).unwrap_err();
    insert(64).unwrap();
    // It is noticed all the same.
    let plan = Plan::between(&schema, &ground.image("acme"), &ground.image("acme"));
    let mut open = open;
    open.apply(&plan).unwrap();
    let error = open.commit(&entry(1, &id)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

/// The merge waits for a row, and whoever has it for the fence: he gives way before the server looks for a
/// deadlock, and the merge goes on.
#[test]
fn a_writer_behind_the_fence_for_whose_rows_the_merge_waits_gives_way() {
    let ground = documents("");
    let image = ground.image("acme");
    ground.psql("UPDATE documents SET title = 'x' WHERE id = 2");
    ground.owners().install_fence().unwrap();
    let patient = store_with(&ground, |settings| {
        settings.lock_timeout = Duration::from_secs(60);
    });
    let lock = "SELECT FROM documents WHERE id = 2 FOR UPDATE";
    let mut own = Prompt::after(&ground, "own", lock);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                    AND application_name = 'reinstate' AND wait_event_type = 'Lock'";
    std::thread::scope(|scope| {
        let merge = scope.spawn(|| restore(&patient, "acme", &image, 1).map(drop));
        eventually(|| ground.psql(waits) == "1");
        own.say("UPDATE documents SET title = 'mine' WHERE id = 2;");
        merge.join().unwrap().unwrap();
    });
    own.commit();
    assert_eq!(ground.image("acme"), image);
}

//! Two merges at the same time, each of another tenant.

use std::num::NonZeroUsize;
use std::thread;

use reinstate_core::{LiveStore, TenantKind};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};

use crate::ground::{Ground, Plan, bind, entry, image, tenant};

/// Is as a merge that raises a sequence, until two others wait for it.
const HOLD: &str = "\
SELECT pg_advisory_lock(
    hashtextextended('reinstate sequence ' || 'notes_id_seq'::regclass::oid, 5213974402857));
DO $$ BEGIN
    FOR round IN 1..1000 LOOP
        EXIT WHEN (SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock') = 2;
        PERFORM pg_sleep(0.02);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
END $$;
";

/// A second merge takes another core of the server, which is for whoever looks after it to grant.
#[test]
fn one_tenant_of_a_run_is_merged_at_a_time_unless_the_settings_say_otherwise() {
    let ground = Ground::new("CREATE TABLE notes (id int PRIMARY KEY, account_id text)");
    assert_eq!(ground.store.merges_at_once(), 1);
    let mut settings = ConnectionSettings::new(SecretUrl::new(ground.database.url()), "ground");
    settings.merges_at_once = NonZeroUsize::new(3).unwrap();
    let map = TenancyMap::new(TenantKind::parse("account").unwrap());
    let store = PostgresStore::connect(settings, map).unwrap();
    assert_eq!(store.merges_at_once(), 3);
}

/// Who looked at a sequence before another merge raised it does not lower it again.
#[test]
fn a_sequence_that_two_merges_raise_stays_at_the_greater_value() {
    let ground = Ground::new(
        "CREATE TABLE notes (id bigserial PRIMARY KEY, account_id text);
         INSERT INTO notes VALUES (50000, 'acme'), (40000, 'beta')",
    );
    let wanted = ["acme", "beta"].map(|name| (name, ground.image(name)));
    ground.psql("TRUNCATE notes RESTART IDENTITY");
    let writers = wanted.each_ref().map(|(name, wanted)| {
        let id = tenant(name);
        let (fingerprint, schema) = bind(&ground.store, &id);
        let plan = Plan::between(&schema, &image(&ground.store, name), wanted);
        let mut writer = ground
            .store
            .begin_merge(&id, &fingerprint, &schema)
            .unwrap();
        writer.apply(&plan).unwrap();
        (id, writer)
    });
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
                   AND pid IN (SELECT pid FROM pg_stat_activity
                                WHERE datname = current_database() AND application_name = 'psql')";
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
    thread::scope(|scope| {
        let holder = scope.spawn(|| ground.database.psql(HOLD).unwrap());
        while !holder.is_finished() && ground.psql(held) == "0" {}
        // The greater value is the first in the queue.
        let [(first, greater), (second, less)] = writers;
        let first = scope.spawn(move || greater.commit(&entry(1, &first)).unwrap());
        while ground.psql(waiting) != "1" {
            assert!(!first.is_finished(), "it was raised beside another merge");
        }
        scope.spawn(move || less.commit(&entry(1, &second)).unwrap());
    });
    let last = ground.psql("SELECT last_value FROM notes_id_seq");
    assert_eq!(last, "50000");
}

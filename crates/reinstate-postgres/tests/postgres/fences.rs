//! Who may write beside a merge, and who may merge.

use std::time::Duration;

use reinstate_core::{ErrorKind, JobId, LiveStore, StoreError};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};
use reinstate_testkit::cluster::shared_cluster;

use crate::ground::{Ground, Plan, bind, entry, open_store, restore, tenant, via};
use crate::guards::documents;

#[test]
fn a_tenant_that_changed_is_stale_and_its_neighbours_do_not_matter() {
    let ground = documents("CREATE TABLE bags (account_id text, what text)");
    let id = tenant("acme");
    for (change, kind) in [
        (
            "UPDATE documents SET title = title WHERE id = 2",
            Some(ErrorKind::Stale),
        ),
        (
            "INSERT INTO documents VALUES (900, 'acme')",
            Some(ErrorKind::Stale),
        ),
        ("INSERT INTO bags VALUES ('acme')", Some(ErrorKind::Stale)),
        (
            "DELETE FROM pages WHERE document_id = 8",
            Some(ErrorKind::Stale),
        ),
        (
            "UPDATE documents SET account_id = 'acme' WHERE id = 1",
            Some(ErrorKind::Stale),
        ),
        (
            "UPDATE documents SET account_id = 'beta' WHERE id = 1",
            Some(ErrorKind::Stale),
        ),
        (
            "UPDATE documents SET title = 'x' WHERE account_id <> 'acme'",
            None,
        ),
        (
            "INSERT INTO documents VALUES (901, 'ACME'), (902, ''), (903, NULL)",
            None,
        ),
        (
            "DELETE FROM audit WHERE account_id IS DISTINCT FROM 'acme'",
            None,
        ),
        (
            "BEGIN; SELECT * FROM documents FOR UPDATE; COMMIT; VACUUM FREEZE documents",
            None,
        ),
        (
            "BEGIN; UPDATE documents SET title = 'x'; ROLLBACK; ANALYZE",
            None,
        ),
        ("CREATE INDEX ON documents (title)", None),
        (
            "ALTER TABLE documents ADD extra int",
            Some(ErrorKind::Stale),
        ),
        (
            "ALTER TABLE audit ALTER what TYPE varchar(30)",
            Some(ErrorKind::Stale),
        ),
        (
            "ALTER TABLE audit ALTER what SET NOT NULL",
            Some(ErrorKind::Stale),
        ),
        (
            "ALTER TABLE audit DROP CONSTRAINT audit_pkey",
            Some(ErrorKind::Stale),
        ),
        (
            "CREATE TABLE more (account_id text)",
            Some(ErrorKind::Stale),
        ),
    ] {
        let (fingerprint, schema) = bind(&ground.store, &id);
        ground.psql(change);
        let begun = ground
            .store
            .begin_merge(&id, &fingerprint, &schema)
            .map(drop);
        assert_eq!(begun.map_err(|error| error.kind()).err(), kind, "{change}");
    }
}

#[test]
fn whoever_writes_to_the_tenant_during_a_merge_makes_it_fail() {
    let ground = documents("CREATE TABLE bags (account_id text, what text)");
    let image = ground.image("acme");
    ground.psql("UPDATE documents SET title = 'x' WHERE id = 2");
    let id = tenant("acme");
    let merge = |change: &str, after: Option<&str>| -> Result<(), StoreError> {
        let (fingerprint, schema) = bind(&ground.store, &id);
        let plan = Plan::between(&schema, &ground.image("acme"), &image);
        let mut writer = ground.store.begin_merge(&id, &fingerprint, &schema)?;
        ground.psql(change);
        writer.apply(&plan)?;
        if let Some(change) = after {
            ground.psql(change);
        }
        writer.commit(&entry(1, &id)).map(drop)
    };
    let touch = "UPDATE documents SET title = title || '!' WHERE id = 2";
    let error = merge(touch, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
    let other = "UPDATE documents SET title = title WHERE id = 4";
    for (before, after) in [
        (other, None),
        ("SELECT", Some(other)),
        ("SELECT", Some("INSERT INTO bags VALUES ('acme', 'late')")),
    ] {
        let error = merge(before, after).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        assert_eq!(
            ground.psql("SELECT title LIKE 'x%' FROM documents WHERE id = 2"),
            "t"
        );
    }
    // The neighbours may.
    merge(
        "UPDATE documents SET title = 'n' WHERE account_id = 'beta'",
        Some("VACUUM"),
    )
    .unwrap();
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for_only_so_long() {
    let ground = documents("");
    let image = ground.image("acme");
    ground.psql("UPDATE documents SET title = 'x' WHERE id = 2");
    let short = Duration::from_millis(100);
    let impatient = |adapt: fn(&mut ConnectionSettings, Duration)| {
        let url = SecretUrl::new(ground.database.url());
        let mut settings = ConnectionSettings::new(url, "impatient");
        settings.unguarded = true;
        settings.lock_timeout = Duration::from_secs(60);
        adapt(&mut settings, short);
        let mut map = TenancyMap::new(ground.store.tenant_kind().clone());
        map.column = Some("account_id".to_owned());
        via(&mut map, "pages", "document_id -> documents.id");
        PostgresStore::connect(settings, map).unwrap()
    };
    let is_locked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                        AND query LIKE '%pg_sleep(2)%' AND wait_event = 'PgSleep'";
    let stores = [
        impatient(|settings, short| settings.statement_timeout = short),
        impatient(|settings, short| settings.lock_timeout = short),
    ];
    for store in &stores {
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                ground.psql(
                    "BEGIN; SELECT FROM documents WHERE id = 2 FOR UPDATE; SELECT pg_sleep(2); \
                     COMMIT",
                )
            });
            while ground.psql(is_locked) != "1" {}
            let error = restore(store, "acme", &image, 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Contended, "{error}");
            holder.join().unwrap();
        });
    }
    restore(&stores[1], "acme", &image, 1).unwrap();
}

#[test]
fn a_role_without_the_rights_is_told_which_before_anything_is_written() {
    let ground = documents("");
    let image = ground.image("acme");
    ground.psql(
        "INSERT INTO audit (account_id) VALUES ('acme');
         DELETE FROM pages WHERE document_id = 2; UPDATE documents SET title = 'x' WHERE id = 2;
         DROP ROLE IF EXISTS limited; CREATE ROLE limited LOGIN;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO limited",
    );
    let url = shared_cluster()
        .unwrap()
        .url_as("limited", ground.database.name());
    let store = open_store(&url, |map| via(map, "pages", "document_id -> documents.id"));
    let name = ground.database.name();
    let check = |store: &PostgresStore, named: &[&str]| {
        let error = restore(store, "acme", &image, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        for named in named {
            assert!(
                error.to_string().contains(named),
                "{error} should name {named}"
            );
        }
    };
    check(
        &store,
        &["INSERT on pages", "UPDATE on documents", "DELETE on audit"],
    );
    // What each table needs and no more.
    ground.psql(
        "GRANT INSERT ON pages TO limited; GRANT UPDATE ON documents TO limited;
         GRANT DELETE ON audit TO limited",
    );
    // Everything is applied by now, but the journal cannot be written.
    check(&store, &[]);
    assert_eq!(store.prepare().unwrap_err().kind(), ErrorKind::Refused);
    ground.psql(&format!("REVOKE TEMP ON DATABASE {name} FROM PUBLIC"));
    check(&store, &["TEMP"]);
    ground.psql(&format!(
        "GRANT TEMP ON DATABASE {name} TO limited; GRANT USAGE ON SCHEMA reinstate TO limited;
         GRANT SELECT, INSERT ON reinstate.journal TO limited;
         GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO limited"
    ));
    store.prepare().unwrap();
    restore(&store, "acme", &image, 1).unwrap();
    assert_eq!(ground.image("acme"), image);
    ground.psql("DROP OWNED BY limited; DROP ROLE limited");
}

#[test]
fn a_server_that_does_not_count_or_has_no_journal_is_refused() {
    let ground = documents("");
    let image = ground.image("acme");
    let name = ground.database.name();
    for (change, undo, named) in [
        (
            format!("ALTER DATABASE {name} SET track_counts = off"),
            format!("ALTER DATABASE {name} RESET track_counts"),
            "track_counts",
        ),
        (
            "ALTER SCHEMA reinstate RENAME TO elsewhere; ALTER TABLE elsewhere.journal SET SCHEMA pg_catalog".to_owned(),
            String::new(),
            "journal",
        ),
    ] {
        if ground.database.psql(&change).is_err() {
            ground.psql("DROP SCHEMA IF EXISTS reinstate, elsewhere CASCADE");
        }
        let error = restore(&ground.store, "acme", &image, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(named), "{error}");
        ground.psql(&undo);
    }
    ground.owners().prepare().unwrap();
    ground.describe_role();
    restore(&ground.store, "acme", &image, 1).unwrap();
}

/// A server that has no room for a row, for a staged one, or for the journal's entry.
#[test]
fn a_server_whose_disk_is_full_leaves_the_tenant_as_it_was() {
    let ground = documents(
        "CREATE FUNCTION has_room(place text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
             IF current_setting('disk.without_room', true) = place THEN
                 RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device';
             END IF;
             RETURN true;
         END $$",
    );
    ground.psql(
        "ALTER TABLE documents ADD CHECK (has_room('put back'));
         ALTER TABLE pages ADD CHECK (has_room('create'));
         ALTER TABLE reinstate.journal ADD CHECK (has_room('journal'))",
    );
    let image = ground.image("acme");
    ground.psql(
        "UPDATE documents SET title = 'x' WHERE id = 2; DELETE FROM pages WHERE document_id = 2",
    );
    let damaged = ground.image("acme");
    assert_ne!(damaged, image);
    let name = ground.database.name();
    for place in ["put back", "create", "journal"] {
        ground.psql(&format!(
            "ALTER DATABASE {name} SET disk.without_room = '{place}'"
        ));
        let error = restore(&ground.store, "acme", &image, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{place}: {error}");
        ground.psql(&format!("ALTER DATABASE {name} RESET disk.without_room"));
        assert_eq!(ground.image("acme"), damaged, "{place}");
        assert_eq!(ground.psql("SELECT count(*) FROM reinstate.journal"), "0");
    }
    restore(&ground.store, "acme", &image, 1).unwrap();
    assert_eq!(ground.image("acme"), image);
}

/// The commit of a connection that is gone may still be under way: until its process is done, the
/// absence of the entry proves nothing.
#[test]
fn the_journal_answers_only_when_no_merge_is_under_way() {
    let ground = Ground::new("CREATE TABLE notes (id int PRIMARY KEY, account_id int)");
    let (job, one, two) = (JobId::from_bytes([7; 16]), tenant("1"), tenant("2"));
    assert_eq!(ground.store.journal_entry(job, &one).unwrap(), None);
    let (fingerprint, schema) = bind(&ground.store, &one);
    let writer = ground
        .store
        .begin_merge(&one, &fingerprint, &schema)
        .unwrap();
    let error = ground.store.journal_entry(job, &one).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(ground.store.journal_entry(job, &two).unwrap(), None);
    drop(writer);
    assert_eq!(ground.store.journal_entry(job, &one).unwrap(), None);
    // Looking did not keep the lock.
    drop(
        ground
            .store
            .begin_merge(&one, &fingerprint, &schema)
            .unwrap(),
    );
}

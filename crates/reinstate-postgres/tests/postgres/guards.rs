//! What a merge refuses, and what its counts expose.

use reinstate_core::{ChangeCounts, ErrorKind, LiveStore, RowBatch, StoreError, TableName};

use crate::ground::{Ground, Plan, bind, check_read_back, tenant, via};

const DOCUMENTS: &str = "\
CREATE TABLE documents (id int PRIMARY KEY, account_id text, title text, number int);
CREATE TABLE pages (id int PRIMARY KEY, document_id int NOT NULL REFERENCES documents, body text);
CREATE TABLE audit (id serial PRIMARY KEY, account_id text, what text);
INSERT INTO documents SELECT n, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'beta' END, 't' || n, n
  FROM generate_series(1, 200) n;
INSERT INTO pages SELECT n, n, 'p' || n FROM generate_series(1, 200) n;
INSERT INTO audit (account_id, what) VALUES ('acme', 'a'), ('beta', 'b'), (NULL, 'n');
";

pub fn documents(further: &str) -> Ground {
    documents_with(further, &[])
}

fn documents_with(further: &str, allowed_triggers: &[&str]) -> Ground {
    Ground::with_map(&format!("{DOCUMENTS}{further}"), |map| {
        via(map, "pages", "document_id -> documents.id");
        if further.contains("private.log") {
            map.excluded.push("private.log".to_owned());
        }
        map.allowed_triggers = allowed_triggers
            .iter()
            .map(|&name| name.to_owned())
            .collect();
    })
}

fn counts(created: u64, put_back: u64, deleted: u64) -> ChangeCounts {
    ChangeCounts {
        created,
        put_back,
        deleted,
    }
}

/// Everything in the database, with the place and the transaction of every row.
fn everything(ground: &Ground) -> String {
    let tables = ["documents", "pages", "audit"];
    let dump = |table: &&str| {
        ground.psql(&format!(
            "SELECT ctid, xmin, t.*::text FROM {table} t ORDER BY 1"
        ))
    };
    tables.iter().map(dump).collect()
}

/// Changes the tenant after its image was taken, and applies the plan that leads back without
/// committing it. Returns what the server counted.
fn counted(ground: &Ground, change: &str) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
    let image = ground.image("acme");
    ground.psql(change);
    let before = everything(ground);
    let id = tenant("acme");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let plan = Plan::between(&schema, &ground.image("acme"), &image);
    let mut writer = ground.store.begin_merge(&id, &fingerprint, &schema)?;
    let counted = writer.apply(&plan);
    drop(writer);
    assert_eq!(everything(ground), before);
    counted
}

#[track_caller]
fn refused(ground: &Ground, change: &str, named: &str) {
    let error = counted(ground, change).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(named), "{error}");
}

/// A cascade from the tenant's own parent deleted another tenant's child without any error.
#[test]
fn a_cascade_to_a_row_of_somebody_else_shows_in_the_counts() {
    let ground = documents(
        "CREATE TABLE links (id int PRIMARY KEY, account_id text,
             document_id int REFERENCES documents ON DELETE CASCADE)",
    );
    let counted = counted(
        &ground,
        "INSERT INTO documents VALUES (900, 'acme', 'new', 1);
         INSERT INTO links VALUES (1, 'beta', 900), (2, 'beta', 900), (3, 'acme', 900)",
    );
    let expected = [("documents", counts(0, 0, 1)), ("links", counts(0, 0, 3))];
    let expected = expected.map(|(name, counts)| (TableName::new(name), counts));
    // Planned: one link.
    assert_eq!(counted.unwrap(), expected);
    assert_eq!(ground.psql("SELECT count(*) FROM links"), "3");
}

#[test]
fn a_cascade_to_a_table_of_nobody_is_refused() {
    let ground = Ground::with_map(
        &format!(
            "{DOCUMENTS} CREATE TABLE labels (id int PRIMARY KEY,
                 document_id int REFERENCES documents ON DELETE SET NULL)"
        ),
        |map| {
            via(map, "pages", "document_id -> documents.id");
            map.shared.push("labels".to_owned());
        },
    );
    refused(
        &ground,
        "INSERT INTO documents VALUES (900, 'acme', 'new', 1); INSERT INTO labels VALUES (1, 900)",
        "labels_document_id_fkey",
    );
    // Without a delete the key does nothing.
    counted(&ground, "UPDATE documents SET title = 'x' WHERE id = 2").unwrap();
}

const NUMBERING: &str = "\
CREATE FUNCTION number_it() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.number := 1; RETURN NEW; END $$;
CREATE TRIGGER numbering BEFORE INSERT OR UPDATE ON documents
    FOR EACH ROW EXECUTE FUNCTION number_it();
";

#[test]
fn a_trigger_that_would_fire_is_refused_by_name() {
    let ground = documents(NUMBERING);
    refused(
        &ground,
        "DELETE FROM pages WHERE document_id = 2; DELETE FROM documents WHERE id = 2",
        "documents.numbering",
    );
    refused(
        &ground,
        "UPDATE documents SET title = 'x' WHERE id = 4",
        "documents.numbering",
    );
    // It does not fire for deletes and in other tables, nor when it is disabled.
    let ground = documents(NUMBERING);
    counted(
        &ground,
        "INSERT INTO documents VALUES (900, 'acme', 'new', 1)",
    )
    .unwrap();
    counted(&ground, "DELETE FROM audit").unwrap();
    ground.psql("ALTER TABLE documents DISABLE TRIGGER numbering");
    counted(&ground, "UPDATE documents SET title = 'x' WHERE id = 4").unwrap();
}

/// A per-tenant number 42 became 1: the counts were right, the rows were not.
#[test]
fn an_allowed_trigger_that_rewrites_rows_shows_when_they_are_read_back() {
    let ground = documents_with(NUMBERING, &["documents.numbering"]);
    let image = ground.image("acme");
    ground.psql("DELETE FROM pages WHERE document_id = 2; DELETE FROM documents WHERE id = 2");
    let id = tenant("acme");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let plan = Plan::between(&schema, &ground.image("acme"), &image);
    let mut writer = ground
        .store
        .begin_merge(&id, &fingerprint, &schema)
        .unwrap();
    assert_eq!(writer.apply(&plan).unwrap(), plan.counts_by_name());
    let (index, _) = schema.find("documents").unwrap();
    let found = crate::ground::collect(writer.read_back(index).unwrap()).unwrap();
    assert_ne!(found, image[&index]);
    assert_eq!(found.len(), image[&index].len());
}

#[test]
fn what_a_trigger_with_the_rights_of_its_owner_does_shows_in_the_counts() {
    let trigger = |body: &str| {
        format!(
            "CREATE SCHEMA private; CREATE TABLE private.log (what text);
             CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                 $$ BEGIN {body}; RETURN NULL; END $$;
             CREATE TRIGGER acting AFTER UPDATE ON documents EXECUTE FUNCTION act();"
        )
    };
    let change = "UPDATE documents SET title = 'x' WHERE id IN (2, 4)";
    let seen = |body: &str| {
        // The application's own update fires the trigger as well: leave that aside.
        let change = format!(
            "ALTER TABLE documents DISABLE TRIGGER acting; {change};
             ALTER TABLE documents ENABLE TRIGGER acting"
        );
        counted(
            &documents_with(&trigger(body), &["documents.acting"]),
            &change,
        )
    };
    let documents = TableName::new("documents");
    for (body, table, expected) in [
        (
            "UPDATE public.audit SET what = 'z' WHERE account_id = 'beta'",
            "audit",
            counts(0, 1, 0),
        ),
        (
            "DELETE FROM public.audit WHERE account_id IS NULL",
            "audit",
            counts(0, 0, 1),
        ),
        (
            "INSERT INTO public.audit (account_id) VALUES ('beta')",
            "audit",
            counts(1, 0, 0),
        ),
        (
            "INSERT INTO private.log VALUES ('a'), ('b')",
            "private.log",
            counts(2, 0, 0),
        ),
        (
            "BEGIN INSERT INTO private.log VALUES ('a'); EXCEPTION WHEN OTHERS THEN NULL; END",
            "private.log",
            counts(1, 0, 0),
        ),
    ] {
        let mut expected = vec![
            (documents.clone(), counts(0, 2, 0)),
            (TableName::new(table), expected),
        ];
        expected.sort_by(|left, right| left.0.cmp(&right.0));
        assert_eq!(seen(body).unwrap(), expected, "{body}");
    }
    let same = "IF pg_trigger_depth() < 2 THEN
                    UPDATE public.documents SET title = 'z' WHERE id = 1; END IF";
    let same = seen(same).unwrap();
    assert_eq!(same, [(documents, counts(0, 3, 0))]);
    // What the server does not count.
    for body in [
        "TRUNCATE public.audit",
        "ALTER TABLE public.audit ADD extra int",
    ] {
        let error = seen(body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{body}: {error}");
        assert!(error.to_string().contains("audit"), "{body}: {error}");
    }
}

#[test]
fn a_trigger_or_rule_that_keeps_rows_from_being_written_is_noticed() {
    let ground = documents_with(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF OLD.id = 4 THEN RETURN NULL; END IF; RETURN NEW; END $$;
         CREATE TRIGGER skipping BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION skip();
         ALTER TABLE documents DISABLE TRIGGER skipping;
         CREATE RULE keep AS ON DELETE TO audit DO INSTEAD NOTHING;",
        &["documents.skipping", "audit.keep"],
    );
    refused(
        &ground,
        "UPDATE documents SET title = 'x' WHERE id IN (2, 4);
         ALTER TABLE documents ENABLE TRIGGER skipping",
        "changed 1 of 2 rows",
    );
    ground.psql("ALTER TABLE documents DISABLE TRIGGER skipping");
    refused(
        &ground,
        "INSERT INTO audit (account_id) VALUES ('acme'), ('acme')",
        "changed 0 of 2 rows",
    );
    let ground = documents("CREATE RULE keep AS ON DELETE TO audit DO INSTEAD NOTHING");
    refused(
        &ground,
        "INSERT INTO audit (account_id) VALUES ('acme')",
        "audit.keep",
    );
}

/// Plans that name rows of others, as a damaged or forged one could.
#[test]
fn rows_of_others_cannot_be_written_by_any_role_of_a_row() {
    let ground = documents(
        "CREATE TABLE bags (account_id text, what text);
         INSERT INTO bags VALUES ('acme', 'x'), ('beta', 'y')",
    );
    let id = tenant("acme");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let (mine, theirs) = (ground.image("acme"), ground.image("beta"));
    let (documents, pages) = (
        schema.find("documents").unwrap().0,
        schema.find("pages").unwrap().0,
    );
    let changed = |image: &crate::ground::Image, table, row: &(Vec<u8>, Vec<u8>)| {
        let mut image = image.clone();
        let rows: &mut crate::ground::Rows = image.entry(table).or_default();
        rows.retain(|other| other.0 != row.0);
        rows.push(row.clone());
        rows.sort();
        image
    };
    let row = |table: reinstate_core::TableIndex, values: &[&str]| {
        let mut builder = reinstate_core::RowBuilder::new();
        let values: Vec<Option<&[u8]>> =
            values.iter().map(|value| Some(value.as_bytes())).collect();
        schema
            .table(table)
            .encode_row(&values, &mut builder)
            .unwrap();
        let mut batch = RowBatch::new();
        batch.push_row(builder.row());
        let row = batch.iter().next().unwrap();
        (row.key().to_vec(), row.columns().to_vec())
    };
    let bags = schema.find("bags").unwrap().0;
    let only = |image: &crate::ground::Image, table| {
        crate::ground::Image::from([(table, image[&table].clone())])
    };
    let before = everything(&ground);
    for (what, live, wanted) in [
        (
            "delete",
            only(&theirs, documents),
            crate::ground::Image::new(),
        ),
        (
            "delete below",
            only(&theirs, pages),
            crate::ground::Image::new(),
        ),
        (
            "delete copies",
            only(&theirs, bags),
            crate::ground::Image::new(),
        ),
        (
            "create",
            mine.clone(),
            changed(
                &mine,
                documents,
                &row(documents, &["900", "beta", "t", "1"]),
            ),
        ),
        (
            "give away",
            mine.clone(),
            changed(&mine, documents, &row(documents, &["2", "beta", "t", "1"])),
        ),
        (
            "take over",
            changed(&mine, documents, &row(documents, &["1", "acme", "t", "2"])),
            changed(&mine, documents, &row(documents, &["1", "acme", "t", "1"])),
        ),
        (
            "create below",
            mine.clone(),
            changed(&mine, pages, &row(pages, &["900", "1", "t"])),
        ),
        (
            "move below",
            mine.clone(),
            changed(&mine, pages, &row(pages, &["2", "1", "t"])),
        ),
        (
            "take below",
            changed(&mine, pages, &row(pages, &["1", "2", "t"])),
            changed(&mine, pages, &row(pages, &["1", "2", "u"])),
        ),
    ] {
        let plan = Plan::between(&schema, &live, &wanted);
        let mut writer = ground
            .store
            .begin_merge(&id, &fingerprint, &schema)
            .unwrap();
        let error = writer.apply(&plan).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{what}: {error}");
        assert!(
            error.to_string().contains("changed 0 of"),
            "{what}: {error}"
        );
        drop(writer);
        assert_eq!(everything(&ground), before, "{what}");
    }
}

#[test]
fn a_row_with_an_identity_that_the_server_alone_sets_is_made_anew() {
    let ground = Ground::new(
        "CREATE TABLE notes (id int PRIMARY KEY, account_id text, body text,
             serial int GENERATED ALWAYS AS IDENTITY);
         INSERT INTO notes VALUES (1, 'acme', 'a'), (2, 'acme', 'b'), (3, 'beta', 'c')",
    );
    let image = ground.image("acme");
    ground.psql("UPDATE notes SET body = 'x' WHERE id = 1; DELETE FROM notes WHERE id = 2");
    ground.restore("acme", &image).unwrap();
    assert_eq!(ground.image("acme"), image);
    ground.psql("UPDATE notes SET serial = DEFAULT WHERE id = 1");
    let outcome = ground.restore("acme", &image).unwrap();
    assert_eq!(outcome.counted, outcome.planned);
    assert_eq!(ground.image("acme"), image);
    // It cannot be, if something would happen at that.
    ground.psql(
        "CREATE TABLE tags (id int PRIMARY KEY, account_id text,
             note int REFERENCES notes ON DELETE CASCADE); UPDATE notes SET serial = DEFAULT WHERE id = 1",
    );
    let error = ground.restore("acme", &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let says = "a value that only the server may update: rows would have to be deleted and made anew, \
                and foreign key tags_note_fkey of tags would act on that";
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn a_deferred_constraint_is_checked_before_the_commit() {
    let ground = Ground::new(
        "CREATE TABLE nodes (id int PRIMARY KEY, account_id text, place int,
             UNIQUE (place) DEFERRABLE INITIALLY IMMEDIATE,
             next int REFERENCES nodes DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO nodes VALUES (1, 'acme', 1, 2), (2, 'acme', 2, 1), (3, 'beta', 3, NULL)",
    );
    let image = ground.image("acme");
    // Places are swapped, and the circle goes.
    ground.psql(
        "BEGIN; UPDATE nodes SET place = 9 WHERE id = 1; UPDATE nodes SET place = 1 WHERE id = 2;
         UPDATE nodes SET place = 2 WHERE id = 1; COMMIT",
    );
    ground.restore("acme", &image).unwrap();
    ground.psql("DELETE FROM nodes WHERE account_id = 'acme'");
    ground.restore("acme", &image).unwrap();
    // A row that is created has the place of one that is put back later.
    ground.psql(
        "BEGIN; UPDATE nodes SET next = NULL WHERE id = 2; DELETE FROM nodes WHERE id = 1;
         UPDATE nodes SET place = 1 WHERE id = 2; COMMIT",
    );
    ground.restore("acme", &image).unwrap();
    assert_eq!(ground.image("acme"), image);
    ground
        .psql("DELETE FROM nodes WHERE id = 1 OR id = 2; INSERT INTO nodes VALUES (8, 'beta', 2)");
    let id = tenant("acme");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let plan = Plan::between(&schema, &ground.image("acme"), &image);
    let mut writer = ground
        .store
        .begin_merge(&id, &fingerprint, &schema)
        .unwrap();
    assert_eq!(writer.apply(&plan).unwrap_err().kind(), ErrorKind::Conflict);
    drop(writer);
    check_nothing_written(&ground, &image);
}

fn check_nothing_written(ground: &Ground, image: &crate::ground::Image) {
    assert!(ground.image("acme").values().all(Vec::is_empty));
    let id = tenant("acme");
    let (fingerprint, schema) = bind(&ground.store, &id);
    let mut writer = ground
        .store
        .begin_merge(&id, &fingerprint, &schema)
        .unwrap();
    let empty = image.keys().map(|table| (*table, Vec::new())).collect();
    check_read_back(writer.as_mut(), &empty).unwrap();
}

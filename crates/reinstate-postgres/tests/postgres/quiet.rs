//! Triggers that write something else into rows that are put back are kept still; what the server
//! does not check then is checked all the same.

use reinstate_core::ErrorKind;

use crate::ground::Ground;

const SCHEMA: &str = "\
CREATE TABLE kinds (id int PRIMARY KEY, account_id int NOT NULL);
CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, kind_id int REFERENCES kinds,
                     title text, changed timestamptz NOT NULL DEFAULT '2022-04-05',
                     boss_id int REFERENCES issues);
INSERT INTO kinds SELECT n, n % 3 FROM generate_series(1, 12) n;
INSERT INTO issues SELECT n, n % 3, n % 12 + 1, 'i' || n FROM generate_series(1, 60) n;
UPDATE issues SET boss_id = id - 3 WHERE id > 3;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN NEW.changed := now(); RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON issues FOR EACH ROW EXECUTE FUNCTION touch();
";

const OTHERS: &str = "SELECT t.xmin, t.* FROM issues t WHERE account_id <> 1 ORDER BY id";

fn ground() -> Ground {
    Ground::with_map(SCHEMA, |map| {
        map.silenced_triggers.push("issues.touch".to_owned());
    })
}

#[test]
fn rows_are_put_back_byte_by_byte_under_a_trigger_that_touches_them() {
    let ground = ground();
    let (image, others) = (ground.image("1"), ground.psql(OTHERS));
    ground.psql(
        "UPDATE issues SET title = 'x', kind_id = NULL, boss_id = NULL WHERE account_id = 1;
         DELETE FROM kinds WHERE account_id = 1 AND id IN (SELECT id FROM kinds EXCEPT
             SELECT kind_id FROM issues WHERE account_id <> 1)",
    );
    ground.restore("1", &image).unwrap();
    assert_eq!(ground.image("1"), image);
    assert_eq!(ground.psql(OTHERS), others);
    // Everybody else's triggers fire as before.
    ground.psql("UPDATE issues SET title = 'y' WHERE id = 2");
    assert_eq!(
        ground.psql("SELECT changed > '2023-01-01' FROM issues WHERE id = 2"),
        "t"
    );
}

#[test]
fn a_key_that_leads_nowhere_is_found_although_the_server_does_not_look() {
    let ground = ground();
    let image = ground.image("1");
    // A kind that issues of the tenant refer to, and that is another tenant's, is gone.
    let kind = ground.psql(
        "SELECT min(k.id) FROM kinds k JOIN issues i ON i.kind_id = k.id
          WHERE i.account_id = 1 AND k.account_id <> 1",
    );
    ground.psql(&format!(
        "UPDATE issues SET kind_id = NULL WHERE kind_id = {kind}; DELETE FROM kinds WHERE id = {kind}"
    ));
    let before = ground.image("1");
    let error = ground.restore("1", &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let message = error.to_string();
    assert!(
        message.contains("check foreign key issues_kind_id_fkey"),
        "{message}"
    );
    assert_eq!(ground.image("1"), before);
}

#[test]
fn what_would_not_be_checked_or_would_only_fire_then_is_refused() {
    for change in [
        "ALTER TABLE issues ADD CONSTRAINT once UNIQUE (title) DEFERRABLE",
        "CREATE TRIGGER elsewhere AFTER UPDATE ON issues FOR EACH ROW EXECUTE FUNCTION touch();
         ALTER TABLE issues ENABLE REPLICA TRIGGER elsewhere",
    ] {
        let ground = ground();
        let image = ground.image("1");
        ground.psql(change);
        ground.psql("UPDATE issues SET title = 'x' WHERE id = 4");
        let error = ground.restore("1", &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{change}");
        assert!(error.to_string().contains("silenced_triggers"), "{error}");
        assert_eq!(ground.psql("SELECT title FROM issues WHERE id = 4"), "x");
    }
}

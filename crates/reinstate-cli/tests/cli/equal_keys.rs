//! Keys that are equal to the server and written otherwise: numbers with more digits, minus zero, texts
//! without regard to case.

use crate::ground::Ground;

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

/// Rows with keys of a type, and others that refer to them by a key with these properties.
fn schema(key_type: &str, values: [&str; 3], properties: &str) -> String {
    let [first, second, third] = values;
    format!(
        "CREATE EXTENSION IF NOT EXISTS citext;
         CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE parts (id {key_type} PRIMARY KEY, account_id int NOT NULL, name text UNIQUE);
         CREATE TABLE uses (id int PRIMARY KEY, account_id int NOT NULL,
                            part {key_type} REFERENCES parts {properties});
         INSERT INTO parts VALUES ({first}, 1, 'first'), ({second}, 2, 'second'), ({third}, 1, 'third');
         INSERT INTO uses VALUES (1, 1, {first}), (2, 2, {second}), (3, 1, NULL);"
    )
}

fn all(ground: &Ground) -> [String; 2] {
    ["parts", "uses"].map(|table| {
        let sql = format!("SELECT t.ctid IS NULL, t.* FROM {table} t ORDER BY account_id, 2");
        ground.psql(&sql)
    })
}

/// Values of each type as they were, and as an incident wrote the first one.
const TYPES: [(&str, [&str; 3], &str); 5] = [
    ("numeric", ["1.0", "2", "3.50"], "1.00"),
    ("float8", ["'0'", "2", "'NaN'"], "'-0'"),
    ("interval", ["'1 day'", "'2 days'", "'3 h'"], "'24:00'"),
    ("citext", ["'Ab'", "'b'", "'c'"], "'aB'"),
    ("text COLLATE loose", ["'Ab'", "'b'", "'c'"], "'aB'"),
];

#[test]
fn a_row_whose_key_was_written_otherwise_comes_back_under_rows_that_refer_to_it() {
    for (key_type, values, otherwise) in TYPES {
        let others: &[&str] = match key_type {
            "numeric" => &["", "ON DELETE CASCADE", "DEFERRABLE"],
            _ => &[""],
        };
        for properties in others {
            let ground = Ground::captured(&schema(key_type, values, properties), TENANCY);
            let before = all(&ground);
            let [first, _, third] = values;
            ground.psql(&format!(
                "UPDATE parts SET id = {otherwise}, name = 'third!' WHERE id = {first};
                 UPDATE parts SET name = 'first!' WHERE id = {third}"
            ));
            let after = all(&ground);
            assert_ne!(before, after);

            // What is newer stays: the place of the row is taken, and the plan says so.
            let kept = ground.restore(&["--delete", "off"]);
            kept.refused(5, &["conflict"]);
            assert!(kept.stdout.contains("parts_pkey"), "{kept:?}");

            let what = ["restore", "account:1", "--at", "latest", "--nearest-before"];
            let run = ground
                .sandbox
                .json(&[&what[..], &["--confirm", "account:1"]].concat());
            assert_eq!(run.code, 0, "{key_type} {properties}: {run:?}");
            assert_eq!(all(&ground), before, "{key_type} {properties}");
            let job = run.record("plan")["job"].as_str().unwrap().to_owned();
            let undo = ["undo", &job, "--confirm", "account:1"];
            ground.sandbox.run(&undo).done(&["undone"]);
            assert_eq!(all(&ground), after, "{key_type} {properties}");
        }
    }
}

/// A neighbour has an equal key by now: it is a conflict, named by the plan, and nothing is written.
#[test]
fn an_equal_key_that_a_neighbour_has_by_now_is_a_conflict() {
    for (key_type, values, otherwise) in TYPES {
        let ground = Ground::captured(&schema(key_type, values, ""), TENANCY);
        ground.psql(&format!(
            "DELETE FROM uses WHERE id = 1; DELETE FROM parts WHERE name = 'first';
             INSERT INTO parts VALUES ({otherwise}, 2, 'taken')"
        ));
        let after = all(&ground);
        let run = ground.restore(&[]);
        run.refused(5, &["conflict"]);
        assert!(run.stdout.contains("parts_pkey"), "{run:?}");
        assert_eq!(all(&ground), after);
    }
}

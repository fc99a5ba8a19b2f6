//! Whose unique values rows to be written would take, by every kind of unique index.

use reinstate_core::{LiveStore, RowBatch, RowBuilder, RowRef, RowRole};

use crate::ground::{Ground, tenant};

/// A unique index, what another tenant's rows 1 and 2 hold in two columns, and what the rows to be written would.
type Case = (
    &'static str,
    &'static str,
    &'static [(Option<&'static str>, Option<&'static str>)],
    &'static [bool],
);

const CASES: [Case; 9] = [
    (
        "UNIQUE (a)",
        "('X', 1), (NULL, 2)",
        &[(Some("X"), None), (Some("x"), None), (None, Some("2"))],
        &[true, false, false],
    ),
    (
        "UNIQUE (a) DEFERRABLE INITIALLY DEFERRED",
        "('X', 1), ('Y', 2)",
        &[(Some("Y"), None), (Some("Z"), None)],
        &[true, false],
    ),
    (
        "UNIQUE NULLS NOT DISTINCT (a)",
        "('X', 1), (NULL, 2)",
        &[(Some("X"), None), (None, Some("7")), (Some("x"), None)],
        &[true, true, false],
    ),
    (
        "UNIQUE (a, b)",
        "('X', 1), ('X', NULL)",
        &[
            (Some("X"), Some("1")),
            (Some("X"), None),
            (Some("X"), Some("2")),
        ],
        &[true, false, false],
    ),
    (
        "UNIQUE (b, a) INCLUDE (id)",
        "('X', 1), ('Y', 1)",
        &[(Some("Y"), Some("1")), (Some("Y"), Some("2"))],
        &[true, false],
    ),
    (
        "EXCLUDE USING btree (a WITH =, b WITH =)",
        "('X', 1), ('X', 2)",
        &[(Some("X"), Some("2")), (Some("X"), Some("3"))],
        &[true, false],
    ),
    (
        "CREATE UNIQUE INDEX ON notes (a) WHERE b > 1",
        "('X', 1), ('Y', 2)",
        &[
            (Some("X"), Some("5")),
            (Some("Y"), Some("5")),
            (Some("Y"), Some("1")),
        ],
        &[false, true, false],
    ),
    (
        "CREATE UNIQUE INDEX ON notes (lower(a))",
        "('X', 1), (NULL, 2)",
        &[(Some("x"), None), (Some("X"), None), (None, None)],
        &[true, true, false],
    ),
    (
        "CREATE UNIQUE INDEX ON notes (a COLLATE \"C\" text_pattern_ops, b)",
        "('X', 1), ('Y', 2)",
        &[(Some("Y"), Some("2")), (Some("Y"), Some("1"))],
        &[true, false],
    ),
];

#[test]
fn a_value_of_somebody_else_is_found_by_any_unique_index() {
    for (index, theirs, wanted, is_held) in CASES {
        let ground = Ground::new(
            "CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, a text, b int)",
        );
        let index = match index.starts_with("CREATE") {
            true => index.to_owned(),
            false => format!("ALTER TABLE notes ADD {index}"),
        };
        ground.psql(&index);
        ground.psql(&format!(
            "INSERT INTO notes SELECT row_number() OVER (), 2, a, b FROM (VALUES {theirs}) v (a, b)"
        ));
        // Rows of the tenant itself are in nobody's way here.
        ground.psql("INSERT INTO notes VALUES (9, 1, 'own', 9)");
        let view = ground.store.read_view().unwrap();
        let (notes, schema) = view.schema().find("notes").unwrap();
        let (mut rows, mut builder) = (RowBatch::new(), RowBuilder::new());
        let mut push = |id: usize, a: Option<&str>, b: Option<&str>| {
            let id = id.to_string();
            let texts = [Some(id.as_str()), Some("1"), a, b];
            let values = texts.map(|text| text.map(str::as_bytes));
            schema.encode_row(&values, &mut builder).unwrap();
            rows.push_row(builder.row());
        };
        for (place, (a, b)) in wanted.iter().enumerate() {
            push(20 + place, *a, *b);
        }
        push(30, Some("own"), Some("9"));
        // The key itself.
        push(2, Some("free"), Some("99"));
        let keys: Vec<&[u8]> = rows.iter().map(RowRef::key).collect();
        let held = view
            .held_by_strangers(
                &tenant("1"),
                notes,
                RowRole::Created,
                &rows,
                &RowBatch::new(),
            )
            .unwrap();
        let found: Vec<bool> = keys
            .iter()
            .map(|key| held.iter().any(|held| held.key == *key))
            .collect();
        let expected: Vec<bool> = is_held.iter().copied().chain([false, true]).collect();
        assert_eq!(found, expected, "{index}");
    }
}

//! What a file has to be, who may open it, and what rows it takes.

use std::path::Path;
use std::process::Command;

use redb::{ReadableDatabase, TableDefinition};
use reinstate_core::{
    ColumnIndex, ErrorKind, LiveStore, Owner, RowBuilder, StoreError, StoreSchema, Tenancy,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};

use crate::support::{
    ISSUES, LABELS, State, Way, capture, create, identity, kind, owner, read, row, schema,
};

fn open(path: &Path) -> Result<EmbeddedStore, StoreError> {
    EmbeddedStore::open(path, &EmbeddedOptions::default())
}

#[test]
fn whoever_opens_a_file_learns_what_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    drop(create(&path, Way::InPlace));
    let store = open(&path).unwrap();
    assert_eq!(store.identity(), identity());
    assert_eq!(store.tenant_kind(), &kind());
    assert_eq!(store.schema(), &schema());
}

#[test]
fn a_file_that_is_not_a_store_is_refused_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = directory.path().join("foreign.redb");
    let database = redb::Database::create(&foreign).unwrap();
    let table: TableDefinition<'_, u64, u64> = TableDefinition::new("somebody's");
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let text = directory.path().join("text");
    std::fs::write(
        &text,
        "not a database at all, but long enough to be one".repeat(9),
    )
    .unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let short = directory.path().join("short");
    std::fs::write(&short, "redb").unwrap();
    for path in [&text, &empty, &short] {
        let before = std::fs::read(path).unwrap();
        assert_eq!(open(path).unwrap_err().kind(), ErrorKind::Usage, "{path:?}");
        assert_eq!(std::fs::read(path).unwrap(), before);
    }
    assert_eq!(open(&foreign).unwrap_err().kind(), ErrorKind::Usage);
    let database = redb::Database::open(&foreign).unwrap();
    let transaction = database.begin_read().unwrap();
    let value = transaction.open_table(table).unwrap().get(1).unwrap();
    assert_eq!(value.map(|value| value.value()), Some(2));
    let kind = |path: &Path| open(path).unwrap_err().kind();
    assert_eq!(kind(directory.path()), ErrorKind::Usage);
    assert_eq!(kind(&directory.path().join("missing")), ErrorKind::NotFound);
    let create = |path: &Path| {
        let options = EmbeddedOptions::default();
        EmbeddedStore::create(path, &options, identity(), crate::support::kind(), schema())
    };
    assert_eq!(create(&text).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn a_table_that_names_its_owner_itself_is_refused_and_no_file_is_made() {
    let mut tables = schema().tables().to_vec();
    tables[0].tenancy = Tenancy::Direct {
        column: ColumnIndex(1),
    };
    let tables = StoreSchema::try_new(tables).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = EmbeddedOptions::default();
    let refused = EmbeddedStore::create(&path, &options, identity(), kind(), tables);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Usage);
    assert!(!path.exists());
}

#[test]
fn a_file_of_another_version_is_refused() {
    for (layout, says) in [(5, "newer version"), (1, "before the first release")] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        drop(create(&path, Way::InPlace));
        let database = redb::Database::open(&path).unwrap();
        let facts: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("reinstate/facts");
        let transaction = database.begin_write().unwrap();
        let insert = |name: &str, value: &[u8]| {
            let mut facts = transaction.open_table(facts).unwrap();
            facts.insert(name, value).unwrap();
        };
        insert("layout", &[layout]);
        transaction.commit().unwrap();
        drop(database);
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(says), "{error}");
    }
}

const CHILD: &str = "REINSTATE_TEST_SECOND_PROCESS";

#[test]
fn another_process_cannot_open_a_store_that_is_open() {
    if let Some(path) = std::env::var_os(CHILD) {
        assert_eq!(
            open(Path::new(&path)).unwrap_err().kind(),
            ErrorKind::Locked
        );
        println!("it is locked");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = create(&path, Way::InPlace);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("files::another_process_cannot_open_a_store_that_is_open")
        .env(CHILD, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("it is locked"), "{output:?}");
    assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::Locked);
    drop(store);
    open(&path).unwrap();
}

#[test]
fn a_row_that_does_not_fit_its_table_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&directory.path().join("store"), Way::InPlace);
    let mut short = RowBuilder::new();
    short.start(row(ISSUES, 1, None).row().key());
    short.push(Some(b"1"));
    let mut without_key = RowBuilder::new();
    without_key.start(&[]);
    without_key.push(Some(b"1"));
    without_key.push(None);
    let fits = row(ISSUES, 1, None);
    for (owner, table, row) in [
        (owner(b"a"), ISSUES, &short),
        (owner(b"a"), ISSUES, &without_key),
        (owner(b"a"), LABELS, &fits),
        (owner(b"a"), reinstate_core::TableIndex(9), &fits),
    ] {
        let refused = store.write(|transaction| transaction.table(table)?.put(&owner, row.row()));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Usage);
    }
    assert!(capture(&store).is_empty());
}

#[test]
fn a_transaction_that_fails_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = create(&directory.path().join("store"), Way::InPlace);
    let position = store.read_view().unwrap().position();
    let result = store.write(|transaction| {
        transaction
            .table(ISSUES)?
            .put(&owner(b"a"), row(ISSUES, 1, None).row())?;
        transaction
            .table(LABELS)?
            .put(&Owner::Shared, row(LABELS, 1, None).row())?;
        Err::<(), _>(StoreError::new(ErrorKind::Other, "changed my mind"))
    });
    assert_eq!(result.unwrap_err().to_string(), "changed my mind");
    assert_eq!(read(&store, &owner(b"a")), State::new());
    assert!(capture(&store).is_empty());
    assert_eq!(store.read_view().unwrap().position(), position);
}

//! Threads that write to one store of the embedded database.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use redb::backends::InMemoryBackend;
use reinstate::{FollowOptions, Follower};
use reinstate_core::{
    ColumnIndex, ColumnSchema, ErrorKind, KeyForm, Owner, RowBuilder, StoreError, StoreId,
    StoreIdentity, StoreSchema, TableIndex, TableName, TableSchema, Tenancy, TenantKind, Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore, WriteTransaction};
use reinstate_testkit::figures;

use super::{Dice, Followed, NOW, Row, Rows, SNAPSHOT, State, Told, seeds};

/// Stores of one run; two are files on the disk, with repositories beside them.
const STORES: u64 = 20;
const STORES_ON_DISK: u64 = 2;
/// Histories of one store, and how many go on at the same time.
const HISTORIES: usize = 12;
const AT_ONCE: usize = 2;
/// Writers of one history, and transactions of each.
const WRITERS: usize = 3;
const TRANSACTIONS: usize = 6;
const TENANTS: [&str; 3] = ["a", "b", "ab"];
const KEYED: TableIndex = TableIndex(0);
const KEYLESS: TableIndex = TableIndex(1);

static NEXT_TIME: AtomicI64 = AtomicI64::new(1_000);

fn clock() -> Timestamp {
    Timestamp::from_micros(NEXT_TIME.fetch_add(1, Ordering::SeqCst))
}

fn options() -> EmbeddedOptions {
    let mut options = EmbeddedOptions::default();
    options.clock = clock;
    options
}

fn schema(further: &[&str]) -> StoreSchema {
    let column = |name: &&str| ColumnSchema {
        name: (*name).to_owned(),
        type_name: "text".to_owned(),
        nullable: true,
        key_form: KeyForm::Integer,
    };
    let table = |name: &str, key: Vec<ColumnIndex>| TableSchema {
        name: TableName::new(name),
        columns: ["id", "text"].iter().chain(further).map(column).collect(),
        key,
        tenancy: Tenancy::Native,
        references: Vec::new(),
    };
    StoreSchema::try_new(vec![
        table("notes", vec![ColumnIndex(0)]),
        table("events", Vec::new()),
    ])
    .unwrap()
}

fn identity() -> StoreIdentity {
    StoreIdentity {
        id: StoreId::from_bytes([1; 16]),
        name: "followed".to_owned(),
    }
}

fn kind() -> TenantKind {
    TenantKind::parse("account").unwrap()
}

fn encode(schema: &StoreSchema, table: TableIndex, row: &Row) -> RowBuilder {
    let value = |name: &str| row.get(name).map(String::as_bytes);
    let mut encoded = RowBuilder::new();
    schema
        .table(table)
        .encode_row(&[value("id"), value("text")], &mut encoded)
        .unwrap();
    encoded
}

/// What every tenant of a history has.
type World = BTreeMap<String, Rows>;

/// One change, in the store and in the world that is kept beside it.
#[derive(Clone, Debug)]
enum Step {
    Put(TableIndex, Row),
    Delete(TableIndex, Row),
    DeleteAll(TableIndex),
}

fn name(table: TableIndex) -> String {
    ["notes", "events"][table.get()].to_owned()
}

fn row(dice: &mut Dice) -> Row {
    let mut row = Row::new();
    row.insert("id".to_owned(), dice.below(6).to_string());
    if let Some(text) = dice.pick(&[Some("x"), Some(""), Some("longer"), None]) {
        row.insert("text".to_owned(), text.to_owned());
    }
    row
}

/// What one transaction does next, each step to one tenant of the history.
fn steps(dice: &mut Dice, tenants: &[String], world: &World) -> Vec<(String, Step)> {
    let tenant = |dice: &mut Dice| tenants[usize::try_from(dice.below(3)).unwrap()].clone();
    let table = dice.pick(&[KEYED, KEYLESS]);
    let (one, other) = (tenant(dice), tenant(dice));
    let there = world.get(&one).and_then(|rows| rows.get(&name(table)));
    let some = there.and_then(|rows| rows.first().cloned());
    match (dice.below(14), some) {
        // A row gets another key, or goes to another tenant.
        (0, Some(was)) => {
            let mut is = was.clone();
            is.insert("id".to_owned(), (6 + dice.below(4)).to_string());
            vec![
                (one.clone(), Step::Delete(table, was)),
                (one, Step::Put(table, is)),
            ]
        }
        (1 | 2, Some(was)) => vec![
            (one, Step::Delete(table, was.clone())),
            (other, Step::Put(table, was)),
        ],
        (3, _) => vec![(one, Step::DeleteAll(table))],
        (4, _) if dice.below(3) == 0 => {
            let truncate = |tenant: &String| (tenant.clone(), Step::DeleteAll(table));
            tenants.iter().map(truncate).collect()
        }
        (4..=6, _) => vec![(one, Step::Delete(table, row(dice)))],
        _ => vec![(one, Step::Put(table, row(dice)))],
    }
}

/// Applies a step to what one tenant has.
fn apply(rows: &mut Rows, step: &Step) {
    match step {
        Step::Put(table, row) => {
            let all = rows.entry(name(*table)).or_default();
            if *table == KEYED {
                all.retain(|other| other["id"] != row["id"]);
            }
            all.push(row.clone());
        }
        Step::Delete(table, row) => {
            let all = rows.entry(name(*table)).or_default();
            let is_it = |other: &Row| match *table {
                KEYED => other["id"] == row["id"],
                _ => other == row,
            };
            if let Some(place) = all.iter().position(is_it) {
                all.remove(place);
            }
        }
        Step::DeleteAll(table) => {
            rows.remove(&name(*table));
        }
    }
}

fn take(
    transaction: &WriteTransaction<'_>,
    schema: &StoreSchema,
    (tenant, step): &(String, Step),
) -> Result<(), StoreError> {
    let owner = Owner::Tenant(tenant.parse().unwrap());
    match step {
        Step::Put(table, row) => {
            let row = encode(schema, *table, row);
            transaction.table(*table)?.put(&owner, row.row())
        }
        Step::Delete(table, row) => {
            let row = encode(schema, *table, row);
            let mut table = transaction.table(*table)?;
            table.delete(&owner, row.row()).map(drop)
        }
        Step::DeleteAll(table) => transaction.table(*table)?.delete_all(&owner).map(drop),
    }
}

/// The worlds of all histories as they are, and what each transaction left of which.
#[derive(Debug, Default)]
struct Written {
    worlds: Vec<World>,
    commits: Vec<(usize, World)>,
}

/// The tenants of a history: nobody else's, with ids of which some begin like others.
fn tenants(history: usize) -> Vec<String> {
    let tenant = |name: &&str| format!("{history}{name}");
    TENANTS.iter().map(tenant).collect()
}

fn write(store: &EmbeddedStore, written: &Mutex<Written>, history: usize, dice: &mut Dice) {
    let schema = store.schema();
    let is_given_up = dice.below(6) == 0;
    let result = store.write(|transaction| {
        // The store has one writer: nobody else is here.
        let mut world = written.lock().unwrap().worlds[history].clone();
        for _ in 0..=dice.below(4) {
            for (tenant, step) in steps(dice, &tenants(history), &world) {
                apply(world.entry(tenant.clone()).or_default(), &step);
                take(transaction, schema, &(tenant, step))?;
            }
        }
        if is_given_up {
            return Err(StoreError::new(ErrorKind::Cancelled, "given up"));
        }
        let mut written = written.lock().unwrap();
        written.worlds[history] = world.clone();
        written.commits.push((history, world));
        Ok(())
    });
    assert_eq!(result.is_err(), is_given_up, "{result:?}");
}

/// Writes all histories, some at the same time, and follows meanwhile.
fn write_all(store: &EmbeddedStore, written: &Mutex<Written>, followed: &Followed, seed: u64) {
    let at_work = AtomicUsize::new(AT_ONCE * WRITERS);
    let begin: Vec<Barrier> = (0..AT_ONCE).map(|_| Barrier::new(WRITERS)).collect();
    thread::scope(|scope| {
        for writer in 0..AT_ONCE * WRITERS {
            let (at_work, lane) = (&at_work, writer % AT_ONCE);
            let begin = &begin[lane];
            scope.spawn(move || {
                for history in (lane..HISTORIES).step_by(AT_ONCE) {
                    let mut dice = Dice(seed * 1_000 + (history * 10 + writer) as u64);
                    begin.wait();
                    (0..TRANSACTIONS).for_each(|_| write(store, written, history, &mut dice));
                }
                at_work.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for bytes in [1, 200, 1 << 20].into_iter().cycle() {
            followed.follow(store, bytes);
            if at_work.load(Ordering::SeqCst) == 0 {
                break;
            }
        }
    });
    followed.follow(store, 1 << 20);
}

/// Returns how many transactions there were, and how many images were compared.
fn check_store(seed: u64, on_disk: bool) -> (u64, u64) {
    let directory = tempfile::tempdir().unwrap();
    let store = if on_disk {
        let path = directory.path().join("app.redb");
        EmbeddedStore::create(path, &options(), identity(), kind(), schema(&[])).unwrap()
    } else {
        let file = InMemoryBackend::new();
        EmbeddedStore::create_on(file, identity(), kind(), schema(&[])).unwrap()
    };
    let written = Mutex::new(Written {
        worlds: vec![World::new(); HISTORIES],
        commits: Vec::new(),
    });
    let mut dice = Dice(seed);
    for history in (0..2 * HISTORIES).map(|number| number % HISTORIES) {
        write(&store, &written, history, &mut dice);
    }
    let followed = if on_disk {
        Followed::begin(&store)
    } else {
        Followed::begin_in_memory(&store)
    };
    let log = followed.log();
    written.lock().unwrap().commits.clear();
    let columns = store.schema().iter().map(|(_, table)| {
        let columns = table.columns.iter().map(|column| column.name.clone());
        (table.name.to_string(), columns.collect())
    });
    let columns: BTreeMap<String, Vec<String>> = columns.collect();
    let state = |world: &World| State {
        columns: columns.clone(),
        tenants: world.clone(),
    };
    let bases = written.lock().unwrap().worlds.clone();
    let told = bases.iter().enumerate().map(|(history, base)| Told {
        tenants: tenants(history),
        states: vec![(log.snapshot().position, state(base))],
    });
    let mut told: Vec<Told> = told.collect();
    write_all(&store, &written, &followed, seed);
    let written = written.into_inner().unwrap();
    let commits = followed.commits(true);
    assert_eq!(commits.len(), written.commits.len());
    for (position, (history, world)) in commits.iter().zip(&written.commits) {
        told[*history].states.push((*position, state(world)));
    }
    let log = followed.log();
    let compared = told.iter().map(|told| {
        assert!(told.states.len() > WRITERS, "{} states", told.states.len());
        followed.check(&log, told)
    });
    (written.commits.len() as u64, compared.sum())
}

#[test]
fn every_tenant_at_every_commit_of_an_embedded_store_is_what_its_writers_wrote() {
    let (mut transactions, mut images) = (0, 0);
    let seeds = seeds(STORES);
    for seed in seeds.clone() {
        println!("seed {seed}");
        let (more, compared) = check_store(seed, seed - seeds.start < STORES_ON_DISK);
        transactions += more;
        images += compared;
    }
    let stores = seeds.end - seeds.start;
    figures::record(
        "histories-embedded",
        &[
            ("histories", stores * HISTORIES as u64),
            ("writers each", WRITERS as u64),
            ("transactions", transactions),
            ("images compared", images),
        ],
    );
}

/// The tables of such a store are made with its file and stay: other tables are another file, and the log of
/// the first ends where that was left.
#[test]
fn tables_of_an_embedded_store_do_not_change_and_a_file_with_others_is_not_followed_by_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.redb");
    let create = |path: &std::path::Path, further: &[&str]| {
        EmbeddedStore::create(path, &options(), identity(), kind(), schema(further))
    };
    let store = create(&path, &[]).unwrap();
    let followed = Followed::begin(&store);
    let written = Mutex::new(Written {
        worlds: vec![World::new(); HISTORIES],
        commits: Vec::new(),
    });
    while written.lock().unwrap().commits.is_empty() {
        write(&store, &written, 0, &mut Dice(1));
    }
    followed.follow(&store, 1);
    drop(store);
    let error = create(&path, &["more"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);

    let other = create(&directory.path().join("other.redb"), &["more"]).unwrap();
    let follow = |store| {
        let (context, repository) = (followed.context(), followed.repository.as_ref());
        let options = FollowOptions::default();
        Follower::start(context, store, repository, SNAPSHOT, options).map(drop)
    };
    assert_eq!(follow(&other).unwrap_err().kind(), ErrorKind::NotFound);
    // Not even where it keeps what was committed to it for a log of that name, and has as many commits.
    for _ in 0..followed.log().through().commit {
        let owner = Owner::Tenant("a".parse().unwrap());
        let put = |transaction: &WriteTransaction<'_>| {
            let row = [Some(b"1".as_slice()), None, None];
            transaction.table(KEYED)?.put_values(&owner, &row)
        };
        other.write(put).unwrap();
    }
    reinstate_core::FeedSource::begin_feed(&other, SNAPSHOT).unwrap();
    let error = follow(&other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale, "{error:?}");
    drop(other);

    let store = EmbeddedStore::open(&path, &options()).unwrap();
    write(&store, &written, 0, &mut Dice(2));
    followed.follow(&store, 1);
    let log = followed.log();
    assert_eq!(log.versions().len(), 0);
    assert_eq!(log.schema_at(log.through()), store.schema());
    assert!(NOW < clock());
}

//! Migrations beside writers: tables come, are filled, altered, renamed and dropped, each statement in a
//! transaction of its own, while others write, and whoever follows is stopped and begins anew at any time.
//!
//! Between two rounds nobody writes: what the database has then is what every tenant's image must have. A
//! table that is new may still be empty there, until it arrived; one that goes later may have gone; columns
//! are compared where both sides have them. Where the follower was let finish, nothing of this is allowed.

mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;

use reinstate::{FollowOptions, Follower, Log};
use reinstate_core::{ErrorKind, FeedSource, Position, Repository, Tenant, TenantKind};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};
use reinstate_testkit::cluster::{TestDatabase, shared_cluster};
use reinstate_testkit::faults::{FaultyRepository, RepositoryFault};
use reinstate_testkit::{MemoryRepository, figures};

use super::postgres::Psql;
use super::{Dice, Followed, NOW, REPOSITORY, Row, Rows, SNAPSHOT, compared_rows, seeds};
use sessions::{Migrator, TENANTS, base, writes};

/// Databases of one run.
const DATABASES: u64 = 3;
const ROUNDS: u64 = 7;
const MIGRATORS: u64 = 2;
const WRITERS: u64 = 2;

const TABLES: &str = "\
CREATE TABLE old_0 (id int PRIMARY KEY, account_id int, note text);
CREATE TABLE old_1 (id int PRIMARY KEY, account_id int, note text);
ALTER TABLE old_1 REPLICA IDENTITY FULL;
INSERT INTO old_0 SELECT n, n % 4 + 1, 'old' FROM generate_series(1, 40) n;
INSERT INTO old_1 SELECT n, n % 4 + 1, 'old' FROM generate_series(1, 40) n;
";

fn open(url: &str) -> PostgresStore {
    let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
    map.column = Some("account_id".to_owned());
    let mut settings = ConnectionSettings::new(SecretUrl::new(url), "ground");
    settings.unguarded = true;
    let store = PostgresStore::connect(settings, map).unwrap();
    reinstate_core::LiveStore::prepare(&store).unwrap();
    store
}

/// What the database has while nobody writes.
#[derive(Debug)]
struct Moment {
    position: Position,
    /// Whether the log has everything of it, by all means.
    is_followed: bool,
    /// The columns of each table.
    columns: BTreeMap<String, Vec<String>>,
    tenants: BTreeMap<String, Rows>,
}

impl Moment {
    fn read(database: &TestDatabase<'_>, is_followed: bool) -> Self {
        let tables = database
            .psql(
                "SELECT relname, string_agg(attname, ',' ORDER BY attnum) FROM pg_class c
                   JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                  WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace
                  GROUP BY relname",
            )
            .unwrap();
        let tables = tables.lines().map(|line| line.split_once('|').unwrap());
        let columns: BTreeMap<String, Vec<String>> = tables
            .map(|(name, columns)| {
                let columns = columns.split(',').map(str::to_owned).collect();
                (name.to_owned(), columns)
            })
            .collect();
        let rows = columns.keys().map(|name| {
            format!(
                "SELECT concat_ws(' ', '{name}', t.account_id, (SELECT json_object_agg(key, value)
                   FROM jsonb_each_text(to_jsonb(t)))) FROM {name} t"
            )
        });
        let all: Vec<String> = rows.collect();
        let mut tenants: BTreeMap<String, Rows> = BTreeMap::new();
        for line in database.psql(&all.join(" UNION ALL ")).unwrap().lines() {
            let parts: Vec<&str> = line.splitn(3, ' ').collect();
            let row: BTreeMap<String, Option<String>> = serde_json::from_str(parts[2]).unwrap();
            let row: Row = row
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let rows = tenants.entry(parts[1].to_owned()).or_default();
            rows.entry(parts[0].to_owned()).or_default().push(row);
        }
        let position = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
        Self {
            position: Position {
                commit: database.psql(position).unwrap().parse().unwrap(),
                ordinal: 0,
            },
            is_followed,
            columns,
            tenants,
        }
    }

    fn bases(&self) -> BTreeSet<&str> {
        self.columns.keys().map(|name| base(name)).collect()
    }
}

/// Follows for so many steps, perhaps until the repository fails in the middle of one.
fn follow(
    followed: &Followed,
    repository: &dyn Repository,
    store: &PostgresStore,
    (run_bytes, steps): (u64, u64),
) -> Result<(), reinstate::Error> {
    let mut options = FollowOptions::default();
    options.run_bytes_target = run_bytes;
    let context = followed.context();
    let mut follower = Follower::start(context, store, repository, SNAPSHOT, options)?;
    for _ in 0..steps {
        if !follower.step(NOW)?.has_more {
            return Ok(());
        }
    }
    Ok(())
}

/// What was tried with one database.
#[derive(Debug, Default)]
struct Counted {
    moments: u64,
    tables: u64,
    versions: u64,
    stops: u64,
    images: u64,
}

fn check_database(seed: u64) -> Counted {
    let database = shared_cluster().unwrap().fresh_database().unwrap();
    database.psql(TABLES).unwrap();
    let store = open(&database.url());
    let inner: Arc<dyn Repository> = Arc::new(MemoryRepository::new(REPOSITORY));
    let whole = FaultyRepository::new(Arc::clone(&inner), RepositoryFault::None);
    let followed = Followed::begin_in(&store, Box::new(whole), None);
    followed.follow(&store, 1 << 20);
    let mut dice = Dice(seed);
    let mut migrators: Vec<Migrator> = (0..MIGRATORS).map(|s| Migrator::new(seed, s)).collect();
    let mut sessions: Vec<Psql> = (0..MIGRATORS + WRITERS)
        .map(|_| Psql::connect(&database))
        .collect();
    let mut moments = vec![Moment::read(&database, true)];
    let mut counted = Counted::default();
    for round in 0..ROUNDS {
        let migrations = migrators.iter_mut().map(Migrator::script);
        let mut scripts: Vec<String> = migrations.collect();
        scripts.extend((0..WRITERS).map(|session| writes(&mut dice, round, session)));
        thread::scope(|scope| {
            let at_work = sessions.iter_mut().zip(&scripts).map(|(session, script)| {
                scope.spawn(move || {
                    session.send(script);
                    session.wait();
                })
            });
            let at_work: Vec<_> = at_work.collect();
            while at_work.iter().any(|session| !session.is_finished()) {
                let kind = ErrorKind::Full;
                let fault = match dice.below(3) {
                    0 => RepositoryFault::FailFrom {
                        operation: dice.below(400),
                        kind,
                    },
                    _ => RepositoryFault::None,
                };
                let repository = FaultyRepository::new(Arc::clone(&inner), fault);
                let how = (
                    dice.pick(&[1, 1 << 13, 1 << 16, 1 << 20]),
                    1 + dice.below(3),
                );
                match follow(&followed, &repository, &store, how) {
                    Ok(()) => {}
                    Err(error) if [kind, ErrorKind::Contended].contains(&error.kind()) => {
                        counted.stops += 1;
                    }
                    Err(error) => panic!("seed {seed}, round {round}: {error:?}"),
                }
            }
        });
        let is_followed = round % 3 == 2 || round + 1 == ROUNDS;
        if is_followed {
            followed.follow(&store, 1 << 20);
        }
        moments.push(Moment::read(&database, is_followed));
        if is_followed {
            // Other tables would stand behind the last transaction, and so before this moment. The row may have gone.
            database
                .psql(
                    "INSERT INTO old_0 VALUES (1, 1, 'between')
                         ON CONFLICT (id) DO UPDATE SET note = 'between'",
                )
                .unwrap();
            followed.follow(&store, 1 << 20);
        }
    }
    store.end_feed(SNAPSHOT).unwrap();
    let log = followed.log();
    counted.images = compare(&followed, &log, &moments, seed);
    let names: BTreeSet<&str> = moments.iter().flat_map(Moment::bases).collect();
    counted.tables = names.len() as u64;
    counted.versions = log.versions().len() as u64;
    counted.moments = moments.len() as u64;
    counted
}

fn compare(followed: &Followed, log: &Log, moments: &[Moment], seed: u64) -> u64 {
    let ids: Vec<String> = TENANTS.map(|id| id.to_string()).collect();
    let tenants: Vec<Tenant> = ids
        .iter()
        .map(|id| format!("account:{id}").parse().unwrap())
        .collect();
    let mut arrived: BTreeSet<&str> = BTreeSet::new();
    let mut compared = 0;
    for (number, moment) in moments.iter().enumerate() {
        let schema = log.schema_at(moment.position);
        let images = followed.images(log, moment.position, &tenants, true);
        compared += images.len() as u64;
        let later: Vec<BTreeSet<&str>> = moments[number + 1..].iter().map(Moment::bases).collect();
        for (name, columns) in &moment.columns {
            let place = format!("seed {seed}: {name} after round {number}");
            let known = schema
                .iter()
                .find(|(_, table)| base(table.name.as_str()) == base(name));
            let goes = later.iter().any(|later| !later.contains(base(name)));
            let Some((_, known)) = known else {
                let is_gone = !moment.is_followed && (goes || !arrived.contains(base(name)));
                assert!(is_gone, "{place}: is not in the log");
                continue;
            };
            if moment.is_followed {
                let known: Vec<&String> = known.columns.iter().map(|column| &column.name).collect();
                assert_eq!(known, columns.iter().collect::<Vec<_>>(), "{place}");
                assert_eq!(known_name(schema, name), Some(name.as_str()), "{place}");
            }
            let names = known.columns.iter().map(|column| column.name.as_str());
            let both: Vec<&str> = names
                .filter(|name| columns.iter().any(|c| c == name))
                .collect();
            let found_name = known.name.to_string();
            let of_tenants = |rows: Vec<Rows>, name: &String| -> Vec<_> {
                let one = |rows: &Rows| {
                    let rows = rows.get(name).cloned().unwrap_or_default();
                    let rows = Rows::from([("rows".to_owned(), rows)]);
                    let compared = compared_rows(&rows, |_| Some(both.clone()));
                    format!("{:?}", compared.values().collect::<Vec<_>>())
                };
                rows.iter().map(one).collect()
            };
            let expected = ids
                .iter()
                .map(|id| moment.tenants.get(id).cloned().unwrap_or_default());
            let expected = of_tenants(expected.collect(), name);
            let found = of_tenants(images.clone(), &found_name);
            if found == expected {
                if found.iter().any(|rows| rows != "[]") {
                    arrived.insert(base(name));
                }
                continue;
            }
            let is_to_come = found.iter().all(|rows| rows == "[]") && !arrived.contains(base(name));
            assert!(
                is_to_come && !moment.is_followed,
                "{place}: {found:?} is not {expected:?}"
            );
        }
        for (name, rows) in images.iter().flatten().filter(|(_, rows)| !rows.is_empty()) {
            let is_there = moment.bases().contains(base(name));
            // It went, in this round or before, and the log notes that where it is looked at.
            assert!(
                is_there || !moment.is_followed,
                "seed {seed}: {name} after round {number} has {rows:?}"
            );
        }
    }
    compared
}

fn known_name<'s>(schema: &'s reinstate_core::StoreSchema, name: &str) -> Option<&'s str> {
    let mut tables = schema.iter().map(|(_, table)| table.name.as_str());
    tables.find(|known| *known == name)
}

#[test]
fn whatever_migrations_do_beside_writers_every_tenant_is_what_it_was_between_two_rounds() {
    let mut all = Counted::default();
    let seeds = seeds(DATABASES);
    for seed in seeds.clone() {
        println!("seed {seed}");
        let counted = check_database(seed);
        println!("{counted:?}");
        assert!(counted.tables > 10 && counted.versions > 3, "{counted:?}");
        all.moments += counted.moments;
        all.tables += counted.tables;
        all.versions += counted.versions;
        all.stops += counted.stops;
        all.images += counted.images;
    }
    figures::record(
        "histories-migrations",
        &[
            ("databases", seeds.end - seeds.start),
            ("tables", all.tables),
            ("versions of the tables", all.versions),
            ("times stopped", all.stops),
            ("moments", all.moments),
            ("images compared", all.images),
        ],
    );
}

//! `doctor`: one line for everything that has to be right, with its remedy where it is not.

use std::path::Path;

use reinstate::snapshots;
use reinstate_core::{
    ErrorKind, FollowCost, JobId, LiveStore, OldRows, Repository, SnapshotDescription, StoreSchema,
    Tenancy, TenantId,
};
use reinstate_postgres::GuardState;
use reinstate_repository::LocalRepository;
use serde::Serialize;

use crate::adapters;
use crate::arguments::Global;
use crate::configuration::StoreConfiguration;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::{Failure, exit_of, show};
use crate::render::{bytes, count, counted};
use crate::session::{Session, now};
use crate::signals::Interruption;

/// Less room than this is worth a word.
const FREE_BYTES_LOW: u64 = 1 << 30;
/// With less room than this nothing will work.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// How far clocks may be apart.
const CLOCK_MICROS_MAX: u64 = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct CheckRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    name: &'a str,
    status: Status,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
}

/// The checks so far.
struct Checks<'a> {
    console: &'a Console,
    done: usize,
    failed: usize,
    exit: Exit,
}

impl Checks<'_> {
    fn ok(&mut self, name: &str, message: &str) {
        self.add(name, Status::Ok, message, None);
    }

    fn warn(&mut self, name: &str, message: &str, remedy: &str) {
        self.add(name, Status::Warn, message, Some(remedy));
    }

    fn fail(&mut self, name: &str, message: &str, remedy: &str) {
        self.exit = self.exit.max(Exit::Other);
        self.add(name, Status::Fail, message, Some(remedy));
    }

    fn error(&mut self, name: &str, error: &anyhow::Error) {
        let shown = show(error);
        let mut message = shown.message;
        for cause in &shown.causes {
            message.push_str(": ");
            message.push_str(cause);
        }
        if exit_of(error) == Exit::Usage {
            self.exit = Exit::Usage;
        }
        let next = match shown.next.as_str() {
            "reinstate doctor" => "see to what is named, then run this again",
            next => next,
        };
        self.fail(name, &message, next);
    }

    fn add(&mut self, name: &str, status: Status, message: &str, remedy: Option<&str>) {
        self.done += 1;
        self.failed += usize::from(status == Status::Fail);
        let mark = match status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        self.console
            .line(format_args!("{mark}  {name:<13} {message}"));
        if let Some(remedy) = remedy {
            self.console
                .line(format_args!("                    -> {remedy}"));
        }
        self.console.record(&CheckRecord {
            record: "check",
            name,
            status,
            message,
            remedy,
        });
    }
}

/// `doctor`.
pub fn run(
    global: &Global,
    console: &Console,
    interruption: &Interruption,
) -> anyhow::Result<Exit> {
    let mut checks = Checks {
        console,
        done: 0,
        failed: 0,
        exit: Exit::Done,
    };
    match Session::open(global, console, interruption) {
        Ok(session) => {
            let path = session.configuration.path.display().to_string();
            checks.ok("configuration", &path);
            check_space(&mut checks, "spill space", session.spill_directory());
            let latest = check_repository(&mut checks, &session);
            check_store(&mut checks, &session, latest.as_ref());
        }
        Err(error) => checks.error("configuration", &error),
    }
    if checks.failed == 0 {
        return Ok(Exit::Done);
    }
    let message = format!("{} of {} checks failed", checks.failed, checks.done);
    Err(Failure::ending(checks.exit, "checks_failed", message)
        .next("follow the remedies above, then: reinstate doctor")
        .into())
}

fn check_space(checks: &mut Checks<'_>, name: &str, path: &Path) {
    match rustix::fs::statvfs(path) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let message = format!("{} free at {}", bytes(free), path.display());
            if free < FREE_BYTES_MIN {
                checks.fail(name, &message, "make room");
            } else if free < FREE_BYTES_LOW {
                checks.warn(name, &message, "make room before it runs out");
            } else {
                checks.ok(name, &message);
            }
        }
        Err(error) => checks.fail(name, &format!("{}: {error}", path.display()), "see to it"),
    }
}

/// Checks the repository; returns the latest snapshot.
fn check_repository(checks: &mut Checks<'_>, session: &Session<'_>) -> Option<SnapshotDescription> {
    let repository = match session.repository() {
        Ok(repository) => repository,
        Err(failure) => {
            checks.error("repository", &failure.into());
            return None;
        }
    };
    check_writable(checks, &repository);
    check_space(checks, "free space", repository.path());
    match snapshots(&repository) {
        Ok(found) => {
            let name = &session.configuration.store_name;
            let own = || found.iter().filter(|snapshot| snapshot.store.name == *name);
            match own().next_back() {
                Some(last) => {
                    let number = counted(own().count() as u64, "snapshot", "snapshots");
                    let message = format!("{number}, the latest of {}", last.taken_at);
                    checks.ok("snapshots", &message);
                    Some(last.clone())
                }
                None => {
                    checks.warn("snapshots", "none yet", "reinstate capture once");
                    None
                }
            }
        }
        Err(error) => {
            checks.error("snapshots", &error.into());
            None
        }
    }
}

fn check_writable(checks: &mut Checks<'_>, repository: &LocalRepository) {
    let id = repository.id();
    match adapters::lock(repository) {
        Ok(_lock) => {
            // An object that is never sealed leaves nothing behind.
            let written = repository
                .create_object()
                .and_then(|mut object| object.write(&[0]));
            match written {
                Ok(()) => {
                    let path = repository.path().display();
                    checks.ok("repository", &format!("{path} ({id}) can be written"));
                }
                Err(error) => checks.error("repository", &error.into()),
            }
        }
        Err(failure) => {
            let error = anyhow::Error::new(failure);
            if exit_of(&error) == Exit::Locked {
                let shown = show(&error);
                let message = "another capture or merge is at work";
                let holder = shown.causes.first().map_or(message, String::as_str);
                checks.warn("repository", holder, &shown.next);
            } else {
                checks.error("repository", &error);
            }
        }
    }
}

fn check_store(
    checks: &mut Checks<'_>,
    session: &Session<'_>,
    latest: Option<&SnapshotDescription>,
) {
    let store = match session.store() {
        Ok(store) => store,
        Err(error) => return checks.error("store", &error),
    };
    let identity = store.identity();
    checks.ok("store", &format!("{} ({})", identity.name, identity.id));
    match store.begin_capture() {
        Ok(view) => {
            let schema = view.schema();
            checks.ok("tables", &describe_tables(schema));
            checks.ok("visibility", "every row can be seen");
            check_schema(checks, schema, latest, identity.id);
            if let Some(time) = view.taken_at() {
                check_clock(checks, time.as_micros().abs_diff(now().as_micros()));
            } else if let Some(latest) = latest
                && latest.taken_at > now()
            {
                let message = "the latest snapshot was taken in this machine's future";
                checks.warn("clock", message, "set the clock");
            }
        }
        Err(error) => {
            let name = match error.kind() {
                ErrorKind::Refused => "visibility",
                _ => "tables",
            };
            checks.error(name, &error.into());
        }
    }
    check_journal(checks, store.as_ref());
    check_guard(checks, session);
    drop(store);
    check_log(checks, session);
}

/// Whether the store is followed, or could be.
fn check_log(checks: &mut Checks<'_>, session: &Session<'_>) {
    let source = match session.feed_source() {
        Ok(source) => source,
        Err(error) => return checks.error("change log", &error),
    };
    let feeds = match source.feeds() {
        Ok(feeds) => feeds,
        Err(error) => return checks.error("change log", &error.into()),
    };
    let kept = feeds.iter().map(|feed| feed.kept_bytes).sum();
    let lost = feeds.iter().find_map(|feed| feed.lost.as_deref());
    match (source.check_feed(), lost) {
        (_, Some(lost)) => {
            let message = format!("a feed is lost: {lost}");
            checks.fail(
                "change log",
                &message,
                "reinstate capture follow --new-base",
            );
        }
        (Err(error), None) => {
            let message = format!(
                "it could not be followed: {}",
                crate::failure::one_line(&error)
            );
            let remedy = "only snapshots can be gone back to, until what is missing is there";
            checks.warn("change log", &message, remedy);
        }
        (Ok(()), None) if feeds.is_empty() => {
            let message = "it could be followed, and is not: only snapshots can be gone back to";
            checks.warn("change log", message, "reinstate capture follow");
        }
        (Ok(()), None) => {
            let message = format!("it is followed; the store keeps {} for that", bytes(kept));
            checks.ok("change log", &message);
        }
    }
    match source.follow_costs() {
        Ok(costs) if costs.is_empty() => {}
        Ok(costs) => checks.ok("old rows", &describe_costs(&costs)),
        Err(error) => checks.error("old rows", &error.into()),
    }
}

/// What following costs, by how the store tells old rows.
fn describe_costs(costs: &[FollowCost]) -> String {
    let of = |old_rows: OldRows| {
        let tables = costs.iter().filter(move |cost| cost.old_rows == old_rows);
        let (number, total) = tables.fold((0, 0), |(number, total), cost| {
            (number + 1, total + cost.bytes)
        });
        (counted(number, "table", "tables"), bytes(total))
    };
    let (whole, by_key) = (of(OldRows::Whole), of(OldRows::ByKey));
    format!(
        "{} of {} log them whole, which costs the store's log one old row more for each update and \
         delete; {} of {} by their keys, which costs the follower about as much room in its spill \
         directory, and a reading of the snapshot and its log when it starts",
        whole.0, whole.1, by_key.0, by_key.1
    )
}

fn describe_tables(schema: &StoreSchema) -> String {
    let number = |wanted: fn(&Tenancy) -> bool| {
        let tables = schema.tables().iter();
        count(tables.filter(|table| wanted(&table.tenancy)).count() as u64)
    };
    format!(
        "{} of tenants, {} shared, {} excluded, none unclassified",
        number(Tenancy::is_tenant_owned),
        number(|tenancy| *tenancy == Tenancy::Shared),
        number(|tenancy| *tenancy == Tenancy::Excluded)
    )
}

fn check_schema(
    checks: &mut Checks<'_>,
    schema: &StoreSchema,
    latest: Option<&SnapshotDescription>,
    store: reinstate_core::StoreId,
) {
    let Some(latest) = latest else {
        return;
    };
    if latest.store.id != store {
        let message = "the latest snapshot is of another store of this name";
        checks.warn("schema", message, "reinstate capture once");
    } else if latest.schema != *schema {
        let message = "the tables changed since the latest snapshot: a plan says what that means";
        checks.warn("schema", message, "reinstate capture once");
    } else {
        checks.ok("schema", "the tables are those of the latest snapshot");
    }
}

fn check_clock(checks: &mut Checks<'_>, micros_apart: u64) {
    let seconds = format!(
        "{}.{:03} s",
        micros_apart / 1_000_000,
        micros_apart / 1000 % 1000
    );
    if micros_apart > CLOCK_MICROS_MAX {
        let message = format!("this machine's and the store's are {seconds} apart");
        checks.warn(
            "clock",
            &message,
            "synchronise them: times are looked up by the store's",
        );
    } else {
        checks.ok("clock", &format!("within {seconds} of the store's"));
    }
}

fn check_journal(checks: &mut Checks<'_>, store: &dyn LiveStore) {
    let nobody = TenantId::try_new(*b"?").expect("BUG: one byte is a tenant's id");
    match store.journal_entry(JobId::from_bytes([0; 16]), &nobody) {
        Ok(_) => checks.ok("journal", "the store is prepared for merges"),
        Err(error) => {
            let message = crate::failure::one_line(&error);
            checks.fail("journal", &message, "reinstate init");
        }
    }
}

/// Whether the database would stop a merge at another tenant's row, where that is not the store's
/// own doing.
fn check_guard(checks: &mut Checks<'_>, session: &Session<'_>) {
    let configuration = &session.configuration;
    let StoreConfiguration::Postgres(postgres) = &configuration.store else {
        return;
    };
    let status = crate::postgres::connect(&configuration.store_name, postgres)
        .and_then(|store| Ok(store.guard_status()?));
    match status {
        Ok(tables) => {
            let open = tables
                .iter()
                .filter(|table| table.state != GuardState::Armed && !table.is_confined)
                .count();
            if open == 0 {
                checks.ok(
                    "guard",
                    "the database stops a merge at another tenant's row",
                );
            } else {
                let tables = counted(open as u64, "table is", "tables are");
                let message = format!("{tables} guarded neither by triggers nor by row security");
                checks.warn("guard", &message, "reinstate guard install");
            }
        }
        Err(error) => checks.error("guard", &error),
    }
}

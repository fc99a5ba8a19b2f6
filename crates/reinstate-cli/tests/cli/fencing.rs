//! The fence on a real server, from before a plan or a merge until its verdict.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use reinstate::{
    Context, DriftRules, Fences, OwnerCheck, PlanRequest, StoredPlan, TenantOutcome, Verdict,
};
use reinstate_core::{
    ErrorKind, Event, JobId, LiveStore, Observer, Phase, Policy, Repository, Silent, TenantId,
};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};

use crate::guard::captured;
use crate::lease::{Prompt, eventually};
use crate::prompting::Terminal;
use crate::retries::{Ground, NOW};

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Begins(Phase),
    Ends(Phase),
}

/// Does something at moments of account:1's restore.
struct At<F: Fn(Moment)>(F);

impl<F: Fn(Moment) + Sync> Observer for At<F> {
    fn observe(&self, event: Event<'_>) {
        let (moment, tenant) = match event {
            Event::Started { phase, tenant, .. } => (Moment::Begins(phase), tenant),
            Event::Finished { phase, tenant } => (Moment::Ends(phase), tenant),
            _ => return,
        };
        if tenant.is_none_or(|tenant| tenant.id == account(1)) {
            (self.0)(moment);
        }
    }
}

fn account(number: u32) -> TenantId {
    TenantId::try_new(number.to_string().into_bytes()).unwrap()
}

/// Somebody else's store on the same database.
fn second(ground: &Ground) -> PostgresStore {
    let mut settings = ConnectionSettings::new(SecretUrl::new(ground.database.url()), "second");
    settings.unguarded = true;
    let mut map = TenancyMap::new(ground.store.tenant_kind().clone());
    map.column = Some("account_id".to_owned());
    PostgresStore::connect(settings, map).unwrap()
}

fn fenced() -> Ground {
    let ground = Ground::new(|_| {});
    ground.store.install_fence().unwrap();
    ground
}

const WRITE: &str = "UPDATE notes SET body = 'mine' WHERE id = 4";

/// A user of account:1 is refused after half a second, one of account:2 is not.
fn expect_fenced(ground: &Ground, when: impl std::fmt::Debug) {
    let refused = ground
        .database
        .psql(WRITE)
        .map_err(|error| error.to_string());
    let is_refused = refused
        .as_ref()
        .is_err_and(|said| said.contains("1 is being restored"));
    assert!(is_refused, "{when:?}: {refused:?}");
    ground.psql("UPDATE notes SET body = body WHERE account_id = 2");
}

const UNTIL_THE_VERDICT: [Moment; 3] = [
    Moment::Ends(Phase::Merge),
    Moment::Begins(Phase::Verify),
    Moment::Ends(Phase::Verify),
];

fn plan_request(ground: &Ground, job: u8) -> PlanRequest<'_> {
    PlanRequest {
        job: JobId::from_bytes([job; 16]),
        repository: ground.repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::Off,
        planned_at: NOW,
    }
}

#[track_caller]
fn expect_restored(outcomes: &[TenantOutcome]) {
    assert!(
        !outcomes.is_empty() && outcomes.iter().all(TenantOutcome::is_restored),
        "{outcomes:?}"
    );
}

/// What is written between the commit and the end of verifying would make the verdict incomplete.
#[test]
fn the_users_of_a_tenant_wait_behind_the_fence_until_the_verdict() {
    let ground = fenced();
    let met = Mutex::new(Vec::new());
    let observer = At(|moment| {
        if UNTIL_THE_VERDICT.contains(&moment) {
            expect_fenced(&ground, moment);
            met.lock().unwrap().push(moment);
        }
    });
    expect_restored(
        &ground
            .restore_watched(3, &["account:1"], &observer)
            .unwrap(),
    );
    assert_eq!(*met.lock().unwrap(), UNTIL_THE_VERDICT);
    ground.psql(WRITE);

    // The undo of it, one tenant at a time, as campaigns do it.
    ground.psql("UPDATE notes SET body = 'n4' WHERE id = 4");
    let context = Context::new(&ground.resources, &observer, &ground.cancellation);
    let repository: &dyn Repository = &ground.repository;
    let output = repository.create_object().unwrap();
    let request = plan_request(&ground, 4);
    let job = JobId::from_bytes([3; 16]);
    let undo = reinstate::plan_undo_of(context, repository, &ground.store, job, &request, output);
    let undo = StoredPlan::open(repository, undo.unwrap().object).unwrap();
    let (one, store) = (account(1), &ground.store);
    let undone = reinstate::apply_once(context, &undo, &one, store, repository, NOW);
    assert!(undone.unwrap().verdict.is_restored());
    assert_eq!(met.lock().unwrap().len(), 2 * UNTIL_THE_VERDICT.len());
    ground.psql(WRITE);
}

/// One is verified while the next is merged; whoever writes to both gives way, and nobody waits for ever.
#[test]
fn several_tenants_behind_their_fences_and_a_writer_of_two_of_them_meet_no_deadlock() {
    let ground = fenced();
    ground.psql("UPDATE notes SET body = 'x'");
    let both = Mutex::new(Some(Prompt::after(&ground.database, "SELECT 1")));
    let observer = At(|moment| {
        if moment == Moment::Begins(Phase::Verify)
            && let Some(mut both) = both.lock().unwrap().take()
        {
            both.say("UPDATE notes SET body = 'mine' WHERE account_id = 2;");
            both.say(
                "UPDATE notes SET body = 'mine' WHERE account_id = 1; ROLLBACK; SELECT 'out';",
            );
            both.hears("out");
        }
    });
    let all = ["account:1", "account:2", "account:0"];
    expect_restored(&ground.restore_watched(3, &all, &observer).unwrap());
    assert!(both.lock().unwrap().is_none());
    let changed = "SELECT count(*) FROM notes WHERE body <> 'n' || id";
    assert_eq!(ground.psql(changed), "0");
}

#[test]
fn a_plan_that_is_made_behind_the_fence_is_not_made_stale() {
    let ground = fenced();
    let (silent, repository) = (
        Context::new(&ground.resources, &Silent, &ground.cancellation),
        &ground.repository,
    );
    let one = account(1);
    let fences = Fences::raise(silent, &ground.store, std::slice::from_ref(&one)).unwrap();
    let tenant = "account:1".parse().unwrap();
    let image = reinstate::extract(repository, &ground.snapshot, &tenant).unwrap();
    let (output, request) = (
        repository.create_object().unwrap(),
        plan_request(&ground, 3),
    );
    let plan = reinstate::plan(silent, &[image], &ground.store, &request, output).unwrap();
    expect_fenced(&ground, "after the plan");

    // A second operator is told who has the tenant; the journal can be read.
    let other = second(&ground);
    assert_eq!(other.journal_entry(request.job, &one).unwrap(), None);
    let view = other.read_view().unwrap();
    let (fingerprint, schema) = (view.fingerprint(&one).unwrap(), view.schema().clone());
    let refused = other.begin_merge(&one, &fingerprint, &schema).map(drop);
    let holder = other.lease_holder(&one).unwrap().unwrap();
    for error in [
        refused.unwrap_err(),
        other.fence(&one).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        let said = format!("server process {}", holder.process);
        assert!(error.to_string().contains(&said), "{error}");
    }
    drop(view);

    let plan = StoredPlan::open(repository, plan.object).unwrap();
    let observer = At(|moment| expect_fenced(&ground, moment));
    let context = Context::new(&ground.resources, &observer, &ground.cancellation);
    let outcomes = reinstate::apply_behind(context, &plan, &ground.store, repository, NOW, fences);
    expect_restored(&outcomes.unwrap());
    assert_eq!(other.lease_holder(&one).unwrap(), None);
    ground.psql(WRITE);
}

/// A plan of these tenants that is made behind their fences, and what carries it out behind them.
fn behind_fences<'g>(
    ground: &'g Ground,
    tenants: &[u32],
) -> impl FnOnce() -> Vec<TenantOutcome> + Send + use<'g> {
    let context = Context::new(&ground.resources, &Silent, &ground.cancellation);
    let ids: Vec<_> = tenants.iter().map(|number| account(*number)).collect();
    let fences = Fences::raise(context, &ground.store, &ids).unwrap();
    let repository: &dyn Repository = &ground.repository;
    let images = tenants.iter().map(|number| {
        let tenant = format!("account:{number}").parse().unwrap();
        reinstate::extract(repository, &ground.snapshot, &tenant).unwrap()
    });
    let (images, output) = (
        images.collect::<Vec<_>>(),
        repository.create_object().unwrap(),
    );
    let request = plan_request(ground, 3);
    let plan = reinstate::plan(context, &images, &ground.store, &request, output).unwrap();
    move || {
        let plan = StoredPlan::open(repository, plan.object).unwrap();
        reinstate::apply_behind(context, &plan, &ground.store, repository, NOW, fences).unwrap()
    }
}

/// A tenant's rows refer to another one's that is restored after it: it is tried again behind the same fence.
#[test]
fn whoever_refers_to_another_tenant_is_tried_again_behind_its_fence() {
    let schema = "\
CREATE TABLE tags (id int PRIMARY KEY, account_id int NOT NULL);
CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, tag int REFERENCES tags);
INSERT INTO tags SELECT n, n % 3 FROM generate_series(1, 30) n;
INSERT INTO notes SELECT n, n % 3, 2 FROM generate_series(1, 30) n WHERE n % 3 > 0;
";
    let incident = "DELETE FROM notes WHERE account_id > 0; DELETE FROM tags WHERE account_id > 0";
    let ground = Ground::after(schema, incident, |_, _| {});
    ground.store.install_fence().unwrap();
    expect_restored(&behind_fences(&ground, &[1, 2])());
}

/// What an attempt did that others came in the way of, before it wrote or in the middle of it, is none of the next
/// one's, although both have the session of the fence.
#[test]
fn a_merge_is_tried_again_behind_its_fence_as_if_it_was_the_first_time() {
    for in_the_way in [
        "SELECT id FROM notes WHERE id = 28 FOR UPDATE",
        "LOCK TABLE notes IN ACCESS EXCLUSIVE MODE",
    ] {
        let ground = Ground::new(|settings| settings.lock_timeout = Duration::from_millis(300));
        ground.store.install_fence().unwrap();
        let apply = behind_fences(&ground, &[1]);
        let holder = Prompt::after(&ground.database, in_the_way);
        let outcomes = thread::scope(|scope| {
            let run = scope.spawn(apply);
            // Two transactions met it.
            let mut met = BTreeSet::new();
            while met.len() < 2 && !run.is_finished() {
                let waiting = "SELECT xact_start FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'reinstate'
                      AND wait_event_type = 'Lock'";
                met.extend(Some(ground.psql(waiting)).filter(|began| !began.is_empty()));
            }
            drop(holder);
            run.join().unwrap()
        });
        expect_restored(&outcomes);
    }
}

/// A store without a fence says so, instead of doing without.
#[test]
fn a_fence_that_was_not_put_up_cannot_be_raised() {
    let ground = Ground::new(|_| {});
    let context = Context::new(&ground.resources, &Silent, &ground.cancellation);
    let error = Fences::raise(context, &ground.store, &[account(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    ground.psql(WRITE);
}

/// Somebody takes the tenant over while it is verified: its users write again, and the verdict says what
/// differs, not that all is well.
#[test]
fn a_fence_that_falls_while_the_tenant_is_verified_leaves_an_honest_verdict() {
    let ground = fenced();
    let other = second(&ground);
    let observer = At(|moment| {
        if moment == Moment::Begins(Phase::Verify) {
            other.take_over(&account(1)).unwrap().unwrap();
            ground.psql(WRITE);
        }
    });
    let mut outcomes = ground
        .restore_watched(3, &["account:1"], &observer)
        .unwrap();
    let verdict = outcomes.remove(0).result.unwrap().verdict;
    assert!(matches!(verdict, Verdict::Incomplete(_)), "{verdict:?}");
    assert_eq!(ground.psql("SELECT body FROM notes WHERE id = 4"), "mine");
}

/// The person at the terminal thinks, the tenant's users wait; then the process is killed.
#[test]
fn a_run_that_is_killed_behind_its_fence_lets_the_tenants_users_write() {
    let (sandbox, database) = captured();
    let write = "UPDATE notes SET body = 'mine' WHERE account_id = 1";
    let restore = ["restore", "account:1", "--at", "latest", "--nearest-before"];
    database.psql(write).unwrap();
    let with = |options: &[&'static str]| [&restore, options].concat();
    sandbox
        .run(&with(&["--fence", "--confirm", "account:1"]))
        .refused(1, &["guard install --fence"]);
    sandbox.run(&["guard", "install"]).done(&[]);
    sandbox.run(&["guard", "install", "--fence"]).done(&[]);
    let mut terminal = Terminal::start(&sandbox, &with(&["--fence"]));
    terminal.expect("[y/N]");
    let refused = database.psql(write).unwrap_err().to_string();
    assert!(refused.contains("1 is being restored"), "{refused}");
    terminal.kill();
    eventually(|| database.psql(write).is_ok());
    sandbox
        .run(&with(&["--fence", "--confirm", "account:1"]))
        .done(&["restored"]);
    database.psql(write).unwrap();
}

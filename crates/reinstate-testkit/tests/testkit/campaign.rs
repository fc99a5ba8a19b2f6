//! A campaign that is stopped, aborted or killed at its worst moments: what it says is true afterwards.

use std::sync::Mutex;

use reinstate::{
    CampaignAction, CampaignEnd, CampaignEntry, CampaignMode, CampaignPlanned, CampaignRequest,
    CampaignRun, CampaignStage, CampaignStep, Context, EntryKind, Error, EstateStore, Images,
    Operator, PlannedStore, RestorePoint, RunLimits, SiteRequest, StepAnswer, StepPurpose,
    StoreProgress, StoredCampaign, Subject, TenantImage, TenantState, Unfit, approve_campaign,
    campaign_journal, campaign_state, extract_all, plan_campaign, run_campaign, undo_campaign,
};
use reinstate_core::{
    CampaignId, ErrorKind, LiveStore, Policy, Repository, StoreError, Tenant, Timestamp,
};
use reinstate_testkit::certification::{Contents, Fixture, Flavour, Rows, owner, tenant};
use reinstate_testkit::faults::{
    Damage, FaultyRepository, FaultyStore, RepositoryFault, StoreFault,
};
use reinstate_testkit::{ApplicationChange, KeySpace};

use crate::faults::{OPERATIONS_MAX, Scene};

pub(crate) const NOW: Timestamp = Timestamp::from_micros(7);
pub(crate) const CLOSE: &str = "close";
pub(crate) const OPEN: &str = "open";

/// What is done besides when a program is run.
type Act<'d> = Box<dyn Fn(&str) -> Result<(), StoreError> + Sync + 'd>;

/// An operator who writes down what is asked of them, and does something of their own then.
pub(crate) struct Desk<'d> {
    asked: Mutex<Vec<String>>,
    act: Act<'d>,
}

impl<'d> Desk<'d> {
    pub(crate) fn new(act: impl Fn(&str) -> Result<(), StoreError> + Sync + 'd) -> Self {
        Self {
            asked: Mutex::default(),
            act: Box::new(act),
        }
    }

    pub(crate) fn quiet() -> Self {
        Self::new(|_| Ok(()))
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("one at a time").clone()
    }
}

impl Operator for Desk<'_> {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn actor(&self) -> &str {
        "ops"
    }

    fn step(
        &self,
        step: &CampaignStep,
        _timeout_seconds: u32,
        _purpose: StepPurpose,
        _subject: Subject<'_>,
    ) -> Result<StepAnswer, StoreError> {
        let CampaignStep::Command(words) = step else {
            panic!("no statement is planned");
        };
        let verb = &words[0];
        self.asked.lock().expect("one at a time").push(verb.clone());
        (self.act)(verb)?;
        Ok(StepAnswer {
            is_done: true,
            text: String::new(),
        })
    }
}

pub(crate) struct Then<'t>(pub(crate) &'t Scene);

impl Images for Then<'_> {
    fn images(
        &self,
        context: Context<'_>,
        tenants: &[Tenant],
    ) -> Result<Vec<Result<TenantImage, Error>>, Error> {
        let repository = self.0.repository.as_ref();
        Ok(extract_all(context, repository, &self.0.snapshot, tenants))
    }
}

fn action(verb: &str) -> Option<CampaignAction> {
    Some(CampaignAction {
        step: CampaignStep::Command(vec![verb.to_owned()]),
        timeout_seconds: 1,
    })
}

/// A campaign for the tenant that lost rows, approved.
pub(crate) fn campaign(scene: &Scene) -> StoredCampaign {
    campaign_for(scene, &["acme"])
}

/// The same for several tenants, each in a batch of its own.
pub(crate) fn campaign_for(scene: &Scene, names: &[&str]) -> StoredCampaign {
    campaign_as(scene, 9, names)
}

/// The same, with an id of its own.
pub(crate) fn campaign_as(scene: &Scene, id: u8, names: &[&str]) -> StoredCampaign {
    let planned = plan(scene, id, names, &Then(scene)).expect("a store that works");
    let CampaignPlanned::Campaign(campaign) = planned else {
        panic!("{planned:?}");
    };
    let repository = scene.repository.as_ref();
    let journal = campaign_journal(repository, &campaign).expect("a journal");
    approve_campaign(&campaign, &journal, campaign.digest(), "ops", NOW).expect("an approval");
    *campaign
}

/// The same, not approved, with the rows from these images.
pub(crate) fn plan(
    scene: &Scene,
    id: u8,
    names: &[&str],
    images: &dyn Images,
) -> Result<CampaignPlanned, Error> {
    let repository = scene.repository.as_ref();
    let store = PlannedStore {
        name: "shop".to_owned(),
        live: scene.fixture.store(),
        repository,
        phase: 1,
        concurrency: 1,
        snapshot: scene.snapshot.clone(),
        point: RestorePoint {
            position: scene.snapshot.position,
            time: scene.snapshot.taken_at,
        },
        images,
        drift: reinstate::DriftRules::default(),
        check_owners: true,
        may_be_absent: false,
    };
    let site = |name: &&str| SiteRequest {
        site: tenant(name),
        ids: vec![Some(tenant(name))],
    };
    let request = CampaignRequest {
        campaign: CampaignId::from_bytes([id; 16]),
        repository,
        estate: "estate".to_owned(),
        site_kind: scene.fixture.store().tenant_kind().clone(),
        mode: CampaignMode::Chosen,
        asked: "latest".to_owned(),
        planned_by: "ops".to_owned(),
        planned_at: NOW,
        approvals_needed: 1,
        batch_size: 1,
        policy: Policy::EXACT,
        stores: vec![store],
        gates: Vec::new(),
        links: Vec::new(),
        close: action(CLOSE),
        open: action(OPEN),
        tenants: names.iter().map(site).collect(),
        unfit: Unfit::Refuse,
        remapping: None,
    };
    plan_campaign(scene.context(), &request)
}

/// Does something with a campaign as a process of its own would: with a journal that it reads anew.
pub(crate) fn as_a_process(
    scene: &Scene,
    campaign: &StoredCampaign,
    live: &dyn LiveStore,
    operator: &dyn Operator,
    what: impl FnOnce(&CampaignRun<'_>) -> Result<CampaignEnd, Error>,
) -> CampaignEnd {
    let repository: &dyn Repository = scene.repository.as_ref();
    let end = attempt(scene, campaign, (live, repository), operator, what);
    end.expect("a campaign that may run")
}

/// The same, which may not come to an end.
pub(crate) fn attempt(
    scene: &Scene,
    campaign: &StoredCampaign,
    (live, repository): (&dyn LiveStore, &dyn Repository),
    operator: &dyn Operator,
    what: impl FnOnce(&CampaignRun<'_>) -> Result<CampaignEnd, Error>,
) -> Result<CampaignEnd, Error> {
    let journal = campaign_journal(repository, campaign)?;
    let estate = [EstateStore {
        live,
        repository,
        pace: None,
    }];
    what(&CampaignRun {
        context: scene.context(),
        campaign,
        journal: &journal,
        estate: &estate,
        operator,
        watcher: &reinstate_core::Silent,
        limits: RunLimits { store_attempts: 0 },
    })
}

fn say(scene: &Scene, campaign: &StoredCampaign, kind: EntryKind, detail: &str) {
    let journal = campaign_journal(scene.repository.as_ref(), campaign).expect("a journal");
    let mut entry = CampaignEntry::new(NOW, "boss", kind);
    detail.clone_into(&mut entry.detail);
    journal
        .append(vec![entry])
        .expect("a repository that works");
}

pub(crate) fn abort(scene: &Scene, campaign: &StoredCampaign) {
    say(scene, campaign, EntryKind::Aborted, "undo");
}

/// What a user of the tenant does.
fn edited_project() -> ApplicationChange {
    let rows = Rows {
        flavour: Flavour::Columns,
        key_space: KeySpace::Global,
    };
    ApplicationChange::Put(rows.project(&owner("acme"), 1, Some("edited since")))
}

fn edit(scene: &Scene) -> Contents {
    scene.write(&[edited_project()]);
    scene.contents()
}

#[test]
fn a_campaign_that_is_aborted_while_its_last_site_is_opened_can_be_taken_back() {
    let scene = Scene::set();
    let campaign = campaign(&scene);
    let desk = Desk::new(|verb| {
        if verb == OPEN {
            abort(&scene, &campaign);
        }
        Ok(())
    });
    let live = scene.fixture.store();
    let end = as_a_process(&scene, &campaign, live, &desk, run_campaign);
    assert_eq!(end.state.stage, CampaignStage::Undoing);
    assert_eq!(scene.contents(), scene.then);
    let end = as_a_process(&scene, &campaign, live, &Desk::quiet(), undo_campaign);
    assert!(end.stopped.is_none(), "{:?}", end.stopped);
    assert_eq!(end.state.stage, CampaignStage::Undone);
    assert_eq!(end.state.count(TenantState::Undone), 1);
    assert_eq!(scene.contents(), scene.now);
}

#[test]
fn a_site_that_may_be_open_is_closed_before_it_is_taken_back() {
    let scene = Scene::set();
    let campaign = campaign(&scene);
    let live = scene.fixture.store();
    // Killed when the site was open already, and before that was noted.
    let killed = Desk::new(|verb| match verb {
        OPEN => Err(StoreError::new(ErrorKind::Cancelled, "killed")),
        _ => Ok(()),
    });
    let end = as_a_process(&scene, &campaign, live, &killed, run_campaign);
    assert!(end.stopped.is_some());
    assert_eq!(killed.asked(), [CLOSE, OPEN]);
    abort(&scene, &campaign);
    let desk = Desk::quiet();
    let end = as_a_process(&scene, &campaign, live, &desk, undo_campaign);
    assert_eq!(end.state.stage, CampaignStage::Undone);
    assert_eq!(desk.asked(), [CLOSE]);
    assert_eq!(scene.contents(), scene.now);
}

#[test]
fn a_plan_that_is_damaged_keeps_no_other_site_from_being_taken_back() {
    let scene = Scene::set();
    let rows = Rows {
        flavour: Flavour::Columns,
        key_space: KeySpace::Global,
    };
    let other = rows.project(&owner("acme2"), 2, Some("changed as well"));
    scene.write(&[ApplicationChange::Put(other)]);
    let destroyed = scene.contents();
    let campaign = campaign_for(&scene, &["acme", "acme2"]);
    let live = scene.fixture.store();
    let end = as_a_process(&scene, &campaign, live, &Desk::quiet(), run_campaign);
    assert_eq!(end.state.count(TenantState::HandedBack), 2);
    assert_eq!(scene.contents(), scene.then);
    abort(&scene, &campaign);
    let plan = campaign.description().batches[0].plans[0].expect("a plan");
    let is_there = scene.repository.tamper_object(plan.object, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    assert!(is_there);
    let end = as_a_process(&scene, &campaign, live, &Desk::quiet(), undo_campaign);
    assert!(end.stopped.is_none(), "{:?}", end.stopped);
    let [acme, other] = end.state.tenants.as_slice() else {
        panic!("{:?}", end.state.tenants);
    };
    assert_eq!(acme.state, TenantState::Parked);
    assert_eq!(other.state, TenantState::Undone);
    let (acme, now) = (tenant("acme"), scene.contents());
    assert_eq!(now.of(&acme), scene.then.of(&acme));
    assert_eq!(now.without(&acme), destroyed.without(&acme));
}

#[test]
fn whatever_fails_or_comes_in_between_no_write_is_lost_and_what_is_handed_back_is_proven() {
    let (mut stopped, mut parked, mut handed_back) = (0, 0, 0);
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let campaign = campaign(&scene);
        let live = scene.fixture.store();
        let fault = StoreFault::Fail {
            call,
            kind: ErrorKind::Unavailable,
        };
        let store = FaultyStore::new(live, fault);
        let end = as_a_process(&scene, &campaign, &store, &Desk::quiet(), run_campaign);
        let is_over = store.call_count() <= call;
        assert_eq!(end.stopped.is_none(), is_over, "call {call}");
        if is_over {
            break;
        }
        stopped += 1;
        assert_eq!(end.state.count(TenantState::Parked), 0, "call {call}");
        let end = as_a_process(&scene, &campaign, live, &Desk::quiet(), run_campaign);
        let reason = &end.state.tenants[0].reason;
        assert_eq!(
            end.state.count(TenantState::HandedBack),
            1,
            "call {call}: {reason:?}"
        );
        assert_eq!(scene.contents(), scene.then, "call {call}");

        let scene = Scene::set();
        let campaign = self::campaign(&scene);
        let live = scene.fixture.store();
        let fault = StoreFault::Interlope { call };
        let store = FaultyStore::with_interloper(live, fault, || {
            edit(&scene);
        });
        let end = as_a_process(&scene, &campaign, &store, &Desk::quiet(), run_campaign);
        assert!(end.stopped.is_none(), "call {call}: {:?}", end.stopped);
        let edited = |base: &Contents| {
            let mut base = base.clone();
            base.write(&scene.snapshot.schema, &[edited_project()])
                .expect("a row that fits");
            base
        };
        let (then, now, found) = (edited(&scene.then), edited(&scene.now), scene.contents());
        let tenant = &end.state.tenants[0];
        match tenant.state {
            TenantState::HandedBack => {
                assert_eq!(found, then, "call {call}");
                handed_back += 1;
            }
            TenantState::Parked => {
                assert!(
                    found == then || found == now,
                    "call {call}: a write was lost"
                );
                let is_merged = tenant.stores[0].merge().is_some();
                assert_eq!(found == then, is_merged, "call {call}");
                parked += 1;
            }
            state => panic!("call {call}: {state:?}"),
        }
    }
    assert!(stopped > 0 && parked > 0 && handed_back > 0);
}

/// Gives a parked site another try.
pub(crate) fn retry(scene: &Scene, campaign: &StoredCampaign) {
    let journal = campaign_journal(scene.repository.as_ref(), campaign).expect("a journal");
    let mut entry = CampaignEntry::new(NOW, "ops", EntryKind::Retried);
    entry.tenant = Some(0);
    journal
        .append(vec![entry])
        .expect("a repository that works");
}

#[test]
fn whatever_fails_in_the_repository_a_campaign_goes_on_and_can_be_taken_back() {
    let kind = ErrorKind::Unavailable;
    type Fault = fn(u64, ErrorKind) -> RepositoryFault;
    let faults: [Fault; 3] = [
        |operation, kind| RepositoryFault::Fail { operation, kind },
        |operation, kind| RepositoryFault::FailFrom { operation, kind },
        |read, _| RepositoryFault::Damage {
            read,
            damage: Damage::FlipBit,
        },
    ];
    for fault in faults {
        let (mut failed, mut is_met) = (0, true);
        for number in 0..OPERATIONS_MAX {
            let fault = fault(number, kind);
            let scene = Scene::set();
            let campaign = campaign(&scene);
            let live = scene.fixture.store();
            let quiet = Desk::quiet();
            let faulty = || FaultyRepository::new(scene.repository.clone(), fault);
            let first = faulty();
            let run = attempt(&scene, &campaign, (live, &first), &quiet, run_campaign);
            let others = scene.now.without(&tenant("acme"));
            let is_whole = |found: &Contents| *found == scene.then || *found == scene.now;
            assert!(is_whole(&scene.contents()), "{fault:?}");
            assert_eq!(scene.contents().without(&tenant("acme")), others);
            let is_done = |end: &CampaignEnd| end.state.count(TenantState::HandedBack) == 1;
            if run.as_ref().is_ok_and(is_done) {
                assert_eq!(scene.contents(), scene.then, "{fault:?}");
            } else {
                failed += 1;
                retry(&scene, &campaign);
                let end = as_a_process(&scene, &campaign, live, &quiet, run_campaign);
                let reason = &end.state.tenants[0].reason;
                assert!(is_done(&end), "{fault:?}: {reason:?}");
                assert_eq!(scene.contents(), scene.then, "{fault:?}");
            }
            abort(&scene, &campaign);
            let second = faulty();
            let undo = attempt(&scene, &campaign, (live, &second), &quiet, undo_campaign);
            assert!(is_whole(&scene.contents()), "{fault:?}");
            let is_undone = |end: &CampaignEnd| end.state.stage == CampaignStage::Undone;
            if !undo.as_ref().is_ok_and(is_undone) {
                let end = as_a_process(&scene, &campaign, live, &quiet, undo_campaign);
                assert!(is_undone(&end), "{fault:?}: {:?}", end.stopped);
                assert_eq!(end.state.count(TenantState::Undone), 1, "{fault:?}");
            }
            let journal = campaign_journal(scene.repository.as_ref(), &campaign).expect("it");
            let state = journal.look(|entries| campaign_state(&campaign, entries));
            match state.tenants[0].state {
                TenantState::Undone => assert_eq!(scene.contents(), scene.now, "{fault:?}"),
                TenantState::Parked => assert_eq!(scene.contents(), scene.then, "{fault:?}"),
                state => panic!("{fault:?}: {state:?}"),
            }
            is_met = first.operation_count() > number || second.operation_count() > number;
            if !is_met {
                break;
            }
        }
        assert!(!is_met && failed > 10, "{failed}");
    }
}

#[test]
fn what_was_taken_back_is_read_back_whatever_stopped_it() {
    let (mut before, mut after) = (0, 0);
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let campaign = campaign(&scene);
        let live = scene.fixture.store();
        let end = as_a_process(&scene, &campaign, live, &Desk::quiet(), run_campaign);
        assert_eq!(end.state.count(TenantState::HandedBack), 1);
        abort(&scene, &campaign);
        let fault = StoreFault::Fail {
            call,
            kind: ErrorKind::Unavailable,
        };
        let store = FaultyStore::new(live, fault);
        let end = as_a_process(&scene, &campaign, &store, &Desk::quiet(), undo_campaign);
        if store.call_count() <= call {
            assert!(before > 0 && after > 0, "{before} {after}");
            assert_eq!(scene.contents(), scene.now);
            return;
        }
        assert!(end.stopped.is_some(), "call {call}");
        assert_ne!(
            end.state.tenants[0].stores[0],
            StoreProgress::Undone,
            "call {call}"
        );
        let counter = match scene.contents() == scene.now {
            true => &mut after,
            false => &mut before,
        };
        *counter += 1;
        let edited = edit(&scene);
        let end = as_a_process(&scene, &campaign, live, &Desk::quiet(), undo_campaign);
        assert!(end.stopped.is_none(), "call {call}: {:?}", end.stopped);
        assert_eq!(scene.contents(), edited, "call {call}: an edit was lost");
        let state = end.state.tenants[0].state;
        assert_eq!(state, TenantState::Parked, "call {call}: not read back");
        assert_eq!(end.state.stage, CampaignStage::Undone);
    }
    panic!("taking a campaign back takes more than {OPERATIONS_MAX} calls");
}

//! A campaign that is stopped, aborted or killed at its worst moments: what it says is true afterwards.

use std::sync::Mutex;

use reinstate::{
    CampaignAction, CampaignEnd, CampaignEntry, CampaignMode, CampaignPlanned, CampaignRequest,
    CampaignRun, CampaignStage, CampaignStep, Context, EntryKind, Error, EstateStore, Images,
    Operator, PlannedStore, RestorePoint, RunLimits, SiteRequest, StepAnswer, StepPurpose,
    StoreProgress, StoredCampaign, Subject, TenantImage, TenantState, Unfit, approve_campaign,
    campaign_journal, extract_all, plan_campaign, run_campaign, undo_campaign,
};
use reinstate_core::{
    CampaignId, ErrorKind, LiveStore, Policy, Repository, StoreError, Tenant, Timestamp,
};
use reinstate_testkit::certification::{Contents, Fixture, Flavour, Rows, owner, tenant};
use reinstate_testkit::faults::{FaultyStore, StoreFault};
use reinstate_testkit::{ApplicationChange, KeySpace};

use crate::faults::{OPERATIONS_MAX, Scene};

const NOW: Timestamp = Timestamp::from_micros(7);
const CLOSE: &str = "close";
const OPEN: &str = "open";

/// What is done besides when a program is run.
type Act<'d> = Box<dyn Fn(&str) -> Result<(), StoreError> + Sync + 'd>;

/// An operator who writes down what is asked of them, and does something of their own then.
struct Desk<'d> {
    asked: Mutex<Vec<String>>,
    act: Act<'d>,
}

impl<'d> Desk<'d> {
    fn new(act: impl Fn(&str) -> Result<(), StoreError> + Sync + 'd) -> Self {
        Self {
            asked: Mutex::default(),
            act: Box::new(act),
        }
    }

    fn quiet() -> Self {
        Self::new(|_| Ok(()))
    }

    fn asked(&self) -> Vec<String> {
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

struct Then<'t>(&'t Scene);

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
fn campaign(scene: &Scene) -> StoredCampaign {
    let repository = scene.repository.as_ref();
    let images = Then(scene);
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
        images: &images,
        drift: reinstate::DriftRules::default(),
        check_owners: true,
        may_be_absent: false,
    };
    let acme = tenant("acme");
    let request = CampaignRequest {
        campaign: CampaignId::from_bytes([9; 16]),
        repository,
        estate: "estate".to_owned(),
        site_kind: scene.fixture.store().tenant_kind().clone(),
        mode: CampaignMode::Chosen,
        asked: "latest".to_owned(),
        planned_by: "ops".to_owned(),
        planned_at: NOW,
        approvals_needed: 1,
        batch_size: 60,
        policy: Policy::EXACT,
        stores: vec![store],
        gates: Vec::new(),
        links: Vec::new(),
        close: action(CLOSE),
        open: action(OPEN),
        tenants: vec![SiteRequest {
            site: acme.clone(),
            ids: vec![Some(acme)],
        }],
        unfit: Unfit::Refuse,
    };
    let planned = plan_campaign(scene.context(), &request).expect("a store that works");
    let CampaignPlanned::Campaign(campaign) = planned else {
        panic!("{planned:?}");
    };
    let journal = campaign_journal(repository, &campaign).expect("a journal");
    approve_campaign(&campaign, &journal, campaign.digest(), "ops", NOW).expect("an approval");
    *campaign
}

/// Does something with a campaign as a process of its own would: with a journal that it reads anew.
fn as_a_process(
    scene: &Scene,
    campaign: &StoredCampaign,
    live: &dyn LiveStore,
    operator: &dyn Operator,
    what: impl FnOnce(&CampaignRun<'_>) -> Result<CampaignEnd, Error>,
) -> CampaignEnd {
    let repository: &dyn Repository = scene.repository.as_ref();
    let journal = campaign_journal(repository, campaign).expect("a journal");
    let estate = [EstateStore { live, repository }];
    let run = CampaignRun {
        context: scene.context(),
        campaign,
        journal: &journal,
        estate: &estate,
        operator,
        limits: RunLimits { store_attempts: 0 },
    };
    what(&run).expect("a campaign that may run")
}

fn say(scene: &Scene, campaign: &StoredCampaign, kind: EntryKind, detail: &str) {
    let journal = campaign_journal(scene.repository.as_ref(), campaign).expect("a journal");
    let mut entry = CampaignEntry::new(NOW, "boss", kind);
    detail.clone_into(&mut entry.detail);
    journal
        .append(vec![entry])
        .expect("a repository that works");
}

fn abort(scene: &Scene, campaign: &StoredCampaign) {
    say(scene, campaign, EntryKind::Aborted, "undo");
}

fn edit(scene: &Scene) -> Contents {
    let rows = Rows {
        flavour: Flavour::Columns,
        key_space: KeySpace::Global,
    };
    let change = rows.project(&owner("acme"), 1, Some("edited since"));
    scene.write(&[ApplicationChange::Put(change)]);
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

//! What may befall a campaign besides: another one over the same tenant, records that are lost, a store in
//! which rows of others were touched.

use reinstate::{
    CampaignEnd, CampaignEntry, Context, EntryKind, Error, Images, StoredCampaign, TenantImage,
    TenantState, campaign_journal, campaign_state, campaigns, run_campaign, undo_campaign,
};
use reinstate_core::{ErrorKind, LiveStore, Repository, StoreError, Tenant};
use reinstate_testkit::certification::Fixture;
use reinstate_testkit::faults::{FaultyRepository, FaultyStore, RepositoryFault, StoreFault};

use crate::campaign::{
    CLOSE, Desk, NOW, OPEN, Then, abort, as_a_process, attempt, campaign, campaign_as, plan, retry,
};
use crate::faults::{OPERATIONS_MAX, Scene};

fn run(scene: &Scene, campaign: &StoredCampaign, live: &dyn LiveStore) -> CampaignEnd {
    as_a_process(scene, campaign, live, &Desk::quiet(), run_campaign)
}

fn undo(scene: &Scene, campaign: &StoredCampaign, live: &dyn LiveStore) -> CampaignEnd {
    abort(scene, campaign);
    as_a_process(scene, campaign, live, &Desk::quiet(), undo_campaign)
}

fn entries(scene: &Scene, campaign: &StoredCampaign, kind: EntryKind) -> Vec<CampaignEntry> {
    let journal = campaign_journal(scene.repository.as_ref(), campaign).expect("a journal");
    let of_kind = |entries: &[CampaignEntry]| {
        let entries = entries.iter().filter(|entry| entry.kind == kind);
        entries.cloned().collect()
    };
    journal.look(of_kind)
}

/// It is a fact of its own in the journal: words that a gate or a finding says do not make it one, and none
/// are needed for it.
#[test]
fn rows_of_others_that_a_merge_touched_are_a_fact_of_the_journal() {
    let scene = Scene::set();
    let campaign = campaign(&scene);
    let live = scene.fixture.store();
    let lying = FaultyStore::new(live, StoreFault::ForeignRows { rows: 2 });
    let end = run(&scene, &campaign, &lying);
    let site = &end.state.tenants[0];
    assert_eq!((site.state, site.is_violated), (TenantState::Parked, true));
    let noted = entries(&scene, &campaign, EntryKind::Violated);
    let [noted] = noted.as_slice() else {
        panic!("{noted:?}");
    };
    assert_eq!(
        (noted.tenant, noted.store, noted.rows),
        (Some(0), Some(0), 2)
    );

    // Tried again, in a store where it is not so.
    retry(&scene, &campaign);
    let end = run(&scene, &campaign, live);
    let site = &end.state.tenants[0];
    assert_eq!(
        (site.state, site.is_violated),
        (TenantState::HandedBack, false)
    );

    // Taking it back is a merge like any other.
    let lying = FaultyStore::new(live, StoreFault::ForeignRows { rows: 3 });
    let end = undo(&scene, &campaign, &lying);
    let site = &end.state.tenants[0];
    assert_eq!((site.state, site.is_violated), (TenantState::Parked, true));
    assert_eq!(entries(&scene, &campaign, EntryKind::Violated)[1].rows, 3);
}

#[test]
fn words_alone_do_not_say_that_rows_of_others_were_touched() {
    let scene = Scene::set();
    let campaign = campaign(&scene);
    let journal = campaign_journal(scene.repository.as_ref(), &campaign).expect("a journal");
    let mut entry = CampaignEntry::new(NOW, "ops", EntryKind::Parked);
    entry.tenant = Some(0);
    entry.detail = "a gate said: ISOLATION VIOLATED: 2 rows".to_owned();
    journal
        .append(vec![entry])
        .expect("a repository that works");
    let state = journal.look(|entries| campaign_state(&campaign, entries));
    assert_eq!(state.tenants[0].state, TenantState::Parked);
    assert!(!state.tenants[0].is_violated);
}

/// Two people plan the same tenant in the same instant, and both plans are approved.
#[test]
fn of_two_campaigns_over_one_tenant_one_brings_it_back_and_the_other_parks_it() {
    for is_in_between in [false, true] {
        let scene = Scene::set();
        let repository: &dyn Repository = scene.repository.as_ref();
        let first = campaign_as(&scene, 9, &["acme"]);
        // The second looks for others right before the first is there.
        let record = repository.read("campaign", [9; 16]).expect("a campaign");
        assert!(scene.repository.remove_record("campaign", [9; 16]));
        let second = campaign_as(&scene, 10, &["acme"]);
        repository
            .publish("campaign", [9; 16], &record)
            .expect("a campaign");
        let known = campaigns(scene.repository.as_ref()).expect("campaigns");
        let planned: Vec<_> = known
            .iter()
            .map(|known| known.description().planned_at)
            .collect();
        assert_eq!(planned.len(), 2);
        assert_eq!(planned[0], planned[1], "not in the same instant");
        let live = scene.fixture.store();
        let other = || {
            let end = run(&scene, &second, live);
            assert_eq!(
                end.state.count(TenantState::HandedBack),
                1,
                "{:?}",
                end.stopped
            );
        };
        // The whole of the other one while this one has the tenant closed, or before it.
        let desk = Desk::new(|verb| {
            if verb == CLOSE && is_in_between {
                other();
            }
            Ok(())
        });
        if !is_in_between {
            other();
        }
        let end = as_a_process(&scene, &first, live, &desk, run_campaign);
        assert!(end.stopped.is_none(), "{:?}", end.stopped);
        let site = &end.state.tenants[0];
        assert_eq!(site.state, TenantState::Parked);
        let reason = site.reason.as_deref().unwrap_or_default();
        assert!(
            reason.contains("changed after the plan was made"),
            "{reason}"
        );
        assert_eq!(scene.contents(), scene.then);

        // The one that wrote nothing takes nothing back; the other one does.
        undo(&scene, &first, live);
        assert_eq!(scene.contents(), scene.then);
        let end = undo(&scene, &second, live);
        assert_eq!(end.state.count(TenantState::Undone), 1);
        assert_eq!(scene.contents(), scene.now);
    }
}

/// Rows, and what somebody does while they are read.
struct Meanwhile<'m>(Then<'m>, &'m (dyn Fn() + Sync));

impl Images for Meanwhile<'_> {
    fn images(
        &self,
        context: Context<'_>,
        tenants: &[Tenant],
    ) -> Result<Vec<Result<TenantImage, Error>>, Error> {
        (self.1)();
        self.0.images(context, tenants)
    }
}

#[test]
fn a_campaign_is_not_kept_if_another_one_got_its_tenant_while_it_was_planned() {
    let scene = Scene::set();
    let other = || drop(campaign_as(&scene, 10, &["acme"]));
    let images = Meanwhile(Then(&scene), &other);
    let error = plan(&scene, 9, &["acme"], &images).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    assert!(
        error.to_string().contains("is in campaign 0a0a0a0a"),
        "{error}"
    );
    let known = campaigns(scene.repository.as_ref()).expect("campaigns");
    assert_eq!(known.len(), 1);
}

/// The store's journal says what was committed, and what that left. A receipt is for people.
#[test]
fn a_receipt_that_is_lost_keeps_a_campaign_from_nothing() {
    let (mut unnoted, mut is_met) = (0, true);
    for operation in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let campaign = campaign(&scene);
        let live = scene.fixture.store();
        let repository = scene.repository.as_ref();
        let lose = || {
            let names = Repository::list(repository, "receipt").expect("a list");
            let lost = |name: &&[u8; 16]| repository.remove_record("receipt", **name);
            names.iter().filter(lost).count()
        };
        // The disk of the repository is gone from here on, and comes back without what was kept last.
        let kind = ErrorKind::Unavailable;
        let fault = RepositoryFault::FailFrom { operation, kind };
        let faulty = FaultyRepository::new(scene.repository.clone(), fault);
        let desk = Desk::quiet();
        let _ = attempt(&scene, &campaign, (live, &faulty), &desk, run_campaign);
        is_met = faulty.operation_count() > operation;
        let is_noted = !entries(&scene, &campaign, EntryKind::Merged).is_empty();
        unnoted += usize::from(lose() > 0 && !is_noted);
        retry(&scene, &campaign);
        let end = run(&scene, &campaign, live);
        let done = end.state.count(TenantState::HandedBack);
        assert_eq!(done, 1, "{operation}: {:?}", end.state.tenants[0].reason);
        assert_eq!(scene.contents(), scene.then);
        lose();
        let end = undo(&scene, &campaign, live);
        assert_eq!(end.state.count(TenantState::Undone), 1, "{:?}", end.stopped);
        assert_eq!(scene.contents(), scene.now);
        if !is_met {
            break;
        }
    }
    assert!(!is_met && unnoted > 0, "{unnoted}");
}

/// Somebody put a backup of the whole store back while the campaign was stopped: what is gone is not
/// handed back as done.
#[test]
fn a_store_that_was_set_back_meanwhile_is_noticed_before_a_site_is_opened() {
    let scene = Scene::set();
    let campaign = campaign(&scene);
    let killed = Desk::new(|verb| match verb {
        OPEN => Err(StoreError::new(ErrorKind::Cancelled, "killed")),
        _ => Ok(()),
    });
    let live = scene.fixture.store();
    let end = as_a_process(&scene, &campaign, live, &killed, run_campaign);
    assert!(end.stopped.is_some());
    assert_eq!(scene.contents(), scene.then);
    let set_back = Scene::set();
    let desk = Desk::quiet();
    let end = as_a_process(
        &scene,
        &campaign,
        set_back.fixture.store(),
        &desk,
        run_campaign,
    );
    let site = &end.state.tenants[0];
    assert_eq!(site.state, TenantState::Parked);
    let reason = site.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("the store was set back since"), "{reason}");
    assert!(
        !desk.asked().contains(&OPEN.to_owned()),
        "{:?}",
        desk.asked()
    );
    assert_eq!(set_back.contents(), set_back.now);
}

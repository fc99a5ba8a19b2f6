//! One tenant's way through a campaign: closed, merged and proven store by store, gated, opened.
//!
//! *Crash consistency*: every step may be done again. A merge asks the store's own journal first;
//! closing and opening have to allow it.

use std::thread;
use std::time::Duration;

use reinstate_core::{ErrorKind, Tenant, TenantId};
use reinstate_format::{
    CampaignAction, CampaignCheck, CampaignEntry, CampaignGate, CampaignStep, CampaignTenant,
    EntryKind,
};

use super::check::{Checked, check_counters, check_references};
use super::plan::is_of_the_tenant;
use super::ports::{Deed, StepAnswer, StepPurpose, Subject};
use super::run::{CampaignRun, Shared};
use super::state::{
    GateOutcome, TenantProgress, TenantState, counters_gate, phases, references_gate,
};
use crate::Error;
use crate::plan::StoredPlan;
use crate::restore::{Restored, apply_once};
use crate::verify::{Finding, Verdict, chain};

/// How long a store that is away is left alone before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why a tenant was left before its end.
#[derive(Debug)]
pub(super) enum Left {
    /// Something is wrong with it.
    Parked(String),
    /// It waits for somebody.
    Waiting,
    /// Something is wrong with a store, or somebody asked to stop.
    Stopped(Error),
}

impl Left {
    /// What an error means for the tenant that it happened to.
    pub(super) fn of(error: Error) -> Self {
        match is_of_the_tenant(error.kind()) {
            true => Self::Parked(chain(&error)),
            false => Self::Stopped(error),
        }
    }
}

/// A tenant on its way.
struct Way<'w> {
    run: &'w CampaignRun<'w>,
    shared: &'w Shared<'w>,
    place: u32,
    tenant: &'w CampaignTenant,
    site: Tenant,
    ids: Vec<Option<TenantId>>,
    /// Where it was when this run took it up.
    before: TenantProgress,
}

/// Leads a tenant as far as it goes.
pub(super) fn lead(
    run: &CampaignRun<'_>,
    shared: &Shared<'_>,
    place: u32,
    before: TenantProgress,
) -> Result<(), Left> {
    let description = run.campaign.description();
    let way = Way::new(run, shared, place, before);
    // Nothing is written any more to one that only has to be opened, and may be open.
    if way.before.state != TenantState::Gated {
        way.close()?;
    }
    for phase in phases(description) {
        for (store, planned) in description.stores.iter().enumerate() {
            if planned.phase == phase {
                way.merge(store)?;
            }
        }
        way.check_gates(phase)?;
    }
    way.open()
}

/// Closes a tenant that is not closed, before it is taken back.
pub(super) fn close_again(
    run: &CampaignRun<'_>,
    place: u32,
    before: TenantProgress,
) -> Result<(), Left> {
    let shared = Shared::none();
    Way::new(run, &shared, place, before).close()
}

impl<'w> Way<'w> {
    fn new(
        run: &'w CampaignRun<'w>,
        shared: &'w Shared<'w>,
        place: u32,
        before: TenantProgress,
    ) -> Self {
        let description = run.campaign.description();
        let tenant = &description.tenants[place as usize];
        let ids = tenant.parts.iter();
        Self {
            run,
            shared,
            place,
            tenant,
            site: Tenant {
                kind: description.site_kind.clone(),
                id: tenant.site.clone(),
            },
            ids: ids
                .map(|part| part.as_ref().map(|part| part.tenant.clone()))
                .collect(),
            before,
        }
    }
}

impl Way<'_> {
    fn note(&self, kind: EntryKind, change: impl FnOnce(&mut CampaignEntry)) -> Result<(), Left> {
        let mut entry = self.run.tenant_entry(kind, self.place);
        change(&mut entry);
        self.run.journal.append(vec![entry]).map_err(Left::Stopped)
    }

    fn does(&self, deed: Deed<'_>) {
        self.run.watcher.does(self.place, Some(deed));
    }

    fn check(&self) -> Result<(), Left> {
        self.run.check().map_err(Left::Stopped)
    }

    /// Closes the site before anything of it is written.
    fn close(&self) -> Result<(), Left> {
        let Some(action) = &self.run.campaign.description().close else {
            return Ok(());
        };
        if self.before.is_closed {
            return Ok(());
        }
        self.does(Deed::Closing);
        self.act("close", action)?;
        self.note(EntryKind::Closed, |_| {})
    }

    /// Opens the site, after all of it is proven.
    fn open(&self) -> Result<(), Left> {
        self.check()?;
        self.confirm()?;
        if let Some(action) = &self.run.campaign.description().open {
            self.note(EntryKind::Opening, |_| {})?;
            self.does(Deed::Opening);
            self.act("open", action)?;
        }
        self.note(EntryKind::HandedBack, |_| {})
    }

    fn act(&self, verb: &str, action: &CampaignAction) -> Result<(), Left> {
        let answer = self.step(&action.step, action.timeout_seconds, StepPurpose::Act)?;
        if answer.is_done {
            return Ok(());
        }
        Err(Left::Parked(format!("{verb} the site: {}", answer.text)))
    }

    fn step(
        &self,
        step: &CampaignStep,
        timeout_seconds: u32,
        purpose: StepPurpose,
    ) -> Result<StepAnswer, Left> {
        let subject = Subject {
            site: &self.site,
            tenants: &self.ids,
        };
        let answer = self
            .run
            .operator
            .step(step, timeout_seconds, purpose, subject);
        answer.map_err(|error| Left::of(Error::store("run a step")(error)))
    }

    /// Asks every store's own journal once more: what is opened has to be there.
    fn confirm(&self) -> Result<(), Left> {
        for (store, part) in self.tenant.parts.iter().enumerate() {
            let (Some(part), Some(plan)) = (part, &self.shared.plans[store]) else {
                continue;
            };
            if part.counts.total() == 0 {
                continue;
            }
            let job = plan.plan().description().job;
            let live = self.run.estate[store].live;
            let entry = again(self.run, self.place, || {
                let entry = live.journal_entry(job, &part.tenant);
                entry.map_err(Error::store("read the store's journal"))
            })?;
            if entry.is_none_or(|entry| entry.plan != plan.plan().digest()) {
                return Err(Left::Parked(format!(
                    "{}: its journal does not know the merge: the store was set back since",
                    self.store_name(store)
                )));
            }
        }
        Ok(())
    }

    fn store_name(&self, store: usize) -> String {
        format!(
            "store {}",
            self.run.campaign.description().stores[store].name
        )
    }

    /// Merges and verifies the tenant in one store, unless that was done.
    fn merge(&self, store: usize) -> Result<(), Left> {
        let (Some(part), Some(plan)) = (&self.tenant.parts[store], &self.shared.plans[store])
        else {
            return Ok(());
        };
        if self.before.stores[store].is_verified() {
            return Ok(());
        }
        self.check()?;
        let number = u32::try_from(store).expect("BUG: more stores than numbers");
        self.does(Deed::Queueing { store: number });
        let permit = self.shared.permits[store].take();
        let restored = again(self.run, self.place, || {
            self.does(Deed::Merging { store: number });
            merge_once(self.run, plan, &part.tenant, store)
        });
        drop(permit);
        let restored = restored.map_err(|left| match left {
            Left::Parked(reason) => Left::Parked(format!("{}: {reason}", self.store_name(store))),
            left => left,
        })?;
        let mut merged = self.run.tenant_entry(EntryKind::Merged, self.place);
        merged.store = Some(number);
        merged.rows = restored.receipt.changed_rows();
        merged.digest = Some(restored.receipt.plan);
        merged.position = restored.receipt.committed.map(|commit| commit.position);
        let mut entries = vec![merged];
        if let Verdict::Restored(proof) = &restored.verdict {
            let mut verified = self.run.tenant_entry(EntryKind::Verified, self.place);
            verified.store = Some(number);
            verified.rows = proof.row_count();
            verified.digest = Some(part.image);
            entries.push(verified);
        }
        entries.extend(violated(self.run, self.place, store, &restored.verdict));
        self.run.journal.append(entries).map_err(Left::Stopped)?;
        match unproven(&restored.verdict) {
            None => Ok(()),
            Some(found) => Err(Left::Parked(format!("{}: {found}", self.store_name(store)))),
        }
    }

    /// Looks at the gates of a phase: the engine's own, then the operator's.
    fn check_gates(&self, phase: u8) -> Result<(), Left> {
        self.check_own(&references_gate(phase), || {
            check_references(self.run, self.tenant, phase)
        })?;
        self.check_own(&counters_gate(phase), || {
            check_counters(self.run, self.tenant, self.shared.plans, phase)
        })?;
        let gates = &self.run.campaign.description().gates;
        for gate in gates.iter().filter(|gate| gate.phase == phase) {
            if !self.has_passed(&gate.name) {
                self.check_gate(gate)?;
            }
        }
        Ok(())
    }

    fn has_passed(&self, name: &str) -> bool {
        let gate = self.before.gate(name);
        gate.is_some_and(|gate| gate.outcome == GateOutcome::Passed)
    }

    fn check_own(&self, name: &str, look: impl Fn() -> Result<Checked, Error>) -> Result<(), Left> {
        if self.has_passed(name) {
            return Ok(());
        }
        self.check()?;
        self.does(Deed::Checking { gate: name });
        let checked = again(self.run, self.place, look)?;
        self.decide(name, checked)
    }

    fn decide(&self, name: &str, checked: Checked) -> Result<(), Left> {
        let (kind, detail) = match &checked {
            Checked::Passed(detail) => (EntryKind::GatePassed, detail),
            Checked::Failed(detail) => (EntryKind::GateFailed, detail),
        };
        self.note(kind, |entry| {
            entry.gate = name.to_owned();
            entry.detail.clone_from(detail);
        })?;
        match checked {
            Checked::Passed(_) => Ok(()),
            Checked::Failed(detail) => Err(Left::Parked(format!("gate {name}: {detail}"))),
        }
    }

    fn check_gate(&self, gate: &CampaignGate) -> Result<(), Left> {
        self.check()?;
        let (step, expected, seconds) = match &gate.check {
            CampaignCheck::Acceptance => {
                if self.before.gate(&gate.name).is_none() {
                    self.note(EntryKind::Waiting, |entry| {
                        entry.gate.clone_from(&gate.name);
                    })?;
                }
                return Err(Left::Waiting);
            }
            CampaignCheck::Step {
                step,
                expected,
                timeout_seconds,
            } => (step, expected, *timeout_seconds),
        };
        self.does(Deed::Checking { gate: &gate.name });
        let answer = match self.step(step, seconds, StepPurpose::Check) {
            Ok(answer) => answer,
            Err(Left::Parked(reason)) => StepAnswer {
                is_done: false,
                text: reason,
            },
            Err(left) => return Err(left),
        };
        let is_statement = matches!(step, CampaignStep::Sql { .. });
        let checked = match answer {
            StepAnswer {
                is_done: false,
                text,
            } => Checked::Failed(text),
            StepAnswer { text, .. } if is_statement && text != *expected => {
                Checked::Failed(format!("it answered {text:?}, not {expected:?}"))
            }
            StepAnswer { text, .. } => Checked::Passed(text),
        };
        self.decide(&gate.name, checked)
    }
}

/// That rows of others carry the mark of a merge, if they do.
pub(super) fn violated(
    run: &CampaignRun<'_>,
    place: u32,
    store: usize,
    verdict: &Verdict,
) -> Option<CampaignEntry> {
    let Verdict::IsolationViolated(findings) = verdict else {
        return None;
    };
    let foreign = findings.iter().map(|finding| match finding {
        Finding::ForeignRows { rows } => *rows,
        _ => 0,
    });
    let mut entry = run.tenant_entry(EntryKind::Violated, place);
    entry.store = Some(u32::try_from(store).expect("BUG: more stores than numbers"));
    entry.rows = foreign.sum();
    Some(entry)
}

/// Why a merge is not proven, if it is not.
pub(super) fn unproven(verdict: &Verdict) -> Option<String> {
    if verdict.is_restored() {
        return None;
    }
    let findings: Vec<_> = verdict.findings().iter().map(ToString::to_string).collect();
    let found = findings.join("; ");
    Some(match verdict {
        Verdict::IsolationViolated(_) => format!("ISOLATION VIOLATED: {found}"),
        _ => format!("not proven: {found}"),
    })
}

/// Merges and verifies, or verifies what is merged already, which the store's journal knows.
pub(super) fn merge_once(
    run: &CampaignRun<'_>,
    plan: &StoredPlan,
    tenant: &TenantId,
    store: usize,
) -> Result<Restored, Error> {
    let (open, now) = (&run.estate[store], run.operator.now());
    let context = run.context_of(store);
    apply_once(context, plan, tenant, open.live, open.repository, now)
}

/// Does something with a store, again after a while if the store is away or busy.
pub(super) fn again<T>(
    run: &CampaignRun<'_>,
    place: u32,
    mut attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Left> {
    let mut left = run.limits.store_attempts;
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let kind = error.kind();
        // Unverified: committed, and then the store went away.
        let is_passing = kind == ErrorKind::Unverified || !is_of_the_tenant(kind);
        if !is_passing || kind == ErrorKind::Cancelled || left == 0 {
            return Err(match kind {
                ErrorKind::Unverified => Left::Stopped(error),
                _ => Left::of(error),
            });
        }
        left -= 1;
        let why = chain(&error);
        run.watcher
            .does(place, Some(Deed::TryingAgain { why: &why }));
        thread::sleep(AGAIN_AFTER);
        run.context.check().map_err(Left::Stopped)?;
    }
}

//! Random histories of a shared store, closed under foreign keys at every step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reinstate_core::{ConflictPolicy, Owner, Policy, Switch};

use crate::certification::{Flavour, Profile, Rows, TENANTS, owner};
use crate::{ApplicationChange, ApplicationRow, KeySpace};

/// How many of the kit's tenants a history has.
pub(super) const TENANT_COUNT: usize = 4;

/// How many ids a table draws from. Few, so that steps meet each other's rows.
const ID_COUNT: u8 = 12;

const TEXTS: [Option<&str>; 8] = [
    None,
    Some(""),
    Some("a"),
    Some("b"),
    Some("\\N"),
    Some("caf\u{e9}\t'\n"),
    Some("NULL"),
    Some("a longer text, to be told from the others by more than its first byte"),
];

/// One step of an application. What it means depends on what is there: a comment goes to an
/// issue that exists.
#[derive(Clone, Debug)]
pub(super) struct Step {
    tenant: usize,
    action: u8,
    id: u8,
    parent: u8,
    text: u8,
}

/// A history in two parts, with what to do in between and after.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// Until the snapshot.
    pub(super) before: Vec<Step>,
    /// After it.
    pub(super) after: Vec<Step>,
    /// Which tenants to restore, by their bits; at least one.
    pub(super) restored: u8,
    /// Which switches of the policy are on, by their bits: create, put back, delete.
    pub(super) switches: u8,
}

pub(super) fn histories() -> impl Strategy<Value = History> {
    let step = (
        0..TENANT_COUNT,
        0_u8..20,
        0..ID_COUNT,
        any::<u8>(),
        any::<u8>(),
    );
    let step = step.prop_map(|(tenant, action, id, parent, text)| Step {
        tenant,
        action,
        id,
        parent,
        text,
    });
    let before = proptest::collection::vec(step.clone(), 0..40);
    let after = proptest::collection::vec(step, 1..40);
    let restored = 1..1_u8 << TENANT_COUNT;
    (before, after, restored, 0_u8..8).prop_map(|(before, after, restored, switches)| History {
        before,
        after,
        restored,
        switches,
    })
}

impl History {
    /// The policy with these switches, which gives up where a place is taken.
    pub(super) fn policy(&self) -> Policy {
        let switch = |bit| {
            if self.switches & bit == 0 {
                Switch::Off
            } else {
                Switch::On
            }
        };
        Policy {
            create: switch(1),
            put_back: switch(2),
            delete: switch(4),
            on_conflict: ConflictPolicy::Fail,
        }
    }

    /// The names of the tenants to restore.
    pub(super) fn restored(&self) -> Vec<&'static str> {
        let is_restored = |place: &usize| self.restored & (1 << place) != 0;
        let places = (0..TENANT_COUNT).filter(is_restored);
        places.map(|place| TENANTS[place]).collect()
    }
}

/// What the application knows of its rows.
#[derive(Clone, Debug)]
pub(super) struct Application {
    rows: Rows,
    key_space: KeySpace,
    /// Rows with a key by table, owner where keys are per tenant, and id.
    keyed: BTreeMap<(&'static str, Vec<u8>, String), ApplicationRow>,
    activity: Vec<ApplicationRow>,
}

impl Application {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            rows: Rows {
                flavour: profile.flavour,
                key_space: profile.key_space,
            },
            key_space: profile.key_space,
            keyed: BTreeMap::new(),
            activity: Vec::new(),
        }
    }

    /// What every history starts with: shared rows.
    pub(super) fn start(&mut self) -> Vec<ApplicationChange> {
        let mut changes = vec![ApplicationChange::Put(self.rows.currency("EUR", "euro"))];
        if self.rows.flavour == Flavour::Columns {
            let shared = self.rows.project(&Owner::Shared, 900, Some("everybody's"));
            changes.push(ApplicationChange::Put(shared));
        }
        changes
    }

    /// Something for every tenant, so that a snapshot knows them all.
    pub(super) fn settle(&mut self) -> Vec<ApplicationChange> {
        let mut changes = Vec::new();
        for name in &TENANTS[..TENANT_COUNT] {
            let row = self.rows.setting(&owner(name), "start", Some("here"));
            self.put("settings", "start", row, &mut changes);
        }
        changes
    }

    /// The changes that a run of steps means here.
    pub(super) fn run(&mut self, steps: &[Step]) -> Vec<ApplicationChange> {
        let mut changes = Vec::new();
        for step in steps {
            self.step(step, &mut changes);
        }
        changes
    }

    fn step(&mut self, step: &Step, changes: &mut Vec<ApplicationChange>) {
        let tenant = owner(TENANTS[step.tenant]);
        let text = TEXTS[usize::from(step.text) % TEXTS.len()];
        let id = i64::from(step.id) + 1;
        match step.action {
            0 | 1 => self.put_project(&tenant, id, text, changes),
            2..=4 => {
                let Some(project) = self.own(&tenant, "projects", step.parent) else {
                    return self.put_project(&tenant, id, text, changes);
                };
                let body = TEXTS[usize::from(step.parent) % TEXTS.len()];
                let row = self.rows.issue(&tenant, id, project, text, body);
                self.put("issues", &id.to_string(), row, changes);
            }
            5..=7 => {
                let Some(issue) = self.own(&tenant, "issues", step.parent) else {
                    return;
                };
                let row = self.rows.comment(&tenant, id, issue, text);
                self.put("comments", &id.to_string(), row, changes);
            }
            8..=10 => {
                let subject = TEXTS[usize::from(step.parent) % 3];
                let row = self.rows.activity(&tenant, subject, text);
                self.activity.push(row.clone());
                changes.push(ApplicationChange::Put(row));
            }
            11 | 12 => {
                let found = self.activity.iter().position(|row| row.owner == tenant);
                if let Some(place) = found {
                    let row = self.activity.remove(place);
                    changes.push(ApplicationChange::Delete(row));
                }
            }
            13 | 14 => {
                let name = format!("key {}", step.id % 4);
                let row = self.rows.setting(&tenant, &name, text);
                self.put("settings", &name, row, changes);
            }
            15 => self.delete(
                &tenant,
                "settings",
                &format!("key {}", step.id % 4),
                changes,
            ),
            16 => self.delete(&tenant, "comments", &id.to_string(), changes),
            17 => self.delete(&tenant, "issues", &id.to_string(), changes),
            18 => self.delete(&tenant, "projects", &id.to_string(), changes),
            _ => self.wipe(&tenant, changes),
        }
    }

    fn put_project(
        &mut self,
        tenant: &Owner,
        id: i64,
        text: Option<&str>,
        changes: &mut Vec<ApplicationChange>,
    ) {
        let row = self.rows.project(tenant, id, text);
        self.put("projects", &id.to_string(), row, changes);
    }

    fn place(
        &self,
        table: &'static str,
        owner: &Owner,
        id: &str,
    ) -> (&'static str, Vec<u8>, String) {
        let scoped = self.key_space == KeySpace::PerTenant || table == "settings";
        let scope = if scoped { owner.as_bytes() } else { &[] };
        (table, scope.to_vec(), id.to_owned())
    }

    /// Puts a row unless somebody else has its key. An application does not take rows over.
    fn put(
        &mut self,
        table: &'static str,
        id: &str,
        row: ApplicationRow,
        changes: &mut Vec<ApplicationChange>,
    ) {
        let place = self.place(table, &row.owner, id);
        let present = self.keyed.get(&place);
        if present.is_none_or(|present| present.owner == row.owner) {
            self.keyed.insert(place, row.clone());
            changes.push(ApplicationChange::Put(row));
        }
    }

    /// The id of one of the tenant's rows.
    fn own(&self, tenant: &Owner, table: &str, draw: u8) -> Option<i64> {
        let own = |(place, row): &(&(&str, Vec<u8>, String), &ApplicationRow)| {
            place.0 == table && row.owner == *tenant
        };
        let rows: Vec<_> = self.keyed.iter().filter(own).collect();
        let (place, _) = rows.get(usize::from(draw) % rows.len().max(1))?;
        place.2.parse().ok()
    }

    /// Deletes a row of the tenant and, before it, all that refer to it.
    fn delete(
        &mut self,
        tenant: &Owner,
        table: &'static str,
        id: &str,
        changes: &mut Vec<ApplicationChange>,
    ) {
        let place = self.place(table, tenant, id);
        if self
            .keyed
            .get(&place)
            .is_none_or(|row| row.owner != *tenant)
        {
            return;
        }
        let child = match table {
            "projects" => Some("issues"),
            "issues" => Some("comments"),
            _ => None,
        };
        if let Some(child) = child {
            // The parent's id stands before the texts: third from the end, or second.
            let from_end = if child == "issues" { 3 } else { 2 };
            let refers = |(place, row): &(&(&str, Vec<u8>, String), &ApplicationRow)| {
                let parent = row
                    .values
                    .len()
                    .checked_sub(from_end)
                    .and_then(|at| row.values.get(at));
                place.0 == child
                    && row.owner == *tenant
                    && parent.is_some_and(|value| value.as_deref() == Some(id.as_bytes()))
            };
            let children: Vec<String> = self
                .keyed
                .iter()
                .filter(refers)
                .map(|(place, _)| place.2.clone())
                .collect();
            for id in children {
                self.delete(tenant, child, &id, changes);
            }
        }
        if let Some(row) = self.keyed.remove(&place) {
            changes.push(ApplicationChange::Delete(row));
        }
    }

    fn wipe(&mut self, tenant: &Owner, changes: &mut Vec<ApplicationChange>) {
        for table in ["comments", "issues", "projects", "settings"] {
            let own: Vec<String> = self
                .keyed
                .iter()
                .filter(|(place, row)| place.0 == table && row.owner == *tenant)
                .map(|(place, _)| place.2.clone())
                .collect();
            for id in own {
                self.delete(tenant, table, &id, changes);
            }
        }
        let (gone, kept) = std::mem::take(&mut self.activity)
            .into_iter()
            .partition(|row| row.owner == *tenant);
        self.activity = kept;
        changes.extend(Vec::into_iter(gone).map(ApplicationChange::Delete));
    }
}

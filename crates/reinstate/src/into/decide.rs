//! Which classes get new values, and which columns an operator has to decide about first.
//!
//! No two rows of a store may agree in the columns of a unique key, so that at least one of them has
//! to change, or the copy would meet the original. Numbers and uuids that stand for nothing but their
//! row change by themselves; of what means something, only people know what it may become.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ErrorKind, LiveView, TableIndex, TenantId, UniqueKey, ValueKind};

use super::Source;
use super::classes::{Class, Classes, Place, TENANT};
use super::rules::{self, ColumnRule, CopyRules, usage};
use super::words::undecided;
use crate::Error;

/// What becomes of the values of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// They are the tenant's id.
    Tenant,
    /// They are replaced by new ones of this kind.
    New(ValueKind),
    /// Something stands before and after them.
    Affix { prefix: String, suffix: String },
}

/// What becomes of all columns.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    classes: BTreeMap<Class, Decision>,
    /// Classes that an operator wants to stay as they are.
    kept: BTreeSet<Class>,
    nulls: BTreeSet<Place>,
}

impl Decisions {
    /// Decides, by rule or as the operator says.
    ///
    /// # Errors
    /// `Usage` if a rule does not fit its column; `Refused` with every key that nothing decides.
    pub(super) fn find(
        source: &Source<'_>,
        classes: &Classes,
        rules: &CopyRules,
        tenant: &TenantId,
    ) -> Result<Self, Error> {
        let mut decisions = Self::default();
        decisions.classes.insert(TENANT, Decision::Tenant);
        decisions.read_rules(source.view, classes, rules, tenant)?;
        decisions.check_left_out(source, classes)?;
        let mut open = Vec::new();
        for (table, _) in source.view.schema().iter() {
            if source.has_rows(table) {
                let keys = source.view.unique_keys(table);
                let keys = keys.map_err(Error::store("look for keys that must be unique"))?;
                open.extend(keys.into_iter().map(|key| (table, key)));
            }
        }
        decisions.decide_keys(source.view, classes, &mut open);
        decisions.read_names(source.view, classes, (rules, tenant), &open)?;
        decisions.decide_keys(source.view, classes, &mut open);
        if open.is_empty() {
            return Ok(decisions);
        }
        let message = format!(
            "nothing was written: a copy of {} cannot hold what the original does in the columns of \
             these keys. Say for each of them what it holds instead, in a column at least:\n{}or, under \
             [into], columns = {{ NAME = \"...\" }} for columns of that name in all tables, or \
             left_out = [\"TABLE\"] for tables that are not copied",
            source.image.tenant(),
            undecided(source.view, classes, &open)
        );
        Err(Error::new(ErrorKind::Refused, message))
    }

    /// What becomes of a class; none if it stays as it is.
    pub(super) fn of(&self, class: Class) -> Option<&Decision> {
        self.classes.get(&class)
    }

    /// All classes that change.
    pub(super) fn all(&self) -> impl Iterator<Item = (Class, &Decision)> {
        self.classes
            .iter()
            .map(|(class, decision)| (*class, decision))
    }

    /// Whether an operator wants a class to stay as it is.
    pub(super) fn is_kept(&self, class: Class) -> bool {
        self.kept.contains(&class)
    }

    /// Whether a column is NULL in the copy.
    pub(super) fn is_null(&self, place: Place) -> bool {
        self.nulls.contains(&place)
    }

    fn read_rules(
        &mut self,
        view: &dyn LiveView,
        classes: &Classes,
        rules: &CopyRules,
        tenant: &TenantId,
    ) -> Result<(), Error> {
        let schema = view.schema();
        for (name, rules) in &rules.tables {
            let table = rules::table(schema, name)?;
            for (column_name, rule) in &rules.columns {
                let column = rules::column(schema, table, column_name)?;
                self.read_rule(view, classes, (table, column), rule, tenant)?;
            }
        }
        Ok(())
    }

    /// What refers to rows that are left out would refer to the original's.
    fn check_left_out(&self, source: &Source<'_>, classes: &Classes) -> Result<(), Error> {
        for follow in &classes.follows {
            let Some(target) = follow.target else {
                continue;
            };
            let leads_out = source.left_out.contains(&target.0) && follow.class != TENANT;
            if leads_out && source.has_rows(follow.child.0) && !self.is_null(follow.child) {
                let schema = source.view.schema();
                let (parent, child) = (schema.table(target.0), schema.table(follow.child.0));
                let column = &child.columns[follow.child.1.get()].name;
                return Err(usage(format!(
                    "into: {} is left out, and {}.{column} refers to it: leave {} out as well, or say \
                     {column} = \"null\"",
                    parent.name, child.name, child.name
                )));
            }
        }
        Ok(())
    }

    fn read_rule(
        &mut self,
        view: &dyn LiveView,
        classes: &Classes,
        place: Place,
        rule: &ColumnRule,
        tenant: &TenantId,
    ) -> Result<(), Error> {
        let table = view.schema().table(place.0);
        let column = &table.columns[place.1.get()];
        let wrong = |fact: &str| usage(format!("into: {}.{} {fact}", table.name, column.name));
        let class = classes.of(place);
        let class = class.ok_or_else(|| wrong("is no column of tenants' rows"))?;
        if class == TENANT {
            return Err(wrong("holds the tenant's id, which is the new one anyway"));
        }
        if *rule == ColumnRule::Null {
            if !column.nullable {
                return Err(wrong("may not be NULL"));
            }
            if classes.is_referred(place) {
                return Err(wrong("cannot be NULL: other columns refer to it"));
            }
            self.nulls.insert(place);
            return Ok(());
        }
        if classes.refers(place) {
            return Err(wrong("is a reference, and follows what it refers to"));
        }
        let decision = decide(rule, kind(view, classes, class), tenant).map_err(wrong)?;
        let is_new = match decision {
            None => self.kept.insert(class),
            Some(decision) => self.classes.insert(class, decision).is_none(),
        };
        if !is_new || self.kept.contains(&class) && self.classes.contains_key(&class) {
            return Err(wrong("has the values of another column with a rule"));
        }
        Ok(())
    }

    /// Does what the operator said of columns by their names alone, where it is needed.
    fn read_names(
        &mut self,
        view: &dyn LiveView,
        classes: &Classes,
        (rules, tenant): (&CopyRules, &TenantId),
        open: &[(TableIndex, UniqueKey)],
    ) -> Result<(), Error> {
        for (table, key) in open {
            let described = view.schema().table(*table);
            for column in &key.columns {
                let name = &described.columns[column.get()].name;
                let is_open = !self.settles(classes, *table, key);
                if let Some(rule) = rules.columns.get(name)
                    && is_open
                {
                    self.read_rule(view, classes, (*table, *column), rule, tenant)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the keys away in which some column changes, after choosing those that can only be meant.
    fn decide_keys(
        &mut self,
        view: &dyn LiveView,
        classes: &Classes,
        open: &mut Vec<(TableIndex, UniqueKey)>,
    ) {
        open.sort_by_key(|(_, key)| key.columns.len());
        loop {
            open.retain(|(table, key)| !self.settles(classes, *table, key));
            let mut chosen = None;
            for (table, key) in open.iter() {
                let mut candidates = BTreeMap::new();
                for column in &key.columns {
                    candidates.extend(self.candidate(view, classes, (*table, *column)));
                }
                if candidates.len() == 1 {
                    chosen = candidates.pop_first();
                    break;
                }
            }
            let Some((class, kind)) = chosen else { return };
            self.classes.insert(class, Decision::New(kind));
        }
    }

    /// Whether no row of the copy can meet the original's in this key, or the operator takes it on.
    fn settles(&self, classes: &Classes, table: TableIndex, key: &UniqueKey) -> bool {
        key.columns.iter().any(|column| {
            let place = (table, *column);
            let class = classes.of(place);
            let is_settled =
                |class| self.classes.contains_key(&class) || self.kept.contains(&class);
            // What refers to one thing in some rows, and to another in others, follows each of them.
            let mut others = classes.follows.iter().filter(|follow| {
                follow.child == place && !follow.is_whole && follow.path.is_none()
            });
            self.is_null(place)
                || class.is_some_and(is_settled)
                || others.any(|follow| self.classes.contains_key(&follow.class))
        })
    }

    /// The class of a column, with its kind, if it may change without anybody being asked.
    fn candidate(
        &self,
        view: &dyn LiveView,
        classes: &Classes,
        place: Place,
    ) -> Option<(Class, ValueKind)> {
        let mut follows = classes.follows.iter();
        if follows.any(|follow| follow.child == place && !follow.is_whole) {
            return None;
        }
        let class = classes
            .of(place)
            .filter(|class| !classes.is_pinned(*class))?;
        let kind = kind(view, classes, class);
        let is_number = matches!(kind, ValueKind::Integer { .. } | ValueKind::Uuid);
        is_number.then_some((class, kind))
    }
}

/// What a rule makes of a class of this kind; none if it stays. The error is what does not fit.
fn decide(
    rule: &ColumnRule,
    kind: ValueKind,
    tenant: &TenantId,
) -> Result<Option<Decision>, &'static str> {
    let (before, after) = match (rule, kind) {
        (ColumnRule::Keep | ColumnRule::Null, _) => return Ok(None),
        (ColumnRule::New, ValueKind::Json | ValueKind::Other) => {
            return Err("is no whole number, uuid, text or bytes: \"new\" does not fit");
        }
        (ColumnRule::New, _) => return Ok(Some(Decision::New(kind))),
        (ColumnRule::Prefix(text), ValueKind::Text { .. }) => (Some(text), None),
        (ColumnRule::Suffix(text), ValueKind::Text { .. }) => (None, Some(text)),
        _ => return Err("is no text: a prefix or suffix does not fit"),
    };
    let said = |text: Option<&Option<String>>, usual: String| match text {
        None => String::new(),
        Some(None) => usual,
        Some(Some(text)) => text.clone(),
    };
    let (prefix, suffix) = (
        said(before, format!("{tenant}-")),
        said(after, format!("-{tenant}")),
    );
    if prefix.is_empty() && suffix.is_empty() {
        return Err("would stay as it is: say \"keep\" if that is meant");
    }
    Ok(Some(Decision::Affix { prefix, suffix }))
}

/// The kind of the values of a class; of numbers, those that fit into all of its columns.
pub(super) fn kind(view: &dyn LiveView, classes: &Classes, class: Class) -> ValueKind {
    let kinds = classes
        .members(class)
        .map(|(table, column)| view.value_kind(table, column));
    let common = kinds.reduce(|left, right| match (left, right) {
        (
            ValueKind::Integer { min, max },
            ValueKind::Integer {
                min: other_min,
                max: other_max,
            },
        ) => ValueKind::Integer {
            min: min.max(other_min),
            max: max.min(other_max),
        },
        (ValueKind::Uuid, ValueKind::Uuid) => ValueKind::Uuid,
        (ValueKind::Bytes, ValueKind::Bytes) => ValueKind::Bytes,
        (ValueKind::Text { .. }, ValueKind::Text { .. }) => ValueKind::Text {
            characters_max: None,
        },
        _ => ValueKind::Other,
    });
    common.unwrap_or(ValueKind::Other)
}

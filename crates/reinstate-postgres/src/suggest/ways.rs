//! The ways from one table to others, with what speaks for and against each.

use reinstate_core::{ColumnIndex, TableIndex};

use super::decide::{Standing, State};
use super::undeclared::{Guess, Kinds, Pair, guesses, of_kind};
use crate::catalog::ForeignKey;
use crate::tenancy::{NamedReference, RouteRule, TableRule, Unowned};

/// A way from a table towards the tenant.
pub(super) struct Way {
    /// The rule, if this is the only way.
    pub decision: TableRule,
    /// What it is among several ways.
    pub routes: Vec<RouteRule>,
    pub reason: String,
    /// Whether the configuration can name it.
    pub can_be_written: bool,
}

/// The columns of a way on both sides.
struct Ends<'k> {
    columns: &'k [ColumnIndex],
    parent: TableIndex,
    parent_columns: &'k [ColumnIndex],
}

impl Way {
    /// The way along a key that every row has.
    pub(super) fn firm(state: &State<'_>, key: &ForeignKey) -> Self {
        let ends = Ends::of(key);
        let reason = format!(
            "{} {} never NULL and {} to {}",
            state.facts.columns_text(key.child, ends.columns),
            plural(ends.columns, "is", "are"),
            plural(ends.columns, "leads", "lead"),
            state.facts.name(ends.parent)
        );
        Self::along(state, key.child, &ends, Unowned::Refused, reason)
    }

    fn along(
        state: &State<'_>,
        child: TableIndex,
        ends: &Ends<'_>,
        unowned: Unowned,
        mut reason: String,
    ) -> Self {
        let facts = state.facts;
        let reference = facts.reference_text(child, ends.columns, ends.parent, ends.parent_columns);
        let named = NamedReference::parse(facts.name(child), &reference).is_ok_and(|named| {
            let names = |table: TableIndex, columns: &[ColumnIndex]| -> Vec<String> {
                let columns = columns.iter();
                let names = columns.map(|&column| facts.column_name(table, column).to_owned());
                names.collect()
            };
            named.parent == facts.name(ends.parent)
                && named.columns == names(child, ends.columns)
                && named.parent_columns == names(ends.parent, ends.parent_columns)
        });
        let decision = match ends.columns {
            [column] if state.is_tenant(ends.parent, ends.parent_columns) => TableRule::Direct {
                column: facts.column_name(child, *column).to_owned(),
            },
            _ => TableRule::Via {
                reference: reference.clone(),
                unowned,
            },
        };
        let can_be_written = named || !matches!(decision, TableRule::Via { .. });
        if !can_be_written {
            reason.push_str(", but a rule cannot name a column with one of . , -> in its name");
        }
        Self {
            decision,
            routes: vec![RouteRule {
                when: None,
                via: reference,
            }],
            reason,
            can_be_written,
        }
    }

    /// The way along a key that is no proof.
    fn weak(state: &State<'_>, key: &ForeignKey) -> Self {
        let facts = state.facts;
        let ends = Ends::of(key);
        let columns = facts.columns_text(key.child, ends.columns);
        let parent = facts.name(ends.parent);
        let lead = format!(
            "{columns} {} to {parent}",
            plural(ends.columns, "leads", "lead")
        );
        let mut doubts = Vec::new();
        let mut nullable = ends.columns.iter();
        let is_nullable = nullable.any(|&column| facts.is_nullable(key.child, column));
        if is_nullable {
            doubts.push("may be NULL".to_owned());
        }
        if !key.is_validated {
            doubts.push(format!("the key {} is not validated", key.name));
        }
        if state.standing(ends.parent) == Standing::Undecided {
            doubts.push(format!("{parent} is to be decided first"));
        }
        let unowned = if is_nullable {
            Unowned::Shared
        } else {
            Unowned::Refused
        };
        let reason = format!("{lead}, but {}", doubts.join(" and "));
        Self::along(state, key.child, &ends, unowned, reason)
    }

    fn guessed(state: &State<'_>, child: TableIndex, guess: &Guess) -> Self {
        let facts = state.facts;
        let reason = format!(
            "{} looks like {}.{}, but no foreign key says so",
            facts.column_name(child, guess.column),
            facts.name(guess.parent),
            facts.column_name(guess.parent, guess.parent_column)
        );
        let ends = Ends {
            columns: &[guess.column],
            parent: guess.parent,
            parent_columns: &[guess.parent_column],
        };
        Self::along(state, child, &ends, Unowned::Shared, reason)
    }
}

impl<'k> Ends<'k> {
    fn of(key: &'k ForeignKey) -> Self {
        Self {
            columns: &key.reference.columns,
            parent: key.reference.parent,
            parent_columns: &key.reference.parent_columns,
        }
    }
}

/// Every way of a table that not every row has, or that nothing guards; at its end are rows that
/// belong to tenants, or may.
pub(super) fn weak_ways(state: &State<'_>, index: TableIndex) -> Vec<Way> {
    let is_reached = |parent: TableIndex| {
        matches!(
            state.standing(parent),
            Standing::Owned | Standing::Undecided
        )
    };
    let mut ways = Vec::new();
    for (pair, kinds) in pairs_of(state, index) {
        ways.extend(weak_pair(state, pair, kinds, &is_reached));
    }
    let mut keys: Vec<&ForeignKey> = state.facts.keys_of(index).collect();
    keys.retain(|key| is_reached(key.reference.parent));
    // A way that every row has would leave nothing to those after it.
    keys.sort_by_key(|key| state.facts.is_firm(key));
    let guesses = guesses(state.facts, index, state.kinds);
    let guesses = guesses.iter().filter(|guess| is_reached(guess.parent));
    ways.extend(guesses.map(|guess| Way::guessed(state, index, guess)));
    ways.extend(keys.into_iter().map(|key| Way::weak(state, key)));
    ways
}

fn pairs_of<'s>(
    state: &'s State<'_>,
    index: TableIndex,
) -> impl Iterator<Item = (Pair, &'s Kinds)> {
    let pairs = state.kinds.iter();
    pairs
        .filter(move |(pair, _)| pair.table == index)
        .map(|(pair, kinds)| (*pair, kinds))
}

/// The only pair of a table that was read, if every kind in it leads to a row of a tenant's.
pub(super) fn counted_pair(
    state: &State<'_>,
    index: TableIndex,
) -> Option<(Vec<RouteRule>, String)> {
    let facts = state.facts;
    let mut pairs = pairs_of(state, index);
    let ((pair, Kinds::Read(kinds)), None) = (pairs.next()?, pairs.next()) else {
        return None;
    };
    let is_whole = [pair.kind, pair.id]
        .iter()
        .all(|&column| !facts.is_nullable(index, column));
    if !is_whole || kinds.is_empty() {
        return None;
    }
    let mut routes = Vec::new();
    for kind in kinds {
        let guess = of_kind(facts, pair, kind)?;
        let way = Way::guessed(state, index, &guess);
        if state.standing(guess.parent) != Standing::Owned || !way.can_be_written {
            return None;
        }
        routes.push(route(state, pair, kind, way)?);
    }
    let (kind, id) = pair_names(state, pair);
    let reason = format!(
        "{kind} and {id} are never NULL, and every kind that is there names a table of tenants' rows"
    );
    Some((routes, reason))
}

/// A pair as far as it leads to tenants' rows; nothing if it was read and leads nowhere.
fn weak_pair(
    state: &State<'_>,
    pair: Pair,
    kinds: &Kinds,
    is_reached: &dyn Fn(TableIndex) -> bool,
) -> Option<Way> {
    let (kind_name, id_name) = pair_names(state, pair);
    let lead = format!("{kind_name} and {id_name} name a row of one of several tables");
    let unread = |doubt: &str| Way {
        decision: TableRule::Shared,
        routes: Vec::new(),
        reason: format!("{lead}, but {doubt}"),
        can_be_written: false,
    };
    let kinds = match kinds {
        Kinds::NotRead => return Some(unread("which ones was not read: add --count")),
        Kinds::TooMany => return Some(unread("there are too many kinds")),
        Kinds::Read(kinds) if kinds.is_empty() => {
            return Some(unread("no row says yet which ones"));
        }
        Kinds::Read(kinds) => kinds,
    };
    let (mut routes, mut unknown) = (Vec::new(), Vec::new());
    for kind in kinds {
        let found = of_kind(state.facts, pair, kind).filter(|guess| is_reached(guess.parent));
        let found = found.and_then(|guess| {
            let way = Way::guessed(state, pair.table, &guess);
            route(state, pair, kind, way)
        });
        match found {
            Some(route) => routes.push(route),
            None => unknown.push(kind.as_str()),
        }
    }
    if routes.is_empty() {
        return None;
    }
    let mut doubts = Vec::new();
    let nullable = [pair.kind, pair.id]
        .iter()
        .any(|&column| state.facts.is_nullable(pair.table, column));
    if nullable {
        doubts.push("may be NULL".to_owned());
    }
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        doubts.push(format!(
            "nothing of a tenant's is known by the kind {unknown}"
        ));
    }
    if doubts.is_empty() {
        doubts.push("one of those is to be decided first".to_owned());
    }
    let is_partial = nullable || !unknown.is_empty();
    let unowned = if is_partial {
        Unowned::Shared
    } else {
        Unowned::Refused
    };
    Some(Way {
        decision: TableRule::OneOf {
            routes: routes.clone(),
            unowned,
        },
        routes,
        reason: format!("{lead}, but {}", doubts.join(" and ")),
        can_be_written: true,
    })
}

/// The route of rows of one kind; none if no rule can say so.
fn route(state: &State<'_>, pair: Pair, kind: &str, way: Way) -> Option<RouteRule> {
    let (column, _) = pair_names(state, pair);
    let is_plain = !kind.is_empty() && kind.trim() == kind && !kind.contains(char::is_control);
    let via = way.routes.into_iter().next()?.via;
    (is_plain && !column.contains('=')).then(|| RouteRule {
        when: Some(format!("{column} = {kind}")),
        via,
    })
}

fn pair_names<'s>(state: &'s State<'_>, pair: Pair) -> (&'s str, &'s str) {
    let name = |column| state.facts.column_name(pair.table, column);
    (name(pair.kind), name(pair.id))
}

fn plural(columns: &[ColumnIndex], one: &'static str, several: &'static str) -> &'static str {
    if columns.len() == 1 { one } else { several }
}

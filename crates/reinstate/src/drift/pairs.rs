//! Which table and column of a snapshot is which live one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reinstate_core::{
    ColumnIndex, Reference, Route, RouteCondition, StoreSchema, TableIndex, Tenancy,
};

use super::DriftRules;

/// Tables and columns that are the same, by name or by rule.
#[derive(Debug)]
pub(super) struct Pairs {
    /// By the snapshot's tables.
    targets: Vec<Option<Target>>,
    /// By the live tables.
    sources: HashMap<TableIndex, TableIndex>,
}

#[derive(Debug)]
struct Target {
    table: TableIndex,
    /// By the snapshot's columns.
    columns: Vec<Option<ColumnIndex>>,
}

impl Pairs {
    pub(super) fn find(then: &StoreSchema, now: &StoreSchema, rules: &DriftRules) -> Self {
        let mut sources = HashMap::new();
        let mut targets = Vec::with_capacity(then.tables().len());
        for (index, was) in then.iter() {
            let name = was.name.as_str();
            let live_name = new_name(name, &rules.renamed, &rules.dropped);
            let target = live_name.and_then(|name| Some((name, now.find(name)?)));
            let target = target.map(|(live_name, (table, live))| {
                let rules = rules.tables.get(live_name);
                let column = |name: &str| match rules {
                    None => live.column(name),
                    Some(rules) => live.column(new_name(name, &rules.renamed, &rules.dropped)?),
                };
                let columns = was.columns.iter().map(|was| column(&was.name)).collect();
                Target { table, columns }
            });
            if let Some(target) = &target {
                sources.entry(target.table).or_insert(index);
            }
            targets.push(target);
        }
        Self { targets, sources }
    }

    /// The snapshot's table that became this live one.
    pub(super) fn source(&self, target: TableIndex) -> Option<TableIndex> {
        self.sources.get(&target).copied()
    }

    /// The live table that this one of the snapshot became.
    pub(super) fn target(&self, source: TableIndex) -> Option<TableIndex> {
        let target = self.targets[source.get()].as_ref()?.table;
        (self.source(target) == Some(source)).then_some(target)
    }

    /// The live column that this one of the snapshot became.
    pub(super) fn column(&self, source: TableIndex, column: ColumnIndex) -> Option<ColumnIndex> {
        let target = self.targets[source.get()].as_ref()?;
        target.columns.get(column.get()).copied().flatten()
    }

    /// The snapshot's column that became this live one.
    pub(super) fn column_source(
        &self,
        source: TableIndex,
        column: ColumnIndex,
    ) -> Option<ColumnIndex> {
        let columns = &self.targets[source.get()].as_ref()?.columns;
        let place = columns.iter().position(|target| *target == Some(column))?;
        u32::try_from(place).ok().map(ColumnIndex)
    }

    /// What the tenancy of a table of the snapshot is in terms of the live tables; none if it
    /// leads through something that is gone.
    pub(super) fn tenancy(&self, source: TableIndex, tenancy: &Tenancy) -> Option<Tenancy> {
        Some(match tenancy {
            Tenancy::Native => Tenancy::Native,
            Tenancy::Shared => Tenancy::Shared,
            Tenancy::Excluded => Tenancy::Excluded,
            Tenancy::Direct { column } => Tenancy::Direct {
                column: self.column(source, *column)?,
            },
            Tenancy::Via { reference } => Tenancy::Via {
                reference: self.reference(source, reference)?,
            },
            Tenancy::OneOf { routes } => {
                let routes = routes.iter().map(|route| {
                    let condition = match &route.condition {
                        None => None,
                        Some(RouteCondition { column, value }) => Some(RouteCondition {
                            column: self.column(source, *column)?,
                            value: value.clone(),
                        }),
                    };
                    let reference = self.reference(source, &route.reference)?;
                    Some(Route {
                        condition,
                        reference,
                    })
                });
                Tenancy::OneOf {
                    routes: routes.collect::<Option<_>>()?,
                }
            }
        })
    }

    /// What a reference of a table of the snapshot is in terms of the live tables.
    pub(super) fn reference(&self, source: TableIndex, reference: &Reference) -> Option<Reference> {
        let columns = |table: TableIndex, columns: &[ColumnIndex]| {
            let columns = columns.iter().map(|column| self.column(table, *column));
            columns.collect::<Option<Vec<_>>>()
        };
        Some(Reference {
            columns: columns(source, &reference.columns)?,
            parent: self.target(reference.parent)?,
            parent_columns: columns(reference.parent, &reference.parent_columns)?,
        })
    }
}

/// What became of a name; none if that what had it is gone. What a rule says goes before what is
/// called the same: a name that something else was given belongs to that.
fn new_name<'n>(
    name: &'n str,
    renamed: &'n BTreeMap<String, String>,
    dropped: &BTreeSet<String>,
) -> Option<&'n str> {
    if dropped.contains(name) {
        return None;
    }
    if let Some(new_name) = renamed.get(name) {
        let mut givers = renamed.iter().filter(|(_, given)| *given == new_name);
        // One name cannot be given twice: the first has it, the other is to be decided.
        let is_first = givers.next().is_some_and(|(giver, _)| giver == name);
        return is_first.then_some(new_name);
    }
    let is_given_away = renamed.values().any(|given| given == name);
    (!is_given_away).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_goes_before_a_name_and_no_name_is_given_twice() {
        let rules = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
                .collect()
        };
        let (none, b) = (BTreeSet::new(), BTreeSet::from(["b".to_owned()]));
        let renamed = rules(&[("a", "b")]);
        assert_eq!(new_name("a", &renamed, &none), Some("b"));
        assert_eq!(new_name("b", &renamed, &none), None);
        assert_eq!(new_name("c", &renamed, &none), Some("c"));
        assert_eq!(new_name("b", &renamed, &b), None);
        assert_eq!(new_name("b", &rules(&[]), &b), None);
        let swapped = rules(&[("a", "b"), ("b", "a")]);
        assert_eq!(new_name("a", &swapped, &none), Some("b"));
        assert_eq!(new_name("b", &swapped, &none), Some("a"));
        let twice = rules(&[("a", "x"), ("b", "x")]);
        assert_eq!(new_name("a", &twice, &none), Some("x"));
        assert_eq!(new_name("b", &twice, &none), None);
    }
}

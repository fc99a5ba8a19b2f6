//! Columns that hold each other's values.
//!
//! If a column refers to another, whatever becomes of the one has to become of the other. A
//! reference that holds for some rows only, or that is inside of a document, follows what it refers
//! to without being followed.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use reinstate_core::{
    ColumnIndex, ErrorKind, LiveView, Reference, RouteCondition, StoreSchema, TableIndex, Tenancy,
    ValueKind,
};

use super::json::{PATHS_MAX, Step};
use super::rules::{self, CopyRules, JsonTarget};
use crate::Error;

/// A column of a table.
pub(super) type Place = (TableIndex, ColumnIndex);

/// A set of columns that are rewritten by the same function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class(usize);

/// The class of the tenant's own id.
pub(super) const TENANT: Class = Class(0);

/// A reference that is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Follow {
    /// Where it stands.
    pub child: Place,
    /// Which rows have it; none: all.
    pub condition: Option<RouteCondition>,
    /// Inside of which documents, if the column holds documents.
    pub path: Option<Vec<Step>>,
    /// The class of what it leads to.
    pub class: Class,
    /// What it leads to; none if it is the tenant's id.
    pub target: Option<Place>,
    /// Whether the column is of the class itself.
    pub is_whole: bool,
    /// Whether it always leads to a row of the same tenant.
    pub is_sure: bool,
}

impl Class {
    /// As the number of a table, to be sorted by.
    pub(super) fn as_table(self) -> TableIndex {
        TableIndex(u32::try_from(self.0).expect("BUG: more classes than columns"))
    }
}

/// The columns of all tables that tenants own, by class.
pub(super) struct Classes {
    class_of: BTreeMap<Place, Class>,
    /// Columns that refer to others, and whether one of the references is sure to lead to a row of the
    /// tenant.
    referring: BTreeMap<Place, bool>,
    /// Columns that others refer to, in any way.
    referred: BTreeSet<Place>,
    /// Classes of which a column refers to rows that no tenant owns.
    pinned: BTreeSet<Class>,
    /// All references into a class.
    pub(super) follows: Vec<Follow>,
}

impl Classes {
    /// Sorts the columns out.
    ///
    /// # Errors
    /// `Usage` if a rule names what there is not.
    pub(super) fn find(view: &dyn LiveView, rules: &CopyRules) -> Result<Self, Error> {
        let schema = view.schema();
        let mut finder = Finder {
            view,
            schema,
            sets: Sets::default(),
            found: Vec::new(),
            pinned: Vec::new(),
        };
        let tenants = finder.sets.add();
        for (table, described) in schema.iter() {
            if !described.tenancy.is_tenant_owned() {
                continue;
            }
            if let Tenancy::Direct { column } = described.tenancy {
                let own = finder.sets.number((table, column));
                finder.sets.join(tenants, own);
            }
            finder.add_table(table);
        }
        for (name, rules) in &rules.tables {
            let table = rules::table(schema, name)?;
            for reference in &rules.references {
                let (condition, pairs) = reference.parse(schema, table)?;
                for (column, parent) in pairs {
                    finder.add((table, column), parent, condition.clone(), false);
                }
            }
        }
        finder.finish(view, rules)
    }

    /// The class of a column.
    pub(super) fn of(&self, place: Place) -> Option<Class> {
        self.class_of.get(&place).copied()
    }

    /// The columns of a class.
    pub(super) fn members(&self, class: Class) -> impl Iterator<Item = Place> {
        let all = self.class_of.iter();
        all.filter(move |(_, of)| **of == class)
            .map(|(place, _)| *place)
    }

    /// The columns of a class whose values are not those of another one. If its references form a
    /// circle, all that are referred to.
    pub(super) fn roots(&self, class: Class) -> Vec<Place> {
        let members: Vec<Place> = self.members(class).collect();
        let roots = members.iter().filter(|place| !self.refers(**place));
        let roots: Vec<Place> = roots.copied().collect();
        if roots.is_empty() { members } else { roots }
    }

    /// Whether a column takes its values from another.
    pub(super) fn refers(&self, place: Place) -> bool {
        self.referring.contains_key(&place)
    }

    /// Whether another column takes values from this one.
    pub(super) fn is_referred(&self, place: Place) -> bool {
        self.referred.contains(&place)
    }

    /// Whether a column of the class refers to rows that no tenant owns.
    pub(super) fn is_pinned(&self, class: Class) -> bool {
        self.pinned.contains(&class)
    }
}

struct Finder<'a> {
    view: &'a dyn LiveView,
    schema: &'a StoreSchema,
    sets: Sets,
    found: Vec<Found>,
    pinned: Vec<Place>,
}

/// A reference whose class is not known yet.
struct Found {
    child: Place,
    condition: Option<RouteCondition>,
    target: Place,
    is_whole: bool,
    is_sure: bool,
}

impl Finder<'_> {
    fn add_table(&mut self, table: TableIndex) {
        let described = self.schema.table(table);
        match &described.tenancy {
            Tenancy::Via { reference } => self.add_reference(table, reference, None, true),
            Tenancy::OneOf { routes } => {
                for route in routes {
                    self.add_reference(table, &route.reference, route.condition.as_ref(), false);
                }
            }
            _ => {}
        }
        for reference in &described.references {
            let is_sure = self.names_tenant(table, reference);
            self.add_reference(table, reference, None, is_sure);
        }
        for column in 0..described.columns.len() {
            let column = u32::try_from(column).expect("BUG: more columns than a row can have");
            self.sets.number((table, ColumnIndex(column)));
        }
    }

    fn add_reference(
        &mut self,
        table: TableIndex,
        reference: &Reference,
        condition: Option<&RouteCondition>,
        is_sure: bool,
    ) {
        let parent = self.schema.table(reference.parent);
        let pairs = reference.columns.iter().zip(&reference.parent_columns);
        for (column, parent_column) in pairs {
            let (child, target) = ((table, *column), (reference.parent, *parent_column));
            if parent.tenancy.is_tenant_owned() {
                self.add(child, target, condition.cloned(), is_sure);
            } else {
                self.pinned.push(child);
            }
        }
    }

    fn add(
        &mut self,
        child: Place,
        target: Place,
        condition: Option<RouteCondition>,
        is_sure: bool,
    ) {
        let kind = |place: Place| discriminant(&self.view.value_kind(place.0, place.1));
        // A text may well hold a number, but not all that it holds has to be one.
        let is_whole = condition.is_none() && kind(child) == kind(target);
        if is_whole {
            let (child, target) = (self.sets.number(child), self.sets.number(target));
            self.sets.join(child, target);
        }
        self.found.push(Found {
            child,
            condition,
            target,
            is_whole,
            is_sure,
        });
    }

    /// Whether both sides of a reference hold the tenant's id.
    fn names_tenant(&self, table: TableIndex, reference: &Reference) -> bool {
        let tenancy = |table| &self.schema.table(table).tenancy;
        let (Tenancy::Direct { column: own }, Tenancy::Direct { column: theirs }) =
            (tenancy(table), tenancy(reference.parent))
        else {
            return false;
        };
        let mut pairs = reference.columns.iter().zip(&reference.parent_columns);
        pairs.any(|pair| pair == (own, theirs))
    }

    fn finish(mut self, view: &dyn LiveView, rules: &CopyRules) -> Result<Classes, Error> {
        let places: Vec<Place> = self.sets.numbers.keys().copied().collect();
        let mut class_of = BTreeMap::new();
        for place in places {
            let number = self.sets.number(place);
            class_of.insert(place, Class(self.sets.root(number)));
        }
        let mut classes = Classes {
            pinned: self.pinned.iter().map(|place| class_of[place]).collect(),
            class_of,
            referring: BTreeMap::new(),
            referred: BTreeSet::new(),
            follows: Vec::new(),
        };
        for found in self.found {
            let Found { child, target, .. } = found;
            classes.referred.insert(target);
            if child != target {
                let known = classes.referring.entry(child).or_insert(false);
                *known |= found.is_sure && found.is_whole;
            }
            classes.follows.push(Follow {
                child,
                condition: found.condition,
                path: None,
                class: classes.class_of[&target],
                target: Some(target),
                is_whole: found.is_whole,
                is_sure: found.is_sure,
            });
        }
        // One sure reference of a column is enough to know that what it holds is the tenant's.
        let referring = &classes.referring;
        for follow in &mut classes.follows {
            follow.is_sure |= follow.is_whole && referring.get(&follow.child) == Some(&true);
        }
        classes.add_documents(view, rules)?;
        Ok(classes)
    }
}

impl Classes {
    /// Adds the references inside of documents.
    fn add_documents(&mut self, view: &dyn LiveView, rules: &CopyRules) -> Result<(), Error> {
        let schema = view.schema();
        for (name, rules) in &rules.tables {
            let table = rules::table(schema, name)?;
            for (column_name, paths) in &rules.json {
                let column = rules::column(schema, table, column_name)?;
                if view.value_kind(table, column) != ValueKind::Json || paths.len() > PATHS_MAX {
                    let message = format!(
                        "into.table.{name}.json: {column_name} has to hold JSON, and to have at \
                         most {PATHS_MAX} paths"
                    );
                    return Err(Error::new(ErrorKind::Usage, message));
                }
                for text in paths {
                    let (path, target) = rules::json_reference(schema, text)?;
                    let (class, target) = match target {
                        JsonTarget::Tenant => (TENANT, None),
                        JsonTarget::Column(table, column) => {
                            let place = (table, column);
                            self.referred.insert(place);
                            (self.class_of[&place], Some(place))
                        }
                    };
                    self.follows.push(Follow {
                        child: (table, column),
                        condition: None,
                        path: Some(path),
                        class,
                        target,
                        is_whole: false,
                        is_sure: false,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Sets of columns, each with the least number among them as its root. The first one is the
/// tenants'.
#[derive(Default)]
struct Sets {
    numbers: BTreeMap<Place, usize>,
    towards: Vec<usize>,
}

impl Sets {
    fn add(&mut self) -> usize {
        self.towards.push(self.towards.len());
        self.towards.len() - 1
    }

    fn number(&mut self, place: Place) -> usize {
        if let Some(number) = self.numbers.get(&place) {
            return *number;
        }
        let number = self.add();
        self.numbers.insert(place, number);
        number
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.towards[number] != number {
            self.towards[number] = self.towards[self.towards[number]];
            number = self.towards[number];
        }
        number
    }

    fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.root(left), self.root(right));
        self.towards[left.max(right)] = left.min(right);
    }
}

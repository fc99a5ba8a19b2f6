//! In which order tables can be written.

use std::collections::BTreeSet;

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::{Reference, StoreSchema, TableIndex};

/// See [`StoreSchema::write_order`].
pub(super) fn write_order(schema: &StoreSchema) -> Vec<TableIndex> {
    let mut waiting = cycles(schema);
    // The component with the lowest table first, so that what nothing orders stays in order.
    waiting.sort();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let later: BTreeSet<TableIndex> = waiting.iter().flatten().copied().collect();
        let is_ready = |component: &Vec<TableIndex>| {
            component.iter().all(|&table| {
                let mut parents = parents(schema, table);
                parents.all(|parent| component.contains(&parent) || !later.contains(&parent))
            })
        };
        let place = waiting.iter().position(is_ready);
        let component = waiting.remove(place.expect("BUG: components without cycles have an end"));
        order.extend(along_paths(schema, component));
    }
    order
}

/// The tenant-owned tables, those of a cycle of references together.
fn cycles(schema: &StoreSchema) -> Vec<Vec<TableIndex>> {
    let mut graph = DiGraph::<TableIndex, ()>::new();
    let mut nodes = vec![NodeIndex::end(); schema.tables().len()];
    for (index, table) in schema.iter() {
        if table.tenancy.is_tenant_owned() {
            nodes[index.get()] = graph.add_node(index);
        }
    }
    for &child in graph.node_weights().copied().collect::<Vec<_>>().iter() {
        for parent in parents(schema, child) {
            if schema.table(parent).tenancy.is_tenant_owned() {
                graph.add_edge(nodes[child.get()], nodes[parent.get()], ());
            }
        }
    }
    let components = tarjan_scc(&graph).into_iter();
    components
        .map(|component| {
            let mut tables: Vec<TableIndex> = component.iter().map(|&node| graph[node]).collect();
            tables.sort();
            tables
        })
        .collect()
}

/// The tables of a cycle, those first on whose rows the owner of others depends, and as far as
/// possible those that others must refer to.
fn along_paths(schema: &StoreSchema, component: Vec<TableIndex>) -> Vec<TableIndex> {
    let mut waiting = component;
    let mut order = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_free = |&table: &TableIndex| {
            let mut ways = schema.table(table).tenancy.references();
            ways.all(|way| !waiting.contains(&way.parent))
        };
        let must_wait = |&table: &TableIndex| {
            let mut references = schema.table(table).references.iter();
            references.any(|reference| {
                let parent = reference.parent;
                parent != table && waiting.contains(&parent) && is_rigid(schema, table, reference)
            })
        };
        let best = |table: &TableIndex| is_free(table) && !must_wait(table);
        let place = waiting.iter().position(best);
        let place = place.or_else(|| waiting.iter().position(is_free));
        order.push(waiting.remove(place.expect("BUG: a checked schema has no circular path")));
    }
    order
}

/// Whether none of a reference's columns can be NULL until the row it refers to is there.
fn is_rigid(schema: &StoreSchema, table: TableIndex, reference: &Reference) -> bool {
    let columns = &schema.table(table).columns;
    let mut own = reference.columns.iter();
    own.all(|column| !columns[column.get()].nullable)
}

/// What a table's rows refer to in other tables, for whatever reason.
fn parents(schema: &StoreSchema, table: TableIndex) -> impl Iterator<Item = TableIndex> {
    let schema = schema.table(table);
    let references = schema.references.iter();
    references
        .chain(schema.tenancy.references())
        .map(|reference| reference.parent)
        .filter(move |&parent| parent != table)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{direct, one_of, table, via};
    use super::*;
    use crate::ColumnIndex;

    #[test]
    fn the_tables_of_a_cycle_stand_together_between_their_parents_and_children() {
        let schema = StoreSchema::try_new(vec![
            table("child", direct(), &[2]),
            table("a", via(0, 2), &[2, 3]),
            table("b", direct(), &[1]),
            table("parent", direct(), &[]),
        ])
        .unwrap();
        assert_eq!(schema.write_order(), [3, 2, 1, 0].map(TableIndex));
    }

    #[test]
    fn a_cycle_is_broken_where_a_reference_may_be_null() {
        // Agents have a queue, queues a policy; a policy may have an agent.
        let mut policies = table("b_policies", direct(), &[0]);
        policies.references[0].columns = vec![ColumnIndex(2)];
        let schema = StoreSchema::try_new(vec![
            table("a_agents", direct(), &[2]),
            policies,
            table("c_queues", via(0, 1), &[1]),
        ])
        .unwrap();
        assert_eq!(schema.write_order(), [1, 2, 0].map(TableIndex));
    }

    proptest! {
        #[test]
        fn every_parent_outside_a_cycle_goes_first(
            edges in prop::collection::vec((0_u32..8, 0_u32..8), 0..20),
            routes in prop::collection::vec((0_u32..8, 0_u32..8), 0..6),
        ) {
            let tables = (0..8_u32).map(|index| {
                let of = |pairs: &[(u32, u32)]| -> Vec<u32> {
                    pairs.iter().filter(|(child, _)| *child == index).map(|(_, parent)| *parent).collect()
                };
                // Ways lead to lower tables, so that none is a circle.
                let ways: Vec<u32> = of(&routes).into_iter().filter(|&parent| parent < index).collect();
                let tenancy = if ways.is_empty() { direct() } else { one_of(&ways) };
                table(&format!("t{index}"), tenancy, &of(&edges))
            });
            let schema = StoreSchema::try_new(tables.collect()).unwrap();
            let order = schema.write_order();
            prop_assert_eq!(order.len(), 8);
            let place = |table| order.iter().position(|&found| found == table).unwrap();
            let reaches = |from: TableIndex, to: TableIndex| {
                let (mut seen, mut waiting) = (BTreeSet::new(), vec![from]);
                while let Some(table) = waiting.pop() {
                    if seen.insert(table) {
                        waiting.extend(parents(&schema, table));
                    }
                }
                seen.contains(&to)
            };
            for (child, child_schema) in schema.iter() {
                for parent in parents(&schema, child) {
                    prop_assert!(place(parent) < place(child) || reaches(parent, child));
                }
                for reference in child_schema.tenancy.references() {
                    prop_assert!(place(reference.parent) < place(child));
                }
            }
        }
    }
}

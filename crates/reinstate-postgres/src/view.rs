//! The live store at one position.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::sync::Arc;
use std::thread;

use reinstate_core::{
    ChangeCounts, ColumnIndex, Filling, Fingerprint, Fit, HeldKey, Hindrance, LiveView,
    OtherRelations, OwnHold, Position, QuestionCost, Reference, RowBatch, RowOrder, RowRole,
    RowStream, SharedCreation, SideEffect, StoreError, StoreSchema, StrayReference, TableIndex,
    TenantId, Timestamp, UniqueKey, ValueKind,
};

use crate::connections::{Connections, Reader};
use crate::copying;
use crate::drift;
use crate::effects::side_effects;
use crate::fingerprint::Versions;
use crate::held::Holders;
use crate::left_behind::left_behind;
use crate::merge::{can_move, obstacle, shared_creation};
use crate::obstacles::other_effects;
use crate::others::{describe, read_others};
use crate::own_keys::OwnKeys;
use crate::referring::held_in_place;
use crate::rows::TenantRows;
use crate::session::Session;
use crate::snapshot::{Access, Moment, begin_and, same_moment, settings};
use crate::state::{Ahead, StateQuestion};
use crate::stray::{parents_of_everybody, stray_references};
use crate::taken::Demands;
use crate::tenancy::TenancyMap;

/// From how many rows on two sessions are asked about them at once.
const ASKED_BESIDE_MIN: usize = 256;

/// A read-only transaction on a connection of its own.
pub(crate) struct PostgresView {
    session: Reader,
    /// A part of the state of a tenant that somebody is going to ask for.
    ahead: Cell<Option<Ahead>>,
    /// A session that sees the same, once there is enough to ask; none if it could not be had.
    beside: OnceCell<Option<Reader>>,
    connections: Arc<Connections>,
    moment: Moment,
    map: TenancyMap,
    /// What tables ask of rows, once somebody wants to know.
    demands: OnceCell<Demands>,
    /// The keys of rows that were read.
    keys: OwnKeys,
    /// Their versions.
    versions: Versions,
    /// Whether merges need no guard.
    is_unguarded: bool,
}

impl PostgresView {
    /// `asked_about` is the tenant whose state will be asked for before anything else, if it is known.
    pub(crate) fn open(
        connections: &Arc<Connections>,
        map: &TenancyMap,
        asked_about: Option<&TenantId>,
    ) -> Result<Self, StoreError> {
        let session = connections.reader()?;
        let ahead = || match asked_about {
            Some(tenant) => Ahead::guess(connections, &session, tenant),
            None => Ok(None),
        };
        let (moment, ahead) = begin_and(
            &session,
            map,
            Access::ReadOnly,
            Some(connections.catalog()),
            ahead,
        )?;
        let map = map.clone();
        Ok(Self {
            session,
            ahead: Cell::new(ahead),
            beside: OnceCell::new(),
            connections: Arc::clone(connections),
            moment,
            map,
            demands: OnceCell::new(),
            keys: OwnKeys::default(),
            versions: Versions::default(),
            is_unguarded: connections.settings().unguarded,
        })
    }
}

impl PostgresView {
    /// A session that sees the same, if there is one to be had.
    fn beside(&self) -> Result<Option<&Session>, StoreError> {
        if self.beside.get().is_none() {
            let settings = settings(&self.map, &self.moment.catalog);
            let begin = same_moment(&self.session, &settings)?;
            let reader = self.connections.reader();
            // Without it all is asked of one session.
            let opened = reader.and_then(|reader| {
                reader.begin("look at the same", &begin)?;
                Ok(reader)
            });
            let _ = self.beside.set(opened.ok());
        }
        let beside = self.beside.get().and_then(Option::as_ref);
        Ok(beside.map(|reader| &**reader))
    }

    fn holders<'v>(&'v self, tenant: &'v TenantId, table: TableIndex) -> Holders<'v> {
        Holders {
            session: &self.session,
            catalog: &self.moment.catalog,
            tenant,
            table,
        }
    }
}

impl fmt::Debug for PostgresView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("PostgresView");
        text.field("position", &self.moment.position)
            .finish_non_exhaustive()
    }
}

impl LiveView for PostgresView {
    fn schema(&self) -> &StoreSchema {
        &self.moment.catalog.schema
    }

    fn position(&self) -> Position {
        self.moment.position
    }

    fn taken_at(&self) -> Option<Timestamp> {
        Some(self.moment.taken_at)
    }

    fn fingerprint(&self, tenant: &TenantId) -> Result<Fingerprint, StoreError> {
        let catalog = &self.moment.catalog;
        let state = StateQuestion::new(&self.map, catalog, tenant)?;
        self.connections.will_ask_again(state.clone());
        if let Some(of_what_was_read) = self.versions.fingerprint(catalog, tenant) {
            return Ok(of_what_was_read);
        }
        state.ask(&self.session, catalog, self.ahead.take())
    }

    fn question_cost(&self) -> QuestionCost {
        // Foreign keys have no index of their own, nor need anything else have one.
        QuestionCost::EachQuestion
    }

    fn row_order(&self) -> RowOrder {
        RowOrder::Any
    }

    fn tenant_rows(
        &self,
        tenant: &TenantId,
        table: TableIndex,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let (catalog, noted) = (&self.moment.catalog, (&self.keys, &self.versions));
        let rows = TenantRows::open(&self.session, catalog, table, tenant, noted, None)?;
        Ok(Box::new(rows))
    }

    fn held_by_others(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        role: RowRole,
        rows: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        self.holders(tenant, table)
            .others(role, rows, &RowBatch::new())
    }

    fn held_by_strangers(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        role: RowRole,
        rows: &RowBatch,
        giving_way: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        self.holders(tenant, table).others(role, rows, giving_way)
    }

    fn has_unique_values(&self, table: TableIndex) -> bool {
        let (schema, relation) = self.moment.catalog.table(table);
        let mut indexes = relation.unique_indexes.iter();
        indexes.any(|index| !index.is_primary || !relation.has_exact_key(schema))
    }

    fn held_by_own(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        rows: &RowBatch,
    ) -> Result<Vec<OwnHold>, StoreError> {
        self.holders(tenant, table).own(rows)
    }

    fn stray_references(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        rows: &RowBatch,
        younger: &[Reference],
    ) -> Result<Vec<StrayReference>, StoreError> {
        let catalog = &self.moment.catalog;
        stray_references(&self.session, catalog, tenant, (table, younger), rows)
    }

    fn look_around(
        &self,
        tenant: &TenantId,
        (table, role): (TableIndex, RowRole),
        rows: &RowBatch,
        giving_way: &RowBatch,
        younger: &[Reference],
    ) -> Result<(Vec<HeldKey>, Vec<StrayReference>), StoreError> {
        let catalog = &self.moment.catalog;
        let held = || self.holders(tenant, table).others(role, rows, giving_way);
        let strays = |session| stray_references(session, catalog, tenant, (table, younger), rows);
        let beside = match rows.len() {
            few if few < ASKED_BESIDE_MIN => None,
            _ => self.beside()?,
        };
        let (held, told) = match beside {
            Some(beside) => thread::scope(|scope| {
                let ask = || strays(beside).ok();
                let asked = thread::Builder::new().spawn_scoped(scope, ask).ok();
                let held = held();
                (held, asked.and_then(|asked| asked.join().ok().flatten()))
            }),
            None => (held(), None),
        };
        let held = held?;
        if !held.is_empty() {
            return Ok((held, Vec::new()));
        }
        // Whatever goes wrong with the other session is no reason not to know.
        let strays = match told {
            Some(told) => told,
            None => strays(&self.session)?,
        };
        Ok((held, strays))
    }

    fn held_in_place(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        before: &RowBatch,
        after: Option<&RowBatch>,
        beside: &[TenantId],
    ) -> Result<Vec<Hindrance>, StoreError> {
        let catalog = &self.moment.catalog;
        held_in_place(
            &self.session,
            catalog,
            (tenant, table),
            (before, after),
            beside,
        )
    }

    fn is_divided(&self, table: TableIndex) -> bool {
        self.moment.catalog.tables[table.get()].is_partitioned
    }

    fn not_taken(
        &self,
        table: TableIndex,
        rows: &RowBatch,
        was_changed: bool,
    ) -> Result<Vec<Hindrance>, StoreError> {
        let catalog = &self.moment.catalog;
        if self.demands.get().is_none() {
            let demands = Demands::read(&self.session, catalog)?;
            let _ = self.demands.set(demands);
        }
        let demands = self.demands.get().expect("BUG: what was set is gone");
        demands.hindrances(&self.session, catalog, table, rows, was_changed)
    }

    fn value_of(
        &self,
        table: TableIndex,
        column: ColumnIndex,
        text: &str,
    ) -> Result<Result<Vec<u8>, String>, StoreError> {
        drift::value_of(&self.session, &self.moment.catalog, table, column, text)
    }

    fn shared_creation(&self, table: TableIndex) -> Result<SharedCreation, StoreError> {
        let catalog = &self.moment.catalog;
        shared_creation(&self.session, catalog, table, self.is_unguarded)
    }

    fn parents_of_everybody(
        &self,
        table: TableIndex,
        reference: &Reference,
        rows: &RowBatch,
    ) -> Result<RowBatch, StoreError> {
        let catalog = &self.moment.catalog;
        parents_of_everybody(&self.session, catalog, (table, reference), rows)
    }

    fn left_behind(
        &self,
        table: TableIndex,
        rows: &RowBatch,
    ) -> Result<Vec<(TableIndex, RowBatch)>, StoreError> {
        left_behind(&self.session, &self.moment.catalog, table, rows)
    }

    fn fixed_values(&self, table: TableIndex) -> Vec<(String, String)> {
        let catalog = &self.moment.catalog;
        let Some(reason) = obstacle(catalog, table) else {
            return Vec::new();
        };
        let indexes = catalog.tables[table.get()].unique_indexes.iter();
        indexes
            .filter(|index| index.is_immediate && can_move(catalog, table, index))
            .map(|index| (index.name.clone(), reason.clone()))
            .collect()
    }

    fn other_effects(
        &self,
        tenants: &[&TenantId],
        changes: &[(TableIndex, ChangeCounts)],
    ) -> Result<Vec<SideEffect>, StoreError> {
        let catalog = &self.moment.catalog;
        other_effects(&self.session, &self.map, catalog, tenants, changes)
    }

    fn side_effects(&self, table: TableIndex, counts: ChangeCounts) -> Vec<SideEffect> {
        side_effects(&self.map, &self.moment.catalog, table, counts)
    }

    fn other_relations(&self, changed: &[TableIndex]) -> Result<Vec<OtherRelations>, StoreError> {
        let catalog = &self.moment.catalog;
        let others = read_others(&self.session)?;
        let is_changed = |oid| {
            let table = catalog.by_oid(oid);
            table.is_some_and(|table| changed.contains(&table))
        };
        Ok(describe(&others, Some(catalog), is_changed))
    }

    fn fit(
        &self,
        type_name: &str,
        table: TableIndex,
        column: ColumnIndex,
    ) -> Result<Option<Fit>, StoreError> {
        Ok(drift::fit(&self.moment.catalog, type_name, table, column))
    }

    fn is_counter(&self, table: TableIndex, column: ColumnIndex) -> bool {
        self.moment.catalog.tables[table.get()].columns[column.get()].is_counter
    }

    fn value_kind(&self, table: TableIndex, column: ColumnIndex) -> ValueKind {
        copying::value_kind(&self.moment.catalog, table, column)
    }

    fn unique_keys(&self, table: TableIndex) -> Result<Vec<UniqueKey>, StoreError> {
        copying::unique_keys(&self.session, &self.moment.catalog, table)
    }

    fn greatest(&self, table: TableIndex, column: ColumnIndex) -> Result<Option<i64>, StoreError> {
        copying::greatest(&self.session, &self.moment.catalog, table, column)
    }

    fn is_counted_up(&self, table: TableIndex, column: ColumnIndex) -> bool {
        copying::is_counted_up(&self.moment.catalog, table, column)
    }

    fn filling(&self, table: TableIndex, column: ColumnIndex) -> Result<Filling, StoreError> {
        drift::filling(&self.session, &self.moment.catalog, table, column)
    }
}

//! A synthetic store: a source of captures, and the answers to compare a restore with.

use reinstate_core::{
    CaptureView, ContentDigest, OwnedRowStream, Position, RowBatch, RowStream, SequenceValue,
    SnapshotSource, StoreError, StoreSchema, TableIndex, TenantId, TenantKind, Timestamp,
};

use crate::row::{RowSource, TAKEN_AT};
use crate::sizes::Sizes;
use crate::stream::{HeapRows, TenantRows};
use crate::table::{Flavour, Table, schema};
use crate::{SpecError, SyntheticSpec};

/// An issue tracker of many tenants that is computed, not kept.
///
/// # Cost
/// Four bytes a tenant; a row takes about half a microsecond, whichever it is.
#[derive(Clone, Debug)]
pub struct SyntheticStore {
    spec: SyntheticSpec,
    flavour: Flavour,
    tenant_kind: TenantKind,
    schema: StoreSchema,
    source: RowSource,
    sequences: Vec<SequenceValue>,
}

impl SyntheticStore {
    /// The store of this description. The rows are the same in both flavours.
    ///
    /// # Errors
    /// As [`SyntheticSpec::check`].
    pub fn try_new(spec: SyntheticSpec, flavour: Flavour) -> Result<Self, SpecError> {
        spec.check()?;
        let source = RowSource::new(spec.seed, Sizes::of(&spec));
        let last_id = |table| {
            (0..spec.tenant_count)
                .map(|tenant| match source.row_count(tenant, table) {
                    0 => 0,
                    rows => source.id(tenant, rows - 1),
                })
                .max()
        };
        let sequences = Table::OWNED
            .into_iter()
            .filter_map(|table| {
                Some(SequenceValue {
                    name: table.sequence()?.to_owned(),
                    last_value: last_id(table)?.cast_signed(),
                })
            })
            .collect();
        Ok(Self {
            spec,
            flavour,
            tenant_kind: TenantKind::parse("account").expect("BUG: account is a kind"),
            schema: schema(flavour),
            source,
            sequences,
        })
    }

    /// The same store, whose tenants have ids of another kind that begin with this, as the stores of
    /// one site have ids of their own. Only for rows that do not hold the id of their owner as it is
    /// here: not for [`Flavour::Columns`].
    #[must_use]
    pub fn with_tenants_named(mut self, kind: TenantKind, prefix: &str) -> Self {
        assert_eq!(self.flavour, Flavour::Native, "rows hold other ids");
        self.tenant_kind = kind;
        prefix.clone_into(&mut self.source.tenant_prefix);
        self
    }

    /// What the store was made from.
    #[must_use]
    pub fn spec(&self) -> &SyntheticSpec {
        &self.spec
    }

    /// How its rows name their owner.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Its tables, in the order of [`Table::ALL`].
    #[must_use]
    pub fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    /// The kind of id its tenants have: `account`, unless it was named otherwise.
    #[must_use]
    pub fn tenant_kind(&self) -> TenantKind {
        self.tenant_kind.clone()
    }

    /// The id of a tenant: its index plus one, in decimal, behind the prefix if it was given one.
    #[must_use]
    pub fn tenant(&self, index: u32) -> TenantId {
        let text = format!("{}{}", self.source.tenant_prefix, u64::from(index) + 1);
        TenantId::try_new(text).expect("BUG: a number is not empty")
    }

    /// The index of the tenant with this id.
    #[must_use]
    pub fn tenant_index(&self, tenant: &TenantId) -> Option<u32> {
        let text = std::str::from_utf8(tenant.as_bytes()).ok()?;
        let number = text.strip_prefix(&self.source.tenant_prefix)?;
        let index = number.parse::<u32>().ok()?.checked_sub(1)?;
        (index < self.spec.tenant_count && self.tenant(index) == *tenant).then_some(index)
    }

    /// The tenants by how many rows they own, most first.
    #[must_use]
    pub fn tenants_by_size(&self) -> Vec<u32> {
        let mut tenants: Vec<u32> = (0..self.spec.tenant_count).collect();
        tenants.sort_by_key(|&tenant| std::cmp::Reverse(self.source.sizes.tenant(tenant)));
        tenants
    }

    /// How many rows a tenant owns in all tables.
    ///
    /// # Panics
    /// If there is no tenant of that index.
    #[must_use]
    pub fn tenant_row_count(&self, tenant_index: u32) -> u64 {
        self.source.sizes.tenant(tenant_index).into()
    }

    /// How many rows a tenant owns in a table; of a shared table, how many there are.
    ///
    /// # Panics
    /// If there is no tenant or no table of that index.
    #[must_use]
    pub fn row_count_of(&self, tenant_index: u32, table: TableIndex) -> u64 {
        self.source.row_count(tenant_index, known(table)).into()
    }

    /// The known answer: a tenant's rows in a table, or a shared table's. Rows with a key come in
    /// its order; of a table without one, in the order they were written.
    ///
    /// # Panics
    /// If there is no tenant or no table of that index.
    #[must_use]
    pub fn rows_of(&self, tenant_index: u32, table: TableIndex) -> Box<dyn RowStream + '_> {
        Box::new(TenantRows::new(&self.source, known(table), tenant_index))
    }

    /// The known answer in short: what [`rows_of`](Self::rows_of) contains. Costs computing them.
    ///
    /// # Panics
    /// If there is no tenant or no table of that index.
    #[must_use]
    pub fn digest_of(&self, tenant_index: u32, table: TableIndex) -> ContentDigest {
        let mut rows = TenantRows::new(&self.source, known(table), tenant_index);
        let mut digest = ContentDigest::EMPTY;
        let mut batch = RowBatch::new();
        while rows.next_batch(&mut batch).is_ok_and(|more| more) {
            batch.iter().for_each(|row| digest.add(row));
        }
        digest
    }

    /// Every row of a table with its owner, tenants mixed as in a real heap.
    ///
    /// # Panics
    /// If there is no table of that index.
    #[must_use]
    pub fn heap_rows(&self, table: TableIndex) -> Box<dyn OwnedRowStream + '_> {
        Box::new(HeapRows::new(&self.source, known(table)))
    }
}

impl SnapshotSource for SyntheticStore {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        Ok(Box::new(SyntheticView { store: self }))
    }
}

/// A capture of a synthetic store, which never changes.
#[derive(Debug)]
struct SyntheticView<'a> {
    store: &'a SyntheticStore,
}

impl CaptureView for SyntheticView<'_> {
    fn schema(&self) -> &StoreSchema {
        &self.store.schema
    }

    fn position(&self) -> Position {
        Position {
            commit: self.store.spec.row_count,
            ordinal: 0,
        }
    }

    fn taken_at(&self) -> Option<Timestamp> {
        Some(TAKEN_AT)
    }

    fn sequences(&self) -> &[SequenceValue] {
        &self.store.sequences
    }

    fn lanes(&self) -> usize {
        Table::ALL.len()
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        Ok(self.store.heap_rows(table))
    }
}

fn known(table: TableIndex) -> Table {
    Table::from_index(table).expect("a table of the synthetic store")
}

//! A store in memory and a plan, for tests of what only the inside can see.

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use reinstate_core::{
    ChangeCounts, ChangeSource, ColumnIndex, ColumnSchema, KeyForm, RowBatch, RowRole, RowStream,
    StoreError, StoreId, StoreIdentity, StoreSchema, TableIndex, TableName, TableSchema, Tenancy,
    TenantKind,
};

use crate::EmbeddedStore;

/// A store of one table, whose rows have their key as their only column.
pub(crate) fn store() -> EmbeddedStore {
    store_on(InMemoryBackend::new())
}

/// The same on storage of the caller's own.
pub(crate) fn store_on(backend: impl StorageBackend) -> EmbeddedStore {
    let column = ColumnSchema {
        name: "id".to_owned(),
        type_name: "bytea".to_owned(),
        nullable: false,
        key_form: KeyForm::Bytes,
    };
    let table = TableSchema {
        name: TableName::new("rows"),
        columns: vec![column],
        key: vec![ColumnIndex(0)],
        tenancy: Tenancy::Native,
        references: Vec::new(),
    };
    let identity = StoreIdentity {
        id: StoreId::from_bytes([1; 16]),
        name: "inside".to_owned(),
    };
    let schema = StoreSchema::try_new(vec![table]).unwrap();
    let kind = TenantKind::parse("site").unwrap();
    EmbeddedStore::create_on(backend, identity, kind, schema).unwrap()
}

/// A plan that creates so many rows of 300 bytes.
pub(crate) struct Create(pub(crate) u64);

impl ChangeSource for Create {
    fn tables(&self) -> &[TableIndex] {
        &[TableIndex(0)]
    }

    fn counts(&self, _table: TableIndex) -> ChangeCounts {
        ChangeCounts {
            created: self.0,
            ..ChangeCounts::NONE
        }
    }

    fn rows(
        &self,
        _table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        assert_eq!(role, RowRole::Created);
        Ok(Box::new(Numbers(0..self.0)))
    }
}

struct Numbers(std::ops::Range<u64>);

impl RowStream for Numbers {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        for number in self.0.by_ref().take(500) {
            batch.push(&number.to_be_bytes(), [Some([7; 300].as_slice())]);
        }
        Ok(!batch.is_empty())
    }
}

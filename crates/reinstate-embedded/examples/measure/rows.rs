//! Rows that look like an issue tracker's, computed one by one, and a plan that creates them.

use reinstate_core::{
    ChangeCounts, ChangeSource, ColumnIndex, ColumnSchema, KeyForm, RowBatch, RowBuilder, RowRole,
    RowStream, StoreError, StoreSchema, TableIndex, TableName, TableSchema, Tenancy,
};

pub(crate) const TABLE: TableIndex = TableIndex(0);

/// One table with a key: an id, a state, a title and a body.
pub(crate) fn schema() -> StoreSchema {
    let column = |name: &str, key_form| ColumnSchema {
        name: name.to_owned(),
        type_name: "text".to_owned(),
        nullable: false,
        key_form,
    };
    let table = TableSchema {
        name: TableName::new("issues"),
        columns: vec![
            column("id", KeyForm::Integer),
            column("state", KeyForm::Bytes),
            column("title", KeyForm::Bytes),
            column("body", KeyForm::Bytes),
        ],
        key: vec![ColumnIndex(0)],
        tenancy: Tenancy::Native,
        references: Vec::new(),
    };
    StoreSchema::try_new(vec![table]).expect("a schema of one table")
}

/// Writes row `number`, of about 275 bytes, into the builder.
pub(crate) fn build(schema: &StoreSchema, number: u64, builder: &mut RowBuilder) {
    const WORDS: [&str; 8] = [
        "export", "fails", "after", "the", "customer", "changed", "currency", "twice",
    ];
    let mut noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0073_6565_6421;
    let mut text = |length: usize| {
        let mut text = String::with_capacity(length + 10);
        while text.len() < length {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            text.push_str(WORDS[(noise >> 60) as usize & 7]);
            text.push(' ');
        }
        text.truncate(length);
        text
    };
    let (id, title, body) = (number.to_string(), text(60), text(184));
    let state = if number.is_multiple_of(3) {
        "open"
    } else {
        "closed"
    };
    let values = [
        Some(id.as_bytes()),
        Some(state.as_bytes()),
        Some(title.as_bytes()),
        Some(body.as_bytes()),
    ];
    let table = schema.table(TABLE);
    table.encode_row(&values, builder).expect("a row that fits");
}

/// The rows 0 to `row_count`, in the order of their keys, in batches of their usual size.
pub(crate) fn batches(row_count: u64) -> Vec<RowBatch> {
    let schema = schema();
    let (mut builder, mut batches) = (RowBuilder::new(), vec![RowBatch::new()]);
    for number in 0..row_count {
        build(&schema, number, &mut builder);
        let full = |batch: &RowBatch| batch.as_bytes().len() >= RowBatch::TARGET_BYTES;
        if batches.last().is_none_or(full) {
            batches.push(RowBatch::new());
        }
        if let Some(batch) = batches.last_mut() {
            batch.push_row(builder.row());
        }
    }
    batches
}

/// A plan that creates rows which lie in memory.
pub(crate) struct CreateBatches<'b> {
    pub(crate) batches: &'b [RowBatch],
}

impl ChangeSource for CreateBatches<'_> {
    fn tables(&self) -> &[TableIndex] {
        &[TABLE]
    }

    fn counts(&self, _table: TableIndex) -> ChangeCounts {
        let created = self.batches.iter().map(|batch| batch.len() as u64).sum();
        ChangeCounts {
            created,
            ..ChangeCounts::NONE
        }
    }

    fn rows(
        &self,
        _table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let batches = match role {
            RowRole::Created => self.batches,
            _ => &[],
        };
        Ok(Box::new(Copied(batches.iter())))
    }
}

/// A plan that puts every row back, from what `CreateBatches` left to the same once more.
pub(crate) struct Replace<'b> {
    pub(crate) batches: &'b [RowBatch],
}

impl ChangeSource for Replace<'_> {
    fn tables(&self) -> &[TableIndex] {
        &[TABLE]
    }

    fn counts(&self, _table: TableIndex) -> ChangeCounts {
        let put_back = self.batches.iter().map(|batch| batch.len() as u64).sum();
        ChangeCounts {
            put_back,
            ..ChangeCounts::NONE
        }
    }

    fn rows(
        &self,
        _table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let batches = match role {
            RowRole::PutBackBefore | RowRole::PutBackAfter => self.batches,
            _ => &[],
        };
        Ok(Box::new(Copied(batches.iter())))
    }
}

struct Copied<'b>(std::slice::Iter<'b, RowBatch>);

impl RowStream for Copied<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        let Some(next) = self.0.next() else {
            batch.clear();
            return Ok(false);
        };
        batch
            .refill(|bytes| {
                bytes.extend_from_slice(next.as_bytes());
                Ok::<(), reinstate_core::RowError>(())
            })
            .expect("rows that were rows before");
        Ok(true)
    }
}

/// A plan that creates rows computed while it is read, so that they take no memory.
pub(crate) struct CreateComputed {
    pub(crate) schema: StoreSchema,
    pub(crate) row_count: u64,
}

impl ChangeSource for CreateComputed {
    fn tables(&self) -> &[TableIndex] {
        &[TABLE]
    }

    fn counts(&self, _table: TableIndex) -> ChangeCounts {
        ChangeCounts {
            created: self.row_count,
            ..ChangeCounts::NONE
        }
    }

    fn rows(
        &self,
        _table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let end = match role {
            RowRole::Created => self.row_count,
            _ => 0,
        };
        Ok(Box::new(Computed {
            schema: &self.schema,
            numbers: 0..end,
        }))
    }
}

struct Computed<'s> {
    schema: &'s StoreSchema,
    numbers: std::ops::Range<u64>,
}

impl RowStream for Computed<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        let mut builder = RowBuilder::new();
        while batch.as_bytes().len() < RowBatch::TARGET_BYTES {
            let Some(number) = self.numbers.next() else {
                break;
            };
            build(self.schema, number, &mut builder);
            batch.push_row(builder.row());
        }
        Ok(!batch.is_empty())
    }
}

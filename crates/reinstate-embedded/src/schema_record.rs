//! How a table's description is kept in the file, so that a tool that knows nothing of the
//! application can open it.
//!
//! ```text
//! record := text name, u8 tenancy (0 native, 1 shared, 2 excluded)
//!           count, { text column, text type, u8 nullable, u8 form (0 bytes, 1 integer) }
//!           count, { varint key column }
//!           count, { count, { varint column }, varint parent, count, { varint parent column } }
//! text   := varint length, UTF-8
//! count  := varint
//! ```

use reinstate_core::{
    ColumnIndex, ColumnSchema, KeyForm, Reference, TableIndex, TableName, TableSchema, Tenancy,
    read_varint, write_varint,
};

/// Writes a table's description; `None` if its tenancy is one that this store cannot have.
pub(crate) fn write_table(table: &TableSchema) -> Option<Vec<u8>> {
    let tenancy = match table.tenancy {
        Tenancy::Native => 0,
        Tenancy::Shared => 1,
        Tenancy::Excluded => 2,
        Tenancy::Direct { .. } | Tenancy::Via { .. } | Tenancy::OneOf { .. } => return None,
    };
    let mut bytes = Vec::new();
    write_text(&mut bytes, table.name.as_str());
    bytes.push(tenancy);
    write_varint(&mut bytes, table.columns.len() as u64);
    for column in &table.columns {
        write_text(&mut bytes, &column.name);
        write_text(&mut bytes, &column.type_name);
        bytes.push(u8::from(column.nullable));
        bytes.push(match column.key_form {
            KeyForm::Bytes => 0,
            KeyForm::Integer => 1,
        });
    }
    write_columns(&mut bytes, &table.key);
    write_varint(&mut bytes, table.references.len() as u64);
    for reference in &table.references {
        write_columns(&mut bytes, &reference.columns);
        write_varint(&mut bytes, u64::from(reference.parent.0));
        write_columns(&mut bytes, &reference.parent_columns);
    }
    Some(bytes)
}

/// Reads a table's description; `None` if the bytes are not one.
pub(crate) fn read_table(bytes: &[u8]) -> Option<TableSchema> {
    let mut reader = Reader(bytes);
    let name = TableName::new(reader.text()?);
    let tenancy = match reader.byte()? {
        0 => Tenancy::Native,
        1 => Tenancy::Shared,
        2 => Tenancy::Excluded,
        _ => return None,
    };
    let columns = reader.list(|reader| {
        Some(ColumnSchema {
            name: reader.text()?,
            type_name: reader.text()?,
            nullable: reader.byte()? != 0,
            key_form: match reader.byte()? {
                0 => KeyForm::Bytes,
                1 => KeyForm::Integer,
                _ => return None,
            },
        })
    })?;
    let key = reader.list(|reader| reader.number().map(ColumnIndex))?;
    let references = reader.list(|reader| {
        Some(Reference {
            columns: reader.list(|reader| reader.number().map(ColumnIndex))?,
            parent: TableIndex(reader.number()?),
            parent_columns: reader.list(|reader| reader.number().map(ColumnIndex))?,
        })
    })?;
    reader.0.is_empty().then_some(TableSchema {
        name,
        columns,
        key,
        tenancy,
        references,
    })
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn write_columns(bytes: &mut Vec<u8>, columns: &[ColumnIndex]) {
    write_varint(bytes, columns.len() as u64);
    for column in columns {
        write_varint(bytes, u64::from(column.0));
    }
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn varint(&mut self) -> Option<u64> {
        let (value, taken) = read_varint(self.0)?;
        self.0 = &self.0[taken..];
        Some(value)
    }

    fn number(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.varint()?;
        // Every item takes at least a byte, so a count beyond the bytes is a lie.
        if count > self.0.len() as u64 {
            return None;
        }
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> TableSchema {
        TableSchema {
            name: TableName::new("items"),
            columns: vec![ColumnSchema {
                name: "id".to_owned(),
                type_name: "bigint".to_owned(),
                nullable: false,
                key_form: KeyForm::Integer,
            }],
            key: vec![ColumnIndex(0)],
            tenancy: Tenancy::Native,
            references: vec![Reference {
                columns: vec![ColumnIndex(0)],
                parent: TableIndex(7),
                parent_columns: vec![ColumnIndex(300)],
            }],
        }
    }

    #[test]
    fn a_table_reads_back_and_no_part_of_it_does() {
        let bytes = write_table(&table()).unwrap();
        assert_eq!(read_table(&bytes), Some(table()));
        for length in 0..bytes.len() {
            assert_eq!(read_table(&bytes[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn reading_any_bytes_never_panics(bytes: Vec<u8>) {
            let _ = read_table(&bytes);
        }
    }
}

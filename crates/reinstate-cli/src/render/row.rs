//! Rows and keys as text and as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reinstate_core::{KeyPart, RowRef, TableSchema};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// A row as it is exported: its table, and column name to value.
#[derive(Clone, Copy, Debug)]
pub struct ExportedRow<'a> {
    /// The table.
    pub table: &'a TableSchema,
    /// The row.
    pub row: RowRef<'a>,
}

impl Serialize for ExportedRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("table", self.table.name.as_str())?;
        map.serialize_entry("row", &Columns(self.table, self.row))?;
        map.end()
    }
}

/// The columns of a row, in the order of the table.
struct Columns<'a>(&'a TableSchema, RowRef<'a>);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.columns.len()))?;
        for (column, value) in self.0.columns.iter().zip(self.1.values()) {
            map.serialize_entry(&column.name, &Value(value))?;
        }
        map.end()
    }
}

/// A value: text, NULL, or bytes that are no text.
struct Value<'a>(Option<&'a [u8]>);

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(bytes) = self.0 else {
            return serializer.serialize_none();
        };
        if let Ok(text) = std::str::from_utf8(bytes) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &STANDARD.encode(bytes))?;
        map.end()
    }
}

/// One row that changes, for machines.
#[derive(Debug, Serialize)]
pub struct ChangeRecord<'a> {
    /// Always `change`.
    #[serde(rename = "type")]
    pub record: &'static str,
    /// Whose.
    pub tenant: &'a str,
    /// The table.
    pub table: &'a str,
    /// What happens: `create`, `put_back`, `delete`, `conflict`.
    pub change: &'a str,
    /// The key's columns; absent for a table without a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// The row as it is, if values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// The row as it will be, if values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
    /// What takes the place, for a conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<&'a str>,
    /// The transaction that changed it last, if the change log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// When that was committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// The parts of an encoded key as text; none for a table without a key.
#[must_use]
pub fn key_parts(key: &[u8]) -> Option<Vec<String>> {
    let parts = KeyPart::parse_all(key).filter(|parts| !parts.is_empty())?;
    let text = |part: &KeyPart| show_bytes(&part.text());
    Some(parts.iter().map(text).collect())
}

/// A key for people: `id=42`.
#[must_use]
pub fn key_text(table: &TableSchema, key: &[u8]) -> String {
    let Some(parts) = key_parts(key) else {
        return "(no key)".to_owned();
    };
    let names = table
        .key
        .iter()
        .map(|column| &table.columns[column.get()].name);
    let pairs: Vec<_> = names
        .zip(&parts)
        .map(|(name, part)| format!("{name}={part}"))
        .collect();
    pairs.join(" ")
}

/// A row's values as JSON.
///
/// # Panics
/// Never: every value has a form.
#[must_use]
pub fn row_value(table: &TableSchema, row: RowRef<'_>) -> serde_json::Value {
    serde_json::to_value(Columns(table, row)).expect("BUG: a row has no JSON form")
}

/// A row's values for people, in one line.
#[must_use]
pub fn row_text(table: &TableSchema, row: RowRef<'_>) -> String {
    let values = table.columns.iter().zip(row.values());
    let values: Vec<_> = values
        .map(|(column, value)| match value {
            Some(value) => format!("{}={}", column.name, quote(value)),
            None => format!("{}=NULL", column.name),
        })
        .collect();
    values.join(" ")
}

/// A value that cannot be taken for two, or for a command of the terminal.
fn quote(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("base64:{}", STANDARD.encode(value)),
    }
}

/// A part of a key: as it is if it is plain, quoted if not.
fn show_bytes(bytes: &[u8]) -> String {
    let is_plain = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
    if is_plain {
        String::from_utf8_lossy(bytes).into_owned()
    } else {
        quote(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reinstate_core::{
        ColumnIndex, ColumnSchema, KeyForm, KeyWriter, RowBatch, TableName, Tenancy,
    };

    fn table() -> TableSchema {
        let column = |name: &str| ColumnSchema {
            name: name.to_owned(),
            type_name: "text".to_owned(),
            nullable: true,
            key_form: KeyForm::Integer,
        };
        TableSchema {
            name: TableName::new("notes"),
            columns: vec![column("id"), column("a"), column("b"), column("c")],
            key: vec![ColumnIndex(0)],
            tenancy: Tenancy::Native,
            references: Vec::new(),
        }
    }

    #[test]
    fn a_row_keeps_null_text_and_bytes_apart() {
        let mut key = KeyWriter::new();
        key.push(KeyForm::Integer, b"7");
        let mut batch = RowBatch::new();
        let values: [Option<&[u8]>; 4] = [Some(b"7"), None, Some(b"say \"x\"\n"), Some(&[0xff])];
        batch.push(key.as_bytes(), values);
        let table = table();
        let row = batch.iter().next().unwrap();
        let exported = ExportedRow { table: &table, row };
        assert_eq!(
            serde_json::to_string(&exported).unwrap(),
            r#"{"table":"notes","row":{"id":"7","a":null,"b":"say \"x\"\n","c":{"base64":"/w=="}}}"#
        );
        assert_eq!(key_text(&table, row.key()), "id=7");
        assert_eq!(
            row_text(&table, row),
            r#"id="7" a=NULL b="say \"x\"\n" c=base64:/w=="#
        );
    }
}

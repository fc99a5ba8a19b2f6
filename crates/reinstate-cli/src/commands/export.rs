//! `export`: rows of a tenant as JSON lines, without restoring anything.

use reinstate_core::{
    ErrorKind, KeyWriter, RowStream, Silent, StoreSchema, TableIndex, TableSchema,
};

use super::stream::for_each_row;
use super::target::{Moment, Selection, parse_selection};
use super::tenants::extract_all;
use crate::arguments::Export;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::ExportedRow;
use crate::resolve::Match;
use crate::session::Session;

/// Bytes of JSON that are gathered before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// `export TENANT@TIME[:TABLE[/KEY]]`.
pub fn run(arguments: &Export, session: &Session<'_>) -> anyhow::Result<Exit> {
    let selection = parse_selection(&arguments.what)?;
    let mut lines = Lines::new(session.console);
    match &selection.moment {
        Moment::Live => {
            let store = session.store()?;
            check_kind(&selection, store.tenant_kind().as_str())?;
            let view = store.read_view()?;
            for table in tables(&selection, view.schema())? {
                let schema = view.schema().table(table);
                let rows = view.tenant_rows(&selection.tenant.id, table)?;
                lines.rows(schema, rows, selection.key.as_deref())?;
            }
        }
        Moment::Past(point) => {
            let repository = session.repository()?;
            let wanted = Match::of(arguments.nearest_before).exclusive(arguments.exclusive);
            let resolved = session.resolve(&repository, None, point, wanted)?;
            // Standard output is rows and nothing else: what was found is for people.
            resolved.announce(&Console::new(false), point);
            let tenants = [selection.tenant.clone()];
            let context = session.context(&Silent);
            let images = extract_all(context, &repository, &resolved, &tenants)?;
            let schema = &resolved.snapshot.schema;
            for image in &images {
                for table in tables(&selection, schema)? {
                    let rows = Box::new(image.rows(context, table));
                    lines.rows(schema.table(table), rows, selection.key.as_deref())?;
                }
            }
        }
    }
    lines.end(&selection)
}

fn check_kind(selection: &Selection, kind: &str) -> Result<(), Failure> {
    if selection.tenant.kind.as_str() == kind {
        return Ok(());
    }
    let message = format!(
        "{}: the store's tenants are of kind {kind:?}",
        selection.tenant
    );
    Err(Failure::usage(message).next("see which tenants there are: reinstate tenants"))
}

/// The tables to export, in the order of the schema.
fn tables(selection: &Selection, schema: &StoreSchema) -> Result<Vec<TableIndex>, Failure> {
    let owned = schema
        .iter()
        .filter(|(_, table)| table.tenancy.is_tenant_owned());
    let Some(name) = &selection.table else {
        return Ok(owned.map(|(index, _)| index).collect());
    };
    match schema.find(name) {
        Some((index, table)) if table.tenancy.is_tenant_owned() => Ok(vec![index]),
        Some(_) => Err(Failure::usage(format!(
            "table {name} is shared: no tenant has rows in it"
        ))),
        None => {
            let names: Vec<_> = owned.map(|(_, table)| table.name.as_str()).collect();
            let message = format!("there is no table {name}; there are {}", names.join(", "));
            Err(Failure::new(ErrorKind::NotFound, message).next("choose one of them"))
        }
    }
}

/// JSON lines on their way out.
struct Lines<'a> {
    console: &'a Console,
    buffer: Vec<u8>,
    row_count: u64,
}

impl<'a> Lines<'a> {
    fn new(console: &'a Console) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self {
            console,
            buffer,
            row_count: 0,
        }
    }

    fn rows(
        &mut self,
        table: &TableSchema,
        rows: Box<dyn RowStream + '_>,
        key: Option<&str>,
    ) -> anyhow::Result<()> {
        let key = key.map(|key| encode_key(table, key)).transpose()?;
        let mut failed = None;
        for_each_row(rows, |row| {
            if key.as_deref().is_some_and(|key| key != row.key()) {
                return true;
            }
            self.row_count += 1;
            let exported = ExportedRow { table, row };
            if let Err(error) = serde_json::to_writer(&mut self.buffer, &exported) {
                failed = Some(error);
                return false;
            }
            self.buffer.push(b'\n');
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush();
            }
            !self.console.is_closed()
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn flush(&mut self) {
        self.console.bytes(&self.buffer);
        self.buffer.clear();
    }

    fn end(mut self, selection: &Selection) -> anyhow::Result<Exit> {
        self.flush();
        if self.row_count > 0 {
            return Ok(Exit::Done);
        }
        if let (Some(table), Some(key)) = (&selection.table, &selection.key) {
            let message = format!("{} has no row {key} in {table}", selection.tenant);
            return Err(Failure::new(ErrorKind::NotFound, message).into());
        }
        if selection.moment == Moment::Live && selection.table.is_none() {
            let message = format!("{} has no row in the live store", selection.tenant);
            return Err(Failure::new(ErrorKind::NotFound, message).into());
        }
        Ok(Exit::Done)
    }
}

/// A key from its text: the columns of the key, with `/` between them and `%2F` for a slash.
fn encode_key(table: &TableSchema, text: &str) -> Result<Vec<u8>, Failure> {
    if !table.has_key() {
        let message = format!("table {} has no key: export all of it", table.name);
        return Err(Failure::usage(message));
    }
    let parts: Vec<_> = text.split('/').collect();
    if parts.len() != table.key.len() {
        let names = table
            .key
            .iter()
            .map(|column| table.columns[column.get()].name.as_str());
        let names: Vec<_> = names.collect();
        let message = format!(
            "key {text:?} of table {}: expected {}",
            table.name,
            names.join("/")
        );
        return Err(Failure::usage(message));
    }
    let mut key = KeyWriter::new();
    for (column, part) in table.key.iter().zip(parts) {
        key.push(table.columns[column.get()].key_form, &unescape(part)?);
    }
    Ok(key.as_bytes().to_vec())
}

fn unescape(part: &str) -> Result<Vec<u8>, Failure> {
    if part.is_empty() {
        return Ok(Vec::new());
    }
    let id: reinstate_core::TenantId = part
        .parse()
        .map_err(|error| Failure::usage(format!("key {part:?}")).because(error))?;
    Ok(id.as_bytes().to_vec())
}

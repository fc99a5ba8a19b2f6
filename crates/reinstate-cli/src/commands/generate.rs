//! `generate`: a synthetic store to try things on.

use reinstate_core::OwnedRowBatch;
use reinstate_synthetic::{Flavour, SyntheticSpec, SyntheticStore, Table, copy_text_line};
use serde::Serialize;

use crate::arguments::Generate;
use crate::arguments::Global;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::render::counted;
use crate::session::Engine;
use crate::signals::Interruption;
use crate::synthetic::create_embedded;

#[derive(Serialize)]
struct GeneratedRecord {
    #[serde(rename = "type")]
    record: &'static str,
    file: String,
    tenants: u32,
    rows: u64,
    seed: u64,
}

/// `generate`.
pub fn run(
    arguments: &Generate,
    global: &Global,
    console: &Console,
    interruption: &Interruption,
) -> anyhow::Result<Exit> {
    let spec = SyntheticSpec {
        seed: arguments.seed,
        tenant_count: arguments.tenants,
        row_count: arguments.rows,
        skew: arguments.skew,
        large_tenant: None,
    };
    let flavour = if arguments.sql {
        Flavour::Columns
    } else {
        Flavour::Native
    };
    let synthetic = SyntheticStore::try_new(spec, flavour)
        .map_err(|error| Failure::usage(error.to_string()).next("reinstate generate --help"))?;
    let Some(path) = &arguments.into else {
        return print_sql(console, &synthetic, interruption);
    };
    let engine = Engine::start(global)?;
    let progress = Progress::of("build the store");
    let cancellation = interruption.cancellation();
    let cache = engine.cache_bytes();
    create_embedded(
        path,
        &arguments.name,
        &synthetic,
        cache,
        &progress,
        cancellation,
    )?;
    progress.clear();
    console.line(format_args!(
        "made {}: store {:?}, {}, {}",
        path.display(),
        arguments.name,
        counted(u64::from(spec.tenant_count), "tenant", "tenants"),
        counted(spec.row_count, "row", "rows")
    ));
    console.record(&GeneratedRecord {
        record: "generated",
        file: path.display().to_string(),
        tenants: spec.tenant_count,
        rows: spec.row_count,
        seed: spec.seed,
    });
    console.note(format_args!(
        "next: reinstate init --embedded {}",
        path.display()
    ));
    Ok(Exit::Done)
}

/// Prints a script for psql: tables, rows, keys, counters.
fn print_sql(
    console: &Console,
    synthetic: &SyntheticStore,
    interruption: &Interruption,
) -> anyhow::Result<Exit> {
    let text = |text: &str| console.bytes(text.as_bytes());
    text("\\set ON_ERROR_STOP on\nBEGIN;\n");
    text(&SyntheticStore::postgres_tables());
    let mut batch = OwnedRowBatch::new();
    let mut lines = Vec::new();
    for table in Table::ALL {
        text(&format!("COPY {} FROM stdin;\n", table.name()));
        let mut rows = synthetic.heap_rows(table.index());
        while rows.next_batch(&mut batch)? && !console.is_closed() {
            interruption.cancellation().check()?;
            lines.clear();
            batch
                .iter()
                .for_each(|(_, row)| copy_text_line(row, &mut lines));
            console.bytes(&lines);
        }
        text("\\.\n");
    }
    text(&SyntheticStore::postgres_keys());
    text(&synthetic.postgres_counters());
    text("COMMIT;\nANALYZE;\n");
    Ok(Exit::Done)
}

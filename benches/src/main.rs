//! Measures reinstate beside its limits and prints a table; `--write` puts it into
//! `docs/benchmarks.md`.
//!
//! `cargo run --release -p reinstate-benches -- [--write] [--full]`, `-- --postgres`, `-- --log`,
//! `-- --batch` or `-- --schema` for one chapter alone, which is printed and not written. `-- --waits`
//! measures how long other tenants' writers wait; with `--write` that goes into `docs/guarantees.md`.

mod chapters;
mod page;

use anyhow::{Result, bail, ensure};

fn main() -> Result<()> {
    let mut write = false;
    let mut full = false;
    let mut postgres_only = false;
    let mut log_only = false;
    let mut schema_only = false;
    let mut batch_only = false;
    let mut waits_only = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--write" => write = true,
            "--full" => full = true,
            "--postgres" => postgres_only = true,
            "--log" => log_only = true,
            "--schema" => schema_only = true,
            "--batch" => batch_only = true,
            "--waits" => waits_only = true,
            "--large" => {
                // Run by this program itself, in a process of its own, to see its peak memory.
                return chapters::memory::child(full);
            }
            _ => bail!(
                "unknown argument {argument}: there are --write, --full, --postgres, --log, --batch, --schema, --waits"
            ),
        }
    }
    ensure!(
        !(write && (postgres_only || log_only || schema_only || batch_only)),
        "--write puts down every chapter: leave --postgres, --log, --batch and --schema out"
    );
    ensure!(
        !write || std::env::var_os("REINSTATE_BENCH_ONLY").is_none(),
        "--write puts down every chapter, whole: unset REINSTATE_BENCH_ONLY"
    );
    if waits_only {
        let table = chapters::waits::measure()?;
        println!("{table}");
        return if write {
            chapters::waits::write(&table)
        } else {
            Ok(())
        };
    }
    let rows = if postgres_only {
        chapters::postgres::measure()?
    } else if schema_only {
        chapters::schema::measure()?
    } else if log_only {
        let mut rows = chapters::log::measure()?;
        rows.extend(chapters::follow::measure()?);
        rows
    } else if batch_only {
        chapters::batch::measure()?
    } else {
        chapters::all(full)?
    };
    let page = page::render(&rows)?;
    println!("{page}");
    if write {
        page::write(&page)?;
    }
    Ok(())
}

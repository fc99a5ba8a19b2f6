//! Measures reinstate beside its limits and prints a table; `--write` puts it into
//! `docs/benchmarks.md`.
//!
//! `cargo run --release -p reinstate-benches -- [--write] [--full]`

mod chapters;
mod page;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut write = false;
    let mut full = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--write" => write = true,
            "--full" => full = true,
            "--large" => {
                // Run by this program itself, in a process of its own, to see its peak memory.
                return chapters::memory::child(full);
            }
            _ => bail!("unknown argument {argument}: there are --write and --full"),
        }
    }
    let rows = chapters::all(full)?;
    let page = page::render(&rows)?;
    println!("{page}");
    if write {
        page::write(&page)?;
    }
    Ok(())
}

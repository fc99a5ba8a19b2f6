//! `completions` and `man`.

use anyhow::Context;
use clap::CommandFactory;

use crate::arguments::{Arguments, Completions, Man};
use crate::console::Console;
use crate::exit::Exit;

/// `completions SHELL`.
pub fn completions(arguments: &Completions, console: &Console) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "reinstate", &mut script);
    console.bytes(&script);
    Ok(Exit::Done)
}

/// `man DIR`.
pub fn man(arguments: &Man, console: &Console) -> anyhow::Result<Exit> {
    let directory = &arguments.directory;
    let writing = || format!("write manual pages into {}", directory.display());
    std::fs::create_dir_all(directory).with_context(writing)?;
    clap_mangen::generate_to(Arguments::command(), directory).with_context(writing)?;
    console.line(format_args!(
        "wrote manual pages into {}",
        directory.display()
    ));
    Ok(Exit::Done)
}

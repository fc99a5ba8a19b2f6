//! The `reinstate` command: the only place with a clock, a progress bar and words for people.

mod adapters;
mod arguments;
mod commands;
mod configuration;
mod confirm;
mod console;
mod demo;
mod drill;
mod exit;
mod failure;
mod holder;
mod pacing;
mod point;
mod postgres;
mod progress;
mod render;
mod resolve;
mod session;
mod signals;
mod synthetic;
mod written_report;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use clap::error::ErrorKind as UsageKind;

use crate::arguments::Arguments;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::{Failure, Shown, show};
use crate::signals::Interruption;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let arguments = match Arguments::try_parse_from(&words) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(usage(&error, &words).code()),
    };
    let console = Console::new(arguments.global.json);
    let exit = match work(&arguments, &console) {
        Ok(exit) => exit.code(),
        Err(error) => fail(&console, &error).exit_code,
    };
    ExitCode::from(exit)
}

fn work(arguments: &Arguments, console: &Console) -> anyhow::Result<Exit> {
    let interruption = Interruption::listen().context("listen for signals")?;
    let result = commands::run(arguments, console, &interruption);
    let result = match (result, interruption.exit()) {
        // The engine says that it was stopped; only here is known by whom.
        (Err(error), Some(exit)) if failure::exit_of(&error) == Exit::Interrupted => {
            let shown = show(&error);
            Err(Failure::ending(exit, shown.kind, shown.message)
                .next(shown.next)
                .into())
        }
        (result, _) => result,
    };
    console.finish().context("write the result")?;
    result
}

fn fail(console: &Console, error: &anyhow::Error) -> Shown {
    let shown = show(error);
    console.failure(&shown);
    shown
}

/// Shows what is wrong with the command line; or help, where that was asked for.
fn usage(error: &clap::Error, words: &[OsString]) -> Exit {
    let is_wanted = matches!(
        error.kind(),
        UsageKind::DisplayHelp | UsageKind::DisplayVersion
    );
    if is_wanted {
        let _ = error.print();
        return Exit::Done;
    }
    // The flag may stand behind what could not be understood.
    let json = words.iter().any(|word| word == "--json");
    if !json {
        let _ = error.print();
        return Exit::Usage;
    }
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default();
    let message = message.trim_start_matches("error: ").to_owned();
    fail(&Console::new(true), &Failure::usage(message).into());
    Exit::Usage
}

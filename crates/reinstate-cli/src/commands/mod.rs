//! The verbs, one file each.

mod apply;
pub mod campaign;
mod capture;
mod copying;
mod diff;
mod doctor;
mod export;
mod follow;
mod generate;
mod guard;
mod init;
mod lease;
mod list;
mod plan;
mod reference;
mod report;
mod run;
mod show;
mod stream;
mod target;
mod tenancy;
mod tenants;
mod undo;
mod verify;
mod window;

use crate::arguments::{Arguments, Command};
use crate::console::Console;
use crate::demo;
use crate::drill;
use crate::exit::Exit;
use crate::session::Session;
use crate::signals::Interruption;
use crate::written_report;

pub use tenants::parse_tenant;
pub use undo::find_job;

/// Does what the command line says.
///
/// # Errors
/// Whatever kept it from being done; see [`crate::failure`].
pub fn run(
    arguments: &Arguments,
    console: &Console,
    interruption: &Interruption,
) -> anyhow::Result<Exit> {
    let global = &arguments.global;
    let session = || Session::open(global, console, interruption);
    match &arguments.command {
        Command::Demo(demo) => demo::run(demo, global, console, interruption),
        Command::Init(init) => init::run(init, global, console),
        Command::Doctor => doctor::run(global, console, interruption),
        Command::Tenancy(tenancy) => tenancy::run(tenancy, &session()?),
        Command::Guard(guard) => guard::run(guard, &session()?),
        Command::Capture(capture) => capture::run(capture, &session()?),
        Command::Snapshots(snapshots) => list::snapshots(snapshots, &session()?),
        Command::Tenants(tenants) => list::tenants(tenants, &session()?),
        Command::Status => follow::status(&session()?),
        Command::Window(window) => window::run(window, &session()?),
        Command::Export(export) => export::run(export, &session()?),
        Command::Diff(diff) => diff::run(diff, &session()?),
        Command::Plan(plan) => plan::run(plan, &session()?),
        Command::Show(show) => show::run(show, global, console, interruption),
        Command::Apply(apply) => apply::run(apply, &session()?),
        Command::Restore(restore) => apply::restore(restore, &session()?),
        Command::Undo(undo) => undo::run(undo, &session()?),
        Command::Lease(lease) => lease::run(lease, &session()?),
        Command::Campaign(campaign) => campaign::run(campaign, global, console, interruption),
        Command::Verify(verify) => verify::run(verify, &session()?),
        Command::Drill(drill) => drill::run(drill, &session()?),
        Command::Report(report) => written_report::run(report, &session()?),
        Command::Generate(generate) => generate::run(generate, global, console, interruption),
        Command::Completions(completions) => reference::completions(completions, console),
        Command::Man(man) => reference::man(man, console),
    }
}

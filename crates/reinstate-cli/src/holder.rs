//! Who holds a lock of a repository: what a process leaves there, and what to type about another's.
//!
//! A lock belongs to a process and ends with it, however it ends. One that is stopped keeps it: nobody can
//! take it over from a process that may go on any moment in the middle of a write. So whoever meets it is
//! told which process that is, and ends it or lets it go on.

use clap::CommandFactory;
use reinstate_core::{ErrorKind, RepositoryError};
use reinstate_repository::{LocalRepository, RepositoryLock};

use crate::arguments::Arguments;
use crate::failure::Failure;

/// Takes a lock, and leaves who has it.
///
/// # Errors
/// `Locked` if somebody holds it, with `message`, who that is and what to type; otherwise as the
/// repository reports it.
pub fn lock(
    repository: &LocalRepository,
    name: &str,
    message: impl FnOnce() -> String,
) -> Result<RepositoryLock, Failure> {
    let failed = |error: RepositoryError| {
        let kind = error.kind();
        let failure = Failure::new(kind, message()).because(error);
        match advice(&repository.lock_note(name).unwrap_or_default()) {
            Some(advice) if kind == ErrorKind::Locked => failure.next(advice),
            _ => failure,
        }
    };
    repository.lock(name, &note()).map_err(failed)
}

/// `process 17 (reinstate restore) on db-1 since 2026-11-30T12:00:00Z`.
fn note() -> String {
    let now = jiff::Timestamp::now().round(jiff::Unit::Second);
    let since = now.map_or_else(|_| String::new(), |now| format!(" since {now}"));
    let process = std::process::id();
    format!("process {process} ({}) on {}{since}", verb(), host())
}

/// The command that this process was started with, without what it is about.
fn verb() -> String {
    let command = Arguments::command();
    let (mut at, mut words) = (&command, vec![command.get_name().to_owned()]);
    for word in std::env::args().skip(1) {
        if let Some(verb) = at.find_subcommand(&word) {
            words.push(verb.get_name().to_owned());
            at = verb;
        }
    }
    words.join(" ")
}

fn host() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy().into_owned();
    name.split_whitespace().collect()
}

/// What to type about whoever left this note.
fn advice(note: &str) -> Option<String> {
    let mut words = note.strip_prefix("process ")?.split(' ');
    let process: u32 = words.next()?.parse().ok()?;
    let host_there = words.skip_while(|word| *word != "on").nth(1)?;
    let ended = "what it has not committed is undone, and its command can be run again";
    if host_there != host() {
        return Some(format!(
            "wait until it is done, then run the same command. If it hangs, on {host_there}: kill \
             {process}; {ended}"
        ));
    }
    Some(match is_stopped(process)? {
        true => format!(
            "that process is stopped: kill -CONT {process} lets it go on, kill -KILL {process} ends it; \
             {ended}"
        ),
        false => format!(
            "wait until it is done, then run the same command. If it hangs: kill {process}; {ended}"
        ),
    })
}

/// Whether a process of this machine is stopped; none if there is none, or nobody can tell.
fn is_stopped(process: u32) -> Option<bool> {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, which may hold anything, is in brackets before it.
    let (_, after) = state.rsplit_once(") ")?;
    Some(after.starts_with(['T', 't']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_the_process_and_what_to_do_about_it() {
        let own = note();
        let process = std::process::id();
        assert!(
            own.starts_with(&format!("process {process} (reinstate")),
            "{own}"
        );
        let advice_on = |note: &str| advice(note).unwrap_or_default();
        assert!(
            advice_on(&own).contains(&format!("kill {process};")),
            "{own}"
        );
        let elsewhere = "process 17 (reinstate campaign run) on some-other-machine since now";
        assert!(advice_on(elsewhere).contains("on some-other-machine: kill 17;"));
        for note in [
            "",
            "process 17",
            "process x (reinstate) on y",
            "somebody on y",
        ] {
            assert_eq!(advice(note), None, "{note}");
        }
        // Whoever was here before and is gone.
        let gone = own.replace(&process.to_string(), &u32::MAX.to_string());
        assert_eq!(advice(&gone), None);
    }
}

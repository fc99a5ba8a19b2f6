//! Approval: nothing is written that nobody agreed to.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use reinstate::PlanDescription;
use reinstate_core::{Cancellation, Digest, ErrorKind, Tenant};

use crate::arguments::Approval;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::{Totals, counted, tenant, totals};

/// The most rows that a plain yes approves.
pub const PLAIN_ROWS_MAX: u64 = 1_000_000;
/// How often a prompt looks whether it was interrupted.
const PROMPT_POLL: Duration = Duration::from_millis(50);
/// The fewest digits of a digest that stand for it.
const DIGEST_DIGITS_MIN: usize = 12;

/// Makes sure that somebody agreed to the plan: by a flag, or at the terminal.
///
/// # Errors
/// `Stale` (not approved) if the flag names another plan or the person declines; usage if nobody
/// can be asked; `Cancelled` if the prompt is interrupted.
pub fn approve(
    approval: &Approval,
    plan: &PlanDescription,
    digest: Digest,
    next: &str,
    cancellation: &Cancellation,
) -> Result<(), Failure> {
    let only = match plan.tenants.as_slice() {
        [part] => Some(tenant(&plan.tenant_kind, &part.tenant)),
        _ => None,
    };
    if let Some(given) = &approval.confirm_digest {
        return check_digest(given, digest);
    }
    if let Some(given) = &approval.confirm {
        return check_tenant(given, only.as_ref());
    }
    let totals = totals(plan);
    if totals.changed() == 0 {
        return Ok(());
    }
    let reasons = reasons(totals, plan.tenants.len());
    if approval.yes && reasons.is_empty() {
        return Ok(());
    }
    let word = match &only {
        Some(tenant) => tenant.to_string(),
        None => digest.short(),
    };
    let has_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
    let next = match &only {
        Some(tenant) if !reasons.is_empty() => format!("add --confirm {tenant}; or {next}"),
        Some(_) => format!("add --yes; or {next}"),
        None => next.to_owned(),
    };
    if approval.yes || !has_terminal {
        let plan = match reasons.as_slice() {
            [] => "the plan is not approved".to_owned(),
            reasons => format!("the plan {}", reasons.join(" and ")),
        };
        let why = if approval.yes {
            "--yes is not enough for that"
        } else {
            "there is no terminal to ask for approval"
        };
        let message = format!("{plan}, and {why}. Nothing was written");
        return Err(Failure::usage(message).next(next));
    }
    ask(&word, &reasons, cancellation)
}

/// Why a plain yes is not enough; nothing if it is.
fn reasons(totals: Totals, tenant_count: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    if totals.delete > 0 {
        reasons.push(format!("deletes {}", counted(totals.delete, "row", "rows")));
    }
    if tenant_count > 1 {
        reasons.push(format!("is for {tenant_count} tenants"));
    }
    if totals.changed() > PLAIN_ROWS_MAX {
        reasons.push(format!(
            "changes {}",
            counted(totals.changed(), "row", "rows")
        ));
    }
    reasons
}

fn not_approved(message: &str) -> Failure {
    Failure::ending(
        Exit::Stale,
        "not_approved",
        format!("{message}. Nothing was written"),
    )
}

fn check_digest(given: &str, digest: Digest) -> Result<(), Failure> {
    let digits = given.strip_prefix("b3:").unwrap_or(given);
    let whole = digest.to_string();
    let whole = whole.trim_start_matches("b3:");
    if digits.len() < DIGEST_DIGITS_MIN {
        let message = format!("digest {given:?}: at least {DIGEST_DIGITS_MIN} digits are needed");
        return Err(Failure::usage(message));
    }
    if whole.starts_with(digits) {
        return Ok(());
    }
    let message = format!("the plan's digest is {}, not {given}", digest.short());
    Err(not_approved(&message).next("look at it again: reinstate show FILE"))
}

fn check_tenant(given: &str, only: Option<&Tenant>) -> Result<(), Failure> {
    match only {
        // As it may be typed, and not only as it is shown.
        Some(tenant) if given.parse().is_ok_and(|given: Tenant| given == *tenant) => Ok(()),
        Some(tenant) => {
            let message = format!("the plan is for {tenant}, not {given}");
            Err(not_approved(&message).next("look at it again: reinstate show FILE"))
        }
        None => Err(
            Failure::usage("--confirm approves a plan for one tenant only")
                .next("approve it by its digest: --confirm-digest DIGEST"),
        ),
    }
}

fn ask(word: &str, reasons: &[String], cancellation: &Cancellation) -> Result<(), Failure> {
    let mut terminal = io::stderr();
    let asked = if reasons.is_empty() {
        write!(terminal, "Apply this plan? [y/N] ")
    } else {
        let reasons = reasons.join(" and ");
        write!(terminal, "This plan {reasons}. Type {word} to apply it: ")
    };
    asked
        .and_then(|()| terminal.flush())
        .map_err(|error| Failure::usage("ask for approval").because(error))?;
    let answer = read_answer(cancellation)?;
    let answer = answer.trim();
    let agreed = if reasons.is_empty() {
        matches!(answer, "y" | "Y" | "yes" | "Yes" | "YES")
    } else {
        answer == word
    };
    if agreed {
        Ok(())
    } else {
        let next = "nothing; or run the same command again to approve it";
        Err(not_approved("the plan was not approved").next(next))
    }
}

/// Reads a line, or gives up when the person presses Ctrl-C: a read that waits for a terminal
/// would not notice, so that a thread of its own does the waiting.
fn read_answer(cancellation: &Cancellation) -> Result<String, Failure> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        // Nobody listens any more after an interruption.
        let _ = sender.send(read.map(|_| answer));
    });
    loop {
        match receiver.recv_timeout(PROMPT_POLL) {
            Ok(answer) => {
                return answer.map_err(|error| Failure::usage("read the answer").because(error));
            }
            Err(RecvTimeoutError::Timeout) if !cancellation.is_cancelled() => {}
            Err(_) => {
                let message = "stopped before the plan was approved. Nothing was written";
                return Err(Failure::new(ErrorKind::Cancelled, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deletes_or_is_large_needs_more_than_yes() {
        let plain = Totals {
            create: PLAIN_ROWS_MAX,
            ..Totals::default()
        };
        assert_eq!(reasons(plain, 1), Vec::<String>::new());
        assert_eq!(reasons(plain, 2), ["is for 2 tenants"]);
        let deletes = Totals { delete: 1, ..plain };
        let both = ["deletes 1 row", "changes 1,000,001 rows"];
        assert_eq!(reasons(deletes, 1), both);
    }

    #[test]
    fn a_digest_is_recognised_by_twelve_digits() {
        let digest = Digest::from_bytes([0xab; 32]);
        for good in [&digest.to_string(), &digest.short(), "abababababab"] {
            assert!(check_digest(good, digest).is_ok(), "{good}");
        }
        let code = |given: &str| {
            let failure = check_digest(given, digest).unwrap_err();
            crate::failure::show(&failure.into()).exit_code
        };
        assert_eq!(code("ababababab"), 2);
        assert_eq!(code("abababababac"), 6);
    }

    #[test]
    fn a_tenant_is_recognised_as_it_may_be_typed() {
        let shown: Tenant = "account:a%20b".parse().unwrap();
        for good in ["account:a%20b", "account:a b"] {
            assert!(check_tenant(good, Some(&shown)).is_ok(), "{good}");
        }
        for bad in ["account:a", "user:a b", "account:A b", ""] {
            assert!(check_tenant(bad, Some(&shown)).is_err(), "{bad}");
        }
    }
}

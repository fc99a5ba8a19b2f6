//! What only an operator knows: statements in a store, programs, and the clock.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use reinstate::{CampaignStep, Operator, StepAnswer, StepPurpose, Subject};
use reinstate_core::{Cancellation, ErrorKind, StoreError, Timestamp};

use super::estate::OpenStore;
use crate::session::now;

/// How often it is looked whether a program ended.
const POLL: Duration = Duration::from_millis(20);
/// How much of what a program says is kept.
const OUTPUT_BYTES_MAX: usize = 4096;
/// How long is waited for the rest of what a program said that has ended.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// The operator of an estate.
pub struct EstateOperator<'e> {
    /// Who.
    pub actor: &'e str,
    /// The stores, in the order of the campaign's plan.
    pub stores: Vec<&'e OpenStore>,
    /// Who may stop a program that runs.
    pub cancellation: &'e Cancellation,
}

impl Operator for EstateOperator<'_> {
    fn now(&self) -> Timestamp {
        now()
    }

    fn actor(&self) -> &str {
        self.actor
    }

    fn step(
        &self,
        step: &CampaignStep,
        timeout_seconds: u32,
        purpose: StepPurpose,
        subject: Subject<'_>,
    ) -> Result<StepAnswer, StoreError> {
        let timeout = Duration::from_secs(timeout_seconds.into());
        match step {
            CampaignStep::Sql { store, text } => {
                self.sql((*store, text), timeout, purpose, subject)
            }
            CampaignStep::Command(words) => self.command(words, timeout, subject),
        }
    }
}

impl EstateOperator<'_> {
    fn sql(
        &self,
        (store, text): (u32, &str),
        timeout: Duration,
        purpose: StepPurpose,
        subject: Subject<'_>,
    ) -> Result<StepAnswer, StoreError> {
        let refused = |fact: &str| {
            let message = format!("run a statement about {}: {fact}", subject.site);
            StoreError::new(ErrorKind::Refused, message)
        };
        let place = store as usize;
        let Some(open) = self.stores.get(place) else {
            return Err(refused("there is no such store"));
        };
        let Some(postgres) = &open.postgres else {
            return Err(refused("the store is no SQL database"));
        };
        let Some(Some(tenant)) = subject.tenants.get(place) else {
            return Err(refused("the site is not in that store"));
        };
        let text = match purpose {
            StepPurpose::Check => postgres.ask(text, tenant, timeout),
            StepPurpose::Act => postgres.tell(text, tenant, timeout),
        }?;
        Ok(StepAnswer {
            is_done: true,
            text,
        })
    }

    /// Runs a program to its end, or until its time is over: then it is killed with all that it started.
    fn command(
        &self,
        words: &[String],
        timeout: Duration,
        subject: Subject<'_>,
    ) -> Result<StepAnswer, StoreError> {
        use std::os::unix::process::CommandExt;
        let site = subject.site.id.to_string();
        let words: Vec<String> = words
            .iter()
            .map(|word| word.replace("{site}", &site))
            .collect();
        let (program, arguments) = words.split_first().ok_or_else(|| {
            StoreError::new(ErrorKind::Refused, "run a program: the command is empty")
        })?;
        let spawned = Command::new(program)
            .args(arguments)
            .env("REINSTATE_SITE", subject.site.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = spawned.map_err(|error| {
            StoreError::new(ErrorKind::Refused, format!("run {program}")).because(error)
        })?;
        let output = [
            child.stdout.take().map(|pipe| Heard::from(Box::new(pipe))),
            child.stderr.take().map(|pipe| Heard::from(Box::new(pipe))),
        ];
        let ended = self.wait(&mut child, timeout);
        kill_group(&child);
        if matches!(ended, Ok(None)) {
            // It was killed just now; its status says nothing more.
            let _ = child.wait();
        }
        let said: Vec<String> = output
            .into_iter()
            .flatten()
            .map(Heard::text)
            .filter(|text| !text.is_empty())
            .collect();
        let said = said.join("\n");
        let (is_done, fact) = match ended {
            Ok(Some(status)) if status.success() => (true, said),
            Ok(Some(status)) => (false, format!("{program} ended with {status}: {said}")),
            Ok(None) if self.cancellation.is_cancelled() => {
                let message = format!("run {program}: stopped on request");
                return Err(StoreError::new(ErrorKind::Cancelled, message));
            }
            Ok(None) => {
                let fact = format!("{program} did not end within {timeout:?} and was killed");
                (false, fact)
            }
            Err(error) => {
                let message = format!("wait for {program}");
                return Err(StoreError::new(ErrorKind::Refused, message).because(error));
            }
        };
        Ok(StepAnswer {
            is_done,
            text: fact.trim().to_owned(),
        })
    }

    fn wait(
        &self,
        child: &mut Child,
        timeout: Duration,
    ) -> std::io::Result<Option<std::process::ExitStatus>> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until || self.cancellation.is_cancelled() {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }
}

/// What a program says: read to its end, of which the beginning is kept.
struct Heard {
    kept: Arc<Mutex<Vec<u8>>>,
    over: Receiver<()>,
}

impl Heard {
    fn from(mut pipe: Box<dyn Read + Send>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (at_end, over) = channel();
        let heard = Arc::clone(&kept);
        thread::spawn(move || {
            let mut part = [0; OUTPUT_BYTES_MAX];
            // What cannot be read is not said; the rest is read so that the program does not wait.
            while let Ok(count @ 1..) = pipe.read(&mut part) {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_BYTES_MAX - heard.len();
                heard.extend_from_slice(&part[..count.min(room)]);
            }
            // Nobody may be waiting any more.
            let _ = at_end.send(());
        });
        Self { kept, over }
    }

    /// What was said by a program that ended. One that it started, and that left its group, may have the
    /// output open for as long as it likes: it is not waited for.
    fn text(self) -> String {
        let _ = self.over.recv_timeout(LAST_WORDS_MAX);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).trim().to_owned()
    }
}

/// Ends whatever is left of a program and what it started: they would hold its output open.
fn kill_group(child: &Child) {
    let group = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // Nothing is left to end if it ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

//! Progress: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{
    HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use reinstate_core::{Event, Observer, Phase};

/// How long a phase lasts before it says so where there is no terminal, and how often after.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How long a run lasts before it shows a bar: what is over at once needs none.
const BAR_AFTER: Duration = Duration::from_millis(500);
/// How long something runs before its rest is estimated.
const ESTIMATE_AFTER: Duration = Duration::from_secs(2);

/// Shows how far a run has come. Knows the phases up front, so that it can name all of them.
#[derive(Debug)]
pub struct Progress {
    title: Option<&'static str>,
    phases: Vec<Phase>,
    tenant_count: usize,
    is_terminal: bool,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Option<Phase>,
    bar: Option<ProgressBar>,
    rows: u64,
    rows_expected: Option<u64>,
    tenants_seen: usize,
    /// Whether a merge goes on. What is verified beside it is not shown.
    is_merging: bool,
    label: String,
    line_at: Instant,
}

impl Progress {
    /// Progress over these phases, each for so many tenants (or none, for the whole store).
    #[must_use]
    pub fn new(phases: &[Phase], tenant_count: usize) -> Self {
        let state = State {
            phase: None,
            bar: None,
            rows: 0,
            rows_expected: None,
            tenants_seen: 0,
            is_merging: false,
            label: String::new(),
            line_at: Instant::now() + LINE_EVERY,
        };
        Self {
            title: None,
            phases: phases.to_vec(),
            tenant_count,
            is_terminal: std::io::stderr().is_terminal(),
            started: Instant::now(),
            state: Mutex::new(state),
        }
    }

    /// Progress of one thing that has a name of its own.
    #[must_use]
    pub fn of(title: &'static str) -> Self {
        let mut progress = Self::new(&[], 0);
        progress.title = Some(title);
        progress
    }

    /// Takes the bar away, before something else is printed.
    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
        state.phase = None;
    }

    /// All phases, the present one in brackets.
    fn place(&self, phase: Phase) -> String {
        if let Some(title) = self.title {
            return title.to_owned();
        }
        let names: Vec<_> = self
            .phases
            .iter()
            .map(|&known| match known == phase {
                true => format!("[{}]", name(known)),
                false => name(known).to_owned(),
            })
            .collect();
        names.join(" > ")
    }

    /// Shows the bar, if there is somebody to see it and it has taken a while.
    fn draw(&self, state: &mut State) {
        if state.bar.is_none() && self.is_terminal && self.started.elapsed() >= BAR_AFTER {
            let bar = new_bar(state);
            state.bar = Some(bar);
        }
    }

    fn start(&self, state: &mut State, phase: Phase, tenant: Option<String>, rows: Option<u64>) {
        // Merge and verify take turns, tenant by tenant: the count belongs to the first of them.
        let is_new_round = state.phase != Some(phase);
        if phase == Phase::Plan && is_new_round {
            state.tenants_seen = 0;
        }
        if tenant.is_some() && phase != Phase::Verify {
            state.tenants_seen += 1;
        }
        state.phase = Some(phase);
        state.is_merging = phase == Phase::Merge;
        state.rows = 0;
        state.rows_expected = rows;
        let which = match tenant {
            Some(tenant) if self.tenant_count > 1 => {
                format!(
                    " {tenant} ({} of {})",
                    state.tenants_seen, self.tenant_count
                )
            }
            Some(tenant) => format!(" {tenant}"),
            None => String::new(),
        };
        state.label = format!("{}{which}", self.place(phase));
        if let Some(bar) = &state.bar {
            dress(bar, state);
            bar.set_position(0);
            bar.reset_eta();
        }
        self.draw(state);
    }

    fn advance(&self, state: &mut State, rows: u64) {
        state.rows += rows;
        self.draw(state);
        if let Some(bar) = &state.bar {
            // Comparing may read more rows than expected: live ones on top of the image's.
            if state
                .rows_expected
                .is_some_and(|expected| state.rows > expected)
            {
                bar.set_length(state.rows);
            }
            bar.set_position(state.rows);
        } else if !self.is_terminal && Instant::now() >= state.line_at {
            state.line_at = Instant::now() + LINE_EVERY;
            let so_far = HumanCount(state.rows);
            match state.rows_expected {
                Some(all) => eprintln!("{} {so_far} of {} rows", state.label, HumanCount(all)),
                None => eprintln!("{} {so_far} rows", state.label),
            }
        }
    }
}

impl Observer for Progress {
    fn observe(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started {
                phase: Phase::Verify,
                ..
            }
            | Event::Advanced {
                phase: Phase::Verify,
                ..
            } if state.is_merging => {}
            Event::Started {
                phase,
                tenant,
                rows_expected,
            } => self.start(
                &mut state,
                phase,
                tenant.map(ToString::to_string),
                rows_expected,
            ),
            Event::Advanced { rows, .. } => self.advance(&mut state, rows),
            Event::Finished {
                phase: Phase::Merge,
                ..
            } => state.is_merging = false,
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn new_bar(state: &State) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    dress(&bar, state);
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// A total gives a bar and, after a while, an estimate; without one there is only a count.
fn dress(bar: &ProgressBar, state: &State) {
    let template = if state.rows_expected.is_some() {
        "{msg} {bar:24} {human_pos} of {human_len} rows, {per_sec}{left}"
    } else {
        "{msg} {spinner} {human_pos} rows, {per_sec}, {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(
            style
                .progress_chars("#>-")
                .tick_chars("|/-\\ ")
                .with_key("left", left),
        );
    }
    bar.set_length(state.rows_expected.unwrap_or(0));
    bar.set_message(state.label.clone());
}

fn left(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    if state.pos() > 0 && state.elapsed() >= ESTIMATE_AFTER {
        // An estimate that cannot be written is not missed.
        let _ = write!(text, ", {} left", HumanDuration(state.eta()));
    }
}

/// What a phase is called.
#[must_use]
pub const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Capture => "read the store",
        Phase::Write => "write the snapshot",
        Phase::Plan => "compare",
        Phase::Merge => "merge",
        Phase::Verify => "verify",
        _ => "work",
    }
}

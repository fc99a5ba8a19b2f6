//! Watching a campaign: redrawn in place on a terminal, a line now and then elsewhere.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use console::{Term, truncate_str};
use reinstate::{
    CampaignStage, CampaignState, Journal, PaceLimits, StoredCampaign, campaign_journal,
    campaign_state,
};

use super::estate::Estate;
use super::figures::Figures;
use super::pace::limits;
use super::signs::{Meter, Signs, SignsFile};
use super::view::View;
use crate::exit::Exit;

/// How often a terminal is drawn anew, and signs of life are given.
const TICK: Duration = Duration::from_millis(500);
/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Where a campaign is, in numbers.
#[must_use]
pub fn figures(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    journal: &Journal<'_>,
    signs: Option<Signs>,
) -> (CampaignState, Figures) {
    let state = journal.look(|entries| campaign_state(campaign, entries));
    let stores = (0..).zip(&campaign.description().stores);
    let limits: Vec<PaceLimits> = stores
        .map(|(place, _)| limits(estate, campaign, journal, place))
        .collect();
    let figures = Figures::of(campaign, &state, &limits, signs);
    (state, figures)
}

/// Shows how a run gets on, and gives signs of life, until it has ended.
pub fn follow_run(
    estate: &Estate<'_>,
    campaign: &StoredCampaign,
    journal: &Journal<'_>,
    meter: &mut Meter<'_>,
    ended: &Receiver<()>,
) {
    let file = SignsFile::of(estate, campaign);
    let mut shown = Shown::new(Term::buffered_stderr(), std::io::stderr().is_terminal());
    loop {
        let signs = meter.signs();
        file.write(&signs);
        let (state, figures) = figures(estate, campaign, journal, Some(signs));
        shown.show(View {
            campaign,
            state: &state,
            figures: &figures,
        });
        if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            shown.clear();
            return;
        }
    }
}

/// `campaign status C --watch`: until it is over, or nobody wants to see more.
pub fn watch(estate: &Estate<'_>, campaign: &StoredCampaign) -> anyhow::Result<Exit> {
    let journal = campaign_journal(&estate.repository, campaign)?;
    estate.interruption.say_nothing();
    let is_terminal = std::io::stdout().is_terminal() && !estate.console.is_json();
    let mut shown = Shown::new(Term::buffered_stdout(), is_terminal);
    let mut last = None;
    loop {
        journal.refresh()?;
        let signs = Signs::read(estate, campaign);
        let (state, figures) = figures(estate, campaign, &journal, signs);
        let view = View {
            campaign,
            state: &state,
            figures: &figures,
        };
        let is_over = matches!(
            state.stage,
            CampaignStage::Finished | CampaignStage::Aborted | CampaignStage::Undone
        ) && figures.signs.is_none();
        if estate.console.is_json() {
            if last.as_ref() != Some(&figures) {
                estate.console.record(&view.record());
            }
            last = Some(figures);
        } else {
            shown.show(view);
        }
        if is_over || estate.console.is_closed() {
            shown.end(estate, campaign, &journal);
            return Ok(Exit::Done);
        }
        if let Some(exit) = estate.interruption.exit() {
            return Ok(exit);
        }
        thread::sleep(TICK);
    }
}

/// What is on the terminal, or was printed.
struct Shown {
    terminal: Term,
    is_terminal: bool,
    /// How many lines of the terminal are drawn over the next time.
    height: usize,
    line: String,
    line_at: Option<Instant>,
    parked: BTreeSet<usize>,
}

impl Shown {
    fn new(terminal: Term, is_terminal: bool) -> Self {
        Self {
            terminal,
            is_terminal,
            height: 0,
            line: String::new(),
            line_at: None,
            parked: BTreeSet::new(),
        }
    }

    fn show(&mut self, view: View<'_>) {
        match self.is_terminal {
            true => self.draw(&view.lines()),
            false => self.print(view),
        }
    }

    /// Draws lines over those that were drawn before.
    fn draw(&mut self, lines: &[String]) {
        let (height, width) = self.terminal.size();
        // A line that is broken, or scrolled away, could not be drawn over.
        let height = usize::from(height).saturating_sub(1).max(1);
        let width = usize::from(width).saturating_sub(1).max(1);
        // A terminal that is gone shows nothing, and the work goes on.
        let _ = self.terminal.clear_last_lines(self.height);
        let lines = &lines[..lines.len().min(height)];
        for line in lines {
            let _ = self.terminal.write_line(&truncate_str(line, width, "..."));
        }
        let _ = self.terminal.flush();
        self.height = lines.len();
    }

    /// Prints a line if there is something new, at most now and then; sites that are parked at once.
    fn print(&mut self, view: View<'_>) {
        for (place, reason) in view.parked_sites() {
            if self.parked.insert(place) {
                let _ = self.terminal.write_line(&view.parked_line(place, reason));
            }
        }
        let is_due = self.line_at.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        let line = view.line();
        if is_due && line != self.line {
            let _ = self.terminal.write_line(&line);
            self.line = line;
            self.line_at = Some(Instant::now());
        }
        let _ = self.terminal.flush();
    }

    /// Takes away what was drawn.
    fn clear(&mut self) {
        if self.is_terminal {
            let _ = self.terminal.clear_last_lines(self.height);
            let _ = self.terminal.flush();
            self.height = 0;
        }
    }

    /// Leaves how it ended, where only lines were printed.
    fn end(&mut self, estate: &Estate<'_>, campaign: &StoredCampaign, journal: &Journal<'_>) {
        self.line_at = None;
        let (state, figures) = figures(estate, campaign, journal, None);
        if !self.is_terminal && !estate.console.is_json() {
            self.print(View {
                campaign,
                state: &state,
                figures: &figures,
            });
        }
    }
}

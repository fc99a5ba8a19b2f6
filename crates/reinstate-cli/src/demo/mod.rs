//! `demo`: the whole story on synthetic stores. No server needed.
//!
//! Sites that live in three stores; snapshots; an application that goes on writing to all of them; a
//! script with the wrong ids that destroys some sites for good in every store; a campaign that brings
//! them back while the others write; and then the proof, row by row, against what the generator and
//! the application know.

mod campaign;
mod estate;
mod proof;
mod story;
mod writers;

use std::path::{Path, PathBuf};
use std::time::Instant;

use reinstate::{CaptureOptions, capture};
use reinstate_core::{Owner, Phase, Tenant};
use reinstate_synthetic::{SyntheticStore, Table};

use crate::arguments::{Demo, Global};
use crate::commands::campaign::Estate;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::render::{bytes, count, counted, tenant};
use crate::session::{Engine, new_snapshot, now};
use crate::signals::Interruption;

use estate::Shop;
use story::{Story, StoryRecord};
use writers::{Application, Period, Waits};

/// Everything on the stage.
struct Stage<'a> {
    global: &'a Global,
    directory: PathBuf,
    estate: Estate<'a>,
    shops: Vec<Shop>,
    victims: Vec<u32>,
}

/// `demo`.
pub fn run(
    arguments: &Demo,
    global: &Global,
    console: &Console,
    interruption: &Interruption,
) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let described = describe(arguments)?;
    let temporary = tempfile::tempdir_in(Engine::start(global)?.spill_directory())?;
    let directory = place(arguments, temporary.path())?;
    let story = Story::new(console);
    story.introduce(arguments);
    estate::write_configurations(&directory)?;
    let estate = estate::open(&directory, global, console, interruption)?;
    let stage = set_up(&story, global, estate, directory, described, arguments)?;
    let (record, gone) = stage.play(&story, arguments.out.as_deref())?;
    if let Some(kept) = &arguments.keep {
        console.line(format_args!(
            "\nkept in {}. {gone} is still gone: cd there, then try\n  reinstate campaign plan \
             {gone} --at latest",
            kept.display()
        ));
    }
    let memory = global.memory.as_u64();
    story.end(record, started.elapsed(), memory)
}

fn describe(arguments: &Demo) -> Result<Vec<SyntheticStore>, Failure> {
    let wrong = |message: String| Failure::usage(message).next("reinstate demo --help");
    if arguments.restore == 0 || arguments.restore >= arguments.tenants {
        let message = format!(
            "--restore {}: at least one tenant, and at least one of {} left to go on writing",
            arguments.restore, arguments.tenants
        );
        return Err(wrong(message));
    }
    if arguments.rows / 20 < u64::from(arguments.tenants) {
        let message = format!("--rows {}: at least 20 for each tenant", arguments.rows);
        return Err(wrong(message));
    }
    estate::describe(arguments).map_err(|error| wrong(error.to_string()))
}

/// The directory to work in: one to keep, which must be new, or one that goes.
fn place(arguments: &Demo, temporary: &Path) -> Result<PathBuf, Failure> {
    if let Some(out) = &arguments.out
        && out.exists()
    {
        let message = format!("--out {}: the file exists", out.display());
        return Err(Failure::usage(message).next("choose another --out"));
    }
    let Some(kept) = &arguments.keep else {
        return Ok(temporary.to_owned());
    };
    std::fs::create_dir(kept).map_err(|error| {
        let message = format!("--keep {}: make a new directory", kept.display());
        Failure::usage(message).because(error)
    })?;
    Ok(kept.clone())
}

fn set_up<'a>(
    story: &Story<'_>,
    global: &'a Global,
    estate: Estate<'a>,
    directory: PathBuf,
    described: Vec<SyntheticStore>,
    arguments: &Demo,
) -> anyhow::Result<Stage<'a>> {
    let (mut shops, mut opened) = (Vec::new(), Vec::new());
    for (place, synthetic) in described.into_iter().enumerate() {
        let progress = Progress::of("build the stores");
        let started = Instant::now();
        let (shop, open) = estate::build(&estate, place, synthetic, &progress)?;
        progress.clear();
        let path = open.of.configuration.with_file_name("store.redb");
        story.step(
            "build",
            started.elapsed(),
            format_args!(
                "store {}, phase {}: {} in {} tables, {} on disk",
                shop.name,
                open.of.phase,
                counted(shop.synthetic.spec().row_count, "row", "rows"),
                Table::ALL.len(),
                bytes(std::fs::metadata(path)?.len())
            ),
        );
        shops.push(shop);
        opened.push(open);
    }
    let victims = choose_victims(&shops[1].synthetic, arguments.restore);
    Ok(Stage {
        global,
        directory,
        estate: estate.with_stores(opened),
        shops,
        victims,
    })
}

/// Tenants of all sizes, the largest among them: every n-th by size.
fn choose_victims(synthetic: &SyntheticStore, victim_count: u32) -> Vec<u32> {
    let by_size = synthetic.tenants_by_size();
    let step = by_size.len() / victim_count as usize;
    let chosen = by_size.into_iter().step_by(step);
    chosen.take(victim_count as usize).collect()
}

impl Stage<'_> {
    /// Plays it to its end; returns what it came to, and the site that is gone then.
    fn play(&self, story: &Story<'_>, out: Option<&Path>) -> anyhow::Result<(StoryRecord, Tenant)> {
        for place in 0..self.shops.len() {
            self.capture(story, place)?;
        }
        let mut record = StoryRecord::default();
        let applications: Vec<_> = self
            .shops
            .iter()
            .map(|shop| Application::new(&shop.synthetic, &shop.store, &self.victims))
            .collect();
        let (restored, ledgers) = writers::run_while(&applications, |period| {
            let written_to = applications.iter().map(Application::tenant_count);
            story.say(format_args!(
                "            from here on {} threads of an application write to the other sites, up to \
                 {} a store",
                writers::THREADS * applications.len(),
                count(written_to.max().unwrap_or(0) as u64)
            ));
            period.set(Period::Idle);
            std::thread::sleep(std::time::Duration::from_millis(500));
            period.set(Period::Destroy);
            self.destroy(story)?;
            period.set(Period::Restore);
            let restored = self.restore(story)?;
            period.set(Period::After);
            Ok(restored)
        })?;
        let waits = Waits::of(&ledgers);
        story.waits(&waits);
        record.restored(&restored, &waits);
        let proof = self.prove(story, "prove", &ledgers, None)?;
        record.proof(&proof);
        self.report(story, &restored.campaign, out)?;
        let undone = self.undo(story, &restored.campaign)?;
        let again = self.prove(story, "prove again", &ledgers, Some(undone))?;
        record.proof(&again);
        Ok((record, self.site(undone)))
    }

    fn capture(&self, story: &Story<'_>, place: usize) -> anyhow::Result<()> {
        let progress = Progress::new(&[Phase::Capture, Phase::Write], 0);
        let started = Instant::now();
        let options = CaptureOptions::new(new_snapshot()?, now());
        let cancellation = self.estate.interruption.cancellation();
        let context = self.estate.engine.context(&progress, cancellation);
        let repository = &self.estate.stores()?[place].repository;
        let shop = &self.shops[place];
        let snapshot = capture(context, shop.store.as_ref(), repository, &options)?;
        progress.clear();
        let stored: u64 = snapshot
            .segments
            .iter()
            .map(|segment| segment.stored_bytes)
            .sum();
        let plain: u64 = snapshot.totals.iter().map(|total| total.plain_bytes).sum();
        story.step(
            "capture",
            started.elapsed(),
            format_args!(
                "store {}: snapshot {} at {}, {} stored of {}",
                shop.name,
                snapshot.id.short(),
                snapshot.position.display(snapshot.notation),
                bytes(stored),
                bytes(plain)
            ),
        );
        Ok(())
    }

    /// What happened to so many: a script with the wrong ids, one transaction a tenant and store.
    fn destroy(&self, story: &Story<'_>) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut rows: u64 = 0;
        for shop in &self.shops {
            for &victim in &self.victims {
                self.estate.interruption.cancellation().check()?;
                let owner = Owner::Tenant(shop.synthetic.tenant(victim));
                shop.store.write(|transaction| {
                    for table in Table::OWNED {
                        transaction.table(table.index())?.delete_all(&owner)?;
                    }
                    Ok(())
                })?;
                rows += shop.synthetic.tenant_row_count(victim);
            }
        }
        story.step(
            "destroy",
            started.elapsed(),
            format_args!(
                "a script with the wrong ids deletes {} for good from every store, {} rows",
                counted(self.victims.len() as u64, "site", "sites"),
                count(rows)
            ),
        );
        Ok(())
    }

    /// The site of this index, as the estate names it.
    fn site(&self, index: u32) -> Tenant {
        // The sites' own ids are those of the first store.
        let id = self.shops[0].synthetic.tenant(index);
        tenant(&self.estate.configuration.kind, &id)
    }
}

//! `demo`: the whole story on a synthetic store. No server needed.
//!
//! Many tenants in one file; a snapshot; an application that goes on writing; a script with the
//! wrong ids that destroys some tenants for good; those brought back while the others write; and
//! then the proof, row by row, against what the generator and the application know.

mod proof;
mod restore;
mod story;
mod writers;

use std::path::{Path, PathBuf};
use std::time::Instant;

use reinstate::{CaptureOptions, capture};
use reinstate_core::{LiveStore, Owner, Phase, RepositoryId, SnapshotDescription, TenantId};
use reinstate_embedded::EmbeddedStore;
use reinstate_repository::LocalRepository;
use reinstate_synthetic::{Flavour, SyntheticSpec, SyntheticStore, Table};

use crate::arguments::{Demo, Global};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::render::{bytes, counted};
use crate::session::{Engine, new_snapshot, now, random};
use crate::signals::Interruption;
use crate::synthetic::create_embedded;

use story::{Story, StoryRecord};
use writers::{Period, Writers};

/// How unequal the tenants are.
const SKEW: f64 = 1.0;
/// Threads of the application.
const WRITER_THREADS: u32 = 2;
/// What the store is called.
const STORE_NAME: &str = "demo";

/// Everything on the stage.
struct Stage<'a> {
    engine: &'a Engine,
    interruption: &'a Interruption,
    synthetic: SyntheticStore,
    store: EmbeddedStore,
    repository: LocalRepository,
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
    let synthetic = describe(arguments)?;
    let engine = Engine::start(global)?;
    let temporary = tempfile::tempdir_in(engine.spill_directory())?;
    let directory = place(arguments, temporary.path())?;
    let story = Story::new(console);
    story.introduce(arguments);
    let stage = set_up(
        &story,
        &engine,
        synthetic,
        &directory,
        arguments,
        interruption,
    )?;
    let (record, gone) = stage.play(&story)?;
    if let Some(kept) = &arguments.keep {
        write_configuration(kept)?;
        console.line(format_args!(
            "\nkept in {}. {gone} is still gone: cd there, then try\n  reinstate restore {gone} \
             --at latest",
            kept.display()
        ));
    }
    story.end(record, started.elapsed())
}

fn describe(arguments: &Demo) -> Result<SyntheticStore, Failure> {
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
    let spec = SyntheticSpec {
        seed: arguments.seed,
        tenant_count: arguments.tenants,
        row_count: arguments.rows,
        skew: SKEW,
        large_tenant: None,
    };
    SyntheticStore::try_new(spec, Flavour::Native).map_err(|error| wrong(error.to_string()))
}

/// The directory to work in: one to keep, which must be new, or one that goes.
fn place(arguments: &Demo, temporary: &Path) -> Result<PathBuf, Failure> {
    let Some(kept) = &arguments.keep else {
        return Ok(temporary.to_owned());
    };
    std::fs::create_dir(kept).map_err(|error| {
        let message = format!("--keep {}: make a new directory", kept.display());
        Failure::usage(message).because(error)
    })?;
    Ok(kept.clone())
}

fn write_configuration(directory: &Path) -> anyhow::Result<()> {
    let text = format!(
        "version = 1\n\n[repository]\nurl = \"file:repository\"\n\n[store]\nname = \
         \"{STORE_NAME}\"\nkind = \"embedded\"\npath = \"store.redb\"\n\n[tenancy]\nkind = \
         \"account\"\n"
    );
    Ok(std::fs::write(directory.join("reinstate.toml"), text)?)
}

fn set_up<'a>(
    story: &Story<'a>,
    engine: &'a Engine,
    synthetic: SyntheticStore,
    directory: &Path,
    arguments: &Demo,
    interruption: &'a Interruption,
) -> anyhow::Result<Stage<'a>> {
    let progress = Progress::of("build the store");
    let started = Instant::now();
    let path = directory.join("store.redb");
    let cancellation = interruption.cancellation();
    let cache = engine.cache_bytes();
    let store = create_embedded(
        &path,
        STORE_NAME,
        &synthetic,
        cache,
        &progress,
        cancellation,
    )?;
    store.prepare()?;
    progress.clear();
    let size = std::fs::metadata(&path)?.len();
    story.step(
        "build",
        started.elapsed(),
        format_args!(
            "{}, {} in {} tables, {} on disk",
            counted(u64::from(arguments.tenants), "tenant", "tenants"),
            counted(arguments.rows, "row", "rows"),
            Table::ALL.len(),
            bytes(size)
        ),
    );
    let repository = LocalRepository::init(
        directory.join("repository"),
        RepositoryId::from_bytes(random()?),
        now(),
    )?;
    let victims = choose_victims(&synthetic, arguments.restore);
    Ok(Stage {
        engine,
        interruption,
        synthetic,
        store,
        repository,
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
    fn play(&self, story: &Story<'_>) -> anyhow::Result<(StoryRecord, String)> {
        let snapshot = self.capture(story)?;
        let mut record = StoryRecord::default();
        let writers = Writers::new(&self.synthetic, &self.victims, WRITER_THREADS);
        let ledger = writers.run_while(&self.store, |period| {
            story.say(format_args!(
                "  from here on {WRITER_THREADS} threads of an application write to the other {}",
                counted(writers.tenant_count() as u64, "tenant", "tenants")
            ));
            period.set(Period::Idle);
            std::thread::sleep(std::time::Duration::from_millis(500));
            period.set(Period::Destroy);
            self.destroy(story)?;
            period.set(Period::Restore);
            let restored = self.restore(story, &snapshot)?;
            period.set(Period::After);
            Ok(restored)
        })?;
        let (restored, ledger) = ledger;
        story.waits(&ledger.waits);
        record.restored(&restored, &ledger.waits);
        let proof = self.prove(story, "prove", &ledger, &[])?;
        record.proof(&proof);
        let undone = self.undo(story, &restored)?;
        let gone = self.name(&undone);
        let again = self.prove(story, "prove again", &ledger, &[undone])?;
        record.proof(&again);
        Ok((record, gone))
    }

    fn capture(&self, story: &Story<'_>) -> anyhow::Result<SnapshotDescription> {
        let progress = Progress::new(&[Phase::Capture, Phase::Write], 0);
        let started = Instant::now();
        let options = CaptureOptions::new(new_snapshot()?, now());
        let context = self
            .engine
            .context(&progress, self.interruption.cancellation());
        let snapshot = capture(context, &self.store, &self.repository, &options)?;
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
                "snapshot {} at {}, {} stored of {}",
                snapshot.id.short(),
                snapshot.position.display(snapshot.notation),
                bytes(stored),
                bytes(plain)
            ),
        );
        Ok(snapshot)
    }

    /// What happened to so many: a script with the wrong ids, one transaction a tenant.
    fn destroy(&self, story: &Story<'_>) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut rows: u64 = 0;
        for &victim in &self.victims {
            self.interruption.cancellation().check()?;
            let owner = Owner::Tenant(self.tenant(victim));
            self.store.write(|transaction| {
                for table in Table::OWNED {
                    transaction.table(table.index())?.delete_all(&owner)?;
                }
                Ok(())
            })?;
            rows += self.synthetic.tenant_row_count(victim);
        }
        story.step(
            "destroy",
            started.elapsed(),
            format_args!(
                "a script with the wrong ids deletes {} for good, {}",
                counted(self.victims.len() as u64, "tenant", "tenants"),
                counted(rows, "row", "rows")
            ),
        );
        Ok(())
    }

    fn tenant(&self, index: u32) -> TenantId {
        self.synthetic.tenant(index)
    }
}

//! Drawing lots: which tenant, and which of the moments that can be gone back to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reinstate::{Context, Error, Log, RestorePoint, TenantImage, extract, extract_at, tenants};
use reinstate_core::{ErrorKind, Repository, Tenant, Timestamp};

use crate::failure::Failure;

/// How often is drawn again when a tenant had no row at its moment.
const DRAWS_MAX: u32 = 50;

/// A tenant and a moment.
#[derive(Clone, Debug)]
pub(super) struct Lot {
    pub(super) log: Arc<Log>,
    pub(super) point: RestorePoint,
    pub(super) tenant: Tenant,
}

/// Lots that follow from a seed.
pub(super) struct Lots<'l> {
    state: u64,
    logs: &'l [Arc<Log>],
}

impl<'l> Lots<'l> {
    /// `logs` are not empty.
    pub(super) fn new(seed: u64, logs: &'l [Arc<Log>]) -> Self {
        Self { state: seed, logs }
    }

    /// Draws a tenant and a moment at which it had rows; with its image, and how long finding that took.
    ///
    /// # Errors
    /// `NotFound` if there seems to be none; `Corrupt` if what is looked into is damaged.
    pub(super) fn draw(
        &mut self,
        context: Context<'_>,
        repository: &dyn Repository,
    ) -> anyhow::Result<(Lot, TenantImage, Duration)> {
        for _ in 0..DRAWS_MAX {
            let lot = self.moment(repository)?;
            let Some((log, point)) = lot else {
                continue;
            };
            let Some(tenant) = self.tenant(context, repository, &log)? else {
                continue;
            };
            let started = Instant::now();
            let is_snapshot = point.position == log.snapshot().position;
            let image = match is_snapshot {
                true => extract(repository, log.snapshot(), &tenant),
                false => extract_at(context, repository, &log, point, &tenant),
            };
            match image {
                Ok(image) => return Ok((Lot { log, point, tenant }, image, started.elapsed())),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!("of {DRAWS_MAX} tenants and moments drawn, none has a row");
        Err(Failure::new(ErrorKind::NotFound, message).into())
    }

    /// A snapshot, or a commit behind one: each as likely as any other.
    fn moment(
        &mut self,
        repository: &dyn Repository,
    ) -> Result<Option<(Arc<Log>, RestorePoint)>, Error> {
        let moments = |log: &Arc<Log>| {
            let runs = log.runs().iter();
            1 + runs.map(|run| run.description.commit_count).sum::<u64>()
        };
        let all = self.logs.iter().map(moments).sum();
        let mut place = self.below(all);
        for log in self.logs {
            if place >= moments(log) {
                place -= moments(log);
                continue;
            }
            let snapshot = log.snapshot();
            let Some(mut commit) = place.checked_sub(1) else {
                let point = RestorePoint {
                    position: snapshot.position,
                    time: snapshot.taken_at,
                };
                return Ok(Some((Arc::clone(log), point)));
            };
            for run in log.runs() {
                if commit >= run.description.commit_count {
                    commit -= run.description.commit_count;
                    continue;
                }
                let commits = run.commits(repository)?;
                let drawn = usize::try_from(commit).ok().and_then(|at| commits.get(at));
                return Ok(drawn.map(|drawn| {
                    let point = RestorePoint {
                        position: drawn.commit.position,
                        time: drawn.commit.time,
                    };
                    (Arc::clone(log), point)
                }));
            }
        }
        Ok(None)
    }

    /// One of the tenants of a snapshot, each as likely as any other: none if it has none.
    fn tenant(
        &mut self,
        context: Context<'_>,
        repository: &dyn Repository,
        log: &Log,
    ) -> anyhow::Result<Option<Tenant>> {
        let snapshot = log.snapshot();
        let (mut drawn, mut seen) = (None, 0);
        tenants(repository, snapshot, |summary| {
            seen += 1;
            if self.below(seen) == 0 {
                drawn = Some(summary.tenant);
            }
            Ok(())
        })?;
        context.cancellation.check()?;
        Ok(drawn.map(|id| Tenant {
            kind: snapshot.tenant_kind.clone(),
            id,
        }))
    }

    /// A number below `end`, which is not zero: the generator is SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The high half of the product: every number is as likely, but for one part in 2^64 / end.
        let product = u128::from(mixed) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

/// The latest moment that can be gone back to.
///
/// # Errors
/// `Corrupt` if the commits of a log are not what was written.
pub(super) fn newest_point(
    repository: &dyn Repository,
    logs: &[Arc<Log>],
) -> Result<Timestamp, Error> {
    let mut newest = Timestamp::from_micros(0);
    for log in logs {
        let around = log.around(repository, log.through())?;
        let last = around.and_then(|around| around.before);
        let last = last.map_or(log.snapshot().taken_at, |commit| commit.time);
        newest = newest.max(last).max(log.snapshot().taken_at);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::Lots;

    #[test]
    fn a_seed_gives_the_same_lots_again_and_every_number_its_chance() {
        let draws = |seed| {
            let mut lots = Lots::new(seed, &[]);
            let draws = (0..6_000).map(|_| lots.below(6));
            draws.collect::<Vec<_>>()
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        for number in 0..6 {
            let times = draws(7).iter().filter(|&&drawn| drawn == number).count();
            assert!((850..1_150).contains(&times), "{number} {times} times");
        }
    }
}

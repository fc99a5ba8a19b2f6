//! The pace, by a clock that moves when it is waited for and when the store is probed.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use reinstate_core::{Cancellation, Clock, ErrorKind, StoreError};

use super::{Pace, PaceLimits};

/// Microseconds since it was made.
#[derive(Default)]
struct Hand(AtomicU64);

impl Hand {
    fn moves(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap();
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn wait(&self, duration: Duration) {
        // A real one never returns early either.
        self.moves(duration + Duration::from_micros(1));
    }
}

const fn limits(rows_per_second: Option<u64>, latency_millis: Option<u64>) -> PaceLimits {
    PaceLimits {
        rows_per_second: match rows_per_second {
            Some(rows) => NonZeroU64::new(rows),
            None => None,
        },
        latency_max: match latency_millis {
            Some(millis) => Some(Duration::from_millis(millis)),
            None => None,
        },
    }
}

#[test]
fn without_limits_nothing_waits_and_nothing_is_probed() {
    let hand = Hand::default();
    let probe = || panic!("nobody asked for it");
    let pace = Pace::new(&hand, &probe, limits(None, None));
    for _ in 0..100 {
        pace.wait(&Cancellation::new()).unwrap();
        pace.wrote(1_000_000);
    }
    assert_eq!(hand.elapsed(), Duration::ZERO);
    assert_eq!(pace.report().rows, 100_000_000);
}

proptest! {
    /// At whatever moment it is looked, no more was written than the cap allows, but for one batch; and a
    /// run waits no longer than it has to.
    #[test]
    fn rows_stay_under_the_cap_at_every_moment(
        cap in 1_u64..100_000,
        batches in proptest::collection::vec((0_u64..5_000, 0_u64..30), 1..60),
    ) {
        let hand = Hand::default();
        let pace = Pace::new(&hand, &|| Ok(()), limits(Some(cap), None));
        let (mut written, mut last, mut busy) = (0, 0, Duration::ZERO);
        for (rows, millis) in batches {
            pace.wait(&Cancellation::new()).unwrap();
            let seconds = hand.elapsed().as_secs_f64();
            let allowed = seconds * cap as f64 + last as f64 + 1.0;
            prop_assert!(written as f64 <= allowed, "{written} rows after {seconds} s");
            pace.wrote(rows);
            hand.moves(Duration::from_millis(millis));
            busy += Duration::from_millis(millis);
            written += rows;
            last = rows;
        }
        let needed = Duration::from_secs_f64(written as f64 / cap as f64) + busy;
        // Each of the waits overshoots by a microsecond.
        prop_assert!(hand.elapsed() <= needed + Duration::from_millis(200));
        prop_assert!(pace.report().waited <= hand.elapsed());
    }
}

/// A store that takes a millisecond to probe, and another one for each thousand rows per second that are
/// written to it.
struct Loaded<'h> {
    hand: &'h Hand,
    rows: AtomicU64,
    since: AtomicU64,
}

impl<'h> Loaded<'h> {
    fn new(hand: &'h Hand) -> Self {
        let (rows, since) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { hand, rows, since }
    }

    fn probe(&self) -> Result<(), StoreError> {
        let now = self.hand.0.load(Ordering::Relaxed);
        let micros = now - self.since.swap(now, Ordering::Relaxed);
        let rows = self.rows.swap(0, Ordering::Relaxed);
        let thousands = rows as f64 * 1_000.0 / micros.max(1) as f64;
        self.hand
            .moves(Duration::from_secs_f64((1.0 + thousands) / 1_000.0));
        Ok(())
    }
}

#[test]
fn a_store_that_slows_down_is_written_to_as_fast_as_its_users_can_bear() {
    let hand = Hand::default();
    let loaded = Loaded::new(&hand);
    let probe = || loaded.probe();
    // Ten thousand rows per second make it take eleven milliseconds; without a limit a hundred
    // thousand are written.
    let pace = Pace::new(&hand, &probe, limits(None, Some(11)));
    let mut after_half = None;
    for round in 0..4_000 {
        pace.wait(&Cancellation::new()).unwrap();
        hand.moves(Duration::from_millis(1));
        pace.wrote(100);
        loaded.rows.fetch_add(100, Ordering::Relaxed);
        if round == 2_000 {
            after_half = Some((pace.report(), hand.elapsed()));
        }
    }
    let (report, (half, at_half)) = (pace.report(), after_half.unwrap());
    let seconds = (hand.elapsed() - at_half).as_secs_f64();
    let speed = (report.rows - half.rows) as f64 / seconds;
    assert!(
        (2_000.0..=10_000.0).contains(&speed),
        "{speed} rows per second, {report:?}"
    );
    let (probes, slow) = (
        report.probes - half.probes,
        report.slow_probes - half.slow_probes,
    );
    assert!(slow * 4 <= probes, "{slow} of {probes} probes too slow");
}

#[test]
fn a_store_that_was_slow_for_a_while_is_soon_written_to_at_full_speed() {
    let hand = Hand::default();
    let is_slow = |hand: &Hand| (2..4).contains(&hand.elapsed().as_secs());
    let probe = || {
        hand.moves(Duration::from_millis(if is_slow(&hand) { 80 } else { 1 }));
        Ok(())
    };
    let pace = Pace::new(&hand, &probe, limits(None, Some(20)));
    let mut rows_by_second = [0_u64; 20];
    while hand.elapsed() < Duration::from_secs(20) {
        pace.wait(&Cancellation::new()).unwrap();
        hand.moves(Duration::from_millis(1));
        pace.wrote(10);
        let second = usize::try_from(hand.elapsed().as_secs()).unwrap();
        if let Some(rows) = rows_by_second.get_mut(second) {
            *rows += 10;
        }
    }
    assert!(rows_by_second[1] > 9_000, "{rows_by_second:?}");
    assert!(rows_by_second[3] < 500, "{rows_by_second:?}");
    assert!(rows_by_second[19] > 9_000, "{rows_by_second:?}");
    assert!(pace.report().latency_max == Some(Duration::from_millis(80)));
}

#[test]
fn limits_change_while_somebody_waits_under_the_old_ones() {
    let hand = Hand::default();
    let pace = Pace::new(&hand, &|| Ok(()), limits(Some(1), None));
    pace.wrote(1_000_000);
    pace.set_limits(limits(Some(1_000), None));
    pace.wait(&Cancellation::new()).unwrap();
    assert_eq!(hand.elapsed(), Duration::ZERO);
    pace.wrote(1_000);
    pace.wait(&Cancellation::new()).unwrap();
    assert!((1_000..1_010).contains(&hand.elapsed().as_millis()));
}

#[test]
fn a_stopped_run_does_not_wait_for_its_pace() {
    let hand = Hand::default();
    let pace = Pace::new(&hand, &|| Ok(()), limits(Some(1), None));
    pace.wrote(1_000_000);
    let cancellation = Cancellation::new();
    cancellation.cancel();
    let error = pace.wait(&cancellation).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(hand.elapsed(), Duration::ZERO);
}

#[test]
fn a_store_that_cannot_be_probed_is_not_written_to() {
    let hand = Hand::default();
    let probe = || Err(StoreError::new(ErrorKind::Unavailable, "gone"));
    let pace = Pace::new(&hand, &probe, limits(None, Some(5)));
    let error = pace.wait(&Cancellation::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

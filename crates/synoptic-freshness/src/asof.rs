//! Arithmetic of as-of intervals, with everything rounded to the side that claims less.
//!
//! All moments are of our own monotonic clock, so what the sources' clocks say does not matter.
//! The only error is that of its rate, bounded by `max_drift_ppm` (parts per million).

use std::time::Duration;

use synoptic_types::{AsOf, Moment};

/// The longest time that can have passed when our clock measured `measured`.
///
/// A clock that is slow by `ppm` shows `t · (1 − ppm/10⁶)` for `t`; dividing by `1 − ppm/10⁶`
/// and rounding up gives no less than `t`.
pub fn at_most(measured: Duration, max_drift_ppm: u32) -> Duration {
    let rate = u128::from(1_000_000 - max_drift_ppm.min(999_999));
    nanos((measured.as_nanos() * 1_000_000).div_ceil(rate))
}

/// The longest measured time for which [`at_most`] does not exceed `allowed`.
pub fn within(allowed: Duration, max_drift_ppm: u32) -> Duration {
    let rate = u128::from(1_000_000 - max_drift_ppm.min(999_999));
    nanos(allowed.as_nanos() * rate / 1_000_000)
}

/// How stale an answer with lower end `lo` can be at `now`: latest possible now − `lo`.
pub fn staleness(lo: Moment, now: Moment, max_drift_ppm: u32) -> Duration {
    at_most(now.since(lo), max_drift_ppm)
}

/// How far apart the states of several answers can be: greatest `hi` − least `lo`. Zero for none.
pub fn skew(answers: &[AsOf], max_drift_ppm: u32) -> Duration {
    let lo = answers.iter().map(|answer| answer.lo).min();
    let hi = answers.iter().map(|answer| answer.hi).max();
    match (lo, hi) {
        (Some(lo), Some(hi)) => at_most(hi.since(lo), max_drift_ppm),
        _ => Duration::ZERO,
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

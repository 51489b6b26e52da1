//! Time. Wall time comes only from a [`Clock`]; a [`Deadline`] is monotonic.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// Where wall time comes from. Tests put a [`ManualClock`] here.
pub trait Clock: Debug + Send + Sync {
    /// The present moment in UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place wall time comes from")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    start: DateTime<Utc>,
    elapsed_micros: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: DateTime<Utc>) -> Self {
        Self { start, elapsed_micros: AtomicI64::new(0) }
    }

    /// Moves the clock forward by `by`, to the microsecond.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.elapsed_micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.start + TimeDelta::microseconds(self.elapsed_micros.load(Ordering::SeqCst))
    }
}

/// The moment by which something must have ended, on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `after` from now. `None` when that is beyond what the clock can say, which is no deadline.
    pub fn after(after: Duration) -> Option<Self> {
        Instant::now().checked_add(after).map(Self)
    }

    /// The time that is left, zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The same moment for a timer.
    pub fn instant(self) -> Instant {
        self.0
    }
}

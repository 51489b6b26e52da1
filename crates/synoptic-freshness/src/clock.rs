//! Wall time with its error: an interval that contains true time, or no answer.
//!
//! Freshness bounds and tokens need none of this. What does: timestamps that are compared between
//! nodes (`read_timestamp`, the commit timestamps of write-through). The interval is that of
//! ClockBound: the error at the last synchronisation, grown by the worst drift since, void after a
//! while. Commit wait is Spanner's: stamp with the latest possible time, acknowledge when the
//! earliest possible time has passed it, so that a commit that begins after the acknowledgement,
//! on any node, gets a greater stamp.
//!
//! * J. C. Corbett et al., "Spanner: Google's Globally-Distributed Database", OSDI 2012, 3 and 4.1.2
//! * ClockBound: <https://github.com/aws/clock-bound>, `docs/PROTOCOL.md`
//! * `adjtimex(2)`: `maxerror` is a bound, `esterror` is not; `STA_UNSYNC` means no bound at all

use std::fmt::Debug;
use std::time::Duration;

use synoptic_types::{AsOf, Moment};
use thiserror::Error;

use crate::asof::{at_most, within};
use crate::rules::{Rules, TheRules};

/// True time lies between these, in nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallInterval {
    /// It is not earlier than this.
    pub earliest: i64,
    /// It is not later than this.
    pub latest: i64,
}

impl WallInterval {
    /// How far its ends are apart.
    pub fn width(self) -> Duration {
        Duration::from_nanos(self.latest.saturating_sub(self.earliest).max(0).unsigned_abs())
    }
}

/// The clock cannot bound its error; only what needs wall time is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the clock of this server is not synchronised, so its error is unknown: run chronyd or \
     ClockBound, or declare clock.max_offset"
)]
pub struct Unsynchronized;

/// What the synchronisation daemon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStatus {
    /// Steered by a reference.
    Synchronized,
    /// Was synchronised; the error grows with the drift until the bound is void.
    FreeRunning,
    /// No bound can be given.
    Unsynchronized,
}

/// The bound on a clock's error, as ClockBound publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockBound {
    /// Whether there is a bound.
    pub status: ClockStatus,
    /// When it was computed, on the monotonic clock.
    pub as_of: Moment,
    /// From when on it must not be used.
    pub void_after: Moment,
    /// The largest error at `as_of`.
    pub bound: Duration,
    /// The largest drift since, in parts per billion.
    pub max_drift_ppb: u32,
}

/// Where the bound on a clock's error comes from.
pub trait BoundSource: Debug + Send + Sync {
    /// What it is called in the configuration.
    fn name(&self) -> &'static str;

    /// The bound that holds at `now`.
    ///
    /// # Errors
    /// Why there is none, for a person.
    fn bound(&self, now: Moment) -> Result<ClockBound, String>;
}

/// A bound that somebody vouches for, whatever the machine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared(pub Duration);

impl BoundSource for Declared {
    fn name(&self) -> &'static str {
        "declared"
    }

    fn bound(&self, now: Moment) -> Result<ClockBound, String> {
        Ok(ClockBound {
            status: ClockStatus::Synchronized,
            as_of: now,
            void_after: Moment::from_nanos(u64::MAX),
            bound: self.0,
            max_drift_ppb: 0,
        })
    }
}

/// No bound at all, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoBound(pub String);

impl BoundSource for NoBound {
    fn name(&self) -> &'static str {
        "none"
    }

    fn bound(&self, _now: Moment) -> Result<ClockBound, String> {
        Err(self.0.clone())
    }
}

impl ClockBound {
    /// Where true time lies at `after`, when the wall clock was read, as `wall`, at some moment
    /// between `before` and `after`: a thread may be held up between two clocks.
    ///
    /// # Errors
    /// As [`ClockBound::read`].
    pub fn look(
        &self,
        before: Moment,
        wall: i64,
        after: Moment,
    ) -> Result<ClockReading, Unsynchronized> {
        let mut reading = self.read(wall, after)?;
        // Twice as much as passed here is more than any clock's drift makes of it.
        let passed = i64::try_from(after.since(before).as_nanos()).unwrap_or(i64::MAX);
        reading.wall.latest = reading.wall.latest.saturating_add(passed.saturating_mul(2));
        Ok(reading)
    }

    /// Where true time lies, when the wall clock shows `wall` and the monotonic clock `now`.
    ///
    /// # Errors
    /// When the clock is not synchronised, or has not been for too long.
    pub fn read(&self, wall: i64, now: Moment) -> Result<ClockReading, Unsynchronized> {
        self.read_by(&TheRules, wall, now)
    }

    pub(crate) fn read_by<R: Rules>(
        &self,
        rules: &R,
        wall: i64,
        now: Moment,
    ) -> Result<ClockReading, Unsynchronized> {
        if !rules.trusts_clock(self.status == ClockStatus::Unsynchronized || now >= self.void_after)
        {
            return Err(Unsynchronized);
        }
        let error = rules.clock_error(self.bound, now.since(self.as_of), self.max_drift_ppb);
        let error = i64::try_from(error.as_nanos()).map_err(|_| Unsynchronized)?;
        let wall = WallInterval {
            earliest: wall.saturating_sub(error),
            latest: wall.saturating_add(error),
        };
        Ok(ClockReading { at: now, wall })
    }
}

/// One look at both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// What the monotonic clock showed.
    pub at: Moment,
    /// Where true time was.
    pub wall: WallInterval,
}

impl ClockReading {
    /// How far the wall clock can have been from true time.
    pub fn error(&self) -> Duration {
        Duration::from_nanos(
            u64::try_from(self.wall.width().as_nanos().div_ceil(2)).unwrap_or(u64::MAX),
        )
    }

    /// What this reading still tells at a later moment, by the monotonic clock alone: also when the
    /// wall clock cannot be read any more.
    #[must_use]
    pub fn later(&self, now: Moment, max_drift_ppm: u32) -> Self {
        Self { at: now, wall: self.wall_at(now, max_drift_ppm) }
    }

    /// Where true time was at `moment`, for a receipt: `as_of_lo` is the earliest of `lo`,
    /// `as_of_hi` the latest of `hi`.
    pub fn wall_at(&self, moment: Moment, max_drift_ppm: u32) -> WallInterval {
        let span = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        let WallInterval { earliest, latest } = self.wall;
        let back = self.at.since(moment);
        let ahead = moment.since(self.at);
        let least = |d| within(d, max_drift_ppm);
        let most = |d| at_most(d, max_drift_ppm);
        WallInterval {
            earliest: earliest.saturating_sub(span(most(back))).saturating_add(span(least(ahead))),
            latest: latest.saturating_sub(span(least(back))).saturating_add(span(most(ahead))),
        }
    }

    /// Between which moments true time passes `timestamp`: not before `lo`, and certainly by `hi`.
    pub fn moments_of(&self, timestamp: i64, max_drift_ppm: u32) -> AsOf {
        let span = |from: i64, to: i64| {
            Duration::from_nanos(to.saturating_sub(from).max(0).unsigned_abs())
        };
        let least = |d| within(d, max_drift_ppm);
        let most = |d| at_most(d, max_drift_ppm);
        let WallInterval { earliest, latest } = self.wall;
        let lo = self.at.after(least(span(latest, timestamp)));
        let hi = self.at.after(most(span(earliest, timestamp)));
        AsOf {
            lo: lo.before(most(span(timestamp, latest))),
            hi: hi.before(least(span(timestamp, earliest))),
        }
    }
}

/// A commit that waits for its timestamp to be past everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitWait {
    stamp: i64,
}

impl CommitWait {
    /// To be called when the source has acknowledged the commit, so that the stamp is not before
    /// the moment it became visible.
    pub fn begin(reading: &ClockReading) -> Self {
        Self::begin_by(&TheRules, reading)
    }

    pub(crate) fn begin_by<R: Rules>(rules: &R, reading: &ClockReading) -> Self {
        Self { stamp: rules.commit_stamp(reading.wall) }
    }

    /// The commit's timestamp, in nanoseconds since 1970.
    pub fn stamp(self) -> i64 {
        self.stamp
    }

    /// Whether the client may be told.
    pub fn passed(self, reading: &ClockReading) -> bool {
        self.passed_by(&TheRules, reading)
    }

    pub(crate) fn passed_by<R: Rules>(self, rules: &R, reading: &ClockReading) -> bool {
        rules.commit_passed(self.stamp, reading.wall)
    }

    /// How long to sleep before asking again; zero exactly when it has passed.
    pub fn remaining(self, reading: &ClockReading) -> Duration {
        let left = self.stamp.saturating_sub(reading.wall.earliest).saturating_add(1);
        Duration::from_nanos(left.max(0).unsigned_abs())
    }
}

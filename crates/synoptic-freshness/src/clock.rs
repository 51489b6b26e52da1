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

impl ClockBound {
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

//! Points on our own monotonic clock, the ruler that staleness is measured with.

use std::fmt;
use std::time::{Duration, Instant};

/// A point on this process's monotonic clock: nanoseconds since the [`Timeline`] began.
///
/// It never jumps and needs no synchronisation, which is why every freshness bound is judged with
/// it. It means nothing in another process; what travels between servers is a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Before everything: a copy with this lower end claims nothing.
    pub const ORIGIN: Self = Self(0);

    /// `nanos` nanoseconds after the timeline began.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the timeline began.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to here, zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `by` later; the end of the timeline when there is nothing later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// `by` earlier; the origin when there is nothing earlier.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:.6}s", self.0 as f64 / 1e9)
    }
}

/// Where a process's [`Moment`]s begin. One per process, made when it starts.
///
/// The origin lies an hour back, so that a moment a little before the start is not the origin.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    origin: Instant,
    offset: u64,
}

impl Timeline {
    /// A timeline on which `start` is one hour after the origin.
    pub fn starting_at(start: Instant) -> Self {
        Self { origin: start, offset: 3_600_000_000_000 }
    }

    /// The moment of `instant`.
    pub fn moment(&self, instant: Instant) -> Moment {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        match instant.checked_duration_since(self.origin) {
            Some(later) => Moment(self.offset.saturating_add(nanos(later))),
            None => {
                let earlier = self.origin.saturating_duration_since(instant);
                Moment(self.offset.saturating_sub(nanos(earlier)))
            }
        }
    }

    /// The instant of `moment`, for a timer; `None` when it is beyond what the clock can say.
    pub fn instant(&self, moment: Moment) -> Option<Instant> {
        match moment.0.checked_sub(self.offset) {
            Some(later) => self.origin.checked_add(Duration::from_nanos(later)),
            None => self.origin.checked_sub(Duration::from_nanos(self.offset - moment.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_keeps_order_and_distance_on_both_sides_of_its_start() {
        let start = Instant::now();
        let timeline = Timeline::starting_at(start);
        let later = start + Duration::from_millis(5);
        assert_eq!(timeline.moment(later).since(timeline.moment(start)), Duration::from_millis(5));
        assert_eq!(timeline.instant(timeline.moment(later)), Some(later));
        let before = timeline.moment(start).before(Duration::from_secs(2));
        assert_eq!(timeline.moment(start).since(before), Duration::from_secs(2));
        assert_eq!(before.since(timeline.moment(start)), Duration::ZERO);
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Moment::from_nanos(5).before(Duration::from_secs(1)), Moment::ORIGIN);
        assert_eq!(Moment::from_nanos(5).after(Duration::MAX).nanos(), u64::MAX);
    }
}

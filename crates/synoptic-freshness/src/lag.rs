//! How far a copy usually lags: a bounded histogram that forgets.

use std::time::Duration;

/// Lags in powers of two of a microsecond. For predictions and for people; it proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LagHistogram {
    counts: [u16; Self::BUCKETS],
    total: u32,
}

impl Default for LagHistogram {
    fn default() -> Self {
        Self { counts: [0; Self::BUCKETS], total: 0 }
    }
}

impl LagHistogram {
    /// The last bucket holds everything from 2^38 µs (three days) on.
    const BUCKETS: usize = 40;
    /// At this many, every count is halved, so that the last few hundred decide. This bounds every count too.
    const FULL: u32 = 512;

    /// Notes one measured lag.
    pub fn add(&mut self, lag: Duration) {
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.counts[bucket.min(Self::BUCKETS - 1)] += 1;
        self.total += 1;
        if self.total >= Self::FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
    }

    /// How many are remembered: fewer than 512, and not how many were measured.
    pub fn len(&self) -> u32 {
        self.total
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// A lag that `share` (0 to 1) of the remembered lags do not exceed, up to twice too long
    /// because it is the upper end of a bucket; `None` when nothing was measured. Lags beyond the
    /// last bucket are shown as 2^39 µs (six days).
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.total == 0 {
            return None;
        }
        let wanted = (share.clamp(0.0, 1.0) * f64::from(self.total)).ceil().max(1.0) as u32;
        let mut seen = 0;
        let place = self.counts.iter().position(|count| {
            seen += u32::from(*count);
            seen >= wanted
        });
        Some(Duration::from_micros(1 << place.unwrap_or(Self::BUCKETS - 1)))
    }
}

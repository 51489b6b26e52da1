//! Wall time with its error, for what is compared between servers.

use std::sync::Arc;
use std::time::Duration;

use synoptic_freshness::clock::{BoundSource, ClockBound, ClockReading, Declared, NoBound};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

use super::Engine;

/// What bounds the error of the engine's clock, and what is done with it.
#[derive(Debug, Clone)]
pub struct WallClock {
    /// Where the bound comes from.
    pub bounds: Arc<dyn BoundSource>,
    /// Whether a write is refused without a bound, or with one that it would have to wait for too
    /// long; otherwise its commit has no timestamp.
    pub required: bool,
    /// The longest a commit waits for its timestamp to be past on every clock.
    pub max_commit_wait: Duration,
}

impl Default for WallClock {
    fn default() -> Self {
        Self {
            bounds: Arc::new(NoBound("nothing bounds the error of this server's clock".to_owned())),
            required: false,
            max_commit_wait: Duration::from_secs(1),
        }
    }
}

impl WallClock {
    /// A clock that somebody vouches for: it is never wrong by more than `max_offset`.
    pub fn declared(max_offset: Duration) -> Self {
        Self { bounds: Arc::new(Declared(max_offset)), required: true, ..Self::default() }
    }
}

impl Engine {
    /// Where true time is.
    ///
    /// # Errors
    /// `[CLOCK_UNSYNCHRONIZED]` with the reason, when the clock's error has no bound.
    pub fn wall_time(&self) -> Result<ClockReading> {
        Ok(self.wall_time_and_bound()?.0)
    }

    /// The same, with the bound it was read by.
    ///
    /// # Errors
    /// As [`Engine::wall_time`].
    pub(crate) fn wall_time_and_bound(&self) -> Result<(ClockReading, ClockBound)> {
        let before = self.now();
        let refused = |why: String| Error::new(ErrorCode::ClockUnsynchronized, why);
        let bound = self.config.time.bounds.bound(before).map_err(|why| {
            refused(format!(
                "{why}: run chronyd or ClockBound, or declare clock.max_offset with clock.source = \
                 'declared'"
            ))
        })?;
        let shown = self.clock.now().timestamp_nanos_opt();
        let shown = shown.ok_or_else(|| refused("the clock shows no year near ours".to_owned()))?;
        let reading = bound.look(before, shown, self.now()).map_err(|e| refused(e.to_string()))?;
        Ok((reading, bound))
    }
}

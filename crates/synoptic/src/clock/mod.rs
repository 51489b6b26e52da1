//! Where the bound on this machine's clock comes from, as `[clock]` says.

#[cfg(target_os = "linux")]
mod clockbound;
#[cfg(target_os = "linux")]
mod segment;

use std::path::Path;
use std::sync::Arc;

use synoptic_config::{ClockConfig, ClockSource};
use synoptic_engine::WallClock;
use synoptic_freshness::clock::{BoundSource, ClockBound, Declared, NoBound};
use synoptic_types::Moment;

/// What the engine is told of its clock.
pub(crate) fn wall_clock(config: &ClockConfig) -> WallClock {
    let (bounds, required): (Arc<dyn BoundSource>, bool) = match config.source {
        ClockSource::Auto => (Arc::new(Auto(clockbound(&config.segment))), false),
        ClockSource::ClockBound => (clockbound(&config.segment), true),
        // The configuration lets it through only with an offset.
        ClockSource::Declared => (Arc::new(Declared(config.max_offset.unwrap_or_default())), true),
        ClockSource::Kernel => {
            (Arc::new(NoBound("clock.source = 'kernel' is not supported yet".to_owned())), true)
        }
    };
    WallClock { bounds, required, max_commit_wait: config.max_commit_wait }
}

#[cfg(target_os = "linux")]
fn clockbound(path: &Path) -> Arc<dyn BoundSource> {
    Arc::new(clockbound::Segment::new(path))
}

#[cfg(not(target_os = "linux"))]
fn clockbound(_path: &Path) -> Arc<dyn BoundSource> {
    Arc::new(NoBound("ClockBound runs on Linux only".to_owned()))
}

/// The best there is: ClockBound, whenever its segment is there.
#[derive(Debug)]
struct Auto(Arc<dyn BoundSource>);

impl BoundSource for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn bound(&self, now: Moment) -> Result<ClockBound, String> {
        self.0.bound(now)
    }
}

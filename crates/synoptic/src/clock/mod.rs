//! Where the bound on this machine's clock comes from, as `[clock]` says.

#[cfg(target_os = "linux")]
mod clockbound;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod segment;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use synoptic_config::{ClockConfig, ClockSource};
use synoptic_engine::WallClock;
#[cfg(not(target_os = "linux"))]
use synoptic_freshness::clock::NoBound;
use synoptic_freshness::clock::{BoundSource, ClockBound, Declared};
use synoptic_types::Moment;

/// What the engine is told of its clock.
pub(crate) fn wall_clock(config: &ClockConfig) -> WallClock {
    let (bounds, required): (Arc<dyn BoundSource>, bool) = match config.source {
        ClockSource::Auto => (Arc::new(Auto::new(config)), false),
        ClockSource::ClockBound => (clockbound(&config.segment), true),
        // The configuration lets it through only with an offset.
        ClockSource::Declared => (Arc::new(Declared(config.max_offset.unwrap_or_default())), true),
        ClockSource::Kernel => (kernel(), true),
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

#[cfg(target_os = "linux")]
fn kernel() -> Arc<dyn BoundSource> {
    Arc::new(kernel::Kernel)
}

#[cfg(not(target_os = "linux"))]
fn kernel() -> Arc<dyn BoundSource> {
    Arc::new(NoBound("the kernel's bound is read on Linux only".to_owned()))
}

/// The best there is: ClockBound when its segment is there, else the kernel when it is synchronised.
///
/// A segment that is there and says no, or cannot be read, is not passed over: ClockBound sees a
/// clock that was disrupted, as when a virtual machine is moved, and the kernel does not.
#[derive(Debug)]
struct Auto {
    segment: PathBuf,
    clockbound: Arc<dyn BoundSource>,
    kernel: Arc<dyn BoundSource>,
}

impl Auto {
    fn new(config: &ClockConfig) -> Self {
        Self {
            segment: config.segment.clone(),
            clockbound: clockbound(&config.segment),
            kernel: kernel(),
        }
    }

    fn has_segment(&self) -> bool {
        self.segment.try_exists().unwrap_or(true)
    }
}

impl BoundSource for Auto {
    fn name(&self) -> &'static str {
        if self.has_segment() { "auto: clockbound" } else { "auto: kernel" }
    }

    fn bound(&self, now: Moment) -> Result<ClockBound, String> {
        if self.has_segment() {
            return self.clockbound.bound(now);
        }
        let place = self.segment.display();
        self.kernel
            .bound(now)
            .map_err(|why| format!("there is no ClockBound segment ({place}), and {why}"))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;

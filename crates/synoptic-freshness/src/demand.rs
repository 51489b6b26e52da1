//! What a statement asks for.

use std::time::Duration;

use synoptic_types::{AsOf, Consistency, CopyName, Moment, OnUnmet, QueryOptions, SourceName};
use thiserror::Error;

use crate::token::Token;

/// Limits and errors that the server decides, not the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The largest rate error of our monotonic clock, in parts per million.
    pub max_drift_ppm: u32,
    /// How long after its arrival a statement still waits for a replica that is about to be there,
    /// before it goes to a dearer copy.
    pub replay_wait: Duration,
    /// How long `on_unmet = 'wait'` pauses between attempts, and the least time between the probes
    /// it asks for; at least a millisecond.
    pub retry_pause: Duration,
}

impl Policy {
    /// The kernel steers its clock by at most 500 ppm (`MAXFREQ` in `include/linux/timex.h`), and
    /// a crystal is wrong by up to 100 more.
    pub const DEFAULT_DRIFT_PPM: u32 = 600;
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_drift_ppm: Self::DEFAULT_DRIFT_PPM,
            replay_wait: Duration::from_millis(20),
            retry_pause: Duration::from_millis(50),
        }
    }
}

/// Where `read_timestamp` lies on our own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAt {
    /// Not before `lo`, and past from `hi` on; see
    /// [`ClockReading::moments_of`](crate::clock::ClockReading::moments_of).
    Within(AsOf),
    /// Our clock cannot say.
    Unsynchronized,
}

/// What all scans of a statement ask for together.
#[derive(Debug, Clone)]
pub struct Demand {
    /// When the statement arrived; at DoGet, when the ticket arrived. Everything visible before
    /// must be in the answer of a strong read.
    pub arrival: Moment,
    /// When nobody waits any more.
    pub deadline: Option<Moment>,
    /// What the scans have in common.
    pub consistency: Consistency,
    /// The largest skew, with [`Consistency::Bounded`].
    pub max_skew: Duration,
    /// The timestamp to read at, with [`Consistency::AsOf`].
    pub read_at: Option<ReadAt>,
    /// What the answer must include.
    pub token: Option<Token>,
    /// What is asked of each source, each source once.
    pub sources: Vec<SourceDemand>,
    /// What the server decides.
    pub policy: Policy,
}

impl Demand {
    /// A demand with a statement's options, and no sources yet.
    pub fn new(arrival: Moment, options: &QueryOptions, policy: Policy) -> Self {
        Self {
            arrival,
            deadline: None,
            consistency: options.consistency,
            max_skew: options.max_skew,
            read_at: None,
            token: None,
            sources: Vec::new(),
            policy,
        }
    }

    /// Adds a scan. All scans of one source read one copy in one snapshot, so the strictest holds.
    ///
    /// # Errors
    /// When two scans of one source are pinned to different copies.
    pub fn add_scan(&mut self, scan: SourceDemand) -> Result<(), DemandConflict> {
        match self.sources.iter_mut().find(|source| source.source == scan.source) {
            Some(source) => source.tighten(scan),
            None => {
                self.sources.push(scan);
                Ok(())
            }
        }
    }
}

/// Two scans of a source that no single copy can serve.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "source '{source_name}': one statement reads one copy of a source, but copy = '{one}' and \
     copy = '{other}' are both asked for"
)]
pub struct DemandConflict {
    /// The source.
    pub source_name: SourceName,
    /// The copy asked for first.
    pub one: CopyName,
    /// The copy asked for next.
    pub other: CopyName,
}

/// What all scans of one source ask for together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDemand {
    /// The source.
    pub source: SourceName,
    /// The bound; zero is a strong read.
    pub max_staleness: Duration,
    /// What to do when no copy proves it.
    pub on_unmet: OnUnmet,
    /// How long after the statement's arrival to go on trying with [`OnUnmet::Wait`], and to wait
    /// for a `read_timestamp` to come.
    pub wait_timeout: Duration,
    /// The copy that `WITH (copy = …)` names.
    pub pinned: Option<CopyName>,
    /// Copies that cannot serve these scans, with the reason: a table or column they lack.
    pub lacking: Vec<(CopyName, String)>,
}

impl SourceDemand {
    /// A scan of `source` under the statement's options.
    pub fn new(source: SourceName, options: &QueryOptions) -> Self {
        Self {
            source,
            max_staleness: options.max_staleness,
            on_unmet: options.on_unmet,
            wait_timeout: options.wait_timeout,
            pinned: None,
            lacking: Vec::new(),
        }
    }

    fn tighten(&mut self, other: Self) -> Result<(), DemandConflict> {
        match (&self.pinned, other.pinned) {
            (Some(one), Some(other)) if *one != other => {
                let (source_name, one) = (self.source.clone(), one.clone());
                return Err(DemandConflict { source_name, one, other });
            }
            (None, Some(other)) => self.pinned = Some(other),
            _ => {}
        }
        self.max_staleness = self.max_staleness.min(other.max_staleness);
        self.wait_timeout = self.wait_timeout.min(other.wait_timeout);
        self.on_unmet = match (self.on_unmet, other.on_unmet) {
            (OnUnmet::Error, _) | (_, OnUnmet::Error) => OnUnmet::Error,
            (OnUnmet::Wait, _) | (_, OnUnmet::Wait) => OnUnmet::Wait,
            (OnUnmet::Stale, OnUnmet::Stale) => OnUnmet::Stale,
        };
        self.lacking.extend(other.lacking);
        Ok(())
    }
}

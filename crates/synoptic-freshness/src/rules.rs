//! The rules that the proofs rest on, one method each, so that a test can break one at a time.
//!
//! [`TheRules`] overrides nothing. The twins that break a rule exist only in `simulation`, where
//! each of them must be caught.

use std::time::Duration;

use synoptic_types::{AsOf, Epoch, Moment, Position};

use crate::Lineage;
use crate::asof;
use crate::clock::WallInterval;
use crate::facts::{CopyFacts, SourceFacts};
use crate::position::{Relation, relate};

pub(crate) trait Rules {
    /// The stamp of a probe: what became visible while it was under way may be missing.
    fn stamp(&self, started: Moment, _finished: Moment) -> Moment {
        started
    }

    /// Positions are compared within what is known of their history.
    fn relate(&self, copy: &Position, wanted: &Position, lineage: &Lineage) -> Relation {
        relate(copy, wanted, lineage)
    }

    /// Since when a copy is proved to be complete: the newest sample that its own position covers,
    /// or the interval it was read with. Nothing else proves anything.
    fn proved(&self, copy: &CopyFacts, facts: &SourceFacts, _now: Moment) -> Option<Proof> {
        let observed = copy.observed.as_ref()?;
        let covered = facts.samples.newest_first().find(|sample| {
            self.relate(&observed.position, &sample.position, &facts.lineage) == Relation::Covers
        });
        let by_sample = covered.map(|sample| Proof {
            lo: sample.stamp,
            finished: sample.finished,
            position: Some(sample.position.clone()),
        });
        let by_read =
            copy.fixed.map(|kept| Proof { lo: kept.lo, finished: kept.lo, position: None });
        [by_sample, by_read].into_iter().flatten().max_by_key(|proof| proof.lo)
    }

    /// Whether what is complete since `lo` holds everything visible before `arrival`.
    fn since_arrival(&self, lo: Moment, _finished: Moment, arrival: Moment) -> bool {
        lo >= arrival
    }

    /// How stale an answer can be.
    fn staleness(&self, as_of: AsOf, now: Moment, max_drift_ppm: u32) -> Duration {
        asof::staleness(as_of.lo, now, max_drift_ppm)
    }

    /// How far apart answers can be.
    fn skew(&self, answers: &[AsOf], max_drift_ppm: u32) -> Duration {
        asof::skew(answers, max_drift_ppm)
    }

    /// Whether the bound is judged again when the read starts.
    fn guards_again(&self) -> bool {
        true
    }

    /// Whether a lost or untold history is reported instead of hoped for.
    fn doubts_lost_history(&self) -> bool {
        true
    }

    /// Whether two addresses can be compared as numbers.
    fn same_history(&self, a: Epoch, b: Epoch) -> bool {
        a == b
    }

    /// Whether a clock may be used of which we know that its bound is void.
    fn trusts_clock(&self, void: bool) -> bool {
        !void
    }

    /// The error of a wall clock that was synchronised `elapsed` ago.
    fn clock_error(&self, bound: Duration, elapsed: Duration, max_drift_ppb: u32) -> Duration {
        // Parts per billion of nanoseconds, rounded up.
        let drift = (elapsed.as_nanos() * u128::from(max_drift_ppb)).div_ceil(1_000_000_000);
        bound.saturating_add(Duration::from_nanos(u64::try_from(drift).unwrap_or(u64::MAX)))
    }

    /// The timestamp of a commit, taken after the commit is visible.
    fn commit_stamp(&self, clock: WallInterval) -> i64 {
        clock.latest
    }

    /// Whether a commit with this timestamp may be acknowledged.
    fn commit_passed(&self, stamp: i64, clock: WallInterval) -> bool {
        clock.earliest > stamp
    }
}

/// Since when a copy is complete, and the position that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) lo: Moment,
    /// When the answer of the probe that shows it was here.
    pub(crate) finished: Moment,
    pub(crate) position: Option<Position>,
}

/// The rules as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TheRules;

impl Rules for TheRules {}

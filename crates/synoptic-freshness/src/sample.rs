//! Probes of the authoritative head, and the samples they leave.

use synoptic_types::{Moment, Position};

use crate::Lineage;
use crate::rules::{Rules, TheRules};

/// A question for the head that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Probe {
    started: Moment,
}

impl Probe {
    /// To be called before anything is sent.
    pub fn start(now: Moment) -> Self {
        Self { started: now }
    }

    /// When it started.
    pub fn started(self) -> Moment {
        self.started
    }

    /// The answer came at `now`.
    pub fn finish(self, position: Position, lineage: Lineage, now: Moment) -> Sample {
        self.finish_by(&TheRules, position, lineage, now)
    }

    pub(crate) fn finish_by<R: Rules>(
        self,
        rules: &R,
        position: Position,
        lineage: Lineage,
        now: Moment,
    ) -> Sample {
        Sample { stamp: rules.stamp(self.started, now), finished: now, position, lineage }
    }
}

/// Where the authoritative copy was. Everything visible there before `stamp` is at or below
/// `position`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When the probe started.
    pub stamp: Moment,
    /// When its answer was here.
    pub finished: Moment,
    /// The head.
    pub position: Position,
    /// The log's history as the head knows it.
    pub lineage: Lineage,
}

/// The samples of one source, oldest first, at most [`Samples::CAPACITY`].
///
/// Old ones are kept because a copy that lags by five seconds is proved by a sample that is five
/// seconds old. When there are too many, those go that leave the smallest gap for their age, so
/// that the kept ones reach far back and are dense near the present. Dropping one can only make a
/// proof weaker, never wrong.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    kept: Vec<Sample>,
}

impl Samples {
    /// How many are kept.
    pub const CAPACITY: usize = 128;

    /// Adds one; answers may arrive in another order than their probes started.
    pub fn add(&mut self, sample: Sample) {
        let place = self.kept.partition_point(|kept| kept.stamp <= sample.stamp);
        // A later sample at the same position proves more for every copy.
        if self.kept.get(place).is_some_and(|next| next.position == sample.position) {
            return;
        }
        self.kept.insert(place, sample);
        if place > 0 && self.kept[place - 1].position == self.kept[place].position {
            self.kept.remove(place - 1);
        }
        if self.kept.len() > Self::CAPACITY {
            self.thin();
        }
    }

    /// The newest.
    pub fn newest(&self) -> Option<&Sample> {
        self.kept.last()
    }

    /// All of them, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Sample> {
        self.kept.iter().rev()
    }

    /// All of them, oldest first.
    pub fn oldest_first(&self) -> impl Iterator<Item = &Sample> {
        self.kept.iter()
    }

    fn thin(&mut self) {
        let Some(newest) = self.kept.last().map(|sample| sample.stamp) else { return };
        let weight = |place: usize| {
            let gap = self.kept[place + 1].stamp.since(self.kept[place - 1].stamp);
            let age = newest.since(self.kept[place].stamp);
            gap.as_nanos() as f64 / (age.as_nanos() as f64 + 1.0)
        };
        let least = (1..self.kept.len() - 1).min_by(|a, b| weight(*a).total_cmp(&weight(*b)));
        if let Some(place) = least {
            self.kept.remove(place);
        }
    }
}

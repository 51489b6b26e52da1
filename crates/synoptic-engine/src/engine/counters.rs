//! What was decided of copies since the process started, for metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use synoptic_freshness::{Choice, Refusal, Refused};
use synoptic_types::{CopyName, SourceName};

/// Counts of decisions. As many entries as there are copies and words for what becomes of them.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Counts>);

/// The counts at one moment.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// How often a copy was chosen, by how it was proved, as receipts say it.
    pub chosen: BTreeMap<(SourceName, CopyName, &'static str), u64>,
    /// How often a copy was passed over, by the reason: for another one, or when none would do.
    pub passed_over: BTreeMap<(SourceName, CopyName, &'static str), u64>,
    /// How many statements were refused because of a source, by the code of the error.
    pub refused: BTreeMap<(SourceName, &'static str), u64>,
    /// How long choosing took per source: probes, looks, waiting for a replica.
    pub waits: BTreeMap<SourceName, Waits>,
}

/// A histogram of waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waits {
    /// How many took at most so long as [`Waits::BOUNDS`] says at the same place.
    pub at_most: [u64; Waits::BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
}

impl Waits {
    /// The upper ends, in seconds.
    pub const BOUNDS: [f64; 7] = [0.000_1, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0];

    fn add(&mut self, wait: Duration) {
        for (count, bound) in self.at_most.iter_mut().zip(Self::BOUNDS) {
            *count += u64::from(wait.as_secs_f64() <= bound);
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(wait);
    }
}

impl Counters {
    pub(crate) fn chosen(&self, choice: &Choice, waited: Duration) {
        let mut counts = self.0.lock();
        let key = (choice.source.clone(), choice.copy.clone(), choice.method.as_str());
        *counts.chosen.entry(key).or_default() += 1;
        counts.pass_over(&choice.source, &choice.refused);
        counts.waits.entry(choice.source.clone()).or_default().add(waited);
    }

    pub(crate) fn refused(&self, refusal: &Refusal, waited: Duration) {
        let mut counts = self.0.lock();
        for source in &refusal.sources {
            let key = (source.source.clone(), source.code.as_str());
            *counts.refused.entry(key).or_default() += 1;
            counts.pass_over(&source.source, &source.copies);
            counts.waits.entry(source.source.clone()).or_default().add(waited);
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.0.lock().clone()
    }
}

impl Counts {
    fn pass_over(&mut self, source: &SourceName, copies: &[Refused]) {
        for refused in copies {
            let key = (source.clone(), refused.copy.clone(), refused.reason.as_str());
            *self.passed_over.entry(key).or_default() += 1;
        }
    }
}

//! What was decided of copies since the process started, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use synoptic_freshness::{Choice, Method};
use synoptic_types::{CopyName, SourceName};

/// Counts of decisions. As many entries as there are copies and methods.
#[derive(Debug, Default)]
pub struct Counters {
    chosen: Mutex<BTreeMap<(SourceName, CopyName, &'static str), u64>>,
    refused: AtomicU64,
}

/// How often a copy was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyCount {
    /// The source.
    pub source: SourceName,
    /// The copy.
    pub copy: CopyName,
    /// How it was proved, as receipts say it.
    pub method: &'static str,
    /// How often.
    pub count: u64,
}

impl Counters {
    pub(crate) fn chosen(&self, choice: &Choice) {
        let method: Method = choice.method;
        let key = (choice.source.clone(), choice.copy.clone(), method.as_str());
        *self.chosen.lock().entry(key).or_default() += 1;
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How often each copy was chosen, by source, copy and method.
    pub fn choices(&self) -> Vec<CopyCount> {
        let chosen = self.chosen.lock();
        let count = |(key, count): (&(SourceName, CopyName, &'static str), &u64)| CopyCount {
            source: key.0.clone(),
            copy: key.1.clone(),
            method: key.2,
            count: *count,
        };
        chosen.iter().map(count).collect()
    }

    /// How many statements were refused because no copy proved what they asked.
    pub fn refusals(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

//! The set of sources, and how it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use synoptic_source::Source;

use crate::entry::SourceEntry;

/// The sources in force now. Shared by everybody; changed only as a whole.
#[derive(Debug)]
pub struct Host {
    current: RwLock<Arc<Snapshot>>,
}

/// The sources at one moment, by name. A statement keeps one from its arrival to its end.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: u64,
    sources: BTreeMap<String, Arc<SourceEntry>>,
}

impl Host {
    /// A host of `sources`. Of two with one name the later counts; the configuration refuses that.
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Arc<Self> {
        let snapshot = Snapshot::default().with(sources);
        Arc::new(Self { current: RwLock::new(Arc::new(snapshot)) })
    }

    /// The sources now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    /// Puts `sources` in the place of all there are. A source that is the same `Arc` as before
    /// keeps its caches. Statements that run now keep what they started with.
    pub fn replace(&self, sources: Vec<Arc<dyn Source>>) {
        let mut current = self.current.write();
        *current = Arc::new(current.with(sources));
    }
}

impl Snapshot {
    /// Grows by one with every change of the host; caches of plans go by it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The source of that name, exactly as spelt in the configuration.
    pub fn source(&self, name: &str) -> Option<&Arc<SourceEntry>> {
        self.sources.get(name)
    }

    /// Every source, by name.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<SourceEntry>> {
        self.sources.values()
    }

    fn with(&self, sources: Vec<Arc<dyn Source>>) -> Self {
        let entry = |source: Arc<dyn Source>| {
            let name = source.name().as_str().to_owned();
            let entry = match self.sources.get(&name) {
                Some(known) if Arc::ptr_eq(known.source(), &source) => Arc::clone(known),
                _ => Arc::new(SourceEntry::new(source)),
            };
            (name, entry)
        };
        Self { version: self.version + 1, sources: sources.into_iter().map(entry).collect() }
    }
}

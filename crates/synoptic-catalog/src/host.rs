//! The set of sources, and how it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use synoptic_source::Source;
use synoptic_types::{CopyName, SourceName, TableName, Timeline};
use tokio::time::Instant;

use crate::copies::{CopySet, SystemTime};
use crate::entry::SourceEntry;
use crate::watch::{Watch, WatchSettings};

/// The sources in force now. Shared by everybody; changed only as a whole.
#[derive(Debug)]
pub struct Host {
    current: RwLock<Arc<Snapshot>>,
    settings: WatchSettings,
    timeline: Timeline,
}

/// The sources at one moment, by name. A statement keeps one from its arrival to its end.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: u64,
    sources: BTreeMap<String, Arc<SourceCopies>>,
}

/// One source: its copies, and what is known of where they are.
#[derive(Debug)]
pub struct SourceCopies {
    authoritative: Arc<SourceEntry>,
    replicas: Vec<Arc<SourceEntry>>,
    system_time: Arc<BTreeMap<TableName, SystemTime>>,
    watch: Arc<Watch>,
}

impl SourceCopies {
    fn new(set: CopySet, settings: WatchSettings, timeline: Timeline) -> Self {
        let default_schema = set.authoritative.default_schema().to_owned();
        let name = set.authoritative.name().clone();
        let system_time = Arc::new(set.system_time);
        let times = || Arc::clone(&system_time);
        let authoritative = Arc::new(SourceEntry::authoritative(set.authoritative, times()));
        let replica = |replica| Arc::new(SourceEntry::replica(replica, &default_schema, times()));
        let replicas: Vec<_> = set.replicas.into_iter().map(replica).collect();
        let all = std::iter::once(&authoritative).chain(&replicas);
        let watched = all.map(|e| (e.copy().clone(), e.kind(), Arc::clone(e.source())));
        let watch = Watch::new(name, watched.collect(), settings, timeline);
        Self { authoritative, replicas, system_time, watch }
    }

    /// The source's name.
    pub fn name(&self) -> &SourceName {
        self.authoritative.source().name()
    }

    /// Where the source's owners write.
    pub fn authoritative(&self) -> &Arc<SourceEntry> {
        &self.authoritative
    }

    /// Every copy, the authoritative one first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<SourceEntry>> {
        std::iter::once(&self.authoritative).chain(&self.replicas)
    }

    /// The copy of that name.
    pub fn entry(&self, copy: &CopyName) -> Option<&Arc<SourceEntry>> {
        self.entries().find(|entry| entry.copy() == copy)
    }

    /// Whether there is more than the authoritative copy.
    pub fn has_replicas(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// What is known of the copies.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    fn is_made_of(&self, set: &CopySet) -> bool {
        let same = |entry: &Arc<SourceEntry>, source| Arc::ptr_eq(entry.source(), source);
        same(&self.authoritative, &set.authoritative)
            && *self.system_time == set.system_time
            && self.replicas.len() == set.replicas.len()
            && self.replicas.iter().zip(&set.replicas).all(|(e, r)| same(e, &r.source))
    }
}

impl Host {
    /// A host of `sources`. Of two with one name the later counts; the configuration refuses that.
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Arc<Self> {
        let sources = sources.into_iter().map(CopySet::from).collect();
        Self::of_copies(sources, WatchSettings::default())
    }

    /// A host of sources with their copies.
    pub fn of_copies(sources: Vec<CopySet>, settings: WatchSettings) -> Arc<Self> {
        let timeline = Timeline::starting_at(Instant::now().into_std());
        let snapshot = Snapshot::default().with(sources, settings, timeline);
        Arc::new(Self { current: RwLock::new(Arc::new(snapshot)), settings, timeline })
    }

    /// The sources now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    /// Where this process's moments begin.
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Puts `sources` in the place of all there are. A source that is made of the same `Arc`s as
    /// before keeps its caches. Statements that run now keep what they started with.
    pub fn replace(&self, sources: Vec<Arc<dyn Source>>) {
        self.replace_copies(sources.into_iter().map(CopySet::from).collect());
    }

    /// As [`Host::replace`], with copies.
    pub fn replace_copies(&self, sources: Vec<CopySet>) {
        let mut current = self.current.write();
        *current = Arc::new(current.with(sources, self.settings, self.timeline));
    }
}

impl Snapshot {
    /// Grows by one with every change of the host; caches of plans go by it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The authoritative copy of the source of that name, exactly as spelt in the configuration.
    pub fn source(&self, name: &str) -> Option<&Arc<SourceEntry>> {
        self.sources.get(name).map(|source| source.authoritative())
    }

    /// The authoritative copy of every source, by name.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<SourceEntry>> {
        self.sources.values().map(|source| source.authoritative())
    }

    /// The copies of the source of that name.
    pub fn copies(&self, name: &str) -> Option<&Arc<SourceCopies>> {
        self.sources.get(name)
    }

    /// The copies of every source, by name.
    pub fn all_copies(&self) -> impl Iterator<Item = &Arc<SourceCopies>> {
        self.sources.values()
    }

    fn with(&self, sources: Vec<CopySet>, settings: WatchSettings, timeline: Timeline) -> Self {
        let entry = |set: CopySet| {
            let name = set.authoritative.name().as_str().to_owned();
            let copies = match self.sources.get(&name) {
                Some(known) if known.is_made_of(&set) => Arc::clone(known),
                _ => Arc::new(SourceCopies::new(set, settings, timeline)),
            };
            (name, copies)
        };
        Self { version: self.version + 1, sources: sources.into_iter().map(entry).collect() }
    }
}

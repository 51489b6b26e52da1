//! What is known of a source and its copies. Gathered in the background, shared by statements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use synoptic_types::{AsOf, CopyKind, CopyName, Moment, Position, SourceName};

use crate::Lineage;
use crate::decision::Method;
use crate::guard::Opened;
use crate::lag::LagHistogram;
use crate::position::Relation;
use crate::rules::{Rules, TheRules};
use crate::sample::{Sample, Samples};

/// The facts of all sources a statement uses: one immutable view for the whole decision.
#[derive(Debug, Clone, Default)]
pub struct Facts(BTreeMap<SourceName, Arc<SourceFacts>>);

impl Facts {
    /// The facts of one source.
    pub fn get(&self, source: &SourceName) -> Option<&SourceFacts> {
        self.0.get(source).map(AsRef::as_ref)
    }
}

impl FromIterator<Arc<SourceFacts>> for Facts {
    fn from_iter<T: IntoIterator<Item = Arc<SourceFacts>>>(facts: T) -> Self {
        Self(facts.into_iter().map(|facts| (facts.source.clone(), facts)).collect())
    }
}

/// Whether a copy answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// It answered last time.
    Up,
    /// Nobody asked yet; it may be tried.
    #[default]
    Unknown,
    /// It did not answer; the text says why, without secrets.
    Down(String),
}

/// What a copy said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What it has applied: for a standby what is replayed, not what is received.
    pub position: Position,
    /// When we began to ask.
    pub at: Moment,
    /// What has arrived but is not applied; for people, never a proof.
    pub received: Option<Position>,
    /// What the copy believes its lag to be by its own clock; for people, never a proof.
    pub reported_lag: Option<Duration>,
}

impl Observed {
    /// A bare position.
    pub fn new(position: Position, at: Moment) -> Self {
        Self { position, at, received: None, reported_lag: None }
    }
}

/// One copy of a source.
#[derive(Debug, Clone)]
pub struct CopyFacts {
    /// Its name in the source.
    pub name: CopyName,
    /// What it is.
    pub kind: CopyKind,
    /// Whether it answers.
    pub health: Health,
    /// Its position, when it was seen last.
    pub observed: Option<Observed>,
    /// The interval of what is kept, for a copy that does not move (a cache entry).
    pub fixed: Option<AsOf>,
    /// What a read of it costs by the engine's estimate, in time: transfer, load, price.
    pub cost: Duration,
    /// How long asking for its position takes.
    pub round_trip: Duration,
    /// Whether it can show an earlier state of itself.
    pub time_travel: bool,
    /// Measured lags.
    pub lag: LagHistogram,
}

impl CopyFacts {
    /// A copy of which nothing is known yet.
    pub fn new(name: CopyName, kind: CopyKind) -> Self {
        Self {
            name,
            kind,
            health: Health::default(),
            observed: None,
            fixed: None,
            cost: Duration::ZERO,
            round_trip: Duration::ZERO,
            time_travel: false,
            lag: LagHistogram::default(),
        }
    }

    /// The answer of a read that was kept. Its interval is that of the read; when it was put into
    /// the cache does not matter, and nobody needs to invalidate it.
    ///
    /// Its position proves it again as long as the head does not move, unless it was read from the
    /// head of a log: an insert address covers everything visible, but what is below it may have
    /// been invisible yet when the snapshot was pinned.
    pub fn kept(name: CopyName, read: &Opened) -> Self {
        let of_head = read.method == Method::StrongRead;
        let position = match &read.position {
            Position::Log { .. } if of_head => Position::Unknown,
            position => position.clone(),
        };
        Self {
            health: Health::Up,
            observed: Some(Observed::new(position, read.as_of.lo)),
            fixed: Some(read.as_of),
            ..Self::new(name, CopyKind::Cache)
        }
    }

    /// Whether it did not answer when it was asked last.
    pub fn is_down(&self) -> bool {
        matches!(self.health, Health::Down(_))
    }

    /// Whether reading it is reading the source itself.
    pub fn is_authoritative(&self) -> bool {
        self.kind == CopyKind::Authoritative
    }
}

/// One source and its copies.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    /// The source.
    pub source: SourceName,
    /// Where the authoritative copy was, and when.
    pub samples: Samples,
    /// The history of its log, as the newest timeline tells it.
    pub lineage: Lineage,
    /// When the last probe that failed had started.
    pub probe_failed: Option<Moment>,
    /// How long a probe takes.
    pub probe_round_trip: Duration,
    /// Its copies.
    pub copies: Vec<CopyFacts>,
}

impl SourceFacts {
    /// A source of which nothing is known but its copies.
    pub fn new(source: SourceName, copies: Vec<CopyFacts>) -> Self {
        Self {
            source,
            samples: Samples::default(),
            lineage: Lineage::default(),
            probe_failed: None,
            probe_round_trip: Duration::ZERO,
            copies,
        }
    }

    /// A probe was answered.
    pub fn probed(&mut self, sample: Sample) {
        let took = sample.finished.since(sample.stamp);
        self.probe_round_trip = smoothed(self.probe_round_trip, took);
        if sample.lineage.supersedes(&self.lineage) {
            self.lineage = sample.lineage.clone();
        }
        self.samples.add(sample);
        if let Some(copy) = self.copies.iter_mut().find(|copy| copy.is_authoritative()) {
            copy.health = Health::Up;
        }
    }

    /// A probe that had started at `started` was not answered.
    pub fn probe_failed(&mut self, started: Moment, why: impl Into<String>) {
        self.probe_failed = self.probe_failed.max(Some(started));
        // A later success says more than an earlier failure.
        if self.samples.newest().is_some_and(|sample| sample.stamp > started) {
            return;
        }
        if let Some(copy) = self.copies.iter_mut().find(|copy| copy.is_authoritative()) {
            copy.health = Health::Down(why.into());
        }
    }

    /// A copy said where it is; the answer came at `now`. An answer older than the one we have is
    /// dropped.
    pub fn observed(&mut self, copy: &CopyName, observed: Observed, now: Moment) {
        self.observed_by(&TheRules, copy, observed, now);
    }

    pub(crate) fn observed_by<R: Rules>(
        &mut self,
        rules: &R,
        copy: &CopyName,
        observed: Observed,
        now: Moment,
    ) {
        let covered = |sample: &&Sample| {
            rules.relate(&observed.position, &sample.position, &self.lineage) == Relation::Covers
        };
        let lag = self.samples.newest_first().find(covered).map(|s| observed.at.since(s.stamp));
        let Some(facts) = self.copies.iter_mut().find(|facts| facts.name == *copy) else { return };
        if facts.observed.as_ref().is_some_and(|known| known.at > observed.at) {
            return;
        }
        facts.round_trip = smoothed(facts.round_trip, now.since(observed.at));
        facts.lag.add_some(lag);
        facts.health = Health::Up;
        facts.observed = Some(observed);
    }

    /// A copy did not answer. Where it was is not forgotten: it may be there again.
    pub fn unreachable(&mut self, copy: &CopyName, why: impl Into<String>) {
        if let Some(facts) = self.copies.iter_mut().find(|facts| facts.name == *copy) {
            facts.health = Health::Down(why.into());
        }
    }

    /// Nobody has asked the copies for a while: what did not answer then may be tried again.
    pub fn forget_failures(&mut self) {
        for copy in self.copies.iter_mut().filter(|copy| copy.is_down()) {
            copy.health = Health::default();
        }
    }

    /// Since when a copy is proved to be complete, whatever anybody asks for: for a replica the
    /// stamp of the newest head that it has reached, for the authoritative copy that of the newest
    /// answer.
    pub fn complete_since(&self, copy: &CopyFacts, now: Moment) -> Option<Moment> {
        match copy.is_authoritative() {
            true => self.samples.newest().map(|sample| sample.stamp),
            false => TheRules.proved(copy, self, now).map(|proof| proof.lo),
        }
    }

    /// One copy.
    pub fn copy(&self, name: &CopyName) -> Option<&CopyFacts> {
        self.copies.iter().find(|copy| copy.name == *name)
    }
}

impl LagHistogram {
    fn add_some(&mut self, lag: Option<Duration>) {
        if let Some(lag) = lag {
            self.add(lag);
        }
    }
}

/// An eighth of the new, as TCP estimates its round trips (RFC 6298).
fn smoothed(known: Duration, measured: Duration) -> Duration {
    if known.is_zero() { measured } else { known - known / 8 + measured / 8 }
}

//! What is known of one source's copies, and how it is found out.
//!
//! One [`Watch`] per source is shared by all statements. While statements use a source that has
//! replicas, a task asks the authoritative copy for its head and every replica for its position,
//! once per interval; when nobody has used the source for a while, the task ends. On top of that a
//! statement may need a fence ([`Watch::fence`], shared among all that wait) or a look at one
//! replica ([`Watch::look`], likewise). A source without replicas is never asked anything.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{join, join_all};
use parking_lot::{Mutex, RwLock};
use synoptic_freshness::{
    Action, CopyFacts, FenceId, FenceTicket, Fences, Observed, Probe, Relation, SourceFacts, relate,
};
use synoptic_source::{CopyPosition, Source};
use synoptic_types::{CopyKind, CopyName, Moment, Position, SourceName, Timeline};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How copies are watched; every number has its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// The time between two background questions to a copy.
    pub probe_interval: Duration,
    /// A copy that does not answer within this does not answer.
    pub probe_timeout: Duration,
    /// Statements that may wait for fences of one source at once.
    pub max_waiting: usize,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_millis(250),
            probe_timeout: Duration::from_secs(2),
            max_waiting: 1000,
        }
    }
}

impl WatchSettings {
    /// While a source is watched, everybody has been asked again after this long: a question may
    /// have to wait for another one, and each has its time-out.
    fn longest_round(&self) -> Duration {
        self.probe_interval * 2 + self.probe_timeout * 2
    }
}

/// A source that nobody has used for this long is not watched.
const IDLE_AFTER: Duration = Duration::from_secs(60);

/// The authoritative copy is preferred only when no other is proved: reading it takes load off
/// nobody. A replica's place in the configuration breaks ties.
const AUTHORITATIVE_COST: Duration = Duration::from_secs(1);
const COST_STEP: Duration = Duration::from_micros(10);

/// How often a replica is asked by those who wait for it.
const REPLAY_POLL: Duration = Duration::from_millis(5);

/// So many statements wait for fences of this source that another would only add to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceQueueFull;

/// The facts of one source, kept up to date.
pub struct Watch {
    timeline: Timeline,
    settings: WatchSettings,
    /// The authoritative copy first.
    copies: Vec<Watched>,
    facts: RwLock<Arc<SourceFacts>>,
    /// Counts the changes of the facts.
    changed: watch::Sender<u64>,
    fences: Mutex<Fences>,
    /// The newest fence that has ended.
    fenced: watch::Sender<Option<FenceId>>,
    /// When a statement used the source last, as nanoseconds of a [`Moment`].
    used: AtomicU64,
    /// When everybody had been asked last, likewise.
    asked: AtomicU64,
    task: Mutex<Option<AbortHandle>>,
    questions: AtomicU64,
}

struct Watched {
    name: CopyName,
    source: Arc<dyn Source>,
    /// Held by whoever asks it; the others wait for the answer.
    asking: tokio::sync::Mutex<()>,
}

impl Watch {
    pub(crate) fn new(
        source: SourceName,
        copies: Vec<(CopyName, CopyKind, Arc<dyn Source>)>,
        settings: WatchSettings,
        timeline: Timeline,
    ) -> Arc<Self> {
        let facts = (0u32..).zip(&copies).map(|(place, (name, kind, _))| {
            let mut facts = CopyFacts::new(name.clone(), *kind);
            facts.cost = match kind {
                CopyKind::Authoritative => AUTHORITATIVE_COST,
                _ => COST_STEP * place,
            };
            facts
        });
        let facts = SourceFacts::new(source, facts.collect());
        let watched = |(name, _, source)| Watched { name, source, asking: Default::default() };
        Arc::new(Self {
            timeline,
            settings,
            copies: copies.into_iter().map(watched).collect(),
            facts: RwLock::new(Arc::new(facts)),
            changed: watch::Sender::new(0),
            fences: Mutex::new(Fences::new(settings.max_waiting.max(1))),
            fenced: watch::Sender::new(None),
            used: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            task: Mutex::default(),
            questions: AtomicU64::new(0),
        })
    }

    /// The present moment.
    pub fn now(&self) -> Moment {
        self.timeline.moment(Instant::now().into_std())
    }

    /// What is known now.
    pub fn facts(&self) -> Arc<SourceFacts> {
        Arc::clone(&self.facts.read())
    }

    /// Fences started so far.
    pub fn fences_started(&self) -> u64 {
        self.fences.lock().started()
    }

    /// Questions for a position sent to any of the copies so far.
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }

    /// A statement uses the source: facts are gathered from now on, if they were not.
    pub fn touch(self: &Arc<Self>) {
        if self.copies.len() < 2 {
            return;
        }
        let now = self.now();
        self.used.store(now.nanos(), Ordering::Relaxed);
        let mut task = self.task.lock();
        let watched = task.as_ref().is_some_and(|task| !task.is_finished());
        // The watching may have ended, or be about to, or not have been given time: what a copy
        // said before that says nothing of it now.
        let asked = Moment::from_nanos(self.asked.load(Ordering::Relaxed));
        if !watched || now.since(asked) > self.settings.longest_round() {
            self.update(|facts, _| facts.forget_failures());
        }
        if !watched {
            let watching = keep_watching(Arc::downgrade(self), self.settings.probe_interval);
            *task = Some(tokio::spawn(watching).abort_handle());
        }
    }

    /// Does what a decision needs before it can be made. What it finds is in the facts.
    ///
    /// # Errors
    /// When too many statements wait for fences already.
    pub async fn carry_out(self: &Arc<Self>, action: &Action) -> Result<(), FenceQueueFull> {
        match action {
            Action::Probe { not_before, .. } => self.fence(*not_before).await?,
            Action::WaitFor { copy, position, until, .. } => {
                self.wait_for(copy, position, *until).await;
            }
            Action::Pause { until, .. } => {
                let mut changed = self.changed.subscribe();
                let _ = self.at_most_until(*until, changed.changed()).await;
            }
        }
        Ok(())
    }

    /// Waits for the end of a probe that starts now or later, or that started after `arrival`.
    ///
    /// # Errors
    /// When too many wait already.
    pub async fn fence(self: &Arc<Self>, arrival: Moment) -> Result<(), FenceQueueFull> {
        let mut fenced = self.fenced.subscribe();
        let ticket = self.fences.lock().request(arrival, self.now());
        let id = match ticket {
            FenceTicket::Full => return Err(FenceQueueFull),
            FenceTicket::Wait(id) => id,
            FenceTicket::Start(id) => {
                // On its own task, because the others wait for it even when we are dropped. Each
                // probe is bounded in time, and one that nobody waits for is the last.
                tokio::spawn(Arc::clone(self).run_fences(id));
                id
            }
        };
        let waiting = Waiting { watch: self, id, over: false };
        let ended = fenced.wait_for(|newest| newest.is_some_and(|newest| newest >= id)).await;
        drop(ended);
        waiting.over();
        Ok(())
    }

    async fn run_fences(self: Arc<Self>, mut id: FenceId) {
        loop {
            self.probe().await;
            let finished = self.fences.lock().finished(id, self.now());
            self.fenced.send_replace(Some(id));
            match finished.start {
                Some(next) => id = next,
                None => return,
            }
        }
    }

    /// Asks the authoritative copy for its head.
    pub async fn probe(&self) {
        let Some(copy) = self.copies.first() else { return };
        let probe = Probe::start(self.now());
        match self.ask(copy).await {
            Ok(said) if said.follows && self.copies.len() > 1 => {
                let why = "it follows another node, so it is not the authoritative copy any more";
                self.update(|facts, _| facts.probe_failed(probe.started(), why));
            }
            Ok(said) => self.update(|facts, now| {
                facts.probed(probe.finish(said.position, said.lineage, now));
            }),
            Err(why) => self.update(|facts, _| facts.probe_failed(probe.started(), why)),
        }
    }

    /// Asks a replica where it is, unless somebody has since `not_before`.
    pub async fn look(&self, copy: &CopyName, not_before: Moment) {
        let Some(copy) = self.copies.iter().skip(1).find(|known| known.name == *copy) else {
            return;
        };
        let _asking = copy.asking.lock().await;
        let facts = self.facts();
        let known = facts.copy(&copy.name).and_then(|facts| facts.observed.as_ref());
        if known.is_some_and(|observed| observed.at >= not_before) {
            return;
        }
        let at = self.now();
        match self.ask(copy).await {
            Ok(said) => {
                let CopyPosition { position, received, reported_lag, .. } = said;
                let observed = Observed { position, at, received, reported_lag };
                self.update(|facts, now| facts.observed(&copy.name, observed, now));
            }
            Err(why) => self.update(|facts, _| facts.unreachable(&copy.name, why)),
        }
    }

    /// A read of `copy` that started at `started` failed because it does not answer.
    pub fn failed(&self, copy: &CopyName, started: Moment, why: &str) {
        let authoritative = self.copies.first().is_some_and(|first| first.name == *copy);
        self.update(|facts, _| match authoritative {
            true => facts.probe_failed(started, why),
            false => facts.unreachable(copy, why),
        });
    }

    /// Asks until the replica has got to `position` or time is up; at least once.
    async fn wait_for(&self, copy: &CopyName, position: &Position, until: Moment) {
        loop {
            self.look(copy, self.now()).await;
            let facts = self.facts();
            let known = facts.copy(copy).and_then(|facts| facts.observed.as_ref());
            let there = known.is_some_and(|observed| {
                relate(&observed.position, position, &facts.lineage) == Relation::Covers
            });
            if there || self.now() >= until {
                return;
            }
            let next = self.now().after(REPLAY_POLL).min(until);
            self.at_most_until(next, std::future::pending::<()>()).await;
        }
    }

    async fn at_most_until<T>(&self, until: Moment, work: impl Future<Output = T>) -> Option<T> {
        match self.timeline.instant(until) {
            None => Some(work.await),
            Some(instant) => tokio::select! {
                done = work => Some(done),
                () = sleep_until(instant.into()) => None,
            },
        }
    }

    async fn ask(&self, copy: &Watched) -> Result<CopyPosition, String> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let limit = self.settings.probe_timeout;
        match timeout(limit, copy.source.position()).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
        }
    }

    /// Changes the facts; statements keep the ones they have.
    fn update(&self, change: impl FnOnce(&mut SourceFacts, Moment)) {
        let now = self.now();
        change(Arc::make_mut(&mut self.facts.write()), now);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Asks everybody once: the replicas a little after the head, so that one that keeps up is
    /// seen to have this head.
    async fn round(&self) {
        let pause = self.facts().probe_round_trip.min(self.settings.probe_interval / 2);
        let replicas = self.copies.iter().skip(1);
        let looks = async {
            sleep(pause).await;
            let now = self.now();
            join_all(replicas.map(|copy| self.look(&copy.name, now))).await;
        };
        join(self.probe(), looks).await;
    }
}

async fn keep_watching(watched: Weak<Watch>, interval: Duration) {
    loop {
        let Some(watch) = watched.upgrade() else { return };
        {
            // Under the lock, so that a statement that comes now does not count on this task.
            let mut task = watch.task.lock();
            let used = Moment::from_nanos(watch.used.load(Ordering::Relaxed));
            if watch.now().since(used) > IDLE_AFTER {
                *task = None;
                return;
            }
        }
        watch.round().await;
        watch.asked.store(watch.now().nanos(), Ordering::Relaxed);
        drop(watch);
        sleep(interval).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("facts", &self.facts()).finish_non_exhaustive()
    }
}

/// A statement's place among those that wait for a fence.
struct Waiting<'a> {
    watch: &'a Watch,
    id: FenceId,
    over: bool,
}

impl Waiting<'_> {
    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.watch.fences.lock().leave(self.id);
        }
    }
}

#[cfg(test)]
mod tests;

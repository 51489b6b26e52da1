//! Fences: probes that started after a statement arrived, shared among statements.
//!
//! A strong read needs a head that was asked for after the read arrived. While one probe is under
//! way, everybody who arrives meanwhile waits for the *next* one, which starts when the first is
//! back and serves them all. There are never more than one running and one queued, so a thousand
//! concurrent strong reads cost about two round trips, and each waits for at most two.

use synoptic_types::Moment;

use crate::rules::{Rules, TheRules};

/// Names a fence of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FenceId(u64);

/// What a statement that needs a fence is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum FenceTicket {
    /// Start the probe now, then wait for it like everybody else.
    Start(FenceId),
    /// Wait for this one.
    Wait(FenceId),
    /// Too many wait already: refuse with `[QUEUE_FULL]`.
    Full,
}

/// What follows from a fence's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Finished {
    /// How many statements waited for it and go on now.
    pub served: usize,
    /// The next fence, to be started at once.
    pub start: Option<FenceId>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    id: FenceId,
    started: Moment,
    waiting: usize,
}

/// The fences of one source on one server.
///
/// Whoever gets [`FenceTicket::Start`], or [`Finished::start`], owns a probe: bounds it in time and
/// reports its end with [`Fences::finished`] whatever the outcome, also when it is dropped.
#[derive(Debug)]
pub struct Fences {
    next: u64,
    running: Option<Running>,
    queued: Option<(FenceId, usize)>,
    max_waiting: usize,
    started: u64,
}

impl Fences {
    /// At most `max_waiting` statements wait at any time, the one that started the probe included.
    pub fn new(max_waiting: usize) -> Self {
        Self { next: 0, running: None, queued: None, max_waiting, started: 0 }
    }

    /// A statement that arrived at `arrival` needs a fence, at `now`.
    pub fn request(&mut self, arrival: Moment, now: Moment) -> FenceTicket {
        self.request_by(&TheRules, arrival, now)
    }

    pub(crate) fn request_by<R: Rules>(
        &mut self,
        rules: &R,
        arrival: Moment,
        now: Moment,
    ) -> FenceTicket {
        if self.waiting() >= self.max_waiting {
            return FenceTicket::Full;
        }
        let Some(running) = &mut self.running else {
            let id = self.name();
            self.start(id, 1, now);
            return FenceTicket::Start(id);
        };
        if rules.since_arrival(running.started, now, arrival) {
            running.waiting += 1;
            return FenceTicket::Wait(running.id);
        }
        let (id, waiting) = match self.queued {
            Some(queued) => queued,
            None => (self.name(), 0),
        };
        self.queued = Some((id, waiting + 1));
        FenceTicket::Wait(id)
    }

    /// The probe of `id` has ended, well or not; those who waited ask [`choose`](crate::choose)
    /// again. Only the first report of an end counts.
    pub fn finished(&mut self, id: FenceId, now: Moment) -> Finished {
        let Some(running) = self.running.take_if(|running| running.id == id) else {
            return Finished { served: 0, start: None };
        };
        let start = self.queued.take().filter(|(_, waiting)| *waiting > 0);
        if let Some((id, waiting)) = start {
            self.start(id, waiting, now);
        }
        Finished { served: running.waiting, start: start.map(|(id, _)| id) }
    }

    /// A statement does not wait for `id` any more; to be called once by each that gives up. Whoever
    /// owns the probe still reports its end.
    pub fn leave(&mut self, id: FenceId) {
        match (&mut self.running, &mut self.queued) {
            (Some(running), _) if running.id == id => {
                running.waiting = running.waiting.saturating_sub(1);
            }
            (_, Some((queued, waiting))) if *queued == id => *waiting = waiting.saturating_sub(1),
            _ => {}
        }
    }

    /// Statements that wait.
    pub fn waiting(&self) -> usize {
        self.running.map_or(0, |running| running.waiting)
            + self.queued.map_or(0, |(_, waiting)| waiting)
    }

    /// Fences started so far, for metrics.
    pub fn started(&self) -> u64 {
        self.started
    }

    fn start(&mut self, id: FenceId, waiting: usize, now: Moment) {
        self.started += 1;
        self.running = Some(Running { id, started: now, waiting });
    }

    fn name(&mut self) -> FenceId {
        self.next += 1;
        FenceId(self.next)
    }
}

//! One answer over several endpoints, for clients that ask for it.
//!
//! The endpoints share one running query. Each batch goes to the endpoint that is ready for it
//! first, so that encoding, sending and decoding go on side by side. Together they are the answer,
//! whether they are read at once or one after another; which rows an endpoint has is not decided
//! before. So one of them cannot be read again, or planned again: the whole answer can.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use synoptic_engine::{PlannedQuery, QueryStream, Receipt};

use synoptic_types::{ErrorCode, QueryId};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::options::FlightOptions;
use crate::status::{Fault, Result};

/// Endpoints an answer may have. Each has a few messages on their way.
pub(crate) const MAX_ENDPOINTS: u32 = 16;

/// The rows that one DoGet sends.
pub(crate) enum Rows {
    /// A query's.
    All(QueryStream),
    /// Those an endpoint gets of it.
    Part(Part),
}

impl Rows {
    /// The query's id.
    pub(crate) fn id(&self) -> &QueryId {
        match self {
            Self::All(query) => query.id(),
            Self::Part(part) => &part.answer.id,
        }
    }

    /// The next batch. No batch is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self {
            Self::All(query) => Some(query.next().await?.map_err(Fault::from)),
            Self::Part(part) => part.next().await,
        }
    }

    /// The receipt; the final one after the last batch.
    pub(crate) fn receipt(&self) -> Result<Bytes> {
        match self {
            Self::All(query) => receipt_json(&query.receipt()),
            Self::Part(part) => Ok(part.receipt.clone()),
        }
    }

    /// Tells the readers of other parts why this one breaks off.
    pub(crate) fn fail(&mut self, fault: &Fault) {
        if let Self::Part(part) = self
            && !part.ended
        {
            part.ended = true;
            part.answer.give_up(fault.clone());
        }
    }
}

/// A receipt as clients get it.
pub(crate) fn receipt_json(receipt: &Receipt) -> Result<Bytes> {
    serde_json::to_vec(receipt)
        .map(Bytes::from)
        .map_err(|e| Fault::internal(format!("the receipt cannot be written: {e}")))
}

/// Answers that are, or will be, read over several endpoints.
pub(crate) struct SharedAnswers {
    open: Arc<Open>,
}

struct Open {
    /// Those nobody reads now: planned, or read by some endpoints to the end.
    waiting: Cache<QueryId, Arc<Answer>>,
    /// Those being read, with the number of their readers: as many as there are DoGets.
    read: Mutex<HashMap<QueryId, (Arc<Answer>, usize)>>,
}

impl SharedAnswers {
    pub(crate) fn new(options: &FlightOptions) -> Self {
        let waiting = Cache::builder()
            .max_capacity(options.max_planned)
            .time_to_live(options.planned_ttl)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { open: Arc::new(Open { waiting, read: Mutex::default() }) }
    }

    /// Keeps a plan for the readers of its `endpoints`.
    pub(crate) fn keep(&self, planned: PlannedQuery, endpoints: u32) {
        let id = planned.id().clone();
        let answer = Answer {
            id: id.clone(),
            endpoints,
            opened: Mutex::default(),
            given_up: CancellationToken::new(),
            cause: OnceLock::new(),
            state: tokio::sync::Mutex::new(State::Planned(Box::new(planned))),
        };
        self.open.waiting.insert(id, Arc::new(answer));
    }

    /// Begins to read an endpoint; the first one starts the query.
    ///
    /// # Errors
    /// FAILED_PRECONDITION when the answer is not here any more, or the endpoint was read before; as
    /// [`PlannedQuery::run`] for all endpoints.
    pub(crate) fn open(&self, id: &QueryId, endpoint: u32) -> Result<Part> {
        let part = self.part(id, endpoint)?;
        part.answer.start()?;
        Ok(part)
    }

    fn part(&self, id: &QueryId, endpoint: u32) -> Result<Part> {
        let mut read = self.open.read.lock();
        let answer = match read.get(id) {
            Some((answer, _)) => Arc::clone(answer),
            None => self.open.waiting.get(id).ok_or_else(gone)?,
        };
        if !answer.opened.lock().insert(endpoint) {
            return Err(answer.failed().unwrap_or_else(|| read_before(endpoint, answer.endpoints)));
        }
        read.entry(id.clone()).or_insert_with(|| (Arc::clone(&answer), 0)).1 += 1;
        self.open.waiting.invalidate(id);
        drop(read);
        let open = Arc::clone(&self.open);
        Ok(Part { answer, open, receipt: Bytes::new(), ended: false })
    }

    /// Drops a plan that nobody has begun to read; whether there was one.
    pub(crate) fn forget(&self, id: &QueryId) -> bool {
        let _read = self.open.read.lock();
        let Some(answer) = self.open.waiting.get(id) else { return false };
        if !answer.opened.lock().is_empty() {
            return false;
        }
        self.open.waiting.invalidate(id);
        // Now, and not when the cache gets round to it.
        answer.give_up(gone());
        true
    }

    /// Ends plans that have waited too long.
    pub(crate) fn sweep(&self) {
        self.open.waiting.run_pending_tasks();
    }
}

/// One answer, for all its endpoints.
struct Answer {
    id: QueryId,
    endpoints: u32,
    opened: Mutex<BTreeSet<u32>>,
    /// Fires when a reader breaks off, and the rows it got are lost.
    given_up: CancellationToken,
    /// Why it did.
    cause: OnceLock<Fault>,
    state: tokio::sync::Mutex<State>,
}

enum State {
    Planned(Box<PlannedQuery>),
    Running(QueryStream),
    /// With the final receipt.
    Ended(Bytes),
    Failed(Fault),
}

impl Answer {
    fn start(&self) -> Result<()> {
        // Who holds it has started it, and hears if that failed.
        let Ok(mut state) = self.state.try_lock() else { return Ok(()) };
        // What is in between is seen when starting it panics.
        let broken = State::Failed(Fault::internal("the query could not be started"));
        let (next, started) = match std::mem::replace(&mut *state, broken) {
            State::Planned(planned) => match (*planned).run() {
                Ok(query) => (State::Running(query), Ok(())),
                Err(error) => {
                    let fault = Fault::from(error).adding(
                        "; then ask for FlightInfo again, as the answer has several endpoints",
                    );
                    (State::Failed(fault.clone()), Err(fault))
                }
            },
            State::Failed(fault) => (State::Failed(fault.clone()), Err(fault)),
            other => (other, Ok(())),
        };
        *state = next;
        started
    }

    /// The next batch that no endpoint has, or the final receipt.
    async fn next(&self) -> Result<Next> {
        let mut state = self.state.lock().await;
        let query = match &mut *state {
            State::Running(query) => query,
            State::Ended(receipt) => return Ok(Next::Ended(receipt.clone())),
            State::Failed(fault) => return Err(fault.clone()),
            State::Planned(_) => return Err(Fault::internal("the query was not started")),
        };
        let outcome = match query.next().await {
            Some(Ok(batch)) => return Ok(Next::Batch(batch)),
            Some(Err(error)) => Err(Fault::from(error)),
            None => receipt_json(&query.receipt()),
        };
        *state = match &outcome {
            Ok(receipt) => State::Ended(receipt.clone()),
            Err(fault) => State::Failed(fault.clone()),
        };
        outcome.map(Next::Ended)
    }

    /// Has the query end for all readers, as rows of it are lost.
    fn give_up(&self, cause: Fault) {
        let _ = self.cause.set(cause);
        self.given_up.cancel();
        // Whoever holds it sees the signal.
        if let Ok(mut state) = self.state.try_lock() {
            self.end_in(&mut state);
        }
    }

    /// Ends the query that was given up.
    async fn end(&self) -> Fault {
        self.end_in(&mut *self.state.lock().await)
    }

    fn end_in(&self, state: &mut State) -> Fault {
        if let State::Failed(fault) = state {
            return fault.clone();
        }
        let fault = self.cause.get().cloned().unwrap_or_else(reader_has_gone);
        *state = State::Failed(fault.clone());
        fault
    }

    fn failed(&self) -> Option<Fault> {
        match &*self.state.try_lock().ok()? {
            State::Failed(fault) => Some(fault.clone()),
            _ => None,
        }
    }
}

enum Next {
    Batch(RecordBatch),
    Ended(Bytes),
}

/// What one endpoint reads of an answer. Dropping it before its end ends the query, and the other
/// endpoints with an error: what it had got is missing from the answer.
pub(crate) struct Part {
    answer: Arc<Answer>,
    open: Arc<Open>,
    /// Empty until the end.
    receipt: Bytes,
    ended: bool,
}

impl Part {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let next = tokio::select! {
            biased;
            () = self.answer.given_up.cancelled() => Err(self.answer.end().await),
            next = self.answer.next() => next,
        };
        match next {
            // Given up while it was fetched: nothing waits for this reader to go on.
            Ok(Next::Batch(_)) if self.answer.given_up.is_cancelled() => {
                Some(Err(self.answer.end().await))
            }
            Ok(Next::Batch(batch)) => Some(Ok(batch)),
            Ok(Next::Ended(receipt)) => {
                self.receipt = receipt;
                self.ended = true;
                None
            }
            Err(fault) => Some(Err(fault)),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.ended {
            self.answer.give_up(reader_has_gone());
        }
        let mut read = self.open.read.lock();
        let Some((_, readers)) = read.get_mut(&self.answer.id) else { return };
        *readers -= 1;
        if *readers > 0 {
            return;
        }
        read.remove(&self.answer.id);
        // Endpoints still to be read hear how it ended.
        let left = self.answer.opened.lock().len() < self.answer.endpoints as usize;
        if left {
            self.open.waiting.insert(self.answer.id.clone(), Arc::clone(&self.answer));
        }
    }
}

fn reader_has_gone() -> Fault {
    Fault::new(
        ErrorCode::Cancelled,
        "the reader of another endpoint of this answer has gone, and its rows with it; ask for \
         FlightInfo again and read every endpoint to its end",
    )
}

fn gone() -> Fault {
    Fault::new(
        ErrorCode::InvalidOption,
        "this endpoint's answer is not here any more: it waited too long, was cancelled or read to \
         its end, or another server made it. One of several endpoints cannot be answered alone; \
         ask for FlightInfo again",
    )
    .with_grpc(Code::FailedPrecondition)
}

fn read_before(endpoint: u32, endpoints: u32) -> Fault {
    Fault::new(
        ErrorCode::InvalidOption,
        format!(
            "endpoint {endpoint} of {endpoints} was read before, and each is read once; ask for \
             FlightInfo again"
        ),
    )
    .with_grpc(Code::FailedPrecondition)
}

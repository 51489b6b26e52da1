//! What became of writes, so that one that is asked for again is answered and not done again.

use std::collections::{HashMap, VecDeque};

use arrow::array::{Int64Array, RecordBatch};
use parking_lot::Mutex;
use synoptic_source::CommitGate;
use synoptic_types::{ErrorCode, QueryId};
use tokio::sync::watch;

use crate::error::{Error, Result};

use super::count_schema;
use std::sync::Arc;

/// How a write ended: rows that were written, or why not.
type Ended = Option<Result<u64>>;

/// The outcomes of the last writes, by statement. The oldest are forgotten first.
///
/// Forgetting one cannot make a write happen twice: a ticket's plan is run once, and a ticket whose
/// plan is gone is not planned again when it writes.
#[derive(Debug)]
pub(crate) struct Outcomes {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<QueryId, watch::Receiver<Ended>>,
    /// Oldest first.
    order: VecDeque<QueryId>,
}

/// Says how a write ended, at the latest when it is dropped.
#[derive(Debug)]
pub(super) struct Report {
    gate: Arc<CommitGate>,
    sender: watch::Sender<Ended>,
}

impl Outcomes {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// The one right to run the write of statement `id`.
    ///
    /// # Errors
    /// When it was given away before.
    pub(super) fn claim(&self, id: &QueryId, gate: &Arc<CommitGate>) -> Result<Report> {
        let mut kept = self.kept.lock();
        if kept.by_id.contains_key(id) {
            return Err(Error::new(
                ErrorCode::InvalidOption,
                format!("the write {id} was begun before; it is not done twice"),
            ));
        }
        let (sender, receiver) = watch::channel(None);
        kept.by_id.insert(id.clone(), receiver);
        kept.order.push_back(id.clone());
        while kept.order.len() > self.most.max(1) {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_id.remove(&oldest);
            }
        }
        Ok(Report { gate: Arc::clone(gate), sender })
    }

    /// The answer of a write that was begun before, once it has ended; `None` when there was none.
    pub(crate) async fn answer(&self, id: &QueryId) -> Option<Result<RecordBatch>> {
        let mut receiver = self.kept.lock().by_id.get(id)?.clone();
        let ended = receiver.wait_for(Option::is_some).await.map(|ended| ended.clone());
        Some(match ended {
            Ok(Some(Ok(rows))) => count(rows),
            Ok(Some(Err(error))) => Err(error),
            _ => Err(cancelled()),
        })
    }
}

impl Report {
    pub(super) fn end(self, outcome: Result<u64>) {
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.sender.borrow().is_some() {
            return;
        }
        let error = match self.gate.is_committing() {
            false => cancelled(),
            true => Error::new(
                ErrorCode::OutcomeUnknown,
                "the outcome of the commit is unknown: the server failed while it waited for it; \
                 look for the rows in the table before you write them again",
            ),
        };
        self.sender.send_replace(Some(Err(error)));
    }
}

fn cancelled() -> Error {
    Error::new(
        ErrorCode::Cancelled,
        "the statement was cancelled before its commit; nothing was written",
    )
}

/// The answer of a write: one row with the number of rows.
pub(super) fn count(rows: u64) -> Result<RecordBatch> {
    let rows = Int64Array::from(vec![i64::try_from(rows).unwrap_or(i64::MAX)]);
    RecordBatch::try_new(count_schema(), vec![Arc::new(rows)])
        .map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))
}

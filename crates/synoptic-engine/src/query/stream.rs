//! The answer on its way to the client.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt};
use synoptic_freshness::Receipt;
use synoptic_source::CommitGate;
use synoptic_types::{Deadline, ErrorCode, QueryId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::engine::Engine;
use crate::error::{Error, Result, timed_out};
use crate::scope::Scope;

use super::record::QueryRecord;

/// The answer, batch by batch. Dropping it cancels the work here and at the sources.
pub struct QueryStream {
    engine: Arc<Engine>,
    record: Arc<QueryRecord>,
    scope: Arc<Scope>,
    schema: SchemaRef,
    /// Gone once the query has ended, so that nothing runs on behind a client that is slow to let
    /// go of the stream.
    running: Option<Running>,
}

struct Running {
    batches: SendableRecordBatchStream,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    timeout: Option<Pin<Box<Sleep>>>,
    _permit: Option<OwnedSemaphorePermit>,
    /// Of a write.
    gate: Option<Arc<CommitGate>>,
}

impl Running {
    /// Whether it ends because of `reason`: not while a commit is on its way, whose outcome must
    /// be told.
    fn may_end_after(&mut self, reason: impl FnOnce(&mut Self) -> bool) -> bool {
        if self.gate.as_ref().is_some_and(|gate| gate.is_committing()) {
            return false;
        }
        reason(self) && self.gate.as_ref().is_none_or(|gate| gate.cancel())
    }
}

/// A stream over rows that are there already.
pub(super) fn of_rows(schema: SchemaRef, rows: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let rows = futures::stream::iter(rows.into_iter().map(Ok));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

impl QueryStream {
    pub(super) fn new(
        engine: Arc<Engine>,
        record: Arc<QueryRecord>,
        scope: Arc<Scope>,
        schema: SchemaRef,
        batches: SendableRecordBatchStream,
        deadline: Option<Deadline>,
        (permit, gate): (Option<OwnedSemaphorePermit>, Option<Arc<CommitGate>>),
    ) -> Self {
        let timeout = deadline.map(|d| Box::pin(tokio::time::sleep_until(d.instant().into())));
        let cancelled = Box::pin(record.cancelled());
        let running = Some(Running { batches, cancelled, timeout, _permit: permit, gate });
        Self { engine, record, scope, schema, running }
    }

    /// The statement's id.
    pub fn id(&self) -> &QueryId {
        self.record.id()
    }

    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// What has been read so far; final once the stream has ended.
    pub fn receipt(&self) -> Receipt {
        self.record.receipt(&self.engine)
    }

    /// Ends the query: nothing runs on and the sources are let go.
    fn end(&mut self) {
        if self.running.take().is_some() {
            self.scope.end();
            self.engine.queries_registry().end(&self.record);
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let Some(running) = &mut self.running else { return Poll::Ready(None) };
        if running.may_end_after(|r| r.cancelled.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(Error::cancelled(self.record.id()))));
        }
        let passed = |r: &mut Running| {
            r.timeout.as_mut().is_some_and(|timeout| timeout.as_mut().poll(cx).is_ready())
        };
        if running.may_end_after(passed) {
            return Poll::Ready(Some(Err(timed_out(None))));
        }
        let batches = &mut running.batches;
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            with_deep_stack(|| batches.poll_next_unpin(cx))
        }));
        match polled {
            Ok(polled) => polled.map(|item| {
                item.map(|batch| {
                    batch.map_err(Error::from).and_then(|b| with_schema(b, &self.schema))
                })
            }),
            Err(panic) => Poll::Ready(Some(Err(Error::panicked(panic.as_ref())))),
        }
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.advance(cx);
        match &polled {
            Poll::Ready(Some(Ok(batch))) => self.record.add_rows(batch.num_rows()),
            Poll::Ready(Some(Err(error))) => {
                self.record.fail(error);
                self.end();
            }
            Poll::Ready(None) => {
                self.record.done();
                self.end();
            }
            Poll::Pending => {}
        }
        polled
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        self.record.drop_unfinished();
        self.end();
    }
}

/// Below this much stack, in bytes, a larger one is used.
const STACK_LEFT: usize = 8 << 20;

/// Enough stack, in bytes, for the longest chain of operators that is let in. Only what is used
/// of it is ever real memory.
const DEEP_STACK: usize = 128 << 20;

/// The stack, in bytes, of threads that poll statements without growing it first: a runtime should
/// give its threads this much. Where they have less, each poll of a statement makes a stack and
/// unmakes it, which costs more than a small statement does.
pub const THREAD_STACK: usize = DEEP_STACK + STACK_LEFT + (1 << 20);

/// Runs what may recurse as deep as a statement is long.
pub(crate) fn with_deep_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_LEFT, DEEP_STACK, work)
}

/// Gives a batch the answer's own schema, which differs at most in nullability and metadata.
fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|e| Error::new(ErrorCode::Internal, format!("the answer breaks its schema: {e}")))
}

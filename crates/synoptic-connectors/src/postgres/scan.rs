//! One prepared COPY, and the stream of batches it becomes.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::Statistics;
use datafusion::logical_expr::Expr;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use synoptic_source::{
    BatchStream, Counted, Fragment, KeyLimits, Narrowed, PreparedScan, Relation, Result,
    ScanContext, ScanCounters, Snapshot, SourceError,
};
use synoptic_types::{Deadline, QueryId, Reason};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::sql::{POSTGRES, render_filter};

use super::copy::{CopyDecoder, CopyFault};
use super::decode::Fault;
use super::discover::PgTable;
use super::error::{from_postgres, timed_out};
use super::pool::{Pool, within};
use super::ranges::Ranges;
use super::relation::{self, render};
use super::request::{comment, request};
use super::rows::{self, Expected};
use super::snapshot::{Incoming, OpenCopy, PgSnapshot, Registration, ScanRequest, Shared};
use super::types::Encoding;

/// Batches that wait for a slow reader; behind them the server waits.
const BATCHES_AHEAD: usize = 2;

/// Keys in one array. PostgreSQL 15 plans an array of 140,000 in 0.3 s, where it needs 1.1 s for
/// the same IN list, and then takes as long to read a table as without a condition.
const MANY_KEYS: KeyLimits = KeyLimits { keys: 100_000, bytes: 4 << 20, each: 1.5 };

/// A relation as one COPY, or a fragment as several over ranges of pages.
#[derive(Debug)]
pub(super) struct PostgresScan {
    pool: Arc<Pool>,
    plan: Arc<ScanPlan>,
    query_id: QueryId,
    statistics: Statistics,
    /// Whether the server looks values of long lists up in a hash table.
    hashes_lists: bool,
}

/// What a running scan needs of it.
#[derive(Debug)]
pub(super) struct ScanPlan {
    pub request: Arc<ScanRequest>,
    /// What takes further conditions.
    read: Read,
    registration: Mutex<Arc<Registration>>,
    pub schema: SchemaRef,
    /// How the columns that are selected look on the wire, in order.
    pub encodings: Vec<Encoding>,
    pub batch_size: usize,
}

/// What is read.
#[derive(Debug, Clone)]
enum Read {
    Fragment(Fragment, Ranges),
    Relation(Arc<Relation>),
}

impl ScanPlan {
    /// Registers `request`, which reads one table, with the statement.
    ///
    /// # Errors
    /// `Internal` when the table is another source's.
    pub fn of_fragment(
        shared: &Arc<Shared>,
        request: ScanRequest,
        fragment: Fragment,
        ranges: Ranges,
        batch_size: usize,
    ) -> Result<Self> {
        let (schema, encodings) = (fragment.schema(), encodings(&fragment)?);
        let read = Read::Fragment(fragment, ranges);
        Ok(Self::new(shared, request, read, schema, encodings, batch_size))
    }

    /// Registers `request`, which reads a whole relation, with the statement.
    pub fn of_relation(
        shared: &Arc<Shared>,
        request: ScanRequest,
        relation: &Relation,
        encodings: Vec<Encoding>,
        batch_size: usize,
    ) -> Self {
        let schema = Arc::clone(&relation.schema);
        let read = Read::Relation(Arc::new(relation.clone()));
        Self::new(shared, request, read, schema, encodings, batch_size)
    }

    fn new(
        shared: &Arc<Shared>,
        request: ScanRequest,
        read: Read,
        schema: SchemaRef,
        encodings: Vec<Encoding>,
        batch_size: usize,
    ) -> Self {
        let request = Arc::new(request);
        let registration = Mutex::new(Arc::new(shared.register(&request)));
        Self { request, read, registration, schema, encodings, batch_size }
    }

    /// What is left of `conditions` when the others are in what is read; `None` when it takes none.
    fn narrowed(
        &self,
        conditions: &[Expr],
        expected: Expected,
        query_id: &QueryId,
    ) -> Option<(Self, Vec<(Expr, Reason)>)> {
        let mut left = Vec::new();
        let (read, request) = match &self.read {
            // A condition comes before the limit in the text.
            Read::Fragment(fragment, _) if fragment.limit.is_some() => return None,
            Read::Fragment(fragment, ranges) => {
                let mut fragment = fragment.clone();
                let table = Arc::clone(&fragment.table);
                let detail = table.detail::<PgTable>()?;
                for condition in conditions {
                    let named = fragment.named(condition)?;
                    match render_filter(&named, &table.schema, detail, &POSTGRES) {
                        Ok(_) => fragment.filters.push(named),
                        Err(reason) => left.push((condition.clone(), reason)),
                    }
                }
                let request = request(&fragment, ranges, expected, query_id).ok()?;
                (Read::Fragment(fragment, ranges.clone()), request)
            }
            Read::Relation(relation) => {
                let mut relation = Arc::clone(relation);
                for condition in conditions {
                    let narrower = relation.narrowed(condition);
                    match render(&narrower) {
                        Ok(_) => relation = narrower,
                        Err(reason) => left.push((condition.clone(), reason)),
                    }
                }
                let (request, _) =
                    relation::request(&relation, expected, &comment(query_id)).ok()?;
                (Read::Relation(relation), request)
            }
        };
        let plan = Self {
            request: Arc::new(request),
            read,
            registration: Mutex::new(Arc::clone(&self.registration.lock())),
            schema: Arc::clone(&self.schema),
            encodings: self.encodings.clone(),
            batch_size: self.batch_size,
        };
        Some((plan, left))
    }

    /// The scan's place in `shared`; a new one for all partitions when it was prepared in another
    /// statement's.
    fn registration(&self, shared: &Arc<Shared>) -> Arc<Registration> {
        let mut registration = self.registration.lock();
        if !registration.belongs_to(shared) {
            *registration = Arc::new(shared.register(&self.request));
        }
        Arc::clone(&registration)
    }
}

impl PostgresScan {
    pub fn new(
        pool: Arc<Pool>,
        plan: ScanPlan,
        query_id: QueryId,
        statistics: Statistics,
        hashes_lists: bool,
    ) -> Self {
        Self { pool, plan: Arc::new(plan), query_id, statistics, hashes_lists }
    }
}

#[async_trait]
impl PreparedScan for PostgresScan {
    fn remote_text(&self) -> &str {
        &self.plan.request.shown
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.schema)
    }

    fn partitions(&self) -> usize {
        self.plan.request.copies.len()
    }

    fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    fn narrowed(&self, conditions: &[Expr]) -> Option<Narrowed> {
        let (rows, few) = (self.statistics.num_rows, self.pool.options().max_query_rows);
        let expected = Expected { rows, few };
        let (plan, left) = self.plan.narrowed(conditions, expected, &self.query_id)?;
        let scan = Self {
            pool: Arc::clone(&self.pool),
            plan: Arc::new(plan),
            query_id: self.query_id.clone(),
            statistics: self.statistics.clone(),
            hashes_lists: self.hashes_lists,
        };
        Some(Narrowed { scan: Arc::new(scan), left })
    }

    fn key_limits(&self) -> KeyLimits {
        if self.hashes_lists { MANY_KEYS } else { KeyLimits::LIST }
    }

    fn open(
        &self,
        partition: usize,
        snapshot: Arc<dyn Snapshot>,
        context: ScanContext,
    ) -> Result<BatchStream> {
        let partitions = self.partitions();
        if partition >= partitions {
            let message = format!("partition {partition} of a scan that has {partitions}");
            return Err(self.pool.name(SourceError::internal(message)));
        }
        let shared = shared(&self.pool, &snapshot)?;
        let counters = Arc::clone(&context.counters);
        let plan = Arc::clone(&self.plan);
        let scan = Scan { shared, plan, partition, counters: context.counters };
        let stream = ScanStream { scan: Some(scan), running: None };
        Ok(Counted::new(stream.boxed(), counters).boxed())
    }
}

fn encodings(fragment: &Fragment) -> Result<Vec<Encoding>> {
    let detail = fragment.table.detail::<PgTable>().ok_or_else(foreign_table)?;
    let column = |&i: &usize| detail.columns.get(i).map(|column| column.encoding().clone());
    fragment.projection.iter().map(column).collect::<Option<_>>().ok_or_else(foreign_table)
}

/// The snapshot's inside, when it is of this source.
///
/// # Errors
/// `Internal` when it is another source's.
pub(super) fn shared(pool: &Arc<Pool>, snapshot: &Arc<dyn Snapshot>) -> Result<Arc<Shared>> {
    let any: &dyn std::any::Any = snapshot.as_ref();
    match any.downcast_ref::<PgSnapshot>() {
        Some(PgSnapshot(shared)) if Arc::ptr_eq(&shared.pool, pool) => Ok(Arc::clone(shared)),
        _ => Err(pool.name(SourceError::internal("the snapshot is of another source"))),
    }
}

/// Batches on their way from the task that decodes to the reader. Dropping it ends the task, and
/// with that the COPY.
struct ScanStream {
    /// Taken at the first poll.
    scan: Option<Scan>,
    running: Option<Running>,
}

struct Running {
    events: mpsc::Receiver<Event>,
    /// Owned for its drop.
    _task: AbortOnDropHandle<()>,
}

enum Event {
    Batch(RecordBatch),
    Failed(SourceError),
    /// The result is whole. Without this, it is not.
    Done,
}

impl Stream for ScanStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(scan) = self.scan.take() {
            let (sender, events) = mpsc::channel(BATCHES_AHEAD);
            let task = AbortOnDropHandle::new(tokio::spawn(scan.run(sender)));
            self.running = Some(Running { events, _task: task });
        }
        let Some(running) = &mut self.running else { return Poll::Ready(None) };
        let item = match ready!(running.events.poll_recv(cx)) {
            Some(Event::Batch(batch)) => return Poll::Ready(Some(Ok(batch))),
            Some(Event::Failed(error)) => Some(Err(error)),
            Some(Event::Done) => None,
            None => Some(Err(SourceError::internal("a scan stopped before its end"))),
        };
        self.running = None;
        Poll::Ready(item)
    }
}

/// One run of a partition.
struct Scan {
    shared: Arc<Shared>,
    plan: Arc<ScanPlan>,
    partition: usize,
    counters: Arc<ScanCounters>,
}

/// How far the server's messages have been read.
enum Step {
    /// A batch is full.
    Full,
    /// The server has sent everything.
    End,
    Server(tokio_postgres::Error),
    Fault(CopyFault),
    TimedOut,
}

impl Scan {
    async fn run(self, sender: mpsc::Sender<Event>) {
        let last = match self.produce(&sender).await {
            Ok(()) => Event::Done,
            Err(error) => Event::Failed(error),
        };
        // A reader that is gone does not want to know.
        let _ = sender.send(last).await;
    }

    async fn produce(&self, sender: &mpsc::Sender<Event>) -> Result<()> {
        let plan = &self.plan;
        let deadline = self.shared.statement.deadline;
        let registration = plan.registration(&self.shared);
        let name = |error| self.shared.pool.name(error);
        let open = self.shared.open(&registration, &plan.request, self.partition);
        let mut open = open.await.map_err(name)?;

        let mut decoder = self.decoder();
        let mut alarm = deadline.map(|at: Deadline| Box::pin(sleep_until(at.instant().into())));
        loop {
            let mut bytes = 0;
            let step =
                poll_fn(|cx| fill(cx, &mut open, &mut decoder, &mut alarm, &mut bytes)).await;
            self.counters.add_bytes(bytes);
            match step {
                // A server that is never slower than we are never lets us look at the alarm.
                Step::Full if deadline.is_some_and(|at| at.remaining().is_zero()) => {
                    return Err(self.place(timed_out()));
                }
                Step::Full => {
                    if let Some(batch) = decoder.take_batch().map_err(|e| self.fault(e))? {
                        self.send(sender, batch, deadline).await?;
                    }
                }
                Step::End if decoder.is_done() => {
                    open.finished();
                    if let Some(batch) = decoder.take_batch().map_err(|e| self.fault(e))? {
                        self.send(sender, batch, deadline).await?;
                    }
                    return Ok(());
                }
                Step::End => {
                    return Err(self.place(SourceError::data(
                        "PostgreSQL ended the COPY without its trailer: the result is not whole",
                    )));
                }
                Step::Server(error) => {
                    open.failed(&error);
                    return Err(self.place(from_postgres(&error, deadline)));
                }
                Step::Fault(fault) => return Err(self.fault(fault)),
                Step::TimedOut => return Err(self.place(timed_out())),
            }
        }
    }

    fn decoder(&self) -> CopyDecoder {
        let plan = &self.plan;
        let encodings: Vec<_> = plan.encodings.iter().collect();
        CopyDecoder::new(Arc::clone(&plan.schema), &encodings, plan.batch_size)
    }

    /// Waits for room; a reader that is gone ends the task from outside.
    async fn send(
        &self,
        sender: &mpsc::Sender<Event>,
        batch: RecordBatch,
        deadline: Option<Deadline>,
    ) -> Result<()> {
        let sent = async { Ok(sender.send(Event::Batch(batch)).await.is_ok()) };
        match within(deadline, sent).await {
            Ok(true) => {
                self.shared.progressed();
                Ok(())
            }
            Ok(false) => Err(SourceError::internal("the reader is gone")),
            Err(error) => Err(self.place(error)),
        }
    }

    fn place(&self, error: SourceError) -> SourceError {
        self.shared.pool.name(error).in_table(self.plan.request.table.name())
    }

    fn fault(&self, fault: CopyFault) -> SourceError {
        let error = match *fault.fault {
            Fault::Value(message) => SourceError::data(message),
            Fault::Malformed(what) => {
                SourceError::data(format!("PostgreSQL's answer is malformed: {what}"))
            }
        };
        let field = fault.column.and_then(|i| self.plan.schema.fields().get(i));
        let error = self.place(error);
        match field {
            Some(field) => error.in_column(field.name()),
            None => error,
        }
    }
}

/// The table was described by another connector.
pub(super) fn foreign_table() -> SourceError {
    SourceError::internal("the table was not described by this source")
}

/// Decodes what has arrived, in one go, until a batch is full or there is nothing more yet.
fn fill(
    cx: &mut Context<'_>,
    open: &mut OpenCopy,
    decoder: &mut CopyDecoder,
    alarm: &mut Option<Pin<Box<Sleep>>>,
    bytes: &mut u64,
) -> Poll<Step> {
    loop {
        let pushed = match &mut open.incoming {
            Incoming::Copy(past, messages) => match past {
                None => messages.as_mut().poll_next(cx).map_ok(|message| {
                    *bytes += message.len() as u64;
                    decoder.push(&message)
                }),
                Some(rows) => {
                    let pushed = rows.each(|message| {
                        *bytes += message.len() as u64;
                        decoder.push(message).map(|()| !decoder.is_full())
                    });
                    match pushed {
                        Err(fault) => return Poll::Ready(Step::Fault(fault)),
                        Ok(()) if decoder.is_full() => return Poll::Ready(Step::Full),
                        Ok(()) => rows.poll_more(cx).map(|more| {
                            if !more {
                                *past = None;
                            }
                            Some(Ok(Ok(())))
                        }),
                    }
                }
            },
            Incoming::Rows(rows) => match rows.as_mut().poll_next(cx) {
                Poll::Ready(None) => {
                    decoder.end_rows();
                    Poll::Ready(None)
                }
                row => row.map_ok(|row| rows::push(decoder, &row).map(|length| *bytes += length)),
            },
        };
        match pushed {
            Poll::Ready(Some(Ok(Ok(())))) => {
                if decoder.is_full() {
                    return Poll::Ready(Step::Full);
                }
            }
            Poll::Ready(Some(Ok(Err(fault)))) => return Poll::Ready(Step::Fault(fault)),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Step::Server(error)),
            Poll::Ready(None) => return Poll::Ready(Step::End),
            Poll::Pending => {
                return match alarm {
                    Some(alarm) => alarm.poll_unpin(cx).map(|()| Step::TimedOut),
                    None => Poll::Pending,
                };
            }
        }
    }
}

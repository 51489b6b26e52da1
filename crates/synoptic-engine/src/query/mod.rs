//! One statement, from its arrival to its last batch.

mod record;
mod start;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use synoptic_freshness::Receipt;
use synoptic_types::{Deadline, QueryId};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::scope::Scope;
use crate::session::{Planned, Replanning, Session, within};
use crate::write::{Target, Writing, count_schema};

pub(crate) use record::QueryRecord;
use start::Start;
pub(crate) use stream::with_deep_stack;
pub use stream::{QueryStream, THREAD_STACK};

/// A statement as a client sends it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// One SQL statement. `?` and `$n` are its placeholders.
    pub sql: String,
    /// Values for `$1`, `$2`, … in order.
    pub parameters: Vec<ScalarValue>,
    /// Options for this statement only, by name: they beat the session's.
    pub overrides: Vec<(String, String)>,
    /// When the client stops waiting; the shorter of this and `statement_timeout` holds.
    pub timeout: Option<Duration>,
    /// An id given elsewhere, for example in a ticket; made when absent.
    pub query_id: Option<QueryId>,
}

/// What a statement would answer.
#[derive(Debug, Clone)]
pub struct Description {
    /// The columns of the answer.
    pub schema: SchemaRef,
    /// `$1`, `$2`, … in numerical order with the types that the plan wants, when it knows.
    pub parameters: Vec<(String, Option<DataType>)>,
    /// Whether it writes; then it answers one row, `count`.
    pub is_update: bool,
}

/// How the answer comes about.
#[derive(Debug)]
pub(crate) enum Work {
    /// Rows that are there already.
    Rows(Vec<RecordBatch>),
    /// A plan to run.
    Plan { plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext> },
}

/// A statement that is planned and not yet running. Dropping it ends it.
#[derive(Debug)]
pub struct PlannedQuery {
    engine: Arc<Engine>,
    session: Session,
    record: Arc<QueryRecord>,
    scope: Arc<Scope>,
    /// Of the answer.
    schema: SchemaRef,
    /// Of what is read; of the answer, unless it writes.
    rows: SchemaRef,
    /// Where the rows go, when it writes.
    target: Option<Target>,
    deadline: Option<Deadline>,
    /// Taken by `run`; what is still here when dropped was never started.
    work: Option<(Work, Replanning)>,
    /// Made from what was last known of a table: to be opened, not run.
    trusted: bool,
    /// The order of its rows was asked for.
    ordered: bool,
    /// Its snapshots are being opened.
    opening: bool,
}

impl PlannedQuery {
    pub(crate) fn new(
        session: Session,
        record: Arc<QueryRecord>,
        planned: Planned,
        deadline: Option<Deadline>,
        again: Replanning,
    ) -> Self {
        let Planned { scope, schema: rows, work, target, trusted, ordered } = planned;
        let engine = Arc::clone(session.engine());
        let schema = if target.is_some() { count_schema() } else { Arc::clone(&rows) };
        let work = Some((work, again));
        Self {
            engine,
            session,
            record,
            scope,
            schema,
            rows,
            target,
            deadline,
            work,
            trusted,
            ordered,
            opening: false,
        }
    }

    /// The statement's id.
    pub fn id(&self) -> &QueryId {
        self.record.id()
    }

    /// The columns of the answer, equal to the schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Whether it writes: then it can be run once, and never planned again.
    pub fn is_write(&self) -> bool {
        self.target.is_some()
    }

    /// Whether the order of its rows was asked for.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// The scans as planned, with nothing counted yet.
    pub fn receipt(&self) -> Receipt {
        self.record.receipt(&self.engine)
    }

    /// Starts it and waits until its snapshots stand, when its plan has still to be confirmed by
    /// the sources; else as [`PlannedQuery::run`].
    pub(crate) async fn open(mut self) -> Result<QueryStream> {
        let (plan, context, again) = match self.work.take() {
            Some((Work::Plan { plan, context }, again)) if self.trusted => (plan, context, again),
            work => {
                self.work = work;
                return self.run();
            }
        };
        self.opening = true;
        let opened = self.opened(plan, context, again).await;
        self.opening = false;
        if let Err(error) = &opened {
            self.record.fail(error);
            self.scope.end();
            self.engine.queries_registry().end(&self.record);
        }
        opened
    }

    async fn opened(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        again: Replanning,
    ) -> Result<QueryStream> {
        let permit = self.engine.admit()?;
        self.session.reads(&self.record);
        let start = Start {
            engine: Arc::clone(&self.engine),
            session: self.session.clone(),
            scope: Arc::clone(&self.scope),
            schema: Arc::clone(&self.rows),
            again,
        };
        let opening = async {
            let ready = start.opened(plan, context, true).await?;
            Ok((execute_stream(ready.plan, ready.context)?, ready.schema))
        };
        let (batches, schema) = tokio::select! {
            biased;
            () = self.record.cancelled() => Err(Error::cancelled(self.record.id())),
            opened = within(self.deadline, None, opening) => opened,
        }?;
        self.record.start();
        Ok(QueryStream::new(
            Arc::clone(&self.engine),
            Arc::clone(&self.record),
            Arc::clone(&self.scope),
            schema,
            batches,
            self.deadline,
            (Some(permit), None),
        ))
    }

    /// Starts it. Work begins at the first poll of the stream.
    ///
    /// # Errors
    /// `[QUEUE_FULL]` when too many queries run, or when the plan cannot be started.
    pub fn run(mut self) -> Result<QueryStream> {
        let work = self.work.take();
        let started = self.start(work);
        if let Err(error) = &started {
            self.record.fail(error);
            self.engine.queries_registry().end(&self.record);
        }
        started
    }

    fn start(&self, work: Option<(Work, Replanning)>) -> Result<QueryStream> {
        let writing = match (&self.target, &work) {
            (Some(target), Some(_)) => {
                let (target, id) = (target.clone(), self.record.id());
                self.session.reads(&self.record);
                Some(Writing::claim(&self.session, &self.scope, target, id)?)
            }
            _ => None,
        };
        let gate = writing.as_ref().map(Writing::gate);
        let (batches, permit) = match work {
            Some((Work::Plan { plan, context }, again)) => {
                let permit = self.engine.admit()?;
                let reads = self.scope.has_scans() && !plan.is::<ExplainExec>();
                let batches = if reads {
                    self.session.reads(&self.record);
                    let start = Start {
                        engine: Arc::clone(&self.engine),
                        session: self.session.clone(),
                        scope: Arc::clone(&self.scope),
                        schema: Arc::clone(&self.rows),
                        again,
                    };
                    start.stream(plan, context)
                } else {
                    execute_stream(plan, context)?
                };
                (batches, Some(permit))
            }
            Some((Work::Rows(rows), _)) => {
                // An UPDATE or DELETE brings no rows and is work nevertheless.
                let permit = match writing {
                    Some(_) => Some(self.engine.admit()?),
                    None => None,
                };
                (stream::of_rows(self.schema(), rows), permit)
            }
            None => (stream::of_rows(self.schema(), vec![]), None),
        };
        let batches = match writing {
            Some(writing) => writing.stream(batches),
            None => batches,
        };
        self.record.start();
        Ok(QueryStream::new(
            Arc::clone(&self.engine),
            Arc::clone(&self.record),
            Arc::clone(&self.scope),
            self.schema(),
            batches,
            self.deadline,
            (permit, gate),
        ))
    }
}

impl Drop for PlannedQuery {
    fn drop(&mut self) {
        if self.work.take().is_some() || self.opening {
            self.scope.end();
            self.record.drop_unfinished();
            self.engine.queries_registry().end(&self.record);
        }
    }
}

/// Where a query stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryState {
    /// Planned, not running yet.
    Planned,
    /// Running.
    Running,
    /// All batches delivered.
    Done,
    /// Ended with an error.
    Failed,
    /// Dropped or cancelled.
    Cancelled,
}

impl QueryState {
    /// The word in `system.queries`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One line of `system.queries`.
#[derive(Debug, Clone)]
pub struct QueryInfo {
    /// The statement's id.
    pub id: QueryId,
    /// Its text.
    pub sql: String,
    /// Who asked.
    pub client: String,
    /// Where it stands.
    pub state: QueryState,
    /// When it arrived.
    pub started_at: DateTime<Utc>,
    /// How long it has run, or ran.
    pub elapsed: Duration,
    /// Rows delivered.
    pub rows: u64,
    /// The error, when it failed.
    pub error: Option<String>,
    /// Its scans.
    pub receipt: Receipt,
}

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It was planned or running and is being stopped.
    Cancelled,
    /// It had ended already.
    Ended,
    /// There is no such query.
    Unknown,
}

//! One statement, from its arrival to its last batch.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use futures::Stream;
use serde::Serialize;
use synoptic_types::QueryId;

use crate::error::{Error, Result};

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
    /// Whether it changes something instead of answering (never, in this version).
    pub is_update: bool,
}

/// A statement that is planned and not yet running. Dropping it ends it.
#[derive(Debug)]
pub struct PlannedQuery {}

impl PlannedQuery {
    /// The statement's id.
    pub fn id(&self) -> &QueryId {
        todo!()
    }

    /// The columns of the answer, equal to the schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        todo!()
    }

    /// The scans as planned, with nothing counted yet.
    pub fn receipt(&self) -> Receipt {
        todo!()
    }

    /// Starts it. Work begins at the first poll of the stream.
    ///
    /// # Errors
    /// `[QUEUE_FULL]` when too many queries run, or when the plan cannot be started.
    pub fn run(self) -> Result<QueryStream> {
        todo!()
    }
}

/// The answer, batch by batch. Dropping it cancels the work here and at the sources.
pub struct QueryStream {}

impl QueryStream {
    /// The statement's id.
    pub fn id(&self) -> &QueryId {
        todo!()
    }

    /// The columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        todo!()
    }

    /// What has been read so far; final once the stream has ended.
    pub fn receipt(&self) -> Receipt {
        todo!()
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        todo!()
    }
}

/// What an answer says of where it came from. Serializes to the JSON of the contract, section 6.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The statement.
    pub query_id: String,
    /// One object per scan.
    pub scans: Vec<ScanReceipt>,
}

/// One scan of one table.
#[derive(Debug, Clone, Serialize)]
pub struct ScanReceipt {
    /// Its number in the statement, from 0.
    pub scan: usize,
    /// The source.
    pub source: String,
    /// Schema and table at the source.
    pub table: String,
    /// The copy that was read.
    pub copy: String,
    /// Rows that left the source.
    pub rows: u64,
    /// Bytes that left the source.
    pub bytes: u64,
    /// The exact text sent to the source.
    pub remote_text: String,
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

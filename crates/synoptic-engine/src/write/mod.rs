//! INSERT: rows of a query, converted exactly, into one transaction at one source. UPDATE and DELETE:
//! one statement there, in the same way, when it means there what it means here (`change.rs`).
//!
//! ```text
//! plan    the query of the rows, as any other; the target; Source::prepare_write
//! run     Outcomes::claim: once for a statement, whoever asks again gets the answer of then
//!   └─ a task: rows → exact → PreparedWrite::run → CommitGate → token → commit wait
//! drop    before the commit the task ends and the source rolls back; after it, it goes on to the
//!         end, which the source bounds, so that the outcome is known
//! ```

mod change;
mod exact;
mod outcomes;
mod wait;

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use synoptic_freshness::Token;
use synoptic_source::{
    BatchStream, CommitGate, ErrorKind, PreparedWrite, SourceError, TableDef, WriteContext,
    WriteRequest,
};
use synoptic_types::{ErrorCode, QueryId, SourceName, TableName};
use tokio::task::JoinHandle;

use crate::catalog::SourceTable;
use crate::error::{Error, Result};
use crate::scope::Scope;
use crate::session::Session;

pub(crate) use outcomes::Outcomes;
use outcomes::{Report, count};

/// The answer of every write: `count`, the rows that were written.
pub(crate) fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::Int64, true)]))
}

/// Where the rows of an INSERT go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    source: SourceName,
    table: TableName,
    /// The columns, in the order of the rows' columns.
    columns: Vec<FieldRef>,
    prepared: Arc<dyn PreparedWrite>,
}

impl Target {
    /// Makes the write of `columns` (all when there are none) of a table ready.
    ///
    /// # Errors
    /// When there is no such column, or the source cannot be written to.
    pub(crate) fn new(table: &SourceTable, columns: &[String]) -> Result<Self> {
        let entry = table.entry();
        let definition = table.definition();
        let places = places(definition, columns, entry.source().name())?;
        let fields = definition.schema.fields();
        let chosen = places.iter().filter_map(|place| fields.get(*place).cloned()).collect();
        let request = WriteRequest { table: Arc::clone(definition), columns: places };
        let place = |e: SourceError| e.in_source(entry.source().name());
        let prepared = entry.source().prepare_write(request).map_err(place)?;
        Ok(Self {
            source: entry.source().name().clone(),
            table: definition.name().clone(),
            columns: chosen,
            prepared,
        })
    }

    /// Refuses rows whose columns cannot be those of the table.
    ///
    /// # Errors
    /// `[SYNTAX]` with both counts, `[DATA]` with the column and both types.
    pub(crate) fn check(&self, rows: &Schema) -> Result<()> {
        let (given, wanted) = (rows.fields().len(), self.columns.len());
        if given != wanted {
            return Err(Error::new(
                ErrorCode::Syntax,
                format!(
                    "INSERT INTO {}.{}: the rows have {given} columns, and {wanted} are written",
                    self.source, self.table
                ),
            ));
        }
        for (from, to) in rows.fields().iter().zip(&self.columns) {
            exact::check(from.data_type(), to.data_type()).map_err(|e| self.misfit(to, e))?;
        }
        Ok(())
    }

    fn misfit(&self, column: &Field, message: String) -> SourceError {
        SourceError::data(message)
            .in_source(&self.source)
            .in_table(&self.table)
            .in_column(column.name())
    }

    /// A batch with the columns' own types.
    fn exact(&self, batch: &RecordBatch) -> synoptic_source::Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for (array, field) in batch.columns().iter().zip(&self.columns) {
            if !field.is_nullable() && array.logical_null_count() > 0 {
                return Err(
                    self.misfit(field, "a value is NULL, and the column is NOT NULL".into())
                );
            }
            let exact = exact::convert(array, field.data_type());
            columns.push(exact.map_err(|message| self.misfit(field, message))?);
        }
        let fields = self.columns.iter().map(|f| f.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, columns)
            .map_err(|e| SourceError::internal(format!("rows to be written: {e}")))
    }
}

fn places(table: &TableDef, columns: &[String], source: &SourceName) -> Result<Vec<usize>> {
    if columns.is_empty() {
        return Ok((0..table.schema.fields().len()).collect());
    }
    let mut places = Vec::with_capacity(columns.len());
    for name in columns {
        let Some((place, _)) = table.schema.column_with_name(name) else {
            let known: Vec<_> = table.schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Error::new(
                ErrorCode::UnknownColumn,
                format!(
                    "source '{source}', table {} has no column '{name}'; its columns are {}",
                    table.name(),
                    known.join(", ")
                ),
            ));
        };
        if places.contains(&place) {
            return Err(Error::new(
                ErrorCode::Syntax,
                format!("the column '{name}' is written twice"),
            ));
        }
        places.push(place);
    }
    Ok(places)
}

/// A parameter or a literal as a value of a column.
///
/// # Errors
/// Why it would be changed.
pub(crate) fn exact_value(value: &ScalarValue, to: &DataType) -> Result<ScalarValue, String> {
    let array: ArrayRef = value.to_array().map_err(|e| e.strip_backtrace())?;
    let exact = exact::convert(&array, to)?;
    ScalarValue::try_from_array(&exact, 0).map_err(|e| e.strip_backtrace())
}

/// A constant of VALUES as a value of a column. Whether its cast to the column's type was written
/// or implied cannot be told; so that what a cast does must lose nothing.
///
/// # Errors
/// Why it would be changed.
pub(crate) fn exact_constant(value: &ScalarValue, to: &DataType) -> Result<ScalarValue, String> {
    exact_value(value, to).or_else(|why| {
        let between = match (value.data_type(), to) {
            // Its text is the value.
            (from, DataType::Utf8) if from.is_numeric() => DataType::Utf8,
            (DataType::Utf8, DataType::Float32 | DataType::Float64) => to.clone(),
            (DataType::Utf8, to) if to.is_integer() => DataType::Int64,
            (DataType::Utf8, DataType::Decimal128(..) | DataType::Decimal256(..))
                if value.to_string().len() <= TEXT_DIGITS =>
            {
                DataType::Decimal256(DECIMAL256_MAX_PRECISION, TEXT_DIGITS as i8)
            }
            _ => return Err(why),
        };
        let between = value.cast_to(&between).map_err(|e| e.strip_backtrace())?;
        exact_value(&between, to)
    })
}

/// Digits of a number as text that are read exactly.
const TEXT_DIGITS: usize = 38;

/// One write that was claimed and has not begun.
pub(crate) struct Writing {
    pub(crate) session: Session,
    pub(crate) scope: Arc<Scope>,
    target: Target,
    gate: Arc<CommitGate>,
    report: Report,
}

impl Writing {
    /// Claims the write of statement `id`.
    ///
    /// # Errors
    /// When it was run before.
    pub(crate) fn claim(
        session: &Session,
        scope: &Arc<Scope>,
        target: Target,
        id: &QueryId,
    ) -> Result<Self> {
        let gate = Arc::new(CommitGate::default());
        let report = session.engine().writes().claim(id, &gate)?;
        let (session, scope) = (session.clone(), Arc::clone(scope));
        Ok(Self { session, scope, target, gate, report })
    }

    /// Where its point of no return is.
    pub(crate) fn gate(&self) -> Arc<CommitGate> {
        Arc::clone(&self.gate)
    }

    /// The answer of the write of `rows`. Nothing happens before the first poll.
    pub(crate) fn stream(self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let answer = async move {
            let gate = Arc::clone(&self.gate);
            // Ended by the drop of `Running`, or, once the commit is on its way, by the source,
            // which bounds it.
            let task = tokio::spawn(self.run(rows));
            let mut running = Running { task, gate };
            match (&mut running.task).await {
                Ok(outcome) => Ok(count(outcome?)?),
                Err(error) if error.is_panic() => Err(Error::panicked(&*error.into_panic()).into()),
                Err(_) => Err(Error::new(ErrorCode::Cancelled, "the write was cancelled").into()),
            }
        };
        Box::pin(RecordBatchStreamAdapter::new(count_schema(), stream::once(answer)))
    }

    async fn run(self, rows: SendableRecordBatchStream) -> Result<u64> {
        let Self { session, scope, target, gate, report } = self;
        let outcome = Self::write(&session, &scope, &target, gate, rows).await;
        let waited = match &outcome {
            Ok(_) => wait::wait(session.engine()).await,
            Err(_) => Ok(None),
        };
        // Whoever asks again, may know: it is committed.
        report.end(outcome.clone());
        scope.stamped(waited?);
        outcome
    }

    async fn write(
        session: &Session,
        scope: &Arc<Scope>,
        target: &Target,
        gate: Arc<CommitGate>,
        rows: SendableRecordBatchStream,
    ) -> Result<u64> {
        wait::check(session.engine())?;
        let context = WriteContext { statement: Arc::clone(&scope.statement), gate };
        let (exact, reading) = (target.clone(), Arc::clone(scope));
        let rows: BatchStream = rows
            .map_err(as_source)
            .and_then(move |batch| std::future::ready(exact.exact(&batch)))
            // The readers' snapshots end with the rows, before the commit.
            .chain(stream::once(async move { reading.end() }).filter_map(async |()| None))
            .boxed();
        let written = target.prepared.run(rows, context).await;
        let written = written.map_err(|e| e.in_source(&target.source).in_table(&target.table))?;
        if let Some(position) = &written.position {
            let mut token = Token::default();
            match token.include(&target.source, position) {
                Ok(()) => {
                    session.has_seen(&token);
                    scope.wrote(token);
                }
                Err(error) => tracing::warn!(%error, "no token of a write"),
            }
        }
        Ok(written.rows)
    }
}

/// An error of the rows, in the words of sources, through which it travels back to us.
fn as_source(error: datafusion::common::DataFusionError) -> SourceError {
    let error = Error::from(error);
    let kind = match error.code() {
        ErrorCode::Data => ErrorKind::Data,
        ErrorCode::Timeout => ErrorKind::Timeout,
        ErrorCode::Cancelled => ErrorKind::Cancelled,
        ErrorCode::SourceUnavailable => ErrorKind::Unavailable,
        ErrorCode::PermissionDenied => ErrorKind::PermissionDenied,
        ErrorCode::RateLimited | ErrorCode::BudgetExceeded => ErrorKind::RateLimited,
        ErrorCode::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Internal,
    };
    SourceError::new(kind, format!("the rows to be written: {}", error.message())).caused_by(error)
}

/// The task of a write.
struct Running {
    task: JoinHandle<Result<u64>>,
    gate: Arc<CommitGate>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.gate.cancel() {
            self.task.abort();
        }
    }
}

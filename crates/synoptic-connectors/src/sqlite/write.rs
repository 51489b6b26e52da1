//! INSERT: one connection of its own, one transaction, one prepared statement, on a thread that
//! may block.
//!
//! SQLite converts what is stored by the affinity of its column, in silence. So a value is written
//! only in a form of which reading it back gives the same value; anything else is an error.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use futures::StreamExt as _;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use synoptic_source::{
    BatchStream, CommitGate, ErrorKind, PreparedWrite, Result, SourceError, WriteContext,
    WriteOutcome, WriteRequest,
};
use synoptic_types::TableName;
use tokio::sync::mpsc;

use super::connection::Open;
use super::discover::{self, ColumnDetail, Detail, Relation, SCHEMA};
use super::parse;
use super::snapshot::Shared;
use super::types::Kind;
use crate::sql::{Dialect as _, SQLITE};

/// Batches that wait for the thread: the reader is held back by a disk that is slow.
const BATCHES_WAITING: usize = 1;

/// An INSERT that is ready to run.
#[derive(Debug)]
pub(super) struct SqliteWrite {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    table: TableName,
    stamp: String,
    sql: String,
    columns: Vec<ColumnDetail>,
}

impl SqliteWrite {
    pub fn new(shared: &Arc<Shared>, request: &WriteRequest, detail: &Detail) -> Result<Self> {
        let table = request.table.name().clone();
        writable(shared, &table, detail, "INSERT")?;
        let mut columns = Vec::with_capacity(request.columns.len());
        for place in &request.columns {
            let column = detail.columns.get(*place).ok_or_else(|| {
                SourceError::internal("a column that is written is not in the table")
            })?;
            columns.push(column.clone());
        }
        let names: Vec<_> = columns.iter().map(|c| SQLITE.quote_identifier(&c.name)).collect();
        let places: Vec<_> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
        let sql = format!(
            "INSERT INTO {}.{} ({}) VALUES ({})",
            SQLITE.quote_identifier(SCHEMA),
            SQLITE.quote_identifier(&table.name),
            names.join(", "),
            places.join(", ")
        );
        let stamp = request.table.stamp.clone();
        let plan = Arc::new(Plan { table, stamp, sql, columns });
        Ok(Self { shared: Arc::clone(shared), plan })
    }
}

/// Refuses to write where the configuration or SQLite does not let it.
pub(super) fn writable(
    shared: &Shared,
    table: &TableName,
    detail: &Detail,
    verb: &str,
) -> Result<()> {
    if !shared.options.writable {
        return Err(SourceError::new(
            ErrorKind::PermissionDenied,
            format!(
                "{verb}: the source is read only; set sources.{}.writable = true in the \
                 configuration to write to it",
                shared.name
            ),
        )
        .in_source(&shared.name));
    }
    if detail.relation != Relation::Table {
        return Err(SourceError::new(
            ErrorKind::Unsupported,
            format!("{verb}: it is a view or a virtual table"),
        )
        .in_source(&shared.name)
        .in_table(table));
    }
    Ok(())
}

#[async_trait]
impl PreparedWrite for SqliteWrite {
    fn remote_text(&self) -> &str {
        &self.plan.sql
    }

    async fn run(&self, mut rows: BatchStream, context: WriteContext) -> Result<WriteOutcome> {
        let (send, receive) = mpsc::channel(BATCHES_WAITING);
        let (shared, plan) = (Arc::clone(&self.shared), Arc::clone(&self.plan));
        let gate = Arc::clone(&context.gate);
        // Ends with the channel: when this future is dropped before the last word, nothing is
        // committed.
        let thread = tokio::task::spawn_blocking(move || write(&shared, &plan, receive, &gate));
        let mut failed = None;
        while let Some(batch) = rows.next().await {
            match batch {
                Ok(batch) => {
                    if send.send(Word::Rows(batch)).await.is_err() {
                        break;
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // A reader of the same file would keep the writer from its lock.
        drop(rows);
        if failed.is_none() {
            // When the thread has failed, it says so below.
            let _ = send.send(Word::Commit).await;
        }
        drop(send);
        let outcome = thread.await.map_err(|e| {
            SourceError::internal(format!("the thread that writes ended: {e}"))
                .in_source(&self.shared.name)
        })?;
        match (failed, outcome) {
            (Some(error), _) => Err(error),
            (None, outcome) => {
                outcome.map_err(|e| e.in_source(&self.shared.name).in_table(&self.plan.table))
            }
        }
    }
}

/// What the thread is told.
enum Word {
    Rows(RecordBatch),
    /// All rows have come.
    Commit,
}

fn write(
    shared: &Shared,
    plan: &Plan,
    mut words: mpsc::Receiver<Word>,
    gate: &CommitGate,
) -> Result<WriteOutcome> {
    let open = shared.connections.open_to_write()?;
    let sql = |error: rusqlite::Error| shared.connections.error(error);
    let connection = &open.connection;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
    // Whatever ends this before the commit, closing the connection rolls back.
    let stamp = discover::stamp(connection, &plan.table.name).map_err(sql)?;
    if stamp.as_ref() != Some(&plan.stamp) {
        return Err(SourceError::new(
            ErrorKind::Changed,
            "the table was altered since the statement was planned; run it again",
        ));
    }
    let mut rows = 0;
    loop {
        match words.blocking_recv() {
            Some(Word::Rows(batch)) => {
                insert(connection, plan, &batch, &sql)?;
                rows += batch.num_rows() as u64;
            }
            Some(Word::Commit) => break,
            None => {
                return Err(SourceError::new(
                    ErrorKind::Cancelled,
                    "the statement was cancelled before its commit; nothing was written",
                ));
            }
        }
    }
    gate.enter()?;
    commit(&open, &sql)?;
    // Said while nobody else writes, or else by the next reader.
    let position = Some(position(&open));
    Ok(WriteOutcome { rows, position })
}

/// Commits. An error of COMMIT leaves the transaction open, and then it is rolled back; when it is
/// neither open nor known to be committed, the outcome is unknown.
pub(super) fn commit(open: &Open, sql: &impl Fn(rusqlite::Error) -> SourceError) -> Result<()> {
    let Err(error) = open.connection.execute_batch("COMMIT") else { return Ok(()) };
    let error = sql(error);
    if !open.connection.is_autocommit() && open.connection.execute_batch("ROLLBACK").is_ok() {
        return Err(SourceError::new(
            error.kind(),
            format!("the commit failed and nothing was written: {error}"),
        ));
    }
    Err(SourceError::new(
        ErrorKind::OutcomeUnknown,
        format!(
            "the outcome of the commit is unknown ({error}): look for the rows in the table before \
             you write them again"
        ),
    ))
}

/// The state of the file that the commit made, or a later one.
pub(super) fn position(open: &Open) -> synoptic_types::Position {
    let connection = &open.connection;
    let begun = connection.execute_batch("BEGIN; SELECT count(*) FROM main.sqlite_schema").is_ok();
    if !begun {
        return synoptic_types::Position::Unknown;
    }
    let position = open.look().position();
    // A read transaction: nothing is lost with it.
    let _ = connection.execute_batch("COMMIT");
    position
}

fn insert(
    connection: &Connection,
    plan: &Plan,
    batch: &RecordBatch,
    sql: &impl Fn(rusqlite::Error) -> SourceError,
) -> Result<()> {
    let mut statement = connection.prepare_cached(&plan.sql).map_err(sql)?;
    for row in 0..batch.num_rows() {
        let mut values = Vec::with_capacity(plan.columns.len());
        for (column, array) in plan.columns.iter().zip(batch.columns()) {
            let value = value_of(column, array.as_ref(), row)
                .map_err(|message| SourceError::data(message).in_column(&column.name))?;
            values.push(value);
        }
        statement.execute(params_from_iter(values)).map_err(sql)?;
    }
    Ok(())
}

/// The value in the form in which it is stored, or why there is none.
pub(super) fn value_of(
    column: &ColumnDetail,
    array: &dyn Array,
    row: usize,
) -> Result<Value, String> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let wrong = || format!("a value of type {} reached it", array.data_type());
    Ok(match column.kind {
        Kind::Int => {
            let array = array.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            Value::Integer(array.value(row))
        }
        Kind::Bool => {
            let array = array.as_boolean_opt().ok_or_else(wrong)?;
            Value::Integer(i64::from(array.value(row)))
        }
        Kind::Float => {
            let value = array.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?.value(row);
            if value.is_nan() {
                return Err("NaN: SQLite would store it as NULL".to_owned());
            }
            Value::Real(value)
        }
        Kind::Decimal { precision, scale } => {
            let array = array.as_primitive_opt::<Decimal128Type>().ok_or_else(wrong)?;
            decimal(array.value(row), array.value_as_string(row), precision, scale)?
        }
        Kind::Text | Kind::Any => {
            let text = array.as_string_opt::<i32>().ok_or_else(wrong)?.value(row);
            let bare = column.declared.is_empty() || column.kind == Kind::Text;
            if !bare && looks_like_a_number(text) {
                return Err(format!(
                    "the text '{text}' would be stored as a number, by the rules for its declared \
                     type {}",
                    column.declared
                ));
            }
            Value::Text(text.to_owned())
        }
        Kind::Blob => {
            Value::Blob(array.as_binary_opt::<i32>().ok_or_else(wrong)?.value(row).to_owned())
        }
        Kind::Date => {
            let days = array.as_primitive_opt::<Date32Type>().ok_or_else(wrong)?.value(row);
            let text = DateTime::UNIX_EPOCH
                .checked_add_signed(TimeDelta::days(days.into()))
                .map(|at| at.format("%Y-%m-%d").to_string())
                .filter(|text| parse::date(text) == Some(days));
            Value::Text(text.ok_or_else(|| beyond("date"))?)
        }
        Kind::Timestamp | Kind::Moment => {
            let micros =
                array.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?.value(row);
            let (format, back): (_, fn(&str) -> Option<i64>) = match column.kind {
                Kind::Moment => ("%Y-%m-%d %H:%M:%S%.6f+00:00", parse::moment),
                _ => ("%Y-%m-%d %H:%M:%S%.6f", parse::timestamp),
            };
            let text = DateTime::from_timestamp_micros(micros)
                .map(|at| at.format(format).to_string())
                .filter(|text| back(text) == Some(micros));
            Value::Text(text.ok_or_else(|| beyond("timestamp"))?)
        }
    })
}

fn beyond(what: &str) -> String {
    format!("a {what} outside of the years 1 to 9999 has no text form in SQLite")
}

/// An integer where it is one, else the float that reads back as the decimal.
fn decimal(unscaled: i128, text: String, precision: u8, scale: i8) -> Result<Value, String> {
    if scale == 0
        && let Ok(value) = i64::try_from(unscaled)
    {
        return Ok(Value::Integer(value));
    }
    let float = text.parse::<f64>().ok();
    float
        .filter(|float| parse::decimal_of_float(*float, precision, scale) == Some(unscaled))
        .map(Value::Real)
        .ok_or_else(|| {
            format!("{text} has more digits than SQLite can hold in a column of this type")
        })
}

/// Whether NUMERIC affinity may turn the text into a number; rather too often than too seldom.
fn looks_like_a_number(text: &str) -> bool {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}')
        .starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text
            .trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}')
            .parse::<f64>()
            .is_ok()
}

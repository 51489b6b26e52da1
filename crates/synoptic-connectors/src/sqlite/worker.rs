//! What a statement's thread does: one connection, one read transaction, and as many scans in it
//! as the statement has, each moved on only when its reader asks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, params};
use synoptic_source::{ErrorKind, Result, SourceError};
use synoptic_types::{Deadline, Position, SourceName, TableName};
use tokio::sync::oneshot;

use super::check::{self, Check, Verified};
use super::connection::{Connections, Open};
use super::decode::{Decoder, Misfit, Wanted};
use super::discover::{self, SCHEMA};
use crate::sql::{Dialect as _, SQLITE};

/// SQLite asks whether to go on after so many of its instructions: well under a millisecond.
const STEPS_BETWEEN_CHECKS: i32 = 4000;

/// How often a snapshot is taken again because its state could not be told; then it goes without.
const PIN_ATTEMPTS: usize = 4;

/// What a scan reads and how.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub source: SourceName,
    pub table: TableName,
    /// What [`discover::stamp`] said when the table was described.
    pub stamp: String,
    pub sql: String,
    /// All that is sent: the checks, then `sql`.
    pub shown: String,
    /// The columns of `sql`: the schema's first, then those that are only checked.
    pub columns: Arc<[Wanted]>,
    pub schema: SchemaRef,
    pub batch_size: usize,
    /// A name for the rowid, to say where a value is that does not fit.
    pub rowid: Option<&'static str>,
    /// Other tables that `sql` reads, with their stamps.
    pub further: Vec<(TableName, String)>,
    /// What is looked at before `sql` runs.
    pub checks: Vec<Check>,
}

/// One running scan, shared by its stream and the thread.
#[derive(Debug)]
pub(super) struct Scan {
    pub id: u64,
    pub plan: Arc<Plan>,
    /// Set when the stream is dropped.
    pub cancelled: AtomicBool,
}

/// A batch and how many bytes its values took in the database; `None` at the end.
pub(super) type Answer = Result<Option<(RecordBatch, u64)>>;

/// What streams ask of the thread.
pub(super) enum Command {
    /// The next batch. The first one starts the scan.
    Next { scan: Arc<Scan>, reply: oneshot::Sender<Answer> },
    /// The stream is gone.
    Close { id: u64 },
}

/// What SQLite asks about while it works, on its own thread.
#[derive(Debug)]
pub(super) struct Progress {
    /// Set when the statement's last holder is gone.
    pub stop: Arc<AtomicBool>,
    pub deadline: Option<Deadline>,
    /// The scan whose batch is being made.
    current: Mutex<Option<Arc<Scan>>>,
}

impl Progress {
    pub fn new(stop: Arc<AtomicBool>, deadline: Option<Deadline>) -> Arc<Self> {
        Arc::new(Self { stop, deadline, current: Mutex::new(None) })
    }

    fn timed_out(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline.remaining().is_zero())
    }

    fn interrupts(&self) -> bool {
        let cancelled = |scan: &Arc<Scan>| scan.cancelled.load(Ordering::Relaxed);
        self.stop.load(Ordering::Relaxed)
            || self.timed_out()
            || self.current.lock().as_ref().is_some_and(cancelled)
    }
}

/// Begins the read transaction and tells `ready` which state it reads, then serves `commands` until every sender is
/// gone. Runs on a thread of its own.
pub(super) fn run(
    connections: &Connections,
    progress: &Arc<Progress>,
    ready: oneshot::Sender<Result<Position>>,
    commands: &Receiver<Command>,
) {
    let (mut open, position) = match begin(connections, progress) {
        Ok(begun) => begun,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    if ready.send(Ok(position)).is_ok() {
        serve(&open.connection, &mut open.verified, connections, progress, commands);
    }
    let ended = open.connection.progress_handler(0, None::<fn() -> bool>);
    if ended.is_ok() && open.connection.execute_batch("COMMIT").is_ok() {
        connections.release(open);
    }
}

fn begin(connections: &Connections, progress: &Arc<Progress>) -> Result<(Open, Position)> {
    let mut open = connections.acquire()?;
    let watched = Arc::clone(progress);
    let handler =
        open.connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || watched.interrupts()));
    let convert = |error| interruption(connections.error(error), progress);
    handler.map_err(convert)?;
    let mut attempts = 1;
    loop {
        let before = open.look();
        pin(&mut open.connection).map_err(convert)?;
        match open.look().since(&before) {
            Some(position) => return Ok((open, position)),
            None if attempts == PIN_ATTEMPTS => return Ok((open, Position::Unknown)),
            // Somebody wrote just then.
            None => open.connection.execute_batch("COMMIT").map_err(convert)?,
        }
        attempts += 1;
    }
}

fn pin(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN")?;
    // BEGIN alone pins nothing: the first read does.
    let first = "SELECT 1 FROM main.sqlite_schema LIMIT 1";
    connection.query_row(first, [], |_| Ok(())).optional()?;
    Ok(())
}

fn serve(
    connection: &Connection,
    verified: &mut Verified,
    connections: &Connections,
    progress: &Progress,
    commands: &Receiver<Command>,
) {
    let mut cursors: HashMap<u64, Cursor<'_>> = HashMap::new();
    while let Ok(command) = commands.recv() {
        let (scan, reply) = match command {
            Command::Next { scan, reply } => (scan, reply),
            Command::Close { id } => {
                cursors.remove(&id);
                continue;
            }
        };
        *progress.current.lock() = Some(Arc::clone(&scan));
        let answer =
            next(connection, verified, connections, &mut cursors, &scan).map_err(|error| {
                interruption(error, progress)
                    .in_source(&scan.plan.source)
                    .in_table(&scan.plan.table)
            });
        *progress.current.lock() = None;
        if !matches!(answer, Ok(Some(_))) {
            cursors.remove(&scan.id);
        }
        // A stream that is gone has sent Close, too.
        let _ = reply.send(answer);
    }
}

/// Whose interruption it was.
fn interruption(error: SourceError, progress: &Progress) -> SourceError {
    if error.kind() == ErrorKind::Cancelled && progress.timed_out() {
        return SourceError::new(ErrorKind::Timeout, "the statement's time ran out while it read");
    }
    error
}

fn next<'c>(
    connection: &'c Connection,
    verified: &mut Verified,
    connections: &Connections,
    cursors: &mut HashMap<u64, Cursor<'c>>,
    scan: &Arc<Scan>,
) -> Answer {
    let cursor = match cursors.entry(scan.id) {
        Entry::Occupied(opened) => opened.into_mut(),
        Entry::Vacant(place) => {
            place.insert(Cursor::open(connection, verified, connections, &scan.plan)?)
        }
    };
    cursor.next(connection, connections, scan)
}

/// A scan's place in its rows.
struct Cursor<'c> {
    statement: rusqlite::Statement<'c>,
    decoder: Decoder,
    ended: bool,
}

impl<'c> Cursor<'c> {
    fn open(
        connection: &'c Connection,
        verified: &mut Verified,
        connections: &Connections,
        plan: &Plan,
    ) -> Result<Self> {
        let convert = |error| connections.error(error);
        let further = plan.further.iter().map(|(table, stamp)| (table, stamp));
        for (table, planned) in std::iter::once((&plan.table, &plan.stamp)).chain(further) {
            let stamp = discover::stamp(connection, &table.name).map_err(convert)?;
            if stamp.as_deref() != Some(planned) {
                let what = if stamp.is_some() { "altered" } else { "dropped" };
                let message = format!(
                    "it was {what} since the statement was planned; run the statement again"
                );
                return Err(SourceError::new(ErrorKind::Changed, message).in_table(table));
            }
        }
        check::run(connection, connections, verified, &plan.checks)?;
        let statement = connection.prepare(&plan.sql).map_err(convert)?;
        let columns = Arc::clone(&plan.columns);
        let decoder = Decoder::new(Arc::clone(&plan.schema), columns, plan.batch_size);
        Ok(Self { statement, decoder, ended: false })
    }

    fn next(&mut self, connection: &Connection, connections: &Connections, scan: &Scan) -> Answer {
        while !self.ended && !self.decoder.is_full() {
            if self.fill(connection, connections, scan)?.is_break() {
                self.ended = true;
            }
        }
        if self.decoder.is_empty() { Ok(None) } else { self.decoder.finish().map(Some) }
    }

    /// Reads rows until the batch is full, or breaks at the last one.
    fn fill(
        &mut self,
        connection: &Connection,
        connections: &Connections,
        scan: &Scan,
    ) -> Result<ControlFlow<()>> {
        let plan = &*scan.plan;
        let mut rows = self.statement.raw_query();
        let flow = loop {
            // SQLite asks only now and then, and not at all while every row is a match.
            if scan.cancelled.load(Ordering::Relaxed) {
                return Err(SourceError::new(ErrorKind::Cancelled, "the scan was cancelled"));
            }
            let Some(row) = rows.next().map_err(|error| connections.error(error))? else {
                break ControlFlow::Break(());
            };
            let taken = self.decoder.append(|column| row.get_ref(column));
            if let Err(misfit) = taken.map_err(|error| connections.error(error))? {
                let value = row.get_ref(misfit.column).map(owned);
                drop(rows);
                let value = value.map_err(|error| connections.error(error))?;
                let (table, columns) = (&*plan.table.name, &*plan.columns);
                let place = Place { table, columns, rowid: plan.rowid };
                return Err(describe(misfit, value, connection, &place));
            }
            if self.decoder.is_full() {
                break ControlFlow::Continue(());
            }
        };
        // Dropped, it would start the statement over; the next `raw_query` goes on from here.
        mem::forget(rows);
        Ok(flow)
    }
}

pub(super) fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(v) => Value::Integer(v),
        ValueRef::Real(v) => Value::Real(v),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// Where values come from.
pub(super) struct Place<'a> {
    pub table: &'a str,
    pub columns: &'a [Wanted],
    /// A name for the table's rowid.
    pub rowid: Option<&'static str>,
}

/// The error of a value that does not fit, with a row where it stands when one can be found.
pub(super) fn describe(
    misfit: Misfit,
    value: Value,
    connection: &Connection,
    scan: &Place<'_>,
) -> SourceError {
    let name = scan.columns.get(misfit.column).map(|column| column.name.clone());
    let name = name.unwrap_or_default();
    let place = scan.rowid.and_then(|rowid| {
        let column = SQLITE.quote_identifier(&name);
        let table = format!("\"{SCHEMA}\".{}", SQLITE.quote_identifier(scan.table));
        // `+` takes the column's affinity away: the value is looked for as it is.
        let sql = format!(
            "SELECT {rowid} FROM {table} \
             WHERE typeof({column}) = typeof(?1) AND (+{column}) COLLATE BINARY IS ?1 LIMIT 1"
        );
        let found: rusqlite::Result<i64> =
            connection.query_row(&sql, params![value], |row| row.get(0));
        found.ok().map(|row| format!(" (row with {rowid} {row})"))
    });
    misfit.into_error(&name, &place.unwrap_or_default())
}

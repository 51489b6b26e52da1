//! One transaction, the rows of an INSERT as binary COPY or an UPDATE or DELETE, and a commit whose
//! outcome is found out.
//!
//! ```text
//! BEGIN ─ lock, stamp ─ COPY … FROM STDIN | UPDATE | DELETE ─ txid_current() ─ gate ─ COMMIT ─ position
//!                                                                     └ lost: txid_status()
//! ```
//!
//! When the connection is lost while COMMIT is on its way, another connection asks the server what
//! became of the transaction. It is believed only when it is the same server on the same timeline:
//! a promoted standby counts transactions too, and its numbers mean other ones.
//!
//! * <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT>

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use synoptic_source::{
    BatchStream, ChangeRequest, ErrorKind, PreparedWrite, Result, SourceError, WriteContext,
    WriteOutcome, WriteRequest,
};
use synoptic_types::{Deadline, Position, TableName};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::types::ToSql;

use super::change::{self, Constant};
use super::discover::{PgTable, identifier, stamps_sql};
use super::encode::{self, HEADER, TRAILER};
use super::error::from_postgres;
use super::pool::{Lease, Pool, within};
use super::position::Memory;
use super::request::comment;
use super::types::{Cast, Encoding};

/// Bytes that are collected before they are sent.
const CHUNK: usize = 64 << 10;

/// How long a commit may take before its outcome is asked for elsewhere.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);

/// How long the outcome of a commit is looked for.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(20);
const RESOLVE_PAUSE: Duration = Duration::from_millis(200);

/// Who the server is and which transaction this is, as one row of texts.
const WHO: &str = "SELECT pg_catalog.txid_current()::text AS txid, \
    pg_catalog.pg_postmaster_start_time()::text, pg_catalog.pg_is_in_recovery()::text";

/// A write that is ready to run.
#[derive(Debug)]
pub(super) struct PostgresWrite {
    pool: Arc<Pool>,
    memory: Arc<Memory>,
    table: TableName,
    stamp: String,
    work: Work,
    sql: String,
}

/// What is done between the beginning and the commit.
#[derive(Debug)]
enum Work {
    /// COPY of rows with these columns.
    Rows { columns: Vec<String>, encodings: Vec<Encoding> },
    /// One statement with these parameters.
    Change(Vec<Constant>),
}

impl PostgresWrite {
    pub fn new(
        pool: &Arc<Pool>,
        memory: &Arc<Memory>,
        source: &str,
        request: &WriteRequest,
    ) -> Result<Self> {
        writable(pool, "INSERT", source)?;
        let detail = request
            .table
            .detail::<PgTable>()
            .ok_or_else(|| SourceError::internal("a table of another source"))?;
        let (mut columns, mut encodings) = (Vec::new(), Vec::new());
        for place in &request.columns {
            let column = detail.columns.get(*place).ok_or_else(|| {
                SourceError::internal("a column that is written is not in the table")
            })?;
            if column.resolved.cast != Cast::None || !encode::is_writable(column.encoding()) {
                return Err(SourceError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "INSERT: values of type {} cannot be written; leave the column out",
                        column.resolved.native
                    ),
                )
                .in_column(&column.name));
            }
            columns.push(column.name.clone());
            encodings.push(column.encoding().clone());
        }
        let table = request.table.name().clone();
        let names: Vec<_> = columns.iter().map(|name| identifier(name)).collect();
        let sql = format!(
            "COPY {}.{} ({}) FROM STDIN (FORMAT BINARY)",
            identifier(&table.schema),
            identifier(&table.name),
            names.join(", ")
        );
        Ok(Self {
            pool: Arc::clone(pool),
            memory: Arc::clone(memory),
            stamp: request.table.stamp.clone(),
            table,
            work: Work::Rows { columns, encodings },
            sql,
        })
    }

    /// An UPDATE or DELETE.
    pub fn change(
        pool: &Arc<Pool>,
        memory: &Arc<Memory>,
        source: &str,
        request: &ChangeRequest,
    ) -> Result<Self> {
        writable(pool, request.change.verb(), source)?;
        let (sql, parameters) = change::render(request)?;
        Ok(Self {
            pool: Arc::clone(pool),
            memory: Arc::clone(memory),
            stamp: request.table.stamp.clone(),
            table: request.table.name().clone(),
            work: Work::Change(parameters),
            sql,
        })
    }

    async fn write(&self, rows: BatchStream, context: &WriteContext) -> Result<WriteOutcome> {
        let deadline = context.statement.deadline;
        let lease = self.begun(deadline, context).await?;
        let rows = match &self.work {
            Work::Rows { columns, encodings } => {
                let form = (columns.as_slice(), encodings.as_slice());
                within(deadline, self.copied(&lease, form, rows, deadline)).await?
            }
            Work::Change(parameters) => {
                drop(rows);
                within(deadline, self.changed(&lease, parameters, deadline)).await?
            }
        };
        let transaction = self.who(&lease, deadline).await?;
        // The epoch before: a position of another one proves nothing of this transaction.
        let before = self.epoch(&lease).await;
        context.gate.enter()?;
        lease.set_busy(true);
        let committed = timeout(COMMIT_PATIENCE, lease.client().batch_execute("COMMIT")).await;
        match committed {
            Ok(Ok(())) => {
                lease.set_busy(false);
                lease.set_transaction(false);
                let position = timeout(RESOLVE_PATIENCE, self.position(&lease)).await;
                Ok(WriteOutcome { rows, position: position.ok().flatten() })
            }
            // The server itself refuses: it has rolled back.
            Ok(Err(error)) if error.as_db_error().is_some() && !super::error::is_lost(&error) => {
                lease.set_busy(false);
                let error = from_postgres(&error, None);
                Err(SourceError::new(
                    error.kind(),
                    format!("the commit failed and nothing was written: {error}"),
                ))
            }
            lost => {
                let why = match lost {
                    Ok(Err(error)) => from_postgres(&error, None).to_string(),
                    _ => format!("no answer within {}s", COMMIT_PATIENCE.as_secs()),
                };
                drop(lease);
                self.resolved(&transaction, before, rows, &why).await
            }
        }
    }

    /// A connection in a transaction that writes, with the table as it was planned.
    async fn begun(&self, deadline: Option<Deadline>, context: &WriteContext) -> Result<Lease> {
        let comment = comment(&context.statement.query_id);
        let mut begin = format!("{comment} BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
        if let Some(deadline) = deadline {
            let millis = deadline.remaining().as_millis().max(1);
            begin.push_str(&format!("; SET LOCAL statement_timeout = {millis}"));
        }
        begin.push_str(&format!(
            "; LOCK TABLE {}.{} IN ROW EXCLUSIVE MODE; {}",
            identifier(&self.table.schema),
            identifier(&self.table.name),
            stamps_sql(std::iter::once(&self.table), false)
        ));
        let begun = async {
            loop {
                let permit = self.pool.reserve(1, deadline).await?;
                let lease = self.pool.checkout(permit, deadline).await?;
                lease.set_transaction(true);
                match lease.run(lease.client().simple_query(&begin)).await {
                    Ok(messages) => return Ok((lease, messages)),
                    // Nothing but the beginning was sent.
                    Err(error) if lease.is_stale(&error) => {}
                    Err(error) => return Err(from_postgres(&error, deadline)),
                }
            }
        };
        let (lease, messages) = within(deadline, begun).await?;
        let stamp = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get("stamp"),
            _ => None,
        });
        if stamp != Some(self.stamp.as_str()) {
            return Err(SourceError::new(
                ErrorKind::Changed,
                "the table was altered since the statement was planned; run it again",
            ));
        }
        Ok(lease)
    }

    /// Runs the statement; how many rows it changed.
    async fn changed(
        &self,
        lease: &Lease,
        parameters: &[Constant],
        deadline: Option<Deadline>,
    ) -> Result<u64> {
        // Until it ends, dropping this cancels at the server.
        lease.set_busy(true);
        let parameters: Vec<_> = parameters.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
        let rows = lease.client().execute(&self.sql, &parameters).await.map_err(|error| {
            lease.note(&error);
            from_postgres(&error, deadline)
        })?;
        lease.set_busy(false);
        Ok(rows)
    }

    /// Sends the rows; how many the server has taken.
    async fn copied(
        &self,
        lease: &Lease,
        (columns, encodings): (&[String], &[Encoding]),
        mut rows: BatchStream,
        deadline: Option<Deadline>,
    ) -> Result<u64> {
        // Until the end is seen, dropping this cancels at the server.
        lease.set_busy(true);
        let sql = |error: tokio_postgres::Error| {
            lease.note(&error);
            from_postgres(&error, deadline)
        };
        let sink = lease.client().copy_in::<_, Bytes>(&self.sql).await.map_err(sql)?;
        let mut sink = Box::pin(sink);
        let mut out = BytesMut::from(HEADER);
        let mut refused = false;
        'rows: while let Some(batch) = rows.next().await {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                encode(&mut out, (columns, encodings), &batch, row)?;
                if out.len() >= CHUNK && sink.send(out.split().freeze()).await.is_err() {
                    // Why, the end of the copy says.
                    refused = true;
                    break 'rows;
                }
            }
        }
        drop(rows);
        if !refused {
            out.extend_from_slice(&TRAILER);
            refused = sink.send(out.freeze()).await.is_err();
        }
        let rows = sink.as_mut().finish().await.map_err(sql)?;
        if refused {
            return Err(SourceError::new(
                ErrorKind::Unavailable,
                "the connection was lost while rows were sent; nothing was written",
            ));
        }
        lease.set_busy(false);
        Ok(rows)
    }

    async fn who(&self, lease: &Lease, deadline: Option<Deadline>) -> Result<Transaction> {
        let messages = lease.run(lease.client().simple_query(WHO)).await;
        let messages = messages.map_err(|error| from_postgres(&error, deadline))?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0)?.to_owned(), row.get(1)?.to_owned())),
            _ => None,
        });
        let (id, started) = row
            .ok_or_else(|| SourceError::internal("PostgreSQL gave no number of the transaction"))?;
        Ok(Transaction { id, started })
    }

    async fn position(&self, lease: &Lease) -> Option<Position> {
        let position = lease.run(self.memory.ask(lease.client())).await;
        match position {
            Ok(position) => Some(position.position).filter(|p| *p != Position::Unknown),
            Err(error) => {
                tracing::debug!(%error, "no position after a commit");
                None
            }
        }
    }

    async fn epoch(&self, lease: &Lease) -> Option<synoptic_types::Epoch> {
        match self.position(lease).await? {
            Position::Log { epoch, .. } => Some(epoch),
            _ => None,
        }
    }

    /// Asks what became of a commit whose answer was lost.
    async fn resolved(
        &self,
        transaction: &Transaction,
        before: Option<synoptic_types::Epoch>,
        rows: u64,
        why: &str,
    ) -> Result<WriteOutcome> {
        let until = Instant::now() + RESOLVE_PATIENCE;
        let mut last = String::new();
        loop {
            match timeout(RESOLVE_PATIENCE, self.asked(transaction, before)).await {
                Ok(Ok(Fate::Committed(position))) => return Ok(WriteOutcome { rows, position }),
                Ok(Ok(Fate::Aborted)) => {
                    return Err(SourceError::new(
                        ErrorKind::Unavailable,
                        format!(
                            "the connection was lost at the commit ({why}); the server has rolled \
                             back and nothing was written"
                        ),
                    ));
                }
                Ok(Ok(Fate::Running)) => "the transaction still runs".clone_into(&mut last),
                Ok(Ok(Fate::Untold(what))) => {
                    last = what;
                    break;
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => "the server does not answer".clone_into(&mut last),
            }
            if Instant::now() >= until {
                break;
            }
            sleep(RESOLVE_PAUSE).await;
        }
        let id = &transaction.id;
        Err(SourceError::new(
            ErrorKind::OutcomeUnknown,
            format!(
                "the outcome of the commit is unknown: the connection was lost ({why}), and then \
                 {last}. Before you write again, ask the server with SELECT txid_status({id}), or \
                 look for the rows in the table"
            ),
        ))
    }

    async fn asked(
        &self,
        transaction: &Transaction,
        before: Option<synoptic_types::Epoch>,
    ) -> Result<Fate> {
        let deadline = Deadline::after(RESOLVE_PATIENCE);
        let permit = self.pool.reserve(1, deadline).await?;
        let lease = self.pool.checkout(permit, deadline).await?;
        let question = format!(
            "SELECT pg_catalog.txid_status({})::text AS fate, \
             pg_catalog.pg_postmaster_start_time()::text, pg_catalog.pg_is_in_recovery()::text",
            transaction.id
        );
        let messages = lease.run(lease.client().simple_query(&question)).await;
        let messages = messages.map_err(|error| from_postgres(&error, deadline))?;
        let position = self.position(&lease).await;
        let epoch = match &position {
            Some(Position::Log { epoch, .. }) => Some(*epoch),
            _ => None,
        };
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let Some(row) = row else { return Ok(Fate::Untold("the server told nothing".to_owned())) };
        let same = match (before, epoch) {
            (Some(before), Some(epoch)) => before == epoch,
            _ => row.get(1) == Some(transaction.started.as_str()),
        };
        if !same || row.get(2) != Some("false") {
            return Ok(Fate::Untold("another server answered in its place".to_owned()));
        }
        Ok(match row.get(0) {
            Some("committed") => Fate::Committed(position),
            Some("aborted") => Fate::Aborted,
            Some("in progress") => Fate::Running,
            _ => Fate::Untold("the server does not remember the transaction".to_owned()),
        })
    }
}

fn encode(
    out: &mut BytesMut,
    (columns, encodings): (&[String], &[Encoding]),
    batch: &RecordBatch,
    row: usize,
) -> Result<()> {
    encode::row(out, encodings, batch, row).map_err(|(place, message)| {
        let column = columns.get(place).cloned().unwrap_or_default();
        SourceError::data(message).in_column(column)
    })
}

fn writable(pool: &Pool, verb: &str, source: &str) -> Result<()> {
    if pool.options().writable {
        return Ok(());
    }
    Err(SourceError::new(
        ErrorKind::PermissionDenied,
        format!(
            "{verb}: the source is read only; set sources.{source}.writable = true in the \
             configuration to write to it"
        ),
    ))
}

/// A transaction and the run of the server it belongs to.
#[derive(Debug)]
struct Transaction {
    id: String,
    started: String,
}

/// What became of a transaction.
enum Fate {
    Committed(Option<Position>),
    Aborted,
    Running,
    /// And why.
    Untold(String),
}

#[async_trait]
impl PreparedWrite for PostgresWrite {
    fn remote_text(&self) -> &str {
        &self.sql
    }

    async fn run(&self, rows: BatchStream, context: WriteContext) -> Result<WriteOutcome> {
        let written = self.write(rows, &context).await;
        written.map_err(|error| self.pool.name(error.in_table(&self.table)))
    }
}

//! A prepared scan and its stream.

use std::any::Any;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::Statistics;
use datafusion::logical_expr::Expr;
use futures::StreamExt as _;
use synoptic_source::{
    BatchStream, Counted, ErrorKind, Fragment, Narrowed, PreparedScan, Relation, Result,
    ScanContext, ScanCounters, Snapshot, SourceError,
};
use tokio::sync::oneshot;

use super::discover::Detail;
use super::filter;
use super::relation;
use super::select::select;
use super::snapshot::{Shared, SqliteSnapshot, thread_ended};
use super::worker::{Answer, Plan, Scan};

/// What is read.
#[derive(Debug)]
pub(super) enum Read {
    Fragment(Fragment),
    Relation(Arc<Relation>),
}

/// A fragment or a relation as one SELECT.
#[derive(Debug)]
pub(super) struct SqliteScan {
    pub shared: Arc<Shared>,
    pub read: Read,
    pub plan: Arc<Plan>,
    pub statistics: Statistics,
}

#[async_trait]
impl PreparedScan for SqliteScan {
    fn remote_text(&self) -> &str {
        &self.plan.shown
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.schema)
    }

    fn partitions(&self) -> usize {
        1
    }

    fn statistics(&self) -> Statistics {
        self.statistics.clone()
    }

    fn narrowed(&self, conditions: &[Expr]) -> Option<Narrowed> {
        let mut left = Vec::new();
        let (read, plan) = match &self.read {
            // A condition comes before the limit in the text.
            Read::Fragment(fragment) if fragment.limit.is_some() => return None,
            Read::Fragment(fragment) => {
                let mut fragment = fragment.clone();
                let table = Arc::clone(&fragment.table);
                let detail = table.detail::<Detail>()?;
                for condition in conditions {
                    let named = fragment.named(condition)?;
                    match filter::render(&named, &table.schema, detail) {
                        Ok(_) => fragment.filters.push(named),
                        Err(reason) => left.push((condition.clone(), reason)),
                    }
                }
                let (sql, columns) = select(&fragment, detail).ok()?;
                let (shown, columns) = (sql.clone(), columns.into());
                (Read::Fragment(fragment), Plan { shown, sql, columns, ..(*self.plan).clone() })
            }
            Read::Relation(relation) => {
                let (mut relation, mut sql) = (Arc::clone(relation), self.plan.sql.clone());
                for condition in conditions {
                    let narrower = relation.narrowed(condition);
                    match relation::render(&narrower) {
                        Ok((rendered, ..)) => (relation, sql) = (narrower, rendered.sql),
                        Err(reason) => left.push((condition.clone(), reason)),
                    }
                }
                // What is looked at before stays: it is more than the rows that are left, and what
                // was looked at once need not be again.
                let shown = relation::shown(&self.plan.checks, &sql);
                (Read::Relation(relation), Plan { shown, sql, ..(*self.plan).clone() })
            }
        };
        let (shared, statistics) = (Arc::clone(&self.shared), self.statistics.clone());
        let scan = Self { shared, read, plan: Arc::new(plan), statistics };
        Some(Narrowed { scan: Arc::new(scan), left })
    }

    fn open(
        &self,
        partition: usize,
        snapshot: Arc<dyn Snapshot>,
        context: ScanContext,
    ) -> Result<BatchStream> {
        if partition != 0 {
            return Err(SourceError::internal(format!("there is no partition {partition}")));
        }
        let snapshot = own(snapshot, &self.shared)?;
        let reader = Reader {
            handle: Handle { scan: snapshot.scan(Arc::clone(&self.plan)), snapshot },
            counters: Arc::clone(&context.counters),
            ahead: None,
            ended: false,
        };
        let batches = futures::stream::unfold(reader, |mut reader| async {
            let item = reader.next().await.transpose()?;
            Some((item, reader))
        });
        Ok(Counted::new(batches.boxed(), context.counters).boxed())
    }
}

/// The snapshot as this source's.
pub(super) fn own(
    snapshot: Arc<dyn Snapshot>,
    shared: &Arc<Shared>,
) -> Result<Arc<SqliteSnapshot>> {
    let any: Arc<dyn Any + Send + Sync> = snapshot;
    match any.downcast::<SqliteSnapshot>() {
        Ok(snapshot) if snapshot.is_of(shared) => Ok(snapshot),
        _ => Err(SourceError::internal("the snapshot is another source's").in_source(&shared.name)),
    }
}

/// Ends the scan when the stream is dropped.
struct Handle {
    snapshot: Arc<SqliteSnapshot>,
    scan: Arc<Scan>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.snapshot.close(&self.scan);
    }
}

/// Hands batches on, one of them made ahead.
struct Reader {
    handle: Handle,
    counters: Arc<ScanCounters>,
    /// The batch that is being made.
    ahead: Option<oneshot::Receiver<Answer>>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.ended {
            return Ok(None);
        }
        let result = self.within_deadline().await;
        if !matches!(result, Ok(Some(_))) {
            self.ended = true;
        }
        let plan = &self.handle.scan.plan;
        result.map_err(|error| error.in_source(&plan.source).in_table(&plan.table))
    }

    /// The thread keeps the deadline, too, but not while it waits for a lock or a connection.
    async fn within_deadline(&mut self) -> Result<Option<RecordBatch>> {
        match self.handle.snapshot.statement().deadline {
            None => self.read().await,
            Some(deadline) => {
                let end = tokio::time::Instant::from_std(deadline.instant());
                tokio::time::timeout_at(end, self.read()).await.unwrap_or_else(|_elapsed| {
                    Err(SourceError::new(
                        ErrorKind::Timeout,
                        "the statement's time ran out while it waited for SQLite",
                    ))
                })
            }
        }
    }

    async fn read(&mut self) -> Result<Option<RecordBatch>> {
        let (snapshot, scan) = (&self.handle.snapshot, &self.handle.scan);
        // Left in its place until it has answered: a reader may give up on a poll and come back.
        if self.ahead.is_none() {
            self.ahead = Some(snapshot.next(scan).await?);
        }
        let Some(waiting) = &mut self.ahead else { return Err(thread_ended()) };
        let answer = waiting.await.map_err(|_| thread_ended());
        self.ahead = None;
        let Some((batch, bytes)) = answer?? else { return Ok(None) };
        self.counters.add_bytes(bytes);
        self.ahead = Some(snapshot.next(scan).await?);
        Ok(Some(batch))
    }
}

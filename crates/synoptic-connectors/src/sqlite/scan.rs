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
    BatchStream, Counted, ErrorKind, Fragment, Narrowed, PreparedScan, Result, ScanContext,
    ScanCounters, Snapshot, SourceError,
};
use tokio::sync::oneshot;

use super::discover::Detail;
use super::filter;
use super::select::select;
use super::snapshot::{Shared, SqliteSnapshot, thread_ended};
use super::worker::{Answer, Plan, Scan};

/// A fragment as one SELECT.
#[derive(Debug)]
pub(super) struct SqliteScan {
    pub shared: Arc<Shared>,
    /// `None` for a relation.
    pub fragment: Option<Fragment>,
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
        let mut fragment = self.fragment.clone()?;
        // A condition comes before the limit in the text.
        if fragment.limit.is_some() {
            return None;
        }
        let table = Arc::clone(&fragment.table);
        let detail = table.detail::<Detail>()?;
        let mut left = Vec::new();
        for condition in conditions {
            match filter::render(condition, &table.schema, detail) {
                Ok(_) => fragment.filters.push(condition.clone()),
                Err(reason) => left.push((condition.clone(), reason)),
            }
        }
        let (sql, columns) = select(&fragment, detail).ok()?;
        let plan =
            Plan { shown: sql.clone(), sql, columns: columns.into(), ..(*self.plan).clone() };
        let (shared, statistics) = (Arc::clone(&self.shared), self.statistics.clone());
        let fragment = Some(fragment);
        let scan = Self { shared, fragment, plan: Arc::new(plan), statistics };
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

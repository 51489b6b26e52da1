//! A part that runs once, for whoever asks first, and is there for all who ask.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::execution::SpillFile;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::spill::SpillManager;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::future::{BoxFuture, Shared};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// The rows of one partition, once they are there.
type Rows = Shared<BoxFuture<'static, Result<Arc<Kept>, Arc<DataFusionError>>>>;

/// A part of a plan and, once it has run, what it yielded.
pub(super) struct Part {
    number: usize,
    plan: Arc<dyn ExecutionPlan>,
    /// The next mention is to show it.
    to_be_shown: AtomicBool,
    /// One per partition; begun by the first who asks.
    rows: Vec<Mutex<Option<Rows>>>,
    metrics: ExecutionPlanMetricsSet,
}

/// Batches with the memory they are charged for; those for which there was none are on disk.
struct Kept {
    batches: Vec<RecordBatch>,
    _memory: MemoryReservation,
    spilled: Option<(SpillManager, Arc<dyn SpillFile>)>,
}

impl Part {
    /// `shows`: the plan is made to be printed, not to run.
    pub(super) fn new(number: usize, plan: Arc<dyn ExecutionPlan>, shows: bool) -> Self {
        let partitions = plan.properties().output_partitioning().partition_count();
        let rows = (0..partitions).map(|_| Mutex::default()).collect();
        let (to_be_shown, metrics) = (AtomicBool::new(shows), ExecutionPlanMetricsSet::new());
        Self { number, plan, to_be_shown, rows, metrics }
    }

    /// Tells the parts of a statement apart.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    fn rows(&self, partition: usize, context: &Arc<TaskContext>) -> Result<Rows> {
        let mut rows = self.rows[partition].lock();
        if let Some(rows) = &*rows {
            return Ok(rows.clone());
        }
        let reading = self.plan.execute(partition, Arc::clone(context))?;
        let memory = MemoryConsumer::new("Shared").with_can_spill(true);
        let memory = memory.register(context.memory_pool());
        let disk = SpillManager::new(
            context.runtime_env(),
            SpillMetrics::new(&self.metrics, partition),
            self.plan.schema(),
        );
        // A task of its own, so that it goes on when the one who asked first loses interest. It is
        // owned by the future that is kept here, and so ends with the plan.
        let task = AbortOnDropHandle::new(tokio::spawn(kept(reading, memory, disk)));
        let begun = async move {
            match task.await {
                Ok(kept) => kept.map(Arc::new).map_err(Arc::new),
                Err(failed) => Err(Arc::new(DataFusionError::ExecutionJoin(Box::new(failed)))),
            }
        };
        Ok(rows.insert(begun.boxed().shared()).clone())
    }
}

async fn kept(
    mut reading: SendableRecordBatchStream,
    memory: MemoryReservation,
    disk: SpillManager,
) -> Result<Kept> {
    let (mut batches, mut file) = (Vec::new(), None);
    while let Some(batch) = reading.next().await.transpose()? {
        if file.is_none() && memory.try_grow(batch.get_array_memory_size()).is_ok() {
            batches.push(batch);
            continue;
        }
        let file = match &mut file {
            Some(file) => file,
            None => file.insert(disk.create_in_progress_file("a part that is shared")?),
        };
        file.append_batch(&batch)?;
    }
    let spilled = file.map(|mut file| file.finish()).transpose()?.flatten();
    let spilled = spilled.map(|file| (disk, file));
    Ok(Kept { batches, _memory: memory, spilled })
}

impl Kept {
    /// All batches, in the order they came.
    fn stream(self: Arc<Self>) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let spilled = match &self.spilled {
            Some((disk, file)) => disk.read_spill_as_stream(Arc::clone(file), None)?.boxed(),
            None => stream::empty().boxed(),
        };
        let batches = (0..self.batches.len()).map(move |i| Ok(self.batches[i].clone()));
        Ok(stream::iter(batches).chain(spilled).boxed())
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("number", &self.number).finish_non_exhaustive()
    }
}

/// One who asks for a part. To the optimizer it is a leaf: the part is optimised already, and a filter
/// of one who asks is not one of the others.
#[derive(Debug, Clone)]
pub(super) struct SharedExec {
    part: Arc<Part>,
    /// Whether EXPLAIN shows the part here.
    shows: bool,
}

impl SharedExec {
    pub(super) fn new(part: Arc<Part>) -> Self {
        let shows = part.to_be_shown.swap(false, Ordering::Relaxed);
        Self { part, shows }
    }
}

/// Makes EXPLAIN show every part where it is mentioned first.
pub(crate) fn showing_shared(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut shown = Vec::new();
    let showing = plan.transform_up(|node| {
        let Some(shared) = node.as_ref().downcast_ref::<SharedExec>() else {
            return Ok(Transformed::no(node));
        };
        if shown.contains(&shared.part.number) {
            return Ok(Transformed::no(node));
        }
        shown.push(shared.part.number);
        let shared = SharedExec { shows: true, ..shared.clone() };
        Ok(Transformed::yes(Arc::new(shared) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(showing.data)
}

impl ExecutionPlan for SharedExec {
    fn name(&self) -> &str {
        "Shared"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.part.plan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        if self.shows { vec![&self.part.plan] } else { Vec::new() }
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// Nothing runs before the first poll.
    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let part = Arc::clone(&self.part);
        let rows = async move {
            let kept = part.rows(partition, &context)?.await.map_err(DataFusionError::Shared)?;
            kept.stream()
        };
        let batches = stream::once(rows).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.part.plan.schema(), batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        // The part is below no node that a walk over the plan around it would come to.
        let args = StatisticsArgs::new().with_partition(partition);
        StatisticsContext::new().compute(self.part.plan.as_ref(), &args)
    }
}

impl DisplayAs for SharedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared: part={}", self.part.number)?;
        if self.shows { Ok(()) } else { write!(f, ", which is shown elsewhere") }
    }
}

#[cfg(test)]
mod tests;

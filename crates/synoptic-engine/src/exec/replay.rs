//! What the recursive part of `WITH RECURSIVE` reads, kept for its next round.
//!
//! DataFusion runs the recursive part again and again, and a source is asked once: every round must
//! see the same snapshot. The first round reads, the others get the same batches.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;

/// The batches of each partition, once they have been read.
#[derive(Debug, Clone)]
pub(super) struct Replay(Arc<[OnceCell<Arc<Kept>>]>);

/// Batches with the memory they are charged for.
#[derive(Debug)]
struct Kept {
    batches: Vec<RecordBatch>,
    _memory: datafusion::execution::memory_pool::MemoryReservation,
}

impl Replay {
    pub(super) fn new(partitions: usize) -> Self {
        Self((0..partitions).map(|_| OnceCell::new()).collect())
    }

    /// The batches of `partition`: read by `first` if nobody has, else as they were read.
    pub(super) fn stream(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
        first: impl FnOnce() -> Result<SendableRecordBatchStream> + Send + 'static,
        schema: arrow::datatypes::SchemaRef,
    ) -> SendableRecordBatchStream {
        let cells = Arc::clone(&self.0);
        let read = async move {
            let kept = cells[partition]
                .get_or_try_init(|| async {
                    let memory = MemoryConsumer::new("RecursiveScan");
                    let memory = memory.register(context.memory_pool());
                    let mut batches = Vec::new();
                    let mut reading = first()?;
                    while let Some(batch) = reading.next().await.transpose()? {
                        memory.try_grow(batch.get_array_memory_size())?;
                        batches.push(batch);
                    }
                    Ok::<_, DataFusionError>(Arc::new(Kept { batches, _memory: memory }))
                })
                .await?;
            Ok::<_, DataFusionError>(stream::iter(kept.batches.clone()).map(Ok))
        };
        let batches = stream::once(read).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}

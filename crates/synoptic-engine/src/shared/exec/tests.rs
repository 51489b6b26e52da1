use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;

use super::*;

/// A part of two partitions of ten batches of 100 numbers.
fn part() -> Arc<Part> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let partition = |from: i64| -> Vec<RecordBatch> {
        let batch = |i: i64| {
            let numbers = Int64Array::from_iter_values(from + i * 100..from + (i + 1) * 100);
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(numbers)]).expect("a batch")
        };
        (0..10).map(batch).collect()
    };
    let partitions = [partition(0), partition(1000)];
    let plan = MemorySourceConfig::try_new_exec(&partitions, schema, None).expect("a plan");
    Arc::new(Part::new(1, plan, false))
}

fn context(memory: usize) -> Arc<TaskContext> {
    let pool = Arc::new(GreedyMemoryPool::new(memory));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().expect("a runtime");
    Arc::new(TaskContext::default().with_runtime(runtime))
}

async fn sum(exec: &SharedExec, partition: usize, context: &Arc<TaskContext>) -> Result<i64> {
    let mut sum = 0;
    let mut stream = exec.execute(partition, Arc::clone(context))?;
    while let Some(batch) = stream.next().await.transpose()? {
        let numbers = batch.column(0).as_any().downcast_ref::<Int64Array>().expect("numbers");
        sum += numbers.values().iter().sum::<i64>();
    }
    Ok(sum)
}

#[tokio::test]
async fn all_who_ask_get_all_rows_in_memory_and_on_disk() {
    // Room for everything, for a few batches, for none.
    for memory in [1 << 20, 5000, 0] {
        let (part, context) = (part(), context(memory));
        let (one, other) = (SharedExec::new(Arc::clone(&part)), SharedExec::new(part));
        let numbers = |from: i64| (from..from + 1000).sum::<i64>();
        for exec in [&one, &other, &one] {
            assert_eq!(sum(exec, 0, &context).await.expect("rows"), numbers(0), "{memory}");
            assert_eq!(sum(exec, 1, &context).await.expect("rows"), numbers(1000), "{memory}");
        }
    }
}

#[tokio::test]
async fn one_who_loses_interest_does_not_spoil_it_for_the_others() {
    let (part, context) = (part(), context(1 << 20));
    let (one, other) = (SharedExec::new(Arc::clone(&part)), SharedExec::new(part));
    let first = one.execute(0, Arc::clone(&context)).expect("a stream").next().now_or_never();
    assert!(first.is_none(), "it has only begun");
    assert_eq!(sum(&other, 0, &context).await.expect("rows"), (0..1000).sum::<i64>());
}

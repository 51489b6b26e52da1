//! One statement from its text to its last batch, with progress and cancellation.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli_error::{CliError, Result};

use super::backend::{Answer, Backend};
use super::progress::Progress;

/// How often the progress line is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Where an answer goes.
pub(super) trait Sink {
    /// The columns, before the first batch.
    fn begin(&mut self, schema: &SchemaRef) -> Result<()>;

    /// One batch. `false` when no more is wanted, which ends the query.
    fn batch(&mut self, batch: RecordBatch) -> Result<bool>;
}

/// What is known when an answer has ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// Rows that were delivered.
    pub(super) rows: usize,
    /// Whether the sink had enough before the end.
    pub(super) cut: bool,
    /// From the statement's start to its last batch.
    pub(super) elapsed: Duration,
    /// The JSON of the contract, when there is one.
    pub(super) receipt: Option<Value>,
}

/// Runs `sql` into `sink`. Returning for whatever reason drops the answer, which cancels what
/// still runs at the sources.
pub(super) async fn execute(
    backend: &Backend,
    sql: &str,
    cancel: &CancellationToken,
    progress: &mut Progress,
    sink: &mut dyn Sink,
) -> Result<Finished> {
    let work = async {
        let started = Instant::now();
        let mut answer = start(backend, sql, progress).await?;
        sink.begin(&answer.schema())?;
        let (mut rows, mut cut) = (0, false);
        while let Some(batch) = next(&mut answer, progress).await? {
            rows += batch.num_rows();
            if !sink.batch(batch)? {
                cut = true;
                break;
            }
        }
        Ok(Finished { rows, cut, elapsed: started.elapsed(), receipt: answer.receipt() })
    };
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(CliError::failed("[CANCELLED] cancelled by Ctrl-C")),
        result = work => result,
    };
    progress.end();
    result
}

async fn start(backend: &Backend, sql: &str, progress: &mut Progress) -> Result<Answer> {
    let run = backend.run(sql);
    tokio::pin!(run);
    loop {
        match timeout(TICK, &mut run).await {
            Ok(answer) => return answer,
            Err(_) => progress.show(&[]),
        }
    }
}

async fn next(answer: &mut Answer, progress: &mut Progress) -> Result<Option<RecordBatch>> {
    loop {
        // Dropping the future of a stream's next item loses nothing.
        match timeout(TICK, answer.next()).await {
            Ok(batch) => return batch.transpose(),
            Err(_) => progress.show(&answer.progress()),
        }
    }
}

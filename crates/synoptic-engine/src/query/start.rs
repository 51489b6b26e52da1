//! From a plan to its first batch: the snapshots are opened, or the statement is planned again.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{TryStreamExt, stream};
use synoptic_types::ErrorCode;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::exec::expects_keys;
use crate::freshness::{MAX_ATTEMPTS, Opening, open};
use crate::scope::Scope;
use crate::session::{Planned, Replanning, Session};

use super::Work;

/// A statement that reads sources and is about to.
pub(super) struct Start {
    pub(super) engine: Arc<Engine>,
    pub(super) session: Session,
    pub(super) scope: Arc<Scope>,
    pub(super) schema: SchemaRef,
    pub(super) again: Replanning,
}

/// A plan whose snapshots stand.
pub(super) struct Ready {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
    /// Of its rows.
    pub(super) schema: SchemaRef,
}

impl Start {
    /// The batches of `plan`, or of the plan that takes its place. Nothing happens before the
    /// first poll.
    pub(super) fn stream(
        self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let opening = async move {
            let ready = self.opened(plan, context, false).await?;
            execute_stream(ready.plan, ready.context)
        };
        let batches = stream::once(opening).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }

    /// `plan`, or one in its place, when its snapshots stand. `trusted`: it was made from what was
    /// last known of a table. Unless the sources confirm that, the statement is planned again, and
    /// nobody has been promised a schema yet.
    pub(super) async fn opened(
        &self,
        mut plan: Arc<dyn ExecutionPlan>,
        mut context: Arc<TaskContext>,
        mut trusted: bool,
    ) -> Result<Ready> {
        let is_promised = !trusted;
        let mut scope = Arc::clone(&self.scope);
        let mut schema = Arc::clone(&self.schema);
        loop {
            let Some(chosen) = scope.chosen() else { return Ok(Ready { plan, context, schema }) };
            let snapshots = scope.snapshots();
            // A statement that reads one thing can begin to read it while the rest is still asked:
            // nothing is handed on before all of it is found right.
            let reads = snapshots.len() == 1 && scope.has_one_scan() && !expects_keys(&plan);
            let opening = open(&self.engine, chosen, &snapshots, reads).await;
            drop(snapshots);
            let (error, attempts) = match opening {
                Ok(Opening::Open(reading)) if trusted && !reading.is_confirmed() => {
                    let error = "a table is not what was last known of it";
                    (Error::new(ErrorCode::Data, error), chosen.attempts())
                }
                Ok(Opening::Open(reading)) => {
                    self.session.has_seen(&reading.settled().token);
                    scope.opened(reading);
                    return Ok(Ready { plan, context, schema });
                }
                Ok(Opening::Again(error)) => (error, chosen.attempts() + 1),
                Err(error) if trusted && may_be_outdated(&error) => (error, chosen.attempts()),
                Err(error) => return Err(error),
            };
            if attempts > MAX_ATTEMPTS {
                return Err(error);
            }
            trusted = false;
            tracing::debug!(%error, "planned again");
            // The old plan holds its snapshots.
            drop(plan);
            let planned = self.again.plan(self.engine.now(), attempts).await?;
            let next = match planned {
                Planned { scope, schema: now, work: Work::Plan { plan, context }, .. }
                    if now == schema || !is_promised =>
                {
                    schema = now;
                    (scope, plan, context)
                }
                _ => {
                    return Err(Error::new(
                        ErrorCode::Data,
                        "a table was changed between planning and reading; ask again",
                    ));
                }
            };
            (scope, plan, context) = next;
            self.scope.succeed(Arc::clone(&scope));
        }
    }
}

/// Whether an error can come from a table that is not what it was any more.
fn may_be_outdated(error: &Error) -> bool {
    !matches!(
        error.code(),
        ErrorCode::Timeout | ErrorCode::Cancelled | ErrorCode::SourceUnavailable
    )
}

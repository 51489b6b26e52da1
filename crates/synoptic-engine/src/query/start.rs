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
            let (plan, context) = self.opened(plan, context).await?;
            execute_stream(plan, context)
        };
        let batches = stream::once(opening).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }

    /// A plan whose snapshots stand.
    async fn opened(
        &self,
        mut plan: Arc<dyn ExecutionPlan>,
        mut context: Arc<TaskContext>,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
        let mut scope = Arc::clone(&self.scope);
        loop {
            let Some(chosen) = scope.chosen() else { return Ok((plan, context)) };
            let error = match open(&self.engine, chosen, &scope.snapshots()).await? {
                Opening::Open(reading) => {
                    self.session.has_seen(&reading.settled().token);
                    scope.opened(reading);
                    return Ok((plan, context));
                }
                Opening::Again(error) => error,
            };
            let attempts = chosen.attempts() + 1;
            if attempts > MAX_ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(%error, "planned again");
            // The old plan holds its snapshots.
            drop(plan);
            let planned = self.again.plan(self.engine.now(), attempts).await?;
            let next = match planned {
                Planned { scope, schema, work: Work::Plan { plan, context }, target: _ }
                    if schema == self.schema =>
                {
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

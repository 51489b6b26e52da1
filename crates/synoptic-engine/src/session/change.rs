//! UPDATE and DELETE, from the parsed statement to one that its source is ready to run.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, Utc};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use synoptic_catalog::Snapshot;
use synoptic_types::{ErrorCode, QueryOptions};

use crate::catalog::StatementCatalogs;
use crate::error::{Error, Result};
use crate::query::{Description, Request, Work};
use crate::scope::Scope;
use crate::semantics::CheckedConstants;
use crate::sql::Change;
use crate::write::{Target, count_schema};

use super::logical::{Started, logical_plan};
use super::parameters::{bind, parameters};
use super::plan::Planned;
use super::{Session, State};

impl Session {
    /// Plans a change at the source's authoritative copy, where its conditions are applied.
    pub(super) async fn plan_change(
        &self,
        change: &Change,
        request: &Request,
        options: &QueryOptions,
        scope: &Arc<Scope>,
        (session, sources): (&State, &Arc<Snapshot>),
    ) -> Result<Planned> {
        of_the_present(options)?;
        let state = self.authoritative(session, sources, scope, options);
        let (plan, _) = logical_plan(&state, change.query.statement.clone()).await?;
        let parameters = parameters(&plan)?;
        let plan = bind(plan, &parameters, &request.parameters, true)?;
        let plan = simplified(&state, plan, self.engine().clock().now())?;
        let target = Target::change(plan, change.columns.as_deref())?;
        let scope = Arc::clone(scope);
        if !change.explain {
            let (schema, work) = (count_schema(), Work::Rows(vec![]));
            return Ok(Planned::new(scope, schema, work, Some(target)));
        }
        let schema = explain_schema();
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["physical_plan"])),
            Arc::new(StringArray::from(vec![target.explained()])),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
            .map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?;
        Ok(Planned::new(scope, schema, Work::Rows(vec![batch]), None))
    }

    /// What a change would answer.
    pub(super) async fn describe_change(
        &self,
        change: &Change,
        options: &QueryOptions,
        scope: &Arc<Scope>,
    ) -> Result<Description> {
        let session = self.state.lock().clone();
        let sources = self.engine().host().snapshot();
        of_the_present(options)?;
        let state = self.authoritative(&session, &sources, scope, options);
        let (plan, _) = logical_plan(&state, change.query.statement.clone()).await?;
        let parameters = parameters(&plan)?;
        let schema = if change.explain { explain_schema() } else { count_schema() };
        Ok(Description { schema, parameters, is_update: !change.explain })
    }

    /// A state that finds the tables of authoritative copies: none is chosen.
    fn authoritative(
        &self,
        session: &State,
        sources: &Arc<Snapshot>,
        scope: &Arc<Scope>,
        options: &QueryOptions,
    ) -> SessionState {
        let catalogs = StatementCatalogs {
            engine: Arc::clone(self.engine()),
            sources: Arc::clone(sources),
            scope: Arc::clone(scope),
            last: None,
        };
        self.session_state(session.clone(), catalogs, options)
    }
}

fn explain_schema() -> Arc<Schema> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("plan_type"), text("plan")]))
}

/// The plan with its types, and with its constants computed; its operators stay where they are.
fn simplified(
    state: &SessionState,
    plan: LogicalPlan,
    started: DateTime<Utc>,
) -> Result<LogicalPlan> {
    let config = Started::new(state, started);
    let options = datafusion::optimizer::OptimizerConfig::options(&config);
    let plan = state.analyzer().execute_and_check(plan, &options, |_, _| {})?;
    let rules = Optimizer::with_rules(vec![
        Arc::new(CheckedConstants),
        Arc::new(SimplifyExpressions::new()),
    ]);
    Ok(rules.optimize(plan, &config, |_, _| {})?)
}

/// What was cannot be changed.
fn of_the_present(options: &QueryOptions) -> Result<()> {
    match options.read_at()? {
        None => Ok(()),
        Some(_) => Err(Error::new(
            ErrorCode::Unsupported,
            "UPDATE and DELETE with consistency = 'as_of': what was cannot be changed; RESET \
             synoptic.consistency first",
        )),
    }
}

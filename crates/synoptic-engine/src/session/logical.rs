//! From a text to its logical plan, kept or made, and from there to the optimized one.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{FunctionRegistry, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::OptimizerConfig;
use datafusion::sql::parser::Statement as DFStatement;
use futures::FutureExt;
use futures::future::{BoxFuture, join};
use synoptic_catalog::Snapshot;
use synoptic_types::{ErrorCode, Moment, QueryOptions};

use crate::catalog::StatementCatalogs;
use crate::error::{Error, Result};
use crate::freshness::Wanted;
use crate::scope::Scope;
use crate::sql::{Query, named_apart, shown_name};

use super::parameters::{bind, parameters, typed_values};
use super::plan_cache::{Kept, Key, Tables, Unconfirmed};
use super::{Session, State};

/// A statement as it was planned from its text.
pub(super) struct Logical {
    pub(super) plan: Stage,
    /// Names of columns that had to be told apart.
    pub(super) names: Vec<String>,
    /// `$1`, `$2`, … with their types.
    pub(super) parameters: Vec<(String, Option<DataType>)>,
    /// What planning goes on with. It may be shared: its catalogs and its time of the start are
    /// not to be used.
    pub(super) state: Arc<SessionState>,
    pub(super) context: Arc<TaskContext>,
    /// Where the plan is kept, to learn what is made of it.
    pub(super) kept: Option<Arc<Kept>>,
}

/// How far a logical plan is.
pub(super) enum Stage {
    /// As the text says, parameters unbound.
    Stated(LogicalPlan),
    /// Optimized; there were no parameters.
    Optimized(LogicalPlan),
}

/// A statement that is planned, and what was there when it arrived.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// One state of the session for all that follows, whatever other calls set meanwhile.
    pub(super) session: &'a State,
    pub(super) sources: &'a Arc<Snapshot>,
    pub(super) options: &'a QueryOptions,
    pub(super) scope: &'a Arc<Scope>,
    /// When it arrived, and how often it was tried.
    pub(super) attempt: (Moment, u32),
}

/// Goes on with a logical plan: its tables that nobody has confirmed, and the scope with the copies
/// that are read. `None` when the plan turns out not to be one to go on with.
pub(super) type Then<'w, T> =
    dyn Fn(Logical, Unconfirmed, Arc<Scope>) -> BoxFuture<'w, Result<Option<T>>> + Send + Sync + 'w;

impl Session {
    /// Goes on with a plan that is kept. `None` when a table is not what it was, or `then` says so:
    /// the text is to be planned. `trusting`: sources that confirm their tables when they are read
    /// are not asked for them now. Else they are asked while the plan is gone on with.
    pub(super) async fn of_kept<'w, T: Send>(
        &'w self,
        asking: Asking<'w>,
        kept: &'w Arc<Kept>,
        trusting: bool,
        then: &'w Then<'w, T>,
    ) -> Result<Option<T>> {
        let Asking { session, sources, options, .. } = asking;
        let names = (session.catalog.as_str(), session.schema.as_str());
        let (references, hints) = (kept.references(), kept.hints());
        let wanted = Wanted::of(self.engine(), references, hints, options, sources, names).await?;
        let reviving = |catalogs: StatementCatalogs| {
            async move {
                let scope = Arc::clone(&catalogs.scope);
                let plans = self.engine().plans();
                if !trusting
                    && let Some((logical, _)) = kept.revived(&catalogs, Tables::LastKnown).await
                {
                    let going_on = then(logical, Unconfirmed::new(), scope);
                    let (confirmed, done) = join(kept.is_confirmed(&catalogs), going_on).await;
                    return if confirmed {
                        plans.hit();
                        done
                    } else {
                        Ok(None)
                    };
                }
                let tables = if trusting { Tables::ReadFirst } else { Tables::Asked };
                match kept.revived(&catalogs, tables).await {
                    Some((logical, unconfirmed)) => {
                        plans.hit();
                        then(logical, unconfirmed, scope).await
                    }
                    None => Ok(None),
                }
            }
            .boxed()
        };
        self.with_copies(&wanted, asking, reviving).await
    }

    /// Goes on with the plan of a query's text, which is kept when `key` is given and nothing else
    /// decides it.
    pub(super) async fn of_text<'w, T>(
        &'w self,
        asking: Asking<'w>,
        query: &'w Query,
        key: Option<&'w Key>,
        then: &'w Then<'w, T>,
    ) -> Result<T> {
        let Asking { session, sources, options, .. } = asking;
        let tables = self.engine().base().resolve_table_references(&query.statement)?;
        let names = (session.catalog.as_str(), session.schema.as_str());
        let wanted =
            Wanted::of(self.engine(), &tables, &query.hints, options, sources, names).await?;
        let planning = |catalogs: StatementCatalogs| {
            async move {
                let scope = Arc::clone(&catalogs.scope);
                let state = self.session_state(session.clone(), catalogs.clone(), options);
                let (plan, names) = logical_rows(&state, query).await?;
                let parameters = parameters(&plan)?;
                let context = state.task_ctx();
                let plan = Stage::Stated(plan);
                let state = Arc::new(state);
                let mut logical = Logical { plan, names, parameters, state, context, kept: None };
                if let Some(key) = key {
                    let (plans, base) = (self.engine().plans(), self.engine().base());
                    logical.kept = plans.keep(key, query, &logical, &catalogs, base);
                }
                then(logical, Unconfirmed::new(), scope).await?.ok_or_else(|| {
                    Error::new(ErrorCode::Internal, "a plan of this moment is not used")
                })
            }
            .boxed()
        };
        self.with_copies(&wanted, asking, planning).await
    }

    /// The optimized plan of a statement, its parameters bound to `values`; unbound without.
    pub(super) fn optimized(
        &self,
        logical: &Logical,
        values: Option<Values<'_>>,
    ) -> Result<LogicalPlan> {
        let bound = |plan: LogicalPlan| match values {
            Some(values) => bind(plan, &logical.parameters, values.given, values.exactly),
            None => Ok(plan),
        };
        let stated = match &logical.plan {
            // It has no parameters: only values that are not asked for are found.
            Stage::Optimized(plan) => return bound(plan.clone()),
            Stage::Stated(plan) => bound(plan.clone())?,
        };
        let state = &logical.state;
        let plan = match &stated {
            LogicalPlan::Explain(_) => state.optimize(&stated)?,
            _ => optimized(state, stated, self.engine().clock().now())?,
        };
        if let Some(kept) = &logical.kept {
            kept.learn(&plan);
        }
        Ok(plan)
    }
}

/// What parameters are bound to.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) given: &'a [ScalarValue],
    /// Whether a value has to fit its parameter's type without rounding.
    pub(super) exactly: bool,
}

/// The logical plan of a query, or of the rows of an INSERT.
async fn logical_rows(state: &SessionState, query: &Query) -> Result<(LogicalPlan, Vec<String>)> {
    match query.write.as_ref().and_then(|write| write.typed.clone()) {
        Some(insert) => Ok((typed_values(state, insert).await?, Vec::new())),
        None => logical_plan(state, query.statement.clone()).await,
    }
}

/// The logical plan, and the names of columns that had to be told apart to make one.
pub(super) async fn logical_plan(
    state: &SessionState,
    statement: DFStatement,
) -> Result<(LogicalPlan, Vec<String>)> {
    let apart = named_apart(&statement);
    let (plan, names) = match (state.statement_to_plan(statement).await, apart) {
        (Ok(plan), _) => (plan, Vec::new()),
        (Err(error), Some((statement, names)))
            if error.to_string().contains("require unique expression names") =>
        {
            (state.statement_to_plan(statement).await?, names)
        }
        (Err(error), _) => return Err(error.into()),
    };
    // The parser's refusals come first; this one holds even for what they forget.
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)
        .map_err(|e| Error::new(ErrorCode::Unsupported, e.strip_backtrace()))?;
    Ok((plan, names))
}

/// What [`SessionState::optimize`] does, for a statement that began at `started`: the state may be
/// shared by many.
fn optimized(
    state: &SessionState,
    plan: LogicalPlan,
    started: DateTime<Utc>,
) -> Result<LogicalPlan> {
    let config = Started::new(state, started);
    let plan = state.analyzer().execute_and_check(plan, &config.options(), |_, _| {})?;
    Ok(state.optimizer().optimize(plan, &config, |_, _| {})?)
}

/// What the optimizer is told of one statement.
pub(super) struct Started<'a> {
    state: &'a SessionState,
    started: DateTime<Utc>,
    aliases: Arc<AliasGenerator>,
}

impl<'a> Started<'a> {
    pub(super) fn new(state: &'a SessionState, started: DateTime<Utc>) -> Self {
        Self { state, started, aliases: Arc::new(AliasGenerator::new()) }
    }
}

impl OptimizerConfig for Started<'_> {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        Some(self.started)
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        &self.aliases
    }

    fn options(&self) -> Arc<ConfigOptions> {
        Arc::clone(self.state.config().options())
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(self.state)
    }
}

/// The one schema of an answer: the types of the optimized plan, which are those of the batches.
///
/// Every column is nullable. Whether one can be NULL depends on parameters that are not there yet
/// when a statement is prepared, and on rewrites that do not keep account of it; clients compare
/// this schema with the batches' to the letter.
pub(super) fn answer_schema(schema: &DFSchema, names: &[String]) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        Field::new(shown_name(field.name(), names), field.data_type().clone(), true)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

//! From a request to a planned query.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::{DFSchema, ParamValues, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable as _, LogicalPlan};
use datafusion::optimizer::OptimizerConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as DFStatement;
use futures::FutureExt;
use futures::future::BoxFuture;
use synoptic_catalog::Snapshot;
use synoptic_source::Statement;
use synoptic_types::{Deadline, ErrorCode, Moment, QueryId, QueryOptions};
use uuid::Uuid;

use crate::catalog::{SourceTable, StatementCatalogs};
use crate::cut::cut;
use crate::engine::hints;
use crate::error::{Error, Result, timed_out};
use crate::exec::{
    filtering_first, keeping_first_rows, knowing_joins, listing_keys, replaying_recursions,
    yielding_joins,
};
use crate::freshness::{MAX_ATTEMPTS, Wanted, ask_again, choose_copies};
use crate::join_order::joins_ordered;
use crate::query::{
    Description, PlannedQuery, QueryRecord, QueryStream, Request, Work, with_deep_stack,
};
use crate::scope::Scope;
use crate::shared::{repeated, sharing, showing_shared};
use crate::sql::{Command, Parsed, Query, Shown, Write, named_apart, parse, shown_name, version};
use crate::write::{Target, count_schema, exact_constant, exact_value};

use super::overflow::checked;
use super::plan_cache::{Key, Logical};
use super::{Session, State, settings};

impl Session {
    /// What a statement would answer, without running it: its schema and its parameters.
    ///
    /// # Errors
    /// As [`Session::plan`]; parameters need no values.
    pub async fn describe(&self, request: &Request) -> Result<Description> {
        let arrival = self.engine().now();
        let options = self.options_with(&request.overrides)?;
        let query = match parse(&request.sql)? {
            Parsed::Query(query) => query,
            Parsed::Change(change) => {
                let deadline = deadline(request, &options);
                let scope =
                    Scope::new(Arc::new(Statement { query_id: new_id(), deadline }), &options);
                let work = self.describe_change(&change, &options, &scope);
                return within(deadline, options.statement_timeout, work).await;
            }
            Parsed::Command(Command::Show(Shown::Options | Shown::Option(_))) => {
                return Ok(Description {
                    schema: settings_schema(),
                    parameters: vec![],
                    is_update: false,
                });
            }
            Parsed::Command(Command::Show(shown)) => match parse(&self.show_sql(&shown)?)? {
                Parsed::Query(query) => query,
                _ => return Err(Error::new(ErrorCode::Internal, "SHOW of SHOW")),
            },
            Parsed::Command(_) => {
                let schema = Arc::new(Schema::empty());
                return Ok(Description { schema, parameters: vec![], is_update: false });
            }
        };
        let deadline = deadline(request, &options);
        let scope = Scope::new(Arc::new(Statement { query_id: new_id(), deadline }), &options);
        let work = async {
            let session = self.state.lock().clone();
            let sources = self.engine().host().snapshot();
            if let Some(write) = &query.write {
                self.target(write, &session, &sources, &options).await?;
            }
            let wanted = self.wanted(&query, &options, &sources, &session).await?;
            let asked = Asked { wanted: &wanted, options: &options, sources: &sources };
            let describing = |catalogs: StatementCatalogs| {
                let state = self.session_state(session.clone(), catalogs, &options);
                let query = query.clone();
                async move {
                    let (plan, names) = logical_rows(&state, &query).await?;
                    let description = describe(&state, &plan, &names)?;
                    Ok(match query.write {
                        Some(_) => {
                            Description { schema: count_schema(), is_update: true, ..description }
                        }
                        None => description,
                    })
                }
                .boxed()
            };
            self.with_copies(asked, &scope, (arrival, 1), describing).await
        };
        within(deadline, options.statement_timeout, work).await
    }

    /// Plans a statement. `SET` and its like take effect here, exactly once.
    ///
    /// # Errors
    /// When the statement is wrong, names what is not there, asks for what is not honoured, or a
    /// source that planning must ask does not answer.
    pub async fn plan(&self, request: Request) -> Result<PlannedQuery> {
        self.planned(request, false).await
    }

    /// Plans a statement and begins to read, so that what planning would ask sources first can be
    /// found out while they are read. When this returns, every snapshot stands; nothing was
    /// delivered yet.
    ///
    /// # Errors
    /// As [`Session::plan`] and [`PlannedQuery::run`], and what a source says when it is opened.
    pub async fn start(&self, request: Request) -> Result<QueryStream> {
        self.planned(request, true).await?.open().await
    }

    /// `trusting`: as [`PlanCache::revived`] says; such a plan has to be opened.
    async fn planned(&self, request: Request, trusting: bool) -> Result<PlannedQuery> {
        let arrival = self.engine().now();
        let options = self.options_with(&request.overrides)?;
        let id = request.query_id.clone().unwrap_or_else(new_id);
        let deadline = deadline(&request, &options);
        let statement = Arc::new(Statement { query_id: id.clone(), deadline });
        let scope = Scope::new(statement, &options);
        let record =
            QueryRecord::new(id, &request.sql, &self.client, &scope, self.engine().clock());
        self.engine().queries_registry().add(&record);
        let planned = tokio::select! {
            biased;
            () = record.cancelled() => Err(Error::cancelled(record.id())),
            planned = within(
                deadline,
                options.statement_timeout,
                self.plan_in(&request, &options, &scope, (arrival, 1), trusting),
            ) => planned,
        };
        match planned {
            Ok(planned) => {
                let again = Replanning {
                    session: self.as_it_is(),
                    request,
                    options,
                    scope: Arc::clone(&scope),
                };
                Ok(PlannedQuery::new(self.clone(), record, planned, deadline, again))
            }
            Err(error) => {
                let error = self.with_hint(error).await;
                record.fail(&error);
                self.engine().queries_registry().end(&record);
                Err(error)
            }
        }
    }

    async fn plan_in(
        &self,
        request: &Request,
        options: &QueryOptions,
        scope: &Arc<Scope>,
        attempt: (Moment, u32),
        trusting: bool,
    ) -> Result<Planned> {
        // One state of the session for all that follows, whatever other calls set meanwhile.
        let session = self.state.lock().clone();
        let sources = self.engine().host().snapshot();
        let plans = self.engine().plans();
        let key = Key::new(&request.sql, &session, options, &sources);
        let kept = key.as_ref().and_then(|key| plans.find(key));
        if let Some(kept) = kept {
            let names = (session.catalog.as_str(), session.schema.as_str());
            let wanted = Wanted::of(
                self.engine(),
                kept.references(),
                kept.hints(),
                options,
                &sources,
                names,
            )
            .await?;
            let asked = Asked { wanted: &wanted, options, sources: &sources };
            let reviving = |catalogs: StatementCatalogs| {
                let kept = Arc::clone(&kept);
                async move {
                    let scope = Arc::clone(&catalogs.scope);
                    let revived = plans.revived(&kept, &catalogs, trusting).await;
                    let Some((logical, unconfirmed)) = revived else { return Ok(None) };
                    let planned = self.physical(logical, request, scope, None).await?;
                    let trusted = !unconfirmed.is_empty();
                    // What is not read confirms nothing.
                    let all = planned.scope.reads_all(&unconfirmed);
                    Ok(all.then_some(Planned { trusted, ..planned }))
                }
                .boxed()
            };
            if let Some(planned) = self.with_copies(asked, scope, attempt, reviving).await? {
                return Ok(planned);
            }
        }
        let rows = |(schema, work)| Planned::new(Arc::clone(scope), schema, work, None);
        let query = match parse(&request.sql)? {
            Parsed::Query(query) => query,
            Parsed::Change(change) => {
                let at = (&session, &sources);
                return self.plan_change(&change, request, options, scope, at).await;
            }
            Parsed::Command(Command::Show(Shown::Options)) => {
                return settings_rows(settings::of_options(options)).map(rows);
            }
            Parsed::Command(Command::Show(Shown::Option(name))) => {
                let plain = name.strip_prefix("synoptic.").unwrap_or(&name);
                let value = match options.get(plain) {
                    Ok(value) => value,
                    Err(_) => self.option(&name)?,
                };
                let setting = settings::Setting { name, value, description: "" };
                return settings_rows(vec![setting]).map(rows);
            }
            Parsed::Command(Command::Show(shown)) => match parse(&self.show_sql(&shown)?)? {
                Parsed::Query(query) => query,
                _ => return Err(Error::new(ErrorCode::Internal, "SHOW of SHOW")),
            },
            Parsed::Command(command) => {
                self.carry_out(command).await?;
                return Ok(rows((Arc::new(Schema::empty()), Work::Rows(vec![]))));
            }
        };
        let target = match &query.write {
            Some(write) => Some(self.target(write, &session, &sources, options).await?),
            None => None,
        };
        // Only queries are kept.
        let key = key.filter(|_| target.is_none());
        let wanted = self.wanted(&query, options, &sources, &session).await?;
        let asked = Asked { wanted: &wanted, options, sources: &sources };
        let planning = |catalogs: StatementCatalogs| {
            let (session, key, query) = (session.clone(), key.clone(), query.clone());
            let target = target.clone();
            async move {
                let scope = Arc::clone(&catalogs.scope);
                let state = self.session_state(session, catalogs.clone(), options);
                let (plan, names) = logical_rows(&state, &query).await?;
                let parameters = parameters(&plan)?;
                let context = state.task_ctx();
                let logical = Logical { plan, names, parameters, state: Arc::new(state), context };
                if let Some(key) = key {
                    plans.keep(key, query, &logical, &catalogs, self.engine().base());
                }
                self.physical(logical, request, scope, target).await
            }
            .boxed()
        };
        self.with_copies(asked, scope, attempt, planning).await
    }

    /// What a query wants of its sources.
    async fn wanted(
        &self,
        query: &Query,
        options: &QueryOptions,
        sources: &Snapshot,
        session: &State,
    ) -> Result<Wanted> {
        let tables = self.engine().base().resolve_table_references(&query.statement)?;
        let names = (session.catalog.as_str(), session.schema.as_str());
        Wanted::of(self.engine(), &tables, &query.hints, options, sources, names).await
    }

    /// The table an INSERT writes to, at the source's authoritative copy.
    async fn target(
        &self,
        write: &Write,
        session: &State,
        sources: &Arc<Snapshot>,
        options: &QueryOptions,
    ) -> Result<Target> {
        let nobody = Statement { query_id: new_id(), deadline: None };
        if version(write.target.table()).is_some() {
            return Err(Error::new(
                ErrorCode::Unsupported,
                "INSERT into a table FOR SYSTEM_TIME or VERSION AS OF: what was cannot be changed",
            ));
        }
        // Only what is read can be of the past.
        let options = &QueryOptions { read_timestamp: None, ..options.clone() };
        let catalogs = StatementCatalogs {
            engine: Arc::clone(self.engine()),
            sources: Arc::clone(sources),
            // No copies are chosen for it.
            scope: Scope::new(Arc::new(nobody), options),
            last: None,
        };
        let name = write.target.clone().resolve(&session.catalog, &session.schema);
        let provider = match catalogs.schema(&name.catalog, &name.schema) {
            Some(schema) => schema.table(&name.table).await?,
            None => None,
        };
        let provider = provider.ok_or_else(|| {
            Error::new(ErrorCode::UnknownTable, format!("table '{name}' not found"))
        })?;
        let table = provider.downcast_ref::<SourceTable>().ok_or_else(|| {
            Error::new(
                ErrorCode::PermissionDenied,
                format!("INSERT INTO {name}: it is a table of the system, which nobody writes to"),
            )
        })?;
        Target::new(table, &write.columns)
    }

    /// Does `work` with the copies that prove what is asked; again with others, when one of them
    /// does not answer.
    async fn with_copies<'w, T>(
        &self,
        Asked { wanted, options, sources }: Asked<'_>,
        scope: &Arc<Scope>,
        (arrival, mut attempts): (Moment, u32),
        work: impl Fn(StatementCatalogs) -> BoxFuture<'w, Result<T>>,
    ) -> Result<T> {
        let engine = self.engine();
        loop {
            let chosen = choose_copies(engine, wanted, options, arrival, attempts).await?;
            let reading = scope.reading(chosen);
            let catalogs = StatementCatalogs {
                engine: Arc::clone(engine),
                sources: Arc::clone(sources),
                scope: Arc::clone(&reading),
                last: self.last_read(),
            };
            let error = match work(catalogs).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(chosen) = reading.chosen() else { return Err(error) };
            let others = error.code() == ErrorCode::SourceUnavailable
                && attempts < MAX_ATTEMPTS
                && chosen.has_replicas()
                && ask_again(engine, chosen).await;
            if !others {
                return Err(error);
            }
            attempts += 1;
        }
    }

    /// Binds, optimises, and leaves to the sources what is theirs.
    async fn physical(
        &self,
        logical: Logical,
        request: &Request,
        scope: Arc<Scope>,
        target: Option<Target>,
    ) -> Result<Planned> {
        let Logical { plan, names, parameters, state, context } = logical;
        let plan = bind(plan, &parameters, &request.parameters, target.is_some())?;
        let plan = match &plan {
            LogicalPlan::Explain(_) => state.optimize(&plan)?,
            _ => optimized(&state, plan, self.engine().clock().now())?,
        };
        let ordered = is_ordered(&plan);
        let schema = answer_schema(plan.schema(), &names);
        if let Some(target) = &target {
            target.check(&schema)?;
        }
        let plan = joins_ordered(plan, &scope)?;
        let repeated = repeated(&plan)?;
        let plan = cut(plan, &scope, self.engine().config().cut, repeated).await?;
        // What stays here, after the sources have had their part.
        let plan = checked(plan)?;
        let plan = sharing(plan, &state, finished).await?;
        let physical = state.query_planner().create_physical_plan(&plan, &*state).await?;
        let physical = showing_shared(finished(physical)?)?;
        let context = listing_keys(&physical, context)?;
        let work = Work::Plan { plan: physical, context };
        Ok(Planned { ordered, ..Planned::new(scope, schema, work, target) })
    }

    async fn carry_out(&self, command: Command) -> Result<()> {
        match command {
            Command::Set { name, value } => self.set_option(&name, &value),
            Command::Reset { name } => self.reset_option(&name),
            Command::Use(parts) => match parts.as_slice() {
                [catalog] => self.set_catalog(catalog),
                [catalog, schema] => {
                    self.set_catalog(catalog)?;
                    self.set_schema(schema).await
                }
                _ => Err(Error::new(ErrorCode::Syntax, "write USE catalog or USE catalog.schema")),
            },
            Command::Cancel { query_id } => {
                let id = QueryId::new(query_id);
                match self.engine().cancel(&id) {
                    crate::query::CancelOutcome::Unknown => Err(Error::new(
                        ErrorCode::InvalidOption,
                        format!("there is no query '{id}'; see system.queries"),
                    )),
                    _ => Ok(()),
                }
            }
            Command::Show(_) | Command::Nothing => Ok(()),
        }
    }

    /// A SHOW as the query it is.
    fn show_sql(&self, shown: &Shown) -> Result<String> {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let catalog = self.catalog();
        Ok(match shown {
            Shown::Catalogs => {
                let values: Vec<_> =
                    self.engine().catalogs().iter().map(|c| format!("({})", quote(c))).collect();
                format!("SELECT * FROM (VALUES {}) AS t (catalog_name)", values.join(", "))
            }
            Shown::Schemas { catalog: asked } => format!(
                "SELECT schema_name FROM information_schema.schemata WHERE catalog_name = {} \
                 ORDER BY 1",
                quote(asked.as_ref().unwrap_or(&catalog))
            ),
            Shown::Tables { schema, like } => {
                let mut conditions = match schema.as_slice() {
                    [] => vec![],
                    [one] => {
                        vec![format!("(table_schema = {0} OR table_catalog = {0})", quote(one))]
                    }
                    [catalog, schema] => vec![
                        format!("table_catalog = {}", quote(catalog)),
                        format!("table_schema = {}", quote(schema)),
                    ],
                    _ => {
                        return Err(Error::new(ErrorCode::Syntax, "SHOW TABLES IN catalog.schema"));
                    }
                };
                conditions.extend(like.iter().map(|l| format!("table_name LIKE {}", quote(l))));
                let filter = match conditions.is_empty() {
                    true => String::new(),
                    false => format!("WHERE {} ", conditions.join(" AND ")),
                };
                format!("SELECT * FROM information_schema.tables {filter}ORDER BY 1, 2, 3")
            }
            Shown::Columns { table } => {
                let name: Vec<_> =
                    table.iter().map(|p| format!("\"{}\"", p.replace('"', "\"\""))).collect();
                format!("DESCRIBE {}", name.join("."))
            }
            Shown::Options | Shown::Option(_) => {
                return Err(Error::new(ErrorCode::Internal, "options are shown without a query"));
            }
        })
    }

    /// Adds the nearest names to an error about a name.
    async fn with_hint(&self, error: Error) -> Error {
        if error.code() != ErrorCode::UnknownTable {
            return error;
        }
        hints::nearest_table(self.engine(), error).await
    }
}

/// What a statement asks of its sources.
#[derive(Clone, Copy)]
struct Asked<'a> {
    wanted: &'a Wanted,
    options: &'a QueryOptions,
    sources: &'a Arc<Snapshot>,
}

/// What planning makes of a statement.
pub(crate) struct Planned {
    /// With the copies that are read.
    pub(crate) scope: Arc<Scope>,
    pub(crate) schema: SchemaRef,
    pub(crate) work: Work,
    /// Where the rows go, when the statement is an INSERT.
    pub(crate) target: Option<Target>,
    /// Made from what was last known of a table: to be used only when its source confirms it.
    pub(crate) trusted: bool,
    /// Whether the order of its rows was asked for.
    pub(crate) ordered: bool,
}

impl Planned {
    pub(super) fn new(
        scope: Arc<Scope>,
        schema: SchemaRef,
        work: Work,
        target: Option<Target>,
    ) -> Self {
        Self { scope, schema, work, target, trusted: false, ordered: false }
    }
}

/// What it takes to plan a statement again, when a copy does not hold what it was chosen for.
#[derive(Debug)]
pub(crate) struct Replanning {
    /// As it was when the statement arrived.
    session: Session,
    request: Request,
    options: QueryOptions,
    scope: Arc<Scope>,
}

impl Replanning {
    /// Plans the statement as if it arrived at `arrival`.
    pub(crate) fn plan(&self, arrival: Moment, attempts: u32) -> BoxFuture<'_, Result<Planned>> {
        let Self { session, request, options, scope } = self;
        let work = async move {
            match session.plan_in(request, options, scope, (arrival, attempts), false).await {
                Ok(planned) => Ok(planned),
                Err(error) => Err(session.with_hint(error).await),
            }
        };
        Deep(Box::pin(work)).boxed()
    }
}

/// Whether the rows of `plan` come in an order that somebody asked for, or can be read as text.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) | LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => true,
        LogicalPlan::Distinct(Distinct::On(on)) => on.sort_expr.is_some(),
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Limit(_) => plan.inputs().into_iter().any(is_ordered),
        _ => false,
    }
}

fn new_id() -> QueryId {
    QueryId::new(Uuid::now_v7().to_string())
}

fn deadline(request: &Request, options: &QueryOptions) -> Option<Deadline> {
    let timeouts = [request.timeout, options.statement_timeout];
    timeouts.into_iter().flatten().min().and_then(Deadline::after)
}

/// A future that is polled with enough stack for the deepest plan, whatever thread it is on.
struct Deep<F>(Pin<Box<F>>);

impl<F: Future> Future for Deep<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        with_deep_stack(|| self.0.as_mut().poll(cx))
    }
}

/// Runs planning within its deadline, and turns a panic of any layer below into an error.
pub(crate) async fn within<T>(
    deadline: Option<Deadline>,
    option: Option<Duration>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let work = AssertUnwindSafe(Deep(Box::pin(work))).catch_unwind().map(|outcome| match outcome {
        Ok(result) => result,
        Err(panic) => Err(Error::panicked(panic.as_ref())),
    });
    match deadline {
        None => work.await,
        Some(deadline) => match tokio::time::timeout(deadline.remaining(), work).await {
            Ok(result) => result,
            Err(_) => Err(timed_out(option)),
        },
    }
}

/// The logical plan of a query, or of the rows of an INSERT.
async fn logical_rows(state: &SessionState, query: &Query) -> Result<(LogicalPlan, Vec<String>)> {
    match query.write.as_ref().and_then(|write| write.typed.clone()) {
        Some(insert) => Ok((typed_values(state, insert).await?, Vec::new())),
        None => logical_plan(state, query.statement.clone()).await,
    }
}

/// The VALUES of an INSERT whose placeholders have the types of their columns. DataFusion casts
/// the other values to those types, which may round; so they are taken back and converted exactly.
async fn typed_values(state: &SessionState, insert: DFStatement) -> Result<LogicalPlan> {
    let other = || {
        Error::new(
            ErrorCode::Unsupported,
            "VALUES of several rows or with placeholders take placeholders and constants only; \
             compute values with INSERT … SELECT",
        )
    };
    let LogicalPlan::Dml(dml) = state.statement_to_plan(insert).await? else { return Err(other()) };
    let LogicalPlan::Projection(projection) = dml.input.as_ref() else { return Err(other()) };
    let LogicalPlan::Values(values) = projection.input.as_ref() else { return Err(other()) };
    let mut values = values.clone();
    for row in &mut values.values {
        for (cell, field) in row.iter_mut().zip(values.schema.fields()) {
            let to = field.data_type();
            let value = match &*cell {
                Expr::Placeholder(_) => continue,
                Expr::Cast(_) | Expr::Literal(..) => constant(cell, true).ok_or_else(other)??,
                computed if computed.get_type(&values.schema)? == *to => continue,
                _ => return Err(other()),
            };
            let exact = exact_constant(&value, to).map_err(|why| {
                let message = format!("INSERT, column {}: {why}", field.name());
                Error::new(ErrorCode::Data, message)
            })?;
            *cell = Expr::Literal(exact, None);
        }
    }
    Ok(LogicalPlan::Values(values))
}

/// The value of a constant within casts; without the outermost one, when it is `peeled`.
fn constant(expr: &Expr, peeled: bool) -> Option<Result<ScalarValue>> {
    match expr {
        Expr::Literal(value, _) => Some(Ok(value.clone())),
        Expr::Cast(cast) => {
            let inner = constant(&cast.expr, false)?;
            if peeled {
                return Some(inner);
            }
            Some(inner.and_then(|value| Ok(value.cast_to(cast.field.data_type())?)))
        }
        _ => None,
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

/// What DataFusion's own rules leave to be done.
fn finished(plan: Arc<dyn ExecutionPlan>) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let plan = filtering_first(plan)?;
    let plan = keeping_first_rows(plan)?;
    let plan = replaying_recursions(plan)?;
    knowing_joins(&plan)?;
    yielding_joins(plan)
}

fn describe(state: &SessionState, plan: &LogicalPlan, names: &[String]) -> Result<Description> {
    let parameters = parameters(plan)?;
    let schema = match state.optimize(plan) {
        Ok(optimized) => answer_schema(optimized.schema(), names),
        // Types that depend on parameters are known only with values.
        Err(_) if !parameters.is_empty() => answer_schema(plan.schema(), names),
        Err(error) => return Err(error.into()),
    };
    Ok(Description { schema, parameters, is_update: false })
}

/// `$1`, `$2`, … with their types; the numbers must have no gap.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<Vec<(String, Option<DataType>)>> {
    let types = plan.get_parameter_types()?;
    let mut parameters = Vec::with_capacity(types.len());
    for number in 1..=types.len() {
        let name = format!("${number}");
        match types.get(&name) {
            Some(data_type) => parameters.push((name, data_type.clone())),
            None => {
                return Err(Error::new(
                    ErrorCode::Syntax,
                    format!(
                        "placeholders must be numbered from $1 without a gap; {name} is missing"
                    ),
                ));
            }
        }
    }
    Ok(parameters)
}

pub(super) fn bind(
    plan: LogicalPlan,
    wanted: &[(String, Option<DataType>)],
    given: &[ScalarValue],
    exactly: bool,
) -> Result<LogicalPlan> {
    if wanted.len() != given.len() {
        return Err(Error::new(
            ErrorCode::InvalidOption,
            format!("the statement has {} parameters and got {}", wanted.len(), given.len()),
        ));
    }
    if wanted.is_empty() {
        return Ok(plan);
    }
    let values = wanted.iter().zip(given).map(|((name, data_type), value)| {
        let cast = match data_type {
            Some(data_type) => match exactly {
                true => exact_value(value, data_type),
                false => value.cast_to(data_type).map_err(|e| e.strip_backtrace()),
            }
            .map_err(|reason| {
                let message = format!("parameter {name} does not fit {data_type}: {reason}");
                Error::new(ErrorCode::Data, message)
            })?,
            None => value.clone(),
        };
        Ok(ScalarAndMetadata::from(cast))
    });
    let values = ParamValues::List(values.collect::<Result<_>>()?);
    Ok(plan.with_param_values(values)?)
}

/// The one schema of an answer: the types of the optimized plan, which are those of the batches.
///
/// Every column is nullable. Whether one can be NULL depends on parameters that are not there yet
/// when a statement is prepared, and on rewrites that do not keep account of it; clients compare
/// this schema with the batches' to the letter.
fn answer_schema(schema: &DFSchema, names: &[String]) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        Field::new(shown_name(field.name(), names), field.data_type().clone(), true)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn settings_schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![field("name"), field("value"), field("description")]))
}

fn settings_rows(settings: Vec<settings::Setting>) -> Result<(SchemaRef, Work)> {
    let column = |of: fn(&settings::Setting) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(settings.iter().map(of)))
    };
    let columns = vec![column(|s| &s.name), column(|s| &s.value), column(|s| s.description)];
    let batch = RecordBatch::try_new(settings_schema(), columns)
        .map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?;
    Ok((settings_schema(), Work::Rows(vec![batch])))
}

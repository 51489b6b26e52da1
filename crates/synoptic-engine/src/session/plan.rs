//! From a request to a planned query.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::{Distinct, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
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
use crate::query::{PlannedQuery, QueryRecord, QueryStream, Request, Work, with_deep_stack};
use crate::scope::Scope;
use crate::semantics::checked;
use crate::shared::{repeated, sharing, showing_shared};
use crate::sql::{Command, Parsed, Shown, Write, parse, version};
use crate::write::Target;

use super::logical::{Asking, Logical, Values, answer_schema};
use super::plan_cache::{Key, Unconfirmed};
use super::show::settings_rows;
use super::{Session, State, settings};

impl Session {
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

    /// `trusting`: as [`Session::of_kept`] says; such a plan has to be opened.
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
        let session = self.state.lock().clone();
        let sources = self.engine().host().snapshot();
        let asking = Asking { session: &session, sources: &sources, options, scope, attempt };
        let key = Key::new(&request.sql, &session, options, &sources);
        let kept = key.as_ref().and_then(|key| self.engine().plans().find(key));
        if let Some(kept) = &kept {
            let planned = |logical: Logical, unconfirmed: Unconfirmed, scope: Arc<Scope>| {
                async move {
                    let planned = self.physical(logical, request, scope, None).await?;
                    let trusted = !unconfirmed.is_empty();
                    // What is not read confirms nothing.
                    let all = planned.scope.reads_all(&unconfirmed);
                    Ok(all.then_some(Planned { trusted, ..planned }))
                }
                .boxed()
            };
            if let Some(planned) = self.of_kept(asking, kept, trusting, &planned).await? {
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
        let key = key.as_ref().filter(|_| target.is_none());
        let planned = |logical: Logical, _, scope: Arc<Scope>| {
            let target = target.clone();
            async move { self.physical(logical, request, scope, target).await.map(Some) }.boxed()
        };
        self.of_text(asking, &query, key, &planned).await
    }

    /// The table an INSERT writes to, at the source's authoritative copy.
    pub(super) async fn target(
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
    pub(super) async fn with_copies<'w, T>(
        &self,
        wanted: &Wanted,
        Asking { sources, options, scope, attempt: (arrival, mut attempts), .. }: Asking<'_>,
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
        let values = Values { given: &request.parameters, exactly: target.is_some() };
        let plan = self.optimized(&logical, Some(values))?;
        let Logical { names, state, context, .. } = logical;
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

    /// Adds the nearest names to an error about a name.
    async fn with_hint(&self, error: Error) -> Error {
        if error.code() != ErrorCode::UnknownTable {
            return error;
        }
        hints::nearest_table(self.engine(), error).await
    }
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

pub(super) fn new_id() -> QueryId {
    QueryId::new(Uuid::now_v7().to_string())
}

pub(super) fn deadline(request: &Request, options: &QueryOptions) -> Option<Deadline> {
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

/// What DataFusion's own rules leave to be done.
fn finished(plan: Arc<dyn ExecutionPlan>) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let plan = filtering_first(plan)?;
    let plan = keeping_first_rows(plan)?;
    let plan = replaying_recursions(plan)?;
    knowing_joins(&plan)?;
    yielding_joins(plan)
}

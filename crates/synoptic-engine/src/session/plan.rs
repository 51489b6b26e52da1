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
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::OptimizerConfig;
use datafusion::sql::parser::Statement as DFStatement;
use futures::FutureExt;
use synoptic_source::Statement;
use synoptic_types::{Deadline, ErrorCode, QueryId, QueryOptions};
use uuid::Uuid;

use crate::catalog::StatementCatalogs;
use crate::cut::cut;
use crate::engine::hints;
use crate::error::{Error, Result, timed_out};
use crate::exec::{knowing_joins, replaying_recursions, yielding_joins};
use crate::query::{Description, PlannedQuery, QueryRecord, Request, Work, with_deep_stack};
use crate::scope::Scope;
use crate::sql::{Command, Parsed, Shown, named_apart, parse, shown_name};

use super::overflow::checked;
use super::plan_cache::{Key, Logical};
use super::{Session, settings};

impl Session {
    /// What a statement would answer, without running it: its schema and its parameters.
    ///
    /// # Errors
    /// As [`Session::plan`]; parameters need no values.
    pub async fn describe(&self, request: &Request) -> Result<Description> {
        let options = self.options_with(&request.overrides)?;
        let statement = match parse(&request.sql)? {
            Parsed::Query(statement) => statement,
            Parsed::Command(Command::Show(Shown::Options | Shown::Option(_))) => {
                return Ok(Description {
                    schema: settings_schema(),
                    parameters: vec![],
                    is_update: false,
                });
            }
            Parsed::Command(Command::Show(shown)) => match parse(&self.show_sql(&shown)?)? {
                Parsed::Query(statement) => statement,
                Parsed::Command(_) => return Err(Error::new(ErrorCode::Internal, "SHOW of SHOW")),
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
            let state = self.session_state(session, self.catalogs_for(&scope), &options);
            let (plan, names) = logical_plan(&state, statement).await?;
            describe(&state, &plan, &names)
        };
        within(deadline, options.statement_timeout, work).await
    }

    /// Plans a statement. `SET` and its like take effect here, exactly once.
    ///
    /// # Errors
    /// When the statement is wrong, names what is not there, asks for what is not honoured, or a
    /// source that planning must ask does not answer.
    pub async fn plan(&self, request: Request) -> Result<PlannedQuery> {
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
                self.plan_in(&request, &options, &scope),
            ) => planned,
        };
        match planned {
            Ok((schema, work)) => Ok(PlannedQuery::new(
                Arc::clone(self.engine()),
                record,
                scope,
                schema,
                work,
                deadline,
            )),
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
    ) -> Result<(SchemaRef, Work)> {
        // One state of the session for all that follows, whatever other calls set meanwhile.
        let session = self.state.lock().clone();
        let catalogs = self.catalogs_for(scope);
        let plans = self.engine().plans();
        let key = Key::new(&request.sql, &session, options, &catalogs);
        if let Some(key) = &key
            && let Some(logical) = plans.find(key, &catalogs).await
        {
            return self.physical(logical, request, scope).await;
        }
        let statement = match parse(&request.sql)? {
            Parsed::Query(statement) => statement,
            Parsed::Command(Command::Show(Shown::Options)) => {
                return settings_rows(settings::of_options(options));
            }
            Parsed::Command(Command::Show(Shown::Option(name))) => {
                let plain = name.strip_prefix("synoptic.").unwrap_or(&name);
                let value = match options.get(plain) {
                    Ok(value) => value,
                    Err(_) => self.option(&name)?,
                };
                return settings_rows(vec![settings::Setting { name, value, description: "" }]);
            }
            Parsed::Command(Command::Show(shown)) => match parse(&self.show_sql(&shown)?)? {
                Parsed::Query(statement) => statement,
                Parsed::Command(_) => return Err(Error::new(ErrorCode::Internal, "SHOW of SHOW")),
            },
            Parsed::Command(command) => {
                self.carry_out(command).await?;
                return Ok((Arc::new(Schema::empty()), Work::Rows(vec![])));
            }
        };
        let state = self.session_state(session, catalogs.clone(), options);
        let (plan, names) = logical_plan(&state, statement).await?;
        let parameters = parameters(&plan)?;
        let context = state.task_ctx();
        let logical = Logical { plan, names, parameters, state: Arc::new(state), context };
        if let Some(key) = key {
            plans.keep(key, &logical, &catalogs, self.engine().base());
        }
        self.physical(logical, request, scope).await
    }

    /// Binds, optimises, and leaves to the sources what is theirs.
    async fn physical(
        &self,
        logical: Logical,
        request: &Request,
        scope: &Arc<Scope>,
    ) -> Result<(SchemaRef, Work)> {
        let Logical { plan, names, parameters, state, context } = logical;
        let plan = bind(plan, &parameters, &request.parameters)?;
        let plan = match &plan {
            LogicalPlan::Explain(_) => state.optimize(&plan)?,
            _ => optimized(&state, plan, self.engine().clock().now())?,
        };
        let schema = answer_schema(plan.schema(), &names);
        let plan = cut(plan, scope, self.engine().config().cut).await?;
        // What stays here, after the sources have had their part.
        let plan = checked(plan)?;
        let physical = state.query_planner().create_physical_plan(&plan, &*state).await?;
        let physical = replaying_recursions(physical)?;
        knowing_joins(&physical)?;
        let physical = yielding_joins(physical)?;
        Ok((schema, Work::Plan { plan: physical, context }))
    }

    fn catalogs_for(&self, scope: &Arc<Scope>) -> StatementCatalogs {
        StatementCatalogs {
            engine: Arc::clone(self.engine()),
            sources: self.engine().host().snapshot(),
            scope: Arc::clone(scope),
        }
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
async fn within<T>(
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

/// The logical plan, and the names of columns that had to be told apart to make one.
async fn logical_plan(
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
    let config = Started { state, started, aliases: Arc::new(AliasGenerator::new()) };
    let plan = state.analyzer().execute_and_check(plan, &config.options(), |_, _| {})?;
    Ok(state.optimizer().optimize(plan, &config, |_, _| {})?)
}

/// What the optimizer is told of one statement.
struct Started<'a> {
    state: &'a SessionState,
    started: DateTime<Utc>,
    aliases: Arc<AliasGenerator>,
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
fn parameters(plan: &LogicalPlan) -> Result<Vec<(String, Option<DataType>)>> {
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

fn bind(
    plan: LogicalPlan,
    wanted: &[(String, Option<DataType>)],
    given: &[ScalarValue],
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
            Some(data_type) => value.cast_to(data_type).map_err(|e| {
                let reason = e.strip_backtrace();
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

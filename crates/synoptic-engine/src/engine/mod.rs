//! The engine: what all sessions share.

mod counters;
pub(crate) mod hints;
mod memory;
mod registry;
mod time;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::optimizer::{Analyzer, Optimizer};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use futures::future::join_all;
use synoptic_catalog::{Host, SourceEntry};
use synoptic_freshness::{Policy, Receipt, TokenKey};
use synoptic_source::{ErrorKind, SourceCheck, SourceError};
use synoptic_types::{ByteSize, Clock, ErrorCode, Moment, QueryId, QueryOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::catalog::{INFORMATION_SCHEMA, SYNOPTIC, SYSTEM_TABLES};
use crate::cut::{CutPolicy, Planner};
use crate::error::{Error, Result};
use crate::exec::{JoinOrders, SmallTables};
use crate::metadata::TableEntry;
use crate::query::{CancelOutcome, QueryInfo};
use crate::semantics::{
    CheckedConstants, FloatConditions, FloatOperators, GroupsOnce, JoinTypes, checked_sum,
    ordered_extremes,
};
use crate::session::{PlanCache, PlanCacheStats, Session};
use crate::write::Outcomes;

pub use counters::{Counters, Counts, Waits};
use memory::SharingPool;
pub(crate) use registry::Registry;
pub use time::WallClock;

/// What the engine is made of; every number has its place in the configuration.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Memory for sorts, joins and aggregates over all queries; beyond it they spill or fail.
    pub memory_limit: ByteSize,
    /// Disk for spilled data over all queries.
    pub spill_limit: ByteSize,
    /// Where spilled data goes; the system's temporary folder when not set.
    pub spill_dir: Option<PathBuf>,
    /// Partitions a plan runs in.
    pub target_partitions: usize,
    /// Rows a batch has.
    pub batch_size: usize,
    /// A table of so many rows is read while others are: its rows come sooner than the keys of joins
    /// that would leave some out.
    pub read_ahead_rows: usize,
    /// Queries that may run at once; further ones are refused with `[QUEUE_FULL]`.
    pub max_concurrent_queries: usize,
    /// Ended queries that `system.queries` still shows.
    pub query_history: usize,
    /// Writes whose outcomes are remembered, for tickets that are sent again.
    pub write_outcomes: usize,
    /// The key tokens are signed with, shared by servers that trust each other's; when not set, a
    /// random one that ends with the process.
    pub token_key: Option<TokenKey>,
    /// Statements whose logical plans are kept for when they are asked again.
    pub plan_cache: usize,
    /// Limits of the proofs, and how long statements wait for replicas.
    pub freshness: Policy,
    /// What bounds the error of the clock.
    pub time: WallClock,
    /// What sessions start with.
    pub defaults: QueryOptions,
    /// When work is left to a source that supports it. Not a key of the configuration: by cost is
    /// right outside tests.
    pub cut: CutPolicy,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            memory_limit: ByteSize(4 << 30),
            spill_limit: ByteSize(100 << 30),
            spill_dir: None,
            target_partitions: std::thread::available_parallelism().map_or(2, usize::from),
            batch_size: 8192,
            read_ahead_rows: 100,
            max_concurrent_queries: 64,
            query_history: 1000,
            write_outcomes: 10_000,
            token_key: None,
            freshness: Policy::default(),
            time: WallClock::default(),
            plan_cache: 1000,
            defaults: QueryOptions::default(),
            cut: CutPolicy::default(),
        }
    }
}

/// A listing waits this long for each source, so that one that is down does not hold up the rest.
const LISTING_TIMEOUT: Duration = Duration::from_secs(2);

/// A sign of life takes at most this long.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The memory pool names this many of the largest users when it runs out.
const MEMORY_USERS_SHOWN: std::num::NonZeroUsize = match std::num::NonZeroUsize::new(3) {
    Some(users) => users,
    None => std::num::NonZeroUsize::MIN,
};

/// What all sessions share: sources, memory, running queries.
pub struct Engine {
    config: EngineConfig,
    host: Arc<Host>,
    clock: Arc<dyn Clock>,
    /// Functions, rules and memory; cloned for every statement.
    base: SessionState,
    runtime: Arc<RuntimeEnv>,
    queries: Registry,
    plans: PlanCache,
    writes: Outcomes,
    running: Arc<Semaphore>,
    token_key: TokenKey,
    counters: Counters,
}

impl Engine {
    /// An engine over the sources of `host`.
    ///
    /// # Errors
    /// When the spill folder cannot be used.
    pub fn new(config: EngineConfig, host: Arc<Host>, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let runtime = Arc::new(runtime(&config)?);
        let base = base_state(&config, &runtime);
        Ok(Arc::new(Self {
            queries: Registry::new(config.query_history),
            plans: PlanCache::new(config.plan_cache),
            writes: Outcomes::new(config.write_outcomes),
            running: Arc::new(Semaphore::new(config.max_concurrent_queries)),
            token_key: config.token_key.clone().unwrap_or_else(random_key),
            counters: Counters::default(),
            config,
            host,
            clock,
            base,
            runtime,
        }))
    }

    /// A new session with the default options. `client` is shown in `system.queries`.
    pub fn session(self: &Arc<Self>, client: &str) -> Session {
        Session::new(Arc::clone(self), client)
    }

    /// What the engine is made of.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The sources.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Where wall time comes from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Bytes that running queries have reserved.
    pub fn memory_reserved(&self) -> usize {
        self.runtime.memory_pool.reserved()
    }

    /// Cancels a query that is planned or running.
    pub fn cancel(&self, id: &QueryId) -> CancelOutcome {
        self.queries.cancel(id)
    }

    /// Planned, running and recently ended queries, newest first.
    pub fn queries(&self) -> Vec<QueryInfo> {
        self.queries.list(self)
    }

    /// The receipt of a query that `system.queries` still shows.
    pub fn receipt(&self, id: &QueryId) -> Option<Receipt> {
        self.queries.find(id).map(|record| record.receipt(self))
    }

    /// Catalogs, sorted: `synoptic` and every source.
    pub fn catalogs(&self) -> Vec<String> {
        let snapshot = self.host.snapshot();
        let mut names: Vec<_> =
            snapshot.sources().map(|entry| entry.source().name().to_string()).collect();
        names.push(SYNOPTIC.to_owned());
        names.sort();
        names
    }

    /// Schemas as (catalog, schema), sorted. A source that does not answer is left out.
    pub async fn schemas(self: &Arc<Self>) -> Vec<(String, String)> {
        let tables = self.tables().await;
        let mut schemas: Vec<_> = tables.into_iter().map(|t| (t.catalog, t.schema)).collect();
        for entry in self.host.snapshot().sources() {
            let source = entry.source();
            schemas.push((source.name().to_string(), source.default_schema().to_owned()));
        }
        for catalog in self.catalogs() {
            schemas.push((catalog, INFORMATION_SCHEMA.to_owned()));
        }
        schemas.sort();
        schemas.dedup();
        schemas
    }

    /// Every table and view of every catalog, sorted by catalog, schema and name. A source that
    /// does not answer within a second or two is left out.
    pub async fn tables(self: &Arc<Self>) -> Vec<TableEntry> {
        let snapshot = self.host.snapshot();
        let listings = join_all(snapshot.sources().map(async |entry| {
            let source = entry.source();
            match tokio::time::timeout(LISTING_TIMEOUT, source.tables()).await {
                Ok(Ok(tables)) => {
                    tables.into_iter().map(|t| TableEntry::of_source(entry, t)).collect()
                }
                Ok(Err(error)) => {
                    let error = error.in_source(source.name());
                    tracing::warn!(%error, "left out of a listing");
                    Vec::new()
                }
                Err(_) => {
                    tracing::warn!(source = %source.name(), "left out of a listing: no answer");
                    Vec::new()
                }
            }
        }))
        .await;
        let mut tables: Vec<_> = listings.into_iter().flatten().collect();
        tables.extend(SYSTEM_TABLES.map(|name| TableEntry::of_system(self, name)));
        let key = |t: &TableEntry| (t.catalog.clone(), t.schema.clone(), t.name.clone());
        tables.sort_by_cached_key(key);
        tables
    }

    /// Asks a source for a sign of life.
    ///
    /// # Errors
    /// When it has none within ten seconds.
    pub async fn check(&self, entry: &SourceEntry) -> Result<SourceCheck> {
        let source = entry.source();
        let answer = match tokio::time::timeout(CHECK_TIMEOUT, source.check()).await {
            Ok(answer) => answer,
            Err(_) => Err(SourceError::new(
                ErrorKind::Unavailable,
                format!("no answer within {}s", CHECK_TIMEOUT.as_secs()),
            )),
        };
        Ok(answer.map_err(|e| e.in_source(source.name()))?)
    }

    /// Waits until what was dropped has ended at the sources too, at most a few seconds. A process
    /// that ends sooner may leave queries running there.
    pub async fn settle(&self) {
        let snapshot = self.host.snapshot();
        join_all(snapshot.sources().map(|entry| entry.source().settle())).await;
    }

    /// The present moment on our own clock.
    pub(crate) fn now(&self) -> Moment {
        self.host.timeline().moment(tokio::time::Instant::now().into_std())
    }

    pub(crate) fn token_key(&self) -> &TokenKey {
        &self.token_key
    }

    /// What was decided of copies since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How the plan cache did so far.
    pub fn plan_cache(&self) -> PlanCacheStats {
        self.plans.stats()
    }

    pub(crate) fn plans(&self) -> &PlanCache {
        &self.plans
    }

    pub(crate) fn writes(&self) -> &Outcomes {
        &self.writes
    }

    /// The answer of a write that was begun before, as soon as it has ended; `None` when the
    /// statement is not known as one.
    pub async fn written(&self, id: &QueryId) -> Option<Result<RecordBatch>> {
        self.writes.answer(id).await
    }

    pub(crate) fn base(&self) -> &SessionState {
        &self.base
    }

    pub(crate) fn base_state(&self) -> SessionState {
        self.base.clone()
    }

    pub(crate) fn queries_registry(&self) -> &Registry {
        &self.queries
    }

    /// A place among the running queries, given back when dropped.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.running).try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorCode::QueueFull,
                format!(
                    "{} queries run already; try again later or raise \
                     server.max_concurrent_queries",
                    self.config.max_concurrent_queries
                ),
            )
        })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("host", &self.host).finish_non_exhaustive()
    }
}

fn random_key() -> TokenKey {
    let secret = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
    #[expect(clippy::expect_used, reason = "the secret is long enough")]
    TokenKey::new(&secret).expect("32 bytes")
}

fn runtime(config: &EngineConfig) -> Result<RuntimeEnv> {
    let bytes = usize::try_from(config.memory_limit.0).unwrap_or(usize::MAX);
    let pool = SharingPool::new(bytes, config.target_partitions);
    let pool = TrackConsumersPool::new(pool, MEMORY_USERS_SHOWN);
    let mode = match &config.spill_dir {
        Some(dir) => DiskManagerMode::Directories(vec![dir.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default()
        .with_mode(mode)
        .with_max_temp_directory_size(config.spill_limit.0);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .build()
        .map_err(|e| {
            let reason = e.strip_backtrace();
            Error::new(
                ErrorCode::InvalidOption,
                format!("server.spill_dir cannot be used: {reason}"),
            )
        })
}

/// A rule of DataFusion's physical optimizer.
const FILTERS_BY_NAME: &str = "FilterPushdown";

fn base_state(config: &EngineConfig, runtime: &Arc<RuntimeEnv>) -> SessionState {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.target_partitions.max(1))
        .with_batch_size(config.batch_size.max(1))
        .with_extension(Arc::new(SmallTables { rows: config.read_ahead_rows }))
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false);
    let options = session.options_mut();
    // 0.05 is a decimal, as in PostgreSQL: money stays exact.
    options.sql_parser.parse_float_as_decimal = true;
    // The keys of a small build side go to the other side's source, one by one up to here. The
    // size bounds what is kept of the keys before equal ones are put together.
    options.optimizer.hash_join_inlist_pushdown_max_distinct_values = 100_000;
    options.optimizer.hash_join_inlist_pushdown_max_size = 1 << 20;
    // It loses keys that are NaN or a zero of the other sign on the way, and panics for them.
    options.optimizer.enable_topk_aggregation = false;
    // now() is a moment and not a wall-clock reading.
    options.execution.time_zone = Some("UTC".to_owned());
    let mut rules = Analyzer::new().rules;
    rules.insert(0, Arc::new(FloatConditions));
    let mut optimizations = Optimizer::new().rules;
    for rule in &mut optimizations {
        if rule.name() == GroupsOnce::NAME {
            *rule = Arc::new(GroupsOnce::new());
        }
    }
    optimizations.insert(0, Arc::new(CheckedConstants));
    optimizations.push(Arc::new(JoinTypes));
    // It follows filters by the names of columns: through a projection with two columns of one name, such
    // as the one that turns the sides of an outer join, to the wrong one. The logical optimizer has moved
    // all filters by then; those that joins make while they run come later and are followed by position.
    let mut preparations = PhysicalOptimizer::new().rules;
    preparations.retain(|rule| rule.name() != FILTERS_BY_NAME);
    let behind = preparations.iter().position(|rule| rule.name() == JoinOrders::BEHIND);
    preparations.insert(behind.map_or(0, |place| place + 1), Arc::new(JoinOrders));
    let mut builder = SessionStateBuilder::new()
        .with_physical_optimizer_rules(preparations)
        .with_config(session)
        .with_runtime_env(Arc::clone(runtime))
        .with_analyzer_rules(rules)
        .with_optimizer_rules(optimizations)
        .with_query_planner(Arc::new(Planner))
        .with_default_features();
    if let Some(planners) = builder.expr_planners() {
        planners.insert(0, Arc::new(FloatOperators));
    }
    if let Some(functions) = builder.aggregate_functions() {
        functions.push(checked_sum());
        functions.extend(ordered_extremes());
    }
    builder.build()
}

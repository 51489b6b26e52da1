//! Logical plans of statements that were asked before.
//!
//! What is kept is the plan as it comes from the text: names are resolved, and nothing else is
//! decided. Parameters are unbound, `now()` is a call, no filter is pushed anywhere; all that is
//! done for every execution anew. Where there are no parameters and no function depends on the
//! moment, the optimized plan is kept beside it: nothing decides that but the text and which copies
//! are read. A kept plan holds on to no source and no statement either. To be used again, every
//! table in it is looked up by its name in the statement's own catalogs, as planning does, and must
//! be what it was: so the source is asked, an altered or dropped table is seen at once, and the
//! scans are the new statement's own. Where nothing is answered before the read has begun, a source
//! that says then whether its tables are what they were need not be asked before; when they are
//! not, the text is planned.
//!
//! What decides the plan and is not asked again is in the [`Key`]. A statement whose plan could
//! depend on anything else (rows of system tables, functions that answer from the session) is not
//! kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{MemoryCatalogProviderList, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ResolvedTableReference, Result, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::execution::TaskContext;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan, TableSource, Volatility};
use futures::future::join_all;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use synoptic_catalog::Snapshot;
use synoptic_source::TableDef;
use synoptic_types::{CopyName, Pushdown, QueryOptions, Reason, SourceName, TableName};

use crate::catalog::{SYNOPTIC, SourceTable, StatementCatalogs};
use crate::sql::{Query, TableHint};

use super::State;
use super::logical::{Logical, Stage};

/// Longer statements are not kept, in bytes.
const MAX_SQL: usize = 64 << 10;

/// Tables that are what was last known of them.
pub(super) type Unconfirmed = Vec<(SourceName, TableName)>;

/// How it is found out whether a table is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// Its source is asked first.
    Asked,
    /// By reading it, where the source confirms its tables then.
    ReadFirst,
    /// Not at all: whoever uses the plan asks while it is made ready.
    LastKnown,
}

/// What decides how a text is planned, beside the tables it names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Of the catalogs: a source may be another one under the same name.
    version: u64,
    sql: String,
    catalog: String,
    schema: String,
    settings: BTreeMap<String, String>,
    dynamic_filters: bool,
    pushdown_off: bool,
}

impl Key {
    /// `None` for a text that is not kept.
    pub(super) fn new(
        sql: &str,
        session: &State,
        options: &QueryOptions,
        sources: &Snapshot,
    ) -> Option<Self> {
        // A plan is of the moment that its tables are read at.
        let now = options.read_timestamp.is_none();
        (now && sql.len() <= MAX_SQL).then(|| Self {
            version: sources.version(),
            sql: sql.to_owned(),
            catalog: session.catalog.clone(),
            schema: session.schema.clone(),
            settings: session.datafusion.clone(),
            dynamic_filters: options.dynamic_filters,
            pushdown_off: options.pushdown == Pushdown::None,
        })
    }
}

/// One plan, with sources that are only their schemas.
pub(super) struct Kept {
    /// The tables the text names, and what it says of single ones.
    references: Vec<TableReference>,
    hints: Vec<TableHint>,
    plan: LogicalPlan,
    names: Vec<String>,
    parameters: Vec<(String, Option<DataType>)>,
    tables: Vec<(ResolvedTableReference, Arc<TableDef>)>,
    state: Arc<SessionState>,
    context: Arc<TaskContext>,
    /// Whether the optimized plan depends on neither parameters nor the moment.
    timeless: bool,
    optimized: Mutex<Option<Arc<Optimized>>>,
}

/// What the optimizer made of a plan when it read these copies.
struct Optimized {
    plan: LogicalPlan,
    reads: HashMap<ResolvedTableReference, Read>,
}

/// The copy that a table was read of, and which filters stayed here.
struct Read {
    source: SourceName,
    copy: CopyName,
    kept: Vec<(String, Reason)>,
}

/// See the module.
pub(crate) struct PlanCache {
    plans: Cache<Key, Arc<Kept>>,
    /// The version of the catalogs that all of `plans` were made with.
    version: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How the plan cache did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanCacheStats {
    /// Statements whose plan was kept and still right.
    pub hits: u64,
    /// Queries that were planned from their text.
    pub misses: u64,
    /// Plans that are kept.
    pub entries: u64,
}

impl PlanCache {
    /// Keeps at most `entries` plans; those that were not used for longest go first.
    pub(crate) fn new(entries: usize) -> Self {
        let plans = Cache::builder()
            .max_capacity(u64::try_from(entries).unwrap_or(u64::MAX))
            .eviction_policy(EvictionPolicy::lru())
            .build();
        let zero = AtomicU64::default;
        Self { plans, version: zero(), hits: zero(), misses: zero() }
    }

    pub(crate) fn stats(&self) -> PlanCacheStats {
        // Without it, what was put out is counted for a while.
        self.plans.run_pending_tasks();
        PlanCacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.plans.entry_count(),
        }
    }

    /// What is kept of a statement.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<Kept>> {
        // Plans of sources that are no more hold on to their descriptions.
        if self.version.swap(key.version, Ordering::AcqRel) != key.version {
            self.plans.invalidate_all();
        }
        self.plans.get(key)
    }

    /// Counts a plan that was kept and still right.
    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a miss, and keeps the plan that was made with `catalogs` when it depends on nothing but
    /// its key and its tables. `base`: the state that all sessions start with.
    pub(super) fn keep(
        &self,
        key: &Key,
        query: &Query,
        logical: &Logical,
        catalogs: &StatementCatalogs,
        base: &SessionState,
    ) -> Option<Arc<Kept>> {
        self.misses.fetch_add(1, Ordering::Relaxed);
        let kept = Arc::new(Kept::of(query, logical, catalogs, base).ok()??);
        self.plans.insert(key.clone(), Arc::clone(&kept));
        Some(kept)
    }
}

impl Kept {
    fn of(
        query: &Query,
        logical: &Logical,
        catalogs: &StatementCatalogs,
        base: &SessionState,
    ) -> Result<Option<Self>> {
        let Stage::Stated(plan) = &logical.plan else { return Ok(None) };
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) {
            return Ok(None);
        }
        let mut tables: Vec<(ResolvedTableReference, Arc<TableDef>)> = Vec::new();
        let mut fits = true;
        let mut timeless = logical.parameters.is_empty();
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => match definition(&scan.source) {
                    Some(table) => tables.push((resolved(scan, &logical.state), table)),
                    None => fits = false,
                },
                LogicalPlan::Extension(_) => fits = false,
                _ => {}
            }
            node.apply_expressions(|expr| {
                fits &= !expr.exists(|expr| Ok(is_of_session(expr, &logical.state, base)))?;
                timeless &= !expr.exists(|expr| Ok(depends_on_the_moment(expr)))?;
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(if fits { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })?;
        // Where a schema could also be a source, the first that has the table is meant, and which
        // one that is may change.
        let one_place = |name: &ResolvedTableReference| {
            *name.catalog == *SYNOPTIC || catalogs.sources.source(&name.schema).is_none()
        };
        fits &= tables.iter().all(|(name, _)| one_place(name));
        if !fits {
            return Ok(None);
        }
        let mut known = HashSet::new();
        tables.retain(|(name, _)| known.insert(name.clone()));
        let plan = without_sources(plan.clone())?;
        let mut state = SessionState::clone(&logical.state);
        state.register_catalog_list(Arc::new(MemoryCatalogProviderList::new()));
        Ok(Some(Self {
            references: base.resolve_table_references(&query.statement)?,
            hints: query.hints.clone(),
            plan,
            names: logical.names.clone(),
            parameters: logical.parameters.clone(),
            tables,
            state: Arc::new(state),
            context: Arc::clone(&logical.context),
            timeless,
            optimized: Mutex::default(),
        }))
    }

    /// Keeps what the optimizer has made of the plan, when nothing but its tables decides that.
    pub(super) fn learn(&self, plan: &LogicalPlan) {
        if !self.timeless {
            return;
        }
        let mut reads = HashMap::new();
        let whole = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let provider: Arc<dyn TableProvider> = source_as_provider(&scan.source)?;
                let Some(table) = provider.downcast_ref::<SourceTable>() else {
                    return Err(missing());
                };
                reads.insert(resolved(scan, &self.state), Read::of(table));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        if let (Ok(_), Ok(plan)) = (whole, without_sources(plan.clone())) {
            *self.optimized.lock() = Some(Arc::new(Optimized { plan, reads }));
        }
    }

    pub(super) fn references(&self) -> &[TableReference] {
        &self.references
    }

    pub(super) fn hints(&self) -> &[TableHint] {
        &self.hints
    }

    /// Whether every table is what it was, as its source says now.
    pub(super) async fn is_confirmed(&self, catalogs: &StatementCatalogs) -> bool {
        let asked =
            self.tables.iter().map(|(name, table)| look_up(catalogs, name, table, Tables::Asked));
        join_all(asked).await.iter().all(Option::is_some)
    }

    /// The plan with the tables as they are now in `catalogs`; `None` when a table is not what it
    /// was. Errors show again when the text is planned. The tables that are confirmed when they are
    /// read come with the plan.
    pub(super) async fn revived(
        self: &Arc<Self>,
        catalogs: &StatementCatalogs,
        tables: Tables,
    ) -> Option<(Logical, Unconfirmed)> {
        let mut looked_up = Vec::with_capacity(self.tables.len());
        for (name, table) in &self.tables {
            looked_up.push(look_up(catalogs, name, table, tables));
        }
        let mut sources = HashMap::with_capacity(self.tables.len());
        let mut unconfirmed = Vec::new();
        for ((name, _), found) in self.tables.iter().zip(join_all(looked_up).await) {
            let (source, last_known) = found?;
            unconfirmed.extend(last_known);
            sources.insert(name, source);
        }
        let source_of = |scan: &TableScan| sources.get(&resolved(scan, &self.state)).cloned();
        let optimized = self.optimized.lock().clone();
        let plan = match optimized.filter(|optimized| optimized.is_of(&sources)) {
            Some(known) => Stage::Optimized(with_sources(known.plan.clone(), source_of).ok()?),
            None => Stage::Stated(with_sources(self.plan.clone(), source_of).ok()?),
        };
        let logical = Logical {
            plan,
            names: self.names.clone(),
            parameters: self.parameters.clone(),
            state: Arc::clone(&self.state),
            context: Arc::clone(&self.context),
            kept: Some(Arc::clone(self)),
        };
        Some((logical, unconfirmed))
    }
}

impl Optimized {
    /// Whether the same copies are read now; then the tables are told which filters stay here.
    fn is_of(&self, sources: &HashMap<&ResolvedTableReference, Arc<dyn TableSource>>) -> bool {
        let mut told = Vec::new();
        for (name, read) in &self.reads {
            let provider = sources.get(name).and_then(|source| source_as_provider(source).ok());
            let Some(provider) = provider else { return false };
            let Some(table) = provider.downcast_ref::<SourceTable>() else { return false };
            if !read.is_of(table) {
                return false;
            }
            told.push((Arc::clone(&provider), &read.kept));
        }
        for (provider, kept) in told {
            if let Some(table) = provider.downcast_ref::<SourceTable>() {
                kept.iter().for_each(|(what, reason)| table.keep(what.clone(), reason.clone()));
            }
        }
        true
    }
}

impl Read {
    fn of(table: &SourceTable) -> Self {
        let entry = table.entry();
        let (source, copy) = (entry.source().name().clone(), entry.copy().clone());
        Self { source, copy, kept: table.kept() }
    }

    fn is_of(&self, table: &SourceTable) -> bool {
        let entry = table.entry();
        *entry.source().name() == self.source && *entry.copy() == self.copy
    }
}

/// The table of that name now, when it is described as `before`; and its name at its source, when
/// it is what was last known of it.
async fn look_up(
    catalogs: &StatementCatalogs,
    name: &ResolvedTableReference,
    before: &Arc<TableDef>,
    tables: Tables,
) -> Option<(Arc<dyn TableSource>, Option<(SourceName, TableName)>)> {
    let last_known = match tables {
        Tables::Asked => None,
        Tables::ReadFirst => catalogs.last_known(name, true).await,
        Tables::LastKnown => Some(catalogs.last_known(name, false).await?),
    };
    let (provider, unconfirmed): (Arc<dyn TableProvider>, _) = match last_known {
        Some(table) => {
            let source = table.entry().source().name().clone();
            let named = (source, table.definition().name().clone());
            (Arc::new(table), Some(named))
        }
        None => {
            let schema = catalogs.schema(&name.catalog, &name.schema)?;
            (schema.table(&name.table).await.ok()??, None)
        }
    };
    let now = provider.downcast_ref::<SourceTable>()?.definition();
    let same = Arc::ptr_eq(now, before)
        || (now.name() == before.name()
            && now.stamp == before.stamp
            && now.schema == before.schema
            && now.primary_key == before.primary_key);
    same.then(|| (provider_as_source(provider), unconfirmed))
}

fn definition(source: &Arc<dyn TableSource>) -> Option<Arc<TableDef>> {
    let provider: Arc<dyn TableProvider> = source_as_provider(source).ok()?;
    Some(Arc::clone(provider.downcast_ref::<SourceTable>()?.definition()))
}

fn resolved(scan: &TableScan, state: &SessionState) -> ResolvedTableReference {
    let catalog = &state.config_options().catalog;
    scan.table_name.clone().resolve(&catalog.default_catalog, &catalog.default_schema)
}

/// `plan` with other sources in its scans, everywhere.
///
/// # Errors
/// When there is none for a scan.
fn with_sources(
    plan: LogicalPlan,
    mut source_of: impl FnMut(&TableScan) -> Option<Arc<dyn TableSource>>,
) -> Result<LogicalPlan> {
    let plan = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        scan.source = source_of(&scan).ok_or_else(missing)?;
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(plan.data)
}

fn without_sources(plan: LogicalPlan) -> Result<LogicalPlan> {
    with_sources(plan, |scan| Some(Arc::new(Absent(scan.source.schema()))))
}

fn missing() -> DataFusionError {
    DataFusionError::Internal("a scan without a source".to_owned())
}

/// Whether an expression may have another value in the next statement, with the same rows.
fn depends_on_the_moment(expr: &Expr) -> bool {
    let volatility = match expr {
        Expr::ScalarFunction(call) => call.func.signature().volatility,
        Expr::AggregateFunction(call) => call.func.signature().volatility,
        Expr::WindowFunction(call) => call.fun.signature().volatility,
        Expr::ScalarVariable(..) => return true,
        _ => return false,
    };
    volatility != Volatility::Immutable
}

/// Whether an expression calls a function that is not the same for all sessions.
fn is_of_session(expr: &Expr, state: &SessionState, base: &SessionState) -> bool {
    let Expr::ScalarFunction(call) = expr else {
        return matches!(expr, Expr::ScalarVariable(..));
    };
    let name = call.func.name();
    match (state.scalar_functions().get(name), base.scalar_functions().get(name)) {
        (Some(here), Some(base)) => !Arc::ptr_eq(here, base),
        (Some(_), None) => true,
        // Made by the planner itself, from nothing but the expression.
        (None, _) => false,
    }
}

/// In the place of a table's source, in a plan that is kept.
struct Absent(SchemaRef);

impl TableSource for Absent {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }
}

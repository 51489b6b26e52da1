//! The one table provider: a table of any source, in one statement.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Constraint, Constraints, Result, Statistics};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use synoptic_catalog::SourceEntry;
use synoptic_source::{Fragment, PrepareOptions, Pushdown, SourceError, TableDef, TableKind};
use synoptic_types::{Pushdown as PushdownOption, Reason};

use crate::cut::of_scan;
use crate::error::Error;
use crate::exec::{RemoteScanExec, SmallTables};
use crate::scope::Scope;

/// Which statement a table is scanned for.
#[derive(Clone)]
pub(crate) enum ScopeOf {
    /// The table belongs to this statement.
    Statement(Arc<Scope>),
    /// The table is registered in somebody else's session: find out when it is scanned.
    Session(Arc<super::library::SessionScopes>),
}

/// A table of a source.
pub(crate) struct SourceTable {
    entry: Arc<SourceEntry>,
    table: Arc<TableDef>,
    statistics: Statistics,
    constraints: Constraints,
    scope: ScopeOf,
    /// Filters that stay here, found while planning.
    kept: Mutex<Vec<(String, Reason)>>,
}

impl SourceTable {
    /// Looks the table's estimates up and wraps it.
    pub(crate) async fn new(entry: Arc<SourceEntry>, table: Arc<TableDef>, scope: ScopeOf) -> Self {
        let statistics = entry.statistics(&table).await;
        let constraints = primary_key(&table);
        Self { entry, table, statistics, constraints, scope, kept: Mutex::default() }
    }

    /// The table as its source described it.
    pub(crate) fn definition(&self) -> &Arc<TableDef> {
        &self.table
    }

    fn pushdown(&self, filter: &Expr) -> Pushdown {
        let off = match &self.scope {
            ScopeOf::Statement(scope) => scope.pushdown == PushdownOption::None,
            ScopeOf::Session(_) => false,
        };
        if off { Pushdown::No(Reason::PushdownOff) } else { self.decide(filter) }
    }

    /// What the source does with a filter.
    pub(crate) fn decide(&self, filter: &Expr) -> Pushdown {
        if filter.is_volatile() {
            return Pushdown::No(Reason::Volatile(filter.to_string()));
        }
        self.entry.source().pushdown(&self.table, filter)
    }

    /// Notes what stays here, for EXPLAIN.
    pub(crate) fn keep(&self, what: String, reason: Reason) {
        let kept = (what, reason);
        let mut all = self.kept.lock();
        if !all.contains(&kept) {
            all.push(kept);
        }
    }

    /// What stays here, as far as it was noted.
    pub(crate) fn kept(&self) -> Vec<(String, Reason)> {
        self.kept.lock().clone()
    }

    /// The copy of the source it is a table of.
    pub(crate) fn entry(&self) -> &Arc<SourceEntry> {
        &self.entry
    }

    /// The source and the statement, when the table is one statement's.
    pub(crate) fn of_statement(&self) -> Option<(Arc<SourceEntry>, Arc<Scope>)> {
        match &self.scope {
            ScopeOf::Statement(scope) => Some((Arc::clone(&self.entry), Arc::clone(scope))),
            ScopeOf::Session(_) => None,
        }
    }

    /// The scan as a fragment, when all of it is exact at the source.
    pub(crate) fn exact_fragment(
        &self,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Option<Fragment> {
        let mut fragment = Fragment::table(Arc::clone(&self.table));
        if let Some(projection) = projection {
            fragment.projection.clone_from(projection);
        }
        if !filters.iter().all(|filter| self.pushdown(filter) == Pushdown::Exact) {
            return None;
        }
        if limit.is_some() && !self.entry.source().capabilities().limit {
            return None;
        }
        fragment.filters = filters.to_vec();
        fragment.limit = limit;
        Some(fragment)
    }
}

/// The primary key, for plans that can do less work when rows are unique. A key that holds NULLs,
/// as SQLite's may, is not unique where NULLs are one group.
fn primary_key(table: &TableDef) -> Constraints {
    let place = |name: &String| {
        let (place, field) = table.schema.column_with_name(name)?;
        (!field.is_nullable()).then_some(place)
    };
    let columns: Option<Vec<usize>> = table.primary_key.iter().map(place).collect();
    match columns {
        Some(columns) if !columns.is_empty() => {
            Constraints::new_unverified(vec![Constraint::PrimaryKey(columns)])
        }
        _ => Constraints::default(),
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        match self.table.info.kind {
            TableKind::View | TableKind::MaterializedView => TableType::View,
            _ => TableType::Base,
        }
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics.clone())
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match self.pushdown(filter) {
            Pushdown::Exact => TableProviderFilterPushDown::Exact,
            Pushdown::Inexact(reason) => {
                self.keep(filter.to_string(), reason);
                TableProviderFilterPushDown::Inexact
            }
            Pushdown::No(reason) => {
                self.keep(filter.to_string(), reason);
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scope = match &self.scope {
            ScopeOf::Statement(scope) => Arc::clone(scope),
            ScopeOf::Session(sessions) => sessions.scope_of(state),
        };
        let source = self.entry.source();
        let mut fragment = Fragment::table(Arc::clone(&self.table));
        if let Some(projection) = projection {
            fragment.projection.clone_from(projection);
        }
        let auto = scope.pushdown == PushdownOption::Auto;
        if auto {
            let sent = filters.iter().filter(|f| !matches!(self.pushdown(f), Pushdown::No(_)));
            fragment.filters = sent.cloned().collect();
            // A limit comes with inexact filters only by mistake; it would drop rows.
            let exact = fragment.filters.iter().all(|f| self.pushdown(f) == Pushdown::Exact)
                && fragment.filters.len() == filters.len();
            fragment.limit = limit.filter(|_| exact && source.capabilities().limit);
        }
        let config = state.config_options();
        let options = PrepareOptions {
            target_partitions: config.execution.target_partitions.max(1),
            batch_size: config.execution.batch_size.into(),
        };
        let snapshot = scope.snapshot(&self.entry);
        let place =
            |e: SourceError| Error::from(e.in_source(source.name()).in_table(self.table.name()));
        let question = of_scan(&fragment);
        let prepared = source.prepare(fragment, &snapshot, &options).await.map_err(place)?;
        let tables = vec![self.table.name().clone()];
        let record = scope.record(source.name().clone(), tables, prepared.as_ref());
        let kept = self.kept();
        let entry = Arc::clone(&self.entry);
        let scan = RemoteScanExec::new(entry, prepared, scope, record, kept, question);
        let most = state.config().get_extension::<SmallTables>().map_or(0, |small| small.rows);
        let rows = self.statistics.num_rows.get_value();
        let small = most > 0 && rows.is_some_and(|rows| *rows <= most);
        Ok(Arc::new(if small { scan.of_small_table() } else { scan }))
    }
}

impl fmt::Debug for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceTable({}.{})", self.entry.source().name(), self.table.name())
    }
}

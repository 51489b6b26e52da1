//! The source itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::common::Statistics;
use datafusion::logical_expr::Expr;
use moka::sync::Cache;
use synoptic_source::{
    Capabilities, ChangeRequest, CopyPosition, FilterSupport, Fragment, OperatorKind,
    PrepareOptions, PreparedScan, PreparedWrite, Pushdown, Relation, Result, Snapshot,
    SnapshotKind, Source, SourceCheck, SourceError, Statement, TableDef, TableInfo, WriteRequest,
};
use synoptic_types::{Reason, SourceName, TableName};
use tokio::sync::Semaphore;

use super::change::SqliteChange;
use super::connection::Connections;
use super::discover::{self, Detail, SCHEMA};
use super::filter;
use super::meta::Meta;
use super::options::Options;
use super::relation::{self, AGGREGATES, COSTS, JOINS, OPERATORS};
use super::scan::{Read, SqliteScan};
use super::select::select;
use super::snapshot::{Shared, SqliteSnapshot};
use super::statistics;
use super::worker::Plan;
use super::write::SqliteWrite;
use crate::sql::{Dialect as _, SQLITE};

/// Estimates are kept this long; they steer plans, never answers.
const ESTIMATES_LIFETIME: Duration = Duration::from_secs(60);
const ESTIMATES_KEPT: u64 = 10_000;

/// One database file.
#[derive(Debug)]
pub(super) struct SqliteSource {
    shared: Arc<Shared>,
    meta: Meta,
    capabilities: Capabilities,
    /// By table and its stamp.
    estimates: Cache<(TableName, String), Statistics>,
}

impl SqliteSource {
    pub fn new(name: SourceName, options: Options) -> Self {
        let connections = Arc::new(Connections::new(&options));
        let permits = Arc::new(Semaphore::new(options.max_connections));
        let meta = Meta::new(Arc::clone(&connections), format!("sqlite {name} meta"));
        let capabilities = Capabilities {
            dialect: "sqlite",
            projection: true,
            filters: FilterSupport::Exact,
            functions: SQLITE.functions(),
            operators: &OPERATORS,
            aggregates: &AGGREGATES,
            joins: &JOINS,
            costs: COSTS,
            limit: true,
            dynamic_filters: true,
            parallel_scan: false,
            snapshot: SnapshotKind::Transaction,
        };
        Self {
            shared: Arc::new(Shared { name, options, connections, permits }),
            meta,
            capabilities,
            estimates: Cache::builder()
                .max_capacity(ESTIMATES_KEPT)
                .time_to_live(ESTIMATES_LIFETIME)
                .build(),
        }
    }

    fn detail<'a>(&self, table: &'a TableDef) -> Result<&'a Detail> {
        table.detail::<Detail>().ok_or_else(|| {
            SourceError::internal("the description is another source's")
                .in_source(&self.shared.name)
                .in_table(table.name())
        })
    }

    /// What was estimated not long ago.
    async fn estimates(&self, table: &TableDef) -> Result<Statistics> {
        let key = (table.name().clone(), table.stamp.clone());
        match self.estimates.get(&key) {
            Some(known) => Ok(known),
            None => self.statistics(table).await,
        }
    }

    fn place(&self, table: &TableName) -> impl Fn(SourceError) -> SourceError {
        |error| error.in_source(&self.shared.name).in_table(table)
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn name(&self) -> &SourceName {
        &self.shared.name
    }

    fn connector(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn default_schema(&self) -> &str {
        SCHEMA
    }

    fn location(&self) -> String {
        self.shared.options.path.display().to_string()
    }

    async fn position(&self) -> Result<CopyPosition> {
        let position = self.meta.position().await.map_err(|e| e.in_source(&self.shared.name))?;
        Ok(CopyPosition::at(position))
    }

    async fn check(&self) -> Result<SourceCheck> {
        let started = Instant::now();
        let question = |connection: &rusqlite::Connection| {
            // Reads the file: the version alone would come from the library.
            connection.query_row(
                "SELECT sqlite_version(), count(*) FROM main.sqlite_schema",
                [],
                |row| row.get::<_, String>(0),
            )
        };
        let version = self.meta.ask(question).await.map_err(|e| e.in_source(&self.shared.name))?;
        Ok(SourceCheck {
            version: format!("SQLite {version}"),
            location: self.location(),
            freshness: "strong read in one read transaction".to_owned(),
            round_trip: started.elapsed(),
        })
    }

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        let mut tables =
            self.meta.ask(discover::tables).await.map_err(|e| e.in_source(&self.shared.name))?;
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    async fn stamp(&self, table: &TableName) -> Result<Option<String>> {
        if &*table.schema != SCHEMA {
            return Ok(None);
        }
        let name = Arc::clone(&table.name);
        let stamp = self.meta.ask(move |connection| discover::stamp(connection, &name)).await;
        stamp.map_err(self.place(table))
    }

    async fn table(&self, table: &TableName) -> Result<Option<Arc<TableDef>>> {
        if &*table.schema != SCHEMA {
            return Ok(None);
        }
        let name = table.clone();
        let found = self.meta.ask(move |connection| discover::describe(connection, &name)).await;
        Ok(found.map_err(self.place(table))?.map(Arc::new))
    }

    async fn statistics(&self, table: &TableDef) -> Result<Statistics> {
        let detail = self.detail(table)?.clone();
        let def = table.clone();
        let statistics =
            self.meta.ask(move |connection| statistics::table(connection, &def, &detail)).await;
        let statistics = statistics.map_err(self.place(table.name()))?;
        let key = (table.name().clone(), table.stamp.clone());
        self.estimates.insert(key, statistics.clone());
        Ok(statistics)
    }

    fn pushdown(&self, table: &TableDef, filter: &Expr) -> Pushdown {
        let Some(detail) = table.detail::<Detail>() else {
            return Pushdown::No(Reason::NotCapable(
                "filters on another source's table".to_owned(),
            ));
        };
        match filter::render(filter, &table.schema, detail) {
            Ok(rendered) => rendered.pushdown(),
            Err(reason) => Pushdown::No(reason),
        }
    }

    fn begin(&self, statement: &Arc<Statement>) -> Arc<dyn Snapshot> {
        Arc::new(SqliteSnapshot::new(&self.shared, statement))
    }

    async fn prepare(
        &self,
        fragment: Fragment,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        super::scan::own(Arc::clone(snapshot), &self.shared)?;
        let table = Arc::clone(&fragment.table);
        let detail = self.detail(&table)?;
        let (sql, columns) = select(&fragment, detail).map_err(self.place(table.name()))?;
        let schema = fragment.schema();
        // Only an estimate: a table that is gone by now is reported by the scan itself.
        let known = self.estimates(&table).await;
        let known = known.unwrap_or_else(|_| Statistics::new_unknown(&table.schema));
        let statistics = statistics::fragment(&known, &fragment);
        let plan = Plan {
            source: self.shared.name.clone(),
            table: table.name().clone(),
            stamp: table.stamp.clone(),
            shown: sql.clone(),
            sql,
            columns: columns.into(),
            schema,
            batch_size: options.batch_size.max(1),
            rowid: detail.rowid,
            further: Vec::new(),
            checks: Vec::new(),
        };
        let shared = Arc::clone(&self.shared);
        let read = Read::Fragment(fragment);
        Ok(Arc::new(SqliteScan { shared, read, plan: Arc::new(plan), statistics }))
    }

    async fn estimate(&self, fragment: &Fragment) -> Result<Statistics> {
        let known = self.estimates(&fragment.table).await?;
        Ok(statistics::fragment(&known, fragment))
    }

    fn supports(&self, relation: &Relation) -> std::result::Result<(), Reason> {
        if !OPERATORS.contains(&relation.kind()) && relation.kind() != OperatorKind::Scan {
            return Err(Reason::NotCapable(relation.kind().to_string()));
        }
        relation::render(relation).map(drop)
    }

    async fn prepare_relation(
        &self,
        relation: &Relation,
        estimate: Statistics,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        super::scan::own(Arc::clone(snapshot), &self.shared)?;
        let plan = relation::plan(relation, &self.shared.name, options.batch_size.max(1))
            .map_err(|error| error.in_source(&self.shared.name))?;
        Ok(Arc::new(SqliteScan {
            shared: Arc::clone(&self.shared),
            read: Read::Relation(Arc::new(relation.clone())),
            plan: Arc::new(plan),
            statistics: estimate,
        }))
    }

    fn prepare_write(&self, request: WriteRequest) -> Result<Arc<dyn PreparedWrite>> {
        let detail = self.detail(&request.table)?;
        Ok(Arc::new(SqliteWrite::new(&self.shared, &request, detail)?))
    }

    fn prepare_change(&self, request: ChangeRequest) -> Result<Arc<dyn PreparedWrite>> {
        let detail = self.detail(&request.table)?;
        Ok(Arc::new(SqliteChange::new(&self.shared, &request, detail)?))
    }
}

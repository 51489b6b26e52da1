//! The [`Source`] itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::Statistics;
use datafusion::logical_expr::Expr;
use moka::sync::Cache;
use synoptic_source::{
    Capabilities, ChangeRequest, CopyPosition, ErrorKind, FilterSupport, Fragment, OperatorCosts,
    OperatorKind, PrepareOptions, PreparedScan, PreparedWrite, Pushdown, Relation, Result,
    Snapshot, SnapshotKind, Source, SourceCheck, SourceError, Statement, TableDef, TableInfo,
    WriteRequest,
};
use synoptic_types::{Position, Reason, SourceName, TableName};
use tokio::time::Instant;

use crate::sql::{Dialect as _, POSTGRES, render_filter};

use super::discover::{PgTable, describe_sql, table_def, table_info, tables_sql};
use super::explain::expected_rows;
use super::options::Options;
use super::pool::Pool;
use super::position::Memory;
use super::ranges::Ranges;
use super::relation::{self, AGGREGATES, JOINS, OPERATORS, render};
use super::request::{comment, request};
use super::rows::Expected;
use super::scan::{PostgresScan, ScanPlan, shared};
use super::snapshot::{PgSnapshot, Shared};
use super::statistics::{Estimates, STATISTICS_SQL};
use super::write::PostgresWrite;

const OLDEST_VERSION: i32 = 120_000;

/// Estimates are kept this long; they steer plans, never answers.
const ESTIMATES_LIFETIME: Duration = Duration::from_secs(60);
const ESTIMATES_KEPT: u64 = 10_000;

/// A PostgreSQL database.
#[derive(Debug)]
pub(super) struct PostgresSource {
    name: SourceName,
    pool: Arc<Pool>,
    /// One connection of its own for the position, so that it is known while scans use all others.
    scout: Arc<Pool>,
    memory: Arc<Memory>,
    capabilities: Capabilities,
    estimates: Cache<(TableName, String), Arc<Estimates>>,
}

impl PostgresSource {
    pub fn new(name: SourceName, options: Options) -> Self {
        let one = Options { max_connections: 1, ..options.clone() };
        Self {
            pool: Arc::new(Pool::new(name.clone(), options)),
            scout: Arc::new(Pool::new(name.clone(), one)),
            memory: Arc::default(),
            name,
            capabilities: Capabilities {
                dialect: "postgres",
                projection: true,
                filters: FilterSupport::Exact,
                functions: POSTGRES.functions(),
                operators: &OPERATORS,
                aggregates: &AGGREGATES,
                joins: &JOINS,
                costs: OperatorCosts::SERVER,
                limit: true,
                dynamic_filters: true,
                parallel_scan: true,
                snapshot: SnapshotKind::Transaction,
            },
            estimates: Cache::builder()
                .max_capacity(ESTIMATES_KEPT)
                .time_to_live(ESTIMATES_LIFETIME)
                .build(),
        }
    }

    fn expected(&self, statistics: &Statistics) -> Expected {
        Expected { rows: statistics.num_rows, few: self.pool.options().max_query_rows }
    }

    async fn estimates(&self, table: &TableDef) -> Result<Arc<Estimates>> {
        let key = (table.name().clone(), table.stamp.clone());
        if let Some(known) = self.estimates.get(&key) {
            return Ok(known);
        }
        let name = table.name();
        let rows = self.pool.query(&STATISTICS_SQL, &[&name.schema, &name.name]).await?;
        let json = rows.first().and_then(|row| row.try_get::<_, String>(0).ok());
        let estimates = json.map(|json| Estimates::from_json(&json, table)).unwrap_or_default();
        let estimates = Arc::new(estimates);
        self.estimates.insert(key, Arc::clone(&estimates));
        Ok(estimates)
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn connector(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn default_schema(&self) -> &str {
        "public"
    }

    fn location(&self) -> String {
        self.pool.options().location.clone()
    }

    async fn settle(&self) {
        futures::future::join(self.pool.settle(), self.scout.settle()).await;
    }

    async fn position(&self) -> Result<CopyPosition> {
        self.scout.position(&self.memory).await
    }

    fn confirms_tables(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<SourceCheck> {
        let asked = Instant::now();
        let sql = "SELECT pg_catalog.current_setting('server_version'), \
                   pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
                   pg_catalog.pg_is_in_recovery()";
        let rows = self.pool.query(sql, &[]).await?;
        let round_trip = asked.elapsed();
        let answer = rows.first().and_then(|row| {
            let version = row.try_get::<_, String>(0).ok()?;
            Some((version, row.try_get::<_, i32>(1).ok()?, row.try_get::<_, bool>(2).ok()?))
        });
        let Some((version, number, standby)) = answer else {
            let message = "PostgreSQL gave no version that can be read";
            return Err(self.pool.name(SourceError::internal(message)));
        };
        if number < OLDEST_VERSION {
            return Err(self.pool.name(SourceError::new(
                ErrorKind::Unsupported,
                format!("PostgreSQL {version} is too old: the connector needs 12 or later"),
            )));
        }
        // Distributions append their own name.
        let version = version.split_whitespace().next().unwrap_or_default();
        let known = self.position().await?.position != Position::Unknown;
        let freshness = match (standby, known) {
            (false, true) => "strong read in one transaction",
            (false, false) => {
                "strong read in one transaction; no position: the role may not call \
                 pg_control_system()"
            }
            (true, true) => "a standby: one snapshot of what it has replayed",
            (true, false) => {
                "a standby whose timeline cannot be known: grant pg_monitor to the role, or wait \
                 for its next restartpoint"
            }
        };
        Ok(SourceCheck {
            version: format!("PostgreSQL {version}"),
            location: self.location(),
            freshness: freshness.to_owned(),
            round_trip,
        })
    }

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        let rows = self.pool.query(&tables_sql(), &[]).await?;
        let tables: Result<Vec<TableInfo>> = rows.iter().map(table_info).collect();
        let mut tables = tables.map_err(|error| self.pool.name(error))?;
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tables)
    }

    async fn stamp(&self, table: &TableName) -> Result<Option<String>> {
        self.pool.stamp(table).await
    }

    async fn table(&self, table: &TableName) -> Result<Option<Arc<TableDef>>> {
        let rows = self.pool.query(&describe_sql(), &[&table.schema, &table.name]).await?;
        let Some(json) = rows.first().and_then(|row| row.try_get::<_, String>(0).ok()) else {
            return Ok(None);
        };
        let described = table_def(table, &json).map_err(|error| self.pool.name(error))?;
        Ok(Some(Arc::new(described)))
    }

    async fn statistics(&self, table: &TableDef) -> Result<Statistics> {
        Ok(self.estimates(table).await?.table(table))
    }

    fn pushdown(&self, table: &TableDef, filter: &Expr) -> Pushdown {
        let Some(detail) = table.detail::<PgTable>() else {
            return Pushdown::No(Reason::NotCapable("a table of another source".to_owned()));
        };
        match render_filter(filter, &table.schema, detail, &POSTGRES) {
            Ok(_) => Pushdown::Exact,
            Err(reason) => Pushdown::No(reason),
        }
    }

    fn begin(&self, statement: &Arc<Statement>) -> Arc<dyn Snapshot> {
        let shared =
            Shared::new(Arc::clone(&self.pool), Arc::clone(&self.memory), Arc::clone(statement));
        Arc::new(PgSnapshot(shared))
    }

    async fn prepare(
        &self,
        fragment: Fragment,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        let shared = shared(&self.pool, snapshot)?;
        // A plan without estimates is better than none; the read itself says what is wrong.
        let estimates = match self.estimates(&fragment.table).await {
            Ok(estimates) => estimates,
            Err(error) => {
                tracing::debug!(%error, "no estimates from PostgreSQL");
                Arc::default()
            }
        };
        let wanted = options.target_partitions;
        let ranges = Ranges::of(&fragment, &estimates, self.pool.options(), wanted);
        let query_id = shared.statement.query_id.clone();
        let statistics = estimates.fragment(&fragment);
        let request = request(&fragment, &ranges, self.expected(&statistics), &query_id)
            .map_err(|error| self.pool.name(error).in_table(fragment.table.name()))?;
        let hashes = estimates.hashes_lists();
        let plan = ScanPlan::of_fragment(&shared, request, fragment, ranges, options.batch_size);
        let plan = plan.map_err(|error| self.pool.name(error))?;
        Ok(Arc::new(PostgresScan::new(Arc::clone(&self.pool), plan, query_id, statistics, hashes)))
    }

    async fn estimate(&self, fragment: &Fragment) -> Result<Statistics> {
        Ok(self.estimates(&fragment.table).await?.fragment(fragment))
    }

    async fn expected_rows(
        &self,
        relations: &[Arc<Relation>],
        within: Duration,
    ) -> Result<Vec<Option<f64>>> {
        expected_rows(&self.pool, relations, within).await
    }

    fn supports(&self, relation: &Relation) -> Result<(), Reason> {
        if !OPERATORS.contains(&relation.kind()) && relation.kind() != OperatorKind::Scan {
            return Err(Reason::NotCapable(relation.kind().to_string()));
        }
        render(relation).map(drop)
    }

    async fn prepare_relation(
        &self,
        relation: &Relation,
        estimate: Statistics,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        let shared = shared(&self.pool, snapshot)?;
        let query_id = shared.statement.query_id.clone();
        let comment = comment(&query_id);
        let (request, encodings) = relation::request(relation, self.expected(&estimate), &comment)
            .map_err(|error| self.pool.name(error))?;
        // Asked for when it was planned, and kept.
        let hashes = match relation.tables().first() {
            Some(table) => self.estimates(table).await.is_ok_and(|known| known.hashes_lists()),
            None => false,
        };
        let plan = ScanPlan::of_relation(&shared, request, relation, encodings, options.batch_size);
        Ok(Arc::new(PostgresScan::new(Arc::clone(&self.pool), plan, query_id, estimate, hashes)))
    }

    fn prepare_write(&self, request: WriteRequest) -> Result<Arc<dyn PreparedWrite>> {
        let write = PostgresWrite::new(&self.pool, &self.memory, self.name.as_str(), &request);
        let write = write.map_err(|error| self.pool.name(error).in_table(request.table.name()))?;
        Ok(Arc::new(write))
    }

    fn prepare_change(&self, request: ChangeRequest) -> Result<Arc<dyn PreparedWrite>> {
        let write = PostgresWrite::change(&self.pool, &self.memory, self.name.as_str(), &request);
        let write = write.map_err(|error| self.pool.name(error).in_table(request.table.name()))?;
        Ok(Arc::new(write))
    }
}

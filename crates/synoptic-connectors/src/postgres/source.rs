//! The [`Source`] itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::Statistics;
use datafusion::logical_expr::Expr;
use moka::sync::Cache;
use synoptic_source::{
    Capabilities, ErrorKind, FilterSupport, Fragment, OperatorKind, PrepareOptions, PreparedScan,
    Pushdown, Relation, Result, Snapshot, SnapshotKind, Source, SourceCheck, SourceError,
    Statement, TableDef, TableInfo,
};
use synoptic_types::{QueryId, Reason, SourceName, TableName};
use tokio::time::Instant;

use crate::sql::{Dialect as _, POSTGRES, render_filter};

use super::discover::{PgTable, describe_sql, stamp_sql, table_def, table_info, tables_sql};
use super::options::Options;
use super::pool::Pool;
use super::relation::{OPERATORS, render, request};
use super::scan::{PostgresScan, ScanPlan, foreign_table, shared};
use super::snapshot::{PgSnapshot, ScanRequest, Shared, qualified};
use super::statistics::{Estimates, STATISTICS_SQL};
use super::types::Encoding;

const OLDEST_VERSION: i32 = 120_000;

/// Estimates are kept this long; they steer plans, never answers.
const ESTIMATES_LIFETIME: Duration = Duration::from_secs(60);
const ESTIMATES_KEPT: u64 = 10_000;

/// A PostgreSQL database.
#[derive(Debug)]
pub(super) struct PostgresSource {
    name: SourceName,
    pool: Arc<Pool>,
    capabilities: Capabilities,
    estimates: Cache<(TableName, String), Arc<Estimates>>,
}

impl PostgresSource {
    pub fn new(name: SourceName, options: Options) -> Self {
        Self {
            pool: Arc::new(Pool::new(name.clone(), options)),
            name,
            capabilities: Capabilities {
                dialect: "postgres",
                projection: true,
                filters: FilterSupport::Exact,
                functions: POSTGRES.functions(),
                operators: &OPERATORS,
                limit: true,
                dynamic_filters: false,
                parallel_scan: false,
                snapshot: SnapshotKind::Transaction,
            },
            estimates: Cache::builder()
                .max_capacity(ESTIMATES_KEPT)
                .time_to_live(ESTIMATES_LIFETIME)
                .build(),
        }
    }

    async fn estimates(&self, table: &TableDef) -> Result<Arc<Estimates>> {
        let key = (table.name().clone(), table.stamp.clone());
        if let Some(known) = self.estimates.get(&key) {
            return Ok(known);
        }
        let name = table.name();
        let rows = self.pool.query(STATISTICS_SQL, &[&name.schema, &name.name]).await?;
        let json = rows.first().and_then(|row| row.try_get::<_, String>(0).ok());
        let estimates = json.map(|json| Estimates::from_json(&json, table)).unwrap_or_default();
        let estimates = Arc::new(estimates);
        self.estimates.insert(key, Arc::clone(&estimates));
        Ok(estimates)
    }

    /// The texts of a fragment.
    fn request(&self, fragment: &Fragment, query_id: &QueryId) -> Result<ScanRequest> {
        let table = &fragment.table;
        let detail = table.detail::<PgTable>().ok_or_else(foreign_table)?;
        let column = |i: usize| detail.columns.get(i).ok_or_else(foreign_table);

        let mut used: BTreeSet<usize> = fragment.projection.iter().copied().collect();
        let mut conditions = Vec::with_capacity(fragment.filters.len());
        for filter in &fragment.filters {
            for reference in filter.column_refs() {
                used.extend(table.schema.index_of(&reference.name));
            }
            let condition = render_filter(filter, &table.schema, detail, &POSTGRES);
            conditions.push(condition.map_err(|reason| {
                SourceError::internal(format!("a filter was pushed that stays here: {reason}"))
            })?);
        }

        let mut columns = Vec::with_capacity(fragment.projection.len());
        let mut wire_types = Vec::with_capacity(fragment.projection.len());
        for &i in &fragment.projection {
            let column = column(i)?;
            columns.push(column.select());
            wire_types.push(column.resolved.wire_oid);
        }

        let mut select = format!("SELECT {} FROM {}", columns.join(", "), qualified(table.name()));
        if !conditions.is_empty() {
            select.push_str(" WHERE ");
            select.push_str(&conditions.join(" AND "));
        }
        if let Some(limit) = fragment.limit {
            // More than the server can count is all.
            select.push_str(&format!(" LIMIT {}", i64::try_from(limit).unwrap_or(i64::MAX)));
        }
        let comment = comment(query_id);
        Ok(ScanRequest {
            copy: format!("{comment} COPY ({select}) TO STDOUT (FORMAT BINARY)"),
            select: (!detail.lockable).then(|| format!("{comment} {select}")),
            table: Arc::clone(table),
            used: used.into_iter().collect(),
            further: Vec::new(),
            wire_types,
        })
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
        self.pool.settle().await;
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
        let freshness = if standby {
            "a standby: one snapshot of what it has replayed"
        } else {
            "strong read in one transaction"
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
        let rows = self.pool.query(&stamp_sql(), &[&table.schema, &table.name]).await?;
        Ok(rows.first().and_then(|row| row.try_get(0).ok()))
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
        let shared = Shared::new(Arc::clone(&self.pool), Arc::clone(statement));
        Arc::new(PgSnapshot(shared))
    }

    async fn prepare(
        &self,
        fragment: Fragment,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        let shared = shared(&self.pool, snapshot)?;
        let query_id = &shared.statement.query_id;
        let request = self
            .request(&fragment, query_id)
            .map_err(|error| self.pool.name(error).in_table(fragment.table.name()))?;
        let request = Arc::new(request);
        // A plan without estimates is better than none; the read itself says what is wrong.
        let estimates = match self.estimates(&fragment.table).await {
            Ok(estimates) => estimates,
            Err(error) => {
                tracing::debug!(%error, "no estimates from PostgreSQL");
                Arc::default()
            }
        };
        let plan = ScanPlan {
            registration: shared.register(&request),
            request,
            schema: fragment.schema(),
            batch_size: options.batch_size,
            encodings: encodings(&fragment).map_err(|error| self.pool.name(error))?,
        };
        let statistics = estimates.fragment(&fragment);
        Ok(Arc::new(PostgresScan::new(Arc::clone(&self.pool), plan, statistics)))
    }

    async fn estimate(&self, fragment: &Fragment) -> Result<Statistics> {
        Ok(self.estimates(&fragment.table).await?.fragment(fragment))
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
        let comment = comment(&shared.statement.query_id);
        let request = request(relation, &comment).map_err(|error| self.pool.name(error))?;
        let (request, encodings) = (Arc::new(request.0), request.1);
        let plan = ScanPlan {
            registration: shared.register(&request),
            request,
            schema: Arc::clone(&relation.schema),
            batch_size: options.batch_size,
            encodings,
        };
        Ok(Arc::new(PostgresScan::new(Arc::clone(&self.pool), plan, estimate)))
    }
}

fn encodings(fragment: &Fragment) -> Result<Vec<Encoding>> {
    let detail = fragment.table.detail::<PgTable>().ok_or_else(foreign_table)?;
    let column = |&i: &usize| detail.columns.get(i).map(|column| column.encoding().clone());
    fragment.projection.iter().map(column).collect::<Option<_>>().ok_or_else(foreign_table)
}

/// Tells the server's operators whose query it is. Ids can come from outside.
fn comment(query_id: &QueryId) -> String {
    let id: String = query_id
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.:".contains(c) { c } else { '_' })
        .collect();
    format!("/* synoptic query_id={id} */")
}

//! `synoptic.system`: the engine's own state as tables.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::Result;
use futures::future::join_all;
use synoptic_source::FilterSupport;

use crate::engine::Engine;
use crate::query::QueryRecord;
use crate::session::settings;

use super::clock::ClockTable;
use super::copies::Copies;
use super::receipts::Receipts;
use super::rows::{Rows, RowsSchema, Wanted};

/// The tables there are, with the schema each always has.
pub(crate) const SYSTEM_TABLES: [&str; 8] =
    ["clock", "copies", "last_receipt", "queries", "receipts", "settings", "sources", "tables"];

/// Makes the provider of the schema.
pub(super) struct SystemSchema;

impl SystemSchema {
    #[expect(clippy::new_ret_no_self, reason = "the schema is data, built here")]
    pub(super) fn new(engine: Arc<Engine>, last: Option<Arc<QueryRecord>>) -> impl SchemaProvider {
        RowsSchema(vec![
            ("clock", Arc::new(ClockTable(Arc::clone(&engine)))),
            ("copies", Arc::new(Copies(Arc::clone(&engine)))),
            ("last_receipt", Arc::new(Receipts::last(Arc::clone(&engine), last))),
            ("queries", Arc::new(Queries(Arc::clone(&engine)))),
            ("receipts", Arc::new(Receipts::all(Arc::clone(&engine)))),
            ("settings", Arc::new(Settings(Arc::clone(&engine)))),
            ("sources", Arc::new(Sources(Arc::clone(&engine)))),
            ("tables", Arc::new(Tables(engine))),
        ])
    }
}

/// The columns of a system table.
pub(crate) async fn system_schema_of(engine: &Arc<Engine>, table: &str) -> Option<SchemaRef> {
    let schema = SystemSchema::new(Arc::clone(engine), None);
    Some(schema.table(table).await.ok()??.schema())
}

pub(super) fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

pub(super) fn column<T: AsRef<str>>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

#[derive(Debug)]
struct Sources(Arc<Engine>);

#[async_trait]
impl Rows for Sources {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("source", false),
            text("connector", false),
            text("location", false),
            text("default_schema", false),
            text("status", false),
            text("version", true),
            text("freshness", true),
            Field::new("round_trip_ms", DataType::Float64, true),
            text("filters", false),
            text("error", true),
        ]))
    }

    async fn rows(&self, _wanted: &Wanted) -> Result<RecordBatch> {
        let snapshot = self.0.host().snapshot();
        let entries: Vec<_> = snapshot.sources().collect();
        let checks = join_all(entries.iter().map(|entry| self.0.check(entry))).await;
        let filters = |support| match support {
            FilterSupport::Exact => "exact",
            FilterSupport::Pruning => "pruning",
        };
        let sources: Vec<_> = entries.iter().map(|entry| entry.source()).collect();
        let ok = || checks.iter().map(|check| check.as_ref().ok());
        let columns: Vec<ArrayRef> = vec![
            column(sources.iter().map(|s| Some(s.name().as_str()))),
            column(sources.iter().map(|s| Some(s.connector()))),
            column(sources.iter().map(|s| Some(s.location()))),
            column(sources.iter().map(|s| Some(s.default_schema()))),
            column(checks.iter().map(|c| Some(if c.is_ok() { "up" } else { "down" }))),
            column(ok().map(|check| check.map(|c| c.version.as_str()))),
            column(ok().map(|check| check.map(|c| c.freshness.as_str()))),
            Arc::new(
                ok().map(|check| check.map(|c| c.round_trip.as_secs_f64() * 1e3))
                    .collect::<Float64Array>(),
            ),
            column(sources.iter().map(|s| Some(filters(s.capabilities().filters)))),
            column(checks.iter().map(|c| c.as_ref().err().map(ToString::to_string))),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

#[derive(Debug)]
struct Tables(Arc<Engine>);

#[async_trait]
impl Rows for Tables {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("source", false),
            text("schema", false),
            text("table", false),
            text("kind", false),
            text("comment", true),
        ]))
    }

    async fn rows(&self, _wanted: &Wanted) -> Result<RecordBatch> {
        let mut tables = self.0.tables().await;
        tables.retain(|table| table.is_of_a_source());
        let columns = vec![
            column(tables.iter().map(|t| Some(&t.catalog))),
            column(tables.iter().map(|t| Some(&t.schema))),
            column(tables.iter().map(|t| Some(&t.name))),
            column(tables.iter().map(|t| Some(t.kind))),
            column(tables.iter().map(|t| t.comment.as_ref())),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

#[derive(Debug)]
struct Queries(Arc<Engine>);

#[async_trait]
impl Rows for Queries {
    fn schema(&self) -> SchemaRef {
        let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let count = |name| Field::new(name, DataType::UInt64, false);
        Arc::new(Schema::new(vec![
            text("query_id", false),
            text("state", false),
            text("client", false),
            Field::new("started_at", at, false),
            Field::new("elapsed_ms", DataType::Float64, false),
            count("rows"),
            count("source_rows"),
            count("source_bytes"),
            text("sql", false),
            text("error", true),
        ]))
    }

    async fn rows(&self, _wanted: &Wanted) -> Result<RecordBatch> {
        let queries = self.0.queries();
        let count = |values: Vec<u64>| Arc::new(UInt64Array::from(values)) as ArrayRef;
        let started = queries.iter().map(|q| q.started_at.timestamp_micros());
        let elapsed = queries.iter().map(|q| q.elapsed.as_secs_f64() * 1e3);
        let scans = |of: fn(&synoptic_freshness::ScanReceipt) -> u64| {
            queries.iter().map(|q| q.receipt.scans.iter().map(of).sum()).collect()
        };
        let columns: Vec<ArrayRef> = vec![
            column(queries.iter().map(|q| Some(q.id.as_str()))),
            column(queries.iter().map(|q| Some(q.state.as_str()))),
            column(queries.iter().map(|q| Some(&q.client))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(started).with_timezone("UTC")),
            Arc::new(Float64Array::from_iter_values(elapsed)),
            count(queries.iter().map(|q| q.rows).collect()),
            count(scans(|scan| scan.rows)),
            count(scans(|scan| scan.bytes)),
            column(queries.iter().map(|q| Some(&q.sql))),
            column(queries.iter().map(|q| q.error.as_ref())),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// The defaults of the server; a session's own values are in `SHOW ALL`.
#[derive(Debug)]
struct Settings(Arc<Engine>);

#[async_trait]
impl Rows for Settings {
    fn schema(&self) -> SchemaRef {
        let names = ["name", "value", "description"];
        Arc::new(Schema::new(names.map(|name| text(name, false)).to_vec()))
    }

    async fn rows(&self, _wanted: &Wanted) -> Result<RecordBatch> {
        let settings = settings::of_engine(self.0.config());
        let columns = vec![
            column(settings.iter().map(|s| Some(&s.name))),
            column(settings.iter().map(|s| Some(&s.value))),
            column(settings.iter().map(|s| Some(s.description))),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

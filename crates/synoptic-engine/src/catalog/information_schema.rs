//! `information_schema`, over every catalog, without failing for one source that is down.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::Result;
use futures::StreamExt;

use crate::engine::Engine;
use crate::metadata::TableEntry;

use super::rows::{Rows, RowsSchema, Wanted};

/// Tables described at once while `information_schema.columns` is read.
const DESCRIBED_AT_ONCE: usize = 8;

/// Makes the provider of the schema.
pub(super) struct InformationSchema;

impl InformationSchema {
    #[expect(clippy::new_ret_no_self, reason = "the schema is data, built here")]
    pub(super) fn new(engine: Arc<Engine>) -> impl SchemaProvider {
        RowsSchema(vec![
            ("columns", Arc::new(Columns(Arc::clone(&engine)))),
            ("schemata", Arc::new(Schemata(Arc::clone(&engine)))),
            ("tables", Arc::new(Tables { engine: Arc::clone(&engine), views: false })),
            ("views", Arc::new(Tables { engine, views: true })),
        ])
    }
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn column<T: AsRef<str>>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn is_wanted(wanted: &Wanted, table: &TableEntry) -> bool {
    [
        ("table_catalog", &table.catalog),
        ("table_schema", &table.schema),
        ("table_name", &table.name),
    ]
    .into_iter()
    .all(|(column, value)| wanted.get(column).is_none_or(|wanted| wanted == value))
}

#[derive(Debug)]
struct Tables {
    engine: Arc<Engine>,
    views: bool,
}

#[async_trait]
impl Rows for Tables {
    fn schema(&self) -> SchemaRef {
        let names = ["table_catalog", "table_schema", "table_name", "table_type"];
        Arc::new(Schema::new(names.map(text).to_vec()))
    }

    async fn rows(&self, wanted: &Wanted) -> Result<RecordBatch> {
        let mut tables = self.engine.tables().await;
        tables.retain(|t| is_wanted(wanted, t) && (!self.views || t.kind == "VIEW"));
        let kind = |t: &TableEntry| if t.kind == "TABLE" { "BASE TABLE" } else { t.kind };
        let columns = vec![
            column(tables.iter().map(|t| &t.catalog)),
            column(tables.iter().map(|t| &t.schema)),
            column(tables.iter().map(|t| &t.name)),
            column(tables.iter().map(kind)),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

#[derive(Debug)]
struct Schemata(Arc<Engine>);

#[async_trait]
impl Rows for Schemata {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![text("catalog_name"), text("schema_name")]))
    }

    async fn rows(&self, _wanted: &Wanted) -> Result<RecordBatch> {
        let schemas = self.0.schemas().await;
        let columns = vec![
            column(schemas.iter().map(|(catalog, _)| catalog)),
            column(schemas.iter().map(|(_, schema)| schema)),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// A table with its columns; without them when its source does not answer.
async fn described(table: TableEntry) -> (TableEntry, Option<SchemaRef>) {
    match table.columns().await {
        Ok(columns) => (table, Some(columns)),
        Err(error) => {
            tracing::warn!(table = %table.name, %error, "left out of information_schema");
            (table, None)
        }
    }
}

#[derive(Debug)]
struct Columns(Arc<Engine>);

#[async_trait]
impl Rows for Columns {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            text("table_catalog"),
            text("table_schema"),
            text("table_name"),
            text("column_name"),
            Field::new("ordinal_position", DataType::UInt64, false),
            text("is_nullable"),
            text("data_type"),
        ]))
    }

    async fn rows(&self, wanted: &Wanted) -> Result<RecordBatch> {
        let mut tables = self.0.tables().await;
        tables.retain(|table| is_wanted(wanted, table));
        let described: Vec<_> = futures::stream::iter(tables)
            .map(described)
            .buffered(DESCRIBED_AT_ONCE)
            .collect()
            .await;
        let mut rows = Vec::new();
        for (table, schema) in &described {
            for (position, field) in schema.iter().flat_map(|s| s.fields()).enumerate() {
                rows.push((table, position as u64 + 1, field));
            }
        }
        let nullable = |field: &Field| if field.is_nullable() { "YES" } else { "NO" };
        let columns: Vec<ArrayRef> = vec![
            column(rows.iter().map(|(table, ..)| &table.catalog)),
            column(rows.iter().map(|(table, ..)| &table.schema)),
            column(rows.iter().map(|(table, ..)| &table.name)),
            column(rows.iter().map(|(.., field)| field.name())),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(_, position, _)| *position))),
            column(rows.iter().map(|(.., field)| nullable(field))),
            column(rows.iter().map(|(.., field)| field.data_type().to_string())),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

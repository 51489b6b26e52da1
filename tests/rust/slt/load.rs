//! The same tables at each source.

use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::datasource::MemTable;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use rusqlite::types::Value;
use serde_json::{Map, Value as Json};
use synoptic_source::Source;
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::SourceName;
use tempfile::TempDir;

use super::tables::{Column, Table, bytes};

/// DataFusion over tables in memory, in the schema `src` of its default catalog.
pub fn plain(tables: &[Table]) -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(2);
    // It panics for keys that are NaN.
    config.options_mut().optimizer.enable_topk_aggregation = false;
    let parser = &mut config.options_mut().sql_parser;
    parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    // 1.5 is exact, as in PostgreSQL.
    parser.parse_float_as_decimal = true;
    // It takes columns of one name for each other, and outer joins lose their conditions.
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| rule.name() != "FilterPushdown");
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_physical_optimizer_rules(rules);
    let context = SessionContext::new_with_state(state.build());
    let schema = Arc::new(MemorySchemaProvider::new());
    for table in tables {
        let batch = table.batch();
        let provider = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("one schema");
        schema.register_table(table.name.clone(), Arc::new(provider)).expect("a new name");
    }
    let catalog = context.catalog("datafusion").expect("the default catalog");
    catalog.register_schema("src", schema).expect("a new schema");
    context
}

/// A PostgreSQL server with the tables in `public`. The source ends with the server.
pub async fn postgres(tables: &[Table]) -> (PostgresServer, Arc<dyn Source>) {
    let server = PostgresServer::start();
    let client = server.client("postgres").await;
    for table in tables {
        let column = |c: &Column| {
            format!("{} {}{}", quoted(&c.name), c.kind, if c.not_null { " NOT NULL" } else { "" })
        };
        let columns = table.columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let mut sql = format!("CREATE TABLE {} ({columns});\n", quoted(&table.name));
        for row in &table.rows {
            let cell = |(value, column): (&Option<String>, &Column)| match value {
                None => "NULL".to_owned(),
                Some(hex) if column.kind == "bytea" => format!("'\\x{hex}'"),
                Some(text) => format!("'{}'", text.replace('\'', "''")),
            };
            let cells = row.iter().zip(&table.columns).map(cell).collect::<Vec<_>>().join(", ");
            sql += &format!("INSERT INTO {} VALUES ({cells});\n", quoted(&table.name));
        }
        client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{}: {e:?}", table.name));
    }
    client.batch_execute("ANALYZE").await.expect("analysed");
    let options = [("url", server.url("postgres"))];
    (server, open("postgres", "src", &options))
}

/// A SQLite file with the tables that fit it, as the source `name`.
pub fn sqlite(name: &str, tables: &[Table]) -> (TempDir, Arc<dyn Source>) {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("slt.db");
    let mut database = rusqlite::Connection::open(&path).expect("a new file");
    let transaction = database.transaction().expect("begins");
    for table in tables.iter().filter(|table| table.fits_sqlite()) {
        let column = |c: &Column| {
            let null = if c.not_null { " NOT NULL" } else { "" };
            format!("{} {}{null}", quoted(&c.name), sqlite_type(c))
        };
        let columns = table.columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let table_name = quoted(&table.name);
        let create = format!("CREATE TABLE {table_name} ({columns})");
        transaction.execute(&create, []).expect("valid SQL");
        let marks = vec!["?"; table.columns.len()].join(", ");
        let insert = format!("INSERT INTO {table_name} VALUES ({marks})");
        let mut insert = transaction.prepare(&insert).expect("valid SQL");
        for row in &table.rows {
            let values = row.iter().zip(&table.columns).map(|(cell, c)| sqlite_value(cell, c));
            insert.execute(rusqlite::params_from_iter(values)).expect("inserted");
        }
    }
    transaction.execute_batch("ANALYZE").expect("analysed");
    transaction.commit().expect("committed");
    let options = [("path", text_of(&path))];
    (folder, open("sqlite", name, &options))
}

fn sqlite_type(column: &Column) -> String {
    match (column.decimal(), column.kind.as_str()) {
        (Some((precision, scale)), _) => format!("DECIMAL({precision},{scale})"),
        (_, "double precision") => "DOUBLE".to_owned(),
        (_, "bytea") => "BLOB".to_owned(),
        (_, kind) => kind.to_uppercase(),
    }
}

fn sqlite_value(cell: &Option<String>, column: &Column) -> Value {
    let Some(text) = cell else { return Value::Null };
    match column.kind.as_str() {
        "boolean" => Value::Integer(i64::from(text == "true")),
        "smallint" | "integer" | "bigint" => Value::Integer(text.parse().expect("an integer")),
        "real" | "double precision" => Value::Real(text.parse().expect("a number")),
        "bytea" => Value::Blob(bytes(text)),
        _ => Value::Text(text.clone()),
    }
}

/// One Parquet file per table, of several row groups where there are many rows, as the source
/// `name`.
pub fn parquet(name: &str, tables: &[Table]) -> (TempDir, Arc<dyn Source>) {
    let folder = TempDir::new().expect("a temporary folder");
    for table in tables {
        let path = folder.path().join(format!("{}.parquet", table.name));
        let file = std::fs::File::create(path).expect("a new file");
        let batch = table.batch();
        let properties = datafusion::parquet::file::properties::WriterProperties::builder()
            .set_max_row_group_row_count(Some(500))
            .build();
        let mut writer =
            ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("Parquet has it");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
    }
    let options = [("location", text_of(folder.path())), ("format", "parquet".to_owned())];
    (folder, open("files", name, &options))
}

/// A source that is called `name`.
pub fn open(connector: &str, name: &str, options: &[(&str, String)]) -> Arc<dyn Source> {
    let option = |(key, value): &(&str, String)| ((*key).to_owned(), Json::from(value.clone()));
    let options = options.iter().map(option).collect::<Map<_, _>>();
    synoptic_connectors::open(connector, SourceName::new(name), options, Path::new("."))
        .expect("valid options")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

//! The conformance suite on every connector.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float32Array, Float64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, TimeUnit};
use arrow::ipc::writer::FileWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use serde_json::{Map, Value, json};
use synoptic_source::Source;
use synoptic_source::testing::{Created, Fixture, TestTable, conformance};
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{SourceName, TableName};
use tempfile::TempDir;

fn open(connector: &str, options: Value, base: &Path) -> Arc<dyn Source> {
    let Value::Object(options) = options else { panic!("options are an object") };
    let options: Map<String, Value> = options;
    synoptic_connectors::open(connector, SourceName::new("suite"), options, base)
        .unwrap_or_else(|e| panic!("{connector}: {e}"))
}

fn names(tables: &[TestTable], schema: &str) -> HashMap<String, TableName> {
    let named = |table: &TestTable| (table.name.clone(), TableName::new(schema, &*table.name));
    tables.iter().map(named).collect()
}

/// `column`, with NULL where `keep` says no.
fn floats(column: &ArrayRef, keep: impl Fn(f64) -> bool) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().iter();
            Arc::new(values.map(|v| v.filter(|v| keep(*v))).collect::<Float64Array>())
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().iter();
            Arc::new(values.map(|v| v.filter(|v| keep(f64::from(*v)))).collect::<Float32Array>())
        }
        _ => Arc::clone(column),
    }
}

fn map_columns(batch: &RecordBatch, map: impl Fn(&ArrayRef) -> ArrayRef) -> RecordBatch {
    let columns = batch.columns().iter().map(map).collect();
    RecordBatch::try_new(batch.schema(), columns).expect("the types are the same")
}

/// One folder of files of one format; a table is a folder.
struct Files(&'static str);

impl Files {
    fn write(&self, path: &Path, batch: &RecordBatch) {
        let mut bytes = Vec::new();
        match self.0 {
            "parquet" => {
                let properties = WriterProperties::builder()
                    .set_max_row_group_row_count(Some(4000))
                    .set_data_page_row_count_limit(4)
                    .set_write_batch_size(4)
                    .set_bloom_filter_enabled(true)
                    .build();
                let writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties));
                let mut writer = writer.expect("writer");
                writer.write(batch).expect("written");
                writer.close().expect("closed");
            }
            "arrow" => {
                let mut writer = FileWriter::try_new(&mut bytes, &batch.schema()).expect("writer");
                for start in (0..batch.num_rows()).step_by(1000) {
                    let rows = 1000.min(batch.num_rows() - start);
                    writer.write(&batch.slice(start, rows)).expect("written");
                }
                writer.finish().expect("finished");
            }
            _ => arrow::csv::Writer::new(&mut bytes).write(batch).expect("written"),
        }
        fs::write(path, bytes).expect("written");
    }

    fn folder(created: &Created, table: &str) -> PathBuf {
        let folder = created.backend.downcast_ref::<TempDir>().expect("a folder");
        folder.path().join(table)
    }
}

#[async_trait]
impl Fixture for Files {
    fn name(&self) -> String {
        format!("files ({})", self.0)
    }

    fn supports(&self, data_type: &DataType) -> bool {
        let in_csv = !matches!(data_type, DataType::Binary);
        self.0 != "csv" || in_csv
    }

    fn adapt(&self, batch: RecordBatch) -> RecordBatch {
        if self.0 != "csv" {
            return batch;
        }
        // An empty field is NULL.
        map_columns(&batch, |column| match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>().iter();
                Arc::new(texts.map(|t| t.filter(|t| !t.is_empty())).collect::<StringArray>())
            }
            _ => Arc::clone(column),
        })
    }

    fn projection_saves_bytes(&self) -> bool {
        self.0 == "parquet"
    }

    async fn create(&self, tables: Vec<TestTable>) -> Created {
        let folder = TempDir::new().expect("a folder");
        let mut declared = Map::new();
        for table in &tables {
            let at = folder.path().join(&table.name);
            fs::create_dir(&at).expect("made");
            self.write(&at.join(format!("1.{}", self.0)), &table.batch);
            let schema = table.batch.schema();
            let types = schema.fields().iter().map(|field| {
                let text = match field.data_type() {
                    DataType::Decimal128(p, s) => format!("decimal({p}, {s})"),
                    DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".to_owned(),
                    DataType::Timestamp(TimeUnit::Microsecond, _) => "timestamptz".to_owned(),
                    DataType::Date32 => "date".to_owned(),
                    other => other.to_string().to_lowercase().replace("utf8", "text"),
                };
                (field.name().clone(), Value::from(text))
            });
            let types: Map<String, Value> = types.collect();
            declared.insert(table.name.clone(), json!({ "schema": types }));
        }
        let mut options = json!({ "location": folder.path(), "format": self.0 });
        if self.0 == "csv" {
            // A table that is configured never disappears, so the doomed one is not.
            options["tables"] = declared.into();
        }
        let source = open("files", options, Path::new("/"));
        Created { source, names: names(&tables, "public"), backend: Box::new(folder) }
    }

    async fn append(&self, created: &Created, table: &str, rows: &RecordBatch) -> bool {
        let folder = Self::folder(created, table);
        let number = fs::read_dir(&folder).expect("listed").count() + 1;
        self.write(&folder.join(format!("{number}.{}", self.0)), rows);
        true
    }

    async fn drop_table(&self, created: &Created, table: &str) -> bool {
        self.0 != "csv" && fs::remove_dir_all(Self::folder(created, table)).is_ok()
    }
}

/// How a database writes a value of a column.
fn literal(column: &dyn Array, row: usize, postgres: bool) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    let options = FormatOptions::default().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.6f"));
    let options = options.with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.6f+00"));
    let text = ArrayFormatter::try_new(column, &options).expect("printable").value(row).to_string();
    match column.data_type() {
        DataType::Binary if postgres => format!("'\\x{text}'::bytea"),
        DataType::Binary => format!("x'{text}'"),
        DataType::Float64 | DataType::Float32 if postgres => {
            format!("'{}'::float8", text.replace("inf", "Infinity"))
        }
        DataType::Float64 | DataType::Float32 => match text.as_str() {
            "inf" => "9e999".to_owned(),
            "-inf" => "-9e999".to_owned(),
            _ => text,
        },
        DataType::Boolean if !postgres => u8::from(text == "true").to_string(),
        t if t.is_integer() || matches!(t, DataType::Boolean) => text,
        DataType::Decimal128(..) if postgres => text,
        _ => format!("'{}'", text.replace('\'', "''")),
    }
}

fn create_table(table: &TestTable, postgres: bool) -> Vec<String> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let schema = table.batch.schema();
    let columns = schema.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Boolean => "boolean".to_owned(),
            DataType::Int16 => "smallint".to_owned(),
            DataType::Int32 => "integer".to_owned(),
            DataType::Int64 => "bigint".to_owned(),
            DataType::Float32 => "real".to_owned(),
            DataType::Float64 => "double precision".to_owned(),
            DataType::Decimal128(p, s) if postgres => format!("numeric({p}, {s})"),
            DataType::Decimal128(p, s) => format!("decimal({p}, {s})"),
            DataType::Date32 => "date".to_owned(),
            DataType::Timestamp(_, None) => "timestamp".to_owned(),
            DataType::Timestamp(..) => "timestamptz".to_owned(),
            DataType::Binary if postgres => "bytea".to_owned(),
            DataType::Binary => "blob".to_owned(),
            _ => "text".to_owned(),
        };
        format!("{} {data_type}", quoted(field.name()))
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let key = table.primary_key.iter().map(|k| quoted(k)).collect::<Vec<_>>().join(", ");
    let name = quoted(&table.name);
    let mut statements = vec![format!("CREATE TABLE {name} ({columns}, PRIMARY KEY ({key}))")];
    statements.extend(insert(&table.name, &table.batch, postgres));
    statements
}

fn insert(table: &str, batch: &RecordBatch, postgres: bool) -> Vec<String> {
    let rows: Vec<String> = (0..batch.num_rows())
        .map(|row| {
            let values = batch.columns().iter().map(|column| literal(column, row, postgres));
            format!("({})", values.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let name = format!("\"{}\"", table.replace('"', "\"\""));
    rows.chunks(1000).map(|rows| format!("INSERT INTO {name} VALUES {}", rows.join(", "))).collect()
}

struct Postgres;

struct PostgresBackend {
    server: Arc<PostgresServer>,
    database: String,
}

impl Postgres {
    async fn client(created: &Created) -> tokio_postgres::Client {
        let backend = created.backend.downcast_ref::<PostgresBackend>().expect("a database");
        backend.server.client(&backend.database).await
    }
}

#[async_trait]
impl Fixture for Postgres {
    fn name(&self) -> String {
        "postgres".to_owned()
    }

    async fn create(&self, tables: Vec<TestTable>) -> Created {
        let server = PostgresServer::shared();
        let database = server.create_database().await;
        let client = server.client(&database).await;
        for table in &tables {
            for statement in create_table(table, true) {
                client.batch_execute(&statement).await.expect("created");
            }
        }
        client.batch_execute("ANALYZE").await.expect("analyzed");
        let source = open("postgres", json!({ "url": server.url(&database) }), Path::new("/"));
        let backend = Box::new(PostgresBackend { server, database });
        Created { source, names: names(&tables, "public"), backend }
    }

    async fn append(&self, created: &Created, table: &str, rows: &RecordBatch) -> bool {
        let client = Self::client(created).await;
        for statement in insert(table, rows, true) {
            client.batch_execute(&statement).await.expect("inserted");
        }
        true
    }

    async fn drop_table(&self, created: &Created, table: &str) -> bool {
        let client = Self::client(created).await;
        // A scan that only waits in its transaction may hold the table.
        let drop = format!("SET lock_timeout = '2s'; DROP TABLE \"{table}\"");
        client.batch_execute(&drop).await.is_ok()
    }

    async fn active_remote_queries(&self, created: &Created) -> Option<usize> {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND state = 'active' AND pid <> pg_backend_pid()";
        let row = Self::client(created).await.query_one(active, &[]).await.expect("asked");
        usize::try_from(row.get::<_, i64>(0)).ok()
    }
}

struct Sqlite;

#[async_trait]
impl Fixture for Sqlite {
    fn name(&self) -> String {
        "sqlite".to_owned()
    }

    fn adapt(&self, batch: RecordBatch) -> RecordBatch {
        // SQLite stores NaN as NULL, -0.0 as 0, and a decimal of more than 15 digits as a rounded
        // double.
        map_columns(&batch, |column| match column.data_type() {
            DataType::Decimal128(..) => {
                let values = column.as_primitive::<Decimal128Type>().iter();
                let short = |v: &i128| v.unsigned_abs() < 10_u128.pow(15);
                let values = values.map(|v| v.filter(short)).collect::<Decimal128Array>();
                Arc::new(values.with_data_type(column.data_type().clone()))
            }
            _ => floats(column, |v| !(v.is_nan() || v == 0.0 && v.is_sign_negative())),
        })
    }

    async fn create(&self, tables: Vec<TestTable>) -> Created {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("suite.db");
        let database = rusqlite::Connection::open(&path).expect("opened");
        database.execute_batch("PRAGMA journal_mode = WAL").expect("WAL");
        for table in &tables {
            let statements = create_table(table, false).join(";\n");
            database.execute_batch(&format!("BEGIN;\n{statements};\nCOMMIT")).expect("created");
        }
        let source = open("sqlite", json!({ "path": path }), Path::new("/"));
        Created { source, names: names(&tables, "main"), backend: Box::new(folder) }
    }

    async fn append(&self, created: &Created, table: &str, rows: &RecordBatch) -> bool {
        let folder = created.backend.downcast_ref::<TempDir>().expect("a folder");
        let database = rusqlite::Connection::open(folder.path().join("suite.db")).expect("opened");
        let statements = insert(table, rows, false).join(";\n");
        database.execute_batch(&format!("BEGIN;\n{statements};\nCOMMIT")).expect("inserted");
        true
    }

    async fn drop_table(&self, created: &Created, table: &str) -> bool {
        let folder = created.backend.downcast_ref::<TempDir>().expect("a folder");
        let database = rusqlite::Connection::open(folder.path().join("suite.db")).expect("opened");
        database.execute_batch(&format!("DROP TABLE \"{table}\"")).is_ok()
    }
}

#[expect(clippy::print_stdout, reason = "the report is what a failing test shows")]
async fn conforms(fixture: &dyn Fixture) {
    let report = conformance(fixture).await;
    println!("{report}");
    report.assert_passed();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_parquet() {
    conforms(&Files("parquet")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_csv() {
    conforms(&Files("csv")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_arrow() {
    conforms(&Files("arrow")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    conforms(&Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    conforms(&Sqlite).await;
}

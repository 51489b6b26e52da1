//! The `postgres` connector against a real server.

mod discovery;
mod expectations;
mod lifecycle;
mod partitions;
mod positions;
mod reading;
mod snapshots;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};
use synoptic_source::{
    BatchStream, ErrorKind, Fragment, PrepareOptions, PreparedScan, ScanContext, ScanCounters,
    Snapshot, Source, SourceError, Statement, TableDef,
};
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{Deadline, QueryId, SourceName, TableName};
use tokio_postgres::Client;

/// A database of the test's own, a client to change it, and the connector to read it.
struct Db {
    server: Arc<PostgresServer>,
    name: String,
    client: Client,
    source: Arc<dyn Source>,
}

impl Db {
    async fn new(setup: &str) -> Self {
        Self::with_options(setup, json!({})).await
    }

    async fn with_options(setup: &str, options: Value) -> Self {
        let server = PostgresServer::shared();
        let name = server.create_database().await;
        let client = server.client(&name).await;
        client.batch_execute(setup).await.expect("the test's tables are made");
        let source = open(&server.url(&name), options);
        Self { server, name, client, source }
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn table(&self, name: &str) -> Arc<TableDef> {
        table(&self.source, name).await
    }

    async fn read(&self, name: &str) -> Result<Vec<RecordBatch>, SourceError> {
        let table = self.table(name).await;
        read(&self.source, Fragment::table(table)).await
    }

    /// The error of reading a whole table.
    async fn error(&self, name: &str) -> SourceError {
        match self.read(name).await {
            Ok(batches) => panic!("{name} was read: {batches:?}"),
            Err(error) => error,
        }
    }

    /// Sessions of the connector in this database that `condition` holds for.
    async fn sessions(&self, condition: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name LIKE 'synoptic%' AND {condition}"
        );
        self.client.query_one(&sql, &[]).await.expect("activity is shown").get(0)
    }

    /// Waits until no session fulfils `condition`, and says how long that took.
    async fn until_none(&self, condition: &str) -> Duration {
        let started = Instant::now();
        while self.sessions(condition).await > 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "{condition} goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        started.elapsed()
    }

    async fn until_some(&self, condition: &str) {
        let started = Instant::now();
        while self.sessions(condition).await == 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "{condition} never began");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn open(url: &str, options: Value) -> Arc<dyn Source> {
    let Value::Object(mut options) = options else { panic!("options are a table") };
    options.insert("url".to_owned(), json!(url));
    open_declared(options)
}

fn open_declared(options: Map<String, Value>) -> Arc<dyn Source> {
    let name = SourceName::new("bank");
    synoptic_connectors::open("postgres", name, options, std::path::Path::new("/"))
        .expect("the options are right")
}

async fn table(source: &Arc<dyn Source>, name: &str) -> Arc<TableDef> {
    let (schema, name) = name.split_once('.').unwrap_or(("public", name));
    let table = source.table(&TableName::new(schema, name)).await.expect("it is described");
    table.unwrap_or_else(|| panic!("there is no table {name}"))
}

fn statement(timeout: Option<Duration>) -> Arc<Statement> {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Arc::new(Statement {
        query_id: QueryId::new(format!("q{number}")),
        deadline: timeout.and_then(Deadline::after),
    })
}

/// One statement: its snapshot and what was prepared in it.
struct Run {
    source: Arc<dyn Source>,
    statement: Arc<Statement>,
    snapshot: Arc<dyn Snapshot>,
    counters: Arc<ScanCounters>,
    batch_size: usize,
}

impl Run {
    fn new(source: &Arc<dyn Source>) -> Self {
        Self::with_timeout(source, None)
    }

    fn with_timeout(source: &Arc<dyn Source>, timeout: Option<Duration>) -> Self {
        let statement = statement(timeout);
        let snapshot = source.begin(&statement);
        let source = Arc::clone(source);
        Self { source, statement, snapshot, counters: Arc::default(), batch_size: 8192 }
    }

    async fn prepare(&self, fragment: Fragment) -> Arc<dyn PreparedScan> {
        self.prepare_in(fragment, 2).await
    }

    async fn prepare_in(&self, fragment: Fragment, partitions: usize) -> Arc<dyn PreparedScan> {
        let options = PrepareOptions { target_partitions: partitions, batch_size: self.batch_size };
        self.source.prepare(fragment, &self.snapshot, &options).await.expect("it is prepared")
    }

    fn open(&self, scan: &Arc<dyn PreparedScan>) -> BatchStream {
        self.open_part(scan, 0)
    }

    fn open_part(&self, scan: &Arc<dyn PreparedScan>, partition: usize) -> BatchStream {
        let context = ScanContext {
            statement: Arc::clone(&self.statement),
            dynamic_filters: Vec::new(),
            counters: Arc::clone(&self.counters),
        };
        scan.open(partition, Arc::clone(&self.snapshot), context).expect("it is opened")
    }

    async fn start(&self, fragment: Fragment) -> BatchStream {
        let scan = self.prepare(fragment).await;
        self.open(&scan)
    }
}

async fn read(
    source: &Arc<dyn Source>,
    fragment: Fragment,
) -> Result<Vec<RecordBatch>, SourceError> {
    let run = Run::new(source);
    run.start(fragment).await.try_collect().await
}

async fn first_error(mut stream: BatchStream) -> SourceError {
    loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                assert!(stream.next().await.is_none(), "nothing follows an error");
                return error;
            }
            None => panic!("the stream ended well"),
        }
    }
}

fn assert_error(error: &SourceError, kind: ErrorKind, parts: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// The values of one column as text; NULL is `NULL`.
fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut texts = Vec::new();
    for batch in batches {
        let array = batch.column_by_name(column).expect("the column is there");
        let formatter = ArrayFormatter::try_new(array, &options).expect("it can be shown");
        texts.extend((0..batch.num_rows()).map(|row| formatter.value(row).to_string()));
    }
    texts
}

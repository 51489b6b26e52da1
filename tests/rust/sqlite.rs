//! The `sqlite` connector against real files: strictness, snapshots, cancellation, failure.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::{Expr, col, lit};
use futures::{StreamExt as _, TryStreamExt as _};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use synoptic_source::{
    BatchStream, ErrorKind, Fragment, PrepareOptions, PreparedScan, Pushdown, ScanContext,
    ScanCounters, Snapshot, Source, SourceError, Statement, TableDef, TableKind,
};
use synoptic_types::{Deadline, QueryId, SourceName, TableName};
use tempfile::TempDir;

/// Runs for minutes and yields nothing.
const SLOW_VIEW: &str = "CREATE VIEW slow AS
     WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000000000)
     SELECT n FROM c WHERE n < 0";

/// A database file and the source that reads it.
struct Bench {
    folder: TempDir,
    source: Arc<dyn Source>,
}

impl Bench {
    fn new(name: &str, sql: &str) -> Self {
        Self::with(name, sql, json!({}))
    }

    fn with(name: &str, sql: &str, options: Value) -> Self {
        let folder = TempDir::new().expect("a folder");
        let bench = Self { source: open(name, &folder.path().join("t.db"), options), folder };
        bench.writer().execute_batch(sql).expect(sql);
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("t.db")
    }

    fn writer(&self) -> Connection {
        Connection::open(self.path()).expect("open")
    }

    async fn table(&self, name: &str) -> Arc<TableDef> {
        table(&self.source, name).await
    }

    /// All of a table, or what is wrong with it.
    async fn read(&self, name: &str) -> Result<RecordBatch, SourceError> {
        let fragment = Fragment::table(self.table(name).await);
        read(&self.source, fragment).await
    }
}

fn open(name: &str, path: &Path, options: Value) -> Arc<dyn Source> {
    let Value::Object(mut options) = options else { panic!("options are an object") };
    options.insert("path".to_owned(), json!(path));
    synoptic_connectors::open("sqlite", SourceName::new(name), options, Path::new("/"))
        .expect("valid options")
}

fn statement(timeout: Option<Duration>) -> Arc<Statement> {
    let deadline = timeout.and_then(Deadline::after);
    Arc::new(Statement { query_id: QueryId::new("test"), deadline })
}

async fn table(source: &Arc<dyn Source>, name: &str) -> Arc<TableDef> {
    let name = TableName::new("main", name);
    source.table(&name).await.expect("described").unwrap_or_else(|| panic!("no table {name}"))
}

async fn prepare(
    source: &Arc<dyn Source>,
    fragment: Fragment,
    snapshot: &Arc<dyn Snapshot>,
    batch_size: usize,
) -> Arc<dyn PreparedScan> {
    let options = PrepareOptions { target_partitions: 4, batch_size };
    source.prepare(fragment, snapshot, &options).await.expect("prepared")
}

fn start(
    scan: &Arc<dyn PreparedScan>,
    snapshot: &Arc<dyn Snapshot>,
    statement: &Arc<Statement>,
) -> (BatchStream, Arc<ScanCounters>) {
    let counters = Arc::new(ScanCounters::default());
    let context = ScanContext {
        statement: Arc::clone(statement),
        dynamic_filters: Vec::new(),
        counters: Arc::clone(&counters),
    };
    (scan.open(0, Arc::clone(snapshot), context).expect("opened"), counters)
}

async fn read(source: &Arc<dyn Source>, fragment: Fragment) -> Result<RecordBatch, SourceError> {
    let statement = statement(None);
    let snapshot = source.begin(&statement);
    let scan = prepare(source, fragment, &snapshot, 1000).await;
    let (stream, counters) = start(&scan, &snapshot, &statement);
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    let all = concat_batches(&scan.schema(), &batches).expect("one schema");
    assert_eq!(counters.rows(), batches.iter().map(|b| b.num_rows() as u64).sum::<u64>());
    Ok(all)
}

fn assert_rows(batch: &RecordBatch, expected: &str) {
    let text = pretty_format_batches(std::slice::from_ref(batch)).expect("printable").to_string();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected, "\n{text}");
}

/// The threads of this process that work for source `name`.
fn threads(name: &str) -> usize {
    // The kernel keeps 15 bytes of a name.
    let wanted: String = format!("sqlite {name}").chars().take(15).collect();
    let tasks = std::fs::read_dir("/proc/self/task").expect("linux");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.trim_end() == wanted).count()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("linux").count()
}

/// Waits until `done`, and says how long that took.
async fn until(what: &str, done: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_declared_type_is_read_exactly() {
    let bench = Bench::new(
        "types",
        r#"CREATE TABLE t(
             id INTEGER PRIMARY KEY, big BIGINT NOT NULL, b BOOLEAN, f DOUBLE PRECISION,
             n DECIMAL(10, 2), u NUMERIC, c VARCHAR(3), y BLOB, d DATE, ts DATETIME,
             tz TIMESTAMP WITH TIME ZONE, "any", j JSON, g INT GENERATED ALWAYS AS (id * 2));
           INSERT INTO t VALUES
             (1, 9223372036854775807, 1, 0.1, '12.34', 0.1, 'it''s', X'00FF', '1969-12-31',
              '1969-12-31 23:59:59.5', '2024-03-31T02:30:00+02:00', 'text', '{"a": 1}'),
             (2, -9223372036854775808, 0, 7, 5, 123456789012345678, '', X'', '0001-01-01',
              '2024-02-29T12:30Z', '2024-03-31 00:30:00Z', 42, NULL),
             (3, 0, NULL, 9e999, -0.07, NULL, NULL, NULL, '9999-12-31', '2024-02-29', NULL, 0.1,
              NULL)"#,
    );
    let def = bench.table("t").await;
    let nullable: Vec<bool> = def.schema.fields().iter().map(|f| f.is_nullable()).collect();
    assert_eq!(&nullable[..3], [false, false, true]);
    assert_eq!(def.primary_key, ["id"]);
    assert_eq!(def.schema.field(5).data_type(), &DataType::Decimal128(38, 18));
    assert_rows(
        &bench.read("t").await.expect("every value fits"),
        r#"
+----+----------------------+-------+-----+-------+---------------------------------------+------+------+------------+-------------------------+----------------------+------+----------+---+
| id | big                  | b     | f   | n     | u                                     | c    | y    | d          | ts                      | tz                   | any  | j        | g |
+----+----------------------+-------+-----+-------+---------------------------------------+------+------+------------+-------------------------+----------------------+------+----------+---+
| 1  | 9223372036854775807  | true  | 0.1 | 12.34 | 0.100000000000000000                  | it's | 00ff | 1969-12-31 | 1969-12-31T23:59:59.500 | 2024-03-31T00:30:00Z | text | {"a": 1} | 2 |
| 2  | -9223372036854775808 | false | 7.0 | 5.00  | 123456789012345678.000000000000000000 |      |      | 0001-01-01 | 2024-02-29T12:30:00     | 2024-03-31T00:30:00Z | 42   |          | 4 |
| 3  | 0                    |       | inf | -0.07 |                                       |      |      | 9999-12-31 | 2024-02-29T00:00:00     |                      | 0.1  |          | 6 |
+----+----------------------+-------+-----+-------+---------------------------------------+------+------+------------+-------------------------+----------------------+------+----------+---+
"#,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_table_is_found() {
    let bench = Bench::new(
        "kinds",
        r#"CREATE TABLE "Mixed Case"("Select" INTEGER, "a""b" TEXT);
           INSERT INTO "Mixed Case" VALUES (1, 'x');
           CREATE TABLE wr(k TEXT, v INT, PRIMARY KEY (v, k)) WITHOUT ROWID;
           CREATE TABLE strict(i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
           CREATE TABLE down(id INTEGER PRIMARY KEY DESC);
           CREATE TABLE hides_rowid(rowid TEXT, _rowid_ TEXT, oid TEXT);
           INSERT INTO hides_rowid VALUES ('a', 'b', 'c');
           CREATE VIEW v AS SELECT "Select" AS s, count(*) AS n, CAST(1.5 AS REAL) AS r
             FROM "Mixed Case" GROUP BY 1;
           CREATE VIEW broken AS SELECT * FROM nowhere;
           CREATE VIRTUAL TABLE words USING fts5(word);
           INSERT INTO words VALUES ('hello')"#,
    );
    let tables = bench.source.tables().await.expect("listed");
    let listed: Vec<_> = tables.iter().map(|t| (&*t.name.name, t.kind)).collect();
    let (table, view) = (TableKind::Table, TableKind::View);
    assert_eq!(
        listed,
        [
            ("Mixed Case", table),
            ("broken", view),
            ("down", table),
            ("hides_rowid", table),
            ("strict", table),
            ("v", view),
            ("words", table),
            ("wr", table),
        ]
    );
    assert_eq!(bench.table("wr").await.primary_key, ["v", "k"]);
    // Not an alias of the rowid, and SQLite lets such a key be NULL.
    assert!(bench.table("down").await.schema.field(0).is_nullable());
    assert_rows(
        &bench.read("Mixed Case").await.expect("read"),
        r#"
        +--------+-----+
        | Select | a"b |
        +--------+-----+
        | 1      | x   |
        +--------+-----+"#,
    );
    let v = bench.table("v").await;
    let types: Vec<_> = v.schema.fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, [DataType::Int64, DataType::Utf8, DataType::Float64]);
    assert_eq!(bench.read("v").await.expect("read").num_rows(), 1);
    assert_eq!(bench.read("words").await.expect("read").num_rows(), 1);
    assert_eq!(bench.read("hides_rowid").await.expect("read").num_rows(), 1);

    let main = |name: &str| TableName::new("main", name);
    let error = bench.source.table(&main("broken")).await.expect_err("broken");
    assert!(error.to_string().contains("nowhere"), "{error}");
    for name in ["mixed case", "none", "sqlite_schema"] {
        assert!(bench.source.table(&main(name)).await.expect("asked").is_none(), "{name}");
        assert!(bench.source.stamp(&main(name)).await.expect("asked").is_none(), "{name}");
    }
    let other = TableName::new("temp", "strict");
    assert!(bench.source.table(&other).await.expect("asked").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_an_error_with_its_place() {
    for (declared, value, part) in [
        ("INTEGER", "'abc'", "the text 'abc' does not fit the declared type INTEGER"),
        ("INTEGER", "1.5", "the number 1.5"),
        ("INTEGER", "9223372036854775808", "the number 9.223372036854776e18"),
        ("BOOLEAN", "2", "takes 0 and 1"),
        ("BOOLEAN", "'true'", "the text 'true'"),
        ("REAL", "'x'", "the text 'x'"),
        ("DECIMAL(10,2)", "0.1 + 0.2", "0.30000000000000004"),
        ("DECIMAL(10,2)", "123456789", "exactly"),
        ("DECIMAL(10,2)", "1.005", "the number 1.005"),
        ("NUMERIC", "1e300", "the number 1e300"),
        ("TEXT", "X'00'", "a blob of 1 bytes"),
        ("TEXT", "CAST(X'FF' AS TEXT)", "not valid UTF-8"),
        ("BLOB", "'text'", "the text 'text'"),
        ("DATE", "'2024-02-30'", "2024-01-31"),
        ("DATE", "19787", "store ISO 8601 text"),
        ("DATE", "'2024-01-05 00:00:00'", "the text"),
        ("DATETIME", "1700000000", "store ISO 8601 text"),
        ("DATETIME", "'2024-01-05T00:00:00+02:00'", "no zone but UTC"),
        ("DATETIME", "'2024-01-05 00:00:00.1234567'", "the text"),
        ("TIMESTAMPTZ", "'2024-01-05 00:00:00'", "+01:00"),
        ("", "X'00'", "a column without a type"),
    ] {
        let sql = format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, \"v\" {declared});
             INSERT INTO t VALUES (41, NULL), (42, {value})"
        );
        let bench = Bench::new("strict", &sql);
        let error = bench.read("t").await.expect_err(value);
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Data, "{declared} {value}: {text}");
        assert!(text.starts_with("source 'strict', table main.t, column v: "), "{text}");
        assert!(text.contains(part), "{declared} {value}: {text}");
        if !part.contains("UTF-8") {
            assert!(text.ends_with("(row with rowid 42)"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_does_not_let_a_value_through_that_does_not_fit() {
    let bench = Bench::new(
        "filters",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, qty INTEGER);
         INSERT INTO t VALUES (1, 5), (2, 'abc'), (3, 50)",
    );
    let def = bench.table("t").await;
    let keeps = |filter: Expr| {
        let mut fragment = Fragment::table(Arc::clone(&def));
        assert_eq!(bench.source.pushdown(&def, &filter), Pushdown::Exact);
        fragment.projection = vec![0];
        fragment.filters = vec![filter];
        read(&bench.source, fragment)
    };
    // To SQLite a text is greater than any number; nobody asked for the column.
    let error = keeps(col("qty").gt(lit(10_i64))).await.expect_err("abc is kept");
    assert!(error.to_string().contains("column qty: the text 'abc'"), "{error}");
    let kept = keeps(col("qty").lt(lit(10_i64))).await.expect("abc is filtered away");
    assert_eq!((kept.num_rows(), kept.num_columns()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn projection_filter_and_limit_are_applied_at_the_source() {
    let bench = Bench::new(
        "select",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, c TEXT COLLATE NOCASE, ts TIMESTAMP);
         INSERT INTO t VALUES (1, 'a', '2024-01-04'), (2, 'A', '2024-01-05 10:00'),
                              (3, 'b', '2024-01-05T11:00:00Z'), (4, NULL, NULL)",
    );
    let def = bench.table("t").await;
    let statement = statement(None);
    let snapshot = bench.source.begin(&statement);
    let mut fragment = Fragment::table(Arc::clone(&def));
    fragment.projection = vec![];
    fragment.filters = vec![col("c").eq(lit("a"))];
    fragment.limit = Some(10);
    let scan = prepare(&bench.source, fragment, &snapshot, 100).await;
    assert_eq!(
        scan.remote_text(),
        r#"SELECT "c" FROM "main"."t" WHERE (+"c") COLLATE BINARY = 'a' LIMIT 10"#
    );
    let (stream, _) = start(&scan, &snapshot, &statement);
    let batches: Vec<RecordBatch> = stream.try_collect().await.expect("read");
    assert_eq!(batches.len(), 1);
    assert_eq!((batches[0].num_columns(), batches[0].num_rows()), (0, 1));

    // A timestamp has several spellings, so SQLite only skips days.
    let noon = datafusion::common::ScalarValue::TimestampMicrosecond(
        Some(1_704_412_800_000_000 + 12 * 3_600_000_000),
        None,
    );
    let filter = col("ts").lt(lit(noon));
    assert!(matches!(bench.source.pushdown(&def, &filter), Pushdown::Inexact(_)));
    let mut fragment = Fragment::table(def);
    fragment.filters = vec![filter];
    let scan = prepare(&bench.source, fragment.clone(), &snapshot, 100).await;
    assert!(scan.remote_text().ends_with(r#"WHERE "ts" < '2024-01-06'"#), "{}", scan.remote_text());
    assert_eq!(read(&bench.source, fragment).await.expect("read").num_rows(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_scans_of_a_statement_see_one_state() {
    let bench = Bench::new(
        "snap",
        "PRAGMA journal_mode = WAL;
         CREATE TABLE a(id INTEGER PRIMARY KEY); CREATE TABLE b(id INTEGER PRIMARY KEY);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
           INSERT INTO a SELECT i FROM n;
         INSERT INTO b SELECT id FROM a",
    );
    let statement = statement(None);
    let snapshot = bench.source.begin(&statement);
    let a = prepare(&bench.source, Fragment::table(bench.table("a").await), &snapshot, 100).await;
    let b = prepare(&bench.source, Fragment::table(bench.table("b").await), &snapshot, 100).await;
    let (mut a, _) = start(&a, &snapshot, &statement);
    let first = a.next().await.expect("a batch").expect("read");
    assert_eq!(first.num_rows(), 100);

    let writer = bench.writer();
    writer
        .execute_batch("BEGIN; DELETE FROM a WHERE id > 200; DELETE FROM b; COMMIT")
        .expect("a reader does not stop a writer in WAL mode");

    let (b, _) = start(&b, &snapshot, &statement);
    let b: Vec<RecordBatch> = b.try_collect().await.expect("read");
    let a: Vec<RecordBatch> = a.try_collect().await.expect("read");
    let rows = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!((rows(&a) + 100, rows(&b)), (5000, 5000));

    // The next statement sees everything that was committed before it.
    assert_eq!(bench.read("a").await.expect("read").num_rows(), 200);
    assert_eq!(bench.read("b").await.expect("read").num_rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_stream_ends_its_scan_and_no_other() {
    let bench = Bench::new(
        "cancel",
        &format!(
            "{SLOW_VIEW}; CREATE TABLE t(id INTEGER PRIMARY KEY);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
               INSERT INTO t SELECT i FROM n"
        ),
    );
    let statement = statement(None);
    let snapshot = bench.source.begin(&statement);
    let slow = Fragment::table(bench.table("slow").await);
    let slow = prepare(&bench.source, slow, &snapshot, 100).await;
    let t = prepare(&bench.source, Fragment::table(bench.table("t").await), &snapshot, 100).await;

    let (mut t, _) = start(&t, &snapshot, &statement);
    assert!(t.next().await.expect("a batch").is_ok());
    let (mut slow, _) = start(&slow, &snapshot, &statement);
    let polled = tokio::time::timeout(Duration::from_millis(200), slow.next()).await;
    assert!(polled.is_err(), "the scan takes long");
    drop(slow);

    let started = Instant::now();
    let rest: Vec<RecordBatch> = t.try_collect().await.expect("the other scan goes on");
    assert_eq!(rest.iter().map(RecordBatch::num_rows).sum::<usize>(), 900);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());

    assert_eq!(threads("cancel"), 1);
    drop(snapshot);
    let took = until("the thread's end", || threads("cancel") == 0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_everything_ends_a_step_at_once() {
    let bench = Bench::new("da", SLOW_VIEW);
    let statement = statement(None);
    let snapshot = bench.source.begin(&statement);
    let slow = Fragment::table(bench.table("slow").await);
    let slow = prepare(&bench.source, slow, &snapshot, 100).await;
    let (mut stream, _) = start(&slow, &snapshot, &statement);
    drop(snapshot);
    let polled = tokio::time::timeout(Duration::from_millis(100), stream.next()).await;
    assert!(polled.is_err(), "the scan takes long");
    assert_eq!(threads("da"), 1);
    drop(stream);
    let took = until("the thread's end", || threads("da") == 0).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_scan() {
    let bench = Bench::new("dl", SLOW_VIEW);
    let statement = statement(Some(Duration::from_millis(300)));
    let snapshot = bench.source.begin(&statement);
    let slow = Fragment::table(bench.table("slow").await);
    let slow = prepare(&bench.source, slow, &snapshot, 100).await;
    let (mut stream, _) = start(&slow, &snapshot, &statement);
    let started = Instant::now();
    let error = stream.next().await.expect("an answer").expect_err("too slow");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(stream.next().await.is_none(), "an error is the end");
    drop((stream, snapshot));
    until("the thread's end", || threads("dl") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_scan_back() {
    let bench = Bench::new(
        "slowread",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, pad TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
           INSERT INTO t SELECT i, printf('%100d', i) FROM n",
    );
    let statement = statement(None);
    let snapshot = bench.source.begin(&statement);
    let scan =
        prepare(&bench.source, Fragment::table(bench.table("t").await), &snapshot, 500).await;
    let (mut stream, counters) = start(&scan, &snapshot, &statement);
    assert!(stream.next().await.expect("a batch").is_ok());
    assert_eq!(counters.rows(), 500);
    assert_eq!(counters.bytes(), 500 * 108);
    // One batch is made ahead, then the thread waits.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = cpu_ticks("slowread");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cpu_ticks("slowread"), before, "the thread works while nobody reads");
    let rest: Vec<RecordBatch> = stream.try_collect().await.expect("read");
    assert_eq!(rest.iter().map(RecordBatch::num_rows).sum::<usize>(), 199_500);
}

/// Processor time of the thread of source `name`, in the kernel's ticks.
fn cpu_ticks(name: &str) -> u64 {
    let wanted = format!("(sqlite {name})");
    let tasks = std::fs::read_dir("/proc/self/task").expect("linux");
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let stat = stats.into_iter().find(|stat| stat.contains(&wanted)).expect("the thread");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    // utime and stime are fields 14 and 15; the two before the name are gone.
    fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_since_planning_is_an_error() {
    for (change, part) in [
        ("DROP TABLE t", "dropped"),
        ("ALTER TABLE t RENAME COLUMN c TO d", "altered"),
        ("DROP TABLE t; CREATE TABLE t(id INTEGER PRIMARY KEY, c BLOB)", "altered"),
        ("ALTER TABLE t RENAME TO u", "dropped"),
    ] {
        let bench = Bench::new("changed", "CREATE TABLE t(id INTEGER PRIMARY KEY, c TEXT)");
        let statement = statement(None);
        let snapshot = bench.source.begin(&statement);
        let def = bench.table("t").await;
        let scan = prepare(&bench.source, Fragment::table(def), &snapshot, 10).await;
        bench.writer().execute_batch(change).expect(change);
        let (mut stream, _) = start(&scan, &snapshot, &statement);
        let error = stream.next().await.expect("an answer").expect_err(change);
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert!(error.to_string().contains(part), "{change}: {error}");
        assert!(error.to_string().contains("table main.t"), "{error}");
    }

    // A view changes with what it reads; a table does not change with its neighbours.
    let bench = Bench::new(
        "changed",
        "CREATE TABLE t(c TEXT); CREATE VIEW v AS SELECT * FROM t; CREATE TABLE other(x)",
    );
    let (v, other) = (TableName::new("main", "v"), TableName::new("main", "other"));
    let before = (bench.source.stamp(&v).await.ok(), bench.source.stamp(&other).await.ok());
    bench.writer().execute_batch("ALTER TABLE t ADD COLUMN d INTEGER").expect("altered");
    let after = (bench.source.stamp(&v).await.ok(), bench.source.stamp(&other).await.ok());
    assert_ne!(before.0, after.0);
    assert_eq!(before.1, after.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_failures_leave_nothing_behind() {
    let bench = Bench::with(
        "leak",
        "CREATE TABLE good(i INTEGER); INSERT INTO good VALUES (1);
         CREATE TABLE bad(i INTEGER); INSERT INTO bad VALUES ('x')",
        json!({ "max_connections": 2 }),
    );
    bench.read("bad").await.expect_err("the first");
    until("the first thread's end", || threads("leak") == 0).await;
    let files = open_files();
    for _ in 0..250 {
        let four = (0..4).map(|_| bench.read("bad"));
        for result in futures::future::join_all(four).await {
            assert_eq!(result.expect_err("bad").kind(), ErrorKind::Data);
        }
    }
    until("the threads' end", || threads("leak") == 0).await;
    // Other tests open files, too; a leak would be hundreds.
    assert!(open_files() < files + 100, "{files} files before, {} after", open_files());
    assert_eq!(bench.read("good").await.expect("read").num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_says_why() {
    let folder = TempDir::new().expect("a folder");
    let name = TableName::new("main", "t");

    let missing = folder.path().join("no such.db");
    let source = open("missing", &missing, json!({}));
    for error in [
        source.tables().await.expect_err("missing"),
        source.check().await.expect_err("missing"),
        source.table(&name).await.expect_err("missing"),
        source.stamp(&name).await.expect_err("missing"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(missing.to_str().expect("text")), "{error}");
    }
    assert!(!missing.exists(), "reading does not create");

    let source = open("folder", folder.path(), json!({}));
    let error = source.tables().await.expect_err("a folder");
    assert!(error.to_string().contains("is a folder"), "{error}");

    let garbage = folder.path().join("garbage.db");
    std::fs::write(&garbage, "this is text, and long enough to have a header. ".repeat(50))
        .expect("written");
    let error = open("garbage", &garbage, json!({})).tables().await.expect_err("garbage");
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("is not a SQLite database"), "{error}");

    // Characters that mean something in a URI mean nothing in a path.
    let odd = folder.path().join("file:a%20b?mode=rw#c.db");
    Connection::open(&odd).expect("open").execute_batch("CREATE TABLE t(i)").expect("made");
    let tables = open("odd", &odd, json!({})).tables().await.expect("listed");
    assert_eq!(tables.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_is_waited_for_and_then_unavailable() {
    let bench = Bench::with(
        "locked",
        "CREATE TABLE t(i INTEGER); INSERT INTO t VALUES (1)",
        json!({ "busy_timeout": "150ms" }),
    );
    let def = bench.table("t").await;
    let writer = bench.writer();
    writer.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let error = bench.source.tables().await.expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

    let statement = statement(None);
    let snapshot = bench.source.begin(&statement);
    let scan = prepare(&bench.source, Fragment::table(def), &snapshot, 10).await;
    let (mut stream, _) = start(&scan, &snapshot, &statement);
    let error = stream.next().await.expect("an answer").expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("busy_timeout"), "{error}");

    writer.execute_batch("ROLLBACK").expect("unlocked");
    assert_eq!(bench.read("t").await.expect("read").num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_statements_than_connections_wait_for_their_turn() {
    let bench = Bench::with(
        "pool",
        "CREATE TABLE t(i INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
           INSERT INTO t SELECT i FROM n",
        json!({ "max_connections": 1, "acquire_timeout": "200ms" }),
    );
    let statement = statement(None);
    let snapshot = bench.source.begin(&statement);
    let scan = prepare(&bench.source, Fragment::table(bench.table("t").await), &snapshot, 10).await;
    let (mut stream, _) = start(&scan, &snapshot, &statement);
    assert!(stream.next().await.expect("a batch").is_ok());

    let error = bench.read("t").await.expect_err("the only connection is in use");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("max_connections"), "{error}");
    drop((stream, snapshot));
    assert_eq!(bench.read("t").await.expect("read").num_rows(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_is_read_anew() {
    let bench = Bench::new("replaced", "CREATE TABLE t(i INTEGER); INSERT INTO t VALUES (1)");
    assert_eq!(bench.read("t").await.expect("read").num_rows(), 1);
    let new = bench.folder.path().join("new.db");
    Connection::open(&new)
        .expect("open")
        .execute_batch("CREATE TABLE t(i INTEGER); INSERT INTO t VALUES (1), (2)")
        .expect("made");
    std::fs::rename(&new, bench.path()).expect("replaced");
    assert_eq!(bench.read("t").await.expect("read").num_rows(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_come_from_analyze_or_the_rowids() {
    let bench = Bench::new(
        "stats",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, k INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
           INSERT INTO t SELECT i, i % 10 FROM n;
         CREATE INDEX t_k ON t(k); CREATE VIEW v AS SELECT * FROM t;
         CREATE TABLE sparse(id INTEGER PRIMARY KEY);
         INSERT INTO sparse VALUES (1), (9223372036854775807)",
    );
    use datafusion::common::stats::Precision::{Absent, Inexact};
    let of = async |name: &str| {
        let def = bench.table(name).await;
        bench.source.statistics(&def).await.expect("estimated")
    };
    assert_eq!(of("t").await.num_rows, Inexact(1000));
    assert_eq!(of("v").await.num_rows, Absent);
    let sparse = of("sparse").await.num_rows;
    assert!(sparse.get_value().is_some_and(|rows| *rows < 100_000), "{sparse:?}");

    bench.writer().execute_batch("ANALYZE").expect("analyzed");
    let analyzed = of("t").await;
    assert_eq!(analyzed.num_rows, Inexact(1000));
    assert_eq!(analyzed.column_statistics[1].distinct_count, Inexact(10));
    assert_eq!(of("sparse").await.num_rows, Inexact(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_are_checked_and_a_check_reports() {
    let refused = |options: Value| {
        let Value::Object(options): Value = options else { panic!("an object") };
        let options: Map<String, Value> = options;
        synoptic_connectors::open("sqlite", SourceName::new("o"), options, Path::new("/base"))
            .expect_err("wrong")
    };
    assert!(refused(json!({})).message.contains("path"));
    assert!(refused(json!({ "path": "a.db", "mode": "rw" })).message.contains("mode"));
    assert_eq!(refused(json!({ "path": "a.db", "max_connections": 0 })).path, ["max_connections"]);
    assert_eq!(refused(json!({ "path": "a.db", "busy_timeout": "soon" })).path, ["busy_timeout"]);

    let bench = Bench::new("check", "CREATE TABLE t(i)");
    assert!(bench.source.location().ends_with("t.db"));
    assert_eq!(bench.source.default_schema(), "main");
    let check = bench.source.check().await.expect("answers");
    assert!(check.version.starts_with("SQLite 3."), "{}", check.version);
}

//! The engine over a real SQLite file: plans, options, limits, the life of a query.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt};
use synoptic_catalog::Host;
use synoptic_engine::{Engine, EngineConfig, Error, QueryState, Request, Session};
use synoptic_source::Source;
use synoptic_types::{ByteSize, ErrorCode, SourceName, SystemClock};
use tempfile::TempDir;

/// An engine over one SQLite source `bank`; the folder lives as long as it.
struct Bank {
    _folder: TempDir,
    engine: Arc<Engine>,
}

const SCHEMA: &str = "
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, country TEXT);
    CREATE TABLE trades (
        id INTEGER PRIMARY KEY, account INTEGER NOT NULL, symbol TEXT NOT NULL,
        qty INTEGER NOT NULL, price DECIMAL(12, 2) NOT NULL
    );
    INSERT INTO accounts VALUES (1, 'Ada', 'UK'), (2, 'Bob', NULL), (3, 'Cleo', 'FR');
    INSERT INTO trades
      SELECT value, value % 3 + 1, CASE value % 2 WHEN 0 THEN 'IBM' ELSE 'AAPL' END,
             value % 7, (value % 100) || '.25'
      FROM (WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 10000)
            SELECT value FROM n);
    ANALYZE;";

fn sqlite(name: &str, path: &Path) -> Arc<dyn Source> {
    let mut options = serde_json::Map::new();
    options.insert("path".to_owned(), path.to_str().expect("utf-8").into());
    synoptic_connectors::open("sqlite", SourceName::new(name), options, Path::new("."))
        .expect("options are right")
}

impl Bank {
    fn open() -> Self {
        Self::with(EngineConfig { target_partitions: 2, ..EngineConfig::default() })
    }

    fn with(config: EngineConfig) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("bank.db");
        let database = rusqlite::Connection::open(&path).expect("a new file");
        database.execute_batch(SCHEMA).expect("valid SQL");
        let host = Host::new(vec![sqlite("bank", &path)]);
        let engine = Engine::new(config, host, Arc::new(SystemClock)).expect("an engine");
        Self { _folder: folder, engine }
    }

    fn session(&self) -> Session {
        self.engine.session("test")
    }
}

fn request(sql: &str) -> Request {
    Request { sql: sql.to_owned(), ..Request::default() }
}

async fn run(session: &Session, request: Request) -> Result<Vec<RecordBatch>, Error> {
    session.plan(request).await?.run()?.try_collect().await
}

async fn query(session: &Session, sql: &str) -> Result<Vec<RecordBatch>, Error> {
    run(session, request(sql)).await
}

async fn table(session: &Session, sql: &str) -> String {
    let batches = query(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    pretty_format_batches(&batches).expect("printable").to_string()
}

async fn code(session: &Session, sql: &str) -> ErrorCode {
    match query(session, sql).await {
        Ok(_) => panic!("{sql} was answered"),
        Err(error) => error.code(),
    }
}

/// The remote scans of a plan, one per line.
async fn scans(session: &Session, sql: &str) -> String {
    let plan = table(session, &format!("EXPLAIN {sql}")).await;
    let scan = |line: &str| {
        let at = line.find("RemoteScan:")?;
        Some(line[at..].trim_end_matches(['|', ' ']).to_owned())
    };
    plan.lines().filter_map(scan).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn explain_shows_what_is_sent_and_why_the_rest_stays() {
    let bank = Bank::open();
    let session = bank.session();
    insta::assert_snapshot!(
        scans(&session, "SELECT owner FROM bank.accounts WHERE id >= 2 AND length(owner) = 3").await,
        @r#"RemoteScan: source=bank, copy=primary, partitions=1, estimated_rows=~1, remote=[SELECT "owner", "id" FROM "main"."accounts" WHERE "id" >= 2], kept_here=[character_length(bank.accounts.owner) = Int32(3): character_length() is not on the source's allow-list]"#
    );
    insta::assert_snapshot!(
        scans(&session, "SELECT id FROM bank.trades WHERE symbol = 'IBM' LIMIT 5").await,
        @r#"RemoteScan: source=bank, copy=primary, partitions=1, estimated_rows=~5, remote=[SELECT "id", "symbol" FROM "main"."trades" WHERE "symbol" = 'IBM' LIMIT 5]"#
    );
    let grouped = scans(&session, "SELECT symbol, count(*) FROM bank.trades GROUP BY symbol").await;
    assert!(grouped.contains("would not be cheaper at the source"), "{grouped}");
    session.set_option("pushdown", "none").expect("an option");
    insta::assert_snapshot!(
        scans(&session, "SELECT id FROM bank.trades WHERE symbol = 'IBM' LIMIT 5").await,
        @r#"RemoteScan: source=bank, copy=primary, partitions=1, estimated_rows=~10000, remote=[SELECT "id", "symbol" FROM "main"."trades"], kept_here=[bank.trades.symbol = Utf8("IBM"): synoptic.pushdown is 'none']"#
    );
}

#[tokio::test]
async fn answers_are_the_same_with_pushdown_on_and_off() {
    let bank = Bank::open();
    let (on, off) = (bank.session(), bank.session());
    off.set_option("pushdown", "none").expect("an option");
    for sql in [
        "SELECT a.owner, sum(t.qty * t.price) AS value FROM bank.trades t
         JOIN bank.accounts a ON a.id = t.account WHERE t.symbol = 'IBM' GROUP BY 1 ORDER BY 1",
        "SELECT * FROM bank.accounts WHERE country IS NULL OR country <> 'UK' ORDER BY id",
        "SELECT count(*) FROM bank.trades WHERE id BETWEEN 17 AND 4711",
        "SELECT id FROM bank.trades WHERE id NOT IN (SELECT id + 3 FROM bank.trades) ORDER BY 1",
        "SELECT id FROM bank.trades ORDER BY id LIMIT 3 OFFSET 9000",
    ] {
        assert_eq!(table(&on, sql).await, table(&off, sql).await, "{sql}");
    }
}

/// DataFusion's optimizer makes a plan of this that its last rule refuses.
#[tokio::test]
async fn a_sort_over_columns_that_are_equal_or_constant_in_a_branch() {
    let bank = Bank::open();
    let session = bank.session();
    session.set_option("pushdown", "none").expect("an option");
    let sql = "SELECT price AS a, count(*) AS b, count(*) AS c FROM bank.trades GROUP BY 1 \
               UNION ALL SELECT CAST('2' AS DECIMAL(38, 10)), character_length('a_b'), count(*) \
               FROM bank.trades ORDER BY 2, 1, 3";
    let plan = table(&session, &format!("EXPLAIN {sql}")).await;
    assert!(plan.contains("Unordered"), "it is planned at once by now: {plan}");
    let rows = table(&session, sql).await;
    let first = rows.lines().nth(3).expect("there are rows");
    assert_eq!(
        first.split_whitespace().collect::<Vec<_>>().join(" "),
        "| 2.0000000000 | 3 | 10000 |"
    );
    assert_eq!(rows.lines().count(), 105, "{rows}");
    // The same in one branch alone.
    let sql = "SELECT p.b, p.a FROM (SELECT qty % 3 AS a, id AS b FROM bank.trades \
               WHERE account IN (SELECT id FROM bank.accounts)) p WHERE p.a = 2 ORDER BY 2, 1 LIMIT 2";
    assert_eq!(table(&session, sql).await.lines().count(), 6);
}

#[tokio::test]
async fn only_wanted_rows_leave_the_source() {
    let bank = Bank::open();
    let session = bank.session();
    let sql = "SELECT symbol FROM bank.trades WHERE id = 4711";
    let mut stream = session.plan(request(sql)).await.expect("plans").run().expect("runs");
    while let Some(batch) = stream.next().await {
        batch.expect("answers");
    }
    let receipt = stream.receipt();
    assert_eq!(receipt.scans.len(), 1);
    assert_eq!(receipt.scans[0].rows, 1);
    assert!(receipt.scans[0].bytes > 0 && receipt.scans[0].bytes < 1000);
    assert_eq!(receipt.scans[0].table, "main.trades");
}

#[tokio::test]
async fn names_are_found_in_every_form_and_wrong_ones_get_a_hint() {
    let bank = Bank::open();
    let session = bank.session();
    for sql in [
        "SELECT count(*) FROM bank.main.accounts",
        "SELECT count(*) FROM bank.accounts",
        "SELECT count(*) FROM system.sources",
        "SELECT count(*) FROM synoptic.system.sources",
    ] {
        query(&session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let error = query(&session, "SELECT * FROM bank.acounts").await.expect_err("misspelt");
    assert_eq!(error.code(), ErrorCode::UnknownTable);
    assert!(error.to_string().contains("bank.main.accounts"), "{error}");
    let error = query(&session, "SELECT onwer FROM bank.accounts").await.expect_err("misspelt");
    assert_eq!(error.code(), ErrorCode::UnknownColumn);
    assert!(error.to_string().contains("owner"), "{error}");

    query(&session, "USE bank").await.expect("a catalog");
    query(&session, "SELECT count(*) FROM accounts").await.expect("unqualified");
    query(&session, "SELECT count(*) FROM bank.accounts").await.expect("still a shorthand");
    assert_eq!(code(&session, "USE bnak").await, ErrorCode::UnknownTable);
}

#[tokio::test]
async fn session_functions_and_options_answer() {
    let bank = Bank::open();
    let session = bank.session();
    insta::assert_snapshot!(
        table(&session, "SELECT current_catalog, current_schema(), current_user, 0.1 + 0.2 AS exact")
            .await,
        @r#"
+-------------------+------------------+----------------+-------+
| current_catalog() | current_schema() | current_user() | exact |
+-------------------+------------------+----------------+-------+
| synoptic          | public           | anonymous      | 0.3   |
+-------------------+------------------+----------------+-------+
"#
    );
    query(&session, "SET synoptic.max_rows_read = 10").await.expect("an option");
    query(&session, "SET extra_float_digits = 3").await.expect("harmless");
    assert_eq!(session.options().max_rows_read, Some(10));
    assert_eq!(code(&session, "SET synoptic.max_rows_red = 10").await, ErrorCode::InvalidOption);
    assert_eq!(
        code(&session, "SET synoptic.consistency = 'often'").await,
        ErrorCode::InvalidOption
    );
    assert_eq!(
        code(&session, "SET datafusion.execution.batch_size = 1").await,
        ErrorCode::InvalidOption
    );
    insta::assert_snapshot!(table(&session, "SHOW synoptic.max_rows_read").await, @r#"
+------------------------+-------+-------------+
| name                   | value | description |
+------------------------+-------+-------------+
| synoptic.max_rows_read | 10    |             |
+------------------------+-------+-------------+
"#);
    query(&session, "RESET synoptic.max_rows_read").await.expect("an option");
    assert_eq!(session.options().max_rows_read, None);
}

#[tokio::test]
async fn metadata_is_there_for_people_and_tools() {
    let bank = Bank::open();
    let session = bank.session();
    insta::assert_snapshot!(table(&session, "SHOW TABLES IN bank").await, @r#"
+---------------+--------------+------------+------------+
| table_catalog | table_schema | table_name | table_type |
+---------------+--------------+------------+------------+
| bank          | main         | accounts   | BASE TABLE |
| bank          | main         | trades     | BASE TABLE |
+---------------+--------------+------------+------------+
"#);
    insta::assert_snapshot!(
        table(
            &session,
            "SELECT column_name, ordinal_position, is_nullable, data_type
             FROM information_schema.columns WHERE table_name = 'trades'"
        )
        .await,
        @r#"
+-------------+------------------+-------------+-------------------+
| column_name | ordinal_position | is_nullable | data_type         |
+-------------+------------------+-------------+-------------------+
| id          | 1                | NO          | Int64             |
| account     | 2                | NO          | Int64             |
| symbol      | 3                | NO          | Utf8              |
| qty         | 4                | NO          | Int64             |
| price       | 5                | NO          | Decimal128(12, 2) |
+-------------+------------------+-------------+-------------------+
"#
    );
    insta::assert_snapshot!(
        table(&session, "SELECT source, connector, status, filters, error FROM system.sources").await,
        @r#"
+--------+-----------+--------+---------+-------+
| source | connector | status | filters | error |
+--------+-----------+--------+---------+-------+
| bank   | sqlite    | up     | exact   |       |
+--------+-----------+--------+---------+-------+
"#
    );
    insta::assert_snapshot!(table(&session, "SHOW CATALOGS").await, @r#"
+--------------+
| catalog_name |
+--------------+
| bank         |
| synoptic     |
+--------------+
"#);
    query(&session, "DESCRIBE bank.accounts").await.expect("describes");
}

#[tokio::test]
async fn parameters_are_typed_counted_and_bound() {
    let bank = Bank::open();
    let session = bank.session();
    let sql = "SELECT owner FROM bank.accounts WHERE id = ? AND owner <> ?";
    let described = session.describe(&request(sql)).await.expect("describes");
    let names: Vec<_> = described.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["$1", "$2"]);

    let bound = |parameters: Vec<ScalarValue>| Request { parameters, ..request(sql) };
    let values = vec![ScalarValue::Int32(Some(2)), ScalarValue::Utf8(Some("Ada".into()))];
    let rows = run(&session, bound(values)).await.expect("answers");
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert_eq!(rows[0].schema(), described.schema, "one schema for a statement");

    let error =
        run(&session, bound(vec![ScalarValue::Int64(Some(2))])).await.expect_err("one of two");
    assert!(error.to_string().contains('2') && error.to_string().contains('1'), "{error}");
    let wrong = vec![ScalarValue::Utf8(Some("two".into())), ScalarValue::Utf8(None)];
    let error = run(&session, bound(wrong)).await.expect_err("not a number");
    assert_eq!(error.code(), ErrorCode::Data);
}

#[tokio::test]
async fn a_described_schema_is_the_schema_of_the_answer() {
    let bank = Bank::open();
    let session = bank.session();
    for sql in [
        "SELECT 1, 1",
        "SELECT count(*), avg(price), min(owner) FROM bank.trades, bank.accounts",
        "SELECT a.owner, t.qty FROM bank.accounts a LEFT JOIN bank.trades t ON t.account = a.id LIMIT 1",
        "SELECT CASE WHEN qty > 3 THEN 'many' END FROM bank.trades LIMIT 1",
        "SELECT country FROM bank.accounts UNION ALL SELECT 'x'",
        "SELECT sum(qty) OVER (ORDER BY id) FROM bank.trades LIMIT 2",
        "SELECT * FROM bank.accounts WHERE false",
        "EXPLAIN SELECT 1",
        "SHOW ALL",
        "SHOW TABLES",
        "SET synoptic.pushdown = 'auto'",
    ] {
        let described =
            session.describe(&request(sql)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let stream = session.plan(request(sql)).await.expect("plans").run().expect("runs");
        assert_eq!(described.schema, stream.schema(), "{sql}");
        let batches: Vec<_> =
            stream.try_collect().await.unwrap_or_else(|e: Error| panic!("{sql}: {e}"));
        for batch in batches {
            assert_eq!(described.schema, batch.schema(), "{sql}");
        }
    }
}

#[tokio::test]
async fn a_statement_that_reads_too_much_is_stopped() {
    let bank = Bank::open();
    let session = bank.session();
    session.set_option("max_rows_read", "100").expect("an option");
    let error = query(&session, "SELECT qty FROM bank.trades").await.expect_err("too much");
    assert_eq!(error.code(), ErrorCode::BudgetExceeded);
    assert!(error.to_string().contains("'bank'") && error.to_string().contains("100"), "{error}");
    query(&session, "SELECT * FROM bank.trades WHERE id < 50").await.expect("little enough");
}

/// A query that never ends by itself.
const ENDLESS: &str = "SELECT count(*) FROM bank.trades a, bank.trades b, bank.trades c";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_runs_out() {
    let bank = Bank::open();
    let session = bank.session();
    session.set_option("statement_timeout", "300ms").expect("an option");
    let started = Instant::now();
    assert_eq!(code(&session, ENDLESS).await, ErrorCode::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let failed = bank.engine.queries().into_iter().find(|q| q.sql == ENDLESS).expect("remembered");
    assert_eq!(failed.state, QueryState::Failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_cancelled_by_its_id_and_by_being_dropped() {
    let bank = Bank::open();
    let session = bank.session();
    let planned = session.plan(request(ENDLESS)).await.expect("plans");
    let id = planned.id().clone();
    let running = tokio::spawn(async move {
        let batches: Result<Vec<_>, Error> = planned.run().expect("runs").try_collect().await;
        batches.map(drop)
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    query(&session, &format!("CALL system.cancel('{id}')")).await.expect("cancels");
    let error = running.await.expect("no panic").expect_err("cancelled");
    assert_eq!(error.code(), ErrorCode::Cancelled);
    let state = |id: &synoptic_types::QueryId| {
        bank.engine.queries().into_iter().find(|q| q.id == *id).map(|q| q.state)
    };
    assert_eq!(state(&id), Some(QueryState::Cancelled));

    let dropped = session.plan(request(ENDLESS)).await.expect("plans");
    let id = dropped.id().clone();
    assert_eq!(state(&id), Some(QueryState::Planned));
    let stream = dropped.run().expect("runs");
    assert_eq!(state(&id), Some(QueryState::Running));
    drop(stream);
    assert_eq!(state(&id), Some(QueryState::Cancelled));
    assert_eq!(code(&session, "CALL system.cancel('nobody')").await, ErrorCode::InvalidOption);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_queries_are_refused_and_places_come_back() {
    let bank = Bank::with(EngineConfig { max_concurrent_queries: 1, ..EngineConfig::default() });
    let session = bank.session();
    let first = session.plan(request(ENDLESS)).await.expect("plans").run().expect("runs");
    assert_eq!(code(&session, "SELECT 1").await, ErrorCode::QueueFull);
    drop(first);
    query(&session, "SELECT 1").await.expect("the place is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sort_beyond_memory_spills_and_what_cannot_spill_is_refused() {
    let config = EngineConfig {
        memory_limit: ByteSize(24 << 20),
        target_partitions: 1,
        ..EngineConfig::default()
    };
    let bank = Bank::with(config);
    let session = bank.session();
    let sorted = "SELECT value, repeat('x', 100) AS pad FROM generate_series(1, 500000)
                  ORDER BY value % 1000, value";
    let rows = query(&session, sorted).await.expect("spills");
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 500_000);

    let built = "SELECT count(*) FROM generate_series(1, 3000000) a
                 JOIN (SELECT value AS v, repeat('x', 200) AS pad FROM generate_series(1, 1000000)) b
                 ON a.value = b.v WHERE b.pad <> cast(a.value AS varchar)";
    assert_eq!(code(&session, built).await, ErrorCode::OutOfMemory);
    query(&session, "SELECT 1").await.expect("the memory is free again");
    assert_eq!(bank.engine.memory_reserved(), 0);
}

#[tokio::test]
async fn a_source_that_is_down_is_named_and_does_not_spoil_the_rest() {
    let bank = Bank::open();
    let down = sqlite("down", Path::new("/nonexistent/down.db"));
    let up =
        bank.engine.host().snapshot().sources().map(|e| Arc::clone(e.source())).collect::<Vec<_>>();
    bank.engine.host().replace(up.into_iter().chain([down]).collect());
    let session = bank.session();
    let error = query(&session, "SELECT * FROM down.t").await.expect_err("down");
    assert_eq!(error.code(), ErrorCode::SourceUnavailable);
    assert!(error.to_string().contains("'down'"), "{error}");
    query(&session, "SELECT * FROM bank.accounts").await.expect("up");
    let listed = table(&session, "SELECT DISTINCT source FROM system.tables").await;
    assert!(listed.contains("bank") && !listed.contains("down"), "{listed}");
    let states = table(&session, "SELECT source, status FROM system.sources ORDER BY 1").await;
    assert!(states.contains("down") && states.contains("up"), "{states}");
}

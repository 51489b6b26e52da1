//! Plans of statements that were asked before: used again, and never when they are not right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use synoptic_catalog::Host;
use synoptic_engine::{Engine, EngineConfig, Error, QueryState, Request, Session};
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{ErrorCode, SourceName, SystemClock};
use tempfile::TempDir;
use tokio_postgres::Client;

struct Bank {
    _folder: TempDir,
    path: PathBuf,
    engine: Arc<Engine>,
}

impl Bank {
    fn open() -> Self {
        Self::with(EngineConfig::default())
    }

    fn with(config: EngineConfig) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("bank.db");
        execute(
            &path,
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL);
             CREATE TABLE trades (id INTEGER PRIMARY KEY, account INTEGER NOT NULL);
             INSERT INTO accounts VALUES (1, 'Ada'), (2, 'Bob'), (3, 'Cleo');
             INSERT INTO trades VALUES (10, 1), (11, 2), (12, 3), (13, 1);",
        );
        let mut options = serde_json::Map::new();
        options.insert("path".to_owned(), path.to_str().expect("utf-8").into());
        let source =
            synoptic_connectors::open("sqlite", SourceName::new("bank"), options, Path::new("."));
        let host = Host::new(vec![source.expect("options are right")]);
        let engine = Engine::new(config, host, Arc::new(SystemClock)).expect("an engine");
        Self { _folder: folder, path, engine }
    }

    fn session(&self) -> Session {
        self.engine.session("test")
    }

    /// Hits and misses.
    fn counted(&self) -> (u64, u64) {
        let stats = self.engine.plan_cache();
        (stats.hits, stats.misses)
    }
}

fn execute(path: &Path, sql: &str) {
    let database = rusqlite::Connection::open(path).expect("the file opens");
    database.execute_batch(sql).expect("valid SQL");
}

async fn run(
    session: &Session,
    sql: &str,
    parameters: Vec<ScalarValue>,
) -> Result<Vec<RecordBatch>, Error> {
    let request = Request { sql: sql.to_owned(), parameters, ..Request::default() };
    session.plan(request).await?.run()?.try_collect().await
}

/// The rows as text, columns parted by a space.
async fn rows(session: &Session, sql: &str, parameters: Vec<ScalarValue>) -> Vec<String> {
    let batches = run(session, sql, parameters).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let value = |column: &Arc<dyn arrow::array::Array>| {
                let shown = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default());
                shown.expect("printable").value(row).to_string()
            };
            rows.push(batch.columns().iter().map(value).collect::<Vec<_>>().join(" "));
        }
    }
    rows
}

fn int(value: i64) -> Vec<ScalarValue> {
    vec![ScalarValue::Int64(Some(value))]
}

#[tokio::test]
async fn a_repeated_statement_is_planned_once_and_bound_each_time() {
    let bank = Bank::open();
    let session = bank.session();
    let sql = "SELECT owner FROM bank.accounts WHERE id = $1";
    assert_eq!(rows(&session, sql, int(1)).await, ["Ada"]);
    assert_eq!(bank.counted(), (0, 1));
    assert_eq!(rows(&session, sql, int(2)).await, ["Bob"]);
    // Values of other types are cast as before; sessions share the plans.
    let text = vec![ScalarValue::Utf8(Some("3".to_owned()))];
    assert_eq!(rows(&bank.session(), sql, text).await, ["Cleo"]);
    assert_eq!(rows(&session, sql, vec![ScalarValue::Int64(None)]).await, [""; 0]);
    assert_eq!(bank.counted(), (3, 1));
    let error = run(&session, sql, vec![]).await.expect_err("a parameter is missing");
    assert_eq!(error.code(), ErrorCode::InvalidOption);

    let nested = "SELECT owner FROM bank.accounts \
                  WHERE id IN (SELECT account FROM bank.trades WHERE id = $1)";
    assert_eq!(rows(&session, nested, int(10)).await, ["Ada"]);
    assert_eq!(rows(&session, nested, int(11)).await, ["Bob"]);
    let stats = bank.engine.plan_cache();
    assert_eq!((stats.hits, stats.misses, stats.entries), (5, 2, 2));
}

#[tokio::test]
async fn what_is_described_is_planned_once_for_all_who_run_it() {
    let bank = Bank::open();
    let session = bank.session();
    let sql = "SELECT owner, id * 2 AS twice FROM bank.accounts WHERE id + 0 > 1 ORDER BY owner";
    let request = || Request { sql: sql.to_owned(), ..Request::default() };
    let described = session.describe(&request()).await.expect("a description");
    assert_eq!(bank.counted(), (0, 1));
    assert_eq!(session.plan(request()).await.expect("a plan").schema(), described.schema);
    assert_eq!(rows(&session, sql, vec![]).await, ["Bob 4", "Cleo 6"]);
    let again = session.describe(&request()).await.expect("a description");
    assert_eq!((again.schema, again.parameters.len()), (described.schema, 0));
    assert_eq!(bank.counted(), (3, 1));
    // The optimized plan has no place for a value, and says so as the stated one does.
    let error = run(&session, sql, int(1)).await.expect_err("there is no parameter");
    assert_eq!(error.code(), ErrorCode::InvalidOption);
    // What it reads is of now.
    execute(&bank.path, "UPDATE accounts SET owner = 'Dora' WHERE id = 2");
    assert_eq!(rows(&session, sql, vec![]).await, ["Cleo 6", "Dora 4"]);
    // Options that decide about the plan are part of its key.
    session.set_option("pushdown", "none").expect("an option");
    assert_eq!(rows(&session, sql, vec![]).await, ["Cleo 6", "Dora 4"]);
    assert_eq!(bank.counted().1, 2);
}

#[tokio::test]
async fn new_rows_and_an_altered_or_dropped_table_are_seen_at_once() {
    let bank = Bank::open();
    let session = bank.session();
    let sql = "SELECT * FROM bank.accounts WHERE id >= 3 ORDER BY id";
    assert_eq!(rows(&session, sql, vec![]).await, ["3 Cleo"]);
    execute(&bank.path, "INSERT INTO accounts VALUES (4, 'Dan')");
    assert_eq!(rows(&session, sql, vec![]).await, ["3 Cleo", "4 Dan"]);
    assert_eq!(bank.counted(), (1, 1));
    execute(&bank.path, "ALTER TABLE accounts ADD COLUMN country TEXT DEFAULT 'UK'");
    assert_eq!(rows(&session, sql, vec![]).await, ["3 Cleo UK", "4 Dan UK"]);
    execute(&bank.path, "DROP TABLE accounts; CREATE TABLE accounts (id TEXT)");
    let error = run(&session, sql, vec![]).await;
    // A text is not compared with a number in silence: either way it is not the old plan.
    if let Ok(batches) = error {
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    }
    execute(&bank.path, "DROP TABLE accounts");
    let error = run(&session, sql, vec![]).await.expect_err("the table is gone");
    assert_eq!(error.code(), ErrorCode::UnknownTable, "{error}");
}

#[tokio::test]
async fn what_a_session_sets_is_its_own() {
    let bank = Bank::open();
    let (utc, oslo) = (bank.session(), bank.session());
    oslo.set_option("timezone", "+02:00").expect("a zone");
    let sql = "SELECT TIMESTAMPTZ '2026-01-01 12:00:00' AS t, id FROM bank.accounts WHERE id = 1";
    for _ in 0..2 {
        let (here, there) = (rows(&utc, sql, vec![]).await, rows(&oslo, sql, vec![]).await);
        assert!(here[0].contains("12:00:00Z"), "{here:?}");
        assert_ne!(here, there);
    }
    utc.set_option("timezone", "+02:00").expect("a zone");
    assert_eq!(rows(&utc, sql, vec![]).await, rows(&oslo, sql, vec![]).await);

    let place = "SELECT current_catalog";
    assert_eq!(rows(&utc, place, vec![]).await, ["synoptic"]);
    utc.set_catalog("bank").expect("a catalog");
    assert_eq!(rows(&utc, place, vec![]).await, ["bank"]);
    assert_eq!(rows(&oslo, place, vec![]).await, ["synoptic"]);

    // The same unqualified name in two places.
    let plain = "SELECT count(*) FROM accounts";
    assert_eq!(rows(&utc, plain, vec![]).await, ["3"]);
    let error = run(&oslo, plain, vec![]).await.expect_err("not there");
    assert_eq!(error.code(), ErrorCode::UnknownTable);

    let options = "SELECT owner FROM bank.accounts WHERE id = 2";
    assert_eq!(rows(&utc, options, vec![]).await, ["Bob"]);
    utc.set_option("pushdown", "none").expect("an option");
    utc.set_option("max_rows_read", "1").expect("an option");
    let error = run(&utc, options, vec![]).await.expect_err("it reads all three rows");
    assert_eq!(error.code(), ErrorCode::BudgetExceeded, "{error}");
}

#[tokio::test]
async fn time_and_chance_go_on() {
    let bank = Bank::open();
    let session = bank.session();
    for sql in ["SELECT now()", "SELECT random()", "SELECT uuid()"] {
        let first = rows(&session, sql, vec![]).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert_ne!(first, rows(&session, sql, vec![]).await, "{sql}");
    }
    assert_eq!(bank.counted(), (3, 3));
}

#[tokio::test]
async fn system_tables_and_plans_themselves_are_not_kept() {
    let bank = Bank::open();
    let session = bank.session();
    let sql = "SELECT count(*) FROM system.queries";
    let first = rows(&session, sql, vec![]).await;
    assert_ne!(first, rows(&session, sql, vec![]).await);
    for _ in 0..2 {
        rows(&session, "EXPLAIN SELECT owner FROM bank.accounts", vec![]).await;
    }
    let stats = bank.engine.plan_cache();
    assert_eq!((stats.hits, stats.entries), (0, 0));
}

#[tokio::test]
async fn the_cache_has_a_bound() {
    for bound in [0_usize, 2] {
        let bank = Bank::with(EngineConfig { plan_cache: bound, ..EngineConfig::default() });
        let session = bank.session();
        for i in 0..10 {
            rows(&session, &format!("SELECT {i} FROM bank.accounts"), vec![]).await;
        }
        assert!(bank.engine.plan_cache().entries <= bound as u64);
        rows(&session, "SELECT 9 FROM bank.accounts", vec![]).await;
        assert!(bank.engine.plan_cache().hits <= u64::from(bound > 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_each_get_their_own_rows() {
    let bank = Bank::open();
    let sql = "SELECT owner FROM bank.accounts WHERE id = $1";
    let owners = ["Ada", "Bob", "Cleo"];
    let tasks = (0..8).map(|task| {
        let session = bank.session();
        tokio::spawn(async move {
            for i in 0..40_usize {
                let wanted = (task + i) % 3;
                let found = rows(&session, sql, int(wanted as i64 + 1)).await;
                assert_eq!(found, [owners[wanted]]);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no assertion failed");
    }
    let (hits, misses) = bank.counted();
    assert_eq!(hits + misses, 320);
    assert!(misses <= 8, "{misses}");
}

/// A PostgreSQL database behind an engine.
async fn portfolio(setup: &str) -> (Arc<PostgresServer>, Client, Arc<Engine>) {
    let server = PostgresServer::shared();
    let name = server.create_database().await;
    let client = server.client(&name).await;
    client.batch_execute(setup).await.expect("valid SQL");
    let options = serde_json::Map::from_iter([("url".to_owned(), server.url(&name).into())]);
    let source =
        synoptic_connectors::open("postgres", SourceName::new("pg"), options, Path::new("."));
    let host = Host::new(vec![source.expect("options are right")]);
    let engine = Engine::new(EngineConfig::default(), host, Arc::new(SystemClock));
    (server, client, engine.expect("an engine"))
}

/// Columns and rows of a statement that is planned and started at once.
async fn started(
    session: &Session,
    sql: &str,
    parameters: Vec<ScalarValue>,
) -> Result<(Vec<String>, usize), Error> {
    let request = Request { sql: sql.to_owned(), parameters, ..Request::default() };
    let stream = session.start(request).await?;
    let columns = stream.schema().fields().iter().map(|field| field.name().clone()).collect();
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    Ok((columns, batches.iter().map(RecordBatch::num_rows).sum()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_asked_for_before_it_is_read_is_seen_as_it_is() {
    let (_server, client, engine) = portfolio(
        "CREATE TABLE t (id int PRIMARY KEY, name text); \
         INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 50) i; ANALYZE t; \
         CREATE TABLE u AS SELECT * FROM t; ANALYZE u",
    )
    .await;
    let session = engine.session("test");
    let all = "SELECT * FROM pg.t WHERE id = $1";
    let both = "SELECT t.*, u.name AS other FROM pg.t AS t JOIN pg.u AS u ON u.id = t.id \
                WHERE t.id <= $1";
    let none = "SELECT * FROM pg.t WHERE id = $1 AND id <> $1 AND false";
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    for id in 1..4 {
        let one = started(&session, all, int(id)).await.expect("an answer");
        assert_eq!(one, (names(&["id", "name"]), 1));
        let few = started(&session, both, int(id)).await.expect("an answer");
        assert_eq!(few, (names(&["id", "name", "other"]), usize::try_from(id).expect("small")));
        let no = started(&session, none, int(id)).await.expect("an answer");
        assert_eq!(no, (names(&["id", "name"]), 0));
    }
    let hits = engine.plan_cache().hits;
    assert!(hits >= 4, "{hits}");
    client.batch_execute("ALTER TABLE t ADD COLUMN more int").await.expect("altered");
    // In whatever order: nothing but the source itself says so.
    let no = started(&session, none, int(1)).await.expect("an answer");
    assert_eq!(no, (names(&["id", "name", "more"]), 0));
    client.batch_execute("ALTER TABLE t ADD COLUMN again int").await.expect("altered");
    let one = started(&session, all, int(2)).await.expect("an answer");
    assert_eq!(one, (names(&["id", "name", "more", "again"]), 1));
    let few = started(&session, both, int(2)).await.expect("an answer");
    assert_eq!(few, (names(&["id", "name", "more", "again", "other"]), 2));
    client.batch_execute("ALTER TABLE t DROP COLUMN name").await.expect("altered");
    let one = started(&session, all, int(2)).await.expect("an answer");
    assert_eq!(one, (names(&["id", "more", "again"]), 1));
    client.batch_execute("DROP TABLE t").await.expect("dropped");
    for sql in [all, both, none] {
        let error = started(&session, sql, int(1)).await.expect_err("the table is gone");
        assert_eq!(error.code(), ErrorCode::UnknownTable, "{error}");
    }
    client.batch_execute("CREATE VIEW t AS SELECT 1 AS id, 2 AS b").await.expect("made");
    let one = started(&session, all, int(1)).await.expect("an answer");
    assert_eq!(one, (names(&["id", "b"]), 1));
    // Statements that went wrong have ended, and are not listed as running.
    let running = engine.queries();
    let running = running
        .iter()
        .filter(|query| matches!(query.state, QueryState::Planned | QueryState::Running));
    assert_eq!(running.count(), 0);
}

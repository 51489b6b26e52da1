//! INSERT into real sources: exact values, one transaction, once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use serde_json::json;
use synoptic_catalog::Host;
use synoptic_engine::{Engine, EngineConfig, Error, Receipt, Request, Session, WallClock};
use synoptic_tests::postgres::PostgresServer;
use synoptic_tests::proxy::Proxy;
use synoptic_types::{ErrorCode, QueryId, SourceName, SystemClock};
use tempfile::TempDir;

const POSTGRES: &str = "
    CREATE TABLE t (id int PRIMARY KEY, name text, price numeric(10, 2), free numeric, f float8,
        day date, at timestamp, moment timestamptz, flag bool, raw bytea, key uuid, doc jsonb,
        small int2 DEFAULT 7);
    CREATE TABLE strict (id int NOT NULL, n int2);
    CREATE TABLE ips (id int, ip inet);
    CREATE TABLE slow (id int);
    CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT OR UPDATE OR DELETE ON slow DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_at_commit();
    CREATE TABLE doomed (id int);
    CREATE FUNCTION fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(1.5); RAISE ''not today''; END';
    CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON doomed DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail_at_commit();";

const SQLITE: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(12, 2), f REAL, day DATE,
        at TIMESTAMP, moment TIMESTAMPTZ, flag BOOLEAN, raw BLOB, any_thing VARIANT);
    CREATE TABLE strict (id INTEGER NOT NULL, n INTEGER CHECK (n < 100));";

/// A PostgreSQL source `pg` behind a proxy, a SQLite source `lite`, and `closed`, which is the same
/// file and not writable.
struct World {
    _folder: TempDir,
    server: Arc<PostgresServer>,
    database: String,
    proxy: Proxy,
    engine: Arc<Engine>,
}

impl World {
    async fn new() -> Self {
        Self::with(EngineConfig { target_partitions: 2, ..EngineConfig::default() }).await
    }

    async fn with(config: EngineConfig) -> Self {
        let server = PostgresServer::shared();
        let database = server.create_database().await;
        server.client(&database).await.batch_execute(POSTGRES).await.expect("valid SQL");
        let proxy = Proxy::to(server.port());
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("lite.db");
        let lite = rusqlite::Connection::open(&path).expect("a new file");
        lite.execute_batch(SQLITE).expect("valid SQL");
        let url = server
            .url(&database)
            .replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
        let open = |name: &str, connector: &str, options: serde_json::Value| {
            let options = options.as_object().cloned().expect("an object");
            synoptic_connectors::open(connector, SourceName::new(name), options, Path::new("."))
                .expect("options are right")
        };
        let host = Host::new(vec![
            open("pg", "postgres", json!({"url": url, "writable": true})),
            open("lite", "sqlite", json!({"path": path, "writable": true})),
            open("closed", "sqlite", json!({"path": path})),
        ]);
        let engine = Engine::new(config, host, Arc::new(SystemClock)).expect("an engine");
        Self { _folder: folder, server, database, proxy, engine }
    }

    fn session(&self) -> Session {
        self.engine.session("test")
    }

    async fn written(&self, sql: &str) -> Result<i64, Error> {
        written(&self.session(), sql, vec![]).await
    }

    async fn refused(&self, sql: &str, code: ErrorCode, part: &str) {
        let error = self.written(sql).await.expect_err(sql);
        assert!(error.code() == code && error.to_string().contains(part), "{sql}: {error}");
    }

    async fn table(&self, sql: &str) -> String {
        let request = Request { sql: sql.to_owned(), ..Request::default() };
        let planned = self.session().plan(request).await.expect(sql);
        let batches: Vec<_> = planned.run().expect(sql).try_collect().await.expect(sql);
        pretty_format_batches(&batches).expect("printable").to_string()
    }

    async fn there(&self, table: &str) -> i64 {
        let client = self.server.client(&self.database).await;
        let sql = format!("SELECT count(*) FROM {table}");
        client.query_one(&sql, &[]).await.expect("it is counted").get(0)
    }
}

async fn written(session: &Session, sql: &str, parameters: Vec<ScalarValue>) -> Result<i64, Error> {
    let request = Request { sql: sql.to_owned(), parameters, ..Request::default() };
    let batches: Vec<_> = session.plan(request).await?.run()?.try_collect().await?;
    assert_eq!(batches.len(), 1, "one row is answered");
    Ok(batches[0].column(0).as_primitive::<Int64Type>().value(0))
}

#[tokio::test]
async fn values_arrive_exactly_in_postgres() {
    let world = World::new().await;
    let sql = "INSERT INTO pg.public.t
        (id, name, price, free, f, day, at, moment, flag, raw, key, doc) VALUES
        (1, 'Grüße ''x''', 12345678.9, 0.000000000000000001, CAST('NaN' AS DOUBLE),
         '2026-01-31', '0001-02-03 04:05:06.789012', '2026-01-31T12:00:00.5+02:00', true, X'00ff',
         '123e4567-e89b-12d3-a456-426614174000', '{\"a\": [1, null]}'),
        (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (3, '', -0.01, -1230000, 0.1, '9999-12-31', '9999-12-31 23:59:59.999999',
         '1969-12-31T23:59:59.999999Z', false, X'', NULL, 'null')";
    assert_eq!(world.written(sql).await.expect("it is written"), 3);
    let client = world.server.client(&world.database).await;
    let rows = client
        .query(
            "SELECT concat_ws('|', name, price, free, f, day, at, moment AT TIME ZONE 'UTC', flag, \
             encode(raw, 'hex'), key, doc, small) FROM t ORDER BY id",
            &[],
        )
        .await
        .expect("readable");
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        rows,
        [
            "Grüße 'x'|12345678.90|0.000000000000000001|NaN|2026-01-31|0001-02-03 04:05:06.789012|\
             2026-01-31 10:00:00.5|t|00ff|123e4567-e89b-12d3-a456-426614174000|{\"a\": [1, null]}|7",
            "7",
            "|-0.01|-1230000|0.1|9999-12-31|9999-12-31 23:59:59.999999|\
             1969-12-31 23:59:59.999999|f||null|7",
        ]
    );
    // Through us, and back into the same table.
    let sql = "INSERT INTO pg.t (id, name, price, f, at, moment, raw, doc)
        SELECT id + 10, name, price, f, at, moment, raw, doc FROM pg.t";
    assert_eq!(world.written(sql).await.expect("it is written"), 3);
    let same = "SELECT count(*) FROM t a JOIN t b ON b.id = a.id + 10 WHERE \
        (a.name, a.price, a.f, a.at, a.moment, a.raw, a.doc) IS NOT DISTINCT FROM \
        (b.name, b.price, b.f, b.at, b.moment, b.raw, b.doc)";
    let same: i64 = client.query_one(same, &[]).await.expect("it is counted").get(0);
    assert_eq!(same, 3);
}

#[tokio::test]
async fn values_arrive_exactly_in_sqlite() {
    let world = World::new().await;
    let sql = "INSERT INTO lite.t VALUES
        (1, 'Grüße', 12345678.91, 0.1, '2026-01-31', '2026-01-31 12:00:00.000001',
         '2026-01-31T12:00:00+02:00', true, X'00ff', 'text'),
        (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (3, '007', -7, CAST('-1e300' AS DOUBLE), '0001-01-01', '9999-12-31 23:59:59', '1969-12-31T00:00:00Z', false,
         X'', '')";
    assert_eq!(world.written(sql).await.expect("it is written"), 3);
    insta(
        &world.table("SELECT * EXCLUDE (raw) FROM lite.t ORDER BY id").await,
        &[
            "| 1  | Grüße | 12345678.91 | 0.1     | 2026-01-31 | 2026-01-31T12:00:00.000001 | \
             2026-01-31T10:00:00Z | true  | text      |",
            "| 2  |       |             |         |            |                            | \
                                 |       |           |",
            "| 3  | 007   | -7.00       | -1e300  | 0001-01-01 | 9999-12-31T23:59:59        | \
             1969-12-31T00:00:00Z | false |           |",
        ],
    );
    world
        .refused("INSERT INTO lite.t (id, any_thing) VALUES (9, '007')", ErrorCode::Data, "'007'")
        .await;
    let nan = "INSERT INTO lite.t (id, f) VALUES (9, CAST('NaN' AS DOUBLE))";
    world.refused(nan, ErrorCode::Data, "column f: NaN").await;
    // Into itself, while it is read.
    let sql = "INSERT INTO lite.t (id, name) SELECT id + 10, name FROM lite.t";
    assert_eq!(world.written(sql).await.expect("it is written"), 3);
    let sql = "INSERT INTO lite.t (id, name, price) SELECT id + 100, name, price FROM lite.t";
    assert_eq!(world.written(sql).await.expect("it is written"), 6);
}

/// Whether each line is in the table, blanks aside.
fn insta(table: &str, lines: &[&str]) {
    let bare = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in lines {
        let found = table.lines().any(|shown| bare(shown) == bare(line));
        assert!(found, "{line}\nis not in\n{table}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_is_written() {
    use ErrorCode::{Data, PermissionDenied, Syntax, UnknownColumn, UnknownTable, Unsupported};
    let world = World::new().await;
    let wrong = [
        ("INSERT INTO closed.t (id) VALUES (1)", PermissionDenied, "sources.closed.writable"),
        ("INSERT INTO synoptic.system.queries VALUES (1)", PermissionDenied, "system"),
        ("INSERT INTO pg.nowhere VALUES (1)", UnknownTable, "nowhere"),
        ("INSERT INTO pg.strict (id, x) VALUES (1, 2)", UnknownColumn, "its columns are id, n"),
        ("INSERT INTO pg.strict (id, id) VALUES (1, 2)", Syntax, "twice"),
        ("INSERT INTO pg.strict VALUES (1)", Syntax, "1 columns, and 2"),
        ("INSERT INTO pg.strict VALUES (1, 70000)", Data, "column n"),
        ("INSERT INTO pg.strict VALUES (1, 1.5)", Data, "column n"),
        ("INSERT INTO pg.strict VALUES (1, '2')", Data, "column n"),
        ("INSERT INTO pg.strict VALUES (NULL, 1)", Data, "NOT NULL"),
        ("INSERT INTO pg.strict (n) VALUES (1)", Data, "null value in column"),
        ("INSERT INTO pg.t (id, price) VALUES (1, 1.239)", Data, "column price"),
        ("INSERT INTO pg.t (id, price) VALUES (1, 1), (1, 2)", Data, "duplicate key"),
        ("INSERT INTO pg.t (id, key) VALUES (1, 'no')", Data, "no UUID"),
        ("INSERT INTO pg.t (id, doc) VALUES (1, '{')", Data, "json"),
        ("INSERT INTO pg.t (id, moment) VALUES (1, '2026-01-01 00:00:00')", Data, "offset"),
        ("INSERT INTO pg.ips VALUES (1, '::1')", Unsupported, "inet"),
        ("INSERT INTO lite.strict VALUES (1, 100)", Data, "CHECK"),
        ("INSERT INTO lite.strict VALUES (NULL, 1)", Data, "NOT NULL"),
        ("INSERT INTO pg.strict DEFAULT VALUES", Unsupported, "DEFAULT"),
        ("INSERT INTO pg.t (id) VALUES (1) ON CONFLICT DO NOTHING", Unsupported, "ON CONFLICT"),
        ("INSERT INTO pg.t (id) VALUES (1) RETURNING id", Unsupported, "RETURNING"),
        ("EXPLAIN INSERT INTO pg.t (id) VALUES (1)", Unsupported, "INSERT"),
    ];
    for (sql, code, part) in wrong {
        world.refused(sql, code, part).await;
    }
    for table in ["t", "strict", "ips"] {
        assert_eq!(world.there(table).await, 0, "{table}");
    }
    // A late row that is wrong takes all others with it.
    let sql =
        "INSERT INTO pg.strict SELECT value, CASE value WHEN 90000 THEN NULL ELSE value % 9 END
        / CASE value WHEN 90001 THEN 0 ELSE 1 END FROM generate_series(1, 100000) AS g (value)";
    assert!(world.written(sql).await.is_err());
    assert_eq!(world.there("strict").await, 0);
}

#[tokio::test]
async fn placeholders_take_the_types_of_their_columns() {
    let world = World::new().await;
    let session = world.session();
    let sql = "INSERT INTO pg.t (id, price, name, at) VALUES (?, ?, 'x', ?)";
    let description = session
        .describe(&Request { sql: sql.to_owned(), ..Request::default() })
        .await
        .expect("it is described");
    assert!(description.is_update);
    assert_eq!(description.schema.field(0).name(), "count");
    let types: Vec<_> =
        description.parameters.iter().map(|(_, t)| t.as_ref().map(ToString::to_string)).collect();
    let wanted = ["Int32", "Decimal128(10, 2)", "Timestamp(µs)"];
    assert_eq!(types, wanted.map(|t| Some(t.to_owned())));
    let at = ScalarValue::from("2026-01-31T12:00:00");
    let values = |price: i128, scale| {
        vec![1_i64.into(), ScalarValue::Decimal128(Some(price), 10, scale), at.clone()]
    };
    assert_eq!(written(&session, sql, values(1250, 3)).await.expect("it is written"), 1);
    let error = written(&session, sql, values(1259, 3)).await.expect_err("it would be rounded");
    assert_eq!(error.code(), ErrorCode::Data, "{error}");
    let shown = world.table("SELECT id, price, name, at FROM pg.t").await;
    insta(&shown, &["| 1 | 1.25 | x | 2026-01-31T12:00:00 |"]);
}

#[tokio::test]
async fn a_statement_is_run_once() {
    let world = World::new().await;
    let session = world.session();
    let id = QueryId::new("the-only-one".to_owned());
    let request = Request {
        sql: "INSERT INTO pg.strict VALUES (1, 1)".to_owned(),
        query_id: Some(id.clone()),
        ..Request::default()
    };
    assert!(world.engine.written(&id).await.is_none());
    let planned = session.plan(request.clone()).await.expect("planned");
    assert!(planned.is_write());
    let _: Vec<_> = planned.run().expect("it runs").try_collect().await.expect("it is written");
    let again = world.engine.written(&id).await.expect("it is known").expect("it was written");
    assert_eq!(again.column(0).as_primitive::<Int64Type>().value(0), 1);
    let error = session.plan(request).await.expect("planned").run().err().expect("it was run");
    assert!(error.to_string().contains("not done twice"), "{error}");
    assert_eq!(world.there("strict").await, 1);
}

#[tokio::test]
async fn a_dropped_write_leaves_nothing() {
    let world = World::new().await;
    for target in ["pg.strict (id)", "lite.strict (id)"] {
        let sql = format!(
            "INSERT INTO {target} SELECT a.value FROM generate_series(1, 100000) AS a (value) \
             CROSS JOIN generate_series(1, 1000) AS b (value)"
        );
        let id = QueryId::new(format!("dropped {target}"));
        let request = Request { sql, query_id: Some(id.clone()), ..Request::default() };
        let stream = world.session().plan(request).await.expect("planned").run().expect("it runs");
        let running = tokio::spawn(stream.try_collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_millis(700)).await;
        running.abort();
        let error = world.engine.written(&id).await.expect("known").expect_err("nothing is there");
        assert_eq!(error.code(), ErrorCode::Cancelled, "{error}");
    }
    assert_eq!(world.there("strict").await, 0);
    // The lock is free again.
    let started = Instant::now();
    while world.written("INSERT INTO lite.strict VALUES (1, 1)").await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    let shown = world.table("SELECT count(*) AS n FROM lite.strict").await;
    insta(&shown, &["| 1 |"]);
}

/// Runs `sql` and does `cut` to the proxy while the server is busy with the commit.
async fn cut_at_commit(world: &World, sql: &str, cut: impl FnOnce(&Proxy)) -> Result<i64, Error> {
    let (session, sql) = (world.session(), sql.to_owned());
    let writing = tokio::spawn(async move { written(&session, &sql, vec![]).await });
    let client = world.server.client(&world.database).await;
    let started = Instant::now();
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND \
            query = 'COMMIT' AND state = 'active'";
        let busy: i64 = client.query_one(sql, &[]).await.expect("counted").get(0);
        if busy > 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "no commit is seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cut(&world.proxy);
    tokio::time::sleep(Duration::from_millis(200)).await;
    if !writing.is_finished() {
        world.proxy.resume();
    }
    writing.await.expect("no panic")
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_out() {
    let world = World::new().await;
    let sql = "INSERT INTO pg.slow VALUES (1)";
    let rows = cut_at_commit(&world, sql, Proxy::cut).await.expect("it was committed");
    assert_eq!((rows, world.there("slow").await), (1, 1));
    let sql = "UPDATE pg.slow SET id = id + 1 WHERE id = 1";
    let rows = cut_at_commit(&world, sql, Proxy::cut).await.expect("it was committed");
    assert_eq!((rows, world.there("slow WHERE id = 2").await), (1, 1));
    let sql = "DELETE FROM pg.slow";
    let rows = cut_at_commit(&world, sql, Proxy::cut).await.expect("it was committed");
    assert_eq!((rows, world.there("slow").await), (1, 0));

    let sql = "INSERT INTO pg.doomed VALUES (1)";
    let error = cut_at_commit(&world, sql, Proxy::cut).await.expect_err("it was rolled back");
    assert!(error.to_string().contains("nothing was written"), "{error}");
    assert_eq!(error.code(), ErrorCode::SourceUnavailable);
    assert_eq!(world.there("doomed").await, 0);
}

#[tokio::test]
async fn another_server_is_not_believed() {
    let world = World::new().await;
    let other = PostgresServer::start();
    let client = other.client("postgres").await;
    let create = format!("CREATE DATABASE {}", world.database);
    client.batch_execute(&create).await.expect("a database of the same name");
    let sql = "INSERT INTO pg.slow VALUES (1)";
    let error = cut_at_commit(&world, sql, |proxy| {
        proxy.lead_to(other.port());
        proxy.cut();
    })
    .await
    .expect_err("nobody can tell");
    let text = error.to_string();
    assert!(
        text.contains("outcome of the commit is unknown") && text.contains("txid_status"),
        "{text}"
    );
    assert_eq!(error.code(), ErrorCode::OutcomeUnknown);
}

#[tokio::test]
async fn the_token_of_a_write_is_its_position() {
    let world = World::new().await;
    for sql in ["INSERT INTO pg.strict VALUES (1, 1)", "INSERT INTO lite.strict VALUES (1, 1)"] {
        let session = world.session();
        let request = Request { sql: sql.to_owned(), ..Request::default() };
        let mut stream = session.plan(request).await.expect("planned").run().expect("it runs");
        while stream.try_next().await.expect("it is written").is_some() {}
        let token = stream.receipt().statement.token.expect("a token");
        session.set_option("token", &token).expect("it is one of ours");
    }
}

async fn receipt_of(session: &Session, sql: &str) -> Receipt {
    let request = Request { sql: sql.to_owned(), ..Request::default() };
    let mut stream = session.plan(request).await.expect(sql).run().expect(sql);
    while stream.try_next().await.expect(sql).is_some() {}
    stream.receipt()
}

#[tokio::test]
async fn a_commit_is_acknowledged_when_its_time_is_past() {
    let time = WallClock::declared(Duration::from_millis(50));
    let world =
        World::with(EngineConfig { target_partitions: 2, time, ..EngineConfig::default() }).await;
    let (session, mut last) = (world.session(), None);
    for (n, source) in ["pg", "lite", "pg", "lite"].into_iter().enumerate() {
        let began = Instant::now();
        let before = world.engine.clock().now();
        let sql = format!("INSERT INTO {source}.strict VALUES ({n}, 1)");
        let stamp = receipt_of(&session, &sql).await.statement.committed_at.expect("a stamp");
        assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
        let after = world.engine.clock().now();
        assert!(before + Duration::from_millis(50) <= stamp, "{before} {stamp}");
        assert!(stamp + Duration::from_millis(50) <= after, "{stamp} {after}");
        assert!(last.is_none_or(|last| last < stamp));
        last = Some(stamp);
    }
    let read = receipt_of(&session, "SELECT * FROM pg.strict").await;
    let error = read.scans[0].copy.clock_error_ms.expect("it is declared");
    assert!((50.0..52.0).contains(&error), "{error}");
    assert_eq!(read.statement.committed_at, None);
    let sql = "SELECT source, status, error_ms BETWEEN 50 AND 52, commit_wait_ms BETWEEN 100 AND 104, max_commit_wait_ms,
        updated_at IS NOT NULL, reason FROM system.clock";
    insta(
        &world.table(sql).await,
        &["| declared | synchronized | true | true | 1000.0 | true | |"],
    );
}

#[tokio::test]
async fn a_clock_without_a_bound_holds_up_nothing() {
    let world = World::new().await;
    let written = receipt_of(&world.session(), "INSERT INTO pg.strict VALUES (1, 1)").await;
    assert!(written.statement.token.is_some() && written.statement.committed_at.is_none());
    let read = receipt_of(&world.session(), "SELECT * FROM pg.strict").await;
    assert_eq!(read.scans[0].copy.clock_error_ms, None);
    let shown = world.table("SELECT source, status, error_ms, reason FROM system.clock").await;
    assert!(shown.contains("| none   | unsynchronized |"), "{shown}");
}

#[tokio::test]
async fn a_clock_too_wrong_to_wait_for_refuses_writes_only() {
    let time = WallClock::declared(Duration::from_secs(2));
    let world =
        World::with(EngineConfig { target_partitions: 2, time, ..EngineConfig::default() }).await;
    let sql = "INSERT INTO pg.strict VALUES (1, 1)";
    world.refused(sql, ErrorCode::ClockUnsynchronized, "clock.max_commit_wait (1s)").await;
    assert_eq!(world.there("strict").await, 0);
    world.table("SELECT * FROM pg.strict").await;
}

/// Rows for both sources, some of them hard to compare.
const FILLED: [&str; 2] = [
    "INSERT INTO pg.t (id, name, price, f, day, at, moment, flag, small) VALUES
        (1, 'a', 1.00, 0.0, '2026-01-01', '2026-01-01 00:00:00', '2026-01-01T00:00:00Z', true, 1),
        (2, 'A', 2.50, -0.0, '2026-01-02', '2026-01-01 12:00:00.000001', '2026-01-01T12:00:00+02:00', false, 2),
        (3, 'b', NULL, CAST('NaN' AS DOUBLE), '1969-12-31', '1969-12-31 23:59:59', NULL, NULL, NULL),
        (4, NULL, -0.01, NULL, NULL, NULL, NULL, NULL, -5),
        (5, 'a ', 99999999.99, CAST('1e300' AS DOUBLE), '9999-12-31', NULL, '1969-12-31T00:00:00Z', true, 32767),
        (6, 'ä', 0.10, 0.1, '2026-01-01', NULL, NULL, false, -32768),
        (7, '', 0, 1, NULL, NULL, NULL, NULL, 0), (8, '%_', 1, 1, NULL, NULL, NULL, NULL, 0)",
    "INSERT INTO lite.t (id, name, price, f, day, at, flag) VALUES
        (1, 'a', 1.00, 0.0, '2026-01-01', '2026-01-01 00:00:00', true),
        (2, 'A', 2.50, -0.0, '2026-01-02', '2026-01-01 12:00:00.000001', false),
        (3, 'b', NULL, CAST('1e300' AS DOUBLE), '1969-12-31', '1969-12-31 23:59:59', NULL),
        (4, NULL, -0.01, NULL, NULL, NULL, NULL),
        (5, 'a ', 99999999.99, CAST('1e300' AS DOUBLE), '9999-12-31', NULL, true),
        (6, 'ä', 0.10, 0.1, '2026-01-01', NULL, false), (7, '', 0, 1, NULL, NULL, NULL),
        (8, '%_', 1, 1, NULL, NULL, NULL)",
];

async fn filled() -> World {
    let world = World::new().await;
    for sql in FILLED {
        assert_eq!(world.written(sql).await.expect("it is written"), 8);
    }
    world
}

/// What a condition changes is what it selects here, or it is refused.
#[tokio::test]
async fn a_condition_changes_the_rows_it_selects() {
    let world = filled().await;
    let conditions = [
        "id = 3",
        "id <> 3",
        "id IN (1, 2, NULL)",
        "id NOT IN (1, 2)",
        "id BETWEEN 2 AND 4",
        "id > 2.5",
        "name = 'a'",
        "name < 'b'",
        "name >= 'A' AND id < 7",
        "name LIKE 'a%'",
        "name LIKE '%\\%%'",
        "name ILIKE 'A'",
        "name IS NULL",
        "NOT (name = 'a')",
        "name IS DISTINCT FROM 'a'",
        "price > 0.5",
        "price = 1",
        "price IS NOT NULL",
        "price + 1 > 2",
        "price * 2 < 3",
        "f = 0",
        "f < 1",
        "f > 0.5",
        "day = '2026-01-01'",
        "day < '2026-01-02'",
        "at >= '2026-01-01 00:00:00'",
        "flag",
        "NOT flag",
        "flag IS NOT TRUE",
        "flag OR id = 7",
        "coalesce(name, 'x') = 'x'",
        "length(name) = 1",
        "upper(name) = 'A'",
        "id % 2 = 0",
        "CASE WHEN id < 3 THEN true ELSE flag END",
        "false",
        "true",
        "NULL",
        "id = 9223372036854775807",
    ];
    let (mut done, mut refused) = (0, 0);
    for source in ["pg", "lite"] {
        for condition in conditions {
            let ids = async |condition: &str| -> Vec<i64> {
                let sql = format!("SELECT id::BIGINT FROM {source}.t WHERE {condition} ORDER BY 1");
                let overrides = vec![("pushdown".to_owned(), "none".to_owned())];
                let request = Request { sql, overrides, ..Request::default() };
                let planned = world.session().plan(request).await.expect(condition);
                let rows = planned.run().expect("it runs").try_collect::<Vec<_>>().await;
                let rows = rows.expect(condition);
                let ids = rows.iter().map(|b| b.column(0).as_primitive::<Int64Type>().values());
                ids.flat_map(|ids| ids.to_vec()).collect()
            };
            let wanted = ids(condition).await;
            let sql = format!("UPDATE {source}.t SET raw = X'01' WHERE {condition}");
            match world.written(&sql).await {
                Ok(rows) => {
                    assert_eq!(rows, wanted.len() as i64, "{sql}");
                    assert_eq!(ids("raw IS NOT NULL").await, wanted, "{sql}");
                    world.written(&format!("UPDATE {source}.t SET raw = NULL")).await.expect(&sql);
                    done += 1;
                }
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::Unsupported, "{sql}: {error}");
                    assert!(error.to_string().contains(&format!("source '{source}'")), "{error}");
                    assert!(ids("raw IS NOT NULL").await.is_empty(), "{sql}");
                    refused += 1;
                }
            }
        }
    }
    assert!(done > 40 && refused > 5, "{done} done, {refused} refused");
}

#[tokio::test]
async fn columns_are_set_exactly() {
    let world = filled().await;
    let set = [
        ("UPDATE pg.t SET price = price * 2, id = id + 100, small = 2 WHERE name = 'a'", 1),
        (
            "UPDATE pg.t AS x SET name = 'Grüße', free = 0.000000000000000001, doc = '[1]',
            key = '123e4567-e89b-12d3-a456-426614174000', moment = '2026-01-31T12:00:00+02:00',
            at = '0001-02-03 04:05:06.789012', f = NULL WHERE x.id = 101",
            1,
        ),
        ("UPDATE pg.t SET price = CAST(price * 1.15 AS DECIMAL(10, 2)) WHERE id = 6", 1),
        ("UPDATE pg.t SET name = coalesce(name, 'none'), flag = id > 3 WHERE id = 4", 1),
        ("DELETE FROM pg.t WHERE id IN (2, 3)", 2),
        ("UPDATE lite.t SET id = id + 100, price = price, name = 'it''s' WHERE name = 'a'", 1),
        ("UPDATE lite.t SET price = 12.34, day = '2026-02-03' WHERE id = 6", 1),
        ("DELETE FROM lite.t WHERE flag IS NULL AND id <> 4", 3),
    ];
    for (sql, rows) in set {
        assert_eq!(world.written(sql).await.expect(sql), rows, "{sql}");
    }
    let client = world.server.client(&world.database).await;
    let sql = "SELECT concat_ws('|', id, name, price, free, f, day, at, moment AT TIME ZONE 'UTC',
        flag, key, doc, small) FROM t WHERE id IN (101, 4, 6) ORDER BY id";
    let rows = client.query(sql, &[]).await.expect("readable");
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        rows,
        [
            "4|none|-0.01|t|-5",
            "6|ä|0.12|0.1|2026-01-01|f|-32768",
            "101|Grüße|2.00|0.000000000000000001|2026-01-01|0001-02-03 04:05:06.789012|\
             2026-01-31 10:00:00|t|123e4567-e89b-12d3-a456-426614174000|[1]|2",
        ]
    );
    let shown = world.table("SELECT id, name, price FROM lite.t ORDER BY id").await;
    insta(&shown, &["| 101 | it's | 1.00 |", "| 4 | | -0.01 |", "| 6 | ä | 12.34 |"]);
}

#[tokio::test]
async fn what_would_change_otherwise_at_the_source_is_refused() {
    use ErrorCode::{Data, PermissionDenied, Syntax, UnknownColumn, UnknownTable, Unsupported};
    let world = filled().await;
    let wrong = [
        ("UPDATE closed.t SET name = 'x'", PermissionDenied, "sources.closed.writable"),
        ("DELETE FROM closed.t", PermissionDenied, "sources.closed.writable"),
        ("DELETE FROM synoptic.system.queries", PermissionDenied, "system"),
        ("DELETE FROM pg.nowhere", UnknownTable, "nowhere"),
        ("UPDATE pg.t SET nothing = 1", UnknownColumn, "its columns are id"),
        ("UPDATE pg.t SET id = 1, id = 2", Syntax, "twice"),
        ("UPDATE pg.t SET price = 1.239", Data, "column price"),
        ("UPDATE pg.t SET price = 1000000000 WHERE id = 1", Data, "column price"),
        ("UPDATE pg.t SET small = small + 1", Data, "out of range"),
        ("UPDATE pg.t SET small = 1.5", Data, "column small"),
        ("UPDATE pg.t SET id = NULL", Data, "NOT NULL"),
        ("UPDATE pg.t SET id = 1", Data, "duplicate key"),
        ("UPDATE pg.t SET price = price * 1.1", Unsupported, "column price: UPDATE"),
        ("UPDATE pg.t SET name = upper(name)", Unsupported, "upper"),
        ("UPDATE pg.t SET f = price", Unsupported, "column f"),
        ("UPDATE pg.t SET at = day", Unsupported, "column at"),
        ("UPDATE pg.ips SET ip = '::1'", Unsupported, "inet"),
        ("UPDATE pg.t SET name = 'x' WHERE upper(name) = 'A'", Unsupported, "upper"),
        ("DELETE FROM pg.t WHERE random() < 0.5", Unsupported, "random"),
        ("DELETE FROM pg.t WHERE id IN (SELECT id FROM lite.t)", Unsupported, "subquery"),
        ("UPDATE pg.t SET id = (SELECT max(id) FROM lite.t)", Unsupported, "subquery"),
        ("UPDATE lite.strict SET n = 200", Data, "CHECK"),
        ("UPDATE lite.t SET flag = id + 9223372036854775807 > 0", Unsupported, "column flag"),
        (
            "UPDATE pg.t SET flag = CAST(id AS BIGINT) * 9223372036854775807 > 0",
            Unsupported,
            "overflow",
        ),
        ("UPDATE lite.t SET price = price * 2", Unsupported, "arithmetic but on integers"),
        ("UPDATE lite.t SET f = CAST('NaN' AS DOUBLE)", Data, "NaN"),
        ("UPDATE lite.t SET id = id + 9223372036854775807", Data, "64 bits"),
    ];
    world.written("INSERT INTO lite.strict VALUES (1, 1)").await.expect("it is written");
    let before = (world.there("t").await, world.table("SELECT * FROM lite.t").await);
    for (sql, code, part) in wrong {
        world.refused(sql, code, part).await;
    }
    assert_eq!((world.there("t").await, world.table("SELECT * FROM lite.t").await), before);
    let raw =
        rusqlite::Connection::open(world._folder.path().join("lite.db")).expect("it is there");
    raw.execute_batch("INSERT INTO t (id, f) VALUES (99, 'no number')").expect("SQLite takes it");
    world.refused("UPDATE lite.t SET name = 'seen' WHERE f > 0", Data, "no number").await;
    let seen: i64 = raw
        .query_row("SELECT count(*) FROM t WHERE name = 'seen'", [], |row| row.get(0))
        .expect("counted");
    assert_eq!(seen, 0);
}

#[tokio::test]
async fn changes_take_parameters_and_are_explained() {
    let world = filled().await;
    let session = world.session();
    for source in ["pg", "lite"] {
        let sql = format!("UPDATE {source}.t SET price = ?, name = ? WHERE id = ?");
        let request = Request { sql: sql.clone(), ..Request::default() };
        let description = session.describe(&request).await.expect("it is described");
        assert!(description.is_update && description.parameters.len() == 3);
        let price = |unscaled| ScalarValue::Decimal128(Some(unscaled), 10, 3);
        let values = |price: ScalarValue| vec![price, "new".into(), 1_i64.into()];
        assert_eq!(written(&session, &sql, values(price(1250))).await.expect("it is written"), 1);
        let error = written(&session, &sql, values(price(1259))).await.expect_err("rounded");
        assert_eq!(error.code(), ErrorCode::Data, "{error}");
        let shown = format!("SELECT price, name FROM {source}.t WHERE id = 1");
        insta(&world.table(&shown).await, &["| 1.25 | new |"]);
        let explained = format!("EXPLAIN DELETE FROM {source}.t WHERE id = 1");
        let explained = world.table(&explained).await;
        for part in [&format!("source={source}, copy=primary"), "DELETE FROM", "\"id\" = 1"] {
            assert!(explained.contains(part), "{explained}");
        }
        insta(&world.table(&shown).await, &["| 1.25 | new |"]);
        let receipt = receipt_of(&session, &format!("DELETE FROM {source}.t WHERE id = 1")).await;
        session.set_option("token", &receipt.statement.token.expect("a token")).expect("ours");
    }
}

#[tokio::test]
async fn a_dropped_change_leaves_nothing() {
    let world = World::new().await;
    let raw =
        rusqlite::Connection::open(world._folder.path().join("lite.db")).expect("it is there");
    raw.execute_batch(
        "INSERT INTO strict SELECT value, 1 FROM (WITH RECURSIVE n (value) AS
            (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 200000) SELECT value FROM n);
         CREATE VIEW thousand AS WITH RECURSIVE m (v) AS
            (SELECT 1 UNION ALL SELECT v + 1 FROM m LIMIT 1000) SELECT v FROM m;
         CREATE TRIGGER slowly BEFORE UPDATE ON strict BEGIN SELECT count(*) FROM thousand; END;",
    )
    .expect("valid SQL");
    let client = world.server.client(&world.database).await;
    client
        .batch_execute(
            "INSERT INTO strict SELECT i, 1 FROM generate_series(1, 1000) i;
             CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END';
             CREATE TRIGGER slowly BEFORE UPDATE ON strict FOR EACH ROW EXECUTE FUNCTION slowly();",
        )
        .await
        .expect("valid SQL");
    for source in ["pg", "lite"] {
        let id = QueryId::new(format!("dropped {source}"));
        let sql = format!("UPDATE {source}.strict SET n = 2");
        let request = Request { sql, query_id: Some(id.clone()), ..Request::default() };
        let stream = world.session().plan(request).await.expect("planned").run().expect("it runs");
        let running = tokio::spawn(stream.try_collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!running.is_finished(), "{source}: it takes longer");
        running.abort();
        let error = world.engine.written(&id).await.expect("known").expect_err("nothing is there");
        assert_eq!(error.code(), ErrorCode::Cancelled, "{error}");
    }
    // Both have let go of their locks, long before the statements would have ended.
    let started = Instant::now();
    while raw.execute_batch("DELETE FROM strict WHERE id = 1").is_err() {
        assert!(started.elapsed() < Duration::from_secs(5), "the file is locked");
    }
    let running = "pg_stat_activity WHERE state = 'active' AND query LIKE 'UPDATE%'";
    while world.there(running).await > 0 {
        assert!(started.elapsed() < Duration::from_secs(5), "the server goes on");
    }
    assert_eq!(world.there("strict WHERE n = 2").await, 0);
    let left = world.table("SELECT count(*) AS n FROM lite.strict WHERE n = 2").await;
    insta(&left, &["| 0 |"]);
}

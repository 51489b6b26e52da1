//! What a statement asks for twice is read and computed once, and its answers are those of asking twice.

use std::path::Path;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use serde_json::{Map, json};
use synoptic_catalog::Host;
use synoptic_engine::{Engine, EngineConfig, Receipt, Request};
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{SourceName, SystemClock};
use tempfile::TempDir;

const SETUP: &str = "
    CREATE TABLE trades (id INTEGER PRIMARY KEY, account INTEGER NOT NULL, symbol TEXT NOT NULL, qty INTEGER NOT NULL);
    INSERT INTO trades
      SELECT value, value % 999, CASE value % 3 WHEN 0 THEN 'IBM' ELSE 'AAPL' END, value % 7
      FROM (WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 20000) SELECT value FROM n);
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL);
    INSERT INTO accounts SELECT DISTINCT account, 'owner ' || account FROM trades;
    ANALYZE;";

struct World {
    _folder: TempDir,
    engine: Arc<Engine>,
}

impl World {
    fn open(config: EngineConfig) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("t.db");
        let database = rusqlite::Connection::open(&path).expect("opened");
        database.execute_batch(SETUP).expect("valid");
        let options = Map::from_iter([("path".to_owned(), json!(path))]);
        let source =
            synoptic_connectors::open("sqlite", SourceName::new("bank"), options, Path::new("/"));
        let host = Host::new(vec![source.expect("valid options")]);
        let engine = Engine::new(config, host, Arc::new(SystemClock)).expect("an engine");
        Self { _folder: folder, engine }
    }

    async fn ask(&self, pushdown: &str, sql: &str) -> (String, Receipt) {
        let session = self.engine.session("shared");
        session.set_option("pushdown", pushdown).expect("an option");
        let request = Request { sql: sql.to_owned(), ..Request::default() };
        let planned = session.plan(request).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let mut stream = planned.run().expect("runs");
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await.unwrap_or_else(|e| panic!("{sql}: {e}")) {
            batches.push(batch);
        }
        let table = pretty_format_batches(&batches).expect("printable").to_string();
        (table, stream.receipt())
    }
}

/// TPC-H's question 15 in small: groups, and the greatest of them.
const GREATEST: &str = "
    WITH totals AS (SELECT account, sum(qty) AS total FROM bank.trades WHERE symbol = 'IBM' GROUP BY account)
    SELECT account, total FROM totals WHERE total = (SELECT max(total) FROM totals) ORDER BY account";

fn here() -> EngineConfig {
    EngineConfig { target_partitions: 2, ..EngineConfig::default() }
}

#[tokio::test]
async fn a_table_expression_that_is_named_twice_is_read_once() {
    let world = World::open(here());
    for pushdown in ["none", "auto"] {
        let (_, receipt) = world.ask(pushdown, GREATEST).await;
        assert_eq!(receipt.scans.len(), 1, "{pushdown}: {:?}", receipt.scans);
        let (plan, _) = world.ask(pushdown, &format!("EXPLAIN {GREATEST}")).await;
        let mentions = plan.matches("Shared: part=1").count();
        assert_eq!(mentions, 4, "logical and physical, twice: {plan}");
        assert_eq!(plan.matches("RemoteScan:").count(), 1, "{plan}");
        let (plan, _) = world.ask(pushdown, &format!("EXPLAIN ANALYZE {GREATEST}")).await;
        assert_eq!(plan.matches("RemoteScan:").count(), 1, "{plan}");
    }
}

#[tokio::test]
async fn answers_are_those_of_asking_twice() {
    let world = World::open(here());
    let cases = [
        // The second of each asks for the same in a way that is not shared.
        (
            GREATEST,
            "SELECT account, total FROM (SELECT account, sum(qty) AS total FROM bank.trades WHERE symbol = 'IBM' GROUP BY 1)
             WHERE total = (SELECT max(t) FROM (SELECT sum(qty + 0) AS t FROM bank.trades WHERE symbol = 'IBM' GROUP BY account))
             ORDER BY account",
        ),
        (
            "WITH t AS (SELECT account, count(*) AS n FROM bank.trades GROUP BY account)
             SELECT a.owner, x.n, y.n FROM t x JOIN t y ON y.account = x.account + 1
             JOIN bank.accounts a ON a.id = x.account WHERE x.n <> y.n ORDER BY 1",
            "SELECT a.owner, x.n, y.n
             FROM (SELECT account, count(*) AS n FROM bank.trades GROUP BY account) x
             JOIN (SELECT account, count(qty) AS n FROM bank.trades GROUP BY account) y ON y.account = x.account + 1
             JOIN bank.accounts a ON a.id = x.account WHERE x.n <> y.n ORDER BY 1",
        ),
        (
            "WITH t AS (SELECT DISTINCT symbol FROM bank.trades) SELECT x.symbol, y.symbol FROM t x, t y ORDER BY 1, 2",
            "SELECT x.symbol, y.symbol FROM (SELECT symbol FROM bank.trades GROUP BY symbol) x,
             (SELECT symbol FROM bank.trades WHERE qty >= 0 GROUP BY symbol) y ORDER BY 1, 2",
        ),
        (
            "WITH t AS (SELECT account, sum(qty) AS s FROM bank.trades GROUP BY account)
             SELECT * FROM (SELECT * FROM t WHERE s > 60 UNION ALL SELECT * FROM t WHERE s > 62) ORDER BY 1, 2 LIMIT 7",
            "SELECT * FROM (SELECT account, sum(qty) AS s FROM bank.trades GROUP BY account HAVING sum(qty) > 60
             UNION ALL SELECT account, sum(qty + 0) AS s FROM bank.trades GROUP BY account HAVING sum(qty + 0) > 62)
             ORDER BY 1, 2 LIMIT 7",
        ),
    ];
    for (shared, apart) in cases {
        for pushdown in ["none", "auto"] {
            assert_eq!(
                world.ask(pushdown, shared).await.0,
                world.ask(pushdown, apart).await.0,
                "{shared}"
            );
        }
    }
}

/// Each mention could go to PostgreSQL with what is around it, which would make the groups twice.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_asked_for_twice_are_not_made_twice_at_the_source() {
    let server = PostgresServer::shared();
    let database = server.create_database().await;
    let client = server.client(&database).await;
    let setup = "CREATE TABLE suppliers AS SELECT i AS id, 'supplier ' || i AS name \
                     FROM generate_series(1, 2000) i; \
                 CREATE TABLE items AS SELECT i, i % 2000 + 1 AS supplier, \
                     (i * 7919 % 10007)::numeric(15, 2) AS amount FROM generate_series(1, 200000) i; \
                 ANALYZE";
    client.batch_execute(setup).await.expect("the tables are made");
    let options = Map::from_iter([("url".to_owned(), json!(server.url(&database)))]);
    let source =
        synoptic_connectors::open("postgres", SourceName::new("pg"), options, Path::new("/"));
    let host = Host::new(vec![source.expect("valid options")]);
    let engine = Engine::new(here(), host, Arc::new(SystemClock)).expect("an engine");
    let world = World { _folder: TempDir::new().expect("a folder"), engine };
    let sql = "WITH revenue AS (SELECT supplier, sum(amount) AS total FROM pg.items \
                   WHERE i > 1000 GROUP BY supplier) \
               SELECT s.name, r.total FROM pg.suppliers s JOIN revenue r ON r.supplier = s.id \
               WHERE r.total = (SELECT max(total) FROM revenue) ORDER BY 1";
    let (answer, receipt) = world.ask("auto", sql).await;
    let made = receipt.scans.iter().filter(|scan| scan.remote_text.contains("items")).count();
    assert_eq!(made, 1, "{:?}", receipt.scans);
    assert_eq!(answer, world.ask("none", sql).await.0);
    let (plan, _) = world.ask("auto", &format!("EXPLAIN {sql}")).await;
    assert!(plan.contains("asked for more than once, and computed once for all"), "{plan}");
}

#[tokio::test]
async fn what_changes_from_call_to_call_is_not_shared() {
    let world = World::open(here());
    let sql = "WITH t AS (SELECT symbol, max(random()) AS r FROM bank.trades GROUP BY symbol)
               SELECT count(*) FROM t x JOIN t y ON x.symbol = y.symbol AND x.r = y.r";
    let (plan, _) = world.ask("none", &format!("EXPLAIN {sql}")).await;
    assert!(!plan.contains("Shared:"), "{plan}");
}

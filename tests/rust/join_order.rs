//! How a query is written, and what is read and joined for it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use serde_json::{Value, json};
use synoptic_catalog::Host;
use synoptic_engine::{Engine, EngineConfig, Request};
use synoptic_source::Source;
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{SourceName, SystemClock};
use tempfile::TempDir;

/// A small TPC-H: `lake` has the large table as Parquet, `pg` orders and customers, `lite` the
/// suppliers and where everybody is.
struct Shop {
    _server: Arc<PostgresServer>,
    _folder: TempDir,
    engine: Arc<Engine>,
}

const ORDERS: &str = "\
    CREATE TABLE customer (c_key bigint PRIMARY KEY, c_nation bigint NOT NULL, c_segment text COLLATE \"C\" NOT NULL); \
    INSERT INTO customer SELECT i, i / 25 % 25, 'segment ' || i % 5 FROM generate_series(1, 1500) i; \
    CREATE TABLE orders (o_key bigint PRIMARY KEY, o_customer bigint NOT NULL, o_date date NOT NULL); \
    INSERT INTO orders SELECT i, 1 + i * 7 % 1500, date '1992-01-01' + i % 2400 FROM generate_series(1, 15000) i;";

const PLACES: &str = "\
    CREATE TABLE region (r_key INTEGER PRIMARY KEY, r_name TEXT NOT NULL); \
    INSERT INTO region VALUES (0, 'AFRICA'), (1, 'AMERICA'), (2, 'ASIA'), (3, 'EUROPE'), (4, 'MIDDLE EAST'); \
    CREATE TABLE nation (n_key INTEGER PRIMARY KEY, n_name TEXT NOT NULL, n_region INTEGER NOT NULL); \
    CREATE INDEX of_region ON nation (n_region); \
    WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 24) \
    INSERT INTO nation SELECT i, 'nation ' || i, i % 5 FROM n; \
    CREATE TABLE supplier (s_key INTEGER PRIMARY KEY, s_nation INTEGER NOT NULL); \
    CREATE INDEX of_nation ON supplier (s_nation); \
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) \
    INSERT INTO supplier SELECT i, i % 25 FROM n; \
    ANALYZE;";

const LINES: &str = "\
    SELECT value % 15000 + 1 AS l_order, value * 13 % 100 + 1 AS l_supplier, \
    value * 31 % 2000 + 1 AS l_part, CAST(value % 50 AS bigint) AS l_quantity \
    FROM generate_series(1, 60000) AS t (value)";
const PARTS: &str = "\
    SELECT value AS p_key, 'part ' || (value % 20) AS p_name FROM generate_series(1, 2000) AS t (value)";

fn open(connector: &str, name: &str, options: Value) -> Arc<dyn Source> {
    let Value::Object(options) = options else { panic!("options are a table") };
    synoptic_connectors::open(connector, SourceName::new(name), options, Path::new("/"))
        .expect("the options are right")
}

async fn write(folder: &Path, name: &str, sql: &str) {
    let frame = SessionContext::new().sql(sql).await.expect("valid SQL");
    let batches = frame.collect().await.expect("rows");
    let file = File::create(folder.join(format!("{name}.parquet"))).expect("a new file");
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), None).expect("Parquet");
    for batch in &batches {
        writer.write(batch).expect("written");
    }
    writer.close().expect("closed");
}

impl Shop {
    async fn new() -> Self {
        let server = PostgresServer::shared();
        let database = server.create_database().await;
        let client = server.client(&database).await;
        client.batch_execute(ORDERS).await.expect("the tables are made");
        client.batch_execute("ANALYZE").await.expect("they are counted");
        let folder = TempDir::new().expect("a temporary folder");
        let lite = folder.path().join("lite.db");
        let places = rusqlite::Connection::open(&lite).expect("a new file");
        places.execute_batch(PLACES).expect("valid SQL");
        let lake = folder.path().join("lake");
        std::fs::create_dir(&lake).expect("a new folder");
        write(&lake, "lineitem", LINES).await;
        write(&lake, "part", PARTS).await;
        let sources = vec![
            open("postgres", "pg", json!({ "url": server.url(&database) })),
            open("sqlite", "lite", json!({ "path": lite })),
            open("files", "lake", json!({ "location": lake, "format": "parquet" })),
        ];
        let config = EngineConfig { target_partitions: 2, ..EngineConfig::default() };
        let engine = Engine::new(config, Host::new(sources), Arc::new(SystemClock));
        Self { _server: server, _folder: folder, engine: engine.expect("an engine") }
    }

    async fn run(&self, sql: &str, pushdown: &str) -> Vec<RecordBatch> {
        let session = self.engine.session("order");
        session.set_option("pushdown", pushdown).expect("an option");
        let request = Request { sql: sql.to_owned(), ..Request::default() };
        let planned = session.plan(request).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let stream = planned.run().unwrap_or_else(|e| panic!("{sql}: {e}"));
        stream.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// The answer as text, and the rows each table sent, sorted.
    async fn answer(&self, sql: &str, pushdown: &str) -> (String, Vec<(String, u64)>) {
        let batches = self.run(sql, pushdown).await;
        let receipt = self.engine.queries().into_iter().next().expect("remembered").receipt;
        let scans = receipt.scans.into_iter();
        let mut read: Vec<_> =
            scans.map(|s| (format!("{}.{}", s.source, s.table), s.rows)).collect();
        read.sort();
        (pretty_format_batches(&batches).expect("printable").to_string(), read)
    }

    /// The logical plan without its projections: in which order columns pass by is of the text.
    async fn plan(&self, sql: &str, pushdown: &str) -> String {
        let batches = self.run(&format!("EXPLAIN {sql}"), pushdown).await;
        let text = pretty_format_batches(&batches).expect("printable").to_string();
        let lines = text.lines().take_while(|line| !line.contains("physical_plan"));
        let lines = lines.filter(|line| !line.contains(" Projection: "));
        let lines = lines.map(|line| line.trim_matches(['|', ' ', '-', '+']).to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// TPC-H's questions about many tables: what stands before FROM, the tables in a good order, and
/// what stands after.
const QUESTIONS: &[(&str, &[&str], &str)] = &[
    // The fifth.
    (
        "SELECT n_name, sum(l_quantity), count(*)",
        &[
            "lite.region",
            "lite.nation",
            "lite.supplier",
            "lake.lineitem",
            "pg.orders",
            "pg.customer",
        ],
        "WHERE c_key = o_customer AND l_order = o_key AND l_supplier = s_key AND c_nation = s_nation \
         AND s_nation = n_key AND n_region = r_key AND r_name = 'ASIA' \
         AND o_date >= DATE '1994-01-01' AND o_date < DATE '1995-01-01' \
         GROUP BY n_name ORDER BY n_name",
    ),
    // The eighth, in which nations come twice.
    (
        "SELECT extract(year FROM o_date) AS y, n2.n_name, sum(l_quantity)",
        &[
            "lake.part",
            "lake.lineitem",
            "pg.orders",
            "pg.customer",
            "lite.nation n1",
            "lite.region",
            "lite.supplier",
            "lite.nation n2",
        ],
        "WHERE p_key = l_part AND s_key = l_supplier AND l_order = o_key AND o_customer = c_key \
         AND c_nation = n1.n_key AND n1.n_region = r_key AND r_name = 'AMERICA' \
         AND s_nation = n2.n_key AND p_name = 'part 7' \
         GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    // The ninth.
    (
        "SELECT n_name, extract(year FROM o_date) AS y, sum(l_quantity)",
        &["lake.part", "lake.lineitem", "lite.supplier", "lite.nation", "pg.orders"],
        "WHERE s_key = l_supplier AND p_key = l_part AND o_key = l_order AND s_nation = n_key \
         AND p_name LIKE '%11' GROUP BY 1, 2 ORDER BY 1, 2",
    ),
];

/// Some orders of `tables`: backwards, rotated, and every second one first.
fn shuffled(tables: &[&str]) -> Vec<String> {
    let mut orders = vec![tables.iter().rev().copied().collect::<Vec<_>>()];
    for by in 1..tables.len() {
        let mut rotated = tables.to_vec();
        rotated.rotate_left(by);
        orders.push(rotated);
    }
    let (even, odd): (Vec<_>, Vec<_>) = tables.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    orders.push(odd.into_iter().chain(even).map(|(_, table)| *table).collect());
    orders.into_iter().map(|tables| tables.join(", ")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_from_changes_neither_answer_nor_plan() {
    let shop = Shop::new().await;
    for (select, tables, rest) in QUESTIONS {
        let good = format!("{select} FROM {} {rest}", tables.join(", "));
        let (want, read) = shop.answer(&good, "auto").await;
        assert!(want.lines().count() > 5, "hardly an answer: {want}");
        let plans = [shop.plan(&good, "auto").await, shop.plan(&good, "none").await];
        assert!(!plans[0].contains("Cross Join"), "{}", plans[0]);
        for from in shuffled(tables) {
            let sql = format!("{select} FROM {from} {rest}");
            assert_eq!(shop.plan(&sql, "auto").await, plans[0], "FROM {from}");
            assert_eq!(shop.plan(&sql, "none").await, plans[1], "FROM {from}");
            let (got, sent) = shop.answer(&sql, "auto").await;
            assert_eq!(got, want, "FROM {from}");
            assert_eq!(sent, read, "FROM {from}");
        }
        assert_eq!(shop.answer(&good, "none").await.0, want, "{good}");
        // Joined explicitly, worst first: everything with everything.
        let crossed = format!("{select} FROM {} {rest}", tables.join(" CROSS JOIN "));
        assert_eq!(shop.answer(&crossed, "auto").await, (want, read), "{crossed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_come_as_they_are_written() {
    let shop = Shop::new().await;
    let sql = "SELECT * FROM lake.lineitem, lite.nation, pg.customer, lite.supplier, pg.orders \
         WHERE l_order = o_key AND o_customer = c_key AND c_nation = n_key AND s_key = l_supplier \
         AND s_nation = n_key AND n_name = 'nation 3'";
    let batches = shop.run(sql, "auto").await;
    let names: Vec<_> =
        batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    let want = "l_order l_supplier l_part l_quantity n_key n_name n_region c_key c_nation c_segment \
         s_key s_nation o_key o_customer o_date";
    assert_eq!(names.join(" "), want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_that_can_fail_see_the_rows_they_were_written_for() {
    let shop = Shop::new().await;
    // The inner join keeps names that are numbers; the cast must not see the others.
    let sql = "SELECT count(*) FROM (SELECT n_key, substr(n_name, 8) AS number FROM lite.nation) n \
         JOIN pg.customer ON c_nation = CAST(n.number AS bigint) \
         JOIN pg.orders ON o_customer = c_key JOIN lite.region ON r_key = n_key";
    let plan = shop.plan(sql, "auto").await;
    let (got, _) = shop.answer(sql, "auto").await;
    let (none, _) = shop.answer(sql, "none").await;
    assert_eq!(got, none, "{plan}");
}

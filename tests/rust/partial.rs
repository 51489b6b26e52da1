//! A part of an aggregate at a source, where the whole spans several.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use serde_json::{Value, json};
use synoptic_catalog::Host;
use synoptic_engine::{CutPolicy, Engine, EngineConfig, Receipt, Request};
use synoptic_source::Source;
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{ErrorCode, SourceName, SystemClock};
use tempfile::TempDir;

/// 40,000 trades of 40 desks, of which some are nobody's and some have no desk; hostile values in
/// the groups and in what is added.
const BANK: &str = "\
    CREATE TABLE trades AS SELECT i AS id, CASE WHEN i % 41 = 0 THEN NULL ELSE i % 43 END AS desk, \
        CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN 'a' WHEN 2 THEN 'A' WHEN 3 THEN 'ä' ELSE '' END AS mark, \
        (i % 1000 - 500 + 0.25)::numeric(15,2) AS amount, \
        CASE WHEN i % 7 = 0 THEN NULL ELSE i % 11 END AS lots, ((i % 3) / 100.0)::numeric(15,2) AS rate, \
        (i * 0.1)::float8 AS price, DATE '2024-01-01' + i % 400 AS day, i % 2 = 0 AS buy, \
        CASE WHEN i = 43 THEN 'x' ELSE (i % 9)::text END AS number, (i % 100)::bigint AS big \
        FROM generate_series(1, 40000) i; \
    CREATE TABLE limits AS SELECT i AS desk, (i * 100)::numeric(15,2) AS least FROM generate_series(0, 60) i; \
    CREATE TABLE huge AS SELECT i AS desk, 9223372036854775807 - i % 2 AS v, repeat('9', 38)::numeric(38,0) AS n \
        FROM generate_series(1, 4) i; \
    INSERT INTO huge SELECT 99, v, n FROM huge; \
    CREATE TABLE nothing (desk int, lots int)";
const ABROAD: &str = "\
    CREATE TABLE trades AS SELECT i AS id, i % 37 AS desk, CASE i % 3 WHEN 0 THEN NULL ELSE 'a' END AS mark, \
        (i % 100)::numeric(15,2) AS amount, i % 4 AS lots, \
        CASE WHEN i % 2 = 0 THEN '-0' ELSE '0' END::float8 AS f FROM generate_series(1, 30000) i";
/// Desks 0 to 39, two of the same name, one twice, one without a region.
const DESKS: &str = "\
    CREATE TABLE desks (id INTEGER, name TEXT, region INTEGER, least INTEGER); \
    INSERT INTO desks SELECT value, 'desk ' || (value / 2), nullif(value % 4, 3), value * 7 FROM \
        (WITH RECURSIVE n (value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n LIMIT 40) \
         SELECT value FROM n); \
    INSERT INTO desks VALUES (5, 'desk 2', 1, 3), (NULL, 'nobody', 1, 0);";

struct Bank {
    _server: Arc<PostgresServer>,
    _folder: TempDir,
    engine: Arc<Engine>,
}

fn open(connector: &str, name: &str, options: Value) -> Arc<dyn Source> {
    let Value::Object(options) = options else { panic!("options are a table") };
    synoptic_connectors::open(connector, SourceName::new(name), options, Path::new("/"))
        .expect("the options are right")
}

impl Bank {
    async fn new(cut: CutPolicy) -> Self {
        let server = PostgresServer::shared();
        let mut sources = Vec::new();
        for (name, setup) in [("bank", BANK), ("abroad", ABROAD)] {
            let database = server.create_database().await;
            let client = server.client(&database).await;
            client.batch_execute(setup).await.expect("the tables are made");
            client.batch_execute("ANALYZE").await.expect("they are counted");
            sources.push(open("postgres", name, json!({ "url": server.url(&database) })));
        }
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("desks.db");
        let database = rusqlite::Connection::open(&path).expect("a new file");
        database.execute_batch(DESKS).expect("valid SQL");
        database.execute_batch("ANALYZE").expect("it is counted");
        sources.push(open("sqlite", "lite", json!({ "path": path })));
        let config = EngineConfig { target_partitions: 2, cut, ..EngineConfig::default() };
        let engine = Engine::new(config, Host::new(sources), Arc::new(SystemClock));
        Self { _server: server, _folder: folder, engine: engine.expect("an engine") }
    }

    async fn run(&self, sql: &str, pushdown: &str) -> Result<(Vec<String>, Receipt), ErrorCode> {
        let overrides = vec![("pushdown".to_owned(), pushdown.to_owned())];
        let request = Request { sql: sql.to_owned(), overrides, ..Request::default() };
        let work = async {
            let planned = self.engine.session("test").plan(request).await?;
            let schema = planned.schema();
            let batches = planned.run()?.try_collect::<Vec<RecordBatch>>().await?;
            assert!(batches.iter().all(|batch| batch.schema() == schema), "{sql}");
            Ok(batches)
        };
        let batches = work.await.map_err(|error: synoptic_engine::Error| error.code())?;
        let latest = self.engine.queries().into_iter().next().expect("it is remembered");
        Ok((lines(&batches), latest.receipt))
    }

    /// Rows and text of every scan.
    async fn scans(&self, sql: &str) -> Vec<(u64, String)> {
        let (_, receipt) = self.run(sql, "auto").await.expect("an answer");
        receipt.scans.into_iter().map(|scan| (scan.rows, scan.remote_text)).collect()
    }
}

/// The types and rows as text, the rows sorted.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|c| ArrayFormatter::try_new(c, &options).expect("it can be shown"))
            .collect();
        lines.extend((0..batch.num_rows()).map(|row| {
            columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|")
        }));
    }
    lines.sort();
    lines
}

const QUESTIONS: &[&str] = &[
    // Joins of two sources: by a column of the other side, of this one, of both, of none.
    "SELECT d.name, count(*), sum(t.amount), min(t.day), max(t.amount) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk GROUP BY d.name",
    "SELECT t.mark, d.region, count(t.lots), sum(t.lots), count(*) FILTER (WHERE t.buy) \
     FROM bank.trades t JOIN lite.desks d ON d.id = t.desk GROUP BY t.mark, d.region",
    "SELECT t.desk + d.least AS x, sum(t.amount * (1 - t.rate)) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk GROUP BY 1",
    "SELECT sum(t.amount), count(*), count(t.mark), min(t.mark), max(t.lots) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk",
    "SELECT sum(t.lots), count(*) FROM bank.trades t JOIN lite.desks d ON d.id = t.desk AND d.region = 99",
    "SELECT d.name, sum(t.lots), count(*) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk AND d.least < t.lots GROUP BY d.name",
    "SELECT DISTINCT d.name FROM bank.trades t JOIN lite.desks d ON d.id = t.desk",
    "SELECT d.name, count(DISTINCT t.mark), sum(t.lots) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk GROUP BY d.name",
    "SELECT d.name, avg(t.amount), sum(t.price) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk WHERE t.id < 4 GROUP BY d.name",
    "SELECT d.name, sum(t.amount) AS s FROM bank.trades t JOIN lite.desks d ON d.id = t.desk \
     GROUP BY d.name HAVING count(*) > 1000 ORDER BY s DESC, 1 LIMIT 3",
    "SELECT date_part('year', t.day) AS y, d.region, sum(t.lots) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk GROUP BY 1, 2",
    "SELECT d.name, max(t.day) FROM bank.trades t, lite.desks d WHERE t.desk = d.id AND t.buy \
     AND d.region IS NOT NULL GROUP BY d.name",
    // What is added is of the other side, or of both.
    "SELECT t.mark, sum(d.least), count(d.region), count(*) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk GROUP BY t.mark",
    "SELECT t.mark, sum(d.least + t.lots), max(d.name) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk GROUP BY t.mark",
    // Rows without a partner.
    "SELECT d.name, count(*), count(t.lots), sum(t.lots) FROM bank.trades t \
     LEFT JOIN lite.desks d ON d.id = t.desk GROUP BY d.name",
    "SELECT d.name, count(*), count(t.lots), sum(t.lots) FROM lite.desks d \
     LEFT JOIN bank.trades t ON d.id = t.desk AND t.lots > 9 GROUP BY d.name",
    "SELECT d.name, count(*), sum(t.lots) FROM lite.desks d \
     RIGHT JOIN bank.trades t ON d.id = t.desk GROUP BY d.name",
    "SELECT d.name, count(*), sum(t.lots) FROM lite.desks d \
     FULL JOIN bank.trades t ON d.id = t.desk GROUP BY d.name",
    "SELECT t.mark, count(*), sum(t.amount) FROM bank.trades t \
     WHERE t.desk IN (SELECT id FROM lite.desks WHERE region = 1) GROUP BY t.mark",
    "SELECT t.mark, count(*), sum(t.amount) FROM bank.trades t \
     WHERE NOT EXISTS (SELECT 1 FROM lite.desks d WHERE d.id = t.desk) GROUP BY t.mark",
    "SELECT t.mark, count(*) FROM bank.trades t \
     WHERE t.desk NOT IN (SELECT id FROM lite.desks) GROUP BY t.mark",
    // Three sources; two tables of one of them.
    "SELECT d.name, a.mark, sum(t.amount), count(*) FROM bank.trades t JOIN lite.desks d ON d.id = t.desk \
     JOIN abroad.trades a ON a.id = t.desk GROUP BY d.name, a.mark",
    "SELECT d.name, sum(t.amount), count(*) FROM bank.trades t JOIN bank.limits l ON l.desk = t.desk \
     AND t.amount > l.least JOIN lite.desks d ON d.id = l.desk GROUP BY d.name",
    "SELECT d.name, x.region, x.n FROM (SELECT d.region, count(*) AS n FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk GROUP BY d.region) x JOIN lite.desks d ON d.region = x.region",
    "SELECT name, (SELECT sum(t.lots) FROM bank.trades t WHERE t.desk = d.id) FROM lite.desks d",
    "SELECT a.mark, sum(b.lots) FROM bank.trades a JOIN abroad.trades b ON a.id = b.id AND a.mark = b.mark \
     GROUP BY a.mark",
    // Unions of two sources.
    "SELECT desk, count(*), sum(amount), min(lots), max(mark), count(lots) FROM (SELECT desk, amount, lots, mark \
     FROM bank.trades UNION ALL SELECT desk, amount, lots, mark FROM abroad.trades) x GROUP BY desk",
    "SELECT count(*), sum(lots), max(mark) FROM (SELECT lots, mark FROM bank.trades \
     UNION ALL SELECT lots, mark FROM abroad.trades) x",
    "SELECT count(*), count(lots), sum(lots) FROM (SELECT lots FROM bank.nothing \
     UNION ALL SELECT lots FROM abroad.trades WHERE id < 0) x",
    "SELECT place, mark, sum(amount) FROM (SELECT 'home' AS place, mark, amount FROM bank.trades \
     UNION ALL SELECT 'abroad', mark, amount FROM abroad.trades) x GROUP BY place, mark",
    "SELECT mark, count(*) FROM (SELECT mark FROM bank.trades UNION ALL SELECT mark FROM abroad.trades \
     UNION ALL SELECT name FROM lite.desks) x GROUP BY mark",
    "SELECT mark FROM bank.trades UNION SELECT mark FROM abroad.trades",
    "SELECT d.name, sum(x.lots) FROM (SELECT desk, lots FROM bank.trades UNION ALL SELECT desk, lots \
     FROM abroad.trades) x JOIN lite.desks d ON d.id = x.desk GROUP BY d.name",
    "SELECT desk, count(*) FILTER (WHERE lots > 2), sum(lots) FILTER (WHERE mark = 'a') FROM (SELECT desk, lots, \
     mark FROM bank.trades UNION ALL SELECT desk, lots, mark FROM abroad.trades) x GROUP BY desk",
    // No group is none, and not one; a group of 0.0 and -0.0 is not for computing with.
    "SELECT d.name, count(*), sum(t.lots) FROM bank.trades t CROSS JOIN lite.desks d WHERE t.mark = 'nope' \
     GROUP BY d.name",
    "SELECT count(*), sum(t.lots) FROM bank.trades t CROSS JOIN lite.desks d WHERE t.mark = 'nope'",
    "SELECT d.name, count(*), sum(t.lots) FROM bank.limits l JOIN bank.trades t ON t.desk = l.desk \
     CROSS JOIN lite.desks d WHERE t.mark = 'nope' GROUP BY d.name",
    "SELECT d.name, count(*), sum(t.lots) FROM bank.trades t LEFT JOIN lite.desks d ON d.region = 1 \
     WHERE t.id < 0 GROUP BY d.name",
    "SELECT 'x', count(*) FROM bank.trades t WHERE t.id < 0 AND EXISTS (SELECT 1 FROM lite.desks) GROUP BY 1",
    "SELECT CAST(u.f AS TEXT), d.name, count(*) FROM bank.trades t JOIN abroad.trades u ON u.id = t.desk \
     LEFT JOIN lite.desks d ON d.id = u.desk GROUP BY 1, 2",
    "SELECT u.f, d.name, count(*) FROM bank.trades t JOIN abroad.trades u ON u.id = t.desk \
     LEFT JOIN lite.desks d ON d.id = u.desk GROUP BY 1, 2",
    // What would fail on rows that the join drops: 'x' is no number, desk 43 no desk.
    "SELECT d.name, sum(CAST(t.number AS INT)) FROM bank.trades t JOIN lite.desks d ON d.id = t.desk \
     WHERE t.desk <> 0 GROUP BY d.name",
    "SELECT CAST(t.number AS INT) AS n, d.region, count(*) FROM bank.trades t \
     JOIN lite.desks d ON d.id = t.desk AND d.id > 0 GROUP BY 1, 2",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_the_same() {
    let mut wrong = Vec::new();
    for policy in [CutPolicy::Always, CutPolicy::ByCost] {
        let bank = Bank::new(policy).await;
        for sql in QUESTIONS {
            let got = bank.run(sql, "auto").await.map(|(rows, _)| rows);
            let want = bank.run(sql, "none").await.map(|(rows, _)| rows);
            if got != want || want.is_err() {
                wrong.push(format!("{policy:?} {sql}\n  {got:?}\n  {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_sent_instead_of_rows() {
    let bank = Bank::new(CutPolicy::ByCost).await;
    for (sql, most) in [
        // 43 desks and none; beside 42 rows of desks.
        (
            "SELECT d.name, sum(t.amount), count(*) FROM bank.trades t JOIN lite.desks d ON d.id = t.desk \
          GROUP BY d.name",
            90,
        ),
        (
            "SELECT d.name, sum(t.big) FROM bank.trades t JOIN lite.desks d ON d.id = t.desk \
          GROUP BY d.name",
            90,
        ),
        (
            "SELECT d.region, count(t.lots) FROM bank.trades t LEFT JOIN lite.desks d ON d.id = t.desk \
          GROUP BY d.region",
            90,
        ),
        (
            "SELECT d.name, sum(t.lots) FROM bank.trades t JOIN bank.limits l ON l.desk = t.desk \
          JOIN lite.desks d ON d.id = l.desk GROUP BY d.name",
            150,
        ),
        (
            "SELECT desk, sum(lots) FROM (SELECT desk, lots FROM bank.trades UNION ALL \
          SELECT desk, lots FROM abroad.trades) x GROUP BY desk",
            90,
        ),
        (
            "SELECT count(*), max(amount) FROM (SELECT amount FROM bank.trades UNION ALL \
          SELECT amount FROM abroad.trades) x",
            2,
        ),
    ] {
        let scans = bank.scans(sql).await;
        let rows: u64 = scans.iter().map(|(rows, _)| rows).sum();
        assert!(rows <= most, "{rows} rows came, {most} would do: {sql}\n{scans:#?}");
        assert!(scans.iter().any(|(_, text)| text.contains("count(") || text.contains("sum(")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overflow_stays_an_error() {
    let bank = Bank::new(CutPolicy::Always).await;
    let sql = "SELECT d.region, sum(h.v) FROM bank.huge h JOIN lite.desks d ON d.id = h.desk GROUP BY d.region";
    for pushdown in ["auto", "none"] {
        // One value for each region; those of desk 99 are too many, and nobody asks for them.
        let rows = bank.run(sql, pushdown).await.map(|(rows, _)| rows).expect("they fit");
        assert_eq!(rows.len(), 4, "{rows:?}");
        let rows = bank.run(&sql.replace("h.v", "h.n"), pushdown).await.map(|(rows, _)| rows);
        assert_eq!(rows.expect("they fit").len(), 4);
    }
    let home_and_abroad = "SELECT sum(v) FROM (SELECT v FROM bank.huge WHERE desk < 99 UNION ALL \
        SELECT -9223372036854775807 FROM abroad.trades WHERE id <= 3) x";
    assert_eq!(
        bank.run(home_and_abroad, "auto").await.map(|(rows, _)| rows),
        Ok(vec!["9223372036854775805".to_owned()])
    );
    let all = "SELECT sum(h.v) FROM bank.huge h JOIN lite.desks d ON d.id = h.desk";
    for pushdown in ["auto", "none"] {
        assert_eq!(bank.run(all, pushdown).await.map(|a| a.0), Err(ErrorCode::Data), "{pushdown}");
    }
}

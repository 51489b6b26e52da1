//! Which parts of a plan SQLite runs, that its answers are the engine's, and that a value that does
//! not fit fails wherever an operator would have hidden it.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use rusqlite::Connection;
use serde_json::{Map, json};
use synoptic_catalog::Host;
use synoptic_engine::{CutPolicy, Engine, EngineConfig, Error, Request, Session};
use synoptic_types::{ErrorCode, SourceName, SystemClock};
use tempfile::TempDir;

/// Hostile values of every kind that groups, joins and sorts might take for others. All fit.
const SETUP: &str = "
CREATE TABLE h (id INTEGER PRIMARY KEY, g INTEGER, t TEXT, k TEXT COLLATE NOCASE, r TEXT COLLATE RTRIM,
    n DECIMAL(12,3), wide DECIMAL(38,10), f REAL, d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, b BOOLEAN,
    big BIGINT, y BLOB, a, up TEXT GENERATED ALWAYS AS (upper(t)) VIRTUAL);
INSERT INTO h VALUES
 (1, 1, 'b', 'b', 'b', 1.5, 1, 0.0, '2024-01-01', '2024-01-01 01:00', '2024-01-01 01:00Z', 1, 1, x'01', 1),
 (2, 1, 'B', 'B', 'b ', -1.5, '99999999999999', -0.0, '1969-12-31', '1969-12-31 23:59:59.999999',
  '1969-12-31 23:59:59.999999Z', 0, -1, x'ff00', 'text'),
 (3, 2, 'a', 'ä', 'b  ', 999999999.999, -1, 9e999, '0001-01-01', '0001-01-01T00:00:00Z', '0001-01-01T00:00:00Z',
  NULL, 9223372036854775806, NULL, 1.5),
 (4, 2, NULL, NULL, NULL, NULL, NULL, -9e999, NULL, NULL, NULL, 1, NULL, x'', NULL),
 (5, NULL, 'a' || char(0) || 'b', 'AB', 'ab', 0.001, 0, 3, '9999-12-31', '9999-12-31 23:59:59',
  '9999-12-31 23:59:59+00:00', 0, 0, x'01', '1'),
 (6, NULL, '', 'z', '', 0, 0, NULL, '2024-01-01', '2024-01-01T01:00:00', '2024-01-01T02:00:00+01:00', NULL, 0,
  NULL, 'TEXT'),
 (7, 3, 'a' || char(0), 'ab', 'ab ', 0.1, 0.1, 1e300, NULL, NULL, NULL, NULL, -9223372036854775808, NULL, 1.0),
 (8, 3, '日本', 'Ab', 'ß', 100, 1e5, 1.5, '2024-02-29', '2024-02-29', '2024-02-29T00:00Z', 1, 7, x'6161', 'a');
CREATE TABLE p (id INTEGER PRIMARY KEY, h INT, t VARCHAR(9), amount DECIMAL(15,2) NOT NULL, d DATE);
INSERT INTO p WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000)
 SELECT i, nullif(i % 9, 8), char(96 + i % 4), i + 0.25, date('2024-01-01', (i % 40) || ' days') FROM c;
CREATE INDEX p_h ON p(h);
CREATE TABLE w (k TEXT, j INTEGER, v INTEGER, PRIMARY KEY (k, j)) WITHOUT ROWID;
INSERT INTO w VALUES ('a', 1, 10), ('a', 2, NULL), ('A', 1, 30), ('b', 1, 40);
CREATE TABLE s (i INTEGER, t TEXT, v INT, y BLOB) STRICT;
INSERT INTO s VALUES (1, 'a', 5, x'00'), (1, 'A', 6, NULL), (NULL, NULL, NULL, x'00'), (2, 'é', 7, x'0000');
CREATE TABLE e (id INTEGER, v DECIMAL(10,2));
CREATE TABLE huge (v BIGINT);
INSERT INTO huge VALUES (9223372036854775807), (9223372036854775807);
CREATE VIEW seen AS SELECT * FROM h;
CREATE VIRTUAL TABLE fts USING fts5(c);
INSERT INTO fts VALUES ('one'), ('two');
CREATE TABLE \"Odd \"\"name\" (\"c0\" INTEGER, \"c1 \"\" '\" TEXT, \"select\" INTEGER);
INSERT INTO \"Odd \"\"name\" VALUES (3, 'x', 1), (2, 'x', 1), (1, 'y', NULL);
";

/// One value that does not fit, in every way there is.
const ODD: &str = "
CREATE TABLE odd (id INTEGER PRIMARY KEY, g INTEGER, i INTEGER, f REAL, n DECIMAL(10,2), b BOOLEAN, t TEXT, y BLOB,
    d DATE, ts TIMESTAMP, tz TIMESTAMPTZ, u TEXT, rt TEXT COLLATE RTRIM, rd DATE COLLATE RTRIM);
INSERT INTO odd VALUES (1, 1, 5, 1.5, 1.25, 1, 'a', x'01', '2024-01-01', '2024-01-01', '2024-01-01T00:00Z', 'u', 'a', '2024-01-01');
INSERT INTO odd (id, g, i) VALUES (2, 2, 'five');
INSERT INTO odd (id, g, f) VALUES (3, 2, 'x');
INSERT INTO odd (id, g, n) VALUES (4, 2, 1.255);
INSERT INTO odd (id, g, b) VALUES (5, 2, 2);
INSERT INTO odd (id, g, t) VALUES (6, 2, x'61');
INSERT INTO odd (id, g, y) VALUES (7, 2, 'blob');
INSERT INTO odd (id, g, d) VALUES (8, 2, '2024-02-30');
INSERT INTO odd (id, g, ts) VALUES (9, 2, '2024-01-01 25:00:00');
INSERT INTO odd (id, g, tz) VALUES (10, 2, '2024-01-01 01:00:00');
INSERT INTO odd (id, g, u) VALUES (11, 2, CAST(x'61ff' AS TEXT));
INSERT INTO odd (id, g, i) VALUES (12, 2, 1e300);
INSERT INTO odd (id, g, rd) VALUES (13, 2, '2024-01-01 ');
CREATE INDEX odd_i ON odd(i);
CREATE INDEX odd_d ON odd(d);
CREATE TABLE nul (id INTEGER PRIMARY KEY, t TEXT);
INSERT INTO nul VALUES (1, CAST(x'6100ff' AS TEXT));
";

struct Bank {
    folder: TempDir,
    engine: Arc<Engine>,
}

impl Bank {
    fn open(cut: CutPolicy) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("t.db");
        let database = Connection::open(&path).expect("opened");
        database.execute_batch("PRAGMA journal_mode = WAL").expect("WAL");
        database.execute_batch(&format!("BEGIN; {SETUP} {ODD} COMMIT; ANALYZE")).expect("valid");
        let options = Map::from_iter([("path".to_owned(), json!(path))]);
        let source =
            synoptic_connectors::open("sqlite", SourceName::new("lite"), options, Path::new("/"));
        let host = Host::new(vec![source.expect("valid options")]);
        let config = EngineConfig { target_partitions: 2, cut, ..EngineConfig::default() };
        let engine = Engine::new(config, host, Arc::new(SystemClock)).expect("an engine");
        Self { folder, engine }
    }

    fn writer(&self) -> Connection {
        Connection::open(self.folder.path().join("t.db")).expect("opened")
    }

    fn session(&self, pushdown: &str) -> Session {
        let session = self.engine.session("cut");
        session.set_option("pushdown", pushdown).expect("an option");
        session
    }
}

async fn query(session: &Session, sql: &str) -> Result<Vec<RecordBatch>, Error> {
    let request = Request { sql: sql.to_owned(), ..Request::default() };
    session.plan(request).await?.run()?.try_collect().await
}

/// The rows as lines in one order, or the code of the error.
async fn answer(session: &Session, sql: &str) -> Result<Vec<String>, ErrorCode> {
    let batches = query(session, sql).await.map_err(|error| error.code())?;
    let batches: Vec<_> = batches.into_iter().filter(|batch| batch.num_rows() > 0).collect();
    let text = pretty_format_batches(&batches).expect("printable").to_string();
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<_> =
        text.lines().filter(|line| line.starts_with('|')).map(squeeze).collect();
    lines.sort();
    Ok(lines)
}

/// The remote scans of a plan, one per line.
async fn scans(session: &Session, sql: &str) -> String {
    let batches = query(session, &format!("EXPLAIN {sql}")).await.expect("plans");
    let plan = pretty_format_batches(&batches).expect("printable").to_string();
    let scan =
        |line: &str| Some(line[line.find("remote=[")?..].trim_end_matches(['|', ' ']).to_owned());
    plan.lines().filter_map(scan).collect::<Vec<_>>().join("\n")
}

/// Questions about operators, over data that tells apart who answered.
const QUESTIONS: &[&str] = &[
    "SELECT count(*), count(g), count(t), count(k), count(r), count(f), count(d), count(y) FROM lite.h",
    "SELECT count(DISTINCT t), count(DISTINCT k), count(DISTINCT r), count(DISTINCT a) FROM lite.h",
    "SELECT count(DISTINCT f), count(DISTINCT y), count(DISTINCT n), count(DISTINCT wide) FROM lite.h",
    "SELECT count(DISTINCT d), count(DISTINCT tz), count(DISTINCT b), count(ts) FROM lite.h",
    "SELECT sum(g), sum(big), sum(n), sum(id), avg(n), avg(g) FROM lite.h WHERE id NOT IN (3, 7)",
    "SELECT min(t), max(t), min(k), max(k), min(r), max(r), min(up), max(up) FROM lite.h",
    "SELECT min(n), max(n), min(d), max(d), min(ts), max(ts), min(tz), max(tz) FROM lite.h",
    "SELECT min(f), max(f), min(big), max(big), min(b), max(b), min(a), max(a) FROM lite.h",
    "SELECT min(y), max(y), sum(f), avg(f) FROM lite.h WHERE id < 3",
    "SELECT bool_and(b), bool_or(b), bool_and(g > 1) FROM lite.h",
    "SELECT g, count(*), sum(n), avg(n), min(t), max(k) FROM lite.h GROUP BY g",
    "SELECT t, count(*) FROM lite.h GROUP BY t",
    "SELECT k, count(*) FROM lite.h GROUP BY k",
    "SELECT r, count(*) FROM lite.h GROUP BY r",
    "SELECT a, count(*) FROM lite.h GROUP BY a",
    "SELECT up, count(*) FROM lite.h GROUP BY up",
    "SELECT f, count(*) FROM lite.h GROUP BY f",
    "SELECT d, ts, tz, count(*) FROM lite.h GROUP BY d, ts, tz",
    "SELECT n, d, count(*) FROM lite.h GROUP BY 1, 2",
    "SELECT wide, count(*) FROM lite.h GROUP BY 1",
    "SELECT b, y, count(*) FROM lite.h GROUP BY b, y",
    "SELECT DISTINCT g, b FROM lite.h",
    "SELECT DISTINCT k FROM lite.h",
    "SELECT g, sum(id) AS s FROM lite.h GROUP BY g HAVING sum(id) > 3",
    "SELECT g, count(*) FROM lite.h GROUP BY g HAVING min(d) < DATE '2024-01-01'",
    "SELECT g, count(*) FROM lite.h GROUP BY g HAVING max(n) > 1.4",
    "SELECT g, count(*) FROM lite.h GROUP BY g HAVING max(k) >= 'a'",
    "SELECT count(*) FROM (SELECT g, d FROM lite.h GROUP BY g, d) AS x",
    "SELECT max(c) FROM (SELECT g, count(*) AS c FROM lite.h GROUP BY g) AS x",
    "SELECT max(m) FROM (SELECT g, max(k) AS m FROM lite.h GROUP BY g) AS x",
    "SELECT g + 1, count(*) FROM lite.h GROUP BY g + 1",
    "SELECT CASE WHEN g = 1 THEN k ELSE 'A' END AS c, count(*) FROM lite.h GROUP BY 1",
    "SELECT coalesce(k, 'ab') AS c, count(*), min(coalesce(d, DATE '2020-01-01')) FROM lite.h GROUP BY 1",
    "SELECT g > 1, count(*) FROM lite.h GROUP BY 1",
    "SELECT count(*) FILTER (WHERE b), sum(g) FILTER (WHERE k = 'ab'), count(t) FILTER (WHERE g > 5) FROM lite.h",
    "SELECT sum(CASE WHEN b THEN id ELSE 0 END), count(nullif(g, 1)) FROM lite.h",
    "SELECT sum(DISTINCT g), count(DISTINCT g) FROM lite.h",
    "SELECT count(*), sum(id), min(v), max(v) FROM lite.e",
    "SELECT id, count(*), sum(v) FROM lite.e GROUP BY id",
    "SELECT sum(g), min(t), count(*) FROM lite.h WHERE id > 100",
    "SELECT g, sum(g) FROM lite.h WHERE g IS NULL GROUP BY g",
    "SELECT count(*) FROM lite.seen",
    "SELECT k, count(*) FROM lite.seen GROUP BY k",
    "SELECT count(*) FROM lite.fts",
    "SELECT k, count(*), sum(v) FROM lite.w GROUP BY k",
    "SELECT i, t, count(*), sum(v) FROM lite.s GROUP BY i, t",
    "SELECT y, count(*) FROM lite.s GROUP BY y",
    r#"SELECT "c1 "" '", sum(c0), count("select") FROM lite."Odd ""name" GROUP BY 1"#,
    r#"SELECT c0, "c1 "" '" FROM lite."Odd ""name" ORDER BY "c1 "" '", c0 LIMIT 2"#,
    // The first few, with NULLs at either end.
    "SELECT id, t FROM lite.h ORDER BY t, id LIMIT 3",
    "SELECT id, t FROM lite.h ORDER BY t DESC NULLS LAST, id LIMIT 4",
    "SELECT id, k FROM lite.h ORDER BY k NULLS FIRST, id LIMIT 5",
    "SELECT id, k FROM lite.h ORDER BY k DESC, id LIMIT 3",
    "SELECT id, r FROM lite.h ORDER BY r, id LIMIT 4",
    "SELECT id, f FROM lite.h ORDER BY f, id LIMIT 3",
    "SELECT id, a FROM lite.h ORDER BY a, id LIMIT 3",
    "SELECT id, a, ts, tz, wide, f, y FROM lite.h ORDER BY id DESC LIMIT 5",
    "SELECT id, d FROM lite.h ORDER BY d DESC NULLS FIRST, id LIMIT 3 OFFSET 2",
    "SELECT id, n FROM lite.h ORDER BY n, id LIMIT 4",
    "SELECT id, n FROM lite.h ORDER BY n DESC, id LIMIT 4",
    "SELECT id, b FROM lite.h ORDER BY b NULLS LAST, id LIMIT 5",
    "SELECT id, y FROM lite.h ORDER BY y NULLS LAST, id LIMIT 3",
    "SELECT id, t FROM lite.h ORDER BY CASE WHEN g = 1 THEN k ELSE t END, id LIMIT 4",
    "SELECT g, count(*) AS s FROM lite.h GROUP BY g ORDER BY s DESC NULLS LAST, g LIMIT 2",
    "SELECT count(*) FROM (SELECT id FROM lite.p ORDER BY amount DESC LIMIT 10) AS x",
    "SELECT sum(id) FROM (SELECT id FROM lite.p ORDER BY amount DESC LIMIT 10 OFFSET 5) AS x",
    "SELECT count(*) FROM (SELECT id FROM lite.p LIMIT 7) AS x",
    "SELECT count(*) FROM (SELECT t FROM lite.p LIMIT 7) AS x",
    "SELECT count(*) FROM (SELECT g FROM lite.h GROUP BY g LIMIT 2 OFFSET 1) AS x",
    "SELECT h.id, x.t FROM lite.h JOIN (SELECT h, t, id FROM lite.p ORDER BY t DESC, id LIMIT 9) x ON x.h = h.id",
    "SELECT count(*) FROM (SELECT id FROM lite.p LIMIT 9223372036854775807 OFFSET 2990) AS x",
    "SELECT id FROM lite.p ORDER BY amount DESC, id LIMIT 9223372036854775807 OFFSET 2990",
    // Joins.
    "SELECT h.id, p.id FROM lite.h JOIN lite.p ON h.id = p.h WHERE p.id < 30",
    "SELECT h.id, p.amount FROM lite.h JOIN lite.p ON h.id = p.h AND p.amount > 2990",
    "SELECT h.id, p.id FROM lite.h LEFT JOIN lite.p ON h.id = p.h AND p.id < 5",
    "SELECT h.id, p.id FROM lite.h LEFT JOIN lite.p ON h.id = p.h AND h.g = 1 AND p.id < 30",
    "SELECT h.id, p.id FROM lite.h LEFT JOIN lite.p ON h.id = p.h WHERE p.id IS NULL OR p.id < 5",
    "SELECT h.id, p.id FROM lite.p RIGHT JOIN lite.h ON h.id = p.h AND p.id < 5",
    "SELECT h.id, e.id FROM lite.h FULL JOIN lite.e ON h.id = e.id",
    "SELECT a.id FROM lite.h a WHERE EXISTS (SELECT 1 FROM lite.p WHERE p.h = a.id)",
    "SELECT a.id FROM lite.h a WHERE EXISTS (SELECT 1 FROM lite.p WHERE p.h = a.id AND p.amount > a.n)",
    "SELECT a.id FROM lite.h a WHERE NOT EXISTS (SELECT 1 FROM lite.p WHERE p.h = a.g)",
    "SELECT a.id FROM lite.h a WHERE NOT EXISTS (SELECT 1 FROM lite.p WHERE p.h = a.g AND p.id < 3)",
    "SELECT x.id FROM lite.h x WHERE EXISTS (SELECT 1 FROM lite.h z WHERE z.g = x.g AND z.d = x.d)",
    "SELECT x.id FROM lite.h x WHERE NOT EXISTS (SELECT 1 FROM lite.h z WHERE z.g = x.id AND z.d = x.d)",
    "SELECT h.id FROM lite.h WHERE g IN (SELECT h FROM lite.p WHERE id < 20)",
    "SELECT h.id FROM lite.h WHERE g NOT IN (SELECT h FROM lite.p WHERE id < 20)",
    "SELECT h.id FROM lite.h WHERE g NOT IN (SELECT h FROM lite.p WHERE id < 2)",
    "SELECT h.id FROM lite.h WHERE t IN (SELECT k FROM lite.h)",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.t = b.t",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.k = b.k",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.t = b.k",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.r = b.r",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.a = b.a",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.f = b.f",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.ts = b.ts",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.d = b.d AND a.n <= b.n",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.y = b.y AND a.id <> b.id",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.g IS NOT DISTINCT FROM b.g",
    "SELECT a.id, b.id FROM lite.h a JOIN lite.h b ON a.n = b.wide",
    "SELECT h.id, p.id FROM lite.h JOIN lite.p ON h.n = p.amount",
    "SELECT a.v, b.v FROM lite.w a JOIN lite.w b ON a.k = b.k AND a.j = b.j",
    "SELECT h.g, count(*), sum(p.id) FROM lite.h JOIN lite.p ON h.id = p.h GROUP BY h.g",
    "SELECT h.t, count(p.id), min(p.amount) FROM lite.h LEFT JOIN lite.p ON h.id = p.h GROUP BY h.t",
    "SELECT h.k, count(p.id), max(p.d) FROM lite.h LEFT JOIN lite.p ON h.id = p.h GROUP BY h.k",
    "SELECT count(*) FROM lite.h a JOIN lite.h b ON a.id = b.g JOIN lite.p ON p.h = b.id",
    "SELECT h.id, x.s FROM lite.h JOIN (SELECT h, sum(id) AS s FROM lite.p GROUP BY h) x ON x.h = h.id",
    "SELECT id FROM lite.p WHERE amount = (SELECT max(amount) FROM lite.p)",
    "SELECT count(*) FROM lite.h a JOIN lite.h b ON a.id = b.id AND random() >= 0",
    "SELECT t, row_number() OVER (ORDER BY t) FROM (SELECT DISTINCT t FROM lite.h) AS x",
    "SELECT t FROM lite.h UNION ALL SELECT t FROM lite.p WHERE id < 3",
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_depend_on_where_operators_run() {
    let mut wrong = Vec::new();
    for policy in [CutPolicy::Always, CutPolicy::ByCost] {
        let bank = Bank::open(policy);
        let (on, off) = (bank.session("auto"), bank.session("none"));
        for sql in QUESTIONS {
            let (got, want) = (answer(&on, sql).await, answer(&off, sql).await);
            if got != want || want.is_err() {
                let error = query(&off, sql).await.err();
                wrong.push(format!("{policy:?} {sql}\n  {got:?}\n  {want:?} {error:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The number of rows, or the error, which is one of data.
async fn outcome(session: &Session, sql: &str) -> Result<usize, String> {
    let batches = query(session, sql).await.map_err(|error| {
        assert_eq!(error.code(), ErrorCode::Data, "{sql}: {error}");
        error.to_string()
    })?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_fails_although_it_would_not_be_read() {
    let bank = Bank::open(CutPolicy::Always);
    let (on, off) = (bank.session("auto"), bank.session("none"));
    let mut failed = 0;
    for column in ["i", "f", "n", "b", "t", "y", "d", "ts", "tz", "u", "rd"] {
        for sql in [
            format!("SELECT count({column}) FROM lite.odd"),
            format!("SELECT g, count({column}) FROM lite.odd GROUP BY g"),
            format!("SELECT min({column}), count(*) FROM lite.odd"),
            format!("SELECT max({column}) FROM lite.odd"),
            format!("SELECT DISTINCT {column} FROM lite.odd"),
            format!("SELECT {column} FROM lite.odd ORDER BY id LIMIT 1"),
            format!("SELECT id FROM lite.odd ORDER BY {column} LIMIT 1"),
            format!("SELECT count(*) FROM lite.odd a JOIN lite.odd b ON a.{column} = b.{column}"),
            format!("SELECT h.id, o.{column} FROM lite.h LEFT JOIN lite.odd o ON o.id = h.g"),
            format!(
                "SELECT h.g, count(o.{column}) FROM lite.h LEFT JOIN lite.odd o ON o.g = h.id GROUP BY h.g"
            ),
            format!(
                "SELECT count(*) FROM (SELECT g, count({column}) AS c FROM lite.odd GROUP BY g) AS x WHERE c > 100"
            ),
        ] {
            let (got, want) = (outcome(&on, &sql).await, outcome(&off, &sql).await);
            assert_eq!(got.as_ref().ok(), want.as_ref().ok(), "{sql}:\n  {got:?}\n  {want:?}");
            if let Err(error) = got {
                failed += 1;
                assert!(error.contains("does not fit") || error.contains("UTF-8"), "{error}");
                assert!(error.contains("table main.odd, column"), "{error}");
            }
        }
    }
    assert!(failed > 100, "only {failed} failed");
    let error = outcome(&on, "SELECT count(t) FROM lite.odd").await.expect_err("a blob");
    assert!(
        error.contains("a blob of 1 bytes does not fit the declared type TEXT (row with rowid 6)"),
        "{error}"
    );
    outcome(&on, "SELECT max(t) FROM lite.nul").await.expect_err("not UTF-8, behind a NUL");
    // Only what a filter keeps is looked at.
    let kept =
        answer(&on, "SELECT sum(i) AS a, min(d) AS b, count(t) AS c FROM lite.odd WHERE g = 1");
    assert_eq!(kept.await.expect("fits")[0], "| 5 | 2024-01-01 | 1 |");
    // An overflow is an error and never another number.
    let error = outcome(&on, "SELECT sum(v) FROM lite.huge").await.expect_err("an overflow");
    assert!(error.contains("exceeds 64 bits"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_looked_at_is_looked_at_again_after_a_commit() {
    let bank = Bank::open(CutPolicy::Always);
    let on = bank.session("auto");
    let sql = "SELECT h, count(t) FROM lite.p GROUP BY h";
    assert!(scans(&on, sql).await.contains("typeof("));
    for _ in 0..3 {
        assert_eq!(outcome(&on, sql).await, Ok(9));
    }
    bank.writer().execute_batch("UPDATE p SET t = x'00' WHERE id = 2999").expect("updated");
    for _ in 0..3 {
        outcome(&on, sql).await.expect_err("a blob");
    }
    bank.writer().execute_batch("UPDATE p SET t = 'ok' WHERE id = 2999").expect("updated");
    assert_eq!(outcome(&on, sql).await, Ok(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_and_cheaper_goes() {
    let bank = Bank::open(CutPolicy::ByCost);
    let on = bank.session("auto");
    let count = scans(&on, "SELECT count(*) FROM lite.p").await;
    let all =
        r#"remote=[SELECT CAST(count(*) AS INTEGER) AS c0 FROM (SELECT 1 FROM "main"."p") AS t]"#;
    assert_eq!(count, all);
    for (sql, parts) in [
        (
            "SELECT sum(id), max(h) FROM lite.p WHERE t = 'a'",
            vec![r#"sum("c0")"#, r#"max("c1")"#, r#""t" = 'a'"#, r#"typeof("h")"#],
        ),
        (
            "SELECT id, amount FROM lite.p ORDER BY amount DESC, id LIMIT 3 OFFSET 1",
            vec!["ORDER BY \"c", "DESC NULLS FIRST", "ASC NULLS LAST LIMIT 4", "round("],
        ),
    ] {
        let scans = scans(&on, sql).await;
        assert!(parts.iter().all(|part| scans.contains(part)), "{sql}:\n{scans}");
    }
    let bank = Bank::open(CutPolicy::Always);
    let on = bank.session("auto");
    for (sql, parts) in [
        (
            "SELECT k, count(*) FROM lite.h GROUP BY k HAVING count(*) > 1",
            vec![r#""k" COLLATE BINARY AS c0"#, "GROUP BY 1", r#"WHERE "c1" > 1"#],
        ),
        (
            "SELECT h.g, count(p.id) FROM lite.h LEFT JOIN lite.p ON h.id = p.h AND p.t = 'a' GROUP BY h.g",
            vec!["LEFT JOIN", r#"ON "c0" = "c"#, r#""t" = 'a'"#, "count("],
        ),
        (
            "SELECT count(*) FROM lite.p WHERE NOT EXISTS (SELECT 1 FROM lite.h WHERE h.id = p.h)",
            vec![r#"("c0" IN (SELECT "c1" FROM"#, "IS NOT TRUE"],
        ),
        ("SELECT id FROM lite.h WHERE g IN (SELECT h FROM lite.p)", vec![r#" IN (SELECT "c"#]),
    ] {
        let scans = scans(&on, sql).await;
        assert!(parts.iter().all(|part| scans.contains(part)), "{sql}:\n{scans}");
    }
    // Nothing to look at where SQLite enforces the types.
    for sql in ["SELECT i, sum(v) FROM lite.s GROUP BY i", "SELECT max(id) FROM lite.p"] {
        let scans = scans(&on, sql).await;
        assert!(scans.contains("AS INTEGER)") && !scans.contains("typeof("), "{sql}:\n{scans}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_has_its_reason() {
    let bank = Bank::open(CutPolicy::Always);
    let on = bank.session("auto");
    for (sql, reason) in [
        ("SELECT sum(f) FROM lite.h", "sum() of a floating-point number is computed here"),
        ("SELECT sum(n) FROM lite.h", "sum() of a decimal is computed here"),
        ("SELECT avg(n) FROM lite.h", "avg() of a decimal is computed here"),
        ("SELECT avg(g) FROM lite.h", "avg() of a floating-point number is computed here"),
        ("SELECT min(f) FROM lite.h", "min() of a floating-point number is computed here"),
        ("SELECT bool_and(b) FROM lite.h", "bool_and() of a boolean is computed here"),
        ("SELECT max(wide) FROM lite.h", "more digits than SQLite compares exactly"),
        ("SELECT max(ts) FROM lite.h", "holds timestamps as text in several forms"),
        (
            "SELECT f, count(*) FROM lite.h GROUP BY f",
            "takes other floating-point numbers for equal",
        ),
        ("SELECT a, count(*) FROM lite.h GROUP BY a", "holds values of several types"),
        ("SELECT g + 1, count(*) FROM lite.h GROUP BY g + 1", "+"),
        (
            "SELECT a.id FROM lite.h a JOIN lite.h b ON a.k = b.k",
            "would compare every pair of rows",
        ),
        ("SELECT a.id FROM lite.h a FULL JOIN lite.h b ON a.id = b.g", "a Full join"),
        ("SELECT id FROM lite.h WHERE g NOT IN (SELECT h FROM lite.p)", "NOT IN with NULLs"),
        (
            "SELECT a.id FROM lite.h a WHERE EXISTS (SELECT 1 FROM lite.p WHERE h = a.id AND amount > a.n)",
            "beyond equal keys",
        ),
        ("SELECT id FROM lite.h ORDER BY f LIMIT 2", "floating-point numbers for equal"),
        ("SELECT count(k) FROM lite.seen", "the view main.seen may show other values"),
        ("SELECT count(c) FROM lite.fts", "the virtual table main.fts may show other values"),
        (
            "SELECT count(t) FROM (SELECT t FROM lite.p LIMIT 7) AS x",
            "before a limit would cost more",
        ),
        ("SELECT g, count(*) FROM lite.h GROUP BY ROLLUP (g)", "grouping sets"),
        ("SELECT stddev(g) FROM lite.h", "stddev"),
    ] {
        let scans = scans(&on, sql).await;
        assert!(scans.contains("kept_here=[") && scans.contains(reason), "{sql}:\n{scans}");
    }
    let by_cost = Bank::open(CutPolicy::ByCost);
    let on = by_cost.session("auto");
    let every_row = "SELECT id, max(amount) FROM lite.p GROUP BY id";
    assert!(scans(&on, every_row).await.contains("would not be cheaper at the source"));
    let off = bank.session("none");
    let none = scans(&off, "SELECT t, count(*) FROM lite.p GROUP BY t LIMIT 1").await;
    assert_eq!(none, r#"remote=[SELECT "t" FROM "main"."p"]"#);
}

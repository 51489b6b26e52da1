//! Which parts of a plan PostgreSQL runs, and that its answers are the engine's.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use serde_json::{Map, json};
use synoptic_catalog::Host;
use synoptic_engine::{CutPolicy, Engine, EngineConfig, Error, Request, Session};
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{ErrorCode, SourceName, SystemClock};

/// Hostile values of every kind that groups, joins and sorts might take for others.
const SETUP: &str = r#"
CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE h (id int PRIMARY KEY, g int, t text COLLATE "C", i text COLLATE "en-x-icu",
    nd text COLLATE blind, ch char(5), n numeric(12,3), wide numeric(38,10), loose numeric,
    f float8, d date, ts timestamp, tz timestamptz, tm time, b bool, u uuid, big bigint, y bytea);
INSERT INTO h VALUES
 (1, 1, 'b', 'b', 'b', 'ab', 1.500, 1, 1.5, 0.0, '2024-01-01', '2024-01-01 01:00', '2024-01-01 01:00+00',
  '00:00', true, '00000000-0000-0000-0000-000000000001', 1, '\x01'),
 (2, 1, 'B', 'B', 'B', 'ab ', -1.500, 99999999999999999999999999.9999999999, 2.5, -0.0, '1969-12-31',
  '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00', '23:59:59.999999', false,
  '00000000-0000-0000-0000-000000000002', -1, '\xff00'),
 (3, 2, 'a', 'ä', 'a', 'a', 999999999.999, -1, 3.5, 'NaN', '0001-01-01', '0001-01-01', '0001-01-01 00:00+00',
  '12:00', NULL, '00000000-0000-0000-0000-000000000001', 9223372036854775806, NULL),
 (4, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'Infinity', NULL, NULL, NULL, NULL, true, NULL, NULL, ''),
 (5, NULL, 'ab', 'ab', 'AB', 'ab', 0.001, 0, 0, '-Infinity', '9999-12-31', '9999-12-31 23:59:59',
  '9999-12-31 23:59:59+00', '06:00', false, NULL, 0, '\x01'),
 (6, NULL, '', 'z', '', '', 0, 0, 0, NULL, '2024-01-01', '2024-01-01 01:00', '2024-01-01 01:00+00', '00:00',
  NULL, NULL, 0, NULL),
 (7, 3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE p (id int PRIMARY KEY, h int, t text COLLATE "C", amount numeric(15,2) NOT NULL, rate numeric(15,2) NOT NULL);
INSERT INTO p SELECT i, nullif(i % 9, 8), chr(96 + i % 4), i + 0.25, (i % 10) / 100.0 FROM generate_series(1, 3000) i;
CREATE TABLE e (id int, v numeric(10,2));
CREATE TABLE odd (id int, g int, d date, ts timestamp, n numeric(10,2), tm time);
INSERT INTO odd VALUES (1, 1, 'infinity', '-infinity', 'NaN', '24:00'), (2, 1, '2024-01-01', '2024-01-01', 1, '01:00'),
 (3, 2, '-infinity', 'infinity', 2, '02:00');
CREATE TABLE huge (v bigint, n numeric(38,2));
INSERT INTO huge VALUES (9223372036854775807, 900000000000000000000000000000000000.00),
 (9223372036854775807, 900000000000000000000000000000000000.00);
"#;

struct Bank {
    _server: Arc<PostgresServer>,
    engine: Arc<Engine>,
}

impl Bank {
    async fn open(cut: CutPolicy) -> Self {
        let server = PostgresServer::shared();
        let name = server.create_database().await;
        let client = server.client(&name).await;
        client.batch_execute(SETUP).await.expect("valid SQL");
        client.batch_execute("ANALYZE").await.expect("analysed");
        // One text for all, however many rows are expected.
        let options = Map::from_iter([
            ("url".to_owned(), json!(server.url(&name))),
            ("max_query_rows".to_owned(), json!(0)),
        ]);
        let source = synoptic_connectors::open(
            "postgres",
            SourceName::new("pg"),
            options,
            std::path::Path::new("/"),
        );
        let host = Host::new(vec![source.expect("valid options")]);
        let config = EngineConfig { target_partitions: 2, cut, ..EngineConfig::default() };
        let engine = Engine::new(config, host, Arc::new(SystemClock)).expect("an engine");
        Self { _server: server, engine }
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
    // Widths of columns differ when batches do.
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<_> =
        text.lines().filter(|line| line.starts_with('|')).map(squeeze).collect();
    lines.sort();
    Ok(lines)
}

/// The remote scans of a plan, one per line, without the id in the leading comment.
async fn scans(session: &Session, sql: &str) -> String {
    let batches = query(session, &format!("EXPLAIN {sql}")).await.expect("plans");
    let plan = pretty_format_batches(&batches).expect("printable").to_string();
    let scan = |line: &str| {
        let line = &line[line.find("remote=[")?..];
        let (before, after) = line.split_once("/* synoptic")?;
        let (_, after) = after.split_once("*/ ")?;
        Some(format!("{before}{}", after.trim_end_matches(['|', ' '])))
    };
    plan.lines().filter_map(scan).collect::<Vec<_>>().join("\n")
}

/// Questions about operators, over data that tells apart who answered.
const QUESTIONS: &[&str] = &[
    "SELECT count(*), count(g), count(t), count(i), count(ch), count(f), count(d), count(y) FROM pg.h",
    "SELECT count(DISTINCT t), count(DISTINCT i), count(DISTINCT nd) FROM pg.h",
    "SELECT count(DISTINCT f), count(DISTINCT ch), count(DISTINCT u), count(DISTINCT y) FROM pg.h",
    "SELECT count(DISTINCT n), count(DISTINCT d), count(DISTINCT tz), count(DISTINCT b) FROM pg.h",
    "SELECT sum(g), sum(big), sum(n), sum(id), avg(n), avg(g) FROM pg.h WHERE id <> 3",
    "SELECT min(t), max(t), min(i), max(i), min(nd), max(nd), min(ch), max(ch) FROM pg.h",
    "SELECT min(n), max(n), min(d), max(d), min(ts), max(ts), min(tz), max(tz) FROM pg.h",
    "SELECT min(tm), max(tm), min(f), max(f), min(big), max(big), min(b), max(b) FROM pg.h",
    "SELECT min(u), max(u), min(y), max(y), min(loose), max(loose), sum(loose) FROM pg.h",
    "SELECT sum(f), avg(f) FROM pg.h WHERE id < 3",
    "SELECT bool_and(b), bool_or(b), bool_and(g > 1) FROM pg.h",
    "SELECT g, count(*), sum(n), avg(n), min(t), max(i) FROM pg.h GROUP BY g",
    "SELECT t, count(*) FROM pg.h GROUP BY t",
    "SELECT i, count(*) FROM pg.h GROUP BY i",
    "SELECT nd, count(*) FROM pg.h GROUP BY nd",
    "SELECT ch, count(*) FROM pg.h GROUP BY ch",
    "SELECT f, count(*) FROM pg.h GROUP BY f",
    "SELECT d, ts, tz, count(*) FROM pg.h GROUP BY d, ts, tz",
    "SELECT n, wide, tm, count(*) FROM pg.h GROUP BY 1, 2, 3",
    "SELECT u, b, y, count(*) FROM pg.h GROUP BY u, b, y",
    "SELECT DISTINCT g, b FROM pg.h",
    "SELECT g, sum(n) AS s FROM pg.h GROUP BY g HAVING sum(n) > 0",
    "SELECT g, count(*) FROM pg.h GROUP BY g HAVING min(d) < DATE '2024-01-01'",
    "SELECT count(*) FROM (SELECT g, d FROM pg.h GROUP BY g, d) AS x",
    "SELECT max(c) FROM (SELECT g, count(*) AS c FROM pg.h GROUP BY g) AS x",
    "SELECT g + 1, count(*) FROM pg.h GROUP BY g + 1",
    "SELECT CASE WHEN n > 0 THEN 'up' WHEN n < 0 THEN 'down' END AS way, count(*) FROM pg.h GROUP BY 1",
    "SELECT coalesce(t, 'none') AS t, count(*), sum(CASE WHEN b THEN n ELSE 0 END) FROM pg.h GROUP BY 1",
    "SELECT count(*) FILTER (WHERE n > 0), sum(n) FILTER (WHERE b), min(d) FILTER (WHERE g = 9) FROM pg.h",
    "SELECT sum(amount * (1 - rate)), sum(amount * (1 - rate) * (1 + rate)), avg(amount), avg(rate) FROM pg.p",
    "SELECT t, sum(amount * (1 - rate)), avg(amount), avg(-amount), count(*) FROM pg.p GROUP BY t",
    "SELECT sum(DISTINCT rate), count(DISTINCT rate), avg(DISTINCT rate) FROM pg.p",
    "SELECT count(*), sum(v), min(v), max(v), avg(v), count(v) FROM pg.e",
    "SELECT id, count(*) FROM pg.e GROUP BY id",
    "SELECT count(*) FROM pg.e WHERE v > 1",
    // The first few, with NULLs at either end.
    "SELECT id, t FROM pg.h ORDER BY t, id LIMIT 3",
    "SELECT id, t FROM pg.h ORDER BY t DESC NULLS LAST, id LIMIT 3",
    "SELECT id, i FROM pg.h ORDER BY i NULLS FIRST, id LIMIT 4",
    "SELECT id, nd FROM pg.h ORDER BY nd, id LIMIT 4",
    "SELECT id, ch FROM pg.h ORDER BY ch, id LIMIT 4",
    "SELECT id, f FROM pg.h ORDER BY f, id LIMIT 3",
    "SELECT id, d FROM pg.h ORDER BY d DESC NULLS FIRST, id LIMIT 3 OFFSET 2",
    "SELECT id, n, wide FROM pg.h ORDER BY n, wide, id LIMIT 4",
    "SELECT id, u FROM pg.h ORDER BY u NULLS LAST, id LIMIT 2",
    "SELECT g, sum(n) AS s FROM pg.h GROUP BY g ORDER BY s DESC NULLS LAST, g LIMIT 2",
    "SELECT count(*) FROM (SELECT id FROM pg.p ORDER BY amount DESC LIMIT 10) AS x",
    "SELECT sum(id) FROM (SELECT id FROM pg.p ORDER BY amount DESC LIMIT 10 OFFSET 5) AS x",
    "SELECT count(*) FROM (SELECT id FROM pg.p LIMIT 7) AS x",
    "SELECT count(*) FROM (SELECT g FROM pg.h GROUP BY g LIMIT 2 OFFSET 1) AS x",
    "SELECT h.id, x.t FROM pg.h JOIN (SELECT h, t, id FROM pg.p ORDER BY t DESC, id LIMIT 9) x ON x.h = h.id",
    "SELECT h.id, x.a FROM pg.h JOIN (SELECT h, max(amount) AS a FROM pg.p GROUP BY h ORDER BY h DESC LIMIT 3) x ON x.h = h.id",
    "SELECT h.id, x.id FROM pg.h LEFT JOIN (SELECT h, id FROM pg.p WHERE h IS NOT NULL ORDER BY id LIMIT 5) x ON x.h = h.id",
    "SELECT count(*), stddev(1) FROM pg.h JOIN pg.p ON h.id = p.h",
    "SELECT count(*) FROM (SELECT id FROM pg.p LIMIT 9223372036854775807 OFFSET 2990) AS x",
    "SELECT id FROM pg.p ORDER BY amount DESC, id LIMIT 9223372036854775807 OFFSET 2990",
    // Joins.
    "SELECT h.id, p.id FROM pg.h JOIN pg.p ON h.id = p.h WHERE p.id < 30",
    "SELECT h.id, p.amount FROM pg.h JOIN pg.p ON h.id = p.h AND p.amount > 2990",
    "SELECT h.id, p.id FROM pg.h LEFT JOIN pg.p ON h.id = p.h AND p.id < 5",
    "SELECT h.id, p.id FROM pg.h LEFT JOIN pg.p ON h.id = p.h AND h.g = 1 AND p.id < 30",
    "SELECT h.id, p.id FROM pg.h LEFT JOIN pg.p ON h.id = p.h WHERE p.id IS NULL OR p.id < 5",
    "SELECT h.id, p.id FROM pg.p RIGHT JOIN pg.h ON h.id = p.h AND p.id < 5",
    "SELECT h.id, e.id FROM pg.h FULL JOIN pg.e ON h.id = e.id",
    "SELECT a.id FROM pg.h a WHERE EXISTS (SELECT 1 FROM pg.p WHERE p.h = a.id AND p.amount > a.g)",
    "SELECT a.id FROM pg.h a WHERE NOT EXISTS (SELECT 1 FROM pg.p WHERE p.h = a.g)",
    "SELECT h.id FROM pg.h WHERE g IN (SELECT h FROM pg.p WHERE id < 20)",
    "SELECT h.id FROM pg.h WHERE g NOT IN (SELECT h FROM pg.p WHERE id < 20)",
    "SELECT h.id FROM pg.h WHERE g NOT IN (SELECT h FROM pg.p WHERE id < 2)",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.t = b.t",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.i = b.i",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.t = b.i",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.nd = b.nd",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.ch = b.ch",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.f = b.f",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.d = b.d AND a.n <= b.n",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.u = b.u AND a.id <> b.id",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.g IS NOT DISTINCT FROM b.g",
    "SELECT a.id, b.id FROM pg.h a JOIN pg.h b ON a.n = b.wide",
    "SELECT h.g, count(*), sum(p.amount) FROM pg.h JOIN pg.p ON h.id = p.h GROUP BY h.g",
    "SELECT h.t, count(p.id), min(p.amount) FROM pg.h LEFT JOIN pg.p ON h.id = p.h GROUP BY h.t",
    "SELECT count(*) FROM pg.h a JOIN pg.h b ON a.id = b.g JOIN pg.p ON p.h = b.id",
    "SELECT h.id, x.s FROM pg.h JOIN (SELECT h, sum(amount) AS s FROM pg.p GROUP BY h) x ON x.h = h.id",
    "SELECT id FROM pg.p WHERE amount = (SELECT max(amount) FROM pg.p)",
    "SELECT id FROM pg.p a WHERE amount > (SELECT avg(amount) FROM pg.p b WHERE b.t = a.t) AND id > 2990",
    "SELECT count(*) FROM pg.h a JOIN pg.h b ON a.id = b.id AND random() >= 0",
    "SELECT t, row_number() OVER (ORDER BY t) FROM (SELECT DISTINCT t FROM pg.h) AS x",
    "SELECT t FROM pg.h UNION ALL SELECT t FROM pg.p WHERE id < 3",
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_depend_on_where_operators_run() {
    let mut wrong = Vec::new();
    for policy in [CutPolicy::Always, CutPolicy::ByCost] {
        let bank = Bank::open(policy).await;
        let (on, off) = (bank.session("auto"), bank.session("none"));
        for sql in QUESTIONS {
            let (got, want) = (answer(&on, sql).await, answer(&off, sql).await);
            if got != want || want.is_err() {
                wrong.push(format!("{policy:?} {sql}\n  {got:?}\n  {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_fails_when_it_is_computed_with() {
    let bank = Bank::open(CutPolicy::Always).await;
    let (on, off) = (bank.session("auto"), bank.session("none"));
    for sql in [
        "SELECT min(d) FROM pg.odd",
        "SELECT max(d) FROM pg.odd",
        "SELECT count(d) FROM pg.odd",
        "SELECT min(ts) FROM pg.odd WHERE g = 1",
        "SELECT max(ts) FROM pg.odd WHERE g = 1",
        "SELECT sum(n) FROM pg.odd",
        "SELECT min(n) FROM pg.odd",
        "SELECT max(n) FROM pg.odd",
        "SELECT avg(n) FROM pg.odd",
        "SELECT count(DISTINCT n) FROM pg.odd",
        "SELECT min(tm), max(tm) FROM pg.odd",
        "SELECT d, count(*) FROM pg.odd GROUP BY d",
        "SELECT g, sum(n) FROM pg.odd GROUP BY g HAVING sum(n) < 10",
        "SELECT count(*) FROM (SELECT d, max(n) AS m FROM pg.odd GROUP BY d) AS x WHERE m < 10",
        "SELECT sum(CASE WHEN n > 1 THEN 0 ELSE n END) FROM pg.odd",
    ] {
        let (got, want) = (answer(&on, sql).await, answer(&off, sql).await);
        assert_eq!((&got, &want), (&Err(ErrorCode::Data), &Err(ErrorCode::Data)), "{sql}");
    }
    // Only what the filter keeps is computed with.
    let good = "SELECT g, min(d), sum(n) FROM pg.odd WHERE id = 2 GROUP BY g";
    let rows = answer(&on, good).await.expect("nothing is wrong with it");
    assert_eq!(rows[0], "| 1 | 2024-01-01 | 1.00 |");
    // An overflow is an error and never another number.
    for sql in ["SELECT sum(v) FROM pg.huge", "SELECT sum(n) FROM pg.huge"] {
        assert!(scans(&on, sql).await.contains("sum("), "{sql}");
        assert_eq!(answer(&on, sql).await, Err(ErrorCode::Data), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_and_cheaper_goes() {
    let bank = Bank::open(CutPolicy::ByCost).await;
    let on = bank.session("auto");
    insta::assert_snapshot!(
        scans(&on, "SELECT t, count(*), sum(amount * (1 - rate)), avg(rate) FROM pg.p WHERE id > 5 GROUP BY t HAVING count(*) > 3").await,
        @r#"remote=[COPY (SELECT c0, c1, c2, c3 FROM (SELECT c0 AS c0, CAST(count(*) AS int8) AS c1, CAST(sum(((CASE WHEN "c1" <> 'NaN'::numeric THEN "c1" ELSE CAST('column amount holds ' || "c1"::text || ', which Arrow has not' AS numeric) END) * ('1'::numeric - (CASE WHEN "c2" <> 'NaN'::numeric THEN "c2" ELSE CAST('column rate holds ' || "c2"::text || ', which Arrow has not' AS numeric) END)))) AS numeric(38,4)) AS c2, CAST((div(sum((CASE WHEN "c2" <> 'NaN'::numeric THEN "c2" ELSE CAST('column rate holds ' || "c2"::text || ', which Arrow has not' AS numeric) END)) * '1000000'::numeric, count((CASE WHEN "c2" <> 'NaN'::numeric THEN "c2" ELSE CAST('column rate holds ' || "c2"::text || ', which Arrow has not' AS numeric) END))) * '0.000001'::numeric) AS numeric(19,6)) AS c3 FROM (SELECT "t" AS c0, "amount" AS c1, "rate" AS c2 FROM "public"."p" WHERE "id" > 5) AS t GROUP BY 1) AS t WHERE "c1" > 3) TO STDOUT (FORMAT BINARY)]"#
    );
    insta::assert_snapshot!(
        scans(&on, "SELECT id, t FROM pg.p ORDER BY t DESC, id LIMIT 3 OFFSET 1").await,
        @r#"remote=[COPY (SELECT c0, c1 FROM (SELECT "id" AS c0, "t" AS c1 FROM "public"."p") AS t ORDER BY "c1" DESC NULLS FIRST, "c0" ASC NULLS LAST LIMIT 4) TO STDOUT (FORMAT BINARY)], dynamic_filters=[DynamicFilter [ empty ]]"#
    );
    insta::assert_snapshot!(
        scans(&on, "SELECT h.id, p.amount FROM pg.h JOIN pg.p ON h.id = p.h AND p.rate < h.n WHERE p.id < 100 AND h.id = 1").await,
        @r#"remote=[COPY (SELECT c0 AS c0, c3 AS c1 FROM (SELECT c0, c1, c2, c3, c4 FROM (SELECT "id" AS c0, "n" AS c1 FROM "public"."h" WHERE "id" = 1) AS l INNER JOIN (SELECT "h" AS c2, "amount" AS c3, "rate" AS c4 FROM "public"."p" WHERE "id" < 100 AND "h" = 1) AS r ON "c0" = "c2" AND "c4" < "c1") AS t) TO STDOUT (FORMAT BINARY)]"#
    );
    insta::assert_snapshot!(
        scans(&on, "SELECT h.g, count(p.id) FROM pg.h LEFT JOIN pg.p ON h.id = p.h AND p.t = 'a' GROUP BY h.g").await,
        @r#"remote=[COPY (SELECT c0 AS c0, CAST(count("c1") AS int8) AS c1 FROM (SELECT c1 AS c0, c2 AS c1 FROM (SELECT c0, c1, c2, c3 FROM (SELECT "id" AS c0, "g" AS c1 FROM "public"."h") AS l LEFT JOIN (SELECT "id" AS c2, "h" AS c3 FROM "public"."p" WHERE "t" = 'a'::text) AS r ON "c0" = "c3") AS t) AS t GROUP BY 1) TO STDOUT (FORMAT BINARY)]"#
    );
    insta::assert_snapshot!(
        scans(&on, "SELECT count(*) FROM pg.p WHERE NOT EXISTS (SELECT 1 FROM pg.h WHERE h.id = p.h)").await,
        @r#"remote=[COPY (SELECT CAST(count(*) AS int8) AS c0 FROM (SELECT  FROM (SELECT c0 FROM (SELECT "h" AS c0 FROM "public"."p") AS l WHERE NOT EXISTS (SELECT FROM (SELECT "id" AS c1 FROM "public"."h") AS r WHERE "c0" = "c1")) AS t) AS t) TO STDOUT (FORMAT BINARY)]"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_has_its_reason() {
    let bank = Bank::open(CutPolicy::Always).await;
    let on = bank.session("auto");
    for (sql, reason) in [
        ("SELECT sum(f) FROM pg.h", "sum() of a floating-point number is computed here"),
        ("SELECT avg(g) FROM pg.h", "avg() of a floating-point number is computed here"),
        ("SELECT f, count(*) FROM pg.h GROUP BY f", "takes other floating-point numbers for equal"),
        ("SELECT nd, count(*) FROM pg.h GROUP BY nd", "is not compared at the source"),
        ("SELECT ch, count(*) FROM pg.h GROUP BY ch", "ignores trailing blanks"),
        ("SELECT max(loose) FROM pg.h", "is not compared at the source"),
        ("SELECT min(u) FROM pg.h", "a uuid"),
        ("SELECT a.id FROM pg.h a FULL JOIN pg.h b ON a.id = b.g", "a Full join"),
        ("SELECT a.id FROM pg.h a JOIN pg.h b ON a.f = b.f", "floating-point numbers for equal"),
        ("SELECT id FROM pg.h WHERE g NOT IN (SELECT h FROM pg.p)", "NOT IN with NULLs"),
        ("SELECT id FROM pg.h ORDER BY f LIMIT 2", "floating-point numbers for equal"),
        ("SELECT g, count(*) FROM pg.h GROUP BY ROLLUP (g)", "grouping sets"),
        ("SELECT stddev(g) FROM pg.h", "stddev"),
    ] {
        let scans = scans(&on, sql).await;
        assert!(scans.contains("kept_here=[") && scans.contains(reason), "{sql}:\n{scans}");
    }
    let by_cost = Bank::open(CutPolicy::ByCost).await;
    let on = by_cost.session("auto");
    let every_row = "SELECT id, max(amount) FROM pg.p GROUP BY id";
    assert!(scans(&on, every_row).await.contains("would not be cheaper at the source"));
    let multiplied = "SELECT a.id, b.id FROM pg.p a JOIN pg.p b ON a.t = b.t";
    assert!(scans(&on, multiplied).await.contains("would not be cheaper at the source"));
    let off = bank.session("none");
    let none = scans(&off, "SELECT t, count(*) FROM pg.p GROUP BY t LIMIT 1").await;
    assert_eq!(none, r#"remote=[COPY (SELECT "t" FROM "public"."p") TO STDOUT (FORMAT BINARY)]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_is_expected_again() {
    let bank = Bank::open(CutPolicy::Always).await;
    let on = bank.session("auto");
    let estimated = async |sql: &str| {
        let batches = query(&on, &format!("EXPLAIN {sql}")).await.expect("plans");
        let plan = pretty_format_batches(&batches).expect("printable").to_string();
        let (_, after) = plan.split_once("estimated_rows=").expect("a remote scan");
        after.split(',').next().unwrap_or_default().to_owned()
    };
    // Seven of eight rows are taken for a quarter of a third.
    let groups = "SELECT h, t, count(*) FROM pg.p WHERE id > 5 GROUP BY h, t HAVING count(*) > 1";
    let before = estimated(groups).await;
    // Without the names of the columns.
    let rows = answer(&on, groups).await.expect("groups").len() - 1;
    assert_ne!(before, format!("~{rows}"), "it was right before");
    assert_eq!(estimated(groups).await, format!("~{rows}"));
    // What is not read to its end says nothing.
    let some = "SELECT h, t, count(*) FROM pg.p WHERE id > 6 GROUP BY h, t HAVING count(*) > 1";
    let request = Request { sql: some.to_owned(), ..Request::default() };
    drop(on.plan(request).await.expect("plans").run().expect("runs"));
    assert_eq!(estimated(some).await, before);
    // Another question is another.
    let other = "SELECT h, t, count(*) FROM pg.p WHERE id > 5 GROUP BY h, t HAVING count(*) > 2";
    assert_eq!(estimated(other).await, before);
}

//! The keys a join has collected go to the source of its other side.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use synoptic_catalog::Host;
use synoptic_engine::{Engine, EngineConfig, Receipt, Request};
use synoptic_source::Source;
use synoptic_tests::postgres::PostgresServer;
use synoptic_types::{SourceName, SystemClock};
use tempfile::TempDir;
use tokio::time::timeout;

/// Two PostgreSQL databases `bank` and `desk`, one SQLite file `notes`, and files in `lake`, which
/// has none at first.
struct Three {
    _server: Arc<PostgresServer>,
    folder: TempDir,
    engine: Arc<Engine>,
}

fn open(connector: &str, name: &str, options: Value) -> Arc<dyn Source> {
    let Value::Object(options): Value = options else { panic!("options are a table") };
    let options: Map<String, Value> = options;
    synoptic_connectors::open(connector, SourceName::new(name), options, Path::new("/"))
        .expect("the options are right")
}

impl Three {
    async fn new(bank: &str, desk: &str, notes: &str) -> Self {
        let server = PostgresServer::shared();
        let mut sources = Vec::new();
        for (name, setup) in [("bank", bank), ("desk", desk)] {
            let database = server.create_database().await;
            let client = server.client(&database).await;
            client.batch_execute(setup).await.expect("the tables are made");
            client.batch_execute("ANALYZE").await.expect("they are counted");
            sources.push(open(
                "postgres",
                name,
                json!({
                    "url": server.url(&database),
                    "max_partitions": 3,
                    "min_partition_size": "256kB",
                }),
            ));
        }
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("notes.db");
        let database = rusqlite::Connection::open(&path).expect("a new file");
        database.execute_batch(notes).expect("valid SQL");
        database.execute_batch("ANALYZE").expect("it is counted");
        sources.push(open("sqlite", "notes", json!({ "path": path })));
        let lake = folder.path().join("lake");
        std::fs::create_dir(&lake).expect("a folder");
        sources.push(open("files", "lake", json!({ "location": lake })));
        let config = EngineConfig { target_partitions: 3, ..EngineConfig::default() };
        let engine = Engine::new(config, Host::new(sources), Arc::new(SystemClock));
        Self { _server: server, folder, engine: engine.expect("an engine") }
    }

    /// Writes what `sql` answers to the Parquet file of `lake.name`.
    async fn export(&self, sql: &str, name: &str) {
        let batches = self.batches(sql, &[]).await;
        let path = self.folder.path().join("lake").join(format!("{name}.parquet"));
        let file = std::fs::File::create(path).expect("a new file");
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10_000));
        let schema = batches.first().expect("there are rows").schema();
        let writer = ArrowWriter::try_new(file, schema, Some(properties.build()));
        let mut writer = writer.expect("the types fit");
        for batch in &batches {
            writer.write(batch).expect("written");
        }
        writer.close().expect("closed");
    }

    async fn batches(&self, sql: &str, options: &[(&str, &str)]) -> Vec<RecordBatch> {
        let overrides = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let request =
            Request { sql: sql.to_owned(), overrides: overrides.collect(), ..Request::default() };
        let work = async {
            let planned = self.engine.session("test").plan(request).await?;
            planned.run()?.try_collect::<Vec<RecordBatch>>().await
        };
        timeout(Duration::from_secs(30), work)
            .await
            .unwrap_or_else(|_| panic!("it hangs: {sql}"))
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn run(&self, sql: &str, options: &[(&str, &str)]) -> (Vec<String>, Receipt) {
        let batches = self.batches(sql, options).await;
        let latest = self.engine.queries().into_iter().next().expect("it is remembered");
        (lines(&batches), latest.receipt)
    }

    async fn rows_read(&self, sql: &str, options: &[(&str, &str)]) -> Vec<(String, u64, String)> {
        let (_, receipt) = self.run(sql, options).await;
        let mut scans: Vec<_> = receipt
            .scans
            .into_iter()
            .map(|scan| (format!("{}.{}", scan.source, scan.table), scan.rows, scan.remote_text))
            .collect();
        scans.sort();
        scans
    }
}

/// The rows as text, sorted.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).expect("it can be shown"))
            .collect();
        lines.extend((0..batch.num_rows()).map(|row| {
            columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|")
        }));
    }
    lines.sort();
    lines
}

const OFF: [&[(&str, &str)]; 2] = [&[("dynamic_filters", "off")], &[("pushdown", "none")]];

const BANK: &str = "\
    CREATE TABLE trades AS SELECT i::bigint AS id, (i % 2000)::int AS account, \
        'S' || i % 500 AS symbol, repeat('x', 60) AS pad FROM generate_series(1, 40000) i;";
const DESK: &str = "\
    CREATE TABLE accounts AS SELECT i::int AS id, (i % 50)::bigint AS desk, 'owner ' || i AS owner \
        FROM generate_series(0, 1999) i; \
    CREATE TABLE everybody AS SELECT i::int AS id FROM generate_series(0, 1999) i; \
    CREATE TABLE few AS SELECT i::int AS account FROM generate_series(1, 3) i;";
const NOTES: &str = "\
    CREATE TABLE desks (id INTEGER PRIMARY KEY, name TEXT NOT NULL); \
    INSERT INTO desks SELECT value, 'desk ' || value FROM \
        (WITH RECURSIVE n (value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n LIMIT 50) \
         SELECT value FROM n); \
    CREATE TABLE remarks (trade INTEGER NOT NULL, symbol TEXT NOT NULL, text TEXT NOT NULL); \
    INSERT INTO remarks SELECT value, 'S' || (value % 500), 'about ' || value FROM \
        (WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 40000) \
         SELECT value FROM n);";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_rows_with_a_key_leave_the_source() {
    let three = Three::new(BANK, DESK, NOTES).await;
    for (sql, table, all, wanted, text) in [
        // From SQLite to PostgreSQL, through a cast of the key, and by text.
        (
            "SELECT a.id FROM notes.desks d JOIN desk.accounts a ON a.desk = d.id \
             WHERE d.name = 'desk 7'",
            "desk.public.accounts",
            2000,
            40,
            "\"desk\" IN (7)",
        ),
        (
            "SELECT t.id FROM desk.few f JOIN bank.trades t ON t.account = f.account",
            "bank.public.trades",
            40_000,
            60,
            "\"account\" IN (1, 2, 3)",
        ),
        // From PostgreSQL to SQLite.
        (
            "SELECT r.text FROM desk.accounts a JOIN notes.remarks r ON r.trade = a.id \
             WHERE a.owner IN ('owner 5', 'owner 6')",
            "notes.main.remarks",
            40_000,
            2,
            "\"trade\" IN (5, 6)",
        ),
        (
            "SELECT t.id FROM bank.trades t WHERE t.account IN \
             (SELECT id FROM desk.accounts WHERE owner = 'owner 9')",
            "bank.public.trades",
            40_000,
            20,
            "\"account\" IN (9)",
        ),
        (
            "SELECT t.id FROM notes.remarks r JOIN bank.trades t \
             ON t.id = r.trade AND t.symbol = r.symbol WHERE r.text IN ('about 17', 'about 517')",
            "bank.public.trades",
            40_000,
            2,
            "\"symbol\" IN ('S17'::text)",
        ),
    ] {
        let find = |scans: Vec<(String, u64, String)>| {
            let found = scans.into_iter().find(|(name, ..)| name == table);
            found.unwrap_or_else(|| panic!("{table} was not read: {sql}"))
        };
        let (answer, _) = three.run(sql, &[]).await;
        let (_, rows, sent) = find(three.rows_read(sql, &[]).await);
        assert_eq!(rows, wanted, "{sql}: {sent}");
        assert!(sent.contains(text), "{sql}: {sent}");
        for off in OFF {
            let (_, rows, sent) = find(three.rows_read(sql, off).await);
            assert_eq!(rows, all, "{sql}");
            assert!(!sent.contains(" IN ("), "{sent}");
            assert_eq!(three.run(sql, off).await.0, answer, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_go_into_what_a_source_runs_as_a_whole() {
    let bank = format!(
        "{BANK} CREATE TABLE sectors AS SELECT 'S' || i AS symbol, i % 5 AS sector \
         FROM generate_series(0, 499) i;"
    );
    let desk = format!(
        "{DESK} CREATE TABLE symbols AS SELECT 'S' || i AS symbol \
                        FROM generate_series(1, 4) i;"
    );
    // By an index SQLite knows how many symbols there are.
    let notes = format!("{NOTES} CREATE INDEX by_symbol ON remarks (symbol);");
    let three = Three::new(&bank, &desk, &notes).await;
    for (sql, table, wanted, texts) in [
        // Below the groups of the key.
        (
            "SELECT a.account, a.n, a.last FROM desk.few f JOIN (SELECT account, count(*) AS n, \
             max(id) AS last FROM bank.trades GROUP BY account) a ON a.account = f.account",
            "bank.public.trades",
            3,
            &["WHERE \"account\" IN (1, 2, 3)) AS t GROUP BY 1"][..],
        ),
        // Through expressions, past a condition on groups.
        (
            "SELECT a.account, a.x FROM desk.few f JOIN (SELECT account, sum(id) + 1 AS x \
             FROM bank.trades GROUP BY account HAVING count(*) > 5) a ON a.account = f.account",
            "bank.public.trades",
            3,
            &["WHERE \"account\" IN (1, 2, 3)"][..],
        ),
        // To the side of a join that the key is of.
        (
            "SELECT a.account, a.n FROM desk.few f JOIN (SELECT t.account, count(t.pad) AS n \
             FROM bank.trades t JOIN bank.sectors s ON s.symbol = t.symbol WHERE s.sector = 1 \
             GROUP BY t.account) a ON a.account = f.account",
            "bank.public.trades",
            1,
            &["WHERE \"account\" IN (1, 2, 3)", "INNER JOIN"][..],
        ),
        // Not below the groups that it is not a key of.
        (
            "SELECT a.account FROM desk.few f JOIN (SELECT account, count(*) AS n, max(id) AS m \
             FROM bank.trades GROUP BY account) a ON a.m = f.account + 39000",
            "bank.public.trades",
            3,
            &["GROUP BY 1) AS t WHERE \"c1\" IN (39001, 39002, 39003)"][..],
        ),
        // SQLite, by text.
        (
            "SELECT r.symbol, r.n FROM desk.symbols s JOIN (SELECT symbol, count(*) AS n \
             FROM notes.remarks GROUP BY symbol) r ON r.symbol = s.symbol",
            "notes.main.remarks",
            4,
            &["WHERE \"symbol\" IN ('S1', 'S2', 'S3', 'S4')) AS t GROUP BY 1"][..],
        ),
    ] {
        let find = |scans: Vec<(String, u64, String)>| {
            let found = scans.into_iter().find(|(name, ..)| name.contains(table));
            found.unwrap_or_else(|| panic!("{table} was not read: {sql}"))
        };
        let (answer, _) = three.run(sql, &[]).await;
        let (_, rows, sent) = find(three.rows_read(sql, &[]).await);
        assert_eq!(rows, wanted, "{sql}: {sent}");
        for text in texts {
            assert!(sent.contains(text), "{sql}: {text} is not in {sent}");
        }
        for off in OFF {
            assert_eq!(three.run(sql, off).await.0, answer, "{sql}");
        }
    }
    // The first few are the first few of all.
    for sql in [
        "SELECT t.id FROM desk.few f JOIN (SELECT id, account FROM bank.trades ORDER BY id \
         LIMIT 2) t ON t.account = f.account",
        "SELECT t.n FROM desk.few f JOIN (SELECT account, count(*) AS n FROM bank.trades \
         GROUP BY account ORDER BY account DESC LIMIT 5) t ON t.account = f.account",
    ] {
        let (answer, _) = three.run(sql, &[]).await;
        for off in OFF {
            assert_eq!(three.run(sql, off).await.0, answer, "{sql}");
        }
    }
}

/// Columns of one name on both sides of a join, which DataFusion's filters take for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_of_one_name_are_told_apart() {
    let bank = "CREATE TABLE a AS SELECT i::int AS id, (6000 - i)::int AS x \
                FROM generate_series(1, 6000) i;";
    let desk = "CREATE TABLE b AS SELECT i::int AS id, i::int AS y FROM generate_series(1, 5000) i; \
                CREATE TABLE c AS SELECT i::int AS k, i::int AS id FROM generate_series(1, 3) i;";
    let notes = "CREATE TABLE d (id INTEGER, k INTEGER); INSERT INTO d VALUES (10, 1), (20, 2);";
    let three = Three::new(bank, desk, notes).await;
    for sql in [
        "SELECT a.id, b.id FROM bank.a JOIN desk.b ON a.x = b.y JOIN notes.d ON b.id = d.k",
        "SELECT a.id, b.id, d.id FROM bank.a JOIN desk.b ON a.x = b.y JOIN notes.d ON b.id = d.k",
        "SELECT a.id, b.id, d.id, a.x FROM bank.a LEFT JOIN desk.b ON a.x = b.y \
         JOIN notes.d ON a.id = d.k",
        "SELECT b.id FROM desk.b JOIN notes.d ON b.id = d.k \
         WHERE EXISTS (SELECT 1 FROM bank.a WHERE a.x = b.y AND a.id <> b.id)",
        "SELECT b.id FROM notes.d JOIN desk.b ON b.id = d.k \
         WHERE b.y IN (SELECT x FROM bank.a WHERE a.id > 100)",
        "SELECT one.id, other.id FROM desk.b one JOIN desk.b other ON one.y = 5001 - other.y \
         JOIN notes.d ON other.id = d.k",
        "SELECT a.id, b.id FROM bank.a JOIN desk.b ON a.x = b.y ORDER BY b.id LIMIT 3",
        "SELECT max(b.id), min(a.id) FROM bank.a JOIN desk.b ON a.x = b.y",
        "SELECT q.id, q.n, d.k FROM (SELECT b.id, a.id AS other, count(*) AS n FROM bank.a \
         JOIN desk.b ON a.x = b.y GROUP BY a.id, b.id) q JOIN notes.d ON q.id = d.k",
    ] {
        let (answer, _) = three.run(sql, OFF[1]).await;
        assert!(!answer.is_empty(), "{sql}");
        assert_eq!(three.run(sql, &[]).await.0, answer, "{sql}");
        assert_eq!(three.run(sql, OFF[0]).await.0, answer, "{sql}");
    }
}

/// Long lists are written otherwise, and hold whatever a text can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_mean_what_short_ones_do() {
    let rows = "CREATE TABLE t AS SELECT i::bigint AS id, i::smallint AS s, i - 50 AS i, \
         (CASE i % 9 WHEN 0 THEN 'NULL' WHEN 1 THEN '{' || i WHEN 2 THEN '\"' || i || '\"' \
          WHEN 3 THEN E'\\\\' || i WHEN 4 THEN 'a,' || i WHEN 5 THEN '' WHEN 6 THEN '''' || i \
          WHEN 7 THEN ' ' || i || '}' ELSE 'é' || i END) AS v, \
         (i - 60)::numeric(12, 2) / 8 AS n, DATE '1999-12-31' + i AS d, \
         md5(i::text)::uuid AS u, TIMESTAMP '2000-01-01' + i * interval '1 hour' AS ts \
         FROM generate_series(1, 200) i; \
         ALTER TABLE t ALTER n TYPE numeric(12, 2);";
    let bank = format!(
        "{rows} CREATE TABLE big AS SELECT t.* FROM t, generate_series(1, 20); \
         INSERT INTO big SELECT 1000 + i, -i, 1000 + i, 'x' || i, 1000 + i, DATE '2010-01-01' + i, \
         md5((1000 + i)::text)::uuid, TIMESTAMP '2010-01-01' + i * interval '1 hour' \
         FROM generate_series(1, 5000) i;"
    );
    let three = Three::new(&bank, rows, "CREATE TABLE n (i INTEGER)").await;
    for (column, native) in [
        ("id", Some("int8")),
        ("s", Some("int2")),
        ("i", Some("int4")),
        ("v", Some("text")),
        ("n", Some("numeric")),
        ("d", Some("date")),
        ("u", Some("uuid")),
        ("ts", None),
    ] {
        let sql = format!("SELECT b.id FROM desk.t a JOIN bank.big b ON b.{column} = a.{column}");
        let (answer, _) = three.run(&sql, OFF[1]).await;
        assert!(answer.len() >= 4000, "{sql}");
        let (with, receipt) = three.run(&sql, &[]).await;
        assert_eq!(with, answer, "{sql}");
        let sent = receipt.scans.iter().find(|scan| scan.table.contains("big"));
        let sent = &sent.expect("it is read").remote_text;
        let text = match native {
            Some(native) => format!("}}'::{native}[])"),
            None => " IN (".to_owned(),
        };
        assert!(sent.contains(&text), "{sql}: {sent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_go_on_from_source_to_source() {
    let three = Three::new(BANK, DESK, NOTES).await;
    let sql = "SELECT t.id FROM notes.desks d JOIN desk.accounts a ON a.desk = d.id \
               JOIN bank.trades t ON t.account = a.id WHERE d.name = 'desk 7'";
    let on = three.rows_read(sql, &[]).await;
    let rows: Vec<_> = on.iter().map(|(name, rows, _)| (name.as_str(), *rows)).collect();
    let expected =
        [("bank.public.trades", 800), ("desk.public.accounts", 40), ("notes.main.desks", 1)];
    assert_eq!(rows, expected, "{on:?}");
    let (answer, _) = three.run(sql, &[]).await;
    assert_eq!(answer.len(), 800);
    assert_eq!(three.run(sql, OFF[0]).await.0, answer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_used_and_what_is_not_is_shown() {
    let ids = |table: &str, rows: u32| {
        format!("CREATE TABLE {table} AS SELECT i::bigint AS id FROM generate_series(1, {rows}) i;")
    };
    let bank = ids("wide", 300_000);
    let desk = [ids("lots", 110_000), ids("many", 12_000)].concat();
    let three = Three::new(&format!("{BANK}{bank}"), &format!("{DESK}{desk}"), NOTES).await;
    let explain = async |sql: &str| {
        let (lines, _) = three.run(&format!("EXPLAIN ANALYZE {sql}"), &[]).await;
        lines.join("\n")
    };
    let shown =
        explain("SELECT t.id FROM desk.few f JOIN bank.trades t ON t.account = f.account").await;
    for part in
        ["join_keys=[account: 3 keys]", "sent=[/* synoptic", "join_keys_wait=", "join_keys=3"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    // Keys that keep everything cost more than they save.
    let all = "SELECT t.id FROM desk.everybody e JOIN bank.trades t ON t.account = e.id";
    let shown = explain(all).await;
    assert!(shown.contains("account not used: it would keep about 100 %"), "{shown}");
    let read = three.rows_read(all, &[]).await;
    assert_eq!(read[0].1, 40_000, "{read:?}");
    // Many keys are one array for PostgreSQL, and too many for SQLite.
    let many = "SELECT t.id FROM desk.many m JOIN bank.wide t ON t.id = m.id * 25";
    let read = three.rows_read(many, &[]).await;
    assert_eq!((read[0].0.as_str(), read[0].1), ("bank.public.wide", 12_000));
    assert!(read[0].2.contains("\"id\" = ANY ('{25,50,75,"), "{read:?}");
    let shown = explain(many).await;
    assert!(shown.contains("join_keys=[id: 12000 keys]"), "{shown}");
    let many = "SELECT r.text FROM desk.many m JOIN notes.remarks r ON r.trade = m.id";
    let shown = explain(many).await;
    assert!(shown.contains("trade not used: no list of keys"), "{shown}");
    // Where they cost more than the rows, they stay.
    let costly = "SELECT t.id FROM desk.many m JOIN bank.trades t ON t.id = m.id";
    let shown = explain(costly).await;
    assert!(shown.contains("id not used: it would save less than it costs"), "{shown}");
    // Files take them to skip row groups, and rows where few are left.
    three.export("SELECT id, account, symbol, pad FROM bank.trades ORDER BY id", "trades").await;
    let few = "SELECT t.id FROM desk.few f JOIN lake.trades t ON t.account = f.account \
               WHERE t.pad IS NOT NULL";
    let shown = explain(few).await;
    assert!(shown.contains("keys of joins, before the rest is decoded: account"), "{shown}");
    assert_eq!(three.rows_read(few, &[]).await[1].1, 60);
    // Of too many keys, the range is sent when it is known to be narrow.
    let more = "SELECT t.id FROM desk.lots l JOIN bank.wide t ON t.id = l.id";
    let shown = explain(more).await;
    assert!(shown.contains("join_keys=[id: a range]"), "{shown}");
    assert_eq!(three.rows_read(more, &[]).await[0].1, 110_000);
    // No keys, no question.
    let none = "SELECT t.id FROM desk.accounts e JOIN bank.trades t ON t.account = e.id \
                WHERE e.owner = 'nobody'";
    let read = three.rows_read(none, &[]).await;
    assert_eq!((read[0].0.as_str(), read[0].1), ("bank.public.trades", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_that_are_complete_only_at_the_end_are_not_waited_for() {
    let three = Three::new(BANK, DESK, NOTES).await;
    for (sql, expected) in [
        ("SELECT id FROM bank.trades ORDER BY id DESC LIMIT 2", "39999 40000"),
        ("SELECT max(id) FROM bank.trades", "40000"),
        ("SELECT min(account) FROM bank.trades", "0"),
        ("SELECT max(trade) FROM notes.remarks", "40000"),
        ("SELECT trade FROM notes.remarks ORDER BY trade LIMIT 1", "1"),
        (
            "SELECT t.id FROM desk.few f JOIN bank.trades t ON t.account = f.account \
             ORDER BY t.id LIMIT 2",
            "1 2",
        ),
        ("SELECT max(t.id) FROM desk.few f JOIN bank.trades t ON t.account = f.account", "38003"),
        (
            "SELECT count(*) FROM (SELECT account, max(id) AS last FROM bank.trades \
             GROUP BY account) t JOIN desk.few f ON f.account = t.account",
            "3",
        ),
        (
            "SELECT count(*) FROM (SELECT id, account FROM bank.trades ORDER BY id LIMIT 10) t \
             JOIN desk.few f ON f.account = t.account",
            "3",
        ),
        (
            "SELECT count(*) FROM (SELECT id, account FROM bank.trades LIMIT 10) t \
             LEFT JOIN desk.few f ON f.account = t.account",
            "10",
        ),
        (
            "SELECT count(*) FROM (SELECT account FROM bank.trades UNION ALL \
             SELECT id FROM desk.accounts) u JOIN desk.few f ON f.account = u.account",
            "63",
        ),
    ] {
        let started = std::time::Instant::now();
        assert_eq!(three.run(sql, &[]).await.0.join(" "), expected, "{sql}");
        assert!(started.elapsed() < Duration::from_secs(8), "{sql}: {:?}", started.elapsed());
    }
}

/// One table of everything that compares differently somewhere.
const HOSTILE: &str = "\
    CREATE TABLE t (id int, s smallint, b bigint, f float8, r real, n numeric(12,2), c char(5), \
        v text, l text COLLATE \"en_US\", d date, ts timestamp, tz timestamptz, u uuid, y bytea, \
        o bool); \
    INSERT INTO t VALUES \
        (1, 1, 9223372036854775807, 'NaN', 'NaN', 0.10, 'a', 'a', 'a', '1969-12-31', \
         '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00', \
         '00000000-0000-0000-0000-000000000001', '\\x00ff', true), \
        (2, -32768, -9223372036854775808, '-0.0', '-0.0', -0.10, 'a ', 'a ', 'A', '0001-01-01', \
         '0001-01-01', '2026-03-29 01:30:00+00', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '', false), \
        (3, 32767, 0, '0.0', '0.0', 9999999999.99, '', '', 'z', '2024-02-29', \
         '2024-02-29 12:00', '2024-02-29 12:00+05', NULL, '\\x27', NULL), \
        (4, 0, 4, 'Infinity', '-Infinity', 0, 'it''s', 'it''s \\ \"q\"', 'é', '9999-12-31', \
         '2026-11-23', '2026-11-23 00:00+00', '12345678-1234-1234-1234-123456789abc', '\\x5c', true), \
        (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_the_same_with_and_without() {
    let hostile = HOSTILE.replace(" COLLATE \"en_US\"", "");
    // The larger table has each row many times, and others.
    let bank = format!(
        "{hostile} CREATE TABLE big AS SELECT t.*, g AS n2 FROM t, generate_series(1, 100) g; \
         INSERT INTO big SELECT 1000 + i, i % 30000, i, i, i, i, 'c' || i % 90, 'v' || i, 'l' || i, \
             '2000-01-01'::date + i % 3000, '2000-01-01'::timestamp + i * interval '1 hour', \
             '2000-01-01'::timestamptz + i * interval '1 hour', NULL, NULL, NULL, i \
         FROM generate_series(1, 5000) i;"
    );
    let notes = "\
        CREATE TABLE t (id INTEGER, f REAL, v TEXT, d DATE, ts TIMESTAMP, n DECIMAL(12, 2)); \
        INSERT INTO t VALUES (1, 0.0, 'a', '1969-12-31', '1969-12-31 23:59:59.999999', '0.10'), \
            (2, -0.0, 'a ', '0001-01-01', '0001-01-01 00:00:00', '-0.10'), \
            (NULL, NULL, NULL, NULL, NULL, NULL), (4, 1e999, 'A', '9999-12-31', '2026-11-23', '0'); \
        CREATE TABLE big AS SELECT t.*, value AS n2 FROM t, (WITH RECURSIVE n (value) AS \
            (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 1000) SELECT value FROM n);";
    let notes = notes.replace(
        "CREATE TABLE big AS SELECT",
        "CREATE TABLE big (id INTEGER, f REAL, v TEXT, d DATE, ts TIMESTAMP, n DECIMAL(12, 2), \
         n2 INTEGER); INSERT INTO big SELECT",
    );
    let three = Three::new(&bank, &hostile, &notes).await;
    let columns = ["id", "s", "b", "f", "r", "n", "c", "v", "l", "d", "ts", "tz", "u", "y", "o"];
    let shared = ["id", "f", "v", "d", "ts", "n"];
    three.export("SELECT * FROM bank.big", "big").await;
    let (mut used, mut early) = (0, 0);
    for (small, big, columns) in [
        ("desk.t", "bank.big", &columns[..]),
        ("desk.t", "lake.big", &columns[..]),
        ("notes.t", "bank.big", &shared[..]),
        ("desk.t", "notes.big", &shared[..]),
    ] {
        for column in columns {
            let on = format!("ON a.{column} = b.{column}");
            let queries = [
                format!("SELECT a.id, b.n2 FROM {small} a JOIN {big} b {on}"),
                format!("SELECT a.id, b.n2 FROM {small} a JOIN {big} b {on} AND a.id = b.id"),
                format!("SELECT a.id, b.n2 FROM {small} a LEFT JOIN {big} b {on}"),
                format!("SELECT a.id, b.n2 FROM {small} a RIGHT JOIN {big} b {on}"),
                format!("SELECT a.id, b.n2 FROM {small} a FULL JOIN {big} b {on}"),
                format!("SELECT n2 FROM {big} WHERE {column} IN (SELECT {column} FROM {small})"),
                format!(
                    "SELECT n2 FROM {big} WHERE {column} NOT IN (SELECT {column} FROM {small} \
                     WHERE id IS NOT NULL)"
                ),
                format!(
                    "SELECT id FROM {small} WHERE {column} NOT IN (SELECT {column} FROM {big})"
                ),
                format!(
                    "SELECT a.id FROM {small} a WHERE NOT EXISTS (SELECT 1 FROM {big} b \
                     WHERE a.{column} = b.{column} AND b.n2 > 50)"
                ),
                format!(
                    "SELECT a.id, b.n2 FROM {small} a JOIN {big} b \
                     ON a.{column} IS NOT DISTINCT FROM b.{column}"
                ),
                format!("SELECT a.id, b.n2 FROM {small} a JOIN {big} b {on} WHERE a.id IS NULL"),
            ];
            for sql in &queries {
                let (with, receipt) = three.run(sql, &[]).await;
                used += usize::from(receipt.scans.iter().any(|s| s.remote_text.contains(" IN (")));
                let is_early = |text: &str| text.contains("before the rest is decoded");
                early += usize::from(receipt.scans.iter().any(|s| is_early(&s.remote_text)));
                let (without, _) = three.run(sql, OFF[0]).await;
                assert!(with == without, "{sql}: {} and {} rows", with.len(), without.len());
            }
        }
    }
    assert!(used > 60, "keys were sent {used} times");
    assert!(early > 30, "keys were tried on rows {early} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_no_keys_is_begun_at_once() {
    let slow = "CREATE TABLE few AS SELECT i::int AS account FROM generate_series(1, 3) i; \
                CREATE VIEW slow AS \
                SELECT 1 AS id, clock_timestamp() AS began, pg_sleep(2)::text AS slept";
    let three = Three::new(slow, slow, NOTES).await;
    // Each takes its time, and the second begins before the first has ended.
    let together = "SELECT abs(extract(epoch FROM a.began) - extract(epoch FROM b.began)) < 2 AS same \
                    FROM bank.slow a FULL JOIN desk.slow b ON b.id = a.id";
    assert_eq!(three.run(together, &[]).await.0, ["true"]);
    // A small table is sooner read than waited for.
    let small = "SELECT account FROM bank.few JOIN desk.few USING (account)";
    let shown = three.run(&format!("EXPLAIN ANALYZE {small}"), &[]).await.0.join("\n");
    assert!(shown.contains("join_keys=[a small table: read without waiting"), "{shown}");
    assert_eq!(three.run(small, &[]).await.0, ["1", "2", "3"]);
}

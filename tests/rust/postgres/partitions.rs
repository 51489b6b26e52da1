//! One table read in ranges of its pages: every row once, one state, and never stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::prelude::{col, lit};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use synoptic_engine::{Engine, EngineConfig, Request};
use synoptic_source::{BatchStream, ErrorKind, Fragment, PreparedScan, Source, TableDef};
use synoptic_types::SystemClock;
use tokio::time::timeout;

use super::{Db, Run, assert_error, open, rows, table, texts};

/// Splits as much as can be split.
fn small_ranges(more: Value) -> Value {
    let mut options = json!({ "max_partitions": 4, "min_partition_size": "8kB" });
    let (Value::Object(all), Value::Object(more)) = (&mut options, more) else {
        panic!("options are a table")
    };
    all.extend(more);
    options
}

/// About 300 pages and 20,000 rows.
const WIDE: &str = "\
    CREATE TABLE wide AS SELECT i::bigint AS id, 100::bigint AS balance, repeat('x', 80) AS pad \
        FROM generate_series(1, 20000) i; ANALYZE wide;";

async fn all_parts(run: &Run, scan: &Arc<dyn PreparedScan>) -> Vec<RecordBatch> {
    let parts = (0..scan.partitions()).map(|i| run.open_part(scan, i).try_collect::<Vec<_>>());
    let parts = timeout(Duration::from_secs(30), join_all(parts)).await.expect("it goes on");
    parts.into_iter().flat_map(|part| part.expect("it is read")).collect()
}

async fn prepare(run: &Run, fragment: Fragment) -> Arc<dyn PreparedScan> {
    run.prepare_in(fragment, 4).await
}

fn sorted(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let mut texts = texts(batches, column);
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_of_table_gives_each_row_once() {
    let fill = "INSERT INTO t SELECT i, repeat('y', 90) FROM generate_series(1, 5000) i";
    let made = "CREATE TABLE t (id int, pad text)";
    // The first half is there when the table is described and its statistics are kept.
    for (before, after, parts) in [
        (made.to_owned(), String::new(), 1),
        (format!("{made}; INSERT INTO t VALUES (1, 'a'), (2, NULL)"), String::new(), 1),
        (format!("{made}; {fill}; ANALYZE t"), String::new(), 4),
        (format!("{made}; {fill}; ANALYZE t"), format!("{fill}; {fill}; {fill}"), 4),
        (format!("{made}; {fill}; ANALYZE t"), "TRUNCATE t".to_owned(), 4),
        (format!("{made}; {fill}; ANALYZE t"), format!("TRUNCATE t; {fill}"), 4),
        (format!("{made}; {fill}; ANALYZE t"), "DELETE FROM t WHERE id <= 4000".to_owned(), 4),
        (format!("{made}; {fill}; DELETE FROM t; VACUUM t; {fill}; ANALYZE t"), String::new(), 4),
        (format!("{made}; {fill}; ANALYZE t"), "DELETE FROM t; VACUUM t".to_owned(), 4),
        (format!("{made}; {fill}; ANALYZE t"), "UPDATE t SET id = -id; VACUUM t".to_owned(), 4),
        (format!("{made}; {fill}; UPDATE t SET id = id + 1; ANALYZE t"), String::new(), 4),
        (format!("{made}; {fill}; ANALYZE t"), "VACUUM FULL t".to_owned(), 4),
        (
            format!("{made}; {fill}; ANALYZE t"),
            "ALTER TABLE t SET (fillfactor = 10); VACUUM FULL t".to_owned(),
            4,
        ),
        (
            format!("CREATE UNLOGGED TABLE t (id int, pad text); {fill}; ANALYZE t"),
            String::new(),
            4,
        ),
        (
            format!(
                "CREATE TABLE s (id int, pad text); {}; CREATE MATERIALIZED VIEW t AS \
                     SELECT * FROM s; ANALYZE t",
                fill.replace("INTO t", "INTO s")
            ),
            "INSERT INTO s VALUES (-5, 'late'); REFRESH MATERIALIZED VIEW t".to_owned(),
            4,
        ),
    ] {
        let db = Db::with_options("", small_ranges(json!({}))).await;
        for statement in before.split("; ") {
            db.execute(statement).await;
        }
        let described = db.table("t").await;
        db.source.statistics(&described).await.expect("they are read");
        for statement in after.split("; ").filter(|s| !s.is_empty()) {
            db.execute(statement).await;
        }
        // A table that was made anew has another description and other statistics.
        let run = Run::new(&db.source);
        let scan = prepare(&run, Fragment::table(described)).await;
        let case = format!("{before} | {after}");
        assert_eq!(scan.partitions(), parts, "{case}: {}", scan.remote_text());
        let found = all_parts(&run, &scan).await;
        let rows = db.client.query("SELECT id::text FROM t", &[]).await.expect("it is asked");
        let mut expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        expected.sort();
        assert!(sorted(&found, "id") == expected, "{case}: {} rows", found.len());
        drop((run, scan));
        db.until_none("state <> 'idle'").await;
    }
}

#[tokio::test]
async fn what_cannot_be_split_has_one_partition() {
    let db = Db::with_options(
        &format!(
            "{WIDE} CREATE VIEW v AS SELECT * FROM wide; \
             CREATE TABLE parent (LIKE wide) PARTITION BY RANGE (id); \
             CREATE TABLE part PARTITION OF parent DEFAULT; \
             INSERT INTO parent SELECT * FROM wide; ANALYZE parent; \
             CREATE TABLE base AS SELECT * FROM wide; ANALYZE base; \
             CREATE TABLE child () INHERITS (base); INSERT INTO child SELECT * FROM wide; \
             CREATE TABLE guarded AS SELECT * FROM wide; ANALYZE guarded; \
             ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; \
             CREATE TABLE tiny AS SELECT 1::bigint AS id; ANALYZE tiny;"
        ),
        small_ranges(json!({})),
    )
    .await;
    for (name, parts, read) in [
        ("wide", 4, 20_000),
        ("v", 1, 20_000),
        ("parent", 1, 20_000),
        ("part", 4, 20_000),
        ("base", 1, 40_000),
        ("guarded", 1, 20_000),
        ("tiny", 1, 1),
    ] {
        let run = Run::new(&db.source);
        let scan = prepare(&run, Fragment::table(db.table(name).await)).await;
        assert_eq!(scan.partitions(), parts, "{name}");
        assert_eq!(rows(&all_parts(&run, &scan).await), read, "{name}");
    }
    // A look-up by an index is not made four times, a limit is not multiplied.
    let wide = db.table("wide").await;
    let with = |filters, limit| Fragment { filters, limit, ..Fragment::table(wide.clone()) };
    for (fragment, parts, read) in [
        (with(vec![col("id").eq(lit(7_i64))], None), 1, 1),
        (with(vec![], Some(5)), 1, 5),
        (with(vec![col("id").gt(lit(10_000_i64))], None), 4, 10_000),
        (Fragment { projection: vec![], ..with(vec![], None) }, 4, 20_000),
    ] {
        let run = Run::new(&db.source);
        let scan = prepare(&run, fragment).await;
        assert_eq!(scan.partitions(), parts, "{}", scan.remote_text());
        assert_eq!(rows(&all_parts(&run, &scan).await), read, "{}", scan.remote_text());
    }
    let run = Run::new(&db.source);
    assert_eq!(run.prepare_in(Fragment::table(wide.clone()), 1).await.partitions(), 1);
    assert_eq!(run.prepare_in(Fragment::table(wide.clone()), 3).await.partitions(), 3);
    let plain = open(&db.server.url(&db.name), json!({}));
    let run = Run::new(&plain);
    let whole = prepare(&run, Fragment::table(table(&plain, "wide").await)).await;
    assert_eq!(whole.partitions(), 1, "a few hundred pages are not worth a connection");
}

#[tokio::test]
async fn the_ranges_are_shown_and_read_by_page() {
    let db = Db::with_options(WIDE, small_ranges(json!({}))).await;
    let run = Run::new(&db.source);
    let scan = run.prepare_in(Fragment::table(db.table("wide").await), 2).await;
    let text = scan.remote_text();
    let pages: i64 = db
        .client
        .query_one("SELECT pg_relation_size('wide') / 8192", &[])
        .await
        .expect("it has a size")
        .get(0);
    let half = pages / 2;
    assert!(text.contains(&format!("WHERE ctid < '({half},0)'::pg_catalog.tid")), "{text}");
    let note = format!("/* the first of 2 ctid ranges; the others begin at page {half} */");
    assert!(text.ends_with(&note), "{text}");
    let explain = format!("EXPLAIN SELECT * FROM wide WHERE ctid < '({half},0)'::pg_catalog.tid");
    let plan = db.client.query(&explain, &[]).await.expect("it is explained");
    assert!(plan[0].get::<_, String>(0).contains("Tid Range Scan"));
}

fn total(batches: &[RecordBatch]) -> i64 {
    let sums = batches.iter().map(|batch| {
        let balances = batch.column_by_name("balance").expect("it has a balance");
        balances.as_primitive::<Int64Type>().iter().flatten().sum::<i64>()
    });
    sums.sum()
}

/// Moves money from account to account until told to stop; the new versions of the rows land on
/// other pages all the time.
fn moving(db: &Db) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (server, name) = (Arc::clone(&db.server), db.name.clone());
    let task = tokio::spawn(async move {
        let writer = server.client(&name).await;
        let mut moves = 0;
        while !stopped.load(Ordering::Relaxed) {
            let (from, to) = (moves * 7919 % 20_000 + 1, moves * 104_729 % 20_000 + 1);
            let sql = format!(
                "BEGIN; UPDATE wide SET balance = balance - 7 WHERE id = {from}; \
                 UPDATE wide SET balance = balance + 7 WHERE id = {to}; COMMIT"
            );
            writer.batch_execute(&sql).await.expect("money is moved");
            moves += 1;
        }
        moves
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_ranges_of_all_scans_see_one_state() {
    let setup = format!("{WIDE} CREATE INDEX ON wide (id)");
    for connections in [1, 2, 3, 20] {
        let options = small_ranges(json!({ "max_connections": connections }));
        let db = Db::with_options(&setup, options).await;
        let (stop, writer) = moving(&db);
        let table = db.table("wide").await;
        for round in 0..8_u64 {
            let run = Run::new(&db.source);
            let first = prepare(&run, Fragment::table(table.clone())).await;
            let second = prepare(&run, Fragment::table(table.clone())).await;
            assert_eq!(first.partitions(), 4.min(connections));
            let mut one = Vec::new();
            for i in 0..first.partitions() {
                let part: Vec<_> = run.open_part(&first, i).try_collect().await.expect("read");
                one.extend(part);
                tokio::time::sleep(Duration::from_millis(round)).await;
            }
            let two = all_parts(&run, &second).await;
            assert_eq!((rows(&one), total(&one)), (20_000, 2_000_000));
            let balances = |batches: &[RecordBatch]| {
                let (ids, balances) = (texts(batches, "id"), texts(batches, "balance"));
                let mut all: Vec<_> = ids.into_iter().zip(balances).collect();
                all.sort();
                all
            };
            assert!(balances(&one) == balances(&two), "two scans saw two states");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(writer.await.expect("the writer ends") > 50);
        db.until_none("state <> 'idle'").await;
        assert!(db.sessions("true").await <= connections as i64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_ranges_end_within_a_second_and_leave_the_others() {
    // A range is several times what the sockets and we hold of it: nobody is at its end yet.
    let db = Db::with_options(
        "CREATE TABLE big AS SELECT i::bigint AS id, 1::bigint AS balance, repeat('x', 800) AS pad \
             FROM generate_series(1, 300000) i; ANALYZE big",
        small_ranges(json!({})),
    )
    .await;
    let table = db.table("big").await;
    let begin = async |run: &Run| {
        let scan = prepare(run, Fragment::table(table.clone())).await;
        let mut streams: Vec<BatchStream> =
            (0..scan.partitions()).map(|i| run.open_part(&scan, i)).collect();
        for stream in &mut streams {
            assert!(stream.next().await.expect("a batch").is_ok());
        }
        (scan, streams)
    };
    let run = Run::new(&db.source);
    let (scan, streams) = begin(&run).await;
    assert_eq!(db.sessions("state = 'active'").await, 4);
    drop((streams, scan, run));
    let took = db.until_none("state = 'active'").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    db.until_none("state <> 'idle'").await;

    // The first, whose transaction exports the snapshot, is given up; the others are whole.
    let run = Run::new(&db.source);
    let scan = prepare(&run, Fragment::table(table.clone())).await;
    let mut first = run.open_part(&scan, 0);
    assert!(first.next().await.expect("a batch").is_ok());
    drop(first);
    db.execute("DELETE FROM big WHERE id % 2 = 0").await;
    let mut others = 0;
    for i in 1..4 {
        let part: Vec<_> = run.open_part(&scan, i).try_collect().await.expect("it is read");
        others += rows(&part);
    }
    assert!((220_000..230_000).contains(&others), "{others}");
    drop((scan, run));
    db.until_none("state <> 'idle'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_take_turns_when_there_are_few_connections() {
    // A slow reader may hold the only connection for longer than others wait for a free one.
    let options = small_ranges(json!({ "max_connections": 2, "acquire_timeout": "200ms" }));
    let db = Db::with_options(
        &format!(
            "{WIDE} CREATE VIEW endless AS \
        SELECT generate_series(1, 500000000) AS i"
        ),
        options,
    )
    .await;
    let other = Run::new(&db.source);
    let endless = db.table("endless").await;
    let mut held = other.start(Fragment::table(endless)).await;
    assert!(held.next().await.expect("a batch").is_ok());

    let mut run = Run::new(&db.source);
    run.batch_size = 100;
    let wide = db.table("wide").await;
    db.source.statistics(&wide).await.expect("they are read");
    let scan = prepare(&run, Fragment::table(wide.clone())).await;
    assert_eq!(scan.partitions(), 2);
    let mut first = run.open_part(&scan, 0);
    let mut second = run.open_part(&scan, 1);
    let mut read = rows(&[first.next().await.expect("a batch").expect("it is read")]);
    let none = timeout(Duration::from_millis(700), second.next()).await;
    assert!(none.is_err(), "the only connection was in use");
    read += rows(&first.try_collect::<Vec<_>>().await.expect("it is read"));
    read += rows(&second.try_collect::<Vec<_>>().await.expect("it is read"));
    assert_eq!(read, 20_000);
    drop(held);
}

#[tokio::test]
async fn a_role_with_few_connections_reads_with_those() {
    let db = Db::new(WIDE).await;
    let role = format!("limited_{}", db.name);
    db.execute(&format!(
        "CREATE ROLE {role} LOGIN CONNECTION LIMIT 1; GRANT SELECT ON wide TO {role}"
    ))
    .await;
    let url = db.server.url(&db.name).replace("postgres@", &format!("{role}@"));
    let source = open(&url, small_ranges(json!({})));
    let run = Run::new(&source);
    let scan = prepare(&run, Fragment::table(table(&source, "wide").await)).await;
    assert_eq!(scan.partitions(), 4);
    assert_eq!(rows(&all_parts(&run, &scan).await), 20_000);
    // Rights to some columns are not rights to `ctid`.
    db.execute(&format!(
        "REVOKE SELECT ON wide FROM {role}; GRANT SELECT (id, balance) ON wide TO {role}"
    ))
    .await;
    drop((run, scan));
    // On a loaded machine the server counts a connection that has ended for a while.
    for attempt in 0.. {
        let run = Run::new(&source);
        let scan = prepare(&run, Fragment::table(table(&source, "wide").await)).await;
        assert_eq!(scan.partitions(), 1);
        match run.open_part(&scan, 0).try_collect::<Vec<_>>().await {
            Ok(batches) => {
                assert_eq!(total(&batches), 2_000_000);
                break;
            }
            Err(error) if attempt < 50 && error.kind() == ErrorKind::Unavailable => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_table_replaced_by_what_cannot_be_split_is_an_error() {
    let db = Db::with_options(WIDE, small_ranges(json!({}))).await;
    let wide: Arc<TableDef> = db.table("wide").await;
    for change in [
        "ALTER TABLE wide RENAME TO old; CREATE VIEW wide AS SELECT * FROM old",
        "DROP VIEW wide; CREATE TABLE wide (LIKE old) PARTITION BY RANGE (id)",
    ] {
        let run = Run::new(&db.source);
        let scan = prepare(&run, Fragment::table(wide.clone())).await;
        assert_eq!(scan.partitions(), 4);
        db.execute(change).await;
        let read = run.open_part(&scan, 0).try_collect::<Vec<_>>().await;
        let error = read.expect_err("it is another table now");
        assert_error(&error, ErrorKind::Changed, &["public.wide", "again"]);
    }
}

/// An engine over one source.
fn engine(source: Arc<dyn Source>) -> Arc<Engine> {
    let host = synoptic_catalog::Host::new(vec![source]);
    let config = EngineConfig { target_partitions: 4, ..EngineConfig::default() };
    Engine::new(config, host, Arc::new(SystemClock)).expect("an engine")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_of_split_tables_never_wait_for_themselves() {
    let setup = format!("{WIDE} CREATE TABLE other AS SELECT * FROM wide; ANALYZE other");
    let queries = [
        ("SELECT count(*) FROM bank.wide a JOIN bank.wide b ON a.id = b.id", 20_000),
        (
            "SELECT count(*) FROM bank.wide a JOIN bank.other b ON a.id = b.id \
             JOIN bank.wide c ON b.id = c.id JOIN bank.other d ON c.id = d.id",
            20_000,
        ),
        (
            "SELECT count(*) FROM bank.wide a LEFT JOIN bank.other b ON a.id = b.id + 10000 \
             FULL JOIN bank.wide c ON b.id = c.id",
            30_000,
        ),
        (
            "SELECT count(*) FROM (SELECT * FROM bank.wide UNION ALL SELECT * FROM bank.other) u \
             JOIN bank.wide w ON u.id = w.id",
            40_000,
        ),
        (
            "SELECT count(*) FROM bank.wide a WHERE EXISTS (SELECT 1 FROM bank.other b \
             WHERE b.id = a.id AND b.id % 2 = 0) AND a.id NOT IN (SELECT id FROM bank.wide \
             WHERE id <= 10000)",
            5_000,
        ),
        ("SELECT count(*) FROM (SELECT * FROM bank.wide ORDER BY pad, id LIMIT 7 OFFSET 3) l", 7),
        ("SELECT count(*) FROM (SELECT * FROM bank.wide LIMIT 7) l", 7),
        (
            "SELECT count(*) FROM (SELECT a.id FROM bank.wide a, bank.other b \
             WHERE a.id > b.id - 2 LIMIT 100) l",
            100,
        ),
    ];
    for connections in [1, 2, 3, 20] {
        let options = small_ranges(json!({ "max_connections": connections }));
        let db = Db::with_options(&setup, options).await;
        let session = engine(Arc::clone(&db.source)).session("test");
        for (sql, expected) in queries {
            let request = Request { sql: sql.to_owned(), ..Request::default() };
            let counted = timeout(Duration::from_secs(40), async {
                let planned = session.plan(request).await.expect("it is planned");
                planned.run().expect("it starts").try_collect::<Vec<_>>().await
            });
            let batches = counted.await.unwrap_or_else(|_| panic!("{connections}: {sql} hangs"));
            let batches = batches.unwrap_or_else(|error| panic!("{connections}: {sql}: {error}"));
            let counts = batches[0].column(0).as_primitive::<Int64Type>();
            assert_eq!(counts.value(0), expected, "{connections}: {sql}");
        }
        db.until_none("state <> 'idle'").await;
        assert!(db.sessions("true").await <= connections as i64);
    }
}

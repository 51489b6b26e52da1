//! Cancelling, time limits, slow readers, lost connections, and a pool that leaks nothing.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use synoptic_source::{ErrorKind, Fragment};

use super::{Db, Run, assert_error, first_error, open, rows, table};

/// Rows without end, and one that takes its time.
const ENDLESS: &str = "\
    CREATE VIEW endless AS SELECT i, repeat('x', 100) AS t \
         FROM (SELECT generate_series(1, 500000000) AS i) s; \
    CREATE VIEW asleep AS SELECT i, pg_sleep(30)::text AS t FROM generate_series(1, 2) i; \
    CREATE TABLE small AS SELECT i, 'y' AS t FROM generate_series(1, 10) i;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_is_gone_within_a_second() {
    let db = Db::new(ENDLESS).await;
    for name in ["endless", "asleep"] {
        for pause in [0, 1, 20, 100] {
            let table = db.table(name).await;
            let run = Run::new(&db.source);
            let mut stream = run.start(Fragment::table(table)).await;
            let started = tokio::time::timeout(Duration::from_millis(pause), stream.next()).await;
            if let Ok(batch) = started {
                assert!(batch.unwrap().is_ok());
            }
            drop(stream);
            drop(run);
            let took = db.until_none("state = 'active'").await;
            assert!(took < Duration::from_secs(1), "{name} ran on for {took:?}");
        }
    }
    db.until_none("state <> 'idle'").await;
    assert_eq!(rows(&db.read("small").await.unwrap()), 10);
}

#[tokio::test]
async fn a_scan_that_waits_for_a_lock_can_be_cancelled() {
    let db = Db::new(ENDLESS).await;
    let table = db.table("small").await;
    let writer = db.server.client(&db.name).await;
    writer.batch_execute("BEGIN; ALTER TABLE small ADD extra int").await.unwrap();
    let run = Run::new(&db.source);
    let mut stream = run.start(Fragment::table(table.clone())).await;
    let waiting = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(waiting.is_err(), "the lock was not waited for");
    assert_eq!(db.sessions("wait_event_type = 'Lock'").await, 1);
    drop(stream);
    let took = db.until_none("wait_event_type = 'Lock'").await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    let limited = Run::with_timeout(&db.source, Some(Duration::from_millis(300)));
    let error = first_error(limited.start(Fragment::table(table)).await).await;
    assert_error(&error, ErrorKind::Timeout, &["statement_timeout"]);
}

#[tokio::test]
async fn a_statement_ends_at_its_deadline() {
    let db = Db::new(ENDLESS).await;
    let limit = Duration::from_millis(400);
    for name in ["asleep", "endless"] {
        let table = db.table(name).await;
        let started = Instant::now();
        let run = Run::with_timeout(&db.source, Some(limit));
        let error = first_error(run.start(Fragment::table(table)).await).await;
        assert_error(&error, ErrorKind::Timeout, &["source 'bank'", "statement_timeout"]);
        assert!(started.elapsed() < limit + Duration::from_secs(1), "{:?}", started.elapsed());
        db.until_none("state = 'active'").await;
    }
    // A reader that does not read does not stop the clock.
    let table = db.table("endless").await;
    let run = Run::with_timeout(&db.source, Some(limit));
    let mut stream = run.start(Fragment::table(table)).await;
    assert!(stream.next().await.unwrap().is_ok());
    tokio::time::sleep(limit).await;
    assert!(db.until_none("state = 'active'").await < Duration::from_secs(1));
    assert_error(&first_error(stream).await, ErrorKind::Timeout, &["statement_timeout"]);
}

#[tokio::test]
async fn the_role_keeps_its_own_shorter_limit() {
    let db = Db::new(ENDLESS).await;
    db.execute(&format!("ALTER DATABASE {} SET statement_timeout = '300ms'", db.name)).await;
    let source = open(&db.server.url(&db.name), json!({}));
    let run = Run::with_timeout(&source, Some(Duration::from_secs(60)));
    let started = Instant::now();
    let error = first_error(run.start(Fragment::table(table(&source, "asleep").await)).await).await;
    assert_error(&error, ErrorKind::Timeout, &["57014"]);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_slow_reader_holds_back_the_server() {
    let db = Db::new(ENDLESS).await;
    let run = Run::new(&db.source);
    let table = db.table("endless").await;
    let mut stream = run.start(Fragment::table(table)).await;
    assert!(stream.next().await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let read = run.counters.bytes();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(run.counters.bytes(), read, "it went on reading");
    // Four batches of 8192 rows of about 120 bytes: read, two ahead, one in the making.
    assert!(read < 5 * 8192 * 130, "{read} bytes were read for one batch");
    assert!(stream.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn an_exhausted_pool_says_what_to_raise() {
    let db = Db::with_options(ENDLESS, json!({ "max_connections": 2, "acquire_timeout": "300ms" }))
        .await;
    let (endless, small) = (db.table("endless").await, db.table("small").await);
    let runs = [Run::new(&db.source), Run::new(&db.source)];
    let mut streams = Vec::new();
    for run in &runs {
        let mut stream = run.start(Fragment::table(endless.clone())).await;
        assert!(stream.next().await.unwrap().is_ok());
        streams.push(stream);
    }
    let run = Run::new(&db.source);
    let started = Instant::now();
    // Estimates need no connection: they were not asked for before, and are done without.
    let error = first_error(run.start(Fragment::table(small.clone())).await).await;
    assert_error(
        &error,
        ErrorKind::Unavailable,
        &["source 'bank'", "2 connections", "acquire_timeout (300ms)", "raise max_connections"],
    );
    assert!(started.elapsed() < Duration::from_secs(3));
    let error = db.source.tables().await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, &["max_connections"]);

    streams.pop();
    let run = Run::new(&db.source);
    let batches: Vec<_> = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let read = run.start(Fragment::table(small.clone())).await.try_collect().await;
            if let Ok(batches) = read {
                return batches;
            }
        }
    })
    .await
    .expect("the connection comes back");
    assert_eq!(rows(&batches), 10);
    assert!(db.sessions("true").await <= 2);
}

#[tokio::test]
async fn two_statements_of_many_scans_do_not_lock_each_other() {
    let db = Db::with_options(ENDLESS, json!({ "max_connections": 3 })).await;
    let table = db.table("small").await;
    let statement = async || {
        let run = Run::new(&db.source);
        let mut scans = Vec::new();
        for _ in 0..3 {
            scans.push(run.prepare(Fragment::table(table.clone())).await);
        }
        let reads = scans.iter().map(|scan| run.open(scan).try_collect::<Vec<_>>());
        for batches in futures::future::join_all(reads).await {
            assert_eq!(rows(&batches.expect("it is read")), 10);
        }
    };
    let all = futures::future::join_all((0..10).map(|_| statement()));
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("they take turns");
}

#[tokio::test]
async fn a_lost_connection_is_unavailable() {
    let db = Db::new(ENDLESS).await;
    let table = db.table("endless").await;
    let run = Run::new(&db.source);
    let mut stream = run.start(Fragment::table(table)).await;
    assert!(stream.next().await.unwrap().is_ok());
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name LIKE 'synoptic q%' AND datname = current_database()",
    )
    .await;
    assert_error(&first_error(stream).await, ErrorKind::Unavailable, &["table public.endless"]);
    // Idle connections that the server closed meanwhile are replaced without a word.
    assert_eq!(rows(&db.read("small").await.unwrap()), 10);
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name LIKE 'synoptic%' AND datname = current_database()",
    )
    .await;
    assert_eq!(rows(&db.read("small").await.unwrap()), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_failures_leak_nothing() {
    let db = Db::with_options(
        &format!(
            "{ENDLESS} CREATE TABLE bad AS SELECT i, 'NaN'::numeric(5,2) AS n \
                 FROM generate_series(1, 10) i; \
             CREATE VIEW broken AS SELECT 1 / (i - 5) AS n FROM generate_series(1, 10) i; \
             CREATE VIEW raises AS SELECT ('x' || i)::int AS n FROM generate_series(1, 10) i;"
        ),
        json!({ "max_connections": 4 }),
    )
    .await;
    let names = ["bad", "broken", "raises", "endless"];
    let mut tables = Vec::new();
    for name in names {
        tables.push(db.table(name).await);
    }
    for i in 0..300 {
        let table = tables[i % tables.len()].clone();
        let run = Run::new(&db.source);
        let mut stream = run.start(Fragment::table(table)).await;
        match stream.next().await {
            Some(Err(error)) => assert_error(&error, ErrorKind::Data, &[names[i % names.len()]]),
            Some(Ok(_)) => assert_eq!(names[i % names.len()], "endless"),
            None => panic!("{} ended well", names[i % names.len()]),
        }
    }
    db.until_none("state <> 'idle'").await;
    assert!(db.sessions("true").await <= 4);
    // Every permit is back: four scans in one statement need all of them.
    let small = db.table("small").await;
    let run = Run::new(&db.source);
    let mut scans = Vec::new();
    for _ in 0..4 {
        scans.push(run.prepare(Fragment::table(small.clone())).await);
    }
    for scan in &scans {
        let batches: Vec<_> = run.open(scan).try_collect().await.unwrap();
        assert_eq!(rows(&batches), 10);
    }
}

#[tokio::test]
async fn nothing_is_sent_before_the_first_poll() {
    let db = Db::new(ENDLESS).await;
    let table = db.table("small").await;
    let run = Run::new(&db.source);
    let stream = run.start(Fragment::table(table)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(db.sessions("xact_start IS NOT NULL").await, 0);
    drop(stream);
    drop(run);
    drop(db.source);
    let started = Instant::now();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name LIKE 'synoptic%'";
    while db.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        assert!(started.elapsed() < Duration::from_secs(5), "a dropped source keeps connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

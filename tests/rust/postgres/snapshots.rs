//! All scans of a statement see one state, and it is the state that was planned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use serde_json::json;
use synoptic_source::{ErrorKind, Fragment};

use super::{Db, Run, assert_error, first_error, rows, texts};

fn total(batches: &[RecordBatch]) -> i64 {
    let sums = batches.iter().map(|batch| {
        let balances = batch.column_by_name("balance").expect("it has a balance");
        balances.as_primitive::<Int64Type>().iter().flatten().sum::<i64>()
    });
    sums.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_in_transit_is_counted_once() {
    let db = Db::new(
        "CREATE TABLE checking AS SELECT i AS id, 100::bigint AS balance \
             FROM generate_series(1, 2000) i; \
         CREATE TABLE savings AS SELECT * FROM checking",
    )
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = db.server.client(&db.name).await;
    let stopped = Arc::clone(&stop);
    let moving = tokio::spawn(async move {
        let mut moves = 0;
        while !stopped.load(Ordering::Relaxed) {
            let id = moves % 2000 + 1;
            let sql = format!(
                "BEGIN; UPDATE checking SET balance = balance - 7 WHERE id = {id}; \
                 UPDATE savings SET balance = balance + 7 WHERE id = {id}; COMMIT"
            );
            writer.batch_execute(&sql).await.expect("money is moved");
            moves += 1;
        }
        moves
    });
    let (checking, savings) = (db.table("checking").await, db.table("savings").await);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..30 {
        let run = Run::new(&db.source);
        let first = run.prepare(Fragment::table(checking.clone())).await;
        let second = run.prepare(Fragment::table(savings.clone())).await;
        let first: Vec<_> = run.open(&first).try_collect().await.unwrap();
        // Time for the money to move between the two reads.
        tokio::time::sleep(Duration::from_millis(round % 5)).await;
        let second: Vec<_> = run.open(&second).try_collect().await.unwrap();
        assert_eq!(total(&first) + total(&second), 400_000);
        seen.insert(total(&first));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(moving.await.unwrap() > 100);
    assert!(seen.len() > 1, "the writer was never seen");
    db.until_none("state <> 'idle'").await;
}

#[tokio::test]
async fn one_snapshot_lasts_through_dropped_and_repeated_scans() {
    let db = Db::new(
        "CREATE TABLE t AS SELECT i, 1::bigint AS balance \
                      FROM generate_series(1, 300000) i",
    )
    .await;
    let table = db.table("t").await;
    let run = Run::new(&db.source);
    let scans = [
        run.prepare(Fragment::table(table.clone())).await,
        run.prepare(Fragment::table(table.clone())).await,
        run.prepare(Fragment::table(table.clone())).await,
    ];
    // The first scan, whose transaction exports the snapshot, is given up half-way.
    let mut first = run.open(&scans[0]);
    assert!(first.try_next().await.unwrap().is_some());
    drop(first);
    db.execute("DELETE FROM t WHERE i % 2 = 0").await;
    let second: Vec<_> = run.open(&scans[1]).try_collect().await.unwrap();
    assert_eq!(rows(&second), 300_000);
    let third: Vec<_> = run.open(&scans[2]).try_collect().await.unwrap();
    assert_eq!(rows(&third), 300_000);
    drop(scans);
    drop(run);
    db.until_none("state <> 'idle'").await;
    assert_eq!(rows(&db.read("t").await.unwrap()), 150_000);
}

#[tokio::test]
async fn more_scans_than_connections_take_turns() {
    let db = Db::with_options(
        "CREATE TABLE t AS SELECT i, 1::bigint AS balance FROM generate_series(1, 50000) i",
        json!({ "max_connections": 2, "acquire_timeout": "5s" }),
    )
    .await;
    let table = db.table("t").await;
    let run = Run::new(&db.source);
    let mut scans = Vec::new();
    for _ in 0..6 {
        scans.push(run.prepare(Fragment::table(table.clone())).await);
    }
    let reads = scans.iter().map(|scan| run.open(scan).try_collect::<Vec<_>>());
    for batches in futures::future::join_all(reads).await {
        assert_eq!(rows(&batches.unwrap()), 50_000);
    }
    assert!(db.sessions("true").await <= 2);
}

#[tokio::test]
async fn a_plan_that_is_never_run_holds_nothing() {
    let db = Db::new("CREATE TABLE t (i int)").await;
    let table = db.table("t").await;
    let run = Run::new(&db.source);
    let planned_twice = run.prepare(Fragment::table(table.clone())).await;
    drop(planned_twice);
    let scan = run.prepare(Fragment::table(table)).await;
    let batches: Vec<RecordBatch> = run.open(&scan).try_collect().await.unwrap();
    assert_eq!(rows(&batches), 0);
    db.until_none("state <> 'idle'").await;
    assert_eq!(db.sessions("true").await, 1, "one scan needs one connection");
}

#[tokio::test]
async fn a_table_that_changed_since_the_plan_is_an_error() {
    let setup = "DROP TABLE IF EXISTS t CASCADE; \
                 CREATE TABLE t (a int NOT NULL, b text, c numeric(10,2)); \
                 INSERT INTO t VALUES (1, 'x', 1.5)";
    let db = Db::new("").await;
    for (change, part) in [
        ("DROP TABLE t", "t\" does not exist"),
        ("ALTER TABLE t RENAME TO elsewhere", "t\" does not exist"),
        ("ALTER TABLE t DROP b", "column b is gone"),
        ("ALTER TABLE t RENAME a TO z", "column a is gone"),
        ("ALTER TABLE t ALTER a TYPE bigint", "column a was Int32 and is Int64"),
        ("ALTER TABLE t ALTER b TYPE varchar(10)", "column b was text and is varchar"),
        ("ALTER TABLE t ALTER c TYPE numeric(12,4)", "column c was Decimal128(10, 2)"),
        ("ALTER TABLE t ALTER a DROP NOT NULL", "column a was NOT NULL"),
        ("ALTER TABLE t ALTER b TYPE text COLLATE \"POSIX\"", "collation"),
        ("DROP TABLE t; CREATE TABLE t (a int NOT NULL, b int, c numeric(10,2))", "column b was"),
    ] {
        db.execute(setup).await;
        let table = db.table("t").await;
        let run = Run::new(&db.source);
        let stream = run.start(Fragment::table(table)).await;
        db.execute(change).await;
        let error = first_error(stream).await;
        assert_error(&error, ErrorKind::Changed, &["public.t", part, "again"]);
        db.execute("DROP TABLE IF EXISTS elsewhere").await;
    }
    for harmless in [
        "ALTER TABLE t ADD d int",
        "COMMENT ON TABLE t IS 'x'",
        "CREATE INDEX ON t (a)",
        "DROP TABLE t; CREATE TABLE t (c numeric(10,2), b text, a int NOT NULL); \
         INSERT INTO t VALUES (1.5, 'x', 1)",
    ] {
        db.execute(setup).await;
        let table = db.table("t").await;
        let run = Run::new(&db.source);
        let stream = run.start(Fragment::table(table)).await;
        db.execute(harmless).await;
        let batches: Vec<_> = stream.try_collect().await.unwrap();
        assert_eq!(texts(&batches, "b"), ["x"], "{harmless}");
    }
}

#[tokio::test]
async fn a_view_that_changed_since_the_plan_is_an_error() {
    let db = Db::new("").await;
    for (before, change, part) in [
        (
            "VIEW v AS SELECT 1 AS a",
            "DROP VIEW v; CREATE VIEW v AS SELECT 'x'::text AS a",
            "column a",
        ),
        ("VIEW v AS SELECT 1 AS a", "DROP VIEW v", "v"),
        ("MATERIALIZED VIEW v AS SELECT 1 AS a", "DROP MATERIALIZED VIEW v", "v"),
    ] {
        db.execute(&format!("DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE {before}"))
            .await;
        let table = db.table("v").await;
        let run = Run::new(&db.source);
        let stream = run.start(Fragment::table(table)).await;
        db.execute(change).await;
        let error = first_error(stream).await;
        assert_error(&error, ErrorKind::Changed, &["public.v", part]);
    }
}

#[tokio::test]
async fn a_table_being_rewritten_does_not_look_empty() {
    let db = Db::new("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i").await;
    let table = db.table("t").await;
    let run = Run::new(&db.source);
    let reading = run.start(Fragment::table(table)).await;
    let writer = db.server.client(&db.name).await;
    // The rewrite holds its lock while the scan begins, and commits while the scan waits.
    writer
        .batch_execute("BEGIN; ALTER TABLE t ADD COLUMN r float8 DEFAULT random()")
        .await
        .unwrap();
    let reading = tokio::spawn(reading.try_collect::<Vec<_>>());
    db.until_some("wait_event_type = 'Lock'").await;
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(rows(&reading.await.unwrap().unwrap()), 1000);
}

#[tokio::test]
async fn a_snapshot_of_another_source_is_refused() {
    let db = Db::new("CREATE TABLE t (i int)").await;
    let other = super::open(&db.server.url(&db.name), json!({}));
    let run = Run::new(&db.source);
    let scan = run.prepare(Fragment::table(db.table("t").await)).await;
    let strange = Run::new(&other);
    let context = synoptic_source::ScanContext {
        statement: Arc::clone(&run.statement),
        dynamic_filters: Vec::new(),
        counters: Arc::default(),
    };
    let error = scan.open(0, Arc::clone(&strange.snapshot), context.clone()).err().unwrap();
    assert_error(&error, ErrorKind::Internal, &["another source"]);
    assert!(scan.open(1, Arc::clone(&run.snapshot), context).is_err());
}

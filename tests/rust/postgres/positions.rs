//! Where a server says it is, on primaries and standbys, through cut links and promotions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use serde_json::json;
use synoptic_source::{CopyPosition, Fragment, Pinned, Source};
use synoptic_tests::postgres::PostgresServer;
use synoptic_tests::proxy::Proxy;
use synoptic_types::{Epoch, Lsn, Position};

use super::{Db, Run, open, rows, table, texts};

fn log(position: &Position) -> (Epoch, Lsn) {
    match position {
        Position::Log { epoch, lsn } => (*epoch, *lsn),
        other => panic!("no place in a log: {other}"),
    }
}

async fn position(source: &Arc<dyn Source>) -> CopyPosition {
    source.position().await.expect("it says where it is")
}

/// Waits until `source` says it is where `done` wants it.
async fn until(source: &Arc<dyn Source>, done: impl Fn(&CopyPosition) -> bool) -> CopyPosition {
    let started = Instant::now();
    loop {
        if let Ok(now) = source.position().await
            && done(&now)
        {
            return now;
        }
        let last = source.position().await;
        assert!(started.elapsed() < Duration::from_secs(30), "it stays where it is: {last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the standby has everything of the primary.
async fn caught_up(standby: &Arc<dyn Source>, head: &Position) -> CopyPosition {
    let (epoch, lsn) = log(head);
    until(standby, |now| match &now.position {
        Position::Log { epoch: own, lsn: own_lsn } => *own == epoch && *own_lsn >= lsn,
        _ => false,
    })
    .await
}

async fn pin(run: &Run) -> Pinned {
    run.snapshot.pin().await.expect("the snapshot is pinned")
}

#[tokio::test]
async fn the_head_of_a_primary_covers_what_is_visible() {
    let db = Db::new("CREATE TABLE t (id int)").await;
    let mut last = position(&db.source).await;
    assert!(!last.follows && last.received.is_none());
    let sql = "SELECT system_identifier FROM pg_control_system()";
    let system: i64 = db.client.query_one(sql, &[]).await.expect("an answer").get(0);
    for number in 0..20 {
        // The server runs with synchronous_commit = off: visible before it is written.
        db.execute(&format!("INSERT INTO t VALUES ({number})")).await;
        let visible: String = db
            .client
            .query_one("SELECT pg_current_wal_insert_lsn()::text", &[])
            .await
            .expect("an answer")
            .get(0);
        let now = position(&db.source).await;
        let ((epoch, lsn), (_, before)) = (log(&now.position), log(&last.position));
        assert_eq!(epoch, Epoch { system: system.cast_unsigned(), timeline: 1 });
        assert!(lsn > before, "a commit moves it: {before} → {lsn}");
        assert!(lsn >= visible.parse().expect("an LSN"));
        assert_eq!(now.lineage.link(1), Some((0, None)));
        last = now;
    }
}

#[tokio::test]
async fn a_pinned_snapshot_shows_what_was_committed_before_and_nothing_after() {
    let db = Db::new("CREATE TABLE t (id int); CREATE TABLE u (id int)").await;
    let (t, u) = (db.table("t").await, db.table("u").await);
    for number in 1..=5_usize {
        db.execute("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)").await;
        let committed = position(&db.source).await.position;
        let run = Run::new(&db.source);
        let first = run.prepare(Fragment::table(Arc::clone(&t))).await;
        let second = run.prepare(Fragment::table(Arc::clone(&u))).await;
        let pinned = pin(&run).await;
        let (before, after) = (log(&pinned.before.position).1, log(&pinned.after.position).1);
        assert!(log(&committed).1 <= before, "{committed} is before {before}");
        assert!(before <= after);
        db.execute(
            "INSERT INTO t VALUES (2); DELETE FROM t WHERE id = 2; \
                    INSERT INTO u VALUES (3)",
        )
        .await;
        for (scan, column) in [(&first, number), (&second, 2 * number - 1)] {
            let batches: Vec<_> = run.open(scan).try_collect().await.expect("it is read");
            assert_eq!(rows(&batches), column);
        }
        assert_eq!(pin(&run).await, pinned, "asked again, it is the same snapshot");
    }
}

#[tokio::test]
async fn what_was_pinned_and_not_read_goes_back() {
    let db = Db::with_options("CREATE TABLE t (id int)", json!({ "max_connections": 2 })).await;
    let table = db.table("t").await;
    for _ in 0..5 {
        let run = Run::new(&db.source);
        let scans = [
            run.prepare(Fragment::table(Arc::clone(&table))).await,
            run.prepare(Fragment::table(Arc::clone(&table))).await,
        ];
        pin(&run).await;
        assert_eq!(db.sessions("state = 'idle in transaction'").await, 1);
        drop((scans, run));
        db.until_none("state = 'idle in transaction'").await;
    }
    let run = Run::new(&db.source);
    assert_eq!(pin(&run).await, Pinned::default(), "nothing is read, nothing is sent");
    assert_eq!(db.sessions("state = 'idle in transaction'").await, 0);
    assert!(db.read("t").await.is_ok());
}

#[tokio::test]
async fn a_narrowed_scan_is_not_given_what_was_prepared_before() {
    use datafusion::logical_expr::lit;
    let db = Db::new("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 100) g").await;
    let run = Run::new(&db.source);
    let scan = run.prepare(Fragment::table(db.table("t").await)).await;
    pin(&run).await;
    let seven = synoptic_source::Relation::column(0).eq(lit(7));
    let narrowed = scan.narrowed(&[seven]).expect("it takes conditions").scan;
    let batches: Vec<_> = run.open(&narrowed).try_collect().await.expect("it is read");
    assert_eq!(texts(&batches, "id"), ["7"]);
}

#[tokio::test]
async fn a_pin_ends_at_the_deadline_and_survives_a_closed_connection() {
    let db = Db::new("CREATE TABLE t (id int)").await;
    let table = db.table("t").await;
    db.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    let run = Run::with_timeout(&db.source, Some(Duration::from_millis(300)));
    let scan = run.prepare(Fragment::table(Arc::clone(&table))).await;
    let error = run.snapshot.pin().await.expect_err("the table is locked");
    assert_eq!(error.kind(), synoptic_source::ErrorKind::Timeout, "{error}");
    drop((scan, run));
    db.execute("COMMIT").await;
    db.until_none("state <> 'idle'").await;

    db.read("t").await.expect("a connection is left idle");
    db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let run = Run::new(&db.source);
    let _scan = run.prepare(Fragment::table(table)).await;
    assert_ne!(pin(&run).await.before.position, Position::Unknown);
    assert_ne!(position(&db.source).await.position, Position::Unknown);
}

#[tokio::test]
async fn a_role_that_may_not_ask_has_no_position_and_reads_all_the_same() {
    let db = Db::new(
        "CREATE TABLE t (id int); CREATE ROLE blind LOGIN; GRANT SELECT ON t TO blind; \
         REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
    )
    .await;
    let url = db.server.url(&db.name).replace("postgres@", "blind@");
    let blind = open(&url, json!({}));
    assert_eq!(position(&blind).await.position, Position::Unknown);
    let run = Run::new(&blind);
    let scan = run.prepare(Fragment::table(table(&blind, "t").await)).await;
    let pinned = pin(&run).await;
    assert_eq!(pinned.before.position, Position::Unknown);
    let batches: Vec<_> = run.open(&scan).try_collect().await.expect("it is read");
    assert_eq!(rows(&batches), 0);

    // A right that is taken away while we run costs an attempt, not the statement.
    db.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO blind").await;
    let seeing = open(&url, json!({}));
    assert_ne!(position(&seeing).await.position, Position::Unknown);
    db.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM blind").await;
    let run = Run::new(&seeing);
    let scan = run.prepare(Fragment::table(table(&seeing, "t").await)).await;
    assert_eq!(pin(&run).await.before.position, Position::Unknown);
    let batches: Vec<_> = run.open(&scan).try_collect().await.expect("it is read");
    assert_eq!(rows(&batches), 0);
    db.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC").await;
}

#[tokio::test]
async fn a_standby_is_where_it_has_replayed_to_also_with_the_link_cut() {
    let primary = PostgresServer::start();
    let writer = primary.client("postgres").await;
    writer
        .batch_execute(
            "CREATE TABLE t (id int); CREATE ROLE plain LOGIN; GRANT SELECT ON t TO plain",
        )
        .await
        .expect("made");
    let link = Proxy::to(primary.port());
    let standby = primary.standby_through(link.port());
    let head = open(&primary.url("postgres"), json!({}));
    let copy = open(&standby.url("postgres"), json!({}));
    let plain = open(&standby.url("postgres").replace("postgres@", "plain@"), json!({}));

    writer.batch_execute("INSERT INTO t VALUES (1)").await.expect("written");
    let first = position(&head).await;
    let now = caught_up(&copy, &first.position).await;
    assert!(now.follows && now.received.is_some());
    assert_eq!(now.lineage.link(1), Some((0, None)));

    // What has arrived and is not applied does not count.
    standby.pause_replay().await;
    writer.batch_execute("INSERT INTO t VALUES (2)").await.expect("written");
    let second = position(&head).await;
    let second_lsn = log(&second.position).1;
    let paused =
        until(&copy, |now| now.received.as_ref().is_some_and(|r| log(r).1 >= second_lsn)).await;
    assert!(log(&paused.position).1 < second_lsn, "{paused:?}");
    standby.resume_replay().await;
    caught_up(&copy, &second.position).await;

    // A role without pg_monitor cannot tell the timeline: unknown, never a guess.
    assert_eq!(position(&plain).await.position, Position::Unknown);
    writer.batch_execute("GRANT pg_monitor TO plain").await.expect("granted");
    caught_up(&copy, &position(&head).await.position).await;
    let plain = open(&standby.url("postgres").replace("postgres@", "plain@"), json!({}));
    assert_ne!(position(&plain).await.position, Position::Unknown);

    link.cut();
    writer.batch_execute("INSERT INTO t VALUES (3)").await.expect("written");
    let third = position(&head).await;
    let sql = "SELECT count(*) FROM pg_stat_wal_receiver";
    let looks = standby.client("postgres").await;
    let started = Instant::now();
    while looks.query_one(sql, &[]).await.expect("an answer").get::<_, i64>(0) > 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "the receiver does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for source in [&copy, &plain, &open(&standby.url("postgres"), json!({}))] {
        let cut = position(source).await;
        let (epoch, lsn) = log(&cut.position);
        assert_eq!(epoch, log(&third.position).0);
        assert!(lsn >= second_lsn && lsn < log(&third.position).1, "{cut:?} of {third:?}");
    }
    // What is read lies between what was said before and after.
    let run = Run::new(&copy);
    let scan = run.prepare(Fragment::table(table(&copy, "t").await)).await;
    let pinned = pin(&run).await;
    assert!(pinned.before.follows && log(&pinned.before.position) <= log(&pinned.after.position));
    let batches: Vec<_> = run.open(&scan).try_collect().await.expect("it is read");
    assert_eq!(texts(&batches, "id"), ["1", "2"]);

    link.resume();
    caught_up(&copy, &third.position).await;
}

#[tokio::test]
async fn a_promotion_begins_another_timeline_and_its_history_is_known() {
    let mut primary = PostgresServer::start();
    let writer = primary.client("postgres").await;
    writer.batch_execute("CREATE TABLE t (id int)").await.expect("made");
    let address = Proxy::to(primary.port());
    let (one, two) = (primary.standby(), primary.standby_through(address.port()));
    let head = open(&primary.url("postgres"), json!({}));
    let (first, second) =
        (open(&one.url("postgres"), json!({})), open(&two.url("postgres"), json!({})));
    writer.batch_execute("INSERT INTO t VALUES (1)").await.expect("written");
    let old = position(&head).await;
    caught_up(&first, &old.position).await;
    caught_up(&second, &old.position).await;

    drop(writer);
    primary.stop();
    assert!(head.position().await.is_err(), "the primary is down");
    address.cut();
    one.promote().await;
    let promoted = position(&first).await;
    assert!(!promoted.follows);
    let (epoch, lsn) = log(&promoted.position);
    assert_eq!(epoch, Epoch { timeline: 2, ..log(&old.position).0 });
    let (place, left) = promoted.lineage.link(1).expect("the first timeline is its ancestor");
    assert_eq!((place, promoted.lineage.link(2)), (0, Some((1, None))));
    let left = left.expect("it was left");
    assert!(log(&old.position).1 <= left && left <= lsn, "{old:?} {left} {lsn}");

    // The other standby is on the old timeline until it has streamed the new one, and then on
    // that, also when the link is cut once more before a restartpoint says so.
    let waiting = position(&second).await;
    assert_eq!(log(&waiting.position).0.timeline, 1, "{waiting:?}");
    address.lead_to(one.port());
    address.resume();
    let writer = one.client("postgres").await;
    writer.batch_execute("INSERT INTO t VALUES (2)").await.expect("written");
    let new = position(&first).await;
    let followed = caught_up(&second, &new.position).await;
    assert!(followed.follows && followed.lineage.link(1).is_some());
    address.cut();
    for _ in 0..20 {
        let (epoch, lsn) = log(&position(&second).await.position);
        assert!(epoch.timeline == 2 && lsn >= log(&new.position).1, "{epoch} {lsn}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Somebody who was not there either knows by the control file or does not know.
    let stranger = open(&two.url("postgres"), json!({}));
    match position(&stranger).await.position {
        Position::Unknown => {}
        known => assert_eq!(log(&known).0.timeline, 2),
    }
}

//! Which state SQLite files and folders of files say they are in. PostgreSQL's positions are in
//! `postgres/positions.rs`, and the suite in `conformance.rs` asks every connector.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use rusqlite::Connection;
use serde_json::{Value, json};
use synoptic_source::{
    CopyPosition, Fragment, Pinned, PrepareOptions, ScanContext, ScanCounters, Snapshot, Source,
    Statement,
};
use synoptic_types::{Position, QueryId, SourceName, TableName};
use tempfile::TempDir;

fn open(connector: &str, options: Value) -> Arc<dyn Source> {
    let Value::Object(options) = options else { panic!("options are a table") };
    synoptic_connectors::open(connector, SourceName::new("s"), options, Path::new("/"))
        .expect("the options are right")
}

async fn at(source: &Arc<dyn Source>) -> Position {
    source.position().await.expect("it answers").position
}

/// The position once the last change is old enough to be told from the next.
async fn settled(source: &Arc<dyn Source>) -> Position {
    for _ in 0..400 {
        match at(source).await {
            Position::Unknown => tokio::time::sleep(Duration::from_millis(10)).await,
            known => return known,
        }
    }
    panic!("the position stays unknown");
}

/// A statement that reads one table, prepared.
struct Reading {
    statement: Arc<Statement>,
    snapshot: Arc<dyn Snapshot>,
    scan: Arc<dyn synoptic_source::PreparedScan>,
}

impl Reading {
    async fn of(source: &Arc<dyn Source>, table: &str) -> Self {
        let statement = Arc::new(Statement { query_id: QueryId::new("q"), deadline: None });
        let name = TableName::new(source.default_schema(), table);
        let table = source.table(&name).await.expect("described").expect("there is one");
        let snapshot = source.begin(&statement);
        let options = PrepareOptions { target_partitions: 1, batch_size: 1024 };
        let scan = source.prepare(Fragment::table(table), &snapshot, &options).await;
        Self { statement, snapshot, scan: scan.expect("it is prepared") }
    }

    async fn pin(&self) -> Pinned {
        self.snapshot.pin().await.expect("it is pinned")
    }

    async fn rows(&self) -> usize {
        let mut rows = 0;
        for partition in 0..self.scan.partitions() {
            let context = ScanContext {
                statement: Arc::clone(&self.statement),
                dynamic_filters: Vec::new(),
                counters: Arc::new(ScanCounters::default()),
            };
            let stream = self.scan.open(partition, Arc::clone(&self.snapshot), context);
            let batches: Vec<_> =
                stream.expect("it is opened").try_collect().await.expect("it is read");
            rows += batches.iter().map(|batch| batch.num_rows()).sum::<usize>();
        }
        rows
    }
}

fn database(folder: &TempDir, mode: &str) -> (PathBuf, Connection) {
    let path = folder.path().join("data.db");
    let writer = Connection::open(&path).expect("opened");
    writer.busy_timeout(Duration::from_secs(10)).expect("set");
    writer
        .execute_batch(&format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (0)"
        ))
        .expect("made");
    (path, writer)
}

#[tokio::test]
async fn every_commit_is_another_version_of_a_database() {
    for mode in ["DELETE", "WAL", "TRUNCATE"] {
        let folder = TempDir::new().expect("a folder");
        let (path, writer) = database(&folder, mode);
        let source = open("sqlite", json!({ "path": path }));
        let mut seen = vec![settled(&source).await];
        for number in 1..10 {
            writer.execute("UPDATE t SET id = ?1", [number]).expect("written");
            if number == 5 {
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
                let _ = writer.query_row(checkpoint, [], |_| Ok(()));
            }
            let now = settled(&source).await;
            assert!(!seen.contains(&now), "{mode}: {now} again, in {seen:?}");
            assert_eq!(settled(&source).await, now, "{mode}: nothing was written");
            let other = open("sqlite", json!({ "path": path }));
            assert_eq!(settled(&other).await, now, "{mode}: another connection");
            seen.push(now);
        }
    }
}

#[tokio::test]
async fn a_log_that_was_written_back_and_removed_leaves_another_version() {
    let folder = TempDir::new().expect("a folder");
    let (path, writer) = database(&folder, "WAL");
    drop(writer);
    assert!(!folder.path().join("data.db-wal").exists(), "the last one removes the log");
    // Each time the header's counter may stay as it is, and no log tells of the change.
    let mut seen: Vec<Position> = Vec::new();
    for number in 1..5 {
        let source = open("sqlite", json!({ "path": path }));
        let now = settled(&source).await;
        assert!(!seen.contains(&now), "{now} again, in {seen:?}");
        seen.push(now);
        drop(source);
        let writer = Connection::open(&path).expect("opened");
        writer.execute("UPDATE t SET id = ?1", [number]).expect("written");
        let fresh = open("sqlite", json!({ "path": path }));
        let written = at(&fresh).await;
        assert!(!seen.contains(&written), "{written} again, in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_what_the_version_says_while_a_writer_runs() {
    for mode in ["DELETE", "WAL"] {
        let folder = TempDir::new().expect("a folder");
        let (path, writer) = database(&folder, mode);
        // With a rollback journal, readers get in only between two of the writer's transactions.
        writer.execute_batch("PRAGMA synchronous = OFF").expect("set");
        let source = open("sqlite", json!({ "path": path, "busy_timeout": "60s" }));
        let stop = Arc::new(AtomicBool::new(false));
        let writing = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    writer.execute("INSERT INTO t VALUES (1)", []).expect("written");
                    written += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                written
            })
        };
        let mut states: HashMap<Position, usize> = HashMap::new();
        for _ in 0..150 {
            let reading = Reading::of(&source, "t").await;
            let pinned = reading.pin().await;
            assert_eq!(pinned.before, pinned.after);
            let rows = reading.rows().await;
            if pinned.before.position != Position::Unknown {
                let known = *states.entry(pinned.before.position.clone()).or_insert(rows);
                assert_eq!(known, rows, "{mode}: {}", pinned.before.position);
            }
        }
        stop.store(true, Ordering::Relaxed);
        let written = writing.join().expect("it wrote");
        assert!(states.len() > 20 && written > 20, "{mode}: {} of {written}", states.len());
        // At rest, the head is what is pinned, and holds every row.
        let head = settled(&source).await;
        let reading = Reading::of(&source, "t").await;
        assert_eq!(reading.pin().await.after.position, head);
        assert_eq!(reading.rows().await, written + 1);
    }
}

/// Not a test by itself: what another process does in the next one.
#[test]
fn other_process() {
    let Ok(path) = std::env::var("SYNOPTIC_TEST_WRITES") else { return };
    let writer = Connection::open(path).expect("opened");
    writer.busy_timeout(Duration::ZERO).expect("set");
    writer.execute("INSERT INTO t VALUES (1)", []).expect("written");
}

fn another_process_can_write(path: &Path) -> bool {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "positions::other_process"])
        .env("SYNOPTIC_TEST_WRITES", path)
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() || text.contains("locked"), "{text}");
    output.status.success()
}

#[tokio::test]
async fn looking_at_a_database_takes_nobodys_locks() {
    let folder = TempDir::new().expect("a folder");
    let (path, writer) = database(&folder, "DELETE");
    drop(writer);
    let source = open("sqlite", json!({ "path": path }));
    let reading = Reading::of(&source, "t").await;
    let pinned = reading.pin().await;
    assert!(!another_process_can_write(&path), "the snapshot holds its lock");
    // Sources, connections and files come and go, as on a reload.
    for _ in 0..3 {
        let other = open("sqlite", json!({ "path": path }));
        assert_eq!(at(&other).await, pinned.after.position);
        let short = Reading::of(&other, "t").await;
        short.pin().await;
        drop((short, other));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!another_process_can_write(&path), "the lock is still there");
    }
    assert_eq!(reading.rows().await, 1);
    drop(reading);
    for _ in 0..100 {
        if another_process_can_write(&path) {
            assert_ne!(at(&source).await, pinned.after.position);
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the lock stays");
}

#[tokio::test]
async fn a_database_that_was_replaced_is_another_version() {
    let folder = TempDir::new().expect("a folder");
    let (path, writer) = database(&folder, "DELETE");
    drop(writer);
    let source = open("sqlite", json!({ "path": path }));
    let first = at(&source).await;
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).expect("copied");
    fs::rename(&copy, &path).expect("renamed");
    assert_ne!(at(&source).await, first);
}

fn folder_of_files() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for table in ["t", "u"] {
        fs::create_dir(folder.path().join(table)).expect("made");
        fs::write(folder.path().join(table).join("1.csv"), "id\n1\n").expect("written");
    }
    folder
}

#[tokio::test]
async fn every_change_of_files_is_another_version() {
    let folder = folder_of_files();
    let source = open("files", json!({ "location": folder.path(), "format": "csv" }));
    assert_eq!(at(&source).await, Position::Unknown, "a change made now could look the same");
    let mut seen = vec![settled(&source).await];
    let (file, other) = (folder.path().join("t/1.csv"), folder.path().join("t/2.csv"));
    type Change<'a> = (&'a str, Box<dyn Fn() -> std::io::Result<()> + 'a>);
    let changes: [Change<'_>; 4] = [
        ("the same length", Box::new(|| fs::write(&file, "id\n2\n"))),
        ("one more", Box::new(|| fs::write(&other, "id\n3\n"))),
        ("another table", Box::new(|| fs::write(folder.path().join("u/1.csv"), "id\n4\n"))),
        ("one less", Box::new(|| fs::remove_file(&file))),
    ];
    for (what, change) in changes {
        change().expect(what);
        let now = settled(&source).await;
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    }
    fs::write(folder.path().join("_temporary"), "not data").expect("written");
    assert_eq!(settled(&source).await, seen[4]);
}

#[tokio::test]
async fn pinned_files_are_at_the_version_they_were_listed_at() {
    let folder = folder_of_files();
    let source = open("files", json!({ "location": folder.path(), "format": "csv" }));
    let version = settled(&source).await;
    let reading = Reading::of(&source, "t").await;
    assert!(reading.snapshot.is_fixed_by_planning());
    let pinned = reading.pin().await;
    assert_eq!((&pinned.before.position, &pinned.after), (&version, &pinned.before));
    assert_eq!(reading.rows().await, 1);

    // What changes after it was listed: another version, which is not what is pinned.
    let reading = Reading::of(&source, "t").await;
    fs::write(folder.path().join("t/2.csv"), "id\n2\n").expect("written");
    let next = settled(&source).await;
    assert_ne!(next, version);
    assert_eq!(reading.pin().await.after.position, Position::Unknown);
    assert_eq!(reading.rows().await, 1, "what was listed is read");
    // Another table's change leaves this one's rows as they are, at the version of now.
    let reading = Reading::of(&source, "t").await;
    fs::write(folder.path().join("u/2.csv"), "id\n2\n").expect("written");
    let after = settled(&source).await;
    assert_eq!(reading.pin().await.after.position, after);
}

#[tokio::test]
async fn an_export_is_where_its_position_file_says() {
    let folder = folder_of_files();
    let mark = folder.path().join("_position.json");
    let options = json!({
        "location": folder.path(), "format": "csv", "position_file": "_position.json"
    });
    let source = open("files", options);
    let unknown = source.position().await.expect("it answers");
    assert_eq!(unknown, CopyPosition { follows: true, ..CopyPosition::default() });
    assert_eq!(Reading::of(&source, "t").await.pin().await.before, unknown);

    let write = |text: &str| fs::write(&mark, text).expect("written");
    write(r#"{"position": "7:1:0/10", "seen": "7:1:0/20"}"#);
    assert_eq!(at(&source).await, Position::log(7, 1, 0x10));
    let reading = Reading::of(&source, "t").await;
    let pinned = reading.pin().await;
    assert_eq!(pinned.before.position, Position::log(7, 1, 0x10));
    assert_eq!(pinned.after.position, Position::log(7, 1, 0x20));
    assert!(pinned.before.follows && pinned.after.follows);
    assert_eq!(reading.rows().await, 1);
    let names: Vec<_> = source.tables().await.expect("listed");
    assert_eq!(names.len(), 2, "the position file is no table: {names:?}");

    // The exporter was at it between the listing and the pin.
    let reading = Reading::of(&source, "t").await;
    fs::remove_file(&mark).expect("removed");
    assert_eq!(reading.pin().await.before.position, Position::Unknown);
    write(r#"{"position": "7:1:0/30"}"#);
    assert_eq!(reading.pin().await.after.position, Position::Unknown);
    assert_eq!(at(&source).await, Position::log(7, 1, 0x30));

    for broken in ["", "{}", "7:1:0/30", r#"{"position": ""}"#, r#"{"position": "a", "x": 1}"#] {
        write(broken);
        assert_eq!(at(&source).await, Position::Unknown, "{broken}");
    }
    write(r#"{"position": "sqlite-1.2.3"}"#);
    assert_eq!(at(&source).await, Position::version("sqlite-1.2.3"));

    for wrong in ["position.json", "../_position.json", "/_position.json"] {
        let options = json!({ "location": folder.path(), "position_file": wrong });
        let Value::Object(options) = options else { panic!("a table") };
        let opened =
            synoptic_connectors::open("files", SourceName::new("s"), options, Path::new("/"));
        assert_eq!(opened.expect_err(wrong).path, ["position_file"]);
    }
}

//! Projection, filters, limits, batches, and what the server is sent.

use std::time::Duration;

use datafusion::common::stats::Precision;
use datafusion::prelude::{Expr, col, lit};
use futures::TryStreamExt;
use serde_json::json;
use synoptic_source::{ErrorKind, Fragment, Pushdown};
use synoptic_types::Position;

use super::{Db, Run, assert_error, first_error, open, read, rows, texts};

const PEOPLE: &str = "\
    CREATE TABLE people (id int PRIMARY KEY, name text NOT NULL, age int, code char(5)); \
    INSERT INTO people SELECT i, 'name ' || i, NULLIF(i % 10, 0), 'c' || i % 7 \
        FROM generate_series(1, 1000) i; \
    ANALYZE people;";

#[tokio::test]
async fn the_text_is_one_copy_with_everything_in_it() {
    let db = Db::with_options(PEOPLE, json!({ "max_query_rows": 0 })).await;
    let filters = vec![col("age").gt(lit(3)), col("name").eq(lit("it's"))];
    let table = db.table("people").await;
    for filter in &filters {
        assert_eq!(db.source.pushdown(&table, filter), Pushdown::Exact, "{filter}");
    }
    let fragment = Fragment { table, projection: vec![1, 0], filters, limit: Some(5) };
    let run = Run::new(&db.source);
    let scan = run.prepare(fragment).await;
    assert_eq!(
        scan.remote_text(),
        format!(
            "/* synoptic query_id={} */ COPY (SELECT \"name\", \"id\" FROM \"public\".\"people\" \
             WHERE \"age\" > 3 AND \"name\" = 'it''s'::text LIMIT 5) TO STDOUT (FORMAT BINARY)",
            run.statement.query_id
        )
    );
    assert_eq!(scan.partitions(), 1);
    let schema = scan.schema();
    let names: Vec<_> =
        schema.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
    assert_eq!(names, [("name", false), ("id", false)]);
}

#[tokio::test]
async fn filters_and_limits_are_applied_at_the_server() {
    let db = Db::new(PEOPLE).await;
    let table = db.table("people").await;
    let read_with = async |filters: Vec<Expr>, limit| {
        let fragment = Fragment { filters, limit, ..Fragment::table(table.clone()) };
        rows(&read(&db.source, fragment).await.expect("it is read"))
    };
    assert_eq!(read_with(vec![col("age").is_null()], None).await, 100);
    assert_eq!(read_with(vec![col("age").eq(lit(4)), col("id").lt(lit(100))], None).await, 10);
    assert_eq!(read_with(vec![], Some(7)).await, 7);
    assert_eq!(read_with(vec![col("id").gt(lit(995))], Some(7)).await, 5);
    assert_eq!(read_with(vec![col("id").eq(lit(-1))], None).await, 0);
    // Padded text is compared here.
    assert!(matches!(db.source.pushdown(&table, &col("code").eq(lit("c1"))), Pushdown::No(_)));
}

#[tokio::test]
async fn rows_are_counted_without_columns() {
    let db = Db::new(PEOPLE).await;
    let table = db.table("people").await;
    let run = Run::new(&db.source);
    let fragment = Fragment { projection: vec![], ..Fragment::table(table) };
    let batches: Vec<_> = run.start(fragment).await.try_collect().await.unwrap();
    assert_eq!(rows(&batches), 1000);
    assert_eq!(batches[0].num_columns(), 0);
    assert_eq!(run.counters.rows(), 1000);
    assert!(run.counters.bytes() > 0);
}

#[tokio::test]
async fn batches_have_the_size_that_was_asked_for() {
    let db = Db::new(PEOPLE).await;
    let mut run = Run::new(&db.source);
    run.batch_size = 300;
    let table = db.table("people").await;
    let batches: Vec<_> = run.start(Fragment::table(table)).await.try_collect().await.unwrap();
    let sizes: Vec<_> = batches.iter().map(|batch| batch.num_rows()).collect();
    assert_eq!(sizes, [300, 300, 300, 100]);
}

#[tokio::test]
async fn tables_without_rows_or_columns_are_read() {
    let db = Db::new(
        "CREATE TABLE empty (i int); CREATE TABLE nothing (); \
                      INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES",
    )
    .await;
    assert_eq!(rows(&db.read("empty").await.unwrap()), 0);
    assert_eq!(rows(&db.read("nothing").await.unwrap()), 2);
}

#[tokio::test]
async fn names_of_every_kind_are_quoted() {
    let long = "ä".repeat(31) + "x";
    assert_eq!(long.len(), 63);
    let db = Db::new(&format!(
        "CREATE SCHEMA \"Mixed Case\"; \
         CREATE TABLE \"Mixed Case\".\"select\" (\"User\" int, \"a\"\"b\" int, \"from\" text, \
             \"{long}\" int, \"x'y\\z\" int); \
         INSERT INTO \"Mixed Case\".\"select\" VALUES (1, 2, 'three', 4, 5); \
         CREATE TABLE \"{long}\" (i int); INSERT INTO \"{long}\" VALUES (6); \
         CREATE TABLE \"it's; DROP TABLE x --\" (i int); \
         INSERT INTO \"it's; DROP TABLE x --\" VALUES (7)"
    ))
    .await;
    let table = db.table("Mixed Case.select").await;
    let fragment = Fragment {
        filters: vec![
            Expr::Column(datafusion::common::Column::new_unqualified("User")).eq(lit(1)),
            Expr::Column(datafusion::common::Column::new_unqualified("a\"b")).eq(lit(2)),
        ],
        ..Fragment::table(table)
    };
    let batches = read(&db.source, fragment).await.unwrap();
    for (name, value) in
        [("User", "1"), ("a\"b", "2"), ("from", "three"), (&long, "4"), ("x'y\\z", "5")]
    {
        assert_eq!(texts(&batches, name), [value], "{name}");
    }
    assert_eq!(texts(&db.read(&long).await.unwrap(), "i"), ["6"]);
    assert_eq!(texts(&db.read("it's; DROP TABLE x --").await.unwrap(), "i"), ["7"]);
}

#[tokio::test]
async fn wide_rows_make_small_batches() {
    let db = Db::new(
        "CREATE TABLE wide (i int, t text); ALTER TABLE wide ALTER t SET STORAGE EXTERNAL; \
         INSERT INTO wide SELECT i, repeat('x', 1000000) FROM generate_series(1, 60) i",
    )
    .await;
    let batches = db.read("wide").await.unwrap();
    assert_eq!(rows(&batches), 60);
    assert!(batches.iter().all(|batch| batch.get_array_memory_size() < 10_000_000));
}

#[tokio::test]
async fn estimates_come_from_the_server() {
    let db = Db::new(&format!(
        "{PEOPLE} CREATE TABLE fresh (i int, t text); \
         CREATE VIEW seen AS SELECT * FROM people; \
         CREATE TABLE parts (i int) PARTITION BY RANGE (i); \
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (500); \
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (500) TO (2000); \
         INSERT INTO parts SELECT i FROM generate_series(0, 1999) i; ANALYZE parts_1, parts_2"
    ))
    .await;
    let estimate = async |name: &str| {
        let table = db.table(name).await;
        db.source.statistics(&table).await.expect("there are statistics")
    };
    let people = estimate("people").await;
    assert_eq!(people.num_rows, Precision::Inexact(1000));
    assert_eq!(people.column_statistics[0].distinct_count, Precision::Inexact(1000));
    assert_eq!(people.column_statistics[2].null_count, Precision::Inexact(100));
    assert_eq!(people.column_statistics[2].distinct_count, Precision::Inexact(9));
    assert!(people.column_statistics.iter().all(|c| c.sum_value == Precision::Absent));
    assert_eq!(estimate("parts").await.num_rows, Precision::Inexact(2000));
    assert_eq!(estimate("seen").await.num_rows, Precision::Absent);
    // Never analyzed: what was written, once the writer's session has told the server.
    let writer = db.server.client(&db.name).await;
    writer
        .batch_execute("INSERT INTO fresh SELECT i, 'x' FROM generate_series(1, 10000) i")
        .await
        .unwrap();
    drop(writer);
    let told = "SELECT pg_stat_get_live_tuples('fresh'::regclass)";
    while db.client.query_one(told, &[]).await.unwrap().get::<_, i64>(0) < 10_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(estimate("fresh").await.num_rows, Precision::Inexact(10_000));

    let table = db.table("people").await;
    let run = Run::new(&db.source);
    let scan = |filters, limit| {
        run.prepare(Fragment { filters, limit, projection: vec![2], table: table.clone() })
    };
    let equal = scan(vec![col("id").eq(lit(5))], None).await.statistics();
    assert_eq!(equal.num_rows, Precision::Inexact(1));
    assert_eq!(equal.column_statistics.len(), 1);
    let null = scan(vec![col("age").is_null()], None).await.statistics();
    assert_eq!(null.num_rows, Precision::Inexact(100));
    let limited = scan(vec![], Some(10)).await.statistics();
    assert_eq!(limited.num_rows, Precision::Inexact(10));
}

/// A look-up by key.
async fn one(db: &Db, id: i64) -> Fragment {
    let table = db.table("people").await;
    let filters = vec![col("id").eq(lit(id))];
    Fragment { filters, ..Fragment::table(table) }
}

#[tokio::test]
async fn few_rows_are_asked_for_together_with_their_snapshot() {
    let db = Db::new(PEOPLE).await;
    let running = "query LIKE '/* synoptic query_id=%'";
    // The first statement learns what the role may ask and opens the connection.
    for (round, begins) in [true, true, false].into_iter().enumerate() {
        let run = Run::new(&db.source);
        let scan = run.prepare(one(&db, 7).await).await;
        let text = scan.remote_text();
        assert!(text.contains("*/ SELECT \"id\"") && !text.contains("COPY"), "{text}");
        let pinned = match begins {
            true => run.snapshot.pin_for_its_scan().await,
            false => run.snapshot.pin().await,
        };
        let pinned = pinned.expect("the snapshot is pinned");
        assert!(pinned.confirmed);
        assert_ne!(pinned.before.position, Position::Unknown);
        assert_ne!(pinned.after.position, Position::Unknown);
        assert_eq!(db.sessions(running).await, i64::from(begins), "the read was begun: {begins}");
        // What is committed now is too late.
        db.execute("UPDATE people SET name = name || '!' WHERE id = 7").await;
        let batches: Vec<_> = run.open(&scan).try_collect().await.expect("it is read");
        assert_eq!(texts(&batches, "name"), [format!("name 7{}", "!".repeat(round))]);
        assert!(run.counters.bytes() > 0);
        drop((run, scan, batches));
        db.until_none("state <> 'idle'").await;
    }
}

#[tokio::test]
async fn few_rows_that_nobody_reads_are_given_up() {
    let db = Db::new(PEOPLE).await;
    for _ in 0..3 {
        let run = Run::new(&db.source);
        let scan = run.prepare(one(&db, 7).await).await;
        run.snapshot.pin_for_its_scan().await.expect("the snapshot is pinned");
        drop((run, scan));
        db.until_none("state <> 'idle'").await;
    }
    assert_eq!(rows(&read(&db.source, one(&db, 8).await).await.expect("it is read")), 1);
}

#[tokio::test]
async fn more_rows_than_were_expected_are_all_there() {
    let db = Db::new(PEOPLE).await;
    let table = db.table("people").await;
    let run = Run::new(&db.source);
    let scan = run.prepare(Fragment::table(table)).await;
    assert!(!scan.remote_text().contains("COPY"), "{}", scan.remote_text());
    db.execute(
        "INSERT INTO people SELECT i, 'name ' || i, 5, 'c' FROM generate_series(1001, 60000) i",
    )
    .await;
    run.snapshot.pin_for_its_scan().await.expect("the snapshot is pinned");
    let batches: Vec<_> = run.open(&scan).try_collect().await.expect("it is read");
    assert_eq!(rows(&batches), 60_000);
    assert!(batches.len() > 3, "in batches of the usual size");
}

#[tokio::test]
async fn a_table_that_was_changed_is_found_out_before_its_few_rows_are_handed_on() {
    let db = Db::new(PEOPLE).await;
    let fragment = one(&db, 7).await;
    let run = Run::new(&db.source);
    let scan = run.prepare(fragment.clone()).await;
    db.execute("ALTER TABLE people ADD COLUMN more int").await;
    let pinned = run.snapshot.pin_for_its_scan().await.expect("what is used is the same");
    assert!(!pinned.confirmed, "it is not the table that was described");
    let batches: Vec<_> = run.open(&scan).try_collect().await.expect("it is read");
    assert_eq!(texts(&batches, "name"), ["name 7"]);

    let run = Run::new(&db.source);
    let scan = run.prepare(fragment.clone()).await;
    db.execute("ALTER TABLE people ALTER COLUMN age TYPE bigint").await;
    let error = run.snapshot.pin_for_its_scan().await.expect_err("a column has another type");
    assert_error(&error, ErrorKind::Changed, &["people", "run it again"]);
    drop((run, scan));

    let run = Run::new(&db.source);
    let scan = run.prepare(one(&db, 7).await).await;
    db.execute("DROP TABLE people").await;
    run.snapshot.pin_for_its_scan().await.expect_err("it is gone");
    let error = first_error(run.open(&scan)).await;
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
}

#[tokio::test]
async fn few_rows_fail_as_many_do() {
    let setup = "CREATE TABLE t AS SELECT i AS id, \
                     CASE WHEN i = 40 THEN 'NaN'::numeric ELSE i END::numeric(10,2) AS n \
                     FROM generate_series(1, 50) i; ANALYZE t";
    let db = Db::new(setup).await;
    for source in
        [db.source.clone(), open(&db.server.url(&db.name), json!({ "max_query_rows": 0 }))]
    {
        let table = super::table(&source, "t").await;
        let error = read(&source, Fragment::table(table)).await.expect_err("a NaN");
        assert_error(&error, ErrorKind::Data, &["bank", "t", "n", "NaN"]);
    }
}

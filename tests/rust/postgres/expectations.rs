//! What the server's planner expects of relations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{col, lit};
use synoptic_source::{Fragment, JoinKind, Operator, Relation};

use super::{Db, rows};

/// Ten thousand trades of a hundred accounts; of those marked 'q' every one is of the first ten.
const TRADES: &str = "CREATE TABLE accounts (id int PRIMARY KEY, grade int NOT NULL); \
    INSERT INTO accounts SELECT i, i / 10 FROM generate_series(0, 99) i; \
    CREATE TABLE trades (id int PRIMARY KEY, account int NOT NULL, mark text NOT NULL); \
    INSERT INTO trades SELECT i, CASE WHEN i % 100 = 0 THEN i / 1000 ELSE i % 100 END, \
        CASE WHEN i % 100 = 0 THEN 'q' ELSE 'm' END FROM generate_series(0, 9999) i; \
    ANALYZE accounts, trades";

const ENOUGH: Duration = Duration::from_secs(5);

async fn scan(db: &Db, name: &str, filters: Vec<Expr>) -> Arc<Relation> {
    let fragment = Fragment { filters, ..Fragment::table(db.table(name).await) };
    let schema = fragment.schema();
    Arc::new(Relation { operator: Operator::Scan(fragment), schema })
}

fn joined(left: &Arc<Relation>, right: &Arc<Relation>, on: (usize, usize)) -> Arc<Relation> {
    let on = vec![(Relation::column(on.0), Relation::column(left.schema.fields().len() + on.1))];
    let fields = [left, right].into_iter().flat_map(|side| side.schema.fields().iter().cloned());
    let schema = Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()));
    let (left, right) = (Arc::clone(left), Arc::clone(right));
    let operator = Operator::Join { left, right, kind: JoinKind::Inner, on, filter: None };
    Arc::new(Relation { operator, schema })
}

fn is_near(expected: Option<f64>, true_rows: f64) {
    let expected = expected.expect("the server says something");
    assert!(
        (true_rows / 2.0..=true_rows * 2.0).contains(&expected),
        "{expected} for {true_rows} rows"
    );
}

#[tokio::test]
async fn they_know_frequent_values_and_joins() {
    let db = Db::new(TRADES).await;
    let mark = |mark: &str| vec![col("mark").eq(lit(mark))];
    let rare = scan(&db, "trades", mark("q")).await;
    let common = scan(&db, "trades", mark("m")).await;
    let accounts = scan(&db, "accounts", vec![]).await;
    let pairs = joined(&common, &accounts, (1, 0));
    let asked = [rare, common, accounts, pairs];
    let expected = db.source.expected_rows(&asked, ENOUGH).await.expect("it answers");
    assert_eq!(expected.len(), asked.len());
    for (expected, true_rows) in expected.into_iter().zip([100.0, 9900.0, 100.0, 9900.0]) {
        is_near(expected, true_rows);
    }
    assert!(db.source.expected_rows(&[], ENOUGH).await.expect("nothing is asked").is_empty());
}

/// Values that no floating-point number or clock holds say nothing of ranges, and spoil nothing.
#[tokio::test]
async fn ranges_keep_what_the_histograms_say() {
    let db = Db::new(
        "CREATE TABLE days (n int, day date, at timestamptz, naive timestamp, price numeric, x float8);
         INSERT INTO days SELECT i, DATE '2026-01-01' + i % 1000,
             TIMESTAMPTZ '2026-01-01Z' + i * interval '1 hour',
             TIMESTAMP '2026-01-01' + i * interval '1 hour', i, i FROM generate_series(0, 19999) i;
         INSERT INTO days VALUES (0, 'infinity', 'infinity', '-infinity', 'NaN', 'NaN'),
             (0, '5874897-12-31', '-infinity', '294276-12-31', 1e400, 'Infinity');
         ANALYZE days",
    )
    .await;
    let day = ScalarValue::Date32(Some(20_454));
    let micros = (20_454 * 24 + 10_000) * 3_600_000_000;
    let at = ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()));
    let naive = ScalarValue::TimestampMicrosecond(Some(micros), None);
    let later = ScalarValue::Date32(Some(20_454 + 500));
    let estimated = async |filter: Expr| {
        let relation = scan(&db, "days", vec![filter]).await;
        let Operator::Scan(fragment) = &relation.operator else { panic!("a scan") };
        let statistics = db.source.estimate(fragment).await.expect("estimates");
        statistics.num_rows.get_value().map(|rows| *rows as f64)
    };
    for (column, half) in [
        ("n", lit(10_000)),
        ("day", lit(later.clone())),
        ("at", lit(at)),
        ("naive", lit(naive)),
        ("price", lit(10_000)),
        ("x", lit(10_000.0)),
    ] {
        is_near(estimated(col(column).lt(half)).await, 10_000.0);
    }
    // Five of a thousand days.
    let few = col("day")
        .gt_eq(lit(day.clone()))
        .and(col("day").lt(lit(ScalarValue::Date32(Some(20_459)))));
    is_near(estimated(few).await, 100.0);
    let half = col("day").between(lit(day), lit(later));
    is_near(estimated(half).await, 10_000.0);
}

/// Planning locks tables: it must not wait for an `ALTER TABLE` longer than it may.
#[tokio::test]
async fn a_locked_table_costs_no_more_than_allowed() {
    let db = Db::new(TRADES).await;
    let trades = scan(&db, "trades", vec![]).await;
    db.execute("BEGIN; LOCK TABLE trades IN ACCESS EXCLUSIVE MODE").await;
    let started = Instant::now();
    let within = Duration::from_millis(50);
    let error = db.source.expected_rows(std::slice::from_ref(&trades), within).await;
    let error = error.expect_err("the table is locked").to_string();
    assert!(error.contains("timeout"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    db.until_none("wait_event_type = 'Lock'").await;
    // Who stops waiting earlier leaves nothing behind either.
    let dropped = db.source.expected_rows(std::slice::from_ref(&trades), Duration::from_secs(600));
    assert!(tokio::time::timeout(Duration::from_millis(300), dropped).await.is_err());
    db.until_none("wait_event_type = 'Lock'").await;
    db.execute("ROLLBACK").await;
    // The limits ended with their transaction, and the connection is as good as before.
    assert_eq!(rows(&db.read("trades").await.expect("it is read")), 10_000);
    let expected = db.source.expected_rows(&[trades], ENOUGH).await.expect("it answers");
    is_near(expected.into_iter().next().flatten(), 10_000.0);
    assert_eq!(db.sessions("state = 'idle in transaction'").await, 0);
}

#[tokio::test]
async fn a_table_that_is_gone_is_an_error_and_no_more() {
    let db = Db::new(TRADES).await;
    let trades = scan(&db, "trades", vec![]).await;
    db.execute("DROP TABLE trades").await;
    let asked = [trades, scan(&db, "accounts", vec![]).await];
    let error = db.source.expected_rows(&asked, ENOUGH).await.expect_err("it is gone");
    assert!(error.to_string().contains("trades"), "{error}");
    assert_eq!(rows(&db.read("accounts").await.expect("it is read")), 100);
}

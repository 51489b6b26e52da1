//! What SQLite keeps is what DataFusion keeps: random filters over hostile rows, run on a real
//! database and evaluated by DataFusion on the same rows in Arrow.

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, Like};
use datafusion::logical_expr::{BinaryExpr, Case, Expr, Operator, col, lit};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::sample::select;
use rusqlite::{Connection, params};

use super::literal::{date_text, float_text};
use super::tests::{Facts, field};
use super::{SQLITE, render_filter};

const ROWS: usize = 240;

const INTS: [i64; 9] =
    [0, 1, -1, 2, i64::MAX, i64::MIN, 9_007_199_254_740_993, -9_007_199_254_740_993, 42];
const FLOATS: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    0.1,
    0.30000000000000004,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    5e-324,
    9_007_199_254_740_992.0,
    9_223_372_036_854_775_807.0,
    1e23,
    42.0,
];
/// With two digits after the point.
const DECIMALS: [i128; 8] = [0, 1, -1, 1234, -1234, 4200, 999_999_999_999, 10];
const TEXTS: [&str; 22] = [
    "",
    " ",
    "a",
    "A",
    "ab",
    "ab ",
    "aB",
    "ac",
    "b",
    "é",
    "e\u{301}",
    "it's",
    "%",
    "_",
    "\\",
    "a_c",
    "10",
    "9",
    "\u{D7FF}",
    "\u{E000}x",
    "\u{10FFFF}",
    "2024-01-05",
];
const BLOBS: [&[u8]; 5] = [b"", b"a", b"A", b"\x00\xff", b"ab"];
/// Days from 1970: 0001-01-01, before and at the epoch, a leap day, 9999-12-31.
const DATES: [i32; 7] = [-719_162, -1, 0, 1, 11_016, 19_727, 2_932_896];

/// One row; every value may be NULL.
type Row = (
    Option<bool>,
    Option<i64>,
    Option<f64>,
    Option<i128>,
    Option<String>,
    Option<String>,
    Option<Vec<u8>>,
    Option<i32>,
);

fn schema() -> Schema {
    let mut nocase = field("k", DataType::Utf8, "TEXT");
    nocase.metadata_mut().insert("collation".to_owned(), "NOCASE".to_owned());
    Schema::new(vec![
        field("b", DataType::Boolean, "BOOLEAN"),
        field("i", DataType::Int64, "INTEGER"),
        field("f", DataType::Float64, "REAL"),
        field("n", DataType::Decimal128(12, 2), "DECIMAL(12,2)"),
        field("c", DataType::Utf8, "TEXT"),
        nocase,
        field("y", DataType::Binary, "BLOB"),
        field("d", DataType::Date32, "DATE"),
    ])
}

/// Rows that meet every hostile value, also next to each other and next to NULL.
fn rows() -> Vec<Row> {
    fn pick<T: Clone>(values: &[T], i: usize) -> Option<T> {
        // One in so many is NULL; the steps are coprime, so columns do not move together.
        let i = i % (values.len() + 1);
        values.get(i).cloned()
    }
    let hostile_text = |i: usize| match i % 23 {
        22 => Some("a\0b".to_owned()),
        _ => pick(&TEXTS, i).map(str::to_owned),
    };
    (0..ROWS)
        .map(|i| {
            (
                pick(&[true, false], i),
                pick(&INTS, i / 3),
                pick(&FLOATS, i * 7 / 2),
                pick(&DECIMALS, i * 5 / 3),
                hostile_text(i),
                hostile_text(i * 5 + 1),
                pick(&BLOBS, i / 2).map(<[u8]>::to_vec),
                pick(&DATES, i * 3 / 2),
            )
        })
        .collect()
}

fn decimal(unscaled: i128) -> String {
    super::literal::plain(&ScalarValue::Decimal128(Some(unscaled), 12, 2))
        .map(|plain| match plain {
            super::literal::Plain::Decimal(text) => text,
            other => panic!("{other:?}"),
        })
        .expect("a decimal")
}

fn date(days: i32) -> String {
    match super::literal::plain(&ScalarValue::Date32(Some(days))) {
        Ok(super::literal::Plain::Date(date)) => date_text(date),
        other => panic!("{other:?}"),
    }
}

fn database(rows: &[Row]) -> Connection {
    let connection = Connection::open_in_memory().expect("open");
    connection
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, b BOOLEAN, i INTEGER, f REAL, n DECIMAL(12,2),
                            c TEXT, k TEXT COLLATE NOCASE, y BLOB, d DATE);
             CREATE INDEX t_c ON t(c); CREATE INDEX t_n ON t(n); CREATE INDEX t_d ON t(d);",
        )
        .expect("create");
    for (id, (b, i, f, n, c, k, y, d)) in rows.iter().enumerate() {
        let (n, d) = (n.map(decimal), d.map(date));
        connection
            .execute(
                "INSERT INTO t VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![id as i64, b, i, f, n, c, k, y, d],
            )
            .expect("insert");
    }
    connection
}

fn batch(rows: &[Row]) -> RecordBatch {
    fn column<T, A: FromIterator<Option<T>>>(rows: &[Row], get: impl Fn(&Row) -> Option<T>) -> A {
        rows.iter().map(get).collect()
    }
    let decimals: Decimal128Array = column(rows, |r| r.3);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(column::<_, BooleanArray>(rows, |r| r.0)),
        Arc::new(column::<_, Int64Array>(rows, |r| r.1)),
        Arc::new(column::<_, Float64Array>(rows, |r| r.2)),
        Arc::new(decimals.with_precision_and_scale(12, 2).expect("fits")),
        Arc::new(column::<_, StringArray>(rows, |r| r.4.clone())),
        Arc::new(column::<_, StringArray>(rows, |r| r.5.clone())),
        Arc::new(column::<_, BinaryArray>(rows, |r| r.6.clone())),
        Arc::new(column::<_, Date32Array>(rows, |r| r.7)),
    ];
    RecordBatch::try_new(Arc::new(schema()), columns).expect("batch")
}

/// A column and a literal of its type.
fn column_and_literal() -> BoxedStrategy<(Expr, Expr)> {
    let texts = select(TEXTS.as_slice()).prop_map(|v| lit(ScalarValue::Utf8(Some(v.to_owned()))));
    prop_oneof![
        any::<bool>().prop_map(|v| (col("b"), lit(v))),
        select(INTS.as_slice()).prop_map(|v| (col("i"), lit(v))),
        select(FLOATS.as_slice()).prop_map(|v| (col("f"), lit(v))),
        any::<f64>().prop_map(|v| (col("f"), lit(v))),
        select(DECIMALS.as_slice())
            .prop_map(|v| (col("n"), lit(ScalarValue::Decimal128(Some(v), 12, 2)))),
        (select(vec!["c", "k"]), texts).prop_map(|(name, text)| (col(name), text)),
        select(BLOBS.as_slice())
            .prop_map(|v| (col("y"), lit(ScalarValue::Binary(Some(v.to_vec()))))),
        select(DATES.as_slice()).prop_map(|v| (col("d"), lit(ScalarValue::Date32(Some(v))))),
    ]
    .boxed()
}

fn comparison() -> impl Strategy<Value = Expr> {
    let op = select(vec![
        Operator::Eq,
        Operator::NotEq,
        Operator::Lt,
        Operator::LtEq,
        Operator::Gt,
        Operator::GtEq,
        Operator::IsDistinctFrom,
        Operator::IsNotDistinctFrom,
    ]);
    (column_and_literal(), op, any::<bool>()).prop_map(|((column, literal), op, swapped)| {
        let (left, right) = if swapped { (literal, column) } else { (column, literal) };
        Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
    })
}

fn pattern() -> impl Strategy<Value = Expr> {
    let piece = select(vec!["a", "B", "%", "_", "\\%", "é", "'", "\\", "\u{D7FF}", "\u{10FFFF}"]);
    let text = proptest::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat());
    (select(vec!["c", "k"]), text, any::<bool>()).prop_map(|(name, text, negated)| {
        Expr::Like(Like::new(negated, Box::new(col(name)), Box::new(lit(text)), None, false))
    })
}

fn leaf() -> impl Strategy<Value = Expr> {
    let list = (column_and_literal(), any::<bool>()).prop_map(|((column, literal), negated)| {
        // The literal and its neighbours by type: enough to be a real list.
        let list = vec![literal.clone(), literal];
        Expr::InList(InList::new(Box::new(column), list, negated))
    });
    let between = (column_and_literal(), column_and_literal(), any::<bool>()).prop_map(
        |((column, low), (_, high), negated)| {
            let same = low_type(&low) == low_type(&high);
            let high = if same { high } else { low.clone() };
            let parts = (Box::new(column), Box::new(low), Box::new(high));
            Expr::Between(Between::new(parts.0, negated, parts.1, parts.2))
        },
    );
    prop_oneof![
        6 => comparison(),
        2 => pattern(),
        1 => list,
        1 => between,
        1 => select(vec!["b", "i", "f", "n", "c", "y", "d"]).prop_map(|name| col(name).is_null()),
        1 => Just(col("b")),
        1 => Just(col("c").lt(col("k"))),
        1 => (column_and_literal(), comparison()).prop_map(|((column, literal), when)| {
            // CASE WHEN … THEN column ELSE literal END = literal
            let case = Case::new(
                None,
                vec![(Box::new(when), Box::new(column))],
                Some(Box::new(literal.clone())),
            );
            Expr::Case(case).eq(literal)
        }),
    ]
}

fn low_type(expr: &Expr) -> DataType {
    match expr {
        Expr::Literal(value, _) => value.data_type(),
        _ => DataType::Null,
    }
}

fn condition() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or(b)),
            inner.clone().prop_map(|a| Expr::Not(Box::new(a))),
            inner.clone().prop_map(|a| a.is_true()),
            inner.clone().prop_map(|a| a.is_not_false()),
            inner.clone().prop_map(|a| a.is_unknown()),
            (inner.clone(), inner).prop_map(|(a, b)| a.eq(b)),
        ]
    })
}

/// The rows SQLite keeps.
fn kept_there(connection: &Connection, filter: &str) -> Vec<usize> {
    let sql = format!("SELECT id FROM t WHERE {filter} ORDER BY id");
    let mut statement = connection.prepare(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let ids = statement.query_map([], |row| row.get::<_, i64>(0)).expect("query");
    ids.map(|id| usize::try_from(id.expect("row")).expect("id")).collect()
}

/// The rows DataFusion keeps, evaluating the expression as it stands.
fn kept_here(context: &SessionContext, batch: &RecordBatch, filter: &Expr) -> Vec<usize> {
    let schema = DFSchema::try_from(batch.schema()).expect("schema");
    let filter = context.create_physical_expr(filter.clone(), &schema).expect("physical");
    let kept = filter.evaluate(batch).expect("evaluate");
    let kept = kept.into_array(batch.num_rows()).expect("array");
    let kept = kept.as_boolean();
    (0..kept.len()).filter(|&row| kept.is_valid(row) && kept.value(row)).collect()
}

#[test]
fn sqlite_keeps_the_rows_datafusion_keeps() {
    let rows = rows();
    let (connection, batch) = (database(&rows), batch(&rows));
    let context = SessionContext::new();
    let facts = Facts(batch.schema());
    let (rendered, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    let outcome = runner.run(&condition(), |filter| {
        match render_filter(&filter, &batch.schema(), &facts, &SQLITE) {
            Ok(sql) => {
                rendered.set(rendered.get() + 1);
                let there = kept_there(&connection, &sql);
                let here = kept_here(&context, &batch, &filter);
                prop_assert_eq!(there, here, "{} rendered as {}", filter, sql);
            }
            Err(_) => refused.set(refused.get() + 1),
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let (rendered, refused) = (rendered.get(), refused.get());
    assert!(rendered > refused, "{rendered} rendered, {refused} refused: nothing is proved");
}

#[test]
fn sqlite_reads_every_float_we_write() {
    let connection = Connection::open_in_memory().expect("open");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(20_000));
    let floats = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |v| v.is_finite());
    let outcome = runner.run(&floats, |value| {
        let text = float_text(value);
        let read: f64 =
            connection.query_row(&format!("SELECT {text}"), [], |row| row.get(0)).expect("select");
        // SQLite has one zero when it is a literal.
        prop_assert!(
            read.to_bits() == value.to_bits() || value == 0.0,
            "{} read as {}",
            text,
            read
        );
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn sqlite_tells_apart_and_orders_decimals_of_fifteen_digits() {
    let connection = Connection::open_in_memory().expect("open");
    connection.execute_batch("CREATE TABLE t(n DECIMAL(15,6))").expect("create");
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(5000));
    let limit = 999_999_999_999_999_i128;
    let pairs = (-limit..=limit, prop_oneof![Just(0_i128), -2..=2_i128, -limit..=limit]);
    let outcome = runner.run(&pairs, |(stored, distance)| {
        let other = (stored + distance).clamp(-limit, limit);
        let text = |v: i128| {
            let sign = if v < 0 { "-" } else { "" };
            let v = v.unsigned_abs();
            format!("{sign}{}.{:06}", v / 1_000_000, v % 1_000_000)
        };
        connection.execute("DELETE FROM t", []).expect("delete");
        connection.execute("INSERT INTO t VALUES (?1)", [text(stored)]).expect("insert");
        for (op, holds) in [("=", stored == other), ("<", stored < other), (">=", stored >= other)]
        {
            let sql = format!("SELECT n {op} ({}) FROM t", text(other));
            let there: bool = connection.query_row(&sql, [], |row| row.get(0)).expect("select");
            prop_assert_eq!(there, holds, "{} {} {}", stored, op, other);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

//! What needs no database file.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, col, lit};
use rusqlite::Connection;
use synoptic_types::TableName;

use super::discover::{Detail, describe, stamp};
use super::filter::{Rendered, render};
use super::types::Kind;

#[test]
fn declared_types_follow_names_and_affinity() {
    let decimal = |precision, scale| Kind::Decimal { precision, scale };
    for (declared, kind) in [
        ("INTEGER", Kind::Int),
        ("unsigned big int", Kind::Int),
        ("TINYINT(1)", Kind::Int),
        ("CHARINT", Kind::Int),
        ("varchar(255)", Kind::Text),
        ("NATIVE CHARACTER(70)", Kind::Text),
        ("BLOB", Kind::Blob),
        ("double  precision", Kind::Float),
        ("FLOAT", Kind::Float),
        ("boolean", Kind::Bool),
        ("Bool", Kind::Bool),
        ("date", Kind::Date),
        ("datetime", Kind::Timestamp),
        ("TIMESTAMP(6) WITHOUT TIME ZONE", Kind::Timestamp),
        ("timestamp (3) with time zone", Kind::Moment),
        ("DECIMAL(10,2)", decimal(10, 2)),
        ("numeric ( 5 )", decimal(5, 0)),
        ("NUMERIC", decimal(38, 18)),
        ("DECIMAL(60, 2)", decimal(38, 2)),
        ("DECIMAL(2, 5)", decimal(5, 5)),
        ("DECIMAL(10, -2)", Kind::Any),
        ("DECIMAL(99, 99)", Kind::Any),
        ("", Kind::Any),
        ("NUM", Kind::Any),
        ("JSON", Kind::Any),
        ("UUID", Kind::Any),
        ("INTERVAL", Kind::Any),
        (")(", Kind::Any),
    ] {
        assert_eq!(Kind::of(declared), kind, "{declared}");
    }
}

fn described(sql: &str, table: &str) -> (Schema, Detail) {
    let connection = Connection::open_in_memory().expect("open");
    connection.execute_batch(sql).expect(sql);
    let def = describe(&connection, &TableName::new("main", table)).expect("described");
    let def = def.expect("there");
    assert_eq!(stamp(&connection, table).expect("stamped"), Some(def.stamp.clone()));
    let detail = def.detail::<Detail>().expect("ours").clone();
    (def.schema.as_ref().clone(), detail)
}

fn rendered(filter: &Expr, (schema, detail): &(Schema, Detail)) -> String {
    match render(filter, schema, detail) {
        Ok(Rendered::Exact(sql)) => format!("exact: {sql}"),
        Ok(Rendered::Inexact(sql, _)) => format!("inexact: {sql}"),
        Err(reason) => format!("stays: {reason}"),
    }
}

#[test]
fn what_a_column_is_decides_what_is_filtered_there() {
    const COLUMNS: &str = "(i INTEGER, c TEXT, k TEXT COLLATE NOCASE, a, d DATE, n DECIMAL(9,2))";
    let table = described(&format!("CREATE TABLE t{COLUMNS}"), "t");
    let view =
        described(&format!("CREATE TABLE t{COLUMNS}; CREATE VIEW v AS SELECT * FROM t"), "v");
    let virtual_table = described("CREATE VIRTUAL TABLE f USING fts5(c)", "f");
    let wide = described(&format!("PRAGMA encoding = 'UTF-16le'; CREATE TABLE t{COLUMNS}"), "t");

    let text = |name: &str| col(name).gt(lit("m"));
    assert_eq!(rendered(&text("c"), &table), r#"exact: "c" > 'm'"#);
    assert_eq!(rendered(&text("k"), &table), r#"exact: (+"k") COLLATE BINARY > 'm'"#);
    assert_eq!(rendered(&text("c"), &view), r#"exact: (+"c") COLLATE BINARY > 'm'"#);
    assert!(rendered(&text("a"), &table).contains("several types"));
    assert!(rendered(&text("c"), &virtual_table).starts_with("stays"));
    assert_eq!(rendered(&col("c").is_null(), &virtual_table), r#"exact: "c" IS NULL"#);
    // UTF-16 does not sort by code point.
    assert!(rendered(&text("c"), &wide).starts_with("stays"));
    assert_eq!(rendered(&col("i").eq(lit(1_i64)), &wide), r#"exact: "i" = 1"#);
    let day = col("d").eq(lit(ScalarValue::Date32(Some(0))));
    assert_eq!(rendered(&day, &view), r#"exact: (+"d") COLLATE BINARY = '1970-01-01'"#);
    let price = col("n").eq(lit(ScalarValue::Decimal128(Some(100), 9, 2)));
    assert_eq!(rendered(&price, &table), r#"exact: "n" = 1.00"#);
    assert!(rendered(&price, &view).starts_with("stays"), "a view may hold decimals as text");
}

#[test]
fn timestamps_skip_whole_days() {
    let table = described("CREATE TABLE t(ts DATETIME, tz TIMESTAMPTZ)", "t");
    let noon = 1_704_412_800_000_000 + 12 * 3_600_000_000_i64;
    let naive = lit(ScalarValue::TimestampMicrosecond(Some(noon), None));
    let moment = lit(ScalarValue::TimestampMicrosecond(Some(noon), Some("UTC".into())));
    let end = lit(ScalarValue::TimestampSecond(Some(253_402_300_799), None));
    let ts = || col("ts");
    for (filter, expected) in [
        (ts().gt(naive.clone()), r#"inexact: "ts" >= '2024-01-05'"#),
        (naive.clone().gt(ts()), r#"inexact: "ts" < '2024-01-06'"#),
        (ts().lt_eq(naive.clone()), r#"inexact: "ts" < '2024-01-06'"#),
        (ts().eq(naive.clone()), r#"inexact: "ts" >= '2024-01-05' AND "ts" < '2024-01-06'"#),
        (
            ts().between(naive.clone(), naive.clone()),
            r#"inexact: "ts" >= '2024-01-05' AND "ts" < '2024-01-06'"#,
        ),
        (col("tz").gt(moment.clone()), r#"inexact: "tz" >= '2024-01-04'"#),
        (col("tz").lt(moment), r#"inexact: "tz" < '2024-01-07'"#),
        (ts().gt(naive.clone()).and(ts().not_eq(end.clone())), r#"inexact: "ts" >= '2024-01-05'"#),
    ] {
        assert_eq!(rendered(&filter, &table), expected, "{filter}");
    }
    for filter in [
        ts().not_eq(naive.clone()),
        ts().lt(end),
        ts().gt(naive.clone()).or(ts().is_null()),
        !ts().gt(naive.clone()),
        col("tz").gt(naive),
    ] {
        assert!(rendered(&filter, &table).starts_with("stays"), "{filter}");
    }
}

#[test]
fn a_column_of_another_table_stays_here() {
    let table = (
        Schema::new(vec![Field::new("i", DataType::Int64, true)]),
        described("CREATE TABLE t(i INTEGER)", "t").1,
    );
    assert!(rendered(&col("j").is_null(), &table).contains("column j of another table"));
}

//! The text each dialect gets, and what is refused. Filters are written in SQL and taken from
//! DataFusion's optimised plan, as a source sees them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, col, lit};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;

/// Facts of a test's columns: the arrow field's metadata says them.
pub(super) struct Facts(pub SchemaRef);

impl Columns for Facts {
    fn facts(&self, column: &str) -> Option<ColumnFacts> {
        let field = self.0.field_with_name(column).ok()?;
        let native = field.metadata().get("native")?.clone();
        Some(ColumnFacts {
            padded_char: native == "bpchar",
            native_type: native,
            collation_is_binary: !field.metadata().contains_key("collation"),
        })
    }
}

pub(super) fn field(name: &str, data_type: DataType, native: &str) -> Field {
    let metadata = [("native".to_owned(), native.to_owned())].into();
    Field::new(name, data_type, true).with_metadata(metadata)
}

fn collated(name: &str, native: &str) -> Field {
    let mut field = field(name, DataType::Utf8, native);
    field.metadata_mut().insert("collation".to_owned(), "other".to_owned());
    field
}

/// The filter of `SELECT * FROM t WHERE condition` after DataFusion's optimizer.
pub(super) async fn optimised(schema: &SchemaRef, condition: &str) -> Expr {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let batch = RecordBatch::new_empty(Arc::clone(schema));
    let table = MemTable::try_new(Arc::clone(schema), vec![vec![batch]]).expect("table");
    context.register_table("t", Arc::new(table)).expect("register");
    let sql = format!("SELECT * FROM t WHERE {condition}");
    let plan = context.sql(&sql).await.expect(condition).into_optimized_plan().expect(condition);
    let mut predicates = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            predicates.push(filter.predicate.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("walk");
    conjunction(predicates).unwrap_or_else(|| panic!("no filter is left of {condition}: {plan}"))
}

fn render(schema: &SchemaRef, expr: &Expr, dialect: &dyn Dialect) -> Result<String, String> {
    render_filter(expr, schema, &Facts(Arc::clone(schema)), dialect).map_err(|r| r.to_string())
}

fn postgres_schema() -> SchemaRef {
    use DataType::*;
    let timestamp = |zone: Option<&str>| Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Arc::new(Schema::new(vec![
        field("b", Boolean, "bool"),
        field("i2", Int16, "int2"),
        field("i4", Int32, "int4"),
        field("i8", Int64, "int8"),
        field("f4", Float32, "float4"),
        field("f8", Float64, "float8"),
        field("n", Decimal128(12, 2), "numeric(12,2)"),
        field("c", Utf8, "text"),
        collated("w", "character varying(20)"),
        collated("w2", "text"),
        field("pad", Utf8, "bpchar"),
        field("u", Utf8, "uuid"),
        field("ip", Utf8, "inet"),
        field("by", Binary, "bytea"),
        field("d", Date32, "date"),
        field("tm", Time64(TimeUnit::Microsecond), "time without time zone"),
        field("ts", timestamp(None), "timestamp(3) without time zone"),
        field("tz", timestamp(Some("+00:00")), "timestamptz"),
        Field::new("Odd \"name\"", Int32, true)
            .with_metadata([("native".to_owned(), "integer".to_owned())].into()),
        Field::new("unknown", Utf8, true),
    ]))
}

async fn postgres(condition: &str) -> String {
    let schema = postgres_schema();
    let expr = optimised(&schema, condition).await;
    match render(&schema, &expr, &POSTGRES) {
        Ok(sql) => sql,
        Err(reason) => format!("stays: {reason}"),
    }
}

#[tokio::test]
async fn postgres_renders_what_means_the_same() {
    let mut wrong = Vec::new();
    for (condition, expected) in [
        // Integers, of any width.
        ("i4 = 5", r#""i4" = 5"#),
        ("5 < i8", r#""i8" > 5"#),
        ("i2 <> -3", r#""i2" <> (-3)"#),
        ("i4 < 5000000000", r#""i4" < 5000000000"#),
        ("i8 >= -9223372036854775808", r#""i8" >= (-9223372036854775808)"#),
        ("i4 = i8", r#""i4" = "i8""#),
        (r#""Odd ""name""" = 1"#, r#""Odd ""name""" = 1"#),
        // Floats.
        ("f8 > 0.1", r#""f8" > '0.1'::float8"#),
        ("f8 = 'NaN'::double", r#""f8" = 'NaN'::float8"#),
        ("f8 < arrow_cast('inf', 'Float64')", r#""f8" < 'Infinity'::float8"#),
        ("f4 = f8", r#"CAST("f4" AS float8) = "f8""#),
        ("i4 > 1.5::double", r#"CAST("i4" AS float8) > '1.5'::float8"#),
        // Decimals, exactly.
        ("n = 12.34", r#""n" = '12.34'::numeric"#),
        ("n > -0.05", r#""n" > '-0.05'::numeric"#),
        ("n < 24", r#""n" < '24.00'::numeric"#),
        ("n = 1.2345", r#""n" = '1.234500000000000'::numeric"#),
        ("n = i4", r#""n" = "i4""#),
        // Text by its bytes, and text under another collation.
        ("c = 'it''s'", r#""c" = 'it''s'::text"#),
        (r"c = 'back\slash'", r#""c" = E'back\\slash'::text"#),
        ("c > 'm'", r#""c" > 'm'::text"#),
        ("w = 'é'", r#""w" = 'é'::text"#),
        ("w > 'm'", r#""w" COLLATE "C" > 'm'::text"#),
        ("w = w2", r#""w2" COLLATE "C" = "w""#),
        ("w IN ('a', 'b', 'c', 'd')", r#""w" IN ('a'::text, 'b'::text, 'c'::text, 'd'::text)"#),
        (
            "u = '0123abcd-0000-0000-0000-000000000000'",
            r#""u" = '0123abcd-0000-0000-0000-000000000000'::uuid"#,
        ),
        // Bytes.
        ("by = X'DEADBEEF'", r#""by" = decode('deadbeef', 'hex')"#),
        // Dates and times, before 1970 too.
        ("d >= DATE '1969-12-31'", r#""d" >= DATE '1969-12-31'"#),
        (
            "d BETWEEN '2024-01-01' AND '2024-12-31'",
            r#""d" >= DATE '2024-01-01' AND "d" <= DATE '2024-12-31'"#,
        ),
        (
            "tm < arrow_cast('12:30:00.5', 'Time64(Microsecond)')",
            r#""tm" < TIME '12:30:00.500000'"#,
        ),
        (
            "ts = TIMESTAMP '1960-02-29T23:59:59.123456'",
            r#""ts" = TIMESTAMP '1960-02-29 23:59:59.123456'"#,
        ),
        (
            "tz > TIMESTAMPTZ '2024-03-31T02:30:00+02:00'",
            r#""tz" > TIMESTAMPTZ '2024-03-31 00:30:00+00'"#,
        ),
        (
            "tz >= TIMESTAMPTZ '2024-03-31T00:00:00Z' - INTERVAL '1 minute'",
            r#""tz" >= TIMESTAMPTZ '2024-03-30 23:59:00+00'"#,
        ),
        // Logic.
        ("b", r#""b""#),
        ("NOT b", r#"NOT "b""#),
        ("b IS NOT TRUE", r#""b" IS NOT TRUE"#),
        ("(i4 = 1) IS UNKNOWN", r#"("i4" = 1) IS UNKNOWN"#),
        ("i4 = 1 AND (b OR c = 'x')", r#""i4" = 1 AND ("b" OR "c" = 'x'::text)"#),
        ("i4 = 1 OR b AND c = 'x'", r#"("i4" = 1 OR ("b" AND "c" = 'x'::text))"#),
        ("(i4 = 1) = b", r#"("i4" = 1) = "b""#),
        ("i4 IS DISTINCT FROM 3", r#""i4" IS DISTINCT FROM 3"#),
        ("i4 IS NOT DISTINCT FROM i2", r#""i4" IS NOT DISTINCT FROM "i2""#),
        ("ip IS NULL", r#""ip" IS NULL"#),
        ("unknown IS NOT NULL", r#""unknown" IS NOT NULL"#),
        ("i4 NOT IN (1, 2, 3, 4)", r#""i4" NOT IN (1, 2, 3, 4)"#),
        // Patterns.
        ("c LIKE 'a%b_'", r#""c" LIKE 'a%b_'::text"#),
        (r"w NOT LIKE '50\%%'", r#"NOT ("w" LIKE E'50\\%%'::text)"#),
        (r"c LIKE '\a_\\'", r#""c" LIKE E'a_\\\\'::text"#),
        ("starts_with(c, '5%')", r#""c" LIKE E'5\\%%'::text"#),
        // Arithmetic that cannot overflow.
        ("n * 2 > 10", r#"("n" * '2'::numeric) > '10.00'::numeric"#),
        ("i4 + i2 > 10", r#"stays: the arithmetic may overflow"#),
        ("i4::bigint + 1 > i8", r#"(CAST("i4" AS int8) + 1) > "i8""#),
        ("abs(n) = 1", r#"abs("n") = '1.00'::numeric"#),
        ("character_length(w) = 3", r#"char_length("w") = 3"#),
        (
            "coalesce(w, 'x') > 'm'",
            r#"CASE WHEN "w" IS NOT NULL THEN "w" ELSE 'x'::text END COLLATE "C" > 'm'::text"#,
        ),
        (
            "CASE WHEN i4 > 0 THEN n ELSE 0 END = 5",
            r#"CASE WHEN "i4" > 0 THEN "n" ELSE '0.00'::numeric END = '5.00'::numeric"#,
        ),
    ] {
        let text = postgres(condition).await;
        if text != expected {
            wrong.push(format!(
                "{condition}
  is       {text}
  and not  {expected}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn postgres_keeps_here_what_might_differ() {
    let mut wrong = Vec::new();
    for (condition, part) in [
        ("pad = 'ab'", "char(n)"),
        ("ip = '10.0.0.1'", "is inet at the source"),
        ("unknown = 'x'", "not compared at the source"),
        ("u = 'ABC'", "canonical text"),
        ("c ILIKE 'a%'", "folds case"),
        ("c ~ 'a+'", "is not on the source's allow-list"),
        ("upper(c) = 'A'", "upper()"),
        ("random() > 0.5", "volatile"),
        ("i8 + 1 > 5", "overflow"),
        ("i8 * i8 > 5", "overflow"),
        ("i4 / 2 = 1", "operator /"),
        ("f8 + 1 > 5", "operator +"),
        ("i8::double::varchar = '1'", "a cast from"),
        ("n::double > 0.1", "a cast from a decimal"),
        ("ts::date = DATE '2024-01-01'", "a cast from a timestamp to a date"),
        ("c LIKE w", "varying pattern"),
        ("c IN ('a', 'b', 'c', NULL)", "NULL"),
        ("f8 IN (1.0, 2.0, 3.0, 0.0)", "zero"),
        ("d < DATE '0001-01-01' - INTERVAL '1 day'", "1 to 9999"),
        ("c = arrow_cast(concat('a', chr(0)), 'Utf8')", "NUL"),
    ] {
        let text = postgres(condition).await;
        if !(text.starts_with("stays: ") && text.contains(part)) {
            wrong.push(format!(
                "{condition}
  is       {text}
  without  {part}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sqlite_schema() -> SchemaRef {
    use DataType::*;
    Arc::new(Schema::new(vec![
        field("b", Boolean, "BOOLEAN"),
        field("i", Int64, "INTEGER"),
        field("f", Float64, "REAL"),
        field("n", Decimal128(12, 2), "DECIMAL(12,2)"),
        field("big", Decimal128(30, 2), "DECIMAL(30,2)"),
        field("c", Utf8, "TEXT"),
        collated("nocase", "TEXT"),
        field("any", Utf8, ""),
        field("by", Binary, "BLOB"),
        field("d", Date32, "DATE"),
        field("ts", Timestamp(TimeUnit::Microsecond, None), "DATETIME"),
    ]))
}

async fn sqlite(condition: &str) -> String {
    let schema = sqlite_schema();
    let expr = optimised(&schema, condition).await;
    match render(&schema, &expr, &SQLITE) {
        Ok(sql) => sql,
        Err(reason) => format!("stays: {reason}"),
    }
}

#[tokio::test]
async fn sqlite_renders_what_means_the_same() {
    let mut wrong = Vec::new();
    for (condition, expected) in [
        ("b = true", r#""b""#),
        ("b IS UNKNOWN", r#""b" IS NULL"#),
        ("i = -9223372036854775808", r#""i" = (-9223372036854775808)"#),
        ("i IS DISTINCT FROM 3", r#""i" IS NOT 3"#),
        ("i IS NOT DISTINCT FROM 3", r#""i" IS 3"#),
        ("f < -1e300", r#""f" < (-1e300)"#),
        ("i < 1.5", r#"CAST("i" AS REAL) < 1.5"#),
        ("n BETWEEN 0.05 AND 0.07", r#""n" >= 0.05 AND "n" <= 0.07"#),
        ("n < 24", r#""n" < 24.00"#),
        ("c >= 'm' AND c <> 'it''s'", r#""c" >= 'm' AND "c" <> 'it''s'"#),
        ("nocase = 'x'", r#"(+"nocase") COLLATE BINARY = 'x'"#),
        ("by = X'00ff'", r#""by" = X'00ff'"#),
        ("d < DATE '1969-07-20'", r#""d" < '1969-07-20'"#),
        ("c LIKE 'ab%'", r#"("c" >= 'ab' AND "c" < 'ac')"#),
        (
            "c NOT LIKE '%a_b\\%%'",
            r#"stays: SQLite's LIKE ignores case; only a fixed prefix or part is looked for there"#,
        ),
        ("c LIKE '%o''k%'", r#"instr("c", 'o''k') > 0"#),
        ("ts IS NOT NULL", r#""ts" IS NOT NULL"#),
    ] {
        let text = sqlite(condition).await;
        if text != expected {
            wrong.push(format!(
                "{condition}
  is       {text}
  and not  {expected}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn sqlite_keeps_here_what_might_differ() {
    let mut wrong = Vec::new();
    for (condition, part) in [
        ("big = 1", "more digits"),
        ("n = arrow_cast('1.00000000000000001', 'Decimal128(30, 17)')", "more digits"),
        ("any = 'x'", "several types"),
        ("ts > TIMESTAMP '2024-01-01T00:00:00'", "several forms"),
        ("i + 1 > 5", "operator +"),
        ("-i > 5", "arithmetic"),
        ("f > 'inf'::double", "no literal"),
        ("c LIKE '%suffix'", "ignores case"),
        ("character_length(c) = 3", "character_length()"),
        ("lower(c) = 'x'", "lower()"),
    ] {
        let text = sqlite(condition).await;
        if !(text.starts_with("stays: ") && text.contains(part)) {
            wrong.push(format!(
                "{condition}
  is       {text}
  without  {part}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn long_chains_are_balanced_and_deep_nesting_is_refused() {
    let schema = sqlite_schema();
    let equals = |i: i64| col("i").eq(lit(i));
    let chain = (1..2000).fold(equals(0), |all, i| all.or(equals(i)));
    let sql = render(&schema, &chain, &SQLITE).expect("a chain is one level");
    let connection = rusqlite::Connection::open_in_memory().expect("open");
    connection.execute_batch("CREATE TABLE t(i INTEGER)").expect("create");
    connection.prepare(&format!("SELECT * FROM t WHERE {sql}")).expect("within SQLite's depth");

    let list = col("i").in_list((0..20_000).map(lit).collect(), false);
    let sql = render(&schema, &list, &SQLITE).expect("a list is one level");
    connection.prepare(&format!("SELECT * FROM t WHERE {sql}")).expect("a long list");

    let deep = (0..500).fold(equals(0), |inner, _| Expr::IsTrue(Box::new(inner)));
    let reason = render(&schema, &deep, &SQLITE).expect_err("too deep");
    assert!(reason.contains("nested deeper"), "{reason}");
}

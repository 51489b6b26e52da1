//! Every type: NULL, smallest, largest, the boundary, and what does not fit.

use arrow::array::AsArray;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType, i256,
};
use serde_json::json;
use synoptic_source::{ErrorKind, Fragment};

use super::{Db, assert_error, open, read, table, texts};

fn list(item: DataType) -> DataType {
    DataType::new_list(item, true)
}

/// Type, Arrow type, values as SQL with how they arrive. A NULL is added to each.
type Case = (&'static str, DataType, Vec<(&'static str, &'static str)>);

fn cases() -> Vec<Case> {
    let micros = TimeUnit::Microsecond;
    vec![
        ("boolean", DataType::Boolean, vec![("true", "true"), ("false", "false")]),
        ("smallint", DataType::Int16, vec![("-32768", "-32768"), ("32767", "32767")]),
        (
            "int",
            DataType::Int32,
            vec![("-2147483648", "-2147483648"), ("2147483647", "2147483647")],
        ),
        (
            "bigint",
            DataType::Int64,
            vec![
                ("-9223372036854775808", "-9223372036854775808"),
                ("9223372036854775807", "9223372036854775807"),
            ],
        ),
        (
            "real",
            DataType::Float32,
            vec![("'-0'", "-0.0"), ("'NaN'", "NaN"), ("'-Infinity'", "-inf"), ("1.5", "1.5")],
        ),
        (
            "double precision",
            DataType::Float64,
            vec![("'NaN'", "NaN"), ("'Infinity'", "inf"), ("0.1", "0.1"), ("5e-324", "5e-324")],
        ),
        (
            "numeric(15,2)",
            DataType::Decimal128(15, 2),
            vec![
                ("0", "0.00"),
                ("-0.01", "-0.01"),
                ("9999999999999.99", "9999999999999.99"),
                ("-9999999999999.99", "-9999999999999.99"),
                ("10000", "10000.00"),
                ("12345678.9", "12345678.90"),
            ],
        ),
        (
            "numeric(38,0)",
            DataType::Decimal128(38, 0),
            vec![
                (
                    "99999999999999999999999999999999999999",
                    "99999999999999999999999999999999999999",
                ),
                (
                    "-99999999999999999999999999999999999999",
                    "-99999999999999999999999999999999999999",
                ),
                ("1e37", "10000000000000000000000000000000000000"),
            ],
        ),
        (
            "numeric(38,37)",
            DataType::Decimal128(38, 37),
            vec![
                ("1e-37", "0.0000000000000000000000000000000000001"),
                (
                    "9.9999999999999999999999999999999999999",
                    "9.9999999999999999999999999999999999999",
                ),
            ],
        ),
        (
            "numeric(76,38)",
            DataType::Decimal256(76, 38),
            vec![(
                "-12345678901234567890123456789012345678.12345678901234567890123456789012345678",
                "-12345678901234567890123456789012345678.12345678901234567890123456789012345678",
            )],
        ),
        (
            "numeric(3,-2)",
            DataType::Decimal128(5, 0),
            vec![("12345", "12300"), ("-99900", "-99900")],
        ),
        ("numeric(2,4)", DataType::Decimal128(4, 4), vec![("0.0099", "0.0099")]),
        (
            "numeric",
            DataType::Decimal128(38, 18),
            vec![
                ("1e-18", "0.000000000000000001"),
                (
                    "99999999999999999999.999999999999999999",
                    "99999999999999999999.999999999999999999",
                ),
                ("1.10000000000000000000000000", "1.100000000000000000"),
            ],
        ),
        ("numeric(1000,900)", DataType::Utf8, vec![("1", leak(format!("1.{}", "0".repeat(900))))]),
        (
            "date",
            DataType::Date32,
            vec![("'1969-12-31'", "1969-12-31"), ("'0001-01-01 BC'", "0000-01-01")],
        ),
        (
            "time",
            DataType::Time64(micros),
            vec![("'00:00'", "00:00:00"), ("'23:59:59.999999'", "23:59:59.999999")],
        ),
        ("timetz", DataType::Utf8, vec![("'24:00+02'", "24:00:00+02")]),
        (
            "timestamp",
            DataType::Timestamp(micros, None),
            vec![
                ("'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.999999"),
                ("'4713-01-01 00:00 BC'", "-4712-01-01T00:00:00"),
            ],
        ),
        (
            "timestamptz",
            DataType::Timestamp(micros, Some("UTC".into())),
            vec![("'2026-03-29 02:30+01'", "2026-03-29T01:30:00Z")],
        ),
        (
            "interval",
            DataType::Interval(IntervalUnit::MonthDayNano),
            vec![(
                "'1 year -2 days 03:04:05.000006'",
                "12 mons -2 days 3 hours 4 mins 5.000006000 secs",
            )],
        ),
        ("text", DataType::Utf8, vec![("''", ""), ("'größer'", "größer")]),
        ("varchar(3)", DataType::Utf8, vec![("'abc'", "abc")]),
        ("char(4)", DataType::Utf8, vec![("'ab'", "ab  ")]),
        ("name", DataType::Utf8, vec![("'n'", "n")]),
        ("\"char\"", DataType::Utf8, vec![("'c'", "c")]),
        ("bytea", DataType::Binary, vec![("'\\x00ff'", "00ff"), ("''", "")]),
        (
            "uuid",
            DataType::Utf8,
            vec![(
                "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            )],
        ),
        ("json", DataType::Utf8, vec![("'{\"a\":  1}'", "{\"a\":  1}")]),
        ("jsonb", DataType::Utf8, vec![("'{\"a\":  1}'", "{\"a\": 1}")]),
        ("mood", DataType::Utf8, vec![("'sad'", "sad"), ("'über happy'", "über happy")]),
        ("percent", DataType::Decimal128(5, 2), vec![("12.5", "12.50")]),
        ("small_percent", DataType::Decimal128(5, 2), vec![("0.5", "0.50")]),
        ("int[]", list(DataType::Int32), vec![("'{}'", "[]"), ("'{1,NULL,3}'", "[1, NULL, 3]")]),
        (
            "int[][]",
            list(list(DataType::Int32)),
            vec![("'{}'", "[]"), ("'{{1,2},{NULL,4},{5,6}}'", "[[1, 2], [NULL, 4], [5, 6]]")],
        ),
        ("numeric(6,1)[]", list(DataType::Decimal128(6, 1)), vec![("'{1.5,NULL}'", "[1.5, NULL]")]),
        ("text[]", list(DataType::Utf8), vec![("'{a,\"b c\",NULL,\"\"}'", "[a, b c, NULL, ]")]),
        ("mood[]", list(DataType::Utf8), vec![("'{sad}'", "[sad]")]),
        ("percent[]", list(DataType::Decimal128(5, 2)), vec![("'{1,NULL}'", "[1.00, NULL]")]),
        (
            "timestamptz[]",
            list(DataType::Timestamp(micros, Some("UTC".into()))),
            vec![("'{2000-01-01 00:00+00}'", "[2000-01-01T00:00:00Z]")],
        ),
        ("inet[]", list(DataType::Utf8), vec![("'{10.0.0.1,NULL}'", "[10.0.0.1/32, NULL]")]),
        ("numbers", list(DataType::Int32), vec![("'{1,2}'", "[1, 2]")]),
        (
            "numbers[]",
            list(list(DataType::Int32)),
            vec![("ARRAY['{1,2}'::numbers, NULL, '{}']::numbers[]", "[[1, 2], NULL, []]")],
        ),
        ("money", DataType::Utf8, vec![("'1.50'", "$1.50")]),
        ("inet", DataType::Utf8, vec![("'10.0.0.1/8'", "10.0.0.1/8")]),
        ("int4range", DataType::Utf8, vec![("'[1,5]'", "[1,6)")]),
        (
            "tstzrange",
            DataType::Utf8,
            vec![("'[2000-01-01 00:00+01,)'", "[\"1999-12-31 23:00:00+00\",)")],
        ),
        ("bit(3)", DataType::Utf8, vec![("B'101'", "101")]),
        ("point", DataType::Utf8, vec![("'(1,0.1)'", "(1,0.1)")]),
        ("tsvector", DataType::Utf8, vec![("'a b'", "'a' 'b'")]),
        ("xml", DataType::Utf8, vec![("'<a/>'::xml", "<a/>")]),
        ("pair", DataType::Utf8, vec![("ROW(1,'x y')", "(1,\"x y\")")]),
        ("int2vector", DataType::Utf8, vec![("'1 2'", "1 2")]),
        ("oid", DataType::Utf8, vec![("4294967295", "4294967295")]),
        ("regclass", DataType::Utf8, vec![("'pg_class'", "pg_class")]),
    ]
}

fn leak(text: String) -> &'static str {
    text.leak()
}

const TYPES: &str = "\
    CREATE TYPE mood AS ENUM ('sad', 'über happy'); \
    CREATE DOMAIN percent AS numeric(5,2) CHECK (value >= 0); \
    CREATE DOMAIN small_percent AS percent CHECK (value < 1); \
    CREATE DOMAIN numbers AS int[]; \
    CREATE TYPE pair AS (a int, b text);";

#[tokio::test]
async fn every_type_arrives_exactly() {
    let db = Db::new(TYPES).await;
    // The role's settings must not show.
    db.execute(&format!(
        "ALTER DATABASE {} SET timezone = 'Asia/Tokyo'; \
         ALTER DATABASE {} SET datestyle = 'German'; ALTER DATABASE {} SET bytea_output = escape",
        db.name, db.name, db.name
    ))
    .await;
    let mut setup = String::new();
    for (i, (native, _, values)) in cases().iter().enumerate() {
        setup.push_str(&format!("CREATE TABLE t{i} (v {native}); INSERT INTO t{i} VALUES (NULL)"));
        values.iter().for_each(|(sql, _)| setup.push_str(&format!(", ({sql})")));
        setup.push(';');
    }
    setup.push_str("ANALYZE;");
    db.execute(&setup).await;
    let by_copy = open(&db.server.url(&db.name), json!({ "max_query_rows": 0 }));
    for (i, (native, arrow, values)) in cases().into_iter().enumerate() {
        let batches = db.read(&format!("t{i}")).await.unwrap_or_else(|e| panic!("{native}: {e}"));
        assert_eq!(batches[0].schema().field(0).data_type(), &arrow, "{native}");
        let expected: Vec<&str> =
            std::iter::once("NULL").chain(values.iter().map(|(_, text)| *text)).collect();
        assert_eq!(texts(&batches, "v"), expected, "{native}");
        // Rows that come by a query and by COPY are the same to the bit.
        let table = table(&by_copy, &format!("t{i}")).await;
        let copied = read(&by_copy, Fragment::table(table)).await;
        let copied = copied.unwrap_or_else(|e| panic!("{native} by COPY: {e}"));
        assert_eq!(format!("{copied:?}"), format!("{batches:?}"), "{native}");
    }
}

#[tokio::test]
async fn extremes_keep_their_bits() {
    let db = Db::new(
        "CREATE TABLE t (f float8, d date, ts timestamp, tz timestamptz, i interval, \
             n numeric(76,0));
         INSERT INTO t VALUES \
             ('NaN', '5874897-12-31', '294246-12-31 23:59:59.999999', '4714-11-24 00:00+00 BC', \
              '-178000000 years', repeat('9', 76)::numeric),
             ('-NaN'::float8, '4714-11-24 BC', '4714-11-24 00:00 BC', '1970-01-01 00:00+00', \
              '-2562047:47:16.854775', -repeat('9', 76)::numeric)",
    )
    .await;
    let batches = db.read("t").await.unwrap();
    let batch = &batches[0];
    let floats = batch.column(0).as_primitive::<Float64Type>();
    assert!(floats.values().iter().all(|v| v.to_bits() == f64::NAN.to_bits()));
    let dates = batch.column(1).as_primitive::<Date32Type>();
    assert_eq!(dates.values().as_ref(), [2_145_042_905, -2_440_588]);
    let stamps = batch.column(2).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(stamps.values().as_ref(), [9_223_371_244_799_999_999, -210_866_803_200_000_000]);
    let moments = batch.column(3).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(moments.values().as_ref(), [-210_866_803_200_000_000, 0]);
    let intervals = batch.column(4).as_primitive::<IntervalMonthDayNanoType>();
    assert_eq!(
        intervals.values().as_ref(),
        [
            IntervalMonthDayNano::new(-2_136_000_000, 0, 0),
            IntervalMonthDayNano::new(0, 0, -9_223_372_036_854_775_000)
        ]
    );
    let largest = i256::from_string(&"9".repeat(76)).unwrap();
    let wide = batch.column(5).as_primitive::<arrow::datatypes::Decimal256Type>();
    assert_eq!(wide.values().as_ref(), [largest, -largest]);
}

#[tokio::test]
async fn what_does_not_fit_is_an_error_with_its_place() {
    let cases = [
        ("numeric(10,2)", "'NaN'", "NaN"),
        ("numeric", "'Infinity'", "infinity"),
        ("numeric", "1e-19", "after the point"),
        ("numeric", "1e20", "before the point"),
        ("numeric(1000,0)", "1e76", "before the point"),
        ("date", "'infinity'", "infinity"),
        ("date", "'-infinity'", "infinity"),
        ("time", "'24:00'", "24:00:00"),
        ("timestamp", "'infinity'", "infinity"),
        ("timestamp", "'294276-12-31'", "294246"),
        ("timestamptz", "'-infinity'", "infinity"),
        ("interval", "'2600000 hours'", "292 years"),
        ("int[]", "'{{1,2},{3,4}}'", "2 dimensions"),
        ("int[][]", "'{1,2}'", "1 dimensions"),
        ("int[]", "'[0:1]={1,2}'", "index 0"),
        ("numeric(5,1)[]", "'{1,NaN}'", "NaN"),
    ];
    let db = Db::new("").await;
    for (i, (native, value, part)) in cases.into_iter().enumerate() {
        db.execute(&format!(
            "CREATE TABLE t{i} (ok int, \"Bad one\" {native}); INSERT INTO t{i} VALUES (1, {value})"
        ))
        .await;
        let error = db.error(&format!("t{i}")).await;
        let place = format!("source 'bank', table public.t{i}, column Bad one: ");
        assert_error(&error, ErrorKind::Data, &[&place, part, "cast"]);
    }
    // The rest of the table is fine without the column.
    let table = db.table("t0").await;
    let fragment = Fragment { projection: vec![0], ..Fragment::table(table) };
    assert_eq!(texts(&read(&db.source, fragment).await.unwrap(), "ok"), ["1"]);
}

#[tokio::test]
async fn decimals_of_every_length_arrive() {
    let db = Db::new(
        "CREATE TABLE t AS SELECT i, n::numeric(38,10) AS n, n::numeric(38,10)::text AS shown FROM (
             SELECT i, (CASE WHEN i % 2 = 0 THEN 1 ELSE -1 END)
                 * (power(7::numeric, i % 33) + i::numeric / 10000000000) AS n
             FROM generate_series(0, 20000) i) s",
    )
    .await;
    let batches = db.read("t").await.unwrap();
    assert_eq!(texts(&batches, "n"), texts(&batches, "shown"));
    let first = batches[0].column(1).as_primitive::<Decimal128Type>();
    assert_eq!(first.value(0), 10_i128.pow(10));
    assert_eq!(batches[0].column(0).data_type(), &DataType::Int32);
}

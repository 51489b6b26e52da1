//! The suite's tables: edges of every type, NULLs, awkward names, and one table that is long.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};

use super::{Fixture, TestTable};

/// One column of every type.
pub const EDGES: &str = "edges";
/// Rows enough for several batches.
pub const LONG: &str = "long";
/// A table that is dropped.
pub const DOOMED: &str = "doomed";
/// Rows of [`LONG`].
pub const LONG_ROWS: usize = 30_000;

/// Names that need quoting, and one of 63 bytes, the longest PostgreSQL keeps.
pub const NAMES: [&str; 5] = [
    "MixedCase",
    "select",
    "with space and 'quote'",
    "dot.and-dash",
    "n23456789_123456789_123456789_123456789_123456789_123456789_123",
];

/// All tables, with the columns the fixture's backend has types for.
pub fn tables(fixture: &dyn Fixture) -> Vec<TestTable> {
    let mut tables = vec![
        table(fixture, EDGES, edges()),
        table(fixture, LONG, long(0..LONG_ROWS as i64)),
        table(fixture, DOOMED, long(0..10)),
    ];
    tables.extend(NAMES.map(|name| table(fixture, name, named(name))));
    tables
}

/// Rows of [`LONG`] with the given ids.
pub fn long(ids: std::ops::Range<i64>) -> RecordBatch {
    let texts =
        ids.clone().map(|i| (i % 11 > 0).then(|| format!("text of row {i} {}", "x".repeat(40))));
    batch(vec![
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef),
        ("grp", Arc::new(Int32Array::from_iter_values(ids.clone().map(|i| (i % 10) as i32)))),
        ("note", Arc::new(texts.collect::<StringArray>())),
        (
            "amount",
            Arc::new(decimals(ids.map(|i| Some(i128::from(i) * 100 + 25)).collect(), 18, 4)),
        ),
    ])
}

fn table(fixture: &dyn Fixture, name: &str, batch: RecordBatch) -> TestTable {
    let kept: Vec<usize> = (0..batch.num_columns())
        .filter(|&i| fixture.supports(batch.schema().field(i).data_type()))
        .collect();
    let batch = fixture.adapt(batch.project(&kept).expect("indices are in range"));
    TestTable { name: name.to_owned(), batch, primary_key: vec!["id".to_owned()] }
}

/// Columns named like their table, in the spellings that databases fold.
fn named(name: &str) -> RecordBatch {
    batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        (name, Arc::new(Int32Array::from(vec![Some(10), None, Some(30)]))),
        ("Order", Arc::new(StringArray::from(vec![Some("a"), Some("B"), None]))),
    ])
}

fn edges() -> RecordBatch {
    let texts = [
        Some("a"),
        Some("A"),
        Some("ab"),
        Some("Z"),
        Some("z"),
        Some("é"),
        Some("ä"),
        Some("日本"),
        Some("it's"),
        Some("\"q\""),
        Some("100%"),
        Some("a_b"),
        Some("back\\slash"),
        Some("a "),
        Some(""),
        None,
        Some("10"),
        Some("9"),
    ];
    let rows = texts.len();
    let id = Int64Array::from_iter_values(1..=rows as i64);
    let cycle = |i: usize, values: usize| {
        if i % (values + 1) == values { None } else { Some(i % (values + 1)) }
    };
    macro_rules! column {
        ($array:ty, $values:expr) => {{
            let values = $values;
            let column = (0..rows).map(|i| cycle(i, values.len()).map(|k| values[k].clone()));
            column.collect::<$array>()
        }};
    }
    let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1.5, -1.5, 1e300];
    // 0001-01-01, 1900-01-01, 1969-12-31, 1970-01-01, 2024-02-29, 9999-12-31
    let days = [-719_162, -25_567, -1, 0, 19_782, 2_932_896];
    let micros = [
        -62_135_596_800_000_000_i64,
        -1,
        0,
        1,
        1_709_164_800_123_456,
        1_711_846_800_000_000,
        253_402_300_799_999_999,
    ];
    let money = [0, 1, -1, 99_999_999_999_999_999, -99_999_999_999_999_999, 12_345, 50_000];
    let wide = [10_i128.pow(38) - 1, -(10_i128.pow(38) - 1), 0, 1, 5];
    batch(vec![
        ("id", Arc::new(id) as ArrayRef),
        ("b", Arc::new(column!(BooleanArray, [true, false]))),
        ("i16", Arc::new(column!(Int16Array, [i16::MIN, -1, 0, 1, i16::MAX]))),
        ("i32", Arc::new(column!(Int32Array, [i32::MIN, -1, 0, 1, 7, i32::MAX]))),
        ("i64", Arc::new(column!(Int64Array, [i64::MIN, -1, 0, 1, 7, i64::MAX]))),
        ("f32", Arc::new(column!(Float32Array, [f32::NAN, f32::INFINITY, -0.0, 0.0, 1.5, -2.5]))),
        ("f64", Arc::new(column!(Float64Array, floats))),
        (
            "money",
            Arc::new(decimals((0..rows).map(|i| cycle(i, 7).map(|k| money[k])).collect(), 18, 4)),
        ),
        (
            "wide",
            Arc::new(decimals((0..rows).map(|i| cycle(i, 5).map(|k| wide[k])).collect(), 38, 0)),
        ),
        ("text", Arc::new(StringArray::from(texts.to_vec()))),
        ("day", Arc::new(column!(Date32Array, days))),
        ("ts", Arc::new(column!(TimestampMicrosecondArray, micros))),
        ("tstz", Arc::new(column!(TimestampMicrosecondArray, micros).with_timezone("UTC"))),
        (
            "bin",
            Arc::new(
                (0..rows)
                    .map(|i| cycle(i, 3).map(|k| [&b""[..], b"\x00\xFF", b"abc"][k]))
                    .collect::<BinaryArray>(),
            ),
        ),
        ("none", Arc::new(Int32Array::from(vec![None; rows]))),
    ])
}

fn decimals(values: Vec<Option<i128>>, precision: u8, scale: i8) -> Decimal128Array {
    let array = Decimal128Array::from(values);
    array.with_precision_and_scale(precision, scale).expect("the values fit")
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields = columns.iter().map(|(name, column)| {
        let data_type: &DataType = column.data_type();
        Field::new(*name, data_type.clone(), *name != "id")
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, column)| column).collect())
        .expect("the columns are equally long")
}

use std::sync::Arc;

use arrow::array::types::Int32Type;
use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    LargeStringArray, NullArray, StringArray, StringViewArray, TimestampMicrosecondArray,
    UnionArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{TimeUnit, UnionFields};

use super::*;

fn wanted(types: &[Option<DataType>]) -> Vec<(String, Option<DataType>)> {
    types.iter().enumerate().map(|(i, t)| (format!("${}", i + 1), t.clone())).collect()
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let names = (0..columns.len()).map(|i| i.to_string());
    RecordBatch::try_from_iter_with_nullable(names.zip(columns).map(|(n, c)| (n, c, true)))
        .expect("a batch")
}

fn bound(column: ArrayRef, to: Option<DataType>) -> Result<ScalarValue> {
    let mut values = of_row(&batch(vec![column]), 0, &wanted(&[to]))?;
    Ok(values.remove(0))
}

fn union(member: i8) -> ArrayRef {
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let fields: UnionFields = [
        (0, field("int", DataType::Int64)),
        (1, field("float", DataType::Float64)),
        (2, field("str", DataType::Utf8)),
        (3, field("bool", DataType::Boolean)),
    ]
    .into_iter()
    .collect();
    let children: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7])),
        Arc::new(Float64Array::from(vec![2.5])),
        Arc::new(StringArray::from(vec!["2024-02-29"])),
        Arc::new(BooleanArray::from(vec![true])),
    ];
    let ids = ScalarBuffer::from(vec![member]);
    let offsets = Some(ScalarBuffer::from(vec![0]));
    Arc::new(UnionArray::try_new(fields, ids, offsets, children).expect("a union"))
}

#[test]
fn values_take_the_type_of_their_placeholder() {
    let words: DictionaryArray<Int32Type> = [Some("42")].into_iter().collect();
    let cases: Vec<(ArrayRef, Option<DataType>, ScalarValue)> = vec![
        (Arc::new(Int64Array::from(vec![3])), Some(DataType::Int32), ScalarValue::Int32(Some(3))),
        (
            Arc::new(StringArray::from(vec!["3"])),
            Some(DataType::Int16),
            ScalarValue::Int16(Some(3)),
        ),
        (
            Arc::new(StringArray::from(vec!["2024-02-29"])),
            Some(DataType::Date32),
            ScalarValue::Date32(Some(19_782)),
        ),
        (
            Arc::new(Float64Array::from(vec![1.1])),
            Some(DataType::Decimal128(10, 2)),
            ScalarValue::Decimal128(Some(110), 10, 2),
        ),
        (
            Arc::new(Float64Array::from(vec![4.0])),
            Some(DataType::Int64),
            ScalarValue::Int64(Some(4)),
        ),
        (Arc::new(words), Some(DataType::Int64), ScalarValue::Int64(Some(42))),
        (Arc::new(StringViewArray::from(vec!["a"])), None, ScalarValue::Utf8(Some("a".to_owned()))),
        (
            Arc::new(LargeStringArray::from(vec!["a"])),
            Some(DataType::Utf8View),
            ScalarValue::Utf8View(Some("a".to_owned())),
        ),
        (Arc::new(NullArray::new(1)), Some(DataType::Int64), ScalarValue::Int64(None)),
        (Arc::new(NullArray::new(1)), None, ScalarValue::Null),
        (
            Arc::new(StringArray::from(vec![None::<&str>])),
            Some(DataType::Date32),
            ScalarValue::Date32(None),
        ),
        (union(0), Some(DataType::Int32), ScalarValue::Int32(Some(7))),
        (union(1), Some(DataType::Float32), ScalarValue::Float32(Some(2.5))),
        (union(2), Some(DataType::Date32), ScalarValue::Date32(Some(19_782))),
        (union(3), None, ScalarValue::Boolean(Some(true))),
    ];
    for (column, to, expected) in cases {
        let from = column.data_type().clone();
        assert_eq!(bound(column, to).expect("bound"), expected, "{from}");
    }
}

#[test]
fn a_value_that_would_change_is_refused() {
    let noon = 43_200_000_000;
    let cases: Vec<(ArrayRef, DataType)> = vec![
        (Arc::new(Int64Array::from(vec![1 << 40])), DataType::Int32),
        (Arc::new(Int64Array::from(vec![(1 << 53) + 1])), DataType::Float64),
        (Arc::new(Float64Array::from(vec![1.5])), DataType::Int64),
        (Arc::new(Float64Array::from(vec![f64::NAN])), DataType::Int64),
        (Arc::new(StringArray::from(vec!["not a number"])), DataType::Int64),
        (Arc::new(StringArray::from(vec!["2024-02-30"])), DataType::Date32),
        (
            Arc::new(
                Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 3).expect("d"),
            ),
            DataType::Decimal128(10, 2),
        ),
        (Arc::new(TimestampMicrosecondArray::from(vec![noon])), DataType::Date32),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![1])),
            DataType::Timestamp(TimeUnit::Second, None),
        ),
    ];
    for (column, to) in cases {
        let from = column.data_type().clone();
        let fault = bound(column, Some(to.clone())).expect_err("refused");
        assert_eq!(fault.code(), ErrorCode::Data, "{from} {to}");
        assert!(fault.message().starts_with("parameter $1: a value of "), "{}", fault.message());
    }
    let midnight: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![2 * noon]));
    assert_eq!(
        bound(midnight, Some(DataType::Date32)).expect("a day"),
        ScalarValue::Date32(Some(1))
    );
}

#[test]
fn names_do_not_matter_and_the_number_does() {
    let columns = |n: usize| -> Vec<ArrayRef> {
        (0..n).map(|_| Arc::new(Int64Array::from(vec![1])) as ArrayRef).collect()
    };
    let two = wanted(&[Some(DataType::Int64), None]);
    assert_eq!(of_row(&batch(columns(2)), 0, &two).expect("two").len(), 2);
    for n in [1, 3] {
        let fault = of_row(&batch(columns(n)), 0, &two).expect_err("not two");
        assert_eq!(fault.code(), ErrorCode::Syntax);
        assert!(fault.message().contains("2 parameters"), "{}", fault.message());
        assert!(fault.message().contains(&format!("{n} value")), "{}", fault.message());
    }
}

#[test]
fn parameters_are_described_so_that_every_client_can_send_them() {
    let schema = schema(&wanted(&[Some(DataType::Utf8View), None, Some(DataType::Int32)]));
    let fields: Vec<_> =
        schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    assert_eq!(fields, [("$1", DataType::Utf8), ("$2", DataType::Utf8), ("$3", DataType::Int32)]);
    assert!(schema.fields().iter().all(|f| f.is_nullable()));
}

#[test]
fn tickets_carry_values_as_they_are() {
    let values = vec![
        ScalarValue::Int32(Some(-1)),
        ScalarValue::Utf8View(Some("a text longer than twelve bytes".to_owned())),
        ScalarValue::Decimal128(None, 20, 4),
        ScalarValue::Null,
        ScalarValue::Date32(Some(Date32Array::from(vec![5]).value(0))),
    ];
    let bytes = write(&values).expect("written");
    assert_eq!(read(&bytes).expect("read"), values);
    assert!(write(&[]).expect("none").is_empty() && read(&Bytes::new()).expect("none").is_empty());
    assert!(read(&bytes.slice(..bytes.len() / 2)).is_err());
    assert!(read(&Bytes::from_static(b"garbage")).is_err());
}

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
fn nothing_is_rounded_cut_or_moved() {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let double = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    let at = |value: i64, unit: TimeUnit, zone: Option<&str>| {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let to = DataType::Timestamp(unit, zone.map(Into::into));
        arrow::compute::cast(&array, &to).expect("a timestamp")
    };
    let money = DataType::Decimal128(10, 2);
    let (us, ns) = (TimeUnit::Microsecond, TimeUnit::Nanosecond);
    let naive = DataType::Timestamp(us, None);
    let zoned = DataType::Timestamp(us, Some("UTC".into()));
    let (noon, day) = (43_200_000_000, 86_400_000_000);
    let tenth = Decimal128Array::from(vec![1]).with_precision_and_scale(10, 1).expect("0.1");
    let long = Decimal128Array::from(vec![12_345_678_901_234_567_890_123_i128])
        .with_precision_and_scale(30, 5)
        .expect("it fits");
    let refused: Vec<(ArrayRef, &DataType)> = vec![
        (double(1.239), &money),
        (double(0.006), &money),
        (double(0.1), &DataType::Float32),
        (double(1e300), &DataType::Float32),
        (text("1.239"), &money),
        (text("1239e-3"), &money),
        (text("1e400"), &DataType::Float64),
        (text("2024-01-05 23:59:59"), &DataType::Date32),
        (text("2024-01-05T01:00:00+05:00"), &DataType::Date32),
        (at(noon, us, Some("UTC")), &DataType::Date32),
        (at(noon, us, None), &DataType::Date32),
        (at(999, ns, Some("UTC")), &zoned),
        (at(999, ns, None), &zoned),
        (at(999, ns, None), &naive),
        (text("2024-01-05 12:00:00.0000009"), &naive),
        (text("2024-01-05 12:00:00.0000009"), &zoned),
        (text("2024-01-05 12:00:00+01:00"), &naive),
        (text("12:00:00.0000009"), &DataType::Time64(TimeUnit::Microsecond)),
        (Arc::new(long), &DataType::Float64),
    ];
    for (column, to) in refused {
        let shown = format!("{column:?} {to}");
        let fault = bound(column, Some(to.clone())).expect_err(&shown);
        assert_eq!(fault.code(), ErrorCode::Data, "{shown}");
        assert!(fault.message().starts_with("parameter $1: a value of "), "{}", fault.message());
    }
    let noon_utc = ScalarValue::TimestampMicrosecond(Some(noon), Some("UTC".into()));
    let hundredths = |n: i128| ScalarValue::Decimal128(Some(n), 10, 2);
    let taken: Vec<(ArrayRef, &DataType, ScalarValue)> = vec![
        (double(0.1), &money, hundredths(10)),
        (double(1234.56), &money, hundredths(123_456)),
        (double(-0.0), &money, hundredths(0)),
        (double(0.5), &DataType::Float32, ScalarValue::Float32(Some(0.5))),
        (Arc::new(Int64Array::from(vec![7])), &money, hundredths(700)),
        (text("1.2300"), &money, hundredths(123)),
        (text("-7"), &money, hundredths(-700)),
        (text("0.1"), &DataType::Float32, ScalarValue::Float32(Some(0.1))),
        (Arc::new(tenth), &DataType::Float64, ScalarValue::Float64(Some(0.1))),
        (
            Arc::new(Date32Array::from(vec![1])),
            &naive,
            ScalarValue::TimestampMicrosecond(Some(day), None),
        ),
        (at(day, us, Some("UTC")), &DataType::Date32, ScalarValue::Date32(Some(1))),
        (at(noon, us, None), &zoned, noon_utc.clone()),
        (at(noon * 1000, ns, None), &zoned, noon_utc.clone()),
        (at(noon, us, Some("Europe/Berlin")), &zoned, noon_utc.clone()),
        (text("1970-01-01 13:00:00+01:00"), &zoned, noon_utc),
        (
            text("1970-01-01T12:00:00.000"),
            &naive,
            ScalarValue::TimestampMicrosecond(Some(noon), None),
        ),
        (text("1970-01-01T12:00:00Z"), &naive, ScalarValue::TimestampMicrosecond(Some(noon), None)),
    ];
    for (column, to, expected) in taken {
        let shown = format!("{column:?} {to}");
        let value = bound(column, Some(to.clone())).unwrap_or_else(|f| panic!("{shown}: {f:?}"));
        assert_eq!(value, expected, "{shown}");
    }
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

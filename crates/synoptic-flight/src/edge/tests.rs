use arrow::array::types::{Int8Type, Int32Type};
use arrow::array::{
    BinaryViewArray, BooleanArray, Date32Array, Decimal32Array, Decimal64Array, Decimal128Array,
    DictionaryArray, Float16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    LargeListArray, LargeStringArray, ListArray, ListViewArray, NullArray, RunArray, StringArray,
    StringViewArray, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{IntervalMonthDayNano, IntervalUnit, TimeUnit, UnionMode};
use arrow::util::display::array_value_to_string;
use synoptic_types::ErrorCode;

use super::*;

fn views(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringViewArray::from_iter(values.iter().copied()))
}

fn texts(array: &dyn Array) -> Vec<String> {
    (0..array.len()).map(|i| array_value_to_string(array, i).expect("shown")).collect()
}

fn list_of(field: Field, values: ArrayRef, offsets: &[i32]) -> ArrayRef {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets.to_vec()));
    Arc::new(ListArray::try_new(Arc::new(field), offsets, values, None).expect("a list"))
}

/// Sends `array` over the edge and checks its type there; its values must not change.
fn over(array: ArrayRef, expected: &DataType) {
    let from = array.data_type().clone();
    let engine = Schema::new(vec![Field::new("c", from.clone(), true)]);
    let promised = schema(&engine, Types::Compatible, None);
    assert_eq!(promised.field(0).data_type(), expected, "{from}");
    let sent = RecordBatch::try_new(Arc::new(engine.clone()), vec![Arc::clone(&array)]);
    let got = batch(&sent.expect("a batch"), &promised).expect("over the edge");
    assert_eq!(got.column(0).data_type(), expected);
    assert_eq!(got.schema(), promised);
    assert_eq!(texts(got.column(0)), texts(&array), "{from}");
    // And again: what clients read is left alone.
    assert_eq!(client_type(expected), *expected);
    let native = schema(&engine, Types::Native, None);
    assert_eq!(native.field(0).data_type(), &from);
}

#[test]
fn every_cell_of_the_table() {
    let dictionary: DictionaryArray<Int32Type> =
        [Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    let numbers: DictionaryArray<Int8Type> = DictionaryArray::new(
        vec![1_i8, 0, 1].into(),
        Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])),
    );
    let runs = RunArray::try_new(
        &Int32Array::from(vec![2, 3, 5]),
        &StringViewArray::from_iter([Some("x"), None, Some("y")]),
    );
    let small = Decimal32Array::from(vec![Some(-12_345), None]);
    let medium = Decimal64Array::from(vec![Some(123_456_789_012), None]);
    let large = Decimal128Array::from(vec![Some(1), None]).with_precision_and_scale(38, 10);
    let item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let list_views = ListViewArray::try_new(
        item,
        ScalarBuffer::from(vec![2, 0, 0]),
        ScalarBuffer::from(vec![1, 2, 0]),
        views(&[Some("a"), None, Some("a text longer than twelve bytes")]),
        Some(NullBuffer::from(vec![true, true, false])),
    );
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    let cases: Vec<(ArrayRef, DataType)> = vec![
        (views(&[Some("a"), None, Some("a text longer than twelve bytes")]), DataType::Utf8),
        (
            Arc::new(BinaryViewArray::from_iter([Some(b"\0\xff".as_slice()), None])),
            DataType::Binary,
        ),
        (Arc::new(dictionary), DataType::Utf8),
        (Arc::new(numbers), DataType::Int64),
        (Arc::new(runs.expect("runs")), DataType::Utf8),
        (
            Arc::new(small.with_precision_and_scale(7, 2).expect("digits")),
            DataType::Decimal128(7, 2),
        ),
        (
            Arc::new(medium.with_precision_and_scale(15, 3).expect("digits")),
            DataType::Decimal128(15, 3),
        ),
        (Arc::new(large.expect("digits")), DataType::Decimal128(38, 10)),
        (Arc::new(list_views.expect("views")), DataType::List(item(DataType::Utf8))),
        // What every client reads, or what has no better form, stays.
        (Arc::new(StringArray::from(vec!["a"])), DataType::Utf8),
        (Arc::new(LargeStringArray::from(vec!["a"])), DataType::LargeUtf8),
        (Arc::new(NullArray::new(2)), DataType::Null),
        (Arc::new(BooleanArray::from(vec![true])), DataType::Boolean),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), DataType::UInt64),
        (Arc::new(Float16Array::from(vec![None])), DataType::Float16),
        (Arc::new(Date32Array::from(vec![-1])), DataType::Date32),
        (
            Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("Europe/Berlin")),
            DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into())),
        ),
        (
            Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)])),
            DataType::Interval(IntervalUnit::MonthDayNano),
        ),
        (new_null_array(&DataType::Decimal256(76, 0), 1), DataType::Decimal256(76, 0)),
    ];
    for (array, expected) in cases {
        over(array, &expected);
    }
}

#[test]
fn nested_types_change_within() {
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    let list = list_of(
        Field::new("item", DataType::Utf8View, true),
        views(&[Some("a"), None, Some("b")]),
        &[0, 2, 2, 3],
    );
    over(Arc::clone(&list), &DataType::List(item(DataType::Utf8)));
    // A slice starts in the middle of its values.
    over(list.slice(1, 2), &DataType::List(item(DataType::Utf8)));

    let words: DictionaryArray<Int32Type> = [Some("x"), None].into_iter().collect();
    let words: ArrayRef = Arc::new(words);
    let fields = Fields::from(vec![
        Field::new("d", words.data_type().clone(), true),
        Field::new("n", DataType::Int32, true),
    ]);
    let structure = StructArray::try_new(
        fields,
        vec![words, Arc::new(Int32Array::from(vec![1, 2]))],
        Some(NullBuffer::from(vec![true, false])),
    );
    let plain = DataType::Struct(Fields::from(vec![
        Field::new("d", DataType::Utf8, true),
        Field::new("n", DataType::Int32, true),
    ]));
    let structure: ArrayRef = Arc::new(structure.expect("a struct"));
    over(Arc::clone(&structure), &plain);
    over(structure.slice(1, 1), &plain);

    let lists =
        list_of(Field::new("item", structure.data_type().clone(), true), structure, &[0, 2]);
    over(lists, &DataType::List(item(plain)));

    let large = LargeListArray::try_new(
        item(DataType::Utf8View),
        OffsetBuffer::new(ScalarBuffer::from(vec![0_i64, 1])),
        views(&[Some("a")]),
        None,
    );
    over(Arc::new(large.expect("a list")), &DataType::LargeList(item(DataType::Utf8)));

    let pair =
        FixedSizeListArray::try_new(item(DataType::Utf8View), 2, views(&[Some("a"), None]), None);
    over(Arc::new(pair.expect("a pair")), &DataType::FixedSizeList(item(DataType::Utf8), 2));
}

#[test]
fn maps_and_unions_change_within() {
    let entry = |text: DataType| {
        Fields::from(vec![
            Field::new("keys", text.clone(), false),
            Field::new("values", text, true),
        ])
    };
    let entries = StructArray::try_new(
        entry(DataType::Utf8View),
        vec![views(&[Some("k"), Some("l")]), views(&[Some("v"), None])],
        None,
    );
    let entries = entries.expect("entries");
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, 1, 2]));
    let map = MapArray::try_new(field, offsets, entries, None, false).expect("a map");
    let plain = Field::new("entries", DataType::Struct(entry(DataType::Utf8)), false);
    over(Arc::new(map), &DataType::Map(Arc::new(plain), false));

    let members = |text: DataType| -> UnionFields {
        [
            (0, Arc::new(Field::new("i", DataType::Int32, true))),
            (5, Arc::new(Field::new("t", text, true))),
        ]
        .into_iter()
        .collect()
    };
    let union = UnionArray::try_new(
        members(DataType::Utf8View),
        ScalarBuffer::from(vec![0_i8, 5, 5]),
        Some(ScalarBuffer::from(vec![0, 0, 1])),
        vec![Arc::new(Int32Array::from(vec![7])), views(&[Some("a"), Some("b")])],
    );
    over(
        Arc::new(union.expect("a union")),
        &DataType::Union(members(DataType::Utf8), UnionMode::Dense),
    );
}

#[test]
fn types_are_named_and_the_query_too() {
    let engine = Schema::new(vec![
        Field::new("t", DataType::Utf8View, false),
        Field::new("d", DataType::Decimal64(12, 4), true),
        Field::new("z", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("own", DataType::Int32, true)
            .with_metadata([(names::TYPE_NAME.to_owned(), "SERIAL".to_owned())].into()),
    ]);
    let id = QueryId::new("q7");
    let promised = schema(&engine, Types::Compatible, Some(&id));
    let named: Vec<_> =
        promised.fields().iter().map(|f| f.metadata()[names::TYPE_NAME].as_str()).collect();
    assert_eq!(named, ["VARCHAR", "DECIMAL", "TIMESTAMP WITH TIME ZONE", "SERIAL"]);
    let digits = promised.field(1).metadata();
    assert_eq!((digits[names::PRECISION].as_str(), digits[names::SCALE].as_str()), ("12", "4"));
    assert_eq!(promised.metadata()[QUERY_ID_KEY], "q7");
    assert!(!promised.field(0).is_nullable() && promised.field(1).is_nullable());
    assert!(schema(&engine, Types::Compatible, None).metadata().is_empty());
}

#[test]
fn a_null_where_none_may_be_names_its_column() {
    let engine = Schema::new(vec![Field::new("amount", DataType::Int32, true)]);
    let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let sent = RecordBatch::try_new(Arc::new(engine), vec![column]).expect("a batch");
    let promised = Arc::new(Schema::new(vec![Field::new("amount", DataType::Int32, false)]));
    let fault = batch(&sent, &promised).expect_err("a NULL");
    assert_eq!(fault.code(), ErrorCode::Data);
    assert!(fault.message().contains("amount"), "{}", fault.message());
    let fault = batch(&sent, &Arc::new(Schema::empty())).expect_err("a column too many");
    assert_eq!(fault.code(), ErrorCode::Internal);
}

#[test]
fn rows_without_columns_are_counted() {
    let empty = Arc::new(Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let sent = RecordBatch::try_new_with_options(Arc::clone(&empty), vec![], &options);
    assert_eq!(batch(&sent.expect("rows"), &empty).expect("rows").num_rows(), 3);
}

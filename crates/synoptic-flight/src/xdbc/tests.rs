use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int32Type, IntervalUnit, TimeUnit};

use super::*;
use crate::names::type_name;

fn listed(data_type: Option<i32>) -> Vec<(String, i32)> {
    let batch = types().expect("types").record_batch(data_type).expect("a batch");
    let names = batch.column(0).as_string::<i32>();
    let numbers = batch.column(1).as_primitive::<Int32Type>();
    (0..batch.num_rows()).map(|row| (names.value(row).to_owned(), numbers.value(row))).collect()
}

#[test]
fn every_name_that_a_column_can_have_is_listed() {
    let names: BTreeSet<String> = listed(None).into_iter().map(|(name, _)| name).collect();
    let item = || std::sync::Arc::new(Field::new("item", DataType::Int8, true));
    for data_type in [
        DataType::Null,
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float64,
        DataType::Decimal256(76, 3),
        DataType::Utf8View,
        DataType::FixedSizeBinary(16),
        DataType::Date64,
        DataType::Time32(TimeUnit::Second),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        DataType::Interval(IntervalUnit::DayTime),
        DataType::Duration(TimeUnit::Second),
        DataType::LargeList(item()),
        DataType::Struct(vec![item()].into()),
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
    ] {
        let name = type_name(&Field::new("c", data_type.clone(), true));
        assert!(names.contains(name), "{data_type}: {name}");
    }
}

#[test]
fn sorted_by_number_and_filtered_by_it() {
    let all = listed(None);
    let mut sorted = all.clone();
    sorted.sort_by_key(|(name, number)| (*number, name.clone()));
    assert_eq!(all, sorted);
    let timestamps: Vec<_> = listed(Some(93)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(timestamps, ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE"]);
    assert!(listed(Some(4711)).is_empty());
}

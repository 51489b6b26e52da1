use arrow::array::{Array, AsArray, UInt32Array};

use super::*;

/// Union child and keys, as JDBC, ADBC and ODBC cast them.
fn expected() -> BTreeMap<u32, i8> {
    const STRING: i8 = 0;
    const BOOL: i8 = 1;
    const BIGINT: i8 = 2;
    const INT32: i8 = 3;
    const LIST: i8 = 4;
    const MAP: i8 = 5;
    let mut keys = BTreeMap::new();
    let mut all = |child: i8, list: &[u32]| keys.extend(list.iter().map(|key| (*key, child)));
    all(STRING, &[0, 1, 2, 6, 7, 504, 513, 514, 529, 530, 531]);
    all(BOOL, &[3, 4, 5, 9, 10, 11, 500, 501, 502, 506, 515, 516, 518, 519, 520, 521, 523, 524]);
    all(BOOL, &[527, 532, 536, 537, 539, 556, 563, 565, 566, 572, 573, 574, 575, 576]);
    all(BIGINT, &[503, 505, 507, 562]);
    all(BIGINT, &(541..=555).chain(557..=561).collect::<Vec<_>>());
    all(INT32, &[8, 100, 101, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564]);
    all(INT32, &[567, 568, 569, 570, 571]);
    all(LIST, &[508, 509, 510, 511, 512]);
    all(MAP, &[517]);
    keys
}

fn asked(keys: &[u32]) -> BTreeMap<u32, i8> {
    let batch = answer(&FlightOptions::default(), keys).expect("an answer");
    assert_eq!(batch.schema().as_ref(), SqlInfoDataBuilder::schema());
    let names = batch.column(0).as_any().downcast_ref::<UInt32Array>().expect("names");
    let values = batch.column(1).as_union();
    (0..batch.num_rows()).map(|row| (names.value(row), values.type_id(row))).collect()
}

#[test]
fn every_key_is_there_in_its_own_child() {
    assert_eq!(asked(&[]), expected());
    let keys: Vec<u32> = (0..=11).chain(100..=101).chain(500..=576).collect();
    assert_eq!(asked(&[]).into_keys().collect::<Vec<_>>(), keys);
}

#[test]
fn some_keys_and_unknown_ones() {
    assert_eq!(asked(&[8]).into_keys().collect::<Vec<_>>(), [8]);
    assert_eq!(asked(&[0, 2, 3, 504]).into_keys().collect::<Vec<_>>(), [0, 2, 3, 504]);
    assert_eq!(asked(&[0, 99_999]).into_keys().collect::<Vec<_>>(), [0]);
    assert!(asked(&[99_999]).is_empty());
}

#[test]
fn it_says_what_is_true() {
    let batch = answer(&FlightOptions::default(), &[]).expect("an answer");
    let names = batch.column(0).as_any().downcast_ref::<UInt32Array>().expect("names");
    let values = batch.column(1).as_union();
    let value = |key: u32| {
        let row = (0..batch.num_rows()).find(|row| names.value(*row) == key).expect("a key");
        values.value(row)
    };
    assert!(!value(3).as_boolean().value(0), "not read only");
    assert!(!value(10).as_boolean().value(0), "bulk ingestion");
    assert_eq!(value(8).as_primitive::<arrow::datatypes::Int32Type>().value(0), 0);
    assert_eq!(value(562).as_primitive::<arrow::datatypes::Int64Type>().value(0), 0);
    assert_eq!(value(504).as_string::<i32>().value(0), "\"");
    assert!(!value(517).is_empty());
}

use arrow::array::types::Int32Type;
use arrow::array::{DictionaryArray, Int64Array, LargeListArray, StringArray, StringViewArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Field;
use arrow_flight::decode::FlightRecordBatchStream;
use futures::TryStreamExt;
use synoptic_types::ErrorCode;

use super::*;

const LIMITS: Limits = Limits { message: 64 << 10, row: 256 << 10 };

fn batch_of(column: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter([("c", column)]).expect("a batch")
}

fn encoded(batches: &[RecordBatch], limits: Limits) -> Result<Vec<FlightData>> {
    compressed(batches, limits, Compression::None)
}

fn compressed(
    batches: &[RecordBatch],
    limits: Limits,
    compression: Compression,
) -> Result<Vec<FlightData>> {
    let (mut encoder, schema) = Encoder::new(batches[0].schema(), limits, compression);
    let mut messages = vec![schema];
    for batch in batches {
        for message in encoder.encode(batch.clone()) {
            let (Encoded::Batch(data) | Encoded::Dictionary(data)) = message?;
            messages.push(data);
        }
    }
    Ok(messages)
}

async fn decoded(messages: Vec<FlightData>) -> RecordBatch {
    let stream = futures::stream::iter(messages.into_iter().map(Ok));
    let mut stream = FlightRecordBatchStream::new_from_flight_data(stream);
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await.expect("readable") {
        batches.push(batch);
    }
    let schema = SchemaRef::clone(stream.schema().expect("a schema"));
    arrow::compute::concat_batches(&schema, &batches).expect("one schema")
}

#[tokio::test]
async fn batches_are_split_between_rows_and_nothing_is_lost() {
    let numbers = batch_of(Arc::new(Int64Array::from_iter_values(0..100_000)));
    let long = "a value that is not kept inside its view ".repeat(20);
    let views = StringViewArray::from_iter_values((0..2_000).map(|i| format!("{i} {long}")));
    let texts = StringArray::from_iter_values((0..2_000).map(|i| format!("{i} {long}")));
    // One row much larger than its neighbours, still within the limit of a row.
    let uneven = StringArray::from_iter_values(
        (0..100).map(|i| if i == 50 { "x".repeat(200 << 10) } else { i.to_string() }),
    );
    for batch in [
        numbers.clone(),
        numbers.slice(5, 90_000),
        batch_of(Arc::new(views)),
        batch_of(Arc::new(texts)).slice(1_000, 900),
        batch_of(Arc::new(uneven)),
    ] {
        let messages = encoded(std::slice::from_ref(&batch), LIMITS).expect("encoded");
        let over = messages.iter().filter(|m| wire_bytes(m) > LIMITS.message).count();
        assert!(over <= 1, "{over} messages of {} are too large", messages.len());
        assert!(messages.iter().all(|m| wire_bytes(m) <= LIMITS.row));
        assert!(messages.len() > 2);
        assert_eq!(decoded(messages).await, batch);
    }
}

#[tokio::test]
async fn a_batch_that_fits_stays_whole() {
    let batch = batch_of(Arc::new(Int64Array::from_iter_values(0..1_000)));
    let messages = encoded(&[batch.clone(), batch.clone()], LIMITS).expect("encoded");
    assert_eq!(messages.len(), 3);
    assert_eq!(decoded(messages).await.num_rows(), 2_000);
}

#[test]
fn a_row_that_no_message_holds_is_named() {
    let wide = StringArray::from_iter_values(["x".repeat(300 << 10)]);
    let narrow = Int64Array::from(vec![1]);
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(narrow) as ArrayRef),
        ("document", Arc::new(wide) as ArrayRef),
    ]);
    let fault = encoded(&[batch.expect("a batch")], LIMITS).expect_err("too large");
    assert_eq!(fault.code(), ErrorCode::BudgetExceeded);
    for part in ["document", "300", "256.0 KiB", "max_row_size"] {
        assert!(fault.message().contains(part), "{}", fault.message());
    }
}

#[tokio::test]
async fn the_schema_that_is_said_is_the_schema_that_is_sent() {
    let item = Arc::new(Field::new("item", DataType::Int64, false));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0_i64, 1, 3]));
    let values = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let list = LargeListArray::try_new(item, offsets, values, None).expect("a list");
    let batch = batch_of(Arc::new(list));
    let said = read_schema(&schema_bytes(batch.schema_ref()).expect("bytes")).expect("a schema");
    assert_eq!(&said, batch.schema_ref().as_ref());
    let sent = decoded(encoded(&[batch], LIMITS).expect("encoded")).await;
    assert_eq!(sent.schema_ref().as_ref(), &said);
}

#[tokio::test]
async fn dictionaries_are_sent_before_what_refers_to_them() {
    let words = |words: &[&'static str]| {
        let array: DictionaryArray<Int32Type> = words.iter().copied().map(Some).collect();
        batch_of(Arc::new(array))
    };
    let batches = [words(&["a", "b", "a"]), words(&["c", "c", "d"])];
    let messages = encoded(&batches, LIMITS).expect("encoded");
    assert_eq!(messages.len(), 5);
    let got = decoded(messages).await;
    let texts = arrow::compute::cast(got.column(0), &DataType::Utf8).expect("texts");
    let expected = StringArray::from(vec!["a", "b", "a", "c", "c", "d"]);
    assert_eq!(texts.as_string::<i32>(), &expected);
}

#[tokio::test]
async fn an_empty_batch_carries_metadata() {
    let schema = Arc::new(Schema::new(vec![Field::new("c", DataType::Utf8, true)]));
    let (mut encoder, message) = Encoder::new(Arc::clone(&schema), LIMITS, Compression::None);
    let empty = encoder.empty().expect("an empty batch");
    let got = decoded(vec![message, empty]).await;
    assert_eq!((got.num_rows(), got.schema()), (0, schema));
}

#[tokio::test]
async fn compressed_batches_are_smaller_and_the_same() {
    let names: StringArray = (0..4000).map(|i| Some(format!("name {}", i % 7))).collect();
    let batch = batch_of(Arc::new(names));
    let limits = Limits { message: 1 << 20, row: 1 << 20 };
    let bytes = |messages: &[FlightData]| messages.iter().map(wire_bytes).sum::<usize>();
    let plain =
        compressed(std::slice::from_ref(&batch), limits, Compression::None).expect("encoded");
    for compression in [Compression::Lz4, Compression::Zstd] {
        let messages =
            compressed(std::slice::from_ref(&batch), limits, compression).expect("encoded");
        assert!(bytes(&messages) < bytes(&plain) / 2, "{compression:?}");
        assert_eq!(decoded(messages).await, batch, "{compression:?}");
    }
}

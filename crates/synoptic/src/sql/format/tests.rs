use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, Float32Array, Float64Array, Int64Array, ListArray,
    NullArray, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Int32Type, Schema};
use arrow::ipc::reader::StreamReader;
use serde_json::json;

use super::*;

fn answer() -> RecordBatch {
    let decimal = Decimal128Array::from(vec![Some(123_456_789_012_345_678_901_i128), None])
        .with_precision_and_scale(38, 4)
        .expect("a decimal");
    let moment = TimestampMicrosecondArray::from(vec![Some(0), Some(-1)]).with_timezone("UTC");
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        Some(vec![]),
    ]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![1, i64::MAX]))),
        ("price", Arc::new(decimal)),
        ("x", Arc::new(Float64Array::from(vec![f64::NAN, -0.5]))),
        ("y", Arc::new(Float32Array::from(vec![0.1, f32::INFINITY]))),
        ("name", Arc::new(StringArray::from(vec![Some(""), None]))),
        ("note, \"or\" so", Arc::new(StringViewArray::from(vec!["a,\"b\"\nc", " d\u{1b}[2J"]))),
        ("at", Arc::new(moment)),
        ("list", Arc::new(list)),
        ("raw", Arc::new(BinaryArray::from_vec(vec![b"\x00\xff", b""]))),
        ("nothing", Arc::new(NullArray::new(2))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .expect("a batch")
}

fn written(format: Format, batches: &[RecordBatch], schema: &SchemaRef) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = AnswerWriter::new(format, &mut out, schema).expect("begun");
    for batch in batches {
        writer.write(batch.clone()).expect("written");
    }
    writer.finish().expect("finished");
    out
}

fn text(format: Format, batches: &[RecordBatch]) -> String {
    let schema = answer().schema();
    String::from_utf8(written(format, batches, &schema)).expect("text")
}

#[test]
fn csv_keeps_null_and_empty_apart() {
    assert_eq!(
        text(Format::Csv, &[answer()]),
        "id,price,x,y,name,\"note, \"\"or\"\" so\",at,list,raw,nothing\n\
         1,12345678901234567.8901,NaN,0.1,\"\",\"a,\"\"b\"\"\nc\",1970-01-01T00:00:00Z,\"[1, ]\",\
         00ff,\n\
         9223372036854775807,,-0.5,inf,,\" d\u{1b}[2J\",1969-12-31T23:59:59.999999Z,[],\"\",\n"
    );
    assert_eq!(text(Format::Csv, &[]).lines().count(), 1);
}

#[test]
fn json_is_exact_and_has_no_silent_null() {
    let rows: Vec<_> = text(Format::Ndjson, &[answer(), answer()])
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line))
        .collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0]["x"], "NaN");
    assert_eq!(rows[1]["y"], "Infinity");
    assert_eq!(rows[1]["id"], json!(i64::MAX));
    assert_eq!(rows[1]["name"], serde_json::Value::Null);
    assert_eq!(rows[0]["list"], json!([1, null]));
    let line = text(Format::Ndjson, &[answer()]);
    assert!(line.contains("\"price\":12345678901234567.8901,"), "{line}");
    assert!(line.contains("\"y\":0.1,"), "{line}");

    let array = text(Format::Json, &[answer(), answer()]);
    assert!(array.ends_with("]\n"), "{array}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&array).expect("one array");
    assert_eq!(rows.len(), 4);
    assert_eq!(text(Format::Json, &[]), "[]\n");
    assert_eq!(text(Format::Ndjson, &[]), "");
}

#[test]
fn arrow_reads_back_as_it_was() {
    let bytes = written(Format::Arrow, &[answer(), answer()], &answer().schema());
    let reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
    let batches: Vec<_> = reader.collect::<Result<_, _>>().expect("batches");
    // NaN is not equal to itself; its text is.
    assert_eq!(format!("{batches:?}"), format!("{:?}", [answer(), answer()]));
}

#[test]
fn a_table_aligns_numbers_and_escapes_what_terminals_obey() {
    let batch = answer().project(&[0, 1, 4, 5]).expect("projected");
    let table = table(&batch.schema(), &[batch]).expect("a table");
    assert_eq!(
        format!("\n{table}\n"),
        r#"
┌─────────────────────┬────────────────────────┬──────┬───────────────┐
│                  id ┆                  price ┆ name ┆ note, "or" so │
╞═════════════════════╪════════════════════════╪══════╪═══════════════╡
│                   1 ┆ 12345678901234567.8901 ┆      ┆ a,"b"         │
│                     ┆                        ┆      ┆ c             │
│ 9223372036854775807 ┆                   NULL ┆ NULL ┆  d\u{1b}[2J   │
└─────────────────────┴────────────────────────┴──────┴───────────────┘
"#
    );
    assert!(text(Format::Table, &[answer(), answer()]).ends_with("\n(4 rows)\n"));
    assert_eq!(count_rows(1), "1 row");
    assert_eq!(count_rows(1_234_567), "1,234,567 rows");
}

#[test]
fn an_answer_without_columns_writes_nothing_for_people() {
    let none = Arc::new(Schema::new(Vec::<Field>::new()));
    for format in [Format::Table, Format::Csv, Format::Ndjson] {
        assert!(written(format, &[], &none).is_empty(), "{format:?}");
    }
}

#[test]
fn a_receipt_shows_how_fresh_each_scan_is() {
    let scan = json!({
        "scan": 0, "source": "bank", "table": "public.ticks", "copy": "standby1", "kind": "replica",
        "position": "7:1:0/4A2B", "as_of_lo": "2026-11-24T04:16:32.871295Z",
        "as_of_hi": "2026-11-24T04:16:38.082052Z", "staleness_ms": 5210.757, "bound_ms": 10000.0,
        "satisfied": true, "method": "position", "rows": 1, "bytes": 16,
        "remote_text": "SELECT max(n)", "degraded_reason": null,
    });
    let mut receipt =
        json!({"query_id": "q", "skew_ms": 5210.757, "token": "abc", "scans": [scan]});
    let table = receipt_table(&receipt);
    let lines: Vec<_> = table.lines().collect();
    for part in ["replica", "7:1:0/4A2B", "2026-11-24T04:16:32.871295Z", "5210.757 ms", "position"]
    {
        assert!(lines[3].contains(part), "{part} in {table}");
    }
    assert!(lines[4].contains("2026-11-24T04:16:38.082052Z"), "the end of the interval: {table}");
    let below = ["scan 0 sent: SELECT max(n)", "skew: 5210.757 ms", "token: abc"];
    assert_eq!(lines[lines.len() - 3..], below, "{table}");
    let scan = &mut receipt["scans"][0];
    scan["satisfied"] = json!(false);
    scan["degraded_reason"] = json!("nothing proves the bound");
    let table = receipt_table(&receipt);
    for part in ["10000.000 ms, not met", "scan 0 is less than was asked for: nothing proves"] {
        assert!(table.contains(part), "{part} in {table}");
    }
}

#[test]
fn a_receipt_names_what_was_read_where() {
    let receipt = json!({"query_id": "q", "scans": [{
        "scan": 0, "source": "portfolio", "table": "public.positions", "copy": "primary",
        "rows": 12345, "bytes": 2048, "remote_text": "SELECT \"qty\" FROM \"public\".\"positions\"",
    }]});
    let table = receipt_table(&receipt);
    for part in ["portfolio", "public.positions", "primary", "12,345", "2.0 KiB", "SELECT \"qty\""]
    {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert_eq!(receipt_table(&json!({"query_id": "q", "scans": []})), "no source was read");
}

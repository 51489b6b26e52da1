//! The `files` connector over real files, on local disk and in a real S3 server.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use bytes::Bytes;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator, col, lit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, DynamicFilterPhysicalExpr, Literal,
};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};
use serde_json::{Value, json};
use synoptic_source::{
    ErrorKind, Fragment, PrepareOptions, PreparedScan, Pushdown, Relation, Result, ScanContext,
    ScanCounters, Snapshot, Source, SourceError, Statement, TableDef,
};
use synoptic_tests::s3::{BUCKET, S3Server, SECRET_KEY};
use synoptic_types::{QueryId, SourceName, TableName};
use tempfile::TempDir;

fn try_source(base: &Path, options: Value) -> std::result::Result<Arc<dyn Source>, String> {
    let Value::Object(options) = options else { panic!("options are an object") };
    synoptic_connectors::open("files", SourceName::new("lake"), options, base)
        .map_err(|error| format!("{}: {}", error.path.join("."), error.message))
}

fn source(base: &Path, options: Value) -> Arc<dyn Source> {
    try_source(base, options).expect("the options are right")
}

fn local(base: &Path) -> Arc<dyn Source> {
    source(base, json!({ "location": "." }))
}

fn statement() -> Arc<Statement> {
    Arc::new(Statement { query_id: QueryId::new("test"), deadline: None })
}

fn name(table: &str) -> TableName {
    TableName::new("public", table)
}

async fn describe(source: &Arc<dyn Source>, table: &str) -> Result<Arc<TableDef>> {
    Ok(source.table(&name(table)).await?.unwrap_or_else(|| panic!("there is a table {table}")))
}

/// One prepared scan and what it runs under.
struct Ready {
    prepared: Arc<dyn PreparedScan>,
    snapshot: Arc<dyn Snapshot>,
    counters: Arc<ScanCounters>,
}

async fn prepare(source: &Arc<dyn Source>, fragment: Fragment, partitions: usize) -> Result<Ready> {
    let snapshot = source.begin(&statement());
    let options = PrepareOptions { target_partitions: partitions, batch_size: 1024 };
    let prepared = source.prepare(fragment, &snapshot, &options).await?;
    Ok(Ready { prepared, snapshot, counters: Arc::default() })
}

impl Ready {
    fn open(
        &self,
        partition: usize,
        dynamic_filters: Vec<Arc<dyn PhysicalExpr>>,
    ) -> synoptic_source::BatchStream {
        let counters = Arc::clone(&self.counters);
        let context = ScanContext { statement: statement(), dynamic_filters, counters };
        let opened = self.prepared.open(partition, Arc::clone(&self.snapshot), context);
        opened.expect("the partition exists")
    }

    async fn all(&self, dynamic_filters: &[Arc<dyn PhysicalExpr>]) -> Result<RecordBatch> {
        let mut batches = Vec::new();
        for partition in 0..self.prepared.partitions() {
            let stream = self.open(partition, dynamic_filters.to_vec());
            batches.extend(stream.try_collect::<Vec<_>>().await?);
        }
        Ok(concat_batches(&self.prepared.schema(), &batches).expect("the schemas are equal"))
    }
}

async fn read(source: &Arc<dyn Source>, table: &str) -> Result<RecordBatch> {
    let fragment = Fragment::table(describe(source, table).await?);
    prepare(source, fragment, 2).await?.all(&[]).await
}

fn by_first_column(batch: &RecordBatch) -> RecordBatch {
    let order = sort_to_indices(batch.column(0), None, None).expect("it can be sorted");
    take_record_batch(batch, &order).expect("the order fits")
}

fn trades(rows: std::ops::Range<i64>) -> RecordBatch {
    let text = |i: i64| match i % 5 {
        0 => None,
        1 => Some("Ünïcode, \"quoted\"".to_owned()),
        _ => Some(format!("S{i}")),
    };
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(rows.clone())) as ArrayRef),
        ("symbol", Arc::new(rows.clone().map(text).collect::<StringArray>())),
        (
            "price",
            Arc::new(
                rows.clone()
                    .map(|i| (i % 7 > 0).then_some(i as f64 / 4.0))
                    .collect::<Float64Array>(),
            ),
        ),
        (
            "day",
            Arc::new(Date32Array::from_iter_values(rows.map(|i| (i % 50_000) as i32 - 20_000))),
        ),
    ])
    .expect("the columns are equally long")
}

fn parquet(batch: &RecordBatch, rows_in_group: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_in_group))
        .set_data_page_row_count_limit(500)
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("writer");
    writer.write(batch).expect("written");
    writer.close().expect("closed");
    bytes
}

fn csv(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    arrow::csv::Writer::new(&mut bytes).write(batch).expect("written");
    bytes
}

fn json_lines(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    arrow::json::LineDelimitedWriter::new(&mut bytes).write(batch).expect("written");
    bytes
}

fn arrow_file(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &batch.schema()).expect("writer");
    for start in (0..batch.num_rows()).step_by(700) {
        writer.write(&batch.slice(start, 700.min(batch.num_rows() - start))).expect("written");
    }
    writer.finish().expect("finished");
    drop(writer);
    bytes
}

fn arrow_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).expect("writer");
    writer.write(batch).expect("written");
    writer.finish().expect("finished");
    drop(writer);
    bytes
}

/// Files under `names`, all with the same rows.
fn all_formats(batch: &RecordBatch) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("p.parquet", parquet(batch, 1000)),
        ("c.csv", csv(batch)),
        ("j.ndjson", json_lines(batch)),
        ("a.arrow", arrow_file(batch)),
        ("s.arrows", arrow_stream(batch)),
    ]
}

/// Every format reads back what was written, whatever each spells the types like.
async fn reads_what_was_written(source: &Arc<dyn Source>, want: &RecordBatch) {
    for table in ["p", "c", "j", "a", "s"] {
        let got = read(source, table).await.unwrap_or_else(|e| panic!("{table}: {e}"));
        let columns: Vec<usize> = ["id", "symbol", "price", "day"]
            .map(|name| got.schema().index_of(name).expect(name))
            .to_vec();
        let got = by_first_column(&got.project(&columns).expect("projected"));
        assert_eq!(got.num_rows(), want.num_rows(), "{table}");
        for (column, wanted) in got.columns().iter().zip(want.columns()) {
            let column = arrow::compute::cast(column, wanted.data_type()).expect(table);
            assert_eq!(&column, wanted, "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_formats_on_local_disk() {
    let folder = TempDir::new().expect("a folder");
    let batch = trades(0..5000);
    for (file, bytes) in all_formats(&batch) {
        fs::write(folder.path().join(file), bytes).expect("written");
    }
    fs::write(folder.path().join("_hidden.csv"), "x\n1\n").expect("written");
    fs::write(folder.path().join("README.md"), "no data").expect("written");
    fs::create_dir(folder.path().join("empty")).expect("made");
    let source = local(folder.path());
    let tables = source.tables().await.expect("listed");
    let names: Vec<_> = tables.iter().map(|t| t.name.name.to_string()).collect();
    assert_eq!(names, ["a", "c", "j", "p", "s"]);
    assert!(source.table(&name("empty")).await.expect("asked").is_none());
    reads_what_was_written(&source, &batch).await;
    let check = source.check().await.expect("checked");
    assert!(check.location.contains(folder.path().to_str().expect("utf-8")), "{check:?}");

    // A name that a file and a folder claim is an error that names both; the others still work.
    fs::create_dir(folder.path().join("p")).expect("made");
    fs::write(folder.path().join("p/x.parquet"), parquet(&batch, 1000)).expect("written");
    let error = source.table(&name("p")).await.expect_err("a clash").to_string();
    assert!(error.contains("p.parquet") && error.contains("could mean"), "{error}");
    assert_eq!(source.tables().await.expect("listed").len(), 5);
    read(&source, "c").await.expect("the others still work");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_formats_on_s3_and_objects_stay_pinned() {
    let server = S3Server::start();
    let store = server.store();
    let batch = trades(0..3000);
    for (file, bytes) in all_formats(&batch) {
        let path = ObjectPath::from(format!("base/{file}"));
        store.put(&path, PutPayload::from(bytes)).await.expect("put");
    }
    let options =
        json!({ "location": format!("s3://{BUCKET}/base/"), "storage": server.storage() });
    let source = source(Path::new("/"), options);
    reads_what_was_written(&source, &batch).await;

    // Replaced between prepare and open, by an object of the same size.
    for (table, file) in [("p", "p.parquet"), ("c", "c.csv"), ("a", "a.arrow"), ("j", "j.ndjson")] {
        let fragment = Fragment::table(describe(&source, table).await.expect("described"));
        let ready = prepare(&source, fragment, 1).await.expect("prepared");
        let path = ObjectPath::from(format!("base/{file}"));
        let bytes = store.get(&path).await.expect("got").bytes().await.expect("bytes");
        let mut other = bytes.to_vec();
        let middle = other.len() / 2;
        other[middle] ^= 1;
        store.put(&path, PutPayload::from(other)).await.expect("put");
        let error = ready.all(&[]).await.expect_err("it was replaced");
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("run the statement again"), "{text}");
        assert!(text.contains(&format!("public.{table}")) && text.contains("lake"), "{text}");
    }

    // Dropped in the middle: no more bytes are fetched.
    let big = parquet(&trades(0..200_000), 20_000);
    store.put(&ObjectPath::from("base/big.parquet"), PutPayload::from(big)).await.expect("put");
    let fragment = Fragment::table(describe(&source, "big").await.expect("described"));
    let ready = prepare(&source, fragment, 1).await.expect("prepared");
    let mut stream = ready.open(0, Vec::new());
    stream.next().await.expect("a batch").expect("read");
    drop(stream);
    let bytes = ready.counters.bytes();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ready.counters.bytes(), bytes);
    let all: u64 = store.head(&ObjectPath::from("base/big.parquet")).await.expect("head").size;
    assert!(bytes > 0 && bytes < all / 2, "{bytes} of {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hive_folders_are_columns_and_filters_on_them_are_exact() {
    let folder = TempDir::new().expect("a folder");
    for year in [2022, 2023, 2024] {
        for desk in ["fx", "__HIVE_DEFAULT_PARTITION__"] {
            let at = folder.path().join(format!("trades/year={year}/desk={desk}"));
            fs::create_dir_all(&at).expect("made");
            let first = (year - 2022) * 100 + i64::from(desk == "fx") * 50;
            fs::write(at.join("part.parquet"), parquet(&trades(first..first + 50), 100))
                .expect("written");
        }
    }
    let source = local(folder.path());
    let table = describe(&source, "trades").await.expect("described");
    let types: Vec<_> = table.schema.fields()[4..]
        .iter()
        .map(|f| (f.name().as_str(), f.data_type().clone()))
        .collect();
    assert_eq!(types, [("year", DataType::Int64), ("desk", DataType::Utf8)]);
    let filter = col("year").gt_eq(lit(2023_i64)).and(col("desk").is_null());
    assert_eq!(source.pushdown(&table, &filter), Pushdown::Exact);
    let mut fragment = Fragment::table(Arc::clone(&table));
    fragment.filters = vec![filter];
    fragment.projection = vec![4, 0, 5];
    let ready = prepare(&source, fragment, 2).await.expect("prepared");
    let text = ready.prepared.remote_text();
    assert!(text.contains("parquet: 2 of 6 files") && text.contains("files kept where"), "{text}");
    assert_eq!(ready.prepared.statistics().num_rows, Precision::Exact(100));
    let got = ready.all(&[]).await.expect("read");
    assert_eq!(got.num_rows(), 100);
    assert_eq!(got.schema(), ready.prepared.schema());
    assert_eq!(got.column(2).null_count(), 100);
    let years = got.column(0).as_primitive::<Int64Type>();
    assert!(years.iter().flatten().all(|year| year >= 2023));

    // A glob, and the number of rows alone.
    let options = json!({ "location": ".", "tables": {
        "fx": { "path": "trades/*/desk=fx/*.parquet", "partition_types": { "year": "int" } } } });
    let source = self::source(folder.path(), options);
    assert_eq!(source.tables().await.expect("listed").len(), 1);
    let table = describe(&source, "fx").await.expect("described");
    assert_eq!(table.schema.field_with_name("year").expect("year").data_type(), &DataType::Int32);
    let mut fragment = Fragment::table(table);
    fragment.projection = Vec::new();
    let got = prepare(&source, fragment, 4).await.expect("prepared").all(&[]).await.expect("read");
    assert_eq!((got.num_rows(), got.num_columns()), (150, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_dynamic_filters_skip_bytes() {
    let folder = TempDir::new().expect("a folder");
    let bytes = parquet(&trades(0..200_000), 10_000);
    fs::write(folder.path().join("t.parquet"), bytes).expect("written");
    let source = local(folder.path());
    let table = describe(&source, "t").await.expect("described");
    let whole = prepare(&source, Fragment::table(Arc::clone(&table)), 1).await.expect("prepared");
    assert_eq!(whole.prepared.statistics().num_rows, Precision::Exact(200_000));
    assert_eq!(whole.all(&[]).await.expect("read").num_rows(), 200_000);
    assert_eq!(whole.counters.rows(), 200_000);

    let filter = col("id").eq(lit(123_456_i64));
    assert!(matches!(source.pushdown(&table, &filter), Pushdown::Inexact(_)));
    let mut fragment = Fragment::table(Arc::clone(&table));
    fragment.filters = vec![filter];
    let some = prepare(&source, fragment, 1).await.expect("prepared");
    assert!(
        some.prepared.remote_text().contains("pruning predicate"),
        "{}",
        some.prepared.remote_text()
    );
    let got = some.all(&[]).await.expect("read");
    assert!((1..=2048).contains(&got.num_rows()), "{}", got.num_rows());
    assert!(some.counters.bytes() * 10 < whole.counters.bytes());

    // A projection reads fewer bytes; a limit reads fewer still.
    let mut fragment = Fragment::table(Arc::clone(&table));
    fragment.projection = vec![3];
    let narrow = prepare(&source, fragment, 1).await.expect("prepared");
    narrow.all(&[]).await.expect("read");
    assert!(narrow.counters.bytes() * 2 < whole.counters.bytes());
    let mut fragment = Fragment::table(Arc::clone(&table));
    fragment.limit = Some(5);
    let few = prepare(&source, fragment, 4).await.expect("prepared");
    assert_eq!(few.all(&[]).await.expect("read").num_rows(), 5);
    assert!(few.counters.bytes() * 10 < whole.counters.bytes());

    // A join's filter, over the output columns: `id` is the second of them here.
    let id = Arc::new(Column::new("id", 1)) as Arc<dyn PhysicalExpr>;
    let always = Arc::new(Literal::new(ScalarValue::from(true))) as Arc<dyn PhysicalExpr>;
    let dynamic = Arc::new(DynamicFilterPhysicalExpr::new(vec![Arc::clone(&id)], always));
    let most = Arc::new(Literal::new(ScalarValue::from(3000_i64))) as Arc<dyn PhysicalExpr>;
    dynamic.update(Arc::new(BinaryExpr::new(id, Operator::Lt, most))).expect("updated");
    let mut fragment = Fragment::table(Arc::clone(&table));
    fragment.projection = vec![3, 0];
    let joined = prepare(&source, fragment, 1).await.expect("prepared");
    let got = joined.all(&[dynamic]).await.expect("read");
    assert!((3000..20_000).contains(&got.num_rows()), "{}", got.num_rows());

    // What may overflow is decided by the engine, which says so.
    let sum = (col("id") + lit(i64::MAX)).lt(lit(0_i64));
    assert!(matches!(source.pushdown(&table, &sum), Pushdown::No(_)));

    // Statistics leave NaN out, and NaN is above every number.
    let above = col("price").gt(lit(5.0));
    assert!(matches!(source.pushdown(&table, &above), Pushdown::No(_)));
    let below = col("price").lt(lit(5.0));
    assert!(matches!(source.pushdown(&table, &below), Pushdown::Inexact(_)));
}

/// The prepared scan with the keys that a join has collected.
fn narrowed(ready: &Ready, conditions: &[Expr]) -> Ready {
    let narrowed = ready.prepared.narrowed(conditions).expect("it takes keys");
    assert!(narrowed.left.is_empty(), "{:?}", narrowed.left);
    let snapshot = Arc::clone(&ready.snapshot);
    Ready { prepared: narrowed.scan, snapshot, counters: Arc::default() }
}

/// A text as Parquet files show it.
fn text(text: &str) -> ScalarValue {
    ScalarValue::Utf8View(Some(text.to_owned()))
}

fn one_of<T: datafusion::logical_expr::Literal>(column: usize, keys: Vec<T>) -> Expr {
    Relation::column(column).in_list(keys.into_iter().map(lit).collect(), false)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_joins_skip_row_groups_and_rows() {
    let folder = TempDir::new().expect("a folder");
    let rows = trades(0..200_000);
    fs::write(folder.path().join("t.parquet"), parquet(&rows, 10_000)).expect("written");
    let source = local(folder.path());
    let table = describe(&source, "t").await.expect("described");
    let whole = prepare(&source, Fragment::table(Arc::clone(&table)), 2).await.expect("prepared");
    whole.all(&[]).await.expect("read");
    let early = |ready: &Ready| ready.prepared.remote_text().contains("before the rest is decoded");

    // Keys of two stretches: the row groups between them are not read, and of the others only the
    // rows that have one. Longer lists are compared with statistics as ranges.
    let keys: Vec<i64> =
        (0..50).map(|i| 15_000 + 7 * i).chain((0..50).map(|i| 170_000 + i)).collect();
    let some = narrowed(&whole, &[one_of(0, keys.clone())]);
    assert!(early(&some), "{}", some.prepared.remote_text());
    let got = by_first_column(&some.all(&[]).await.expect("read"));
    assert_eq!(got.column(0).as_primitive::<Int64Type>().values(), keys.as_slice());
    let wanted = arrow::array::UInt32Array::from_iter_values(keys.iter().map(|key| *key as u32));
    let wanted = take_record_batch(&rows, &wanted).expect("taken");
    for (column, wanted) in got.columns().iter().zip(wanted.columns()) {
        let column = arrow::compute::cast(column, wanted.data_type()).expect("text is text");
        assert_eq!(&column, wanted);
    }
    let (read, all) = (some.counters.bytes(), whole.counters.bytes());
    assert!(read * 8 < all, "{read} of {all} bytes");

    // A key of every row group: the bytes are read, the rows are not decoded.
    let keys: Vec<i64> = (0..40).map(|i| i * 5_000 + 77).collect();
    let some = narrowed(&whole, &[one_of(0, keys.clone())]);
    assert_eq!(some.all(&[]).await.expect("read").num_rows(), 40);

    // Keys that are known to keep most rows only skip row groups.
    let most: Vec<i64> = (0..150_000).collect();
    let some = narrowed(&whole, &[one_of(0, most)]);
    assert!(!early(&some), "{}", some.prepared.remote_text());
    assert!(some.all(&[]).await.expect("read").num_rows() >= 150_000);

    // Of a text nobody knows: it is tried, and given up when it keeps too many rows, here one in
    // five. The engine checks the others again.
    let some = narrowed(&whole, &[one_of(1, vec![text("Ünïcode, \"quoted\"")])]);
    assert!(early(&some), "{}", some.prepared.remote_text());
    let got = some.all(&[]).await.expect("read").num_rows();
    assert!((40_000..200_000).contains(&got), "{got} rows");
    let some = narrowed(&whole, &[one_of(1, ["S2", "S199998", "none"].map(text).to_vec())]);
    assert_eq!(some.all(&[]).await.expect("read").num_rows(), 2);

    // NULL is a key where a join says so, and two columns go together.
    let or_null = one_of(1, vec![text("S2")]).or(Relation::column(1).is_null());
    let some = narrowed(&whole, &[or_null, one_of(0, vec![0_i64, 1, 2, 3])]);
    let got = some.all(&[]).await.expect("read");
    assert_eq!(by_first_column(&got).column(0).as_primitive::<Int64Type>().values(), &[0, 2]);

    // Floating-point keys stay with the engine; below a limit there are no keys.
    let price = whole.prepared.narrowed(&[one_of(2, vec![1.0])]).expect("it takes keys");
    assert_eq!(price.left.len(), 1);
    let mut fragment = Fragment::table(Arc::clone(&table));
    fragment.limit = Some(5);
    let few = prepare(&source, fragment, 1).await.expect("prepared");
    assert!(few.prepared.narrowed(&[]).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_beside_keys_keep_what_the_engine_would() {
    let folder = TempDir::new().expect("a folder");
    let nan = [1.0, 2.0, 10.0, -f64::NAN, f64::NAN, f64::from_bits(0xFFF0_0000_0000_0001)];
    let numbers = (0..60_000).map(|i| nan[i % nan.len()]);
    let keys = Int64Array::from_iter_values((0..60_000).map(|i| i / 100));
    let columns = [
        ("f", Arc::new(numbers.collect::<Float64Array>()) as ArrayRef),
        ("k", Arc::new(keys)),
        (
            "text",
            Arc::new((0..60_000).map(|i| Some(format!("{}", i % 3))).collect::<StringArray>()),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("made");
    fs::write(folder.path().join("p.parquet"), parquet(&batch, 60_000)).expect("written");
    let source = local(folder.path());
    let table = describe(&source, "p").await.expect("described");
    let check = |filter: &Expr, rows: &RecordBatch| {
        let schema = DFSchema::try_from(Arc::clone(&table.schema)).expect("a schema");
        let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
        let check = create_physical_expr(filter, &schema, &props, &context).expect("planned");
        let verdict = check.evaluate(rows).and_then(|v| v.into_array(rows.num_rows()));
        arrow::compute::filter_record_batch(rows, verdict.expect("checked").as_boolean())
            .expect("filtered")
    };
    let all = read(&source, "p").await.expect("read");
    let key = col("k").in_list(vec![lit(7_i64), lit(300_i64)], false);
    for filter in [
        // NaN of either sign is above every number, and statistics know nothing of it.
        col("f").lt(lit(5.0)),
        col("f").is_not_null(),
        col("text").eq(lit(text("1"))),
        col("text").eq(lit(text("1"))).and(col("f").lt_eq(lit(1.0))),
        col("k").lt(lit(100_i64)),
    ] {
        let mut fragment = Fragment::table(Arc::clone(&table));
        assert!(matches!(source.pushdown(&table, &filter), Pushdown::Inexact(_)), "{filter}");
        fragment.filters = vec![filter.clone()];
        let ready = prepare(&source, fragment, 1).await.expect("prepared");
        let some = narrowed(&ready, &[one_of(1, vec![7_i64, 300])]);
        let got = some.all(&[]).await.expect("read");
        assert!(got.num_rows() <= 200, "{filter}: {} rows", got.num_rows());
        let wanted = check(&key, &check(&filter, &all));
        assert_eq!(check(&key, &check(&filter, &got)), wanted, "{filter}");
    }
}

/// The values of `filter` over the column `f` that are left when the source skips what it can, and
/// when it skips nothing; both checked again, as the engine does.
async fn kept(source: &Arc<dyn Source>, table: &str, filter: Expr) -> [Vec<f64>; 2] {
    let table = describe(source, table).await.expect("described");
    let schema = DFSchema::try_from(Arc::clone(&table.schema)).expect("a schema");
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let check = create_physical_expr(&filter, &schema, &props, &context).expect("planned");
    let mut both = [Vec::new(), Vec::new()];
    for (skips, values) in [true, false].into_iter().zip(&mut both) {
        let mut fragment = Fragment::table(Arc::clone(&table));
        if skips && !matches!(source.pushdown(&table, &filter), Pushdown::No(_)) {
            fragment.filters = vec![filter.clone()];
        }
        let got = prepare(source, fragment, 1).await.expect("prepared").all(&[]).await;
        let got = got.expect("read");
        let verdict = check.evaluate(&got).expect("checked").into_array(got.num_rows());
        let verdict = verdict.expect("an array");
        let left = arrow::compute::filter(got.column(0), verdict.as_boolean()).expect("filtered");
        values.extend(left.as_primitive::<Float64Type>().values());
    }
    both
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_may_overflow_chooses_no_files() {
    let folder = TempDir::new().expect("a folder");
    for p in [1, 2] {
        fs::create_dir_all(folder.path().join(format!("t/p={p}"))).expect("made");
        fs::write(folder.path().join(format!("t/p={p}/a.csv")), "x\n1\n").expect("written");
    }
    let source = local(folder.path());
    let table = describe(&source, "t").await.expect("described");
    let exact = |filter: Expr| matches!(source.pushdown(&table, &filter), Pushdown::Exact);
    assert!(exact(col("p").gt(lit(1_i64))) && exact(col("p").in_list(vec![lit(1_i64)], false)));
    let most = || lit(9_223_372_036_854_775_806_i64);
    for filter in [
        (col("p") + most()).lt(lit(0_i64)),
        (col("p") * most()).lt(lit(0_i64)),
        (col("p") - most()).lt(lit(0_i64)).or(col("p").eq(lit(1_i64))),
        Expr::Negative(Box::new(col("p"))).lt(lit(0_i64)),
        (most() / col("p")).lt(lit(0_i64)),
    ] {
        let Pushdown::No(reason) = source.pushdown(&table, &filter) else {
            panic!("{filter} is left to the engine");
        };
        assert!(reason.to_string().contains("overflows"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nan_of_either_sign_is_one_nan_above_every_number() {
    let folder = TempDir::new().expect("a folder");
    // Row groups of two: statistics say 1 to 2 and 10 to 10.
    let values = vec![1.0, 2.0, 10.0, -f64::NAN, f64::NAN, f64::from_bits(0xFFF0_0000_0000_0001)];
    let column = Arc::new(Float64Array::from(values)) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("f", column)]).expect("made");
    for (file, bytes) in all_formats(&batch) {
        if !file.ends_with(".ndjson") {
            let rows_in_group = 2;
            let bytes =
                if file.ends_with("parquet") { parquet(&batch, rows_in_group) } else { bytes };
            fs::write(folder.path().join(file), bytes).expect("written");
        }
    }
    fs::write(folder.path().join("c.csv"), "f\n1\n2\n10\n-nan\nNaN\n-NaN\n").expect("written");
    let options = json!({ "location": ".", "tables": {
        "p": { "path": "p.parquet" }, "a": { "path": "a.arrow" }, "s": { "path": "s.arrows" },
        "c": { "path": "c.csv", "schema": { "f": "double" } } } });
    let source = source(folder.path(), options);
    for table in ["p", "c", "a", "s"] {
        let got = read(&source, table).await.expect(table);
        let got = got.column(0).as_primitive::<Float64Type>();
        assert!((3..6).all(|row| got.value(row).to_bits() == f64::NAN.to_bits()), "{table}");
        for (filter, count) in [
            (col("f").lt(lit(5.0)), 2),
            (col("f").lt_eq(lit(1.0)), 1),
            (col("f").gt(lit(5.0)), 4),
            (col("f").gt_eq(lit(10.0)), 4),
            (col("f").eq(lit(10.0)), 1),
            (col("f").not_eq(lit(10.0)), 5),
            (col("f").eq(lit(f64::NAN)), 3),
            (col("f").eq(lit(-f64::NAN)), 0),
            (col("f").lt(lit(-1e300)), 0),
            (col("f").between(lit(1.5), lit(20.0)), 2),
            (col("f").not_between(lit(1.5), lit(20.0)), 4),
            (!col("f").lt(lit(5.0)), 4),
            (col("f").in_list(vec![lit(2.0), lit(10.0)], false), 2),
            (col("f").in_list(vec![lit(2.0), lit(10.0)], true), 4),
            (lit(5.0).lt(col("f")), 4),
            (col("f").is_not_null(), 6),
        ] {
            let [skipped, whole] = kept(&source, table, filter.clone()).await;
            assert_eq!(skipped.len(), whole.len(), "{table} {filter}");
            assert_eq!(whole.len(), count, "{table} {filter}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_or_removed_while_it_is_read() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("t.parquet");
    let bytes = parquet(&trades(0..100_000), 10_000);
    fs::write(&path, &bytes).expect("written");
    let source = local(folder.path());
    let table = describe(&source, "t").await.expect("described");
    for remove in [false, true] {
        fs::write(&path, &bytes).expect("written");
        let fragment = Fragment::table(Arc::clone(&table));
        let ready = prepare(&source, fragment, 1).await.expect("prepared");
        let mut stream = ready.open(0, Vec::new());
        let first = stream.next().await.expect("a batch").expect("read");
        assert!(first.num_rows() > 0);
        if remove {
            fs::remove_file(&path).expect("removed");
        } else {
            fs::write(folder.path().join("_new"), &bytes).expect("written");
            fs::rename(folder.path().join("_new"), &path).expect("renamed");
        }
        let rest: Result<Vec<RecordBatch>> = stream.try_collect().await;
        let error = rest.expect_err("it has changed");
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
        assert!(error.to_string().contains("t.parquet"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poisoned_files_are_data_errors() {
    let folder = TempDir::new().expect("a folder");
    let source = local(folder.path());
    let batch = trades(0..3000);
    let good: Vec<(&str, Vec<u8>)> = all_formats(&batch)
        .into_iter()
        .filter(|(file, _)| file.contains(".parquet") || file.contains(".arrow"))
        .collect();
    let is_clear = |file: &str, error: SourceError| {
        assert_eq!(error.kind(), ErrorKind::Data, "{file}: {error}");
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("source 'lake'"), "{text}");
    };
    for (file, bytes) in &good {
        let path = folder.path().join(file);
        let table = file.split('.').next().expect("a stem");
        let mut poisons: Vec<Vec<u8>> = vec![Vec::new(), b"PAR1".to_vec(), vec![0xFF; 4096]];
        poisons.push(bytes[..bytes.len() / 2].to_vec());
        poisons.push(bytes[..bytes.len() - 5].to_vec());
        for poison in poisons {
            fs::write(&path, poison).expect("written");
            match read(&source, table).await {
                Err(error) => is_clear(file, error),
                // An IPC stream may end after any message.
                Ok(got) => assert!(*file == "s.arrows" && got.num_rows() <= batch.num_rows()),
            }
        }
        // One wrong byte anywhere in the metadata: an error with its place or an answer, no more.
        for step in 0..150 {
            let mut poison = bytes.clone();
            let at = poison.len() - 1 - (step * 17) % (poison.len() / 2);
            poison[at] = poison[at].wrapping_add(0x55 + step as u8);
            fs::write(&path, poison).expect("written");
            if let Err(error) = read(&source, table).await {
                let text = error.to_string();
                let internal = error.kind() == ErrorKind::Internal;
                assert!(!internal && text.contains(file), "{:?} {text}", error.kind());
            }
        }
        fs::write(&path, bytes).expect("written");
        read(&source, table).await.expect("the next statement is fine");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_and_json_values_are_whole_or_an_error_with_their_place() {
    let folder = TempDir::new().expect("a folder");
    let write = |file: &str, text: &str| {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    };
    // The second file has its columns in another order, one more, and one less.
    write("moved/1.csv", "id,name,at\n1,one,2020-01-01T00:00:00\n2,,2020-01-02T00:00:00.5\n");
    write("moved/2.csv", "extra,name,id\nx,three,3\n");
    write("money/m.csv", "id;amount\n1;12.30\n2;NA\n3;1.234\n");
    write("bad/b.csv", &format!("id,n\n{}x,oops\n", "1,2\n".repeat(3000)));
    write("whole/w.ndjson", "{\"id\":1}\n{\"id\":9223372036854775807}\n");
    write("half/h.ndjson", &format!("{}{{\"id\":1.5}}\n", "{\"id\":1}\n".repeat(3000)));
    write("array/a.json", "[{\"id\":1,\"v\":\"a\"},{\"id\":2}]");
    write("broken/x.ndjson", "{\"id\":1}\n{\"id\":");
    let options = json!({ "location": ".", "tables": {
        "moved": {}, "bad": {}, "whole": {}, "half": {}, "array": {}, "broken": {},
        "money": { "delimiter": ";", "null_value": "NA", "schema": { "amount": "decimal(9, 2)" } },
        "money3": { "path": "money", "delimiter": ";", "null_value": "NA",
                    "schema": { "amount": "decimal(9, 3)" } } } });
    let source = source(folder.path(), options);

    let moved = by_first_column(&read(&source, "moved").await.expect("read"));
    let names: Vec<_> = moved.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["id", "name", "at", "extra"]);
    let texts: Vec<_> = moved.column(1).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("one"), None, Some("three")]);
    assert_eq!(moved.column(2).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(moved.column(2).null_count(), 1);
    let extra: Vec<_> = moved.column(3).as_string::<i32>().iter().collect();
    assert_eq!(extra, [None, None, Some("x")]);

    let money = read(&source, "money3").await.expect("read");
    let want = Decimal128Array::from(vec![Some(12300), None, Some(1234)]);
    assert_eq!(
        money.column(1).as_ref(),
        &want.with_precision_and_scale(9, 3).expect("fits") as &dyn Array
    );
    for (table, file, place) in [
        ("money", "money/m.csv", "column amount: file money/m.csv: '1.234' in line 4"),
        ("bad", "bad/b.csv", "'x' in line 3002"),
        ("half", "half/h.ndjson", "'1.5"),
        ("broken", "broken/x.ndjson", ""),
    ] {
        let error = read(&source, table).await.expect_err(table);
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        let text = error.to_string();
        assert!(text.contains(file) && text.contains(place), "{text}");
    }
    let whole = read(&source, "whole").await.expect("read");
    assert_eq!(whole.column(0).as_primitive::<Int64Type>().value(1), i64::MAX);
    assert_eq!(read(&source, "array").await.expect("read").num_rows(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_type_never_cuts_a_value() {
    let folder = TempDir::new().expect("a folder");
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let column = |array: ArrayRef, to: &DataType| arrow::compute::cast(&array, to).expect("cast");
    let whole = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let small = column(whole(), &DataType::Int32);
    let batch = RecordBatch::try_from_iter([
        ("f", Arc::new(Float64Array::from(vec![1.7])) as ArrayRef),
        ("ts", column(whole(), &nanos)),
        ("n", Arc::clone(&small)),
        ("s", column(whole(), &DataType::Timestamp(TimeUnit::Second, None))),
    ]);
    let batch = batch.expect("made");
    for (file, bytes) in [("p.parquet", parquet(&batch, 10)), ("a.arrow", arrow_file(&batch))] {
        fs::write(folder.path().join(file), bytes).expect("written");
        for (column, declared) in [
            ("f", "bigint"),
            ("f", "decimal(10, 1)"),
            ("f", "real"),
            ("ts", "timestamp"),
            ("ts", "date"),
            ("s", "date"),
            ("n", "smallint"),
            ("n", "decimal(10, 1)"),
        ] {
            let options = json!({ "location": ".", "tables": {
                "t": { "path": file, "schema": { column: declared } } } });
            let error = read(&source(folder.path(), options), "t").await.expect_err(declared);
            assert_eq!(error.kind(), ErrorKind::Data, "{error}");
            let text = error.to_string();
            assert!(text.contains(file) && text.contains(&format!("column {column}")), "{text}");
        }
        for (column, declared) in [("n", "bigint"), ("n", "decimal(12, 2)"), ("n", "double")] {
            let options = json!({ "location": ".", "tables": {
                "t": { "path": file, "schema": { column: declared, "s": "timestamp" } } } });
            let got = read(&source(folder.path(), options), "t").await.expect(declared);
            let got = arrow::compute::cast(got.column(2), &DataType::Int32).expect("cast");
            assert_eq!(&got, &small, "{file} {declared}");
        }
    }

    // A file that was not looked into when the table was described.
    fs::create_dir(folder.path().join("many")).expect("made");
    for (i, array) in [whole(), Arc::new(Float64Array::from(vec![1.7])) as ArrayRef, whole()]
        .into_iter()
        .enumerate()
    {
        let batch = RecordBatch::try_from_iter([("v", array)]).expect("made");
        let path = folder.path().join(format!("many/{i}.parquet"));
        fs::write(path, parquet(&batch, 10)).expect("written");
    }
    let options = json!({ "location": ".", "schema_files": 2, "tables": { "many": {} } });
    let error = read(&source(folder.path(), options), "many").await.expect_err("1.7 is cut");
    assert!(error.to_string().contains("many/1.parquet"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_dates_times_and_numbers_or_an_error_with_their_place() {
    let folder = TempDir::new().expect("a folder");
    let cases = [
        ("d.csv", "x\n2024-01-05\n2024-01-05 23:59:59\n", "date"),
        ("o.csv", "x\n2024-01-05\n2024-01-05T01:00:00+05:00\n", "date"),
        ("f.csv", "x\n1.5\n1e400\n", "double"),
        ("z.csv", "x\n2024-01-05 12:00:00\n2024-01-05 12:00:00+02:00\n", "timestamp"),
        ("j.ndjson", "{\"x\":\"2024-01-05\"}\n{\"x\":\"2024-01-05 23:59:59\"}\n", "date"),
        ("k.ndjson", "{\"x\":1.5}\n{\"x\":1e400}\n", "double"),
    ];
    for (file, text, declared) in cases {
        fs::write(folder.path().join(file), text).expect("written");
        let options = json!({ "location": ".", "infer_rows": 1, "tables": {
            "t": { "path": file, "schema": { "x": declared } } } });
        let error = read(&source(folder.path(), options), "t").await.expect_err(file);
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        let text = error.to_string();
        assert!(text.contains(file) && text.contains("column x"), "{text}");
        assert!(text.contains(if file.ends_with("csv") { "line 3" } else { "line 2" }), "{text}");
    }
    // Offsets from UTC are looked at before a type is guessed.
    let moment = "2024-01-05T12:00:00.25+02:00";
    for (other, guessed) in [
        ("2024-01-05T12:00:00Z", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("2024-01-05T12:00:00", DataType::Utf8),
    ] {
        fs::write(folder.path().join("e.csv"), format!("x\n{moment}\n{other}\n")).expect("written");
        let got = read(&local(folder.path()), "e").await.expect("read");
        assert_eq!(got.column(0).data_type(), &guessed);
        let shown = arrow::util::display::array_value_to_string(got.column(0), 0).expect("shown");
        let utc = "2024-01-05T10:00:00.250Z";
        assert_eq!(shown, if guessed == DataType::Utf8 { moment } else { utc });
    }
    // A type that was guessed from the first rows holds for the others.
    let text = format!("x\n{}2024-01-05 23:59:59\n", "2024-01-05\n".repeat(2000));
    fs::write(folder.path().join("g.csv"), text).expect("written");
    let error = read(&local(folder.path()), "g").await.expect_err("a time of day");
    assert!(error.to_string().contains("line 2002"), "{error}");

    for (value, declared, fits) in [
        ("1.239", "decimal(5, 2)", false),
        ("1.23", "decimal(5, 2)", true),
        ("2024-01-05 23:59:59", "date", false),
        ("2024-01-05", "date", true),
        ("1e400", "double", false),
    ] {
        let folder = TempDir::new().expect("a folder");
        fs::create_dir_all(folder.path().join(format!("t/p={value}"))).expect("made");
        fs::write(folder.path().join(format!("t/p={value}/a.csv")), "x\n1\n").expect("written");
        let options = json!({ "location": ".", "tables": {
            "t": { "partition_types": { "p": declared } } } });
        match read(&source(folder.path(), options), "t").await {
            Ok(got) => assert!(fits && got.num_rows() == 1, "{value} {declared}"),
            Err(error) => {
                assert!(!fits && error.kind() == ErrorKind::Data, "{value} {declared}: {error}");
                assert!(error.to_string().contains(value), "{error}");
            }
        }
    }
}

async fn compressed(bytes: &[u8], compression: FileCompressionType) -> Vec<u8> {
    let bytes = Bytes::copy_from_slice(bytes);
    let plain = futures::stream::once(async { Ok(bytes) }).boxed();
    let packed = compression.convert_to_compress_stream(plain).expect("it is known");
    packed.try_collect::<Vec<Bytes>>().await.expect("compressed").concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_of_a_compressed_file_is_read() {
    use FileCompressionType as Kind;
    let folder = TempDir::new().expect("a folder");
    let source = local(folder.path());
    let numbers =
        |rows: std::ops::Range<i64>| -> String { rows.map(|i| format!("{i}\n")).collect() };
    let lines = |rows: std::ops::Range<i64>| -> String {
        rows.map(|i| format!("{{\"x\":{i}}}\n")).collect()
    };
    // The second stream begins far behind the bytes that schemas are guessed from.
    let most = 200_000;
    for (end, kind) in
        [("gz", Kind::GZIP), ("bz2", Kind::BZIP2), ("xz", Kind::XZ), ("zst", Kind::ZSTD)]
    {
        let csv = [format!("x\n{}", numbers(0..most)), numbers(most..most + 1), String::new()];
        let json = [lines(0..most), lines(most..most + 1), String::new()];
        let array = ["[{\"x\":0},".to_owned(), "{\"x\":1}".to_owned(), "]".to_owned()];
        for (name, parts, rows) in
            [("c.csv", &csv, most + 1), ("j.ndjson", &json, most + 1), ("a.json", &array, 2)]
        {
            let mut whole = Vec::new();
            for part in parts {
                whole.extend(compressed(part.as_bytes(), kind).await);
            }
            let path = folder.path().join(format!("{name}.{end}"));
            let table = &name[..1];
            fs::write(&path, &whole).expect("written");
            let got = read(&source, table).await.unwrap_or_else(|e| panic!("{name}.{end}: {e}"));
            let sum: i64 = got.column(0).as_primitive::<Int64Type>().values().iter().sum();
            assert_eq!((got.num_rows() as i64, sum), (rows, rows * (rows - 1) / 2), "{name}.{end}");

            // What is not a stream, and a stream that is not whole, are errors.
            let mut garbage = whole.clone();
            garbage.extend(b"12345678 and so on");
            let cut = compressed(parts[0].as_bytes(), kind).await;
            for poison in [garbage, cut[..cut.len() - 6].to_vec()] {
                fs::write(&path, poison).expect("written");
                let Err(error) = read(&source, table).await else {
                    // An array ends with its bracket.
                    assert_eq!(name, "a.json", "{name}.{end}");
                    continue;
                };
                assert_eq!(error.kind(), ErrorKind::Data, "{error}");
                assert!(error.to_string().contains(&format!("{name}.{end}")), "{error}");
            }
            fs::remove_file(&path).expect("removed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_disagree_and_options_that_are_wrong() {
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.path().join("t")).expect("made");
    let texts =
        RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]);
    fs::write(folder.path().join("t/1.parquet"), parquet(&trades(0..10), 100)).expect("written");
    fs::write(folder.path().join("t/2.parquet"), parquet(&texts.expect("made"), 100))
        .expect("written");
    let error = source(folder.path(), json!({ "location": "." })).table(&name("t")).await;
    let text = error.expect_err("they disagree").to_string();
    assert!(text.contains("t/1.parquet") && text.contains("t/2.parquet"), "{text}");
    assert!(text.contains("column id"), "{text}");
    let options = json!({ "location": ".", "tables": { "t": { "schema": { "id": "bigint" } } } });
    assert_eq!(read(&source(folder.path(), options), "t").await.expect("read").num_rows(), 11);

    for (options, place) in [
        (json!({ "location": ".", "fromat": "csv" }), "fromat"),
        (json!({ "location": ".", "format": "xlsx" }), "format"),
        (json!({ "location": "ftp://h/x" }), "location"),
        (json!({ "location": ".", "tables": { "t": { "path": "../up" } } }), "tables.t.path"),
        (
            json!({ "location": ".", "tables": { "t": { "schema": { "a": "int4range" } } } }),
            "tables.t.schema.a",
        ),
        (json!({ "location": ".", "delimiter": ";;" }), "delimiter"),
        (json!({ "location": "s3://b/", "storage": { "regoin": "x" } }), "storage.regoin"),
        (json!({ "location": "s3://u:p@b/" }), "location"),
        (json!({ "location": ".", "storage": { "region": "x" } }), "storage.region"),
    ] {
        let error = try_source(folder.path(), options).expect_err(place);
        assert!(error.starts_with(place) || error.contains(place), "{place}: {error}");
    }
    let missing = source(folder.path(), json!({ "location": "./nowhere" }));
    assert_eq!(missing.check().await.expect_err("missing").kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_shown() {
    let options = json!({
        "location": format!("s3://{BUCKET}/x/"),
        "storage": {
            "endpoint": "http://127.0.0.1:9", "region": "us-east-1", "allow_http": true,
            "access_key_id": "AKIATESTTEST", "secret_access_key": SECRET_KEY,
            "session_token": SECRET_KEY, "retry_timeout": "500ms", "request_timeout": "1s",
        },
    });
    let source = source(Path::new("/"), options);
    let started = Instant::now();
    let error = source.check().await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    for text in [format!("{error} {error:?}"), format!("{source:?}"), source.location()] {
        assert!(!text.contains(SECRET_KEY) && !text.contains("AKIATESTTEST"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_over_a_hundred_files_is_quick() {
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.path().join("t")).expect("made");
    let bytes = parquet(&trades(0..2000), 500);
    for i in 0..100 {
        let mut file =
            fs::File::create(folder.path().join(format!("t/{i:03}.parquet"))).expect("made");
        file.write_all(&bytes).expect("written");
    }
    let source = local(folder.path());
    let table = describe(&source, "t").await.expect("described");
    let mut fragment = Fragment::table(table);
    let filters: [Expr; 1] = [col("id").lt(lit(100_i64))];
    fragment.filters = filters.to_vec();
    prepare(&source, fragment.clone(), 2).await.expect("prepared");
    let started = Instant::now();
    let ready = prepare(&source, fragment, 2).await.expect("prepared");
    let again = started.elapsed();
    assert!(again < Duration::from_millis(500), "{again:?}");
    assert_eq!(ready.prepared.partitions(), 2);
    assert_eq!(ready.prepared.statistics().num_rows, Precision::Inexact(200_000));
    println!("planning over 100 known files took {again:?}");
}

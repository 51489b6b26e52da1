//! Delta Lake tables: their logs, written by hand, read by the engine as users read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, PutPayload};
use serde_json::{Value, json};
use synoptic_catalog::{CopySet, Host, WatchSettings};
use synoptic_engine::{Engine, EngineConfig, Error, Receipt, Request, Session};
use synoptic_source::Source;
use synoptic_tests::s3::{BUCKET, S3Server};
use synoptic_types::{ErrorCode, SourceName, SystemClock};
use tempfile::TempDir;

const SCHEMA: &str = r#"{"type":"struct","fields":[
    {"name":"id","type":"long","nullable":true,"metadata":{}},
    {"name":"name","type":"string","nullable":true,"metadata":{}}]}"#;

/// 2026-01-01 in milliseconds.
const NEW_YEAR: i64 = 1_767_225_600_000;
const DAY: i64 = 24 * 3600 * 1000;

/// A folder of tables.
struct Lake(TempDir);

impl Lake {
    fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        path
    }

    /// Writes a data file of rows with these numbers, and says how a log names it.
    fn add(&self, table: &str, file: &str, ids: &[i64], partition: Value) -> Value {
        let bytes = parquet(ids);
        fs::write(self.path(&format!("{table}/{file}")), &bytes).expect("written");
        let encoded = file.replace('%', "%25").replace(' ', "%20");
        json!({"add": {"path": encoded, "partitionValues": partition, "size": bytes.len(),
            "modificationTime": NEW_YEAR, "dataChange": true}})
    }

    fn commit(&self, table: &str, version: i64, actions: &[Value]) {
        let info = json!({"commitInfo": {"timestamp": NEW_YEAR + version * DAY}});
        let lines = std::iter::once(&info).chain(actions).map(Value::to_string);
        let text = lines.collect::<Vec<_>>().join("\n");
        fs::write(self.path(&format!("{table}/_delta_log/{version:020}.json")), text)
            .expect("written");
    }

    /// Five versions: rows 1 and 2, then 3, then without 1 and 2, which come back, then without 3.
    fn numbers(&self, table: &str) {
        let a = self.add(table, "a.parquet", &[1, 2], json!({}));
        let b = self.add(table, "b.parquet", &[3], json!({}));
        let begin = [protocol(), metadata(table, SCHEMA, &[], json!({})), a.clone()];
        self.commit(table, 0, &begin);
        self.commit(table, 1, &[b]);
        self.commit(table, 2, &[remove("a.parquet")]);
        self.commit(table, 3, &[a]);
        self.commit(table, 4, &[remove("b.parquet")]);
    }

    /// A checkpoint in parts, of which the second has the first file.
    fn checkpoint(&self, table: &str, version: i64, parts: &[Vec<Value>]) {
        for (part, actions) in parts.iter().enumerate() {
            let name = format!(
                "{table}/_delta_log/{version:020}.checkpoint.{:010}.{:010}.parquet",
                part + 1,
                parts.len()
            );
            fs::write(self.path(&name), checkpoint(actions)).expect("written");
        }
        let note = json!({"version": version, "size": 3, "parts": parts.len()});
        fs::write(self.path(&format!("{table}/_delta_log/_last_checkpoint")), note.to_string())
            .expect("written");
    }

    fn source(&self) -> Arc<dyn Source> {
        open(self.0.path(), json!({"location": "."}))
    }

    fn session(&self) -> World {
        World::of(self.source())
    }
}

fn parquet(ids: &[i64]) -> Vec<u8> {
    let names = ids.iter().map(|id| format!("n{id}"));
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]);
    let batch = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(ids.to_vec())),
            Arc::new(StringArray::from_iter_values(names)),
        ],
    );
    written(&batch.expect("a batch"))
}

fn written(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(batch).expect("written");
    writer.close().expect("closed");
    bytes
}

/// Actions as the rows of a checkpoint.
fn checkpoint(actions: &[Value]) -> Vec<u8> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let record = |name: &str, fields: Vec<Field>| {
        Field::new(name, DataType::Struct(Fields::from(fields)), true)
    };
    let map = |name: &str| {
        let entry = vec![Field::new("key", DataType::Utf8, false), text("value")];
        let entries = Field::new("key_value", DataType::Struct(entries_of(entry)), false);
        Field::new(name, DataType::Map(Arc::new(entries), false), true)
    };
    let schema = Arc::new(Schema::new(vec![
        record(
            "add",
            vec![text("path"), map("partitionValues"), long("size"), long("modificationTime")],
        ),
        record(
            "metaData",
            vec![
                text("id"),
                record("format", vec![text("provider")]),
                text("schemaString"),
                Field::new("partitionColumns", DataType::new_list(DataType::Utf8, true), true),
                map("configuration"),
            ],
        ),
        record("protocol", vec![long("minReaderVersion"), long("minWriterVersion")]),
    ]));
    let mut decoder = arrow::json::ReaderBuilder::new(schema).build_decoder().expect("a decoder");
    decoder.serialize(actions).expect("they fit");
    written(&decoder.flush().expect("decoded").expect("rows"))
}

fn entries_of(fields: Vec<Field>) -> Fields {
    Fields::from(fields)
}

fn protocol() -> Value {
    json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
}

fn metadata(id: &str, schema: &str, partitions: &[&str], configuration: Value) -> Value {
    json!({"metaData": {"id": id, "format": {"provider": "parquet", "options": {}},
        "schemaString": schema, "partitionColumns": partitions, "configuration": configuration,
        "createdTime": NEW_YEAR}})
}

fn remove(path: &str) -> Value {
    json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": NEW_YEAR}})
}

fn open(base: &Path, options: Value) -> Arc<dyn Source> {
    let options = options.as_object().cloned().expect("an object");
    synoptic_connectors::open("files", SourceName::new("lake"), options, base)
        .unwrap_or_else(|error| panic!("{}", error.message))
}

/// The engine over one source.
struct World(Session);

impl World {
    fn of(source: Arc<dyn Source>) -> Self {
        let host = Host::of_copies(vec![CopySet::from(source)], WatchSettings::default());
        let engine = Engine::new(EngineConfig::default(), host, Arc::new(SystemClock));
        Self(engine.expect("an engine").session("test"))
    }

    async fn ask(&self, sql: &str) -> Result<(String, Receipt), Error> {
        let request = Request { sql: sql.to_owned(), ..Request::default() };
        let mut stream = self.0.plan(request).await?.run()?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.try_next().await? {
            batches.push(batch);
        }
        let table = pretty_format_batches(&batches).expect("printable").to_string();
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
        let cells = |row: &str| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            cells.join(",")
        };
        Ok((rows.map(cells).collect::<Vec<_>>().join(" "), stream.receipt()))
    }

    async fn rows(&self, sql: &str) -> String {
        self.ask(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")).0
    }

    async fn refused(&self, sql: &str, code: ErrorCode, parts: &[&str]) {
        let error = self.ask(sql).await.expect_err(sql);
        let text = error.to_string();
        assert!(error.code() == code && parts.iter().all(|p| text.contains(p)), "{sql}: {error}");
    }
}

fn as_of(version: &str) -> String {
    format!("SELECT id FROM lake.t FOR {version} ORDER BY id")
}

#[tokio::test]
async fn every_version_by_number_and_by_moment() {
    let lake = Lake::new();
    lake.numbers("t");
    let world = lake.session();
    let expected = ["1 2", "1 2 3", "3", "1 2 3", "1 2"];
    // Twice: the second time with the plan that was kept.
    for _ in 0..2 {
        assert_eq!(world.rows("SELECT id FROM lake.t ORDER BY id").await, "1 2");
        for (version, expected) in expected.iter().enumerate() {
            let sql = as_of(&format!("VERSION AS OF {version}"));
            let (rows, receipt) = world.ask(&sql).await.expect(&sql);
            assert_eq!(rows, *expected, "version {version}");
            let [scan] = receipt.scans.as_slice() else { panic!("one scan") };
            assert_eq!(scan.copy.position, Some(format!("delta-t@{version}")));
            assert_eq!((scan.copy.method, scan.copy.as_of_lo), ("version", None));
            assert!(scan.remote_text.starts_with(&format!("version {version} of Delta table t")));
            let day = version + 1;
            let sql = as_of(&format!("SYSTEM_TIME AS OF TIMESTAMP '2026-01-0{day}T23:59:59Z'"));
            assert_eq!(world.rows(&sql).await, *expected, "day {day}");
        }
    }
    assert_eq!(world.rows(&as_of("SYSTEM_TIME AS OF '2026-01-02'")).await, "1 2 3");
    let just_before = as_of("SYSTEM_TIME AS OF '2026-01-01T23:59:59.999999999Z'");
    assert_eq!(world.rows(&just_before).await, "1 2");
    let two = "SELECT a.id, b.name FROM lake.t FOR VERSION AS OF 1 AS a
        JOIN lake.public.t FOR VERSION AS OF 2 b USING (id)";
    assert_eq!(world.rows(two).await, "3,n3");
    let sums = "SELECT (SELECT count(*) FROM lake.t FOR VERSION AS OF 1), count(*) FROM lake.t";
    assert_eq!(world.rows(sums).await, "3,2");
    let explained = world.rows(&format!("EXPLAIN {}", as_of("VERSION AS OF 2"))).await;
    assert!(explained.contains("version 2 of Delta table t"), "{explained}");
}

#[tokio::test]
async fn a_commit_is_seen_at_once_and_the_position_says_it() {
    let lake = Lake::new();
    lake.numbers("t");
    let source = lake.source();
    let world = World::of(Arc::clone(&source));
    let sql = "SELECT count(*), min(id) FROM lake.t";
    for version in 5..9 {
        let path = format!("{version}.parquet");
        let add = lake.add("t", &path, &[10 - version], json!({}));
        lake.commit("t", version, &[add]);
        let (rows, receipt) = world.ask(sql).await.expect("answered");
        assert_eq!(rows, format!("{},1", version - 2));
        let [scan] = receipt.scans.as_slice() else { panic!("one scan") };
        assert_eq!(scan.copy.position, Some(format!("delta-t@{version}")));
        assert_eq!((scan.copy.method, scan.copy.satisfied), ("strong_read", true));
        let position = source.position().await.expect("asked").position;
        assert_eq!(position.to_string(), format!("delta-t@{version}"));
    }
    // Another table in the same place, with the same number of versions or fewer.
    fs::remove_dir_all(lake.path("t")).expect("removed");
    let add = lake.add("t", "new.parquet", &[77], json!({}));
    lake.commit("t", 0, &[protocol(), metadata("other", SCHEMA, &[], json!({})), add]);
    assert_eq!(world.rows(sql).await, "1,77");
    // A second table, and plain files beside it: a position for all of them.
    let of = async || source.position().await.expect("asked").position.to_string();
    lake.numbers("u");
    let both = of().await;
    assert!(both.starts_with("tables-"), "{both}");
    lake.commit("u", 5, &[remove("a.parquet")]);
    assert_ne!(of().await, both);
    assert_eq!(world.rows("SELECT count(*) FROM lake.u").await, "0");
    assert_eq!(world.rows("SELECT count(*) FROM lake.u WHERE id > 1").await, "0");
}

#[tokio::test]
async fn a_whole_statement_at_one_moment() {
    let lake = Lake::new();
    lake.numbers("t");
    lake.numbers("u");
    fs::write(lake.path("plain/a.parquet"), parquet(&[1])).expect("written");
    let world = lake.session();
    world.rows("SET synoptic.consistency = 'as_of'").await;
    let sql = "SELECT count(*), sum(id) FROM lake.t JOIN lake.u USING (id)";
    for (moment, expected) in [("2026-01-02", "3,6"), ("2026-01-03", "1,3")] {
        world.rows(&format!("SET synoptic.read_timestamp = '{moment}T00:00:00Z'")).await;
        assert_eq!(world.rows(sql).await, expected);
    }
    let plain = "SELECT * FROM lake.plain";
    world.refused(plain, ErrorCode::Unsupported, &["public.plain", "the present only"]).await;
}

#[tokio::test]
async fn what_was_not_or_is_gone_is_an_error() {
    let lake = Lake::new();
    lake.numbers("t");
    fs::write(lake.path("plain/a.parquet"), parquet(&[1])).expect("written");
    let world = lake.session();
    let out = ErrorCode::InvalidOption;
    world.refused(&as_of("VERSION AS OF 5"), out, &["no version 5", "latest is 4"]).await;
    let early = as_of("SYSTEM_TIME AS OF '2025-12-31'");
    world.refused(&early, out, &["public.t", "first version is of 2026-01-01"]).await;
    world.refused(&as_of("SYSTEM_TIME AS OF '2999-01-01'"), out, &["to come"]).await;
    for wrong in ["VERSION AS OF 'a'", "VERSION AS OF -1", "VERSION AS OF 1.5", "VERSION 3"] {
        world.refused(&as_of(wrong), ErrorCode::Unsupported, &["FOR VERSION AS OF 3"]).await;
    }
    let plain = "SELECT * FROM lake.plain FOR VERSION AS OF 0";
    world.refused(plain, ErrorCode::Unsupported, &["public.plain", "the present only"]).await;

    // A data file that was vacuumed.
    fs::remove_file(lake.path("t/b.parquet")).expect("removed");
    let gone = &as_of("VERSION AS OF 2");
    world.refused(gone, ErrorCode::UnknownTable, &["b.parquet", "vacuumed"]).await;
    assert_eq!(world.rows("SELECT count(*) FROM lake.t").await, "2");

    // A commit in the middle.
    lake.numbers("u");
    fs::remove_file(lake.path("u/_delta_log/00000000000000000002.json")).expect("removed");
    let lacks = &["public.u", "lacks the commit 2"];
    world.refused("SELECT * FROM lake.u", ErrorCode::Data, lacks).await;
    let before = "SELECT count(*) FROM lake.u FOR VERSION AS OF 1";
    world.refused(before, ErrorCode::Data, lacks).await;
}

#[tokio::test]
async fn a_checkpoint_in_parts_takes_the_place_of_the_commits_before_it() {
    let lake = Lake::new();
    lake.numbers("t");
    let a = lake.add("t", "a.parquet", &[1, 2], json!({}));
    let b = lake.add("t", "b.parquet", &[3], json!({}));
    let of = |action: &Value| {
        let mut action = action.clone();
        action["add"].as_object_mut().expect("one").remove("dataChange");
        action
    };
    let meta = json!({"metaData": {"id": "t", "format": {"provider": "parquet"},
        "schemaString": SCHEMA, "partitionColumns": [], "configuration": {}}});
    let parts = [vec![protocol(), meta, of(&b)], vec![of(&a)]];
    lake.checkpoint("t", 3, &parts);
    for version in 0..=3 {
        let _ = fs::remove_file(lake.path(&format!("t/_delta_log/{version:020}.json")));
    }
    let world = lake.session();
    assert_eq!(world.rows("SELECT id FROM lake.t ORDER BY id").await, "1 2");
    assert_eq!(world.rows(&as_of("VERSION AS OF 3")).await, "1 2 3");
    let out = ErrorCode::InvalidOption;
    let gone = &["version 2 is gone", "oldest that can be read is 3"];
    world.refused(&as_of("VERSION AS OF 2"), out, gone).await;
    let early = as_of("SYSTEM_TIME AS OF '2026-01-04'");
    world.refused(&early, out, &["oldest version of which its log knows the time, 4"]).await;
    assert_eq!(world.rows(&as_of("SYSTEM_TIME AS OF '2026-01-05'")).await, "1 2");

    // A part is missing: as if there were no checkpoint, and the commits are gone.
    fs::remove_file(
        lake.path("t/_delta_log/00000000000000000003.checkpoint.0000000002.0000000002.parquet"),
    )
    .expect("removed");
    let sql = "SELECT id FROM lake.t";
    lake.session().refused(sql, ErrorCode::Data, &["lacks the commit 0"]).await;
}

#[tokio::test]
async fn partition_values_stand_in_the_log() {
    let lake = Lake::new();
    let field = |name: &str, kind: &str| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let schema = json!({"type": "struct", "fields": [field("id", "long"), field("name", "string"),
        field("p", "string"), field("day", "date"), field("amount", "decimal(10,2)"),
        field("at", "timestamp"), field("yes", "boolean")]});
    let names = ["p", "day", "amount", "at", "yes"];
    let values = |p: Value, rest: [&str; 4]| json!({"p": p, "day": rest[0], "amount": rest[1], "at": rest[2], "yes": rest[3]});
    let full = ["2024-02-29", "-1.50", "2024-02-29 12:30:00.25", "true"];
    let iso = ["1969-12-31", "12345678.90", "2024-02-29T12:30:00.000001Z", "false"];
    let null = json!({"p": null, "day": null, "amount": null, "at": null, "yes": null});
    lake.commit(
        "t",
        0,
        &[
            protocol(),
            metadata("t", &schema.to_string(), &names, json!({})),
            lake.add("t", "p=a b/1.parquet", &[1], values(json!("a b"), full)),
            lake.add("t", "p=a%2Fb/2.parquet", &[2], values(json!("a/b=c"), iso)),
            lake.add("t", "3.parquet", &[3], null),
            lake.add("t", "4.parquet", &[4], values(json!(""), [""; 4])),
            // What a folder of files would take for NULL is a text here.
            lake.add("t", "5.parquet", &[5], values(json!("__HIVE_DEFAULT_PARTITION__"), full)),
        ],
    );
    let world = lake.session();
    let sql = "SELECT id, p, day, amount, at, yes FROM lake.t WHERE id < 3 ORDER BY id";
    assert_eq!(
        world.rows(sql).await,
        "1,a b,2024-02-29,-1.50,2024-02-29T12:30:00.250Z,true \
         2,a/b=c,1969-12-31,12345678.90,2024-02-29T12:30:00.000001Z,false"
    );
    let null = "SELECT id FROM lake.t WHERE p IS NULL AND day IS NULL AND amount IS NULL
        AND at IS NULL AND yes IS NULL ORDER BY id";
    let (rows, receipt) = world.ask(null).await.expect("answered");
    assert_eq!(rows, "3 4");
    assert!(receipt.scans[0].remote_text.contains("2 of 5 files"));
    let text = "SELECT id FROM lake.t WHERE p LIKE '%HIVE%'";
    assert_eq!(world.rows(text).await, "5");
    assert_eq!(world.rows("SELECT count(*) FROM lake.t WHERE p = 'nothing'").await, "0");

    let wrong = lake.add("t", "6.parquet", &[6], values(json!("x"), ["2024-02-30"; 4]));
    lake.commit("t", 1, &[wrong]);
    world.refused("SELECT * FROM lake.t", ErrorCode::Data, &["6.parquet", "'2024-02-30'"]).await;
}

#[tokio::test]
async fn what_is_not_honoured_is_refused_by_name() {
    let lake = Lake::new();
    let plain = |settings: Value| metadata("t", SCHEMA, &[], settings);
    let features = |names: &[&str]| {
        json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": names, "writerFeatures": names}})
    };
    let a = lake.add("t", "a.parquet", &[1], json!({}));
    let mut deleted = a.clone();
    deleted["add"]["deletionVector"] = json!({"storageType": "u", "pathOrInlineDv": "x",
        "offset": 1, "sizeInBytes": 40, "cardinality": 1});
    let mut absolute = a.clone();
    absolute["add"]["path"] = json!("s3://elsewhere/a.parquet");
    let typed = |kind: Value| {
        let schema = json!({"type": "struct", "fields": [
            {"name": "odd", "type": kind, "nullable": true, "metadata": {}}]});
        metadata("t", &schema.to_string(), &[], json!({}))
    };
    let none = json!({});
    let mapped = json!({"delta.columnMapping.mode": "name"});
    let newer = json!({"protocol": {"minReaderVersion": 4, "minWriterVersion": 7}});
    let unsupported = ErrorCode::Unsupported;
    for (actions, code, part) in [
        (vec![newer, plain(none.clone())], unsupported, "minReaderVersion"),
        (vec![features(&["v2Checkpoint"]), plain(none.clone())], unsupported, "v2Checkpoint"),
        (vec![features(&["variantType"]), plain(none.clone())], unsupported, "variantType"),
        (vec![protocol(), plain(mapped)], unsupported, "columnMapping"),
        (
            vec![features(&["deletionVectors"]), plain(none.clone()), deleted],
            unsupported,
            "deletionVectors",
        ),
        (vec![protocol(), plain(none.clone()), absolute], unsupported, "s3://elsewhere"),
        (vec![protocol(), typed(json!("void"))], unsupported, "column odd"),
        (vec![protocol(), typed(json!("decimal(39,2)"))], unsupported, "column odd"),
        (vec![protocol()], ErrorCode::Data, "metaData"),
        (vec![json!({"add": {"size": 1}})], ErrorCode::Data, "00000000000000000000.json"),
    ] {
        lake.commit("t", 0, &actions);
        let world = lake.session();
        world.refused("SELECT * FROM lake.t", code, &["source 'lake'", "public.t", part]).await;
    }
    // A feature that is there and not used changes nothing.
    lake.commit("t", 0, &[features(&["deletionVectors", "timestampNtz"]), plain(none), a]);
    assert_eq!(lake.session().rows("SELECT id FROM lake.t").await, "1");
}

#[tokio::test]
async fn times_of_commits_rise_and_those_given_while_committing_count_first() {
    let lake = Lake::new();
    lake.numbers("t");
    let rewrite = |version: i64, info: Value| {
        let path = lake.path(&format!("t/_delta_log/{version:020}.json"));
        let text = fs::read_to_string(&path).expect("read");
        let rest = text.split_once('\n').expect("lines").1.to_owned();
        fs::write(&path, format!("{}\n{rest}", json!({"commitInfo": info}))).expect("written");
    };
    // The clock of the second writer was behind, the third wrote a time of its commit.
    rewrite(1, json!({"timestamp": NEW_YEAR - 5 * DAY}));
    rewrite(2, json!({"timestamp": 1, "inCommitTimestamp": NEW_YEAR + DAY}));
    let world = lake.session();
    for (moment, expected) in [
        ("2026-01-01T00:00:00Z", "1 2"),
        ("2026-01-01T00:00:00.001Z", "1 2 3"),
        ("2026-01-01T23:59:59.999Z", "1 2 3"),
        ("2026-01-02T00:00:00Z", "3"),
        ("2026-01-04T00:00:00Z", "1 2 3"),
    ] {
        let sql = as_of(&format!("SYSTEM_TIME AS OF '{moment}'"));
        assert_eq!(world.rows(&sql).await, expected, "{moment}");
    }
}

#[tokio::test]
async fn how_a_table_is_found() {
    let lake = Lake::new();
    lake.numbers("t");
    lake.numbers("deep/u");
    fs::write(lake.path("plain/a.parquet"), parquet(&[9])).expect("written");
    let base = lake.0.path();
    let world = |options: Value| World::of(open(base, options));
    let count = |table: &str| format!("SELECT count(*) FROM lake.{table}");
    // Every table is what it is.
    let all = world(json!({"location": "."}));
    assert_eq!(all.rows(&count("t")).await, "2");
    assert_eq!(all.rows(&count("plain")).await, "1");
    // The location is a table itself.
    assert_eq!(world(json!({"location": "./t"})).rows(&count("t")).await, "2");
    let named = world(json!({"location": ".", "tables": {
        "u": {"path": "deep/u"}, "v": {"path": "deep/u/", "format": "delta"},
        "w": {"path": "plain", "format": "delta"}}}));
    assert_eq!(named.rows(&count("u")).await, "2");
    assert_eq!(named.rows(&count("v FOR VERSION AS OF 1")).await, "3");
    named.refused(&count("w"), ErrorCode::UnknownTable, &["no Delta log", "plain"]).await;
    let only = world(json!({"location": ".", "format": "delta"}));
    assert_eq!(only.rows(&count("t")).await, "2");
    only.refused(&count("plain"), ErrorCode::UnknownTable, &["plain"]).await;
    let source = open(base, json!({"location": ".", "format": "delta"}));
    let listed = source.tables().await.expect("listed");
    assert_eq!(listed.iter().map(|info| &*info.name.name).collect::<Vec<_>>(), ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_in_an_object_store() {
    let server = S3Server::start();
    let store = server.store();
    let lake = Lake::new();
    lake.numbers("t");
    let upload = async |file: String| {
        let bytes = fs::read(lake.path(&file)).expect("read");
        let path = ObjectPath::parse(format!("base/{file}")).expect("a path");
        store.put(&path, PutPayload::from(bytes)).await.expect("put");
    };
    for version in 0..5 {
        upload(format!("t/_delta_log/{version:020}.json")).await;
    }
    upload("t/a.parquet".to_owned()).await;
    upload("t/b.parquet".to_owned()).await;
    let location = format!("s3://{BUCKET}/base/");
    let options = json!({"location": location, "storage": server.storage()});
    let source = open(Path::new("/"), options);
    let world = World::of(Arc::clone(&source));
    assert_eq!(world.rows("SELECT id FROM lake.t ORDER BY id").await, "1 2");
    assert_eq!(world.rows(&as_of("VERSION AS OF 2")).await, "3");
    assert_eq!(world.rows(&as_of("SYSTEM_TIME AS OF '2026-01-02'")).await, "1 2 3");
    lake.commit("t", 5, &[lake.add("t", "c.parquet", &[4], json!({}))]);
    upload("t/c.parquet".to_owned()).await;
    upload("t/_delta_log/00000000000000000005.json".to_owned()).await;
    assert_eq!(world.rows("SELECT id FROM lake.t ORDER BY id").await, "1 2 4");
    let position = source.position().await.expect("asked").position;
    assert_eq!(position.to_string(), "delta-t@5");
}

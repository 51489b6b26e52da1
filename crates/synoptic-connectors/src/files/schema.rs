//! The columns of a table: what its files say, merged, with the types the options give.

use std::io::Cursor;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{StreamDecoder, read_footer_length};
use arrow::ipc::root_as_footer;
use bytes::Bytes;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::transform_schema_to_view;
use datafusion::datasource::physical_plan::parquet::Int96Coercer;
use datafusion::error::Result as DfResult;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{GetOptions, ObjectStore};
use synoptic_source::{ErrorKind, Result, SourceError};

use super::facts::{Footer, Footers};
use super::format::Format;
use super::layout::{Listing, Object, TableSpec};
use super::location::Location;
use super::options::CsvOptions;
use super::pinned::PinnedStore;
use super::{error, text, widening};

/// Files whose schema is read at the same time.
const CONCURRENT_FILES: usize = 16;
/// Bytes at the start of a text file from which types are guessed, after decompression.
const HEAD: usize = 1 << 20;
/// A JSON array is read whole to learn its types; a larger one is refused.
const LARGEST_ARRAY: u64 = 256 << 20;

/// What is needed to look into files while planning.
pub struct Looking<'a> {
    /// Where they are.
    pub location: &'a Arc<Location>,
    /// The kept Parquet footers.
    pub footers: &'a Arc<Footers>,
    /// The listed objects and no others.
    pub store: Arc<PinnedStore>,
    /// How many files are looked into.
    pub schema_files: usize,
    /// How many rows of a text file are looked at.
    pub infer_rows: usize,
}

/// The columns that are in the files of `listing`: not those of `partitions`. All are nullable,
/// because a file that is added later may lack any of them.
pub async fn infer(
    looking: &Looking<'_>,
    spec: &TableSpec,
    listing: &Listing,
    partitions: &[FieldRef],
) -> Result<SchemaRef> {
    let objects = sample(&listing.objects, looking.schema_files);
    let schemas: Vec<(String, Schema)> = futures::stream::iter(objects)
        .map(|object| async move {
            let schema = file_schema(looking, spec, listing.format, &object).await?;
            no_twins(&schema, &object)?;
            Ok::<_, SourceError>((object.shown, schema))
        })
        .buffered(CONCURRENT_FILES)
        .try_collect()
        .await?;
    let mut merged: Vec<(Field, String)> = Vec::new();
    for (shown, schema) in schemas {
        for field in schema.fields() {
            let field = plain(field);
            if let Some(wanted) = spec.read.schema.get(field.name())
                && matches!(listing.format, Format::Parquet | Format::Arrow)
                && !widening::holds(wanted, field.data_type())
            {
                return Err(widening::cannot_hold(&field, wanted, &shown));
            }
            match merged.iter_mut().find(|(known, _)| known.name() == field.name()) {
                None => merged.push((field, shown.clone())),
                Some((known, first)) => {
                    let declared = spec.read.schema.contains_key(field.name());
                    let both = wider(listing.format, known.data_type(), field.data_type());
                    match both {
                        Some(data_type) => *known = known.clone().with_data_type(data_type),
                        None if declared => {}
                        None => return Err(conflict(known, first, &field, &shown)),
                    }
                }
            }
        }
    }
    let mut fields: Vec<Field> = merged
        .into_iter()
        .map(|(field, _)| field)
        .filter(|field| partitions.iter().all(|partition| partition.name() != field.name()))
        .collect();
    for (name, data_type) in &spec.read.schema {
        match fields.iter_mut().find(|field| field.name() == name) {
            Some(field) => *field = field.clone().with_data_type(data_type.clone()),
            None if partitions.iter().any(|partition| partition.name() == name) => {}
            // A JSON key may first occur after the rows that were looked at.
            None if listing.format == Format::Json => {
                fields.push(Field::new(name, data_type.clone(), true));
            }
            None => {
                return Err(SourceError::new(
                    ErrorKind::Unsupported,
                    format!("`schema` gives a type for the column '{name}', which no file has"),
                ));
            }
        }
    }
    if fields.is_empty() && partitions.is_empty() {
        return Err(SourceError::data("its files have no columns"));
    }
    let schema = Schema::new(fields);
    Ok(Arc::new(match listing.format {
        Format::Parquet => {
            // What the configuration says stays: a replica has the very types of its source.
            let views = transform_schema_to_view(&schema);
            let fields = schema.fields().iter().zip(views.fields());
            let declared = |name: &str| spec.read.schema.iter().any(|(known, _)| known == name);
            // Bytes are no view either: functions such as `coalesce` do not take one beside the bytes
            // of other sources.
            let stays = |field: &Field| declared(field.name()) || field.data_type().is_binary();
            let fields = fields.map(|(plain, view)| match stays(plain) {
                true => Arc::clone(plain),
                false => Arc::clone(view),
            });
            Schema::new(fields.collect::<Fields>())
        }
        _ => schema,
    }))
}

/// Evenly the first and the last, which are the oldest and newest where names hold dates.
pub fn sample(objects: &[Object], most: usize) -> Vec<Object> {
    if objects.len() <= most {
        return objects.to_vec();
    }
    let front = most.div_ceil(2);
    objects[..front].iter().chain(&objects[objects.len() - (most - front)..]).cloned().collect()
}

async fn file_schema(
    looking: &Looking<'_>,
    spec: &TableSpec,
    format: Format,
    object: &Object,
) -> Result<Schema> {
    match format {
        Format::Parquet => parquet_schema(looking, object).await,
        Format::Csv => csv_schema(looking, &spec.read.csv, object).await,
        Format::Json => json_schema(looking, object).await,
        Format::Arrow => {
            let schema = arrow_schema(&looking.store, object, looking.location).await?;
            Ok(Schema::clone(&schema))
        }
    }
}

async fn parquet_schema(looking: &Looking<'_>, object: &Object) -> Result<Schema> {
    let footer = looking.footers.get(&looking.store, object).await?;
    parquet_columns(&footer, object, looking.location)
}

/// The columns of one Parquet file.
pub fn parquet_columns(footer: &Footer, object: &Object, location: &Location) -> Result<Schema> {
    let file = footer.metadata.file_metadata();
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
        let coerced =
            Int96Coercer::new(file.schema_descr(), &schema, &TimeUnit::Microsecond).coerce();
        Ok::<_, datafusion::parquet::errors::ParquetError>(coerced.unwrap_or(schema))
    }));
    match made {
        Ok(Ok(schema)) => Ok(schema),
        Ok(Err(e)) => Err(error::data(&object.shown, location.say(e))),
        Err(_) => Err(error::data(&object.shown, "its schema is corrupt")),
    }
}

/// How an Arrow IPC file begins and ends; a stream does not.
pub const ARROW_MAGIC: &[u8] = b"ARROW1";

/// The schema inside one Arrow file or stream. DataFusion's own inference expects a file that
/// comes as a stream of bytes to have 8 bytes before its schema; newer writers have 64.
pub async fn arrow_schema(
    store: &Arc<PinnedStore>,
    object: &Object,
    location: &Location,
) -> Result<SchemaRef> {
    let read = AssertUnwindSafe(async {
        let (head, _) = head(store, location, object, Format::Arrow, ARROW_MAGIC.len()).await?;
        let schema = if head.starts_with(ARROW_MAGIC) {
            arrow_file_schema(store, object).await
        } else {
            arrow_stream_schema(store, object).await
        };
        schema.map_err(|e| {
            let told = store.take_failure();
            told.unwrap_or_else(|| error::content(&e, &object.shown, location))
        })
    });
    match read.catch_unwind().await {
        Ok(schema) => schema,
        Err(_) => Err(error::data(&object.shown, "is not an Arrow file")),
    }
}

async fn arrow_file_schema(store: &PinnedStore, object: &Object) -> DfResult<SchemaRef> {
    const TRAILER: u64 = 10;
    let corrupt = || ArrowError::IpcError("it has no footer".to_owned());
    let end = object.meta.size.checked_sub(TRAILER).ok_or_else(corrupt)?;
    let fetch = async |range: std::ops::Range<u64>| {
        let options = GetOptions::new().with_range(Some(range));
        store.get_opts(&object.meta.location, options).await?.bytes().await
    };
    let trailer: [u8; 10] =
        fetch(end..object.meta.size).await?.as_ref().try_into().map_err(|_| corrupt())?;
    let length = u64::try_from(read_footer_length(trailer)?).map_err(|_| corrupt())?;
    let start = end.checked_sub(length).ok_or_else(corrupt)?;
    let footer = fetch(start..end).await?;
    let footer = root_as_footer(&footer).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    Ok(Arc::new(fb_to_schema(footer.schema().ok_or_else(corrupt)?)))
}

async fn arrow_stream_schema(store: &PinnedStore, object: &Object) -> DfResult<SchemaRef> {
    let got = store.get_opts(&object.meta.location, GetOptions::new()).await?;
    let mut chunks = got.into_stream();
    let mut decoder = StreamDecoder::new();
    while let Some(chunk) = chunks.try_next().await? {
        let mut buffer = Buffer::from(chunk);
        while !buffer.is_empty() && decoder.schema().is_none() {
            decoder.decode(&mut buffer)?;
        }
        if let Some(schema) = decoder.schema() {
            return Ok(schema);
        }
    }
    Err(ArrowError::IpcError("it has no schema".to_owned()).into())
}

async fn csv_schema(looking: &Looking<'_>, csv: &CsvOptions, object: &Object) -> Result<Schema> {
    let (head, whole) = head(&looking.store, looking.location, object, Format::Csv, HEAD).await?;
    let mut rows = looking.infer_rows;
    let inferred = loop {
        match csv_format(csv, object, csv.header).infer_schema(Cursor::new(&head), Some(rows)) {
            // The head may end inside a quoted field: look at fewer rows.
            Err(_) if !whole && rows > 1 => rows /= 10,
            other => break other,
        }
    };
    let (schema, _) = inferred.map_err(|e| error::data(&object.shown, e.to_string()))?;
    let fields = schema.fields().iter().enumerate().map(|(i, field)| match field.data_type() {
        // Coarser units would cut later values, and the guess does not look at offsets from UTC.
        DataType::Timestamp(unit, _) => {
            let texts = csv_texts(csv, object, &schema, i, &head, rows);
            let data_type = match text::timestamp_type(texts.iter().map(String::as_str)) {
                DataType::Timestamp(_, zone) if *unit == TimeUnit::Nanosecond => {
                    DataType::Timestamp(*unit, zone)
                }
                other => other,
            };
            Field::new(field.name(), data_type, true)
        }
        DataType::Null => Field::new(field.name(), DataType::Utf8, true),
        _ => field.as_ref().clone(),
    });
    Ok(Schema::new(fields.collect::<Fields>()))
}

/// The values of one column in the first `rows` rows, as far as `head` has them whole.
fn csv_texts(
    csv: &CsvOptions,
    object: &Object,
    schema: &Schema,
    column: usize,
    head: &Bytes,
    rows: usize,
) -> Vec<String> {
    let fields = schema.fields().iter().map(|f| Field::new(f.name(), DataType::Utf8, true));
    let texts = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let reader = arrow::csv::ReaderBuilder::new(texts)
        .with_format(csv_format(csv, object, csv.header))
        .with_projection(vec![column])
        .with_bounds(0, rows)
        .build(Cursor::new(head));
    let batches = reader.into_iter().flatten().map_while(std::result::Result::ok);
    let texts = batches.flat_map(|batch| {
        let texts = batch.column(0).as_string::<i32>();
        texts.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    });
    texts.collect()
}

/// The names in the first line of a CSV file.
pub async fn csv_names(
    store: &Arc<PinnedStore>,
    location: &Location,
    csv: &CsvOptions,
    object: &Object,
) -> Result<Vec<String>> {
    const LONGEST_HEADER: usize = 64 << 10;
    let (head, _) = head(store, location, object, Format::Csv, LONGEST_HEADER).await?;
    let inferred = csv_format(csv, object, true).infer_schema(Cursor::new(&head), Some(0));
    let (schema, _) = inferred.map_err(|e| error::data(&object.shown, e.to_string()))?;
    no_twins(&schema, object)?;
    Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
}

/// The delimiter of one file.
pub fn delimiter(csv: &CsvOptions, object: &Object) -> u8 {
    let name = object.shown.to_ascii_lowercase();
    let tabs = name.rsplit('/').next().is_some_and(|n| n.contains(".tsv"));
    csv.delimiter.unwrap_or(if tabs { b'\t' } else { b',' })
}

fn csv_format(csv: &CsvOptions, object: &Object, header: bool) -> arrow::csv::reader::Format {
    let mut format = arrow::csv::reader::Format::default()
        .with_header(header)
        .with_delimiter(delimiter(csv, object))
        .with_quote(csv.quote);
    if let Some(escape) = csv.escape {
        format = format.with_escape(escape);
    }
    if let Some(comment) = csv.comment {
        format = format.with_comment(comment);
    }
    format
}

async fn json_schema(looking: &Looking<'_>, object: &Object) -> Result<Schema> {
    let (head, whole) = head(&looking.store, looking.location, object, Format::Json, HEAD).await?;
    let schema = if is_array(&head) {
        if object.meta.size > LARGEST_ARRAY {
            return Err(error::data(
                &object.shown,
                "is one array too large to read whole: write one object per line",
            ));
        }
        let session = session();
        let name = object.meta.location.filename().unwrap_or_default();
        let format = JsonFormat::default()
            .with_newline_delimited(false)
            .with_schema_infer_max_rec(looking.infer_rows)
            .with_file_compression_type(Format::Json.compression(name));
        let dyn_store = Arc::clone(&looking.store) as Arc<dyn ObjectStore>;
        let objects = [object.meta.clone()];
        let inferred = format.infer_schema(&session, &dyn_store, &objects).await;
        let inferred = inferred.map_err(|e| error::content(&e, &object.shown, looking.location))?;
        Schema::clone(&inferred)
    } else {
        // A cut last line is no object.
        let end =
            if whole { head.len() } else { head.iter().rposition(|b| *b == b'\n').unwrap_or(0) };
        let lines = Cursor::new(head.slice(..end));
        let inferred = arrow::json::reader::infer_json_schema(lines, Some(looking.infer_rows));
        inferred.map_err(|e| error::data(&object.shown, e.to_string()))?.0
    };
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Null => Field::new(field.name(), DataType::Utf8, true),
        _ => field.as_ref().clone(),
    });
    Ok(Schema::new(fields.collect::<Fields>()))
}

/// Whether JSON text is one array rather than lines of objects.
pub fn is_array(head: &[u8]) -> bool {
    head.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[')
}

/// The first bytes of a file, decompressed, at least `most` unless it ends before; whether that
/// is the whole file.
pub async fn head(
    store: &Arc<PinnedStore>,
    location: &Location,
    object: &Object,
    format: Format,
    most: usize,
) -> Result<(Bytes, bool)> {
    let compression = format.compression(object.meta.location.filename().unwrap_or_default());
    let plain = compression == FileCompressionType::UNCOMPRESSED;
    let mut options = GetOptions::new();
    if plain && object.meta.size > most as u64 {
        options = options.with_range(Some(0..most as u64));
    }
    let failed = |e: &datafusion::error::DataFusionError| {
        let told = store.take_failure();
        told.unwrap_or_else(|| error::content(e, &object.shown, location))
    };
    if object.meta.size == 0 {
        return Ok((Bytes::new(), true));
    }
    let got = store.unpacking(compression).get_opts(&object.meta.location, options).await;
    let got = got.map_err(|e| failed(&e.into()))?;
    let mut chunks = got.into_stream().map_err(datafusion::error::DataFusionError::from);
    let mut head = Vec::new();
    while head.len() < most {
        match chunks.next().await {
            None => return Ok((head.into(), !plain || object.meta.size <= most as u64)),
            Some(Ok(chunk)) => head.extend_from_slice(&chunk),
            Some(Err(e)) => return Err(failed(&e)),
        }
    }
    Ok((head.into(), plain && object.meta.size <= most as u64))
}

/// The type that holds the values of both; `None` when there is none that would not change one.
fn wider(format: Format, a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Boolean, Date32, Float64, Int64, Null, Timestamp, Utf8};
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (Null, other) | (other, Null) => return Some(other.clone()),
        _ => {}
    }
    match (format, a, b) {
        (Format::Csv | Format::Json, Int64, Float64) => Some(Float64),
        (Format::Csv | Format::Json, Float64, Int64) => Some(Float64),
        (
            Format::Csv,
            Boolean | Int64 | Float64 | Date32 | Utf8 | Timestamp(..),
            Boolean | Int64 | Float64 | Date32 | Utf8 | Timestamp(..),
        ) => Some(Utf8),
        (Format::Parquet | Format::Arrow, a, b) if a.is_string() && b.is_string() => {
            Some(DataType::Utf8View)
        }
        (Format::Parquet | Format::Arrow, a, b) if a.is_binary() && b.is_binary() => {
            let large = [a, b].contains(&&DataType::LargeBinary);
            Some(if large { DataType::LargeBinary } else { DataType::Binary })
        }
        _ => None,
    }
}

/// A field as a table shows it: nullable, without metadata, a dictionary as what it holds.
fn plain(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        other => other.clone(),
    };
    let data_type = if data_type == DataType::BinaryView { DataType::Binary } else { data_type };
    Field::new(field.name(), data_type, true)
}

fn conflict(one: &Field, first: &str, other: &Field, second: &str) -> SourceError {
    SourceError::data(format!(
        "it is {} in {first} and {} in {second}: give the type under `schema`, or move one file \
         to another table",
        one.data_type(),
        other.data_type()
    ))
    .in_column(one.name().clone())
}

fn no_twins(schema: &Schema, object: &Object) -> Result<()> {
    let mut names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(error::data(&object.shown, format!("it has the column '{}' twice", pair[0])))
        }
        None => Ok(()),
    }
}

/// DataFusion's formats ask for a session, of which they use the defaults.
fn session() -> SessionState {
    SessionStateBuilder::new().build()
}

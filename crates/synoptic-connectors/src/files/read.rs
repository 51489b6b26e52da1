//! One file → batches in the fragment's columns, through DataFusion's readers.
//!
//! Parquet files differ in their columns and the reader takes care of that. The readers of the
//! other formats believe that every file has the table's columns in the table's order; so each of
//! these files is read with its *own* schema, and its columns are put in place here by name.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::Buffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamDecoder;
use datafusion::common::ScalarValue;
use datafusion::common::config::{CsvOptions as ReaderCsvOptions, TableParquetOptions};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::{
    ArrowSource, CsvSource, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{GetOptions, ObjectStore};
use synoptic_source::{BatchStream, ErrorKind, Result, SourceError};
use url::Url;

use super::error;
use super::facts::{Footers, Readers};
use super::filters;
use super::format::Format;
use super::headers::Headers;
use super::layout::Object;
use super::location::Location;
use super::pinned::{PinnedStore, Pins};
use super::source::FilesTable;
use super::text::Misfit;
use super::tried::{BEFORE_DECODING, Tried};
use super::{nan, schema, text, widening};

/// An Arrow file is read in pieces of this size, in bytes, because its reader holds a piece whole.
const ARROW_PIECE: i64 = 8 << 20;
const URL: &str = "synoptic-files://statement/";

/// What every file of one partition is read with.
pub struct Reading {
    pub location: Arc<Location>,
    pub footers: Arc<Footers>,
    pub headers: Arc<Headers>,
    pub table: Arc<FilesTable>,
    pub store: Arc<PinnedStore>,
    pub pins: Pins,
    /// Indices into the table's columns, in output order.
    pub projection: Vec<usize>,
    /// The schema of the batches.
    pub schema: SchemaRef,
    /// Over all columns of the table, to skip row groups and pages.
    pub predicate: Option<Arc<dyn PhysicalExpr>>,
    /// Whether the predicate is also tried on rows, before the rest of them is decoded.
    pub early: bool,
    /// What joins have found out, over the projection: rows for which it is not true may be left out.
    pub keys: Option<Arc<dyn PhysicalExpr>>,
    /// What joins find out while the statement runs, over the projection.
    pub dynamic: Vec<Arc<dyn PhysicalExpr>>,
    pub batch_size: usize,
}

impl Reading {
    /// What the fragment's filters and those that joins have made by now say together.
    fn predicate(&self) -> Option<Arc<dyn PhysicalExpr>> {
        let (projection, schema) = (&self.projection, &self.table.schema);
        // The lists of joins are in the predicate that is tried on rows.
        let dynamic = self.dynamic.iter().filter(|f| !(self.early && filters::has_list(f)));
        let dynamic = dynamic.filter_map(|f| filters::dynamic(f, projection, schema));
        let tried = |f| -> Arc<dyn PhysicalExpr> {
            match self.early {
                true => Arc::new(Tried::new(f, BEFORE_DECODING)),
                false => f,
            }
        };
        let dynamic = dynamic.map(tried);
        let all: Vec<_> = self.predicate.iter().cloned().chain(dynamic).collect();
        (!all.is_empty()).then(|| conjunction(all))
    }
}

/// Reads `file`, starting at the first poll. Errors name the file; a reader that panics on
/// corrupt bytes is an error too.
pub fn file(reading: Arc<Reading>, file: PartitionedFile) -> BatchStream {
    let store = Arc::clone(&reading.store);
    let location = Arc::clone(&reading.location);
    let shown = match reading.pins.get(&file.object_meta.location) {
        Some(object) => object.shown.clone(),
        None => file.object_meta.location.to_string(),
    };
    let batches = stream::once(open(reading, file)).try_flatten().boxed();
    let state = Some((batches, store, location, shown));
    stream::unfold(state, |state| async move {
        let (mut batches, store, location, shown) = state?;
        match AssertUnwindSafe(batches.next()).catch_unwind().await {
            Ok(Some(Ok(batch))) => Some((Ok(batch), Some((batches, store, location, shown)))),
            Ok(Some(Err(failed))) => {
                let told = store.take_failure();
                let told = told.unwrap_or_else(|| failed.tell(&shown, &location));
                Some((Err(told), None))
            }
            // A reader may do without an index or a filter it could not fetch; not so when the
            // object is another one by now.
            Ok(None) => {
                let told = store.take_failure()?;
                (told.kind() == ErrorKind::Changed).then_some((Err(told), None))
            }
            Err(_) => Some((Err(error::data(&shown, "is corrupt: its reader gave up")), None)),
        }
    })
    .boxed()
}

/// What reading a file can fail with.
enum Failed {
    Told(SourceError),
    Reader(DataFusionError),
}

impl Failed {
    fn tell(self, shown: &str, location: &Location) -> SourceError {
        match self {
            Self::Told(error) => error,
            Self::Reader(e) => error::content(&e, shown, location),
        }
    }
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self::Told(error)
    }
}

impl From<DataFusionError> for Failed {
    fn from(error: DataFusionError) -> Self {
        Self::Reader(error)
    }
}

type Batches = BoxStream<'static, Result<RecordBatch, Failed>>;

async fn open(reading: Arc<Reading>, file: PartitionedFile) -> Result<Batches, Failed> {
    let Some(object) = reading.pins.get(&file.object_meta.location).cloned() else {
        return Err(SourceError::internal("a file that is not part of the statement").into());
    };
    match reading.table.format {
        Format::Parquet => parquet(&reading, file, &object).await,
        Format::Csv => csv(reading, file, object).await,
        Format::Json => json(reading, file, object).await,
        Format::Arrow => arrow(reading, file, object).await,
    }
}

async fn parquet(
    reading: &Arc<Reading>,
    file: PartitionedFile,
    object: &Object,
) -> Result<Batches, Failed> {
    // Not every file was looked into when the table was described.
    let footer = reading.footers.get(&reading.store, object).await?;
    let own = schema::parquet_columns(&footer, object, &reading.location)?;
    widening::check(&own, &reading.table.file_schema, &object.shown)?;
    let mut options = TableParquetOptions::default();
    options.global.enable_page_index = true;
    options.global.pruning = true;
    options.global.bloom_filter_on_read = true;
    options.global.coerce_int96 = Some("us".to_owned());
    // Rows are filtered by the engine; the predicate only skips row groups and pages, and rows where
    // next to none is expected to match.
    options.global.pushdown_filters = reading.early;
    let readers = Readers {
        store: Arc::clone(&reading.store),
        footers: Arc::clone(&reading.footers),
        pins: Arc::clone(&reading.pins),
    };
    let mut source = ParquetSource::new(reading.table.table_schema())
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(readers));
    if let Some(predicate) = reading.predicate() {
        source = source.with_predicate(predicate);
    }
    let (schema, keys) = (Arc::clone(&reading.schema), reading.keys.clone());
    let plain = FileCompressionType::UNCOMPRESSED;
    let batches = run(reading, Arc::new(source), file, reading.projection.clone(), plain)?;
    let batches = batches.map(move |batch| {
        let batch = batch?;
        let columns = batch.columns().iter().map(nan::one_nan).collect::<Result<_, _>>();
        let columns = columns.map_err(DataFusionError::from)?;
        let batch = with_schema(&schema, columns, batch.num_rows())?;
        Ok(match &keys {
            Some(keys) => having(keys, batch)?,
            None => batch,
        })
    });
    Ok(batches.boxed())
}

/// The rows of `batch` for which `condition` is true.
fn having(condition: &Arc<dyn PhysicalExpr>, batch: RecordBatch) -> DfResult<RecordBatch> {
    match condition.evaluate(&batch)? {
        ColumnarValue::Array(found) => match found.as_boolean_opt() {
            Some(found) if found.true_count() < batch.num_rows() => {
                Ok(filter_record_batch(&batch, found)?)
            }
            _ => Ok(batch),
        },
        ColumnarValue::Scalar(_) => Ok(batch),
    }
}

async fn csv(
    reading: Arc<Reading>,
    file: PartitionedFile,
    object: Object,
) -> Result<Batches, Failed> {
    let spelled = reading.table.spec.read.csv.clone();
    let table = &reading.table.file_schema;
    if object.meta.size == 0 {
        return Ok(stream::empty().boxed());
    }
    let names = if spelled.header {
        reading.headers.get(&reading, &object).await?
    } else {
        table.fields().iter().map(|field| field.name().clone()).collect()
    };
    let placed = Placed::new(&reading, &file, &names);
    let fields = names.iter().map(|name| {
        let wanted = placed.wants(name);
        let data_type = match table.field_with_name(name) {
            Ok(field) if wanted => {
                text::csv_read_type(field.data_type(), spelled.null_value.is_some())
            }
            _ => DataType::Utf8,
        };
        Field::new(name, data_type, true)
    });
    let own = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = ReaderCsvOptions {
        has_header: Some(spelled.header),
        delimiter: schema::delimiter(&spelled, &object),
        quote: spelled.quote,
        escape: spelled.escape,
        comment: spelled.comment,
        newlines_in_values: Some(spelled.newlines_in_values),
        ..ReaderCsvOptions::default()
    };
    let source = CsvSource::new(TableSchema::from(own)).with_csv_options(options);
    let compression = Format::Csv.compression(object.meta.location.filename().unwrap_or_default());
    let columns = placed.file_columns();
    let batches = run(&reading, Arc::new(source), file, columns, compression)?;
    let header = usize::from(spelled.header);
    let placed = placed.with_null_value(spelled.null_value);
    let shown = object.shown;
    let batches = batches.map_err(move |e| csv_failed(e, &names, &shown));
    Ok(placed.put(batches.boxed(), header))
}

async fn json(
    reading: Arc<Reading>,
    mut file: PartitionedFile,
    object: Object,
) -> Result<Batches, Failed> {
    const BEGINNING: usize = 4096;
    if object.meta.size == 0 {
        return Ok(stream::empty().boxed());
    }
    let (store, location) = (&reading.store, &reading.location);
    let (head, _) = schema::head(store, location, &object, Format::Json, BEGINNING).await?;
    let array = schema::is_array(&head);
    if array && !take_whole(&mut file) {
        return Ok(stream::empty().boxed());
    }
    let table = &reading.table.file_schema;
    let names: Vec<String> = table.fields().iter().map(|field| field.name().clone()).collect();
    let placed = Placed::new(&reading, &file, &names);
    let fields = table
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), text::json_read_type(field.data_type()), true));
    let own = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let source = JsonSource::new(TableSchema::from(own)).with_newline_delimited(!array);
    let compression = Format::Json.compression(object.meta.location.filename().unwrap_or_default());
    let batches = run(&reading, Arc::new(source), file, placed.file_columns(), compression)?;
    Ok(placed.put(batches.map_err(Failed::from).boxed(), 0))
}

async fn arrow(
    reading: Arc<Reading>,
    mut file: PartitionedFile,
    object: Object,
) -> Result<Batches, Failed> {
    let (store, location) = (&reading.store, &reading.location);
    let (head, _) =
        schema::head(store, location, &object, Format::Arrow, schema::ARROW_MAGIC.len()).await?;
    let own = schema::arrow_schema(store, &object, location).await?;
    widening::check(&own, &reading.table.file_schema, &object.shown)?;
    let names: Vec<String> = own.fields().iter().map(|field| field.name().clone()).collect();
    let placed = Placed::new(&reading, &file, &names);
    let columns = placed.file_columns();
    if !head.starts_with(schema::ARROW_MAGIC) {
        if !take_whole(&mut file) {
            return Ok(stream::empty().boxed());
        }
        let batches = arrow_stream(Arc::clone(store), object, columns, reading.batch_size);
        return Ok(placed.put(batches, 0));
    }
    let source = ArrowSource::new_file_source(TableSchema::from(own));
    let source: Arc<dyn FileSource> = Arc::new(source);
    let pieces = stream::iter(pieces(&file));
    let batches = pieces.map(move |piece| {
        let plain = FileCompressionType::UNCOMPRESSED;
        match run(&reading, Arc::clone(&source), piece, columns.clone(), plain) {
            Ok(batches) => batches.map_err(Failed::from).boxed(),
            Err(e) => stream::once(async { Err(Failed::from(e)) }).boxed(),
        }
    });
    Ok(placed.put(batches.flatten().boxed(), 0))
}

/// A file, or its part of one, in pieces that fit in memory.
fn pieces(file: &PartitionedFile) -> Vec<PartitionedFile> {
    let (start, end) = match &file.range {
        Some(range) => (range.start, range.end),
        None => (0, i64::try_from(file.object_meta.size).unwrap_or(i64::MAX)),
    };
    let mut pieces = Vec::new();
    let mut at = start;
    while at < end {
        let stop = end.min(at + ARROW_PIECE);
        let mut piece = file.clone();
        piece.range = Some(FileRange { start: at, end: stop });
        pieces.push(piece);
        at = stop;
    }
    pieces
}

/// A file that cannot be cut goes whole to the partition that has its first byte.
fn take_whole(file: &mut PartitionedFile) -> bool {
    file.range.take().is_none_or(|range| range.start == 0)
}

/// Decodes an IPC stream as its bytes come; DataFusion's reader would load all of it first.
fn arrow_stream(
    store: Arc<PinnedStore>,
    object: Object,
    columns: Vec<usize>,
    batch_size: usize,
) -> Batches {
    let path = object.meta.location.clone();
    let opened = async move {
        let got = store.get_opts(&path, GetOptions::new()).await.map_err(DataFusionError::from)?;
        let chunks = got.into_stream().map_err(DataFusionError::from);
        let mut decoder = StreamDecoder::new();
        let batches = chunks.map(move |chunk| {
            let mut buffer = Buffer::from(chunk?);
            let mut batches = Vec::new();
            while !buffer.is_empty() {
                if let Some(batch) = decoder.decode(&mut buffer)? {
                    let batch = batch.project(&columns)?;
                    for start in (0..batch.num_rows()).step_by(batch_size) {
                        batches.push(batch.slice(start, batch_size.min(batch.num_rows() - start)));
                    }
                }
            }
            Ok::<_, DataFusionError>(stream::iter(
                batches.into_iter().map(Ok::<_, DataFusionError>),
            ))
        });
        Ok::<_, DataFusionError>(batches.try_flatten())
    };
    stream::once(opened).try_flatten().map_err(Failed::from).boxed()
}

/// Runs one of DataFusion's file sources over one file, from which `compression` is taken off.
fn run(
    reading: &Reading,
    source: Arc<dyn FileSource>,
    file: PartitionedFile,
    columns: Vec<usize>,
    compression: FileCompressionType,
) -> DfResult<SendableRecordBatchStream> {
    let file = match reading.table.format {
        Format::Parquet => file,
        // Their columns are put in place here, not by the reader.
        _ => file.with_partition_values(Vec::new()),
    };
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(URL)?, source)
        .with_file(file)
        .with_projection_indices(Some(columns))?
        .build();
    let store = OneStore(Arc::new(reading.store.unpacking(compression)));
    let runtime =
        RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(store)).build_arc()?;
    let config_of_session = SessionConfig::new().with_batch_size(reading.batch_size);
    let context =
        TaskContext::default().with_session_config(config_of_session).with_runtime(runtime);
    DataSourceExec::from_data_source(config).execute(0, Arc::new(context))
}

/// The registry DataFusion asks for the statement's store.
#[derive(Debug)]
struct OneStore(Arc<dyn ObjectStore>);

impl ObjectStoreRegistry for OneStore {
    fn register_store(
        &self,
        _url: &Url,
        _store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, _url: &Url) -> DfResult<Arc<dyn ObjectStore>> {
        Ok(Arc::clone(&self.0))
    }
}

/// Where each output column comes from in one file.
struct Placed {
    columns: Vec<(Origin, Field)>,
    file_columns: Vec<usize>,
    names: Vec<String>,
    schema: SchemaRef,
    null_value: Option<String>,
    shown: String,
    whole: bool,
    json: bool,
}

enum Origin {
    /// The n-th of the columns that are read.
    File(usize),
    /// The same value in every row.
    Constant(ScalarValue),
    /// Not in this file.
    Missing,
}

impl Placed {
    fn new(reading: &Reading, file: &PartitionedFile, names: &[String]) -> Self {
        let inside = reading.table.file_schema.fields().len();
        let mut file_columns = Vec::new();
        let columns = reading.projection.iter().map(|&index| {
            let field = reading.table.schema.field(index).clone();
            let origin = if index >= inside {
                let value = file.partition_values.get(index - inside);
                value.map_or(Origin::Missing, |value| Origin::Constant(value.clone()))
            } else {
                match names.iter().position(|name| name == field.name()) {
                    Some(position) => {
                        file_columns.push(position);
                        Origin::File(file_columns.len() - 1)
                    }
                    None => Origin::Missing,
                }
            };
            (origin, field)
        });
        let columns = columns.collect();
        // Without any column the readers lose count of the rows.
        if file_columns.is_empty() && !names.is_empty() {
            file_columns.push(0);
        }
        let shown = reading.pins.get(&file.object_meta.location).map(|o| o.shown.clone());
        Self {
            columns,
            file_columns,
            names: names.to_vec(),
            schema: Arc::clone(&reading.schema),
            null_value: None,
            shown: shown.unwrap_or_default(),
            whole: file.range.as_ref().is_none_or(|range| range.start == 0),
            json: reading.table.format == Format::Json,
        }
    }

    fn with_null_value(mut self, null_value: Option<String>) -> Self {
        self.null_value = null_value;
        self
    }

    fn file_columns(&self) -> Vec<usize> {
        self.file_columns.clone()
    }

    /// Whether the column's values are needed, and not only its rows counted.
    fn wants(&self, name: &str) -> bool {
        let in_file = |(origin, field): &(Origin, Field)| {
            matches!(origin, Origin::File(_)) && field.name() == name
        };
        self.columns.iter().any(in_file)
    }

    /// Puts the columns of each batch in place. The first row is in line `header` + 1.
    fn put(self, batches: Batches, header: usize) -> Batches {
        let mut rows_before = header;
        let placed = batches.map(move |batch| {
            let batch = batch?;
            let columns = self
                .columns
                .iter()
                .map(|(origin, field)| self.column(origin, field, &batch, rows_before))
                .collect::<Result<Vec<_>, Failed>>()?;
            rows_before += batch.num_rows();
            Ok(with_schema(&self.schema, columns, batch.num_rows())?)
        });
        placed.boxed()
    }

    fn column(
        &self,
        origin: &Origin,
        field: &Field,
        batch: &RecordBatch,
        rows_before: usize,
    ) -> Result<ArrayRef, Failed> {
        let (rows, data_type) = (batch.num_rows(), field.data_type());
        let made = |array: ArrayRef| Ok(nan::one_nan(&array).map_err(DataFusionError::from)?);
        match origin {
            Origin::Missing => Ok(new_null_array(data_type, rows)),
            Origin::Constant(value) => made(value.to_array_of_size(rows)?),
            Origin::File(position) => {
                let column = batch.column(*position);
                let converted = text::convert(column, data_type, self.null_value.as_deref());
                let converted = converted.and_then(|array| match text::infinite(&array) {
                    Some(row) if self.json => {
                        Err(Misfit { row, value: "a number too large".into() })
                    }
                    _ => Ok(array),
                });
                let converted = converted.map_err(|misfit| {
                    let row = rows_before + misfit.row + 1;
                    // In the middle of a file the lines before are not known.
                    let place = if self.whole { format!(" in line {row}") } else { String::new() };
                    let message = format!("'{}'{place} is not a {data_type}", misfit.value);
                    debug_assert!(self.names.contains(field.name()));
                    error::data(&self.shown, message).in_column(field.name().clone())
                });
                made(converted?)
            }
        }
    }
}

/// Names the column and line that the CSV reader gives by number, and leaves the row out.
fn csv_failed(e: DataFusionError, names: &[String], shown: &str) -> Failed {
    let text = e.find_root().to_string();
    let after = |word: &str| {
        let rest = &text[text.find(word)? + word.len()..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    };
    let between = |start: &str, end: &str| {
        let rest = &text[text.find(start)? + start.len()..];
        Some(rest[..rest.find(end)?].to_owned())
    };
    let found = (|| {
        let value = between("while parsing value '", "' as type '")?;
        let data_type = between("' as type '", "' for column ")?;
        Some((value, data_type, names.get(after("for column ")?)?, after(" at line ")?))
    })();
    match found {
        Some((value, data_type, column, line)) => {
            // The reader counts lines from 0.
            let message = format!("'{value}' in line {} is not a {data_type}", line + 1);
            Failed::Told(error::data(shown, message).in_column(column.clone()))
        }
        None => Failed::Reader(e),
    }
}

fn with_schema(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> DfResult<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

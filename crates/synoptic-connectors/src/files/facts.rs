//! Parquet footers: kept by path and ETag, shared by planning and reading.

use std::fmt;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::Statistics;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use moka::future::Cache;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};
use parking_lot::Mutex;
use synoptic_source::Result;

use super::error;
use super::layout::{Object, identity};
use super::location::Location;
use super::pinned::{PinnedStore, Pins};

/// Footers that are kept, in bytes.
const CAPACITY: u64 = 128 << 20;
/// Bytes at the end of a file that are fetched in the hope to get the whole footer at once.
const TAIL: usize = 64 << 10;

/// What the end of one Parquet file says.
pub struct Footer {
    /// Schema, row groups, statistics; without the page index, which is read when it helps.
    pub metadata: Arc<ParquetMetaData>,
    statistics: Mutex<Option<(SchemaRef, Arc<Statistics>)>>,
}

impl Footer {
    /// Statistics of the file in the columns of `schema`.
    pub fn statistics(&self, schema: &SchemaRef, object: &Object) -> Result<Arc<Statistics>> {
        if let Some((kept_schema, kept)) = &*self.statistics.lock()
            && kept_schema == schema
        {
            return Ok(Arc::clone(kept));
        }
        // A footer that lies can make the readers of its statistics panic.
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| {
            DFParquetMetadata::statistics_from_parquet_metadata(&self.metadata, schema)
        }));
        let made = match made {
            Ok(Ok(statistics)) => Arc::new(statistics),
            Ok(Err(e)) => return Err(error::data(&object.shown, e.strip_backtrace())),
            Err(_) => return Err(error::data(&object.shown, "its statistics are corrupt")),
        };
        *self.statistics.lock() = Some((Arc::clone(schema), Arc::clone(&made)));
        Ok(made)
    }
}

type Key = (Path, u64, String);

/// The kept footers of one source.
pub struct Footers {
    kept: Cache<Key, Arc<Footer>>,
    location: Arc<Location>,
}

impl Footers {
    /// An empty store of footers.
    pub fn new(location: Arc<Location>) -> Self {
        let weigh = |_: &Key, footer: &Arc<Footer>| {
            u32::try_from(footer.metadata.memory_size().saturating_add(512)).unwrap_or(u32::MAX)
        };
        Self { kept: Cache::builder().max_capacity(CAPACITY).weigher(weigh).build(), location }
    }

    /// The footer of `object`, read through `store` unless it is kept.
    pub async fn get(&self, store: &PinnedStore, object: &Object) -> Result<Arc<Footer>> {
        let meta = &object.meta;
        let key = (meta.location.clone(), meta.size, identity(meta));
        if let Some(kept) = self.kept.get(&key).await {
            return Ok(kept);
        }
        let fetch = DFParquetMetadata::new(store, meta)
            .with_metadata_size_hint(Some(TAIL))
            .with_page_index_policy(Some(PageIndexPolicy::Skip));
        let metadata = match AssertUnwindSafe(fetch.fetch_metadata()).catch_unwind().await {
            Ok(Ok(metadata)) => metadata,
            Ok(Err(e)) => {
                let told = store.take_failure();
                return Err(
                    told.unwrap_or_else(|| error::content(&e, &object.shown, &self.location))
                );
            }
            Err(_) => return Err(error::data(&object.shown, "its footer is corrupt")),
        };
        let footer = Arc::new(Footer { metadata, statistics: Mutex::new(None) });
        self.kept.insert(key, Arc::clone(&footer)).await;
        Ok(footer)
    }
}

impl fmt::Debug for Footers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Footers").field("kept", &self.kept.entry_count()).finish_non_exhaustive()
    }
}

/// Opens Parquet files for DataFusion's reader: pinned bytes, kept footers.
#[derive(Debug)]
pub struct Readers {
    /// Where the bytes come from.
    pub store: Arc<PinnedStore>,
    /// The kept footers.
    pub footers: Arc<Footers>,
    /// The statement's objects.
    pub pins: Pins,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let path = &file.object_meta.location;
        let Some(object) = self.pins.get(path).cloned() else {
            return datafusion::common::internal_err!("{path} is not part of this statement");
        };
        let (store, footers) = (Arc::clone(&self.store), Arc::clone(&self.footers));
        Ok(Box::new(PinnedReader { store, footers, object }))
    }
}

struct PinnedReader {
    store: Arc<PinnedStore>,
    footers: Arc<Footers>,
    object: Object,
}

impl AsyncFileReader for PinnedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            let options = GetOptions::new().with_range(Some(range));
            let got = self.store.get_opts(&self.object.meta.location, options).await;
            let bytes = match got {
                Ok(got) => got.bytes().await,
                Err(error) => Err(error),
            };
            bytes.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            let got = self.store.get_ranges(&self.object.meta.location, &ranges).await;
            got.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            match self.footers.get(&self.store, &self.object).await {
                Ok(footer) => Ok(Arc::clone(&footer.metadata)),
                Err(error) => {
                    let text = error.to_string();
                    self.store.keep_failure(error);
                    Err(ParquetError::General(text))
                }
            }
        }
        .boxed()
    }
}

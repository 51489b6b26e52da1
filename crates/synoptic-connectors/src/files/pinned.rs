//! The store one scan reads through: only the objects its statement has listed, each as it was
//! listed. A GET carries `If-Match`, so that an object that was replaced meanwhile is an error and
//! never a mixture of two states. It counts the bytes it fetches and keeps the first failure with
//! its place, because readers turn errors into texts on their way up.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, coalesce_ranges,
};
use parking_lot::Mutex;
use synoptic_source::{ScanCounters, SourceError};
use tokio::task::spawn_blocking;

use super::compression::{self, Unpacked};
use super::error;
use super::layout::{Object, identity};
use super::location::Location;

/// A local file is read in pieces of this size, in bytes.
const LOCAL_CHUNK: u64 = 256 * 1024;

/// The objects of one table in one statement.
pub type Pins = Arc<HashMap<Path, Object>>;

/// See the module.
pub struct PinnedStore {
    location: Arc<Location>,
    pins: Pins,
    counters: Arc<ScanCounters>,
    failure: Arc<Mutex<Option<SourceError>>>,
    /// What is taken off the objects before they are shown.
    compression: FileCompressionType,
}

impl PinnedStore {
    /// Shows `pins` of `location`, counting into `counters`.
    pub fn new(location: Arc<Location>, pins: Pins, counters: Arc<ScanCounters>) -> Self {
        let compression = FileCompressionType::UNCOMPRESSED;
        Self { location, pins, counters, failure: Arc::default(), compression }
    }

    /// The same store, which takes `compression` off the objects it shows. They can only be read
    /// whole, and their size stays that of the compressed bytes.
    pub fn unpacking(&self, compression: FileCompressionType) -> Self {
        Self {
            location: Arc::clone(&self.location),
            pins: Arc::clone(&self.pins),
            counters: Arc::clone(&self.counters),
            failure: Arc::clone(&self.failure),
            compression,
        }
    }

    /// The first failure since the last call.
    pub fn take_failure(&self) -> Option<SourceError> {
        self.failure.lock().take()
    }

    /// Keeps a failure that was found above the store, unless there is one already.
    pub fn keep_failure(&self, failure: SourceError) {
        self.failure.lock().get_or_insert(failure);
    }

    fn fail(&self, object: &Object, error: Error) -> Error {
        let told = told(&error, object, &self.location);
        self.failure.lock().get_or_insert(told);
        error
    }

    /// The same failure for bytes that come later, when `self` is no longer at hand.
    fn failing(&self, object: &Object) -> impl Fn(Error) -> Error + Send + 'static {
        let failure = Arc::clone(&self.failure);
        let (location, object) = (Arc::clone(&self.location), object.clone());
        move |error| {
            failure.lock().get_or_insert_with(|| told(&error, &object, &location));
            error
        }
    }

    /// The failure of bytes that cannot be decompressed. What the store said before goes first.
    fn corrupt(&self, object: &Object) -> impl Fn(std::io::Error) -> Error + Send + 'static {
        let failure = Arc::clone(&self.failure);
        let location = Arc::clone(&self.location);
        let shown = object.shown.clone();
        move |error| {
            failure.lock().get_or_insert_with(|| {
                let why = location.say(&error);
                error::data(&shown, format!("cannot be decompressed: {why}"))
            });
            Error::Generic { store: "files", source: error.into() }
        }
    }

    fn read_only<T>(&self) -> Result<T> {
        Err(Error::NotSupported { source: "a scan only reads".into() })
    }

    /// Bytes that lie outside the object can only come from a corrupt file.
    fn check_range(&self, object: &Object, range: &GetRange) -> Result<()> {
        if self.compression.is_compressed() {
            let source = "a compressed file has no parts".into();
            return Err(Error::NotSupported { source });
        }
        let size = object.meta.size;
        let outside = match range {
            GetRange::Bounded(range) => range.end > size || range.start > range.end,
            GetRange::Offset(start) => *start > size,
            GetRange::Suffix(_) => false,
        };
        if !outside {
            return Ok(());
        }
        let message = format!("is corrupt: it refers to bytes {range} and has {size}");
        let told = error::data(&object.shown, &message);
        self.failure.lock().get_or_insert(told);
        Err(Error::Generic { store: "files", source: message.into() })
    }

    /// The pinned object at `path`, and how the store is asked for it.
    fn pinned(&self, path: &Path, mut options: GetOptions) -> Result<(&Object, GetOptions)> {
        let Some(object) = self.pins.get(path) else {
            return Err(Error::Generic {
                store: "files",
                source: format!("{path} is not part of this statement").into(),
            });
        };
        if let Some(range) = &options.range {
            self.check_range(object, range)?;
        }
        options.if_match.clone_from(&object.meta.e_tag);
        Ok((object, options))
    }

    /// Gets `object`, if it is still what was pinned, and does `then` with it; on a local disk all of
    /// it in one go.
    async fn get<T: Send + 'static>(
        &self,
        object: &Object,
        options: GetOptions,
        then: impl FnOnce(GetResult) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (location, pinned) = (Arc::clone(&self.location), object.clone());
        let work = async move {
            let got = location.store.get_opts(&pinned.meta.location, options).await?;
            // What a log has named is written once, and the log does not know its ETag.
            let other_tag = pinned.added.is_none()
                && got.meta.e_tag.is_some()
                && identity(&got.meta) != identity(&pinned.meta);
            if got.meta.size != pinned.meta.size || other_tag {
                return Err(replaced(&pinned.meta.location));
            }
            then(got)
        };
        self.location.ask(work).await.map_err(|error| self.fail(object, error))
    }

    /// The parts of a local file, read in one go off the async threads: the columns of a row group
    /// cost one change of threads and one copy, however many they are.
    async fn local_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (object, options) = self.pinned(path, GetOptions::new())?;
        for range in ranges {
            self.check_range(object, &GetRange::Bounded(range.clone()))?;
        }
        let ranges = ranges.to_vec();
        let read = move |got: GetResult| match got.payload {
            GetResultPayload::File(file, _) => read_ranges(file, &got.meta.location, &ranges),
            GetResultPayload::Stream(_) => {
                Err(Error::NotSupported { source: "a local file that is none".into() })
            }
        };
        let read = self.get(object, options, read).await?;
        self.counters.add_bytes(read.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(read)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for PinnedStore {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let (object, options) = self.pinned(path, options)?;
        let head = options.head;
        let opened = self.get(object, options, move |mut got| {
            if let GetResultPayload::File(file, _) = got.payload {
                let (at, range) = (&got.meta.location, got.range.clone());
                // A piece that is read at once is read where it was opened.
                let payload = match range.end - range.start {
                    length if length <= LOCAL_CHUNK && !head => {
                        let parts = read_ranges(file, at, std::slice::from_ref(&range))?;
                        stream::iter(parts.into_iter().map(Ok)).boxed()
                    }
                    _ => local_chunks(file, at.clone(), range),
                };
                got.payload = GetResultPayload::Stream(payload);
            }
            Ok(got)
        });
        let got = opened.await?;
        let GetResultPayload::Stream(payload) = got.payload else {
            return Err(Error::NotSupported { source: "a file that is not local".into() });
        };
        let counters = Arc::clone(&self.counters);
        let count = move |bytes: &Bytes| counters.add_bytes(bytes.len() as u64);
        let payload = payload.map_err(self.failing(object)).inspect_ok(count).boxed();
        let payload = match compression::unpack(payload, self.compression) {
            Unpacked::AsItWas(payload) => payload,
            Unpacked::Decompressed(payload) => payload.map_err(self.corrupt(object)).boxed(),
        };
        Ok(GetResult { payload: GetResultPayload::Stream(payload), ..got })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if self.location.local.is_some() {
            return self.local_ranges(path, ranges).await;
        }
        let fetch = |range: Range<u64>| async move {
            let options = GetOptions::new().with_range(Some(range));
            self.get_opts(path, options).await?.bytes().await
        };
        coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.read_only()
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.read_only()
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let refused = self.read_only();
        stream::once(async move { refused }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let below = |path: &Path| prefix.is_none_or(|prefix| path.prefix_matches(prefix));
        let pinned = self.pins.values().filter(|object| below(&object.meta.location));
        let pinned: Vec<_> = pinned.map(|object| Ok(object.meta.clone())).collect();
        stream::iter(pinned).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        let after = move |meta: &ObjectMeta| std::future::ready(meta.location > offset);
        self.list(prefix).try_filter(after).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotSupported { source: "a scan lists its objects before it starts".into() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        self.read_only()
    }

    async fn rename_opts(&self, _: &Path, _: &Path, _: RenameOptions) -> Result<()> {
        self.read_only()
    }
}

/// Reads an open file off the async threads. The file is the one whose ETag was checked, even if
/// its path names another by now; that it was not written to meanwhile is checked at the end.
fn local_chunks(file: File, path: Path, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    struct State {
        file: File,
        at: u64,
        opened: Option<(u64, SystemTime)>,
    }
    let end = range.end;
    let state = State { file, at: range.start, opened: None };
    let chunks = stream::try_unfold(Some(state), move |state| {
        let path = path.clone();
        async move {
            let Some(mut state) = state else { return Ok(None) };
            let read = spawn_blocking(move || {
                if state.opened.is_none() {
                    state.opened = Some(stamp(&state.file)?);
                    state.file.seek(SeekFrom::Start(state.at))?;
                }
                let length = LOCAL_CHUNK.min(end - state.at);
                let mut bytes = Vec::with_capacity(length as usize);
                (&mut state.file).take(length).read_to_end(&mut bytes)?;
                state.at += length;
                let whole = bytes.len() as u64 == length
                    && (state.at < end || state.opened == Some(stamp(&state.file)?));
                Ok::<_, std::io::Error>((whole, Bytes::from(bytes), state))
            });
            let (whole, bytes, state) = match read.await? {
                Ok(read) => read,
                Err(error) => return Err(Error::Generic { store: "files", source: error.into() }),
            };
            if !whole {
                return Err(replaced(&path));
            }
            let next = (state.at < end).then_some(state);
            Ok(Some((bytes, next)))
        }
    });
    chunks.boxed()
}

/// Reads parts of an open file, which must be the same before and after.
fn read_ranges(mut file: File, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let mut read = || {
        let opened = stamp(&file)?;
        let mut parts = Vec::with_capacity(ranges.len());
        let mut whole = true;
        for range in ranges {
            let length = range.end - range.start;
            file.seek(SeekFrom::Start(range.start))?;
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
            (&mut file).take(length).read_to_end(&mut bytes)?;
            whole &= bytes.len() as u64 == length;
            parts.push(Bytes::from(bytes));
        }
        whole &= opened == stamp(&file)?;
        Ok::<_, std::io::Error>(whole.then_some(parts))
    };
    let parts = read().map_err(|error| Error::Generic { store: "files", source: error.into() })?;
    parts.ok_or_else(|| replaced(path))
}

fn stamp(file: &File) -> std::io::Result<(u64, SystemTime)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified()?))
}

fn told(error: &Error, object: &Object, location: &Location) -> SourceError {
    match error {
        Error::NotFound { .. } if object.added.is_some() => error::vacuumed(&object.shown),
        error => error::pinned(error, &object.shown, location),
    }
}

fn replaced(path: &Path) -> Error {
    Error::Precondition { path: path.to_string(), source: "the object has changed".into() }
}

impl fmt::Display for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} objects of {}", self.pins.len(), self.location)
    }
}

impl fmt::Debug for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedStore").field("location", &self.location).finish_non_exhaustive()
    }
}

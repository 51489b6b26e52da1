//! Actions in their order → the table at a version.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::DateTime;
use object_store::ObjectMeta;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use synoptic_source::{ErrorKind, Result, SourceError};
use url::Url;

use super::super::format::Format;
use super::super::layout::{Listing, MAX_OBJECTS, Object};
use super::super::location::Location;
use super::actions::{Action, Add, DeletionVector, Metadata, Protocol};
use super::{Added, Columns, Version, schema};

/// The highest version of the protocol for readers that we know: from 3 on the table names each
/// feature.
const READER_VERSION: i64 = 3;
/// Features that a reader need do nothing for, or that are refused only where they are used: a
/// deletion vector by its file, a column mapping by its mode.
const FEATURES: [&str; 4] =
    ["timestampNtz", "vacuumProtocolCheck", "deletionVectors", "columnMapping"];

/// A table at a version.
#[derive(Debug)]
pub struct State {
    /// Which table, which version.
    pub version: Version,
    /// Its columns.
    pub columns: Arc<Columns>,
    /// Its files.
    pub listing: Arc<Listing>,
    metadata: Arc<Metadata>,
    protocol: Arc<Protocol>,
}

impl State {
    /// Whether the columns are those of `other`: a plan for one reads the other.
    pub fn is_like(&self, other: &Self) -> bool {
        self.metadata.schema_string == other.metadata.schema_string
            && self.metadata.partition_columns == other.metadata.partition_columns
    }
}

/// The name of a file in a log: the same bytes with other rows deleted are another file.
type Key = (String, Option<DeletionVector>);

/// A table while its log is read.
#[derive(Debug, Default)]
pub struct Replay {
    files: HashMap<Key, File>,
    metadata: Option<Arc<Metadata>>,
    protocol: Option<Arc<Protocol>>,
}

#[derive(Debug)]
enum File {
    Known(Object),
    Added(Add),
}

impl Replay {
    /// A table to which later commits are applied.
    pub fn from(state: &State) -> Self {
        let files = state.listing.objects.iter().filter_map(|object| {
            let path = object.added.as_ref()?.path.clone();
            Some(((path, None), File::Known(object.clone())))
        });
        Self {
            files: files.collect(),
            metadata: Some(Arc::clone(&state.metadata)),
            protocol: Some(Arc::clone(&state.protocol)),
        }
    }

    /// Applies a checkpoint, or a commit after all before it.
    ///
    /// # Errors
    /// When the actions stand elsewhere.
    pub fn apply(&mut self, mut actions: Vec<Action>) -> Result<()> {
        // Within a commit the order means nothing: a file that it adds is there afterwards.
        for removed in actions.iter_mut().filter_map(|action| action.remove.take()) {
            self.files.remove(&(removed.path, removed.deletion_vector));
        }
        for action in actions {
            if action.sidecar.is_some() {
                return Err(unsupported("v2Checkpoint"));
            }
            if let Some(protocol) = action.protocol {
                self.protocol = Some(Arc::new(protocol));
            }
            if let Some(metadata) = action.meta_data {
                self.metadata = Some(Arc::new(metadata));
            }
            if let Some(add) = action.add {
                let key = (add.path.clone(), add.deletion_vector.clone());
                self.files.insert(key, File::Added(add));
            }
        }
        Ok(())
    }

    /// The table at `version`, all of whose actions were applied.
    ///
    /// # Errors
    /// When it needs what we do not honour, or its log is corrupt.
    pub fn finish(self, version: u64, location: &Location, table: &Path) -> Result<State> {
        let (Some(metadata), Some(protocol)) = (self.metadata, self.protocol) else {
            return Err(SourceError::data(format!(
                "the log of the Delta table has no metaData and protocol up to version {version}"
            )));
        };
        check(&protocol, &metadata)?;
        let columns = Arc::new(schema::columns(&metadata)?);
        if self.files.len() > MAX_OBJECTS {
            return Err(SourceError::new(
                ErrorKind::Unsupported,
                format!("the Delta table has more than {MAX_OBJECTS} files"),
            ));
        }
        let objects = self.files.into_iter().map(|((_, deleted), file)| match (deleted, file) {
            (Some(_), _) => Err(unsupported("deletionVectors")),
            (None, File::Known(object)) => Ok(object),
            (None, File::Added(add)) => object(add, location, table),
        });
        let mut objects = objects.collect::<Result<Vec<Object>>>()?;
        objects.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
        let bytes = objects.iter().map(|object| object.meta.size).sum();
        let version = Version { id: Arc::from(metadata.id.as_str()), number: version };
        let listing =
            Listing { objects, format: Format::Parquet, bytes, version: Some(version.clone()) };
        Ok(State { version, columns, listing: Arc::new(listing), metadata, protocol })
    }
}

/// Refuses what a reader must know and we do not.
fn check(protocol: &Protocol, metadata: &Metadata) -> Result<()> {
    let needs = protocol.min_reader_version;
    if needs > READER_VERSION {
        return Err(SourceError::new(
            ErrorKind::Unsupported,
            format!(
                "the Delta table needs a reader of version {needs} (minReaderVersion); up to \
                 {READER_VERSION} is supported"
            ),
        ));
    }
    let mut features = protocol.reader_features.iter().flatten();
    if let Some(feature) = features.find(|f| !FEATURES.contains(&f.as_str())) {
        return Err(unsupported(feature));
    }
    let setting = |name: &str| metadata.configuration.get(name).and_then(Option::as_deref);
    if setting("delta.columnMapping.mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("none")) {
        return Err(unsupported("columnMapping"));
    }
    match metadata.format.as_ref().map(|format| format.provider.as_str()) {
        None | Some("parquet") => Ok(()),
        Some(other) => Err(SourceError::new(
            ErrorKind::Unsupported,
            format!("the data files of the Delta table are {other}, not parquet"),
        )),
    }
}

fn unsupported(feature: &str) -> SourceError {
    SourceError::new(
        ErrorKind::Unsupported,
        format!("the Delta table uses the feature {feature}, which is not supported"),
    )
}

fn object(add: Add, location: &Location, table: &Path) -> Result<Object> {
    if add.path.starts_with('/') || Url::parse(&add.path).is_ok() {
        return Err(SourceError::new(
            ErrorKind::Unsupported,
            format!("the Delta table has a file outside of its folder: {}", add.path),
        ));
    }
    let wrong = |why: String| {
        SourceError::data(format!(
            "the log of the Delta table names the file '{}': {why}",
            add.path
        ))
    };
    let decoded = percent_decode_str(&add.path).decode_utf8().map_err(|e| wrong(e.to_string()))?;
    let whole = match table.as_ref() {
        "" => decoded.into_owned(),
        folder => format!("{folder}/{decoded}"),
    };
    let path = Path::parse(whole).map_err(|e| wrong(e.to_string()))?;
    let meta = ObjectMeta {
        size: add.size,
        last_modified: DateTime::from_timestamp_millis(add.modification_time).unwrap_or_default(),
        // Not known, and not needed: a data file is written once.
        e_tag: None,
        version: None,
        location: path,
    };
    Ok(Object {
        shown: location.relative(&meta.location),
        meta,
        folders: Vec::new(),
        added: Some(Arc::new(Added { path: add.path, partition_values: add.partition_values })),
    })
}

//! The first lines of CSV files: kept by path and ETag, so that a file is opened once to be read.

use std::sync::Arc;

use moka::future::Cache;
use object_store::path::Path;
use synoptic_source::Result;
use synoptic_types::{Clock as _, SystemClock};

use super::layout::{Object, identity};
use super::read::Reading;
use super::schema;
use crate::recent::is_recent;

/// Headers that are kept.
const KEPT: u64 = 10_000;

/// A file, and the table whose options it is read with.
type Key = (Path, u64, String, String);

/// The kept headers of one source.
#[derive(Debug)]
pub struct Headers {
    kept: Cache<Key, Arc<[String]>>,
}

impl Default for Headers {
    fn default() -> Self {
        Self { kept: Cache::new(KEPT) }
    }
}

impl Headers {
    /// The names in the header of `object`, read through `reading` unless they are kept.
    ///
    /// # Errors
    /// When the file cannot be read or has no header.
    pub async fn get(&self, reading: &Reading, object: &Object) -> Result<Arc<[String]>> {
        let (meta, spec) = (&object.meta, &reading.table.spec);
        let key = (meta.location.clone(), meta.size, identity(meta), spec.name.clone());
        if let Some(kept) = self.kept.get(&key).await {
            return Ok(kept);
        }
        let csv = &spec.read.csv;
        let names = schema::csv_names(&reading.store, &reading.location, csv, object).await?;
        let names: Arc<[String]> = names.into();
        // On a disk a change right now may not show in the ETag.
        if !is_recent(meta.last_modified, SystemClock.now()) {
            self.kept.insert(key, Arc::clone(&names)).await;
        }
        Ok(names)
    }
}

//! One source and what is known of its tables.

use std::sync::Arc;
use std::time::Duration;

use datafusion_common::Statistics;
use moka::sync::Cache;
use synoptic_source::{Result, Source, TableDef};
use synoptic_types::TableName;

/// How many table descriptions are kept per source.
pub const TABLE_CACHE_CAPACITY: u64 = 10_000;

/// Estimates may be this old. They steer plans, never answers.
const STATISTICS_TTL: Duration = Duration::from_secs(60);

/// A source with its caches.
#[derive(Debug)]
pub struct SourceEntry {
    source: Arc<dyn Source>,
    tables: Cache<TableName, Arc<TableDef>>,
    statistics: Cache<(TableName, String), Statistics>,
}

impl SourceEntry {
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            tables: Cache::new(TABLE_CACHE_CAPACITY),
            statistics: Cache::builder()
                .max_capacity(TABLE_CACHE_CAPACITY)
                .time_to_live(STATISTICS_TTL)
                .build(),
        }
    }

    /// The source itself.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The table as it is now: a cached description is used only when the source confirms it.
    ///
    /// # Errors
    /// When the source does not answer or the table cannot be described.
    pub async fn table(&self, name: &TableName) -> Result<Option<Arc<TableDef>>> {
        let place = |e: synoptic_source::SourceError| e.in_source(self.source.name());
        let Some(stamp) = self.source.stamp(name).await.map_err(place)? else {
            self.tables.invalidate(name);
            return Ok(None);
        };
        if let Some(known) = self.tables.get(name).filter(|known| known.stamp == stamp) {
            return Ok(Some(known));
        }
        let table = self.source.table(name).await.map_err(place)?;
        if let Some(table) = &table {
            self.tables.insert(name.clone(), Arc::clone(table));
        }
        Ok(table)
    }

    /// Estimates for `table`, unknown ones when the source cannot give any.
    pub async fn statistics(&self, table: &TableDef) -> Statistics {
        let key = (table.name().clone(), table.stamp.clone());
        if let Some(known) = self.statistics.get(&key) {
            return known;
        }
        match self.source.statistics(table).await {
            Ok(statistics) => {
                self.statistics.insert(key, statistics.clone());
                statistics
            }
            Err(error) => {
                tracing::debug!(source = %self.source.name(), table = %table.name(), %error,
                    "no statistics");
                Statistics::new_unknown(&table.schema)
            }
        }
    }
}

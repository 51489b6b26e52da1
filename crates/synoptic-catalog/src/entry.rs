//! One copy of a source and what is known of its tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion_common::Statistics;
use moka::sync::Cache;
use synoptic_source::{Result, Source, TableDef};
use synoptic_types::{CopyKind, CopyName, TableName};

use crate::copies::{Replica, SystemTime};

/// How many table descriptions are kept per source.
pub const TABLE_CACHE_CAPACITY: u64 = 10_000;

/// Estimates may be this old. They steer plans, never answers.
const STATISTICS_TTL: Duration = Duration::from_secs(60);

/// How many reads are remembered by what they returned, and for how long.
const RETURNED_KEPT: u64 = 1_000;
const RETURNED_TTL: Duration = Duration::from_secs(300);

/// How many answers of a source's planner are kept, as long as other estimates.
const EXPECTED_KEPT: u64 = 1_000;

/// One copy of a source with its caches.
#[derive(Debug)]
pub struct SourceEntry {
    source: Arc<dyn Source>,
    copy: CopyName,
    kind: CopyKind,
    names: Names,
    /// By the source's names, as all names that come from outside.
    system_time: Arc<BTreeMap<TableName, SystemTime>>,
    tables: Cache<TableName, Arc<TableDef>>,
    statistics: Cache<(TableName, String), Statistics>,
    returned: Cache<u64, u64>,
    expected: Cache<u64, Option<f64>>,
}

/// How the source's tables are called in a copy.
#[derive(Debug, Default)]
struct Names {
    mapped: BTreeMap<TableName, TableName>,
    /// The default schema of the source, and that of the copy.
    default_schema: Option<(String, String)>,
}

impl Names {
    fn of<'a>(&'a self, name: &'a TableName) -> std::borrow::Cow<'a, TableName> {
        use std::borrow::Cow;
        if let Some(mapped) = self.mapped.get(name) {
            return Cow::Borrowed(mapped);
        }
        match &self.default_schema {
            Some((ours, theirs)) if *ours == *name.schema => {
                Cow::Owned(TableName::new(theirs.as_str(), Arc::clone(&name.name)))
            }
            _ => Cow::Borrowed(name),
        }
    }
}

impl SourceEntry {
    pub(crate) fn authoritative(
        source: Arc<dyn Source>,
        system_time: Arc<BTreeMap<TableName, SystemTime>>,
    ) -> Self {
        let copy = (CopyName::primary(), CopyKind::Authoritative);
        Self::new(source, copy, Names::default(), system_time)
    }

    /// A replica of a source whose default schema is `default_schema`.
    pub(crate) fn replica(
        replica: Replica,
        default_schema: &str,
        system_time: Arc<BTreeMap<TableName, SystemTime>>,
    ) -> Self {
        let theirs = replica.source.default_schema().to_owned();
        let names = Names {
            mapped: replica.tables,
            default_schema: Some((default_schema.to_owned(), theirs)),
        };
        Self::new(replica.source, (replica.name, CopyKind::Replica), names, system_time)
    }

    fn new(
        source: Arc<dyn Source>,
        (copy, kind): (CopyName, CopyKind),
        names: Names,
        system_time: Arc<BTreeMap<TableName, SystemTime>>,
    ) -> Self {
        Self {
            source,
            copy,
            kind,
            names,
            system_time,
            tables: Cache::new(TABLE_CACHE_CAPACITY),
            statistics: Cache::builder()
                .max_capacity(TABLE_CACHE_CAPACITY)
                .time_to_live(STATISTICS_TTL)
                .build(),
            returned: Cache::builder()
                .max_capacity(RETURNED_KEPT)
                .time_to_live(RETURNED_TTL)
                .build(),
            expected: Cache::builder()
                .max_capacity(EXPECTED_KEPT)
                .time_to_live(STATISTICS_TTL)
                .build(),
        }
    }

    /// How many rows came when the same was read to its end, not long ago. Steers plans, never
    /// answers. Whoever asks says by a number of its own what the same is.
    pub fn returned(&self, question: u64) -> Option<u64> {
        self.returned.get(&question)
    }

    /// Keeps how many rows came.
    pub fn keep_returned(&self, question: u64, rows: u64) {
        self.returned.insert(question, rows);
    }

    /// How many rows the source's own planner expects for a question; `Some(None)` when it was asked
    /// and did not say.
    pub fn expected(&self, question: u64) -> Option<Option<f64>> {
        self.expected.get(&question)
    }

    /// Keeps what the source's planner expects.
    pub fn keep_expected(&self, question: u64, rows: Option<f64>) {
        self.expected.insert(question, rows);
    }

    /// The copy's name in its source.
    pub fn copy(&self) -> &CopyName {
        &self.copy
    }

    /// What the copy is to its source.
    pub fn kind(&self) -> CopyKind {
        self.kind
    }

    /// The columns by which earlier states of the table that the source calls `name` can be read.
    pub fn system_time(&self, name: &TableName) -> Option<&SystemTime> {
        self.system_time.get(name)
    }

    /// The description that is kept of a table, not confirmed by anybody now.
    pub fn last_known(&self, name: &TableName) -> Option<Arc<TableDef>> {
        self.tables.get(self.names.of(name).as_ref())
    }

    /// The source itself.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// The table that the source calls `name`, as it is now: a cached description is used only when the source confirms it.
    ///
    /// # Errors
    /// When the source does not answer or the table cannot be described.
    pub async fn table(&self, name: &TableName) -> Result<Option<Arc<TableDef>>> {
        let place = |e: synoptic_source::SourceError| e.in_source(self.source.name());
        let name = self.names.of(name);
        let name = name.as_ref();
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

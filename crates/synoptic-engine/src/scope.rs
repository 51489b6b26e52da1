//! What the scans of one statement share: its snapshots, its limits, its counters.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use synoptic_catalog::SourceEntry;
use synoptic_source::{ScanCounters, Snapshot, Statement};
use synoptic_types::{ErrorCode, Pushdown, QueryOptions, SourceName, TableName};

use crate::error::{Error, Result};
use crate::exec::LateRecord;
use crate::query::{Receipt, ScanReceipt};

/// The copy that every scan reads in this version.
const AUTHORITATIVE: &str = "primary";

/// One statement as its scans see it. Dropping it, or [`Scope::end`], lets go of the sources.
pub(crate) struct Scope {
    pub(crate) statement: Arc<Statement>,
    pub(crate) pushdown: Pushdown,
    pub(crate) dynamic_filters: bool,
    max_rows_read: Option<u64>,
    snapshots: Mutex<HashMap<SourceName, Arc<dyn Snapshot>>>,
    scans: Arc<ScanRecords>,
}

/// The scans of a statement in the order they were planned; outlives the scope for receipts.
#[derive(Debug, Default)]
pub(crate) struct ScanRecords(Mutex<Vec<Arc<ScanRecord>>>);

/// One planned scan.
#[derive(Debug)]
pub(crate) struct ScanRecord {
    pub(crate) source: SourceName,
    /// What is read, left to right; more than one for a relation.
    pub(crate) tables: Vec<TableName>,
    pub(crate) remote_text: String,
    pub(crate) counters: Arc<ScanCounters>,
    /// What the keys of joins made of it, once it runs.
    pub(crate) late: OnceLock<LateRecord>,
}

/// Longer texts are cut in receipts: lists of keys can have thousands.
const SHOWN_TEXT: usize = 4000;

impl ScanRecord {
    /// The text that was sent, or would be: the planned one as long as the scan has not begun.
    fn text(&self) -> String {
        let late = self.late.get().and_then(|late| late.text.as_deref());
        late.map_or_else(|| self.remote_text.clone(), |text| shortened(text, SHOWN_TEXT))
    }
}

/// The beginning and the end of a text that is longer than `most` bytes.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let start = text.floor_char_boundary(most / 2);
    let end = text.ceil_char_boundary(text.len() - most / 2);
    format!("{} … ({} bytes) … {}", &text[..start], text.len(), &text[end..])
}

impl Scope {
    pub(crate) fn new(statement: Arc<Statement>, options: &QueryOptions) -> Arc<Self> {
        Arc::new(Self {
            statement,
            pushdown: options.pushdown,
            dynamic_filters: options.dynamic_filters && options.pushdown == Pushdown::Auto,
            max_rows_read: options.max_rows_read,
            snapshots: Mutex::default(),
            scans: Arc::default(),
        })
    }

    /// The one snapshot of `entry` in this statement.
    pub(crate) fn snapshot(&self, entry: &SourceEntry) -> Arc<dyn Snapshot> {
        let source = entry.source();
        let mut snapshots = self.snapshots.lock();
        let snapshot =
            snapshots.entry(source.name().clone()).or_insert_with(|| source.begin(&self.statement));
        Arc::clone(snapshot)
    }

    /// Notes a planned scan for the receipt.
    pub(crate) fn record(
        &self,
        source: SourceName,
        tables: Vec<TableName>,
        text: &str,
    ) -> Arc<ScanRecord> {
        let record = Arc::new(ScanRecord {
            source,
            tables,
            remote_text: text.to_owned(),
            counters: Arc::default(),
            late: OnceLock::new(),
        });
        self.scans.0.lock().push(Arc::clone(&record));
        record
    }

    /// The scans, for a receipt that outlives the statement.
    pub(crate) fn records(&self) -> Arc<ScanRecords> {
        Arc::clone(&self.scans)
    }

    /// Stops a statement that has read too much from one source.
    ///
    /// # Errors
    /// `[BUDGET_EXCEEDED]` naming the source, the limit and the option.
    pub(crate) fn check_rows_read(&self, source: &SourceName) -> Result<()> {
        let Some(limit) = self.max_rows_read else { return Ok(()) };
        let rows = self.scans.rows_from(source);
        if rows <= limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::BudgetExceeded,
            format!(
                "source '{source}': the statement has read {rows} rows and may read {limit}; \
                 select less or raise synoptic.max_rows_read"
            ),
        ))
    }

    /// Lets go of every snapshot that no running scan holds.
    pub(crate) fn end(&self) {
        self.snapshots.lock().clear();
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.statement.query_id)
    }
}

impl ScanRecord {
    /// What is read, for people.
    pub(crate) fn table(&self) -> String {
        let tables: Vec<_> = self.tables.iter().map(ToString::to_string).collect();
        tables.join(", ")
    }
}

impl ScanRecords {
    fn rows_from(&self, source: &SourceName) -> u64 {
        let scans = self.0.lock();
        scans.iter().filter(|scan| scan.source == *source).map(|scan| scan.counters.rows()).sum()
    }

    pub(crate) fn receipt(&self, query_id: &str) -> Receipt {
        let scans = self.0.lock();
        let scan = |(number, scan): (usize, &Arc<ScanRecord>)| ScanReceipt {
            scan: number,
            source: scan.source.to_string(),
            table: scan.table(),
            copy: AUTHORITATIVE.to_owned(),
            rows: scan.counters.rows(),
            bytes: scan.counters.bytes(),
            remote_text: scan.text(),
        };
        Receipt {
            query_id: query_id.to_owned(),
            scans: scans.iter().enumerate().map(scan).collect(),
        }
    }
}

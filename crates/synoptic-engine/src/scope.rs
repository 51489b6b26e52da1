//! What the scans of one statement share: its snapshots, its limits, its counters.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use synoptic_catalog::SourceEntry;
use synoptic_freshness::{Receipt, ScanReceipt, StatementColumns, Token};
use synoptic_source::{PreparedScan, ScanCounters, ScanVersion, Snapshot, Statement};
use synoptic_types::{ErrorCode, Pushdown, QueryOptions, SourceName, TableName};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::exec::{LateRecord, ReadingAhead};
use crate::freshness::{Choices, Chosen, Reading, of_version, statement_columns};

/// One statement as its scans see it. Dropping it, or [`Scope::end`], lets go of the sources.
pub(crate) struct Scope {
    pub(crate) statement: Arc<Statement>,
    pub(crate) pushdown: Pushdown,
    pub(crate) dynamic_filters: bool,
    /// The moment at which every table is read that does not say another; `None` for the present.
    pub(crate) read_at: Option<DateTime<Utc>>,
    max_rows_read: Option<u64>,
    /// Which copies are read; `None` in a session of somebody else's.
    chosen: Option<Arc<Chosen>>,
    snapshots: Mutex<HashMap<SourceName, Arc<dyn Snapshot>>>,
    scans: Arc<ScanRecords>,
    /// Small tables, which are asked for while others are read.
    pub(crate) ahead: ReadingAhead,
    /// What the statement reads instead, when it had to be planned again.
    successor: Mutex<Option<Arc<Self>>>,
}

/// The scans of a statement in the order they were planned, and what they read; outlives the scope
/// for receipts.
#[derive(Debug, Default)]
pub(crate) struct ScanRecords(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    scans: Vec<Arc<ScanRecord>>,
    choices: Option<Arc<Choices>>,
    reading: Option<Reading>,
    /// What a read must include to see what the statement wrote.
    written: Token,
    /// When the write was committed, in nanoseconds since 1970; later than it was visible.
    stamp: Option<i64>,
}

/// One planned scan.
#[derive(Debug)]
pub(crate) struct ScanRecord {
    pub(crate) source: SourceName,
    /// What is read, left to right; more than one for a relation.
    pub(crate) tables: Vec<TableName>,
    pub(crate) remote_text: String,
    /// Which state of its table it reads, when the table keeps several.
    pub(crate) version: Option<ScanVersion>,
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
            // Half an answer is refused where the sources are chosen.
            read_at: options.read_at().ok().flatten(),
            max_rows_read: options.max_rows_read,
            chosen: None,
            snapshots: Mutex::default(),
            scans: Arc::default(),
            ahead: ReadingAhead::default(),
            successor: Mutex::default(),
        })
    }

    /// The same statement once its copies are chosen, to be planned (again): what was recorded of
    /// an earlier plan is forgotten.
    pub(crate) fn reading(&self, chosen: Chosen) -> Arc<Self> {
        let chosen = Arc::new(chosen);
        *self.scans.0.lock() =
            Records { choices: Some(Arc::clone(chosen.choices())), ..Records::default() };
        Arc::new(Self {
            statement: Arc::clone(&self.statement),
            pushdown: self.pushdown,
            dynamic_filters: self.dynamic_filters,
            read_at: self.read_at,
            max_rows_read: self.max_rows_read,
            chosen: Some(chosen),
            snapshots: Mutex::default(),
            scans: Arc::clone(&self.scans),
            ahead: ReadingAhead::default(),
            successor: Mutex::default(),
        })
    }

    /// Which copies are read.
    pub(crate) fn chosen(&self) -> Option<&Arc<Chosen>> {
        self.chosen.as_ref()
    }

    /// Lets go of the sources in favour of `successor`, which ends when this one does.
    pub(crate) fn succeed(&self, successor: Arc<Self>) {
        self.snapshots.lock().clear();
        *self.successor.lock() = Some(successor);
    }

    /// Whether any source is read.
    pub(crate) fn has_scans(&self) -> bool {
        !self.scans.0.lock().scans.is_empty()
    }

    /// Whether every one of `tables` is read.
    pub(crate) fn reads_all(&self, tables: &[(SourceName, TableName)]) -> bool {
        let records = self.scans.0.lock();
        tables.iter().all(|(source, table)| {
            let mut scans = records.scans.iter();
            scans.any(|scan| scan.source == *source && scan.tables.contains(table))
        })
    }

    /// Whether there is a single scan, and so nothing that could change what it reads or when.
    pub(crate) fn has_one_scan(&self) -> bool {
        self.scans.0.lock().scans.len() == 1
    }

    /// Whether nothing else of `source` is read.
    pub(crate) fn reads_once(&self, source: &SourceName) -> bool {
        let records = self.scans.0.lock();
        records.scans.iter().filter(|scan| scan.source == *source).count() == 1
    }

    /// The snapshots that scans were prepared under.
    pub(crate) fn snapshots(&self) -> Vec<(SourceName, Arc<dyn Snapshot>)> {
        let snapshots = self.snapshots.lock();
        snapshots.iter().map(|(source, s)| (source.clone(), Arc::clone(s))).collect()
    }

    /// Notes that all snapshots stand.
    pub(crate) fn opened(&self, reading: Reading) {
        self.scans.0.lock().reading = Some(reading);
    }

    /// Notes what was written.
    pub(crate) fn wrote(&self, token: Token) {
        self.scans.0.lock().written = token;
    }

    /// Notes the timestamp of the commit.
    pub(crate) fn stamped(&self, stamp: Option<i64>) {
        self.scans.0.lock().stamp = stamp;
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
        prepared: &dyn PreparedScan,
    ) -> Arc<ScanRecord> {
        let record = Arc::new(ScanRecord {
            source,
            tables,
            remote_text: prepared.remote_text().to_owned(),
            version: prepared.version(),
            counters: Arc::default(),
            late: OnceLock::new(),
        });
        self.scans.0.lock().scans.push(Arc::clone(&record));
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
        if let Some(successor) = self.successor.lock().take() {
            successor.end();
        }
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
        let records = self.0.lock();
        let scans = records.scans.iter();
        scans.filter(|scan| scan.source == *source).map(|scan| scan.counters.rows()).sum()
    }

    pub(crate) fn receipt(&self, query_id: &str, engine: &Engine) -> Receipt {
        let records = self.0.lock();
        let reading = records.reading.as_ref();
        let columns = |source: &SourceName| match &records.choices {
            Some(choices) => choices.columns(source, reading),
            None => Default::default(),
        };
        let scan = |(number, scan): (usize, &Arc<ScanRecord>)| ScanReceipt {
            scan: number,
            source: scan.source.to_string(),
            table: scan.table(),
            copy: match &scan.version {
                Some(version) => of_version(columns(&scan.source), version),
                None => columns(&scan.source),
            },
            rows: scan.counters.rows(),
            bytes: scan.counters.bytes(),
            remote_text: scan.text(),
        };
        Receipt {
            query_id: query_id.to_owned(),
            statement: StatementColumns {
                committed_at: records.stamp.map(DateTime::from_timestamp_nanos),
                ..statement_columns(reading, &records.written, engine)
            },
            scans: records.scans.iter().enumerate().map(scan).collect(),
        }
    }
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion_common::Statistics;
use synoptic_source::{
    Capabilities, CopyPosition, ErrorKind, Fragment, PrepareOptions, PreparedScan, Pushdown,
    Result, Snapshot, Source, SourceCheck, SourceError, Statement, TableDef, TableInfo, TableKind,
};
use synoptic_types::{Position, Reason, SourceName, TableName};

use crate::Host;

/// A source whose one table can be altered and dropped, which can be down, and which counts how
/// often it is asked.
#[derive(Debug)]
pub(crate) struct Altering {
    name: SourceName,
    version: AtomicUsize,
    described: AtomicUsize,
    pub(crate) down: AtomicBool,
    /// How far its log has got.
    pub(crate) written: AtomicU64,
    /// How often it was asked how far.
    pub(crate) positions: AtomicUsize,
}

/// How long it takes to say how far it has got.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(10);

impl Altering {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: SourceName::new(name),
            version: AtomicUsize::new(1),
            described: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            written: AtomicU64::new(1),
            positions: AtomicUsize::new(0),
        })
    }

    fn stamp(&self) -> Option<String> {
        match self.version.load(Ordering::SeqCst) {
            0 => None,
            version => Some(version.to_string()),
        }
    }
}

fn never<T>() -> Result<T> {
    Err(SourceError::new(ErrorKind::Unsupported, "not part of this test"))
}

#[async_trait]
impl Source for Altering {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn connector(&self) -> &'static str {
        "altering"
    }

    fn capabilities(&self) -> &Capabilities {
        unreachable!("the catalog does not plan")
    }

    fn default_schema(&self) -> &str {
        "main"
    }

    fn location(&self) -> String {
        String::new()
    }

    async fn position(&self) -> Result<CopyPosition> {
        self.positions.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(ROUND_TRIP).await;
        match self.down.load(Ordering::SeqCst) {
            true => Err(SourceError::new(ErrorKind::Unavailable, "it is down")),
            false => {
                let written = self.written.load(Ordering::SeqCst);
                Ok(CopyPosition::at(Position::log(7, 1, written)))
            }
        }
    }

    async fn check(&self) -> Result<SourceCheck> {
        never()
    }

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        never()
    }

    async fn stamp(&self, _table: &TableName) -> Result<Option<String>> {
        Ok(self.stamp())
    }

    async fn table(&self, table: &TableName) -> Result<Option<Arc<TableDef>>> {
        self.described.fetch_add(1, Ordering::SeqCst);
        Ok(self.stamp().map(|stamp| {
            Arc::new(TableDef {
                info: TableInfo { name: table.clone(), kind: TableKind::Table, comment: None },
                schema: Arc::new(Schema::new(vec![Field::new(&stamp, DataType::Int64, true)])),
                primary_key: vec![],
                stamp,
                detail: Arc::new(()),
            })
        }))
    }

    async fn statistics(&self, _table: &TableDef) -> Result<Statistics> {
        never()
    }

    fn pushdown(&self, _table: &TableDef, _filter: &datafusion_expr::Expr) -> Pushdown {
        Pushdown::No(Reason::PushdownOff)
    }

    fn begin(&self, _statement: &Arc<Statement>) -> Arc<dyn Snapshot> {
        unreachable!("the catalog does not read")
    }

    async fn prepare(
        &self,
        _fragment: Fragment,
        _snapshot: &Arc<dyn Snapshot>,
        _options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        never()
    }
}

#[tokio::test]
async fn a_description_is_used_as_long_as_the_source_confirms_it() {
    let source = Altering::new("a");
    let host = Host::new(vec![source.clone()]);
    let snapshot = host.snapshot();
    let entry = snapshot.source("a").expect("registered");
    let name = TableName::new("main", "t");
    let columns = async || {
        let table = entry.table(&name).await.expect("answers");
        table.map(|t| t.schema.field(0).name().clone())
    };

    assert_eq!(columns().await.as_deref(), Some("1"));
    assert_eq!(columns().await.as_deref(), Some("1"));
    assert_eq!(source.described.load(Ordering::SeqCst), 1, "the second came from the cache");

    source.version.store(2, Ordering::SeqCst);
    assert_eq!(columns().await.as_deref(), Some("2"), "altered: seen at once");
    source.version.store(0, Ordering::SeqCst);
    assert_eq!(columns().await, None, "dropped: seen at once");
    assert_eq!(source.described.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_source_without_statistics_gives_unknown_ones() {
    let host = Host::new(vec![Altering::new("a")]);
    let snapshot = host.snapshot();
    let entry = snapshot.source("a").expect("registered");
    let name = TableName::new("main", "t");
    let table = entry.table(&name).await.expect("answers").expect("there");
    let statistics = entry.statistics(&table).await;
    assert_eq!(statistics, Statistics::new_unknown(&table.schema));
}

#[test]
fn a_snapshot_does_not_change_and_an_unchanged_source_keeps_its_entry() {
    let (kept, removed, added) =
        (Altering::new("kept"), Altering::new("gone"), Altering::new("new"));
    let host = Host::new(vec![kept.clone(), removed]);
    let before = host.snapshot();
    host.replace(vec![kept, added]);
    let after = host.snapshot();

    assert!(before.source("gone").is_some() && before.source("new").is_none());
    assert!(after.source("gone").is_none() && after.source("new").is_some());
    assert!(after.version() > before.version());
    let entry = |s: &crate::Snapshot| Arc::clone(s.source("kept").expect("kept"));
    assert!(Arc::ptr_eq(&entry(&before), &entry(&after)), "its caches live on");
}

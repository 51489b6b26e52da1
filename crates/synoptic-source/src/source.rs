//! The traits a backend implements.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion_common::Statistics;
use datafusion_expr::Expr;
use datafusion_physical_expr_common::physical_expr::PhysicalExpr;
use synoptic_types::{Deadline, QueryId, Reason, SourceName, TableName, TableVersion};

use crate::capabilities::{Capabilities, Pushdown};
use crate::error::{ErrorKind, Result, SourceError};
use crate::fragment::Fragment;
use crate::narrowed::{KeyLimits, Narrowed};
use crate::position::{CopyPosition, Pinned};
use crate::relation::Relation;
use crate::stream::{BatchStream, ScanCounters};
use crate::table::{TableDef, TableInfo};
use crate::write::{ChangeRequest, PreparedWrite, WriteRequest};

/// Who asks: what a source needs to know of the statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Goes to the source in a leading comment and the application name, for its operators.
    pub query_id: QueryId,
    /// When the statement must have ended; passed on as the source's own statement timeout.
    pub deadline: Option<Deadline>,
}

/// One state of a source, shared by all scans of a statement.
///
/// Made by [`Source::begin`] without I/O; the source fills it in when it is first needed. When
/// the last holder drops it, whatever it holds at the source (a transaction, connections) ends.
#[async_trait]
pub trait Snapshot: Any + Debug + Send + Sync {
    /// Takes the snapshot now, for all scans that were prepared under it, and says where the copy
    /// was before and after. The engine calls it at most once, before it opens any scan; a scan
    /// that is opened without it takes the snapshot itself.
    ///
    /// The position *before* is asked in a question of its own whose answer is complete before the
    /// snapshot is taken, on the connection that reads: another may lead to another node. The one
    /// *after* is asked when the snapshot stands, so nothing that it shows is beyond it.
    async fn pin(&self) -> Result<Pinned> {
        Ok(Pinned::default())
    }

    /// As [`Snapshot::pin`], for a statement that has one scan and opens it next, as it was
    /// prepared: a source may begin to read in the same exchange. What it reads is that of the
    /// snapshot, and so comes after the first question for the position.
    async fn pin_for_its_scan(&self) -> Result<Pinned> {
        self.pin().await
    }

    /// Whether the state that is read was fixed while the statement was planned, by
    /// [`Source::prepare`], and not by [`Snapshot::pin`]: a listing of objects, say.
    fn is_fixed_by_planning(&self) -> bool {
        false
    }
}

/// One of the states that a table keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanVersion {
    /// The state, as receipts show it for a position.
    pub position: String,
    /// Whether the statement asked for this state, and not for the present one.
    pub asked: bool,
}

/// How a fragment is to be read.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// How many partitions the engine would like. The source decides.
    pub target_partitions: usize,
    /// Rows a batch should have.
    pub batch_size: usize,
}

/// What a scan gets when it is opened.
#[derive(Debug, Clone)]
pub struct ScanContext {
    /// The statement the scan belongs to.
    pub statement: Arc<Statement>,
    /// Filters over the fragment's output columns that may become stricter while the scan runs.
    /// Using them is optional; the engine checks every row again.
    pub dynamic_filters: Vec<Arc<dyn PhysicalExpr>>,
    /// Where the scan counts its rows and bytes.
    pub counters: Arc<ScanCounters>,
}

/// A fragment made ready at plan time: EXPLAIN shows it, the engine opens it.
#[async_trait]
pub trait PreparedScan: Debug + Send + Sync {
    /// The exact text that is sent to the source; for files, the paths and the pruning condition.
    fn remote_text(&self) -> &str;

    /// The schema of every batch, equal to the fragment's.
    fn schema(&self) -> SchemaRef;

    /// Which state of its table it reads, for people, when the table itself keeps several.
    fn version(&self) -> Option<ScanVersion> {
        None
    }

    /// How many partitions can be opened, at least 1.
    fn partitions(&self) -> usize;

    /// Estimates for what the scan yields, after its filters and limit, in the fragment's columns.
    /// `Exact` values only when they are; never an exact sum (a join would pass it on).
    fn statistics(&self) -> Statistics;

    /// The scan with `conditions` added, which are over the columns it yields as
    /// [`Relation::column`] spells them: the keys that a join has collected, say. Using them is
    /// optional, since the engine checks every row again; a scan that does not use any answers
    /// `None`. No I/O.
    fn narrowed(&self, conditions: &[Expr]) -> Option<Narrowed> {
        let _ = conditions;
        None
    }

    /// How many keys a condition of [`PreparedScan::narrowed`] may list.
    fn key_limits(&self) -> KeyLimits {
        KeyLimits::LIST
    }

    /// Opens one partition. No I/O happens before the first poll. Each partition is opened once.
    ///
    /// # Errors
    /// When `partition` does not exist, or `snapshot` is not this source's.
    fn open(
        &self,
        partition: usize,
        snapshot: Arc<dyn Snapshot>,
        context: ScanContext,
    ) -> Result<BatchStream>;
}

/// What `synoptic check` and `system.sources` show of a source that answers.
#[derive(Debug, Clone)]
pub struct SourceCheck {
    /// Product and version as the source reports them, for example `PostgreSQL 15.18`.
    pub version: String,
    /// Where it is, without credentials: `db1:5432/portfolio`, a path, a bucket.
    pub location: String,
    /// How a read proves its freshness, for example `strong read in one transaction`.
    pub freshness: String,
    /// How long the question took.
    pub round_trip: Duration,
}

/// An autonomous system that owns data.
///
/// Every method may be called from any task at any time. Nothing here blocks the async threads.
#[async_trait]
pub trait Source: Debug + Send + Sync + 'static {
    /// The name from the configuration.
    fn name(&self) -> &SourceName;

    /// The connector's name, for example `postgres`.
    fn connector(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// The schema that `source.table` means.
    fn default_schema(&self) -> &str;

    /// Where it is, without credentials. No I/O.
    fn location(&self) -> String;

    /// Asks where this copy is now: for the authoritative copy its head, which covers everything
    /// that is visible there. One small question; [`Position::Unknown`] when there is no answer
    /// that would prove anything, an error when the copy does not answer.
    ///
    /// [`Position::Unknown`]: synoptic_types::Position::Unknown
    async fn position(&self) -> Result<CopyPosition> {
        Ok(CopyPosition::default())
    }

    /// Whether a snapshot that is pinned says if the tables are what they were described as
    /// ([`Pinned::confirmed`]). Then a plan that is kept can be used without asking for them first.
    fn confirms_tables(&self) -> bool {
        false
    }

    /// Asks the source for a sign of life.
    async fn check(&self) -> Result<SourceCheck>;

    /// Every table that can be read, sorted by name. Not described, so that one broken table does
    /// not spoil the listing.
    async fn tables(&self) -> Result<Vec<TableInfo>>;

    /// A cheap text that changes whenever the description of `table` would change; `None` when
    /// there is no such table. It validates cached descriptions; nothing here goes by age.
    async fn stamp(&self, table: &TableName) -> Result<Option<String>>;

    /// Describes one table; `None` when there is no such table.
    async fn table(&self, table: &TableName) -> Result<Option<Arc<TableDef>>>;

    /// Describes an earlier state of `table`, which reads that state whenever it is scanned; its
    /// stamp differs from that of every other state. `None` when the table shows its present only.
    ///
    /// # Errors
    /// `OutOfRange` when there is or was no such state, or it is gone.
    async fn table_as_of(
        &self,
        table: &TableDef,
        version: TableVersion,
    ) -> Result<Option<Arc<TableDef>>> {
        let _ = (table, version);
        Ok(None)
    }

    /// Estimates for a whole table, in its columns. Cheap: kept statistics, never a scan.
    async fn statistics(&self, table: &TableDef) -> Result<Statistics>;

    /// Whether the source can apply `filter`, whose columns are `table`'s by unqualified name.
    /// Pure; called often while planning.
    fn pushdown(&self, table: &TableDef, filter: &Expr) -> Pushdown;

    /// Begins a statement: a lazy snapshot for all its scans. No I/O.
    fn begin(&self, statement: &Arc<Statement>) -> Arc<dyn Snapshot>;

    /// Waits, at most a few seconds, until work that was cancelled or dropped has ended at the
    /// source. Called before the process ends; a source whose work ends by itself needs nothing.
    async fn settle(&self) {}

    /// Makes a fragment ready to run under `snapshot`. Called at plan time for every scan of the
    /// statement, before any of them is opened.
    async fn prepare(
        &self,
        fragment: Fragment,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>>;

    /// Estimates for what a fragment yields, after its filters and limit, in its columns. Cheap,
    /// as [`Source::statistics`] is.
    async fn estimate(&self, fragment: &Fragment) -> Result<Statistics> {
        Ok(Statistics::new_unknown(&fragment.schema()))
    }

    /// How many rows the source's own planner expects of each of `relations`, which it supports, in
    /// their order; `None` where it says nothing. A question to the source, which takes no longer
    /// there than `within`. Cheap beside reading what it is asked about; never exact.
    ///
    /// # Errors
    /// What the source says. Planning goes on without an answer.
    async fn expected_rows(
        &self,
        relations: &[Arc<Relation>],
        within: Duration,
    ) -> Result<Vec<Option<f64>>> {
        let _ = within;
        Ok(vec![None; relations.len()])
    }

    /// Whether the source yields for `relation` exactly the rows the engine would: the same
    /// values, NULLs and errors of values that do not fit. The relation's inputs were asked about
    /// before. Pure; called often while planning.
    ///
    /// # Errors
    /// With the reason why the root of `relation` stays in the engine.
    fn supports(&self, relation: &Relation) -> Result<(), Reason> {
        Err(Reason::NotCapable(relation.kind().to_string()))
    }

    /// Makes a relation that the source supports ready to run under `snapshot`, as
    /// [`Source::prepare`] does with a fragment. Its batches have `relation`'s schema to the
    /// letter; `estimate` is what the scan gives as its statistics.
    async fn prepare_relation(
        &self,
        relation: &Relation,
        estimate: Statistics,
        snapshot: &Arc<dyn Snapshot>,
        options: &PrepareOptions,
    ) -> Result<Arc<dyn PreparedScan>> {
        let _ = (estimate, snapshot, options);
        let what = relation.kind();
        Err(SourceError::internal(format!("the source was handed {what}, which it does not do")))
    }

    /// Makes a write ready. No I/O: what can be known without asking is refused here, before
    /// anything runs.
    ///
    /// # Errors
    /// `PermissionDenied` when the configuration does not let this source be written to,
    /// `Unsupported` when the source cannot do it exactly, with the reason and what to do.
    fn prepare_write(&self, request: WriteRequest) -> Result<Arc<dyn PreparedWrite>> {
        let _ = request;
        let connector = self.connector();
        Err(SourceError::new(
            ErrorKind::Unsupported,
            format!("INSERT: the connector '{connector}' only reads"),
        ))
    }

    /// Makes an UPDATE or DELETE ready, which runs whole at the source. No I/O, as above.
    ///
    /// # Errors
    /// As [`Source::prepare_write`]; `Unsupported` names the expression that would mean something
    /// else at the source.
    fn prepare_change(&self, request: ChangeRequest) -> Result<Arc<dyn PreparedWrite>> {
        let (connector, verb) = (self.connector(), request.change.verb());
        Err(SourceError::new(
            ErrorKind::Unsupported,
            format!("{verb}: the connector '{connector}' only reads"),
        ))
    }
}

//! The one physical operator for all sources: it opens a prepared scan and counts what comes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, Metric, MetricValue, MetricsSet, Time,
};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use synoptic_catalog::SourceEntry;
use synoptic_freshness::Lag;
use synoptic_source::{
    BatchStream, PreparedScan, ScanContext, Snapshot, SnapshotKind, SourceError,
};
use synoptic_types::Reason;

use crate::scope::{ScanRecord, Scope, shortened};

use super::late::{Decision, JoinKeys, LateRecord, Read};
use super::replay::Replay;

/// Longer texts of what came up at run time are cut.
const SHOWN_TEXT: usize = 500;

/// Reads one prepared fragment from its source.
#[derive(Clone)]
pub(crate) struct RemoteScanExec {
    entry: Arc<SourceEntry>,
    prepared: Arc<dyn PreparedScan>,
    scope: Arc<Scope>,
    record: Arc<ScanRecord>,
    /// What stays here and why, as EXPLAIN prints it.
    kept: Vec<(String, Reason)>,
    /// Filters that operators above make while they run, as they were handed down. They show that
    /// somebody wants them; what is used of them is in `join_keys`.
    dynamic_filters: Vec<Arc<dyn PhysicalExpr>>,
    /// What is made of those that joins make.
    join_keys: Arc<JoinKeys>,
    /// What it costs the source to make the rows, beside reading its tables.
    work: f64,
    /// What is asked, as a number.
    question: u64,
    /// Whether its table has few rows, so that it is read without waiting for anything.
    small: bool,
    /// What is expected to come.
    statistics: Arc<Statistics>,
    /// How many partitions have been read to their end.
    ended: Arc<AtomicUsize>,
    /// Keeps what was read, inside a recursive query.
    replay: Option<Replay>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// Makes every scan inside a recursive query read its source once and replay the rest.
pub(crate) fn replaying_recursions(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let replaying = plan.transform_down(|node| {
        if !node.as_ref().is::<RecursiveQueryExec>() {
            return Ok(Transformed::no(node));
        }
        let replay = |child: &Arc<dyn ExecutionPlan>| {
            let scans = Arc::clone(child).transform_up(|node| {
                Ok(match node.as_ref().downcast_ref::<RemoteScanExec>() {
                    Some(scan) => Transformed::yes(Arc::new(scan.replaying()) as _),
                    None => Transformed::no(node),
                })
            })?;
            Ok(scans.data)
        };
        let children = node.children().into_iter().map(replay).collect::<Result<_>>()?;
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::new(
            node.replace_children(children, options)?,
            true,
            TreeNodeRecursion::Jump,
        ))
    })?;
    Ok(replaying.data)
}

impl RemoteScanExec {
    /// The scan without filters that change from round to round.
    fn replaying(&self) -> Self {
        let replay = Replay::new(self.prepared.partitions().max(1));
        Self { replay: Some(replay), dynamic_filters: Vec::new(), ..self.clone() }
    }

    fn read(&self, partition: usize) -> Result<SendableRecordBatchStream> {
        let context = ScanContext {
            statement: Arc::clone(&self.scope.statement),
            dynamic_filters: self.filters().to_vec(),
            counters: Arc::clone(&self.record.counters),
        };
        let snapshot = self.scope.snapshot(&self.entry);
        let may_wait = self.may_wait();
        let open = |snapshot, context| {
            let opened = self.prepared.open(partition, snapshot, context);
            opened.map_err(|error| placed(error, &self.record))
        };
        let batches = if self.is_read_ahead() {
            if may_wait {
                let _ = self.record.late.set(LateRecord::read_ahead());
            }
            // What joins find out meanwhile must not decide by chance how many rows come.
            let context = ScanContext { dynamic_filters: Vec::new(), ..context };
            self.scope.ahead.offer(open(snapshot, context)?).boxed()
        } else if may_wait {
            let scan = self.clone();
            let opening = async move { scan.open_narrowed(partition, snapshot, context).await };
            stream::once(opening).try_flatten().boxed()
        } else {
            open(snapshot, context)?
        };
        Ok(Box::pin(RemoteStream {
            batches,
            schema: self.prepared.schema(),
            scope: Arc::clone(&self.scope),
            record: Arc::clone(&self.record),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            scan: Some(self.clone()),
        }))
    }

    /// Whether joins above may have keys for it.
    fn may_wait(&self) -> bool {
        !self.filters().is_empty()
            && self.join_keys.are_expected()
            && self.prepared.narrowed(&[]).is_some()
    }

    /// Whether it is begun while others are read: when it is small, or a query of a database that
    /// waits for no keys, which may take its time before the first row. What is large and comes from
    /// an object store would be cut off while nobody takes it. Where a source is read more than once,
    /// one of its reads may have to wait until another has ended.
    fn is_read_ahead(&self) -> bool {
        let snapshot = self.entry.source().capabilities().snapshot;
        (self.small || (!self.may_wait() && snapshot == SnapshotKind::Transaction))
            && self.replay.is_none()
            && self.prepared.partitions() == 1
            && self.scope.reads_once(&self.record.source)
    }

    /// A partition has been read to its end.
    fn ended(&self) {
        let ended = self.ended.fetch_add(1, Ordering::AcqRel) + 1;
        let whole =
            self.filters().is_empty() || self.join_keys.left_as_planned() || self.is_read_ahead();
        if whole && self.replay.is_none() && ended == self.prepared.partitions().max(1) {
            self.entry.keep_returned(self.question, self.record.counters.rows());
        }
    }

    /// Opens a partition with the keys that joins have collected.
    async fn open_narrowed(
        &self,
        partition: usize,
        snapshot: Arc<dyn Snapshot>,
        context: ScanContext,
    ) -> std::result::Result<BatchStream, SourceError> {
        let read = Read {
            prepared: &self.prepared,
            costs: self.entry.source().capabilities().costs,
            work: self.work,
            statistics: &self.statistics,
        };
        let keys = self.join_keys.decide(self.filters(), read, &self.scope.statement);
        let (decision, record) = keys.await;
        // Every partition says the same.
        let _ = self.record.late.set(record.clone());
        match decision {
            Decision::AsPlanned => self.prepared.open(partition, snapshot, context),
            Decision::Narrowed(scan) => scan.open(partition, snapshot, context),
            Decision::Nothing => Ok(stream::empty().boxed()),
        }
    }

    /// The filters it uses; none inside a recursive query, where they change from round to round.
    fn filters(&self) -> &[Arc<dyn PhysicalExpr>] {
        if self.dynamic_filters.is_empty() { &[] } else { self.join_keys.filters() }
    }

    pub(super) fn join_keys(&self) -> &JoinKeys {
        &self.join_keys
    }

    pub(crate) fn new(
        entry: Arc<SourceEntry>,
        prepared: Arc<dyn PreparedScan>,
        scope: Arc<Scope>,
        record: Arc<ScanRecord>,
        kept: Vec<(String, Reason)>,
        question: u64,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(prepared.schema()),
            Partitioning::UnknownPartitioning(prepared.partitions().max(1)),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let statistics = Arc::new(expected(&entry, question, prepared.statistics()));
        Self {
            entry,
            prepared,
            statistics,
            scope,
            record,
            kept,
            dynamic_filters: Vec::new(),
            join_keys: Arc::default(),
            work: 0.0,
            question,
            small: false,
            ended: Arc::default(),
            replay: None,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl RemoteScanExec {
    /// For a relation that costs its source so much work.
    pub(crate) fn with_work(self, work: f64) -> Self {
        Self { work, ..self }
    }

    /// Of a table that has few rows.
    pub(crate) fn of_small_table(self) -> Self {
        Self { small: true, ..self }
    }

    /// Tells a scan from all others of a plan.
    pub(super) fn identity(&self) -> usize {
        Arc::as_ptr(&self.join_keys).addr()
    }

    /// Whether joins or other operators were told that it takes what they find out.
    pub(super) fn is_offered_any(&self) -> bool {
        !self.dynamic_filters.is_empty()
    }

    /// How many keys it takes from a join.
    pub(super) fn keys_taken(&self) -> usize {
        match self.prepared.narrowed(&[]) {
            Some(_) => self.prepared.key_limits().keys,
            None => 0,
        }
    }

    /// Whether `filter` was handed down to it.
    pub(super) fn is_offered(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        let id = filter.expression_id();
        id.is_some() && self.dynamic_filters.iter().any(|offered| offered.expression_id() == id)
    }
}

impl ExecutionPlan for RemoteScanExec {
    fn name(&self) -> &str {
        "RemoteScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    /// Shows the dynamic filters: a join builds one only when it finds it in a leaf.
    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for filter in &self.dynamic_filters {
            if f(filter)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    /// Nothing touches the source before the stream is polled, so that a join's filter is complete
    /// when the probe side starts.
    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        match &self.replay {
            None => self.read(partition),
            Some(replay) => {
                let scan = self.clone();
                let schema = self.prepared.schema();
                Ok(replay.stream(partition, context, move || scan.read(partition), schema))
            }
        }
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut metrics = self.metrics.clone_inner();
        let bytes = Count::new();
        bytes.add(usize::try_from(self.record.counters.bytes()).unwrap_or(usize::MAX));
        let value = MetricValue::Count { name: "remote_bytes".into(), count: bytes };
        metrics.push(Arc::new(Metric::new(value, None)));
        if let Some(late) = self.record.late.get() {
            let keys = Count::new();
            keys.add(late.keys);
            let value = MetricValue::Count { name: "join_keys".into(), count: keys };
            metrics.push(Arc::new(Metric::new(value, None)));
            let waited = Time::new();
            waited.add_duration(late.waited);
            let value = MetricValue::Time { name: "join_keys_wait".into(), time: waited };
            metrics.push(Arc::new(Metric::new(value, None)));
        }
        Some(metrics)
    }

    /// Statistics must stand here and not only in the table: they decide which side a join builds.
    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let partitions = self.prepared.partitions().max(1);
        if partition.is_none() || partitions == 1 {
            return Ok(Arc::clone(&self.statistics));
        }
        let mut statistics = Statistics::clone(&self.statistics).to_inexact();
        statistics.num_rows = share(statistics.num_rows, partitions);
        statistics.total_byte_size = share(statistics.total_byte_size, partitions);
        Ok(Arc::new(statistics))
    }

    /// Keeps the filters that joins make while they run. The answer is `No` all the same: using
    /// them is optional for a source, so the rows are checked again above.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let offered = child_pushdown_result.parent_filters;
        let answers = vec![PushedDown::No; offered.len()];
        let propagation = FilterPushdownPropagation::with_parent_pushdown_result(answers);
        let wanted = matches!(phase, FilterPushdownPhase::Post)
            && self.scope.dynamic_filters
            && self.entry.source().capabilities().dynamic_filters
            && !offered.is_empty();
        if !wanted {
            return Ok(propagation);
        }
        let mut updated = self.clone();
        updated.dynamic_filters.extend(offered.into_iter().map(|offer| offer.filter));
        Ok(propagation.with_updated_node(Arc::new(updated)))
    }
}

/// `statistics` with as many rows as came when the same was asked before, or else as the source's own
/// planner expects, where they are no more than an estimate.
fn expected(entry: &SourceEntry, question: u64, statistics: Statistics) -> Statistics {
    let returned = entry.returned(question).map(|rows| rows as f64);
    let known = returned.or_else(|| entry.expected(question).flatten());
    let (Some(rows), false) = (known, matches!(statistics.num_rows, Precision::Exact(_))) else {
        return statistics;
    };
    let mut statistics = statistics.to_inexact();
    let before = statistics.num_rows.get_value().map(|rows| *rows as f64);
    let count = |count: f64| Precision::Inexact(count.max(0.0).round() as usize);
    let scaled = |size: Precision<usize>| match (size.get_value(), before) {
        (Some(size), Some(before)) if before > 0.0 => count(*size as f64 * rows / before),
        _ => Precision::Absent,
    };
    statistics.num_rows = count(rows);
    statistics.total_byte_size = scaled(statistics.total_byte_size);
    for column in &mut statistics.column_statistics {
        column.byte_size = scaled(column.byte_size);
        column.null_count = scaled(column.null_count);
        if let Some(distinct) = column.distinct_count.get_value() {
            column.distinct_count = count((*distinct as f64).min(rows));
        }
    }
    statistics
}

fn share(total: Precision<usize>, partitions: usize) -> Precision<usize> {
    match total {
        Precision::Exact(n) | Precision::Inexact(n) => Precision::Inexact(n.div_ceil(partitions)),
        Precision::Absent => Precision::Absent,
    }
}

impl DisplayAs for RemoteScanExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.record.source;
        let rows = self.statistics.num_rows;
        if matches!(format, DisplayFormatType::TreeRender) {
            writeln!(f, "source={source}")?;
            writeln!(f, "table={}", self.record.table())?;
            return writeln!(f, "remote={}", self.record.remote_text);
        }
        write!(
            f,
            "RemoteScan: source={source}, copy={}, partitions={}, estimated_rows={}, \
             remote=[{}]",
            self.entry.copy(),
            self.prepared.partitions(),
            match rows {
                Precision::Exact(n) => n.to_string(),
                Precision::Inexact(n) => format!("~{n}"),
                Precision::Absent => "unknown".to_owned(),
            },
            self.record.remote_text.replace('\n', "; "),
        )?;
        if !self.dynamic_filters.is_empty() {
            // Lists of keys can have thousands.
            let filters = self.dynamic_filters.iter();
            let filters: Vec<_> = filters.map(|f| shortened(&f.to_string(), SHOWN_TEXT)).collect();
            write!(f, ", dynamic_filters=[{}]", filters.join(", "))?;
        }
        if let Some(late) = self.record.late.get() {
            write!(f, ", join_keys=[{}]", late.note)?;
            if let Some(text) = &late.text {
                write!(f, ", sent=[{}]", shortened(text, SHOWN_TEXT).replace('\n', "; "))?;
            }
        }
        let choice = self.scope.chosen().and_then(|chosen| chosen.choice(source));
        if let Some(choice) = choice.filter(|choice| !choice.refused.is_empty()) {
            write!(f, ", proof={}", choice.method.as_str())?;
            if choice.lag != Lag::default() {
                write!(f, ", lag=[{}]", choice.lag)?;
            }
            let refused = choice.refused.iter().map(|r| format!("{}: {r}", r.copy));
            let refused: Vec<_> = refused.collect();
            write!(f, ", refused=[{}]", refused.join("; "))?;
        }
        if !self.kept.is_empty() {
            let kept: Vec<_> =
                self.kept.iter().map(|(what, reason)| format!("{what}: {reason}")).collect();
            write!(f, ", kept_here=[{}]", kept.join("; "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RemoteScanExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteScanExec").field("record", &self.record).finish_non_exhaustive()
    }
}

/// Batches of one partition on their way into the plan.
struct RemoteStream {
    batches: BatchStream,
    schema: SchemaRef,
    scope: Arc<Scope>,
    record: Arc<ScanRecord>,
    metrics: BaselineMetrics,
    /// Taken at the end.
    scan: Option<RemoteScanExec>,
}

impl Stream for RemoteStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.scope.ahead.advance(cx);
        let polled = self.batches.as_mut().poll_next(cx).map(|item| {
            item.map(|batch| {
                let batch = batch.map_err(|error| placed(error, &self.record))?;
                self.scope.check_rows_read(&self.record.source)?;
                Ok(batch)
            })
        });
        if matches!(polled, Poll::Ready(None))
            && let Some(scan) = self.scan.take()
        {
            scan.ended();
        }
        self.metrics.record_poll(polled)
    }
}

impl RecordBatchStream for RemoteStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

fn placed(error: SourceError, record: &ScanRecord) -> DataFusionError {
    let error = error.in_source(&record.source);
    let error = match record.tables.as_slice() {
        [table] => error.in_table(table),
        _ => error,
    };
    DataFusionError::External(Box::new(error))
}

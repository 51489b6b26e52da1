//! Asking a source, and DataFusion, the same thing.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Statistics;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::create_physical_expr;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use synoptic_types::QueryId;

use crate::{
    BatchStream, Fragment, PrepareOptions, PreparedScan, Relation, Result, ScanContext,
    ScanCounters, Snapshot, Source, Statement, TableDef,
};

/// A statement of the suite.
pub fn statement() -> Arc<Statement> {
    Arc::new(Statement { query_id: QueryId::new("conformance"), deadline: None })
}

/// One prepared fragment and what it runs under.
pub struct Scan {
    pub prepared: Arc<dyn PreparedScan>,
    pub snapshot: Arc<dyn Snapshot>,
    pub counters: Arc<ScanCounters>,
}

impl Scan {
    /// Prepares `fragment` in a statement of its own.
    pub async fn new(source: &dyn Source, fragment: Fragment, partitions: usize) -> Result<Self> {
        let snapshot = source.begin(&statement());
        Self::under(source, fragment, snapshot, partitions).await
    }

    /// Prepares `fragment` under `snapshot`.
    pub async fn under(
        source: &dyn Source,
        fragment: Fragment,
        snapshot: Arc<dyn Snapshot>,
        partitions: usize,
    ) -> Result<Self> {
        let options = PrepareOptions { target_partitions: partitions, batch_size: 1024 };
        let prepared = source.prepare(fragment, &snapshot, &options).await?;
        Ok(Self { prepared, snapshot, counters: Arc::default() })
    }

    /// Prepares `relation` in a statement of its own.
    pub async fn relation(source: &dyn Source, relation: &Relation) -> Result<Self> {
        let snapshot = source.begin(&statement());
        let options = PrepareOptions { target_partitions: 2, batch_size: 1024 };
        let unknown = Statistics::new_unknown(&relation.schema);
        let prepared = source.prepare_relation(relation, unknown, &snapshot, &options).await?;
        Ok(Self { prepared, snapshot, counters: Arc::default() })
    }

    /// Opens one partition.
    pub fn open(&self, partition: usize) -> Result<BatchStream> {
        let context = ScanContext {
            statement: statement(),
            dynamic_filters: Vec::new(),
            counters: Arc::clone(&self.counters),
        };
        self.prepared.open(partition, Arc::clone(&self.snapshot), context)
    }

    /// Reads all partitions at once, as the engine does.
    pub async fn read(&self) -> Result<RecordBatch> {
        let opened = (0..self.prepared.partitions()).map(|i| self.open(i));
        let opened = opened.collect::<Result<Vec<_>>>()?;
        let read = opened.into_iter().map(TryStreamExt::try_collect::<Vec<_>>);
        let batches: Vec<Vec<RecordBatch>> = futures::future::try_join_all(read).await?;
        let batches: Vec<RecordBatch> = batches.into_iter().flatten().collect();
        concat_batches(&self.prepared.schema(), &batches)
            .map_err(|e| crate::SourceError::internal(format!("batches differ in schema: {e}")))
    }
}

/// Reads `fragment` in a statement of its own.
pub async fn read(source: &dyn Source, fragment: Fragment) -> Result<RecordBatch> {
    Scan::new(source, fragment, 2).await?.read().await
}

/// Every row and column of `table`.
pub async fn read_all(source: &dyn Source, table: &Arc<TableDef>) -> Result<RecordBatch> {
    read(source, Fragment::table(Arc::clone(table))).await
}

/// `filter` as the engine would hand it to a source: coerced, simplified, split at its ANDs,
/// without qualifiers. Empty when it is not valid for these columns or always or never true.
pub async fn as_planned(batch: &RecordBatch, filter: Expr) -> Vec<Expr> {
    let plan = async {
        let frame = SessionContext::new().read_batch(batch.clone())?;
        frame.filter(filter)?.into_optimized_plan()
    };
    let Ok(plan) = plan.await else { return Vec::new() };
    let mut filters = Vec::new();
    let found = plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            filters = split_conjunction_owned(filter.predicate.clone());
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    if found.is_err() {
        return Vec::new();
    }
    let unqualified = filters.into_iter().map(|filter| {
        filter.transform(|expr| {
            Ok(match expr {
                Expr::Column(column) => {
                    Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
                }
                other => Transformed::no(other),
            })
        })
    });
    unqualified.filter_map(|filter| filter.ok().map(|t| t.data)).collect()
}

/// The rows of `batch` that DataFusion keeps.
pub fn filtered(batch: &RecordBatch, filters: &[Expr]) -> DfResult<RecordBatch> {
    let schema = DFSchema::try_from(batch.schema())?;
    let mut kept = batch.clone();
    for filter in filters {
        let filter = create_physical_expr(
            filter,
            &schema,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )?;
        let verdict = filter.evaluate(&kept)?.into_array(kept.num_rows())?;
        let verdict: &BooleanArray = as_boolean_array(&verdict)?;
        kept = filter_record_batch(&kept, verdict)?;
    }
    Ok(kept)
}

/// The rows of a batch in an order that depends on nothing but them. Bits count: NaN is itself,
/// and -0.0 is not 0.0.
pub fn rows(batch: &RecordBatch) -> Vec<OwnedRow> {
    let schema = batch.schema();
    let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone()));
    let converter = RowConverter::new(fields.collect());
    let rows = converter.and_then(|converter| converter.convert_columns(batch.columns()));
    let mut rows: Vec<OwnedRow> = match rows {
        Ok(rows) => rows.iter().map(|row| row.owned()).collect(),
        Err(_) => Vec::new(),
    };
    rows.sort();
    rows
}

/// What is different between two sets of rows, for people; `None` when nothing is.
pub fn difference(got: &RecordBatch, want: &RecordBatch) -> Option<String> {
    if got.schema().fields() != want.schema().fields() {
        return Some(format!("schema {:?} instead of {:?}", got.schema(), want.schema()));
    }
    if got.num_rows() != want.num_rows() {
        return Some(format!(
            "{} rows{} instead of {}{}",
            got.num_rows(),
            ids(got),
            want.num_rows(),
            ids(want)
        ));
    }
    (rows(got) != rows(want)).then(|| format!("other rows:{} instead of{}", ids(got), ids(want)))
}

fn ids(batch: &RecordBatch) -> String {
    use arrow::array::AsArray;
    let Some(id) = batch.column_by_name("id") else { return String::new() };
    let Some(id) = id.as_primitive_opt::<arrow::datatypes::Int64Type>() else {
        return String::new();
    };
    let mut ids: Vec<i64> = id.iter().flatten().take(40).collect();
    ids.sort_unstable();
    format!(" (ids {ids:?}, {} in all)", id.len())
}

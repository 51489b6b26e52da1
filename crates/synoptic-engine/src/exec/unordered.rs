//! Sorts that stay where they are.
//!
//! DataFusion's sorts go down, through a union into every branch and through projections. Where two
//! columns are the same below, or one is a constant, the sort leaves one of them out; above, nobody knows
//! of that any more, and the plan is refused as unsorted ("SanityCheckPlan": a query such as `SELECT
//! count(*), count(*) FROM a UNION ALL SELECT 1, count(*) FROM b ORDER BY 1, 2`). Then the plan is made
//! once more, with something below every sort that no sort goes through.

use std::fmt;
use std::sync::Arc;

use datafusion::common::display::PlanType;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, DataFusionError, Result, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

const REFUSED: &str = "does not satisfy order requirements";

/// Whether a plan was refused for the order of rows that its own optimizer had seen to.
pub(crate) fn is_refused_as_unsorted(error: &DataFusionError) -> bool {
    matches!(error, DataFusionError::Context(rule, _) if rule == "SanityCheckPlan")
        && error.find_root().to_string().contains(REFUSED)
}

/// Whether a plan explains that: EXPLAIN does not fail, and has the refusal as what a rule made.
pub(crate) fn explains_unsorted(plan: &dyn ExecutionPlan) -> bool {
    let explained = plan.downcast_ref::<ExplainExec>();
    let mut made = explained.map_or(&[][..], ExplainExec::stringified_plans).iter();
    let by_rule = |plan: &PlanType| matches!(plan, PlanType::OptimizedPhysicalPlan { .. });
    made.any(|made| by_rule(&made.plan_type) && made.plan.contains(REFUSED))
}

/// `plan` with its sorts where they are; `None` when it has none.
///
/// # Errors
/// When the plan cannot be walked, which is a bug.
pub(crate) fn sorts_in_place(plan: LogicalPlan) -> Result<Option<LogicalPlan>> {
    let kept = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Sort(mut sort) => {
            let node = Arc::new(UnorderedNode { input: Arc::unwrap_or_clone(sort.input) });
            sort.input = Arc::new(LogicalPlan::Extension(Extension { node }));
            Ok(Transformed::yes(LogicalPlan::Sort(sort)))
        }
        node => Ok(Transformed::no(node)),
    })?;
    Ok(kept.transformed.then_some(kept.data))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
struct UnorderedNode {
    input: LogicalPlan,
}

impl UserDefinedLogicalNodeCore for UnorderedNode {
    fn name(&self) -> &str {
        "Unordered"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unordered")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let [input] = <[LogicalPlan; 1]>::try_from(inputs).map_err(|_| one_input())?;
        Ok(Self { input })
    }
}

/// The physical plan of `node` over those of its inputs, when it is what no sort goes through.
pub(crate) fn planned_unordered(
    node: &dyn UserDefinedLogicalNode,
    inputs: &[Arc<dyn ExecutionPlan>],
) -> Option<Arc<dyn ExecutionPlan>> {
    node.as_any().downcast_ref::<UnorderedNode>()?;
    Some(Arc::new(UnorderedExec::new(Arc::clone(inputs.first()?))))
}

/// Hands on the rows of its input, of whose order and constants it promises nothing.
#[derive(Debug)]
pub(super) struct UnorderedExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl UnorderedExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let below = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            below.partitioning.clone(),
            below.emission_type,
            below.boundedness,
        );
        Self { properties: Arc::new(properties), input }
    }
}

impl ExecutionPlan for UnorderedExec {
    fn name(&self) -> &str {
        "Unordered"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [input] = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children).map_err(|_| one_input())?;
        Ok(Arc::new(Self::new(input)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        inputs.first().map(Arc::clone).ok_or_else(one_input)
    }

    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(filters, &self.children())
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::if_all(result))
    }
}

impl DisplayAs for UnorderedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unordered")
    }
}

fn one_input() -> DataFusionError {
    DataFusionError::Internal("what no sort goes through has one input".to_owned())
}

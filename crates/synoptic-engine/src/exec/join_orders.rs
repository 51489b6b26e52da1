//! Joins promise less of their rows than DataFusion thinks.
//!
//! What an outer join makes up rows for is NULL in them, so that a column which is a constant below
//! (`a LEFT JOIN (SELECT * FROM b WHERE kind = 'x') ...`) is none above; DataFusion takes it for one and
//! leaves a sort by it out. And it takes the rows that one row of the probe side meets to be in the order
//! of the build side, which does not hold when the next row has the same key (apache/datafusion issue
//! 25052). So a join is not told: what it would conclude wrongly is forgotten just below it.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::unordered::UnorderedExec;

/// Stands behind the rule that chooses the sides of joins and before the one that sees to orders.
#[derive(Debug)]
pub(crate) struct JoinOrders;

impl JoinOrders {
    /// The rule of DataFusion's that it stands behind.
    pub(crate) const BEHIND: &str = "join_selection";
}

impl PhysicalOptimizerRule for JoinOrders {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let join_type = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
                *join.join_type()
            } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
                *join.join_type()
            } else {
                return Ok(Transformed::no(node));
            };
            let (left_made_up, right_made_up) = made_up(join_type);
            let forgets = |(place, input): (usize, &&Arc<dyn ExecutionPlan>)| {
                let made_up = if place == 0 { left_made_up } else { right_made_up };
                let constants = !input.equivalence_properties().constants().is_empty();
                // The left side is built.
                (made_up && constants) || (place == 0 && input.output_ordering().is_some())
            };
            let children = node.children();
            let forgotten: Vec<bool> = children.iter().enumerate().map(forgets).collect();
            if !forgotten.contains(&true) {
                return Ok(Transformed::no(node));
            }
            let children = children.into_iter().zip(forgotten).map(|(input, forgotten)| {
                let input = Arc::clone(input);
                if forgotten { Arc::new(UnorderedExec::new(input)) as _ } else { input }
            });
            let children = children.collect();
            Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
        })
        .map(|plan| plan.data)
    }

    fn name(&self) -> &str {
        "join_orders"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether rows of the left and of the right side are made up of NULLs.
fn made_up(join_type: JoinType) -> (bool, bool) {
    match join_type {
        JoinType::Left => (false, true),
        JoinType::Right => (true, false),
        JoinType::Full => (true, true),
        _ => (false, false),
    }
}

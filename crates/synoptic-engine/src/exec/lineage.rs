//! Which columns of which scans a filter is about that an operator makes while it runs.
//!
//! DataFusion hands such a filter down by the names of its columns, and where an operator has two
//! columns of one name (`a.id` and `b.id`) it takes the first: rows of `a` would be dropped by keys
//! that `b` must have. Here every column is followed by its place. A scan uses a filter only when
//! it was given it and it is found here, in the columns that are found here.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::buffer::BufferExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;

use super::remote_scan::RemoteScanExec;
use super::unordered::UnorderedExec;

/// Filters by the scan they are for, in the scan's own columns.
pub(super) type Found = HashMap<usize, Vec<Arc<dyn PhysicalExpr>>>;

/// Follows every filter that an operator of `plan` makes down to the scans.
pub(super) fn found(plan: &Arc<dyn ExecutionPlan>) -> Result<Found> {
    let mut found = Found::new();
    plan.apply(|node| {
        // A join filters its probe side by what it has built of the other.
        let below = match node.as_ref().downcast_ref::<HashJoinExec>() {
            Some(join) => Some(join.right()),
            None => node.children().first().copied(),
        };
        if let Some(below) = below {
            for filter in node.dynamic_expressions_produced() {
                let columns = filter.children().into_iter().map(Arc::clone).collect();
                follow(below, &filter, columns, &mut found)?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// `columns` are what `filter` is over, in the columns of `node`.
fn follow(
    node: &Arc<dyn ExecutionPlan>,
    filter: &Arc<dyn PhysicalExpr>,
    columns: Vec<Arc<dyn PhysicalExpr>>,
    found: &mut Found,
) -> Result<()> {
    let plan = node.as_ref();
    if let Some(scan) = plan.downcast_ref::<RemoteScanExec>() {
        if scan.is_offered(filter) {
            let schema = scan.schema();
            let named = |index: usize| {
                let field = schema.fields().get(index)?;
                Some(Arc::new(Column::new(field.name(), index)) as Arc<dyn PhysicalExpr>)
            };
            if let Some(columns) = replaced(&columns, named)? {
                let filter = Arc::clone(filter).with_new_children(columns)?;
                found.entry(scan.identity()).or_default().push(filter);
            }
        }
        return Ok(());
    }
    if let Some(union) = plan.downcast_ref::<UnionExec>() {
        for input in union.inputs() {
            follow(input, filter, columns.clone(), found)?;
        }
        return Ok(());
    }
    let below = |index: usize| Arc::new(Column::new("", index)) as Arc<dyn PhysicalExpr>;
    let (child, columns) = if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let left = join.left().schema().fields().len();
        let (left_side, right_side) = kept_sides(*join.join_type());
        let output = |index: usize| match &join.projection {
            Some(projection) => projection.get(index).copied(),
            None => Some(index),
        };
        let only_right = matches!(
            join.join_type(),
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
        );
        let first_right = if only_right { 0 } else { left };
        let of_left = |index: usize| {
            output(index).filter(|i| left_side && !only_right && *i < left).map(below)
        };
        let of_right = |index: usize| {
            let right = join.right().schema().fields().len();
            let place = output(index).filter(|_| right_side)?.checked_sub(first_right)?;
            Some(place).filter(|i| *i < right).map(below)
        };
        match replaced(&columns, of_left)? {
            Some(columns) => (join.left(), Some(columns)),
            None => (join.right(), replaced(&columns, of_right)?),
        }
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let computed = |index: usize| projection.expr().get(index).map(|p| Arc::clone(&p.expr));
        (projection.input(), replaced(&columns, computed)?)
    } else if let Some(condition) = plan.downcast_ref::<FilterExec>() {
        let passing = |index: usize| match condition.projection() {
            Some(projection) => projection.get(index).copied().map(below),
            None => Some(below(index)),
        };
        (condition.input(), replaced(&columns, passing)?)
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr();
        // A grouping set has NULL for the keys of the others.
        let one = groups.groups().len() == 1 && !groups.is_true_no_grouping();
        let key =
            |index: usize| groups.expr().get(index).filter(|_| one).map(|(key, _)| Arc::clone(key));
        (aggregate.input(), replaced(&columns, key)?)
    } else if is_passing(node) {
        let children = node.children();
        let [child] = children.as_slice() else { return Ok(()) };
        return follow(child, filter, columns, found);
    } else {
        return Ok(());
    };
    match columns {
        Some(columns) => follow(child, filter, columns, found),
        None => Ok(()),
    }
}

/// The sides of which a join yields no row that was not there, and the columns of which it has.
fn kept_sides(join: JoinType) -> (bool, bool) {
    match join {
        JoinType::Inner => (true, true),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
            (true, false)
        }
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            (false, true)
        }
        JoinType::Full => (false, false),
    }
}

/// Whether an operator yields the columns of its only input as they are.
fn is_passing(node: &Arc<dyn ExecutionPlan>) -> bool {
    let plan = node.as_ref();
    plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<SortPreservingMergeExec>()
        || plan.is::<SortExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<UnorderedExec>()
        || plan.is::<BufferExec>()
}

/// `exprs` with every column replaced; `None` when one has no place below.
fn replaced(
    exprs: &[Arc<dyn PhysicalExpr>],
    by: impl Fn(usize) -> Option<Arc<dyn PhysicalExpr>>,
) -> Result<Option<Vec<Arc<dyn PhysicalExpr>>>> {
    let mut all = true;
    let mut done = Vec::with_capacity(exprs.len());
    for expr in exprs {
        let replaced = Arc::clone(expr).transform_down(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            Ok(match by(column.index()) {
                Some(column) => Transformed::new(column, true, TreeNodeRecursion::Jump),
                None => {
                    all = false;
                    Transformed::new(expr, false, TreeNodeRecursion::Stop)
                }
            })
        })?;
        done.push(replaced.data);
    }
    Ok(all.then_some(done))
}

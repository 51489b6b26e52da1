//! The first rows of an order, where partitions have constants of their own.
//!
//! Under a merge of sorted partitions, DataFusion keeps only the first rows of each, and lets the
//! partitions share a threshold: a row behind what one of them has kept need not be kept by the
//! others. It also leaves a column out of a partition's order that is constant there, as in the
//! branches of `SELECT 1 AS a, x … UNION ALL SELECT 2, y … ORDER BY a, x LIMIT 3`. Together that
//! drops rows: a threshold on `x` alone says nothing of a branch with a smaller `a`.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;

/// Makes partitions sort all their rows when they leave out a column that the merge above orders
/// by; the merge then takes the first ones.
pub(crate) fn keeping_first_rows(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let keeping = plan.transform_up(|node| {
        let Some(merge) = node.as_ref().downcast_ref::<SortPreservingMergeExec>() else {
            return Ok(Transformed::no(node));
        };
        let columns = merge.expr().len();
        let fetch = merge.fetch();
        let Some(input) = sorting_all(merge.input(), columns)? else {
            return Ok(Transformed::no(node));
        };
        let merge = SortPreservingMergeExec::new(merge.expr().clone(), input).with_fetch(fetch);
        Ok(Transformed::yes(Arc::new(merge) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(keeping.data)
}

/// `plan` with the sort of fewer than `columns` columns in it sorting everything; `None` when there
/// is no such sort of several partitions on the way down from the merge.
fn sorting_all(
    plan: &Arc<dyn ExecutionPlan>,
    columns: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(sort) = plan.as_ref().downcast_ref::<SortExec>() {
        let shares = sort.fetch().is_some() && sort.preserve_partitioning();
        let all = || Arc::new(sort.with_fetch(None)) as Arc<dyn ExecutionPlan>;
        return Ok((shares && sort.expr().len() < columns).then(all));
    }
    match plan.children().as_slice() {
        [child] => match sorting_all(child, columns)? {
            Some(child) => {
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                Ok(Some(Arc::clone(plan).replace_children(vec![child], options)?))
            }
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

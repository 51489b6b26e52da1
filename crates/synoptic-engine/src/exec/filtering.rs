//! Rows are filtered before anything is computed of them.
//!
//! DataFusion moves a projection below a filter where that leaves fewer columns. What the projection
//! computes is then computed of rows that the filter drops, and an overflow in one of them fails a
//! statement that never asked for it: `SELECT date_trunc('hour', t) FROM x WHERE t < '2100-01-01'`.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

/// Puts every filter below the projection that computes what it does not ask for.
pub(crate) fn filtering_first(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let first = plan.transform_down(|node| {
        let swapped = swapped(node.as_ref())?;
        Ok(swapped.map_or_else(|| Transformed::no(node), Transformed::yes))
    })?;
    Ok(first.data)
}

fn swapped(node: &dyn ExecutionPlan) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(None) };
    let Some(projection) = filter.input().as_ref().downcast_ref::<ProjectionExec>() else {
        return Ok(None);
    };
    let computed = projection.expr();
    if computed.iter().all(|one| one.expr.is::<Column>()) {
        return Ok(None);
    }
    let Some(predicate) = below(filter.predicate(), computed)? else { return Ok(None) };
    let filtered = FilterExecBuilder::new(predicate, Arc::clone(projection.input()))
        .with_default_selectivity(filter.default_selectivity())
        .with_batch_size(filter.batch_size())
        .with_fetch(filter.fetch())
        .build()?;
    let shown: Vec<ProjectionExpr> = match filter.projection() {
        Some(kept) => kept.iter().filter_map(|index| computed.get(*index)).cloned().collect(),
        None => computed.to_vec(),
    };
    Ok(Some(Arc::new(ProjectionExec::try_new(shown, Arc::new(filtered))?)))
}

/// `predicate` over what the projection reads; `None` when it asks for something that is computed.
fn below(
    predicate: &Arc<dyn PhysicalExpr>,
    computed: &[ProjectionExpr],
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    let mut possible = true;
    let moved = Arc::clone(predicate).transform_up(|expr| {
        let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
        match computed.get(column.index()).filter(|one| one.expr.is::<Column>()) {
            Some(one) => Ok(Transformed::yes(Arc::clone(&one.expr))),
            None => {
                possible = false;
                Ok(Transformed::no(expr))
            }
        }
    })?;
    Ok(possible.then_some(moved.data))
}

//! Orders keep all that they are by.
//!
//! DataFusion's rule that leaves out expressions which are there twice also leaves out what rows are
//! ordered by when a key says it, even a key that is NULL in many rows above an outer join, and says
//! nothing there. Here it only sees to groups.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// DataFusion's rule of this name, without orders.
#[derive(Debug)]
pub(crate) struct GroupsOnce(EliminateDuplicatedExpr);

impl GroupsOnce {
    /// What it takes the place of.
    pub(crate) const NAME: &str = "eliminate_duplicated_expr";

    pub(crate) fn new() -> Self {
        Self(EliminateDuplicatedExpr::new())
    }
}

impl OptimizerRule for GroupsOnce {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Sort(_) => Ok(Transformed::no(plan)),
            plan => self.0.rewrite(plan, config),
        }
    }
}

//! The two sides of a join's equality are of one type.
//!
//! DataFusion sees to that when a query is analysed. But a subquery's reference to a column of the
//! outer query keeps the type the column had before, when the branches of a union were given one
//! type; as the key of the join that the subquery becomes, it is then compared with another type.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{ExprSchemable, Join, LogicalPlan};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercionRewriter;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// Gives the keys of joins one type. It must stand after the rules that make joins of subqueries.
#[derive(Debug)]
pub(crate) struct JoinTypes;

impl OptimizerRule for JoinTypes {
    fn name(&self) -> &str {
        "join_types"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Join(join) if differ(&join) => {
                let schema = Arc::clone(&join.schema);
                TypeCoercionRewriter::new(&schema).coerce_join(join).map(Transformed::yes)
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

fn differ(join: &Join) -> bool {
    join.on.iter().any(|(left, right)| {
        let types = (left.get_type(join.left.schema()), right.get_type(join.right.schema()));
        matches!(types, (Ok(left), Ok(right)) if left != right)
    })
}

//! A floating-point number beside a decimal makes floating-point, as in PostgreSQL.
//!
//! Literals with a point are decimals here, so that money stays exact. Left alone, DataFusion would
//! then turn a *column* of doubles into decimals to compare it with `0.1`, which fails for NaN and
//! large values and makes 0.30000000000000004 equal to 0.3.

use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;

/// Sees to operators while they are planned, so that types are right from the start.
#[derive(Debug)]
pub(crate) struct FloatOperators;

impl ExprPlanner for FloatOperators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = match (kind(&left, schema), kind(&right, schema)) {
            (Kind::Float, Kind::Decimal) => (left, float(right)),
            (Kind::Decimal, Kind::Float) => (float(left), right),
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// Sees to BETWEEN and IN, before DataFusion makes their types agree.
#[derive(Debug)]
pub(crate) struct FloatConditions;

impl AnalyzerRule for FloatConditions {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|expr| Ok(condition(expr, &schema)))?;
                Ok(changed.update_data(|expr| name.restore(expr)))
            })
        })
        .map(|plan| plan.data)
    }

    fn name(&self) -> &str {
        "float_conditions"
    }
}

fn condition(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::Between(between) if kind(&between.expr, schema) == Kind::Float => {
            let Between { expr, negated, low, high } = between;
            let (low, high) = (floated(*low, schema), floated(*high, schema));
            Transformed::yes(Expr::Between(Between {
                expr,
                negated,
                low: Box::new(low),
                high: Box::new(high),
            }))
        }
        Expr::InList(list) if kind(&list.expr, schema) == Kind::Float => {
            let InList { expr, list, negated } = list;
            let list = list.into_iter().map(|item| floated(item, schema)).collect();
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        other => Transformed::no(other),
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    Float,
    Decimal,
    Other,
}

fn kind(expr: &Expr, schema: &DFSchema) -> Kind {
    match expr.get_type(schema) {
        Ok(DataType::Float16 | DataType::Float32 | DataType::Float64) => Kind::Float,
        Ok(DataType::Decimal128(..) | DataType::Decimal256(..)) => Kind::Decimal,
        _ => Kind::Other,
    }
}

fn floated(expr: Expr, schema: &DFSchema) -> Expr {
    if kind(&expr, schema) == Kind::Decimal { float(expr) } else { expr }
}

/// A decimal as a double; a literal becomes the double nearest to its text.
fn float(expr: Expr) -> Expr {
    let text = match &expr {
        Expr::Literal(ScalarValue::Decimal128(Some(value), precision, scale), _) => {
            Some(Decimal128Type::format_decimal(*value, *precision, *scale))
        }
        Expr::Literal(ScalarValue::Decimal256(Some(value), precision, scale), _) => {
            Some(Decimal256Type::format_decimal(*value, *precision, *scale))
        }
        _ => None,
    };
    match text.and_then(|text| text.parse::<f64>().ok()) {
        Some(value) => Expr::Literal(ScalarValue::Float64(Some(value)), None),
        None => cast(expr, DataType::Float64),
    }
}

//! A floating-point number beside a decimal makes floating-point, as in PostgreSQL.
//!
//! Literals with a point are decimals here, so that money stays exact. Left alone, DataFusion would
//! then turn a *column* of doubles into decimals to compare it with `0.1`, which fails for NaN and
//! large values and makes 0.30000000000000004 equal to 0.3.

use std::sync::Arc;

use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, DecimalType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, Case, InList, InSubquery, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Union, cast,
};
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

/// Sees to everything else that brings two values to one type, before DataFusion does.
#[derive(Debug)]
pub(crate) struct FloatConditions;

impl AnalyzerRule for FloatConditions {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|expr| together(expr, &schema))?;
                Ok(changed.update_data(|expr| name.restore(expr)))
            })?
            .transform_data(rows_together)
        })
        .map(|plan| plan.data)
    }

    fn name(&self) -> &str {
        "float_conditions"
    }
}

/// Functions whose arguments and result are of one type.
const OF_ONE_TYPE: [&str; 6] = ["coalesce", "nullif", "greatest", "least", "nvl", "ifnull"];

fn together(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let changed = match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(op, Operator::IsDistinctFrom | Operator::IsNotDistinctFrom) =>
        {
            let [left, right] = alike([*left, *right], schema);
            Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let [expr, low, high] = alike([*expr, *low, *high], schema).map(Box::new);
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut all = alike_list([vec![*expr], list].concat(), schema);
            let expr = Box::new(all.remove(0));
            Expr::InList(InList { expr, list: all, negated })
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let found = subquery.subquery.schema().field(0).data_type().clone();
            match (kind(&expr, schema), kind_of(&found)) {
                (Kind::Decimal, Kind::Float) => {
                    let expr = Box::new(float(*expr));
                    Expr::InSubquery(InSubquery { expr, subquery, negated })
                }
                (Kind::Float, Kind::Decimal) => {
                    let plan = floating(Arc::clone(&subquery.subquery), &[true])?;
                    let subquery = subquery.with_plan(plan);
                    Expr::InSubquery(InSubquery { expr, subquery, negated })
                }
                _ => {
                    let same = Expr::InSubquery(InSubquery { expr, subquery, negated });
                    return Ok(Transformed::no(same));
                }
            }
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let (whens, thens): (Vec<_>, Vec<_>) =
                when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
            // Without a value, WHEN is a condition.
            let mut whens = alike_list(expr.map(|e| *e).into_iter().chain(whens).collect(), schema);
            let expr = (whens.len() > thens.len()).then(|| Box::new(whens.remove(0)));
            let branches = thens.len();
            let mut thens =
                alike_list(thens.into_iter().chain(else_expr.map(|e| *e)).collect(), schema);
            let else_expr = (thens.len() > branches).then(|| thens.pop()).flatten().map(Box::new);
            let pairs = whens.into_iter().zip(thens);
            let when_then_expr = pairs.map(|(w, t)| (Box::new(w), Box::new(t))).collect();
            Expr::Case(Case { expr, when_then_expr, else_expr })
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if OF_ONE_TYPE.contains(&func.name()) =>
        {
            let args = alike_list(args, schema);
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(changed))
}

/// The branches of a union, and the keys of a join, which USING and EXCEPT make too.
fn rows_together(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Union(mut union) => {
            let columns = union.inputs.iter().map(|i| i.schema().fields().len()).min().unwrap_or(0);
            let of = |kind: Kind| -> Vec<bool> {
                let has = |at: usize| {
                    let mut types = union.inputs.iter().map(|i| i.schema().field(at).data_type());
                    types.any(|data_type| kind_of(data_type) == kind)
                };
                (0..columns).map(has).collect()
            };
            let pairs = of(Kind::Float).into_iter().zip(of(Kind::Decimal));
            let mixed: Vec<bool> = pairs.map(|(float, decimal)| float && decimal).collect();
            if !mixed.contains(&true) {
                return Ok(Transformed::no(LogicalPlan::Union(union)));
            }
            for input in &mut union.inputs {
                *input = floating(Arc::clone(input), &mixed)?;
            }
            let union = Union::try_new_with_loose_types(union.inputs)?;
            Ok(Transformed::yes(LogicalPlan::Union(union)))
        }
        LogicalPlan::Join(mut join) => {
            let mut changed = false;
            for (left, right) in &mut join.on {
                match (kind(left, join.left.schema()), kind(right, join.right.schema())) {
                    (Kind::Float, Kind::Decimal) => *right = float(right.clone()),
                    (Kind::Decimal, Kind::Float) => *left = float(left.clone()),
                    _ => continue,
                }
                changed = true;
            }
            Ok(Transformed::new_transformed(LogicalPlan::Join(join), changed))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The plan with decimals as doubles in the columns marked so, under the same names.
fn floating(plan: Arc<LogicalPlan>, marked: &[bool]) -> Result<Arc<LogicalPlan>> {
    let columns = plan.schema().columns();
    let schema = Arc::clone(plan.schema());
    let selected = columns.into_iter().enumerate().map(|(at, column)| {
        let wanted = marked.get(at) == Some(&true);
        let (relation, name) = (column.relation.clone(), column.name.clone());
        let column = Expr::Column(column);
        match wanted && kind(&column, &schema) == Kind::Decimal {
            true => float(column).alias_qualified(relation, name),
            false => column,
        }
    });
    let selected: Vec<_> = selected.collect();
    Ok(Arc::new(LogicalPlanBuilder::from(plan).project(selected)?.build()?))
}

fn alike<const N: usize>(values: [Expr; N], schema: &DFSchema) -> [Expr; N] {
    match values.iter().any(|value| kind(value, schema) == Kind::Float) {
        true => values.map(|value| floated(value, schema)),
        false => values,
    }
}

fn alike_list(values: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    match values.iter().any(|value| kind(value, schema) == Kind::Float) {
        true => values.into_iter().map(|value| floated(value, schema)).collect(),
        false => values,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Decimal,
    Other,
}

fn kind(expr: &Expr, schema: &DFSchema) -> Kind {
    expr.get_type(schema).map_or(Kind::Other, |data_type| kind_of(&data_type))
}

fn kind_of(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Float,
        DataType::Decimal128(..) | DataType::Decimal256(..) => Kind::Decimal,
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

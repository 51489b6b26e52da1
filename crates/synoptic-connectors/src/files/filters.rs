//! What may be done with a filter before a file is opened.

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator, Volatility};
use datafusion::physical_expr::expressions::{
    Column as PhysicalColumn, DynamicFilterPhysicalExpr, InListExpr,
};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, conjunction, create_physical_expr};
use std::sync::Arc;
use synoptic_source::Pushdown;
use synoptic_types::Reason;

use super::format::Format;
use super::members::Members;
use super::nan::has_float;
use super::source::FilesTable;

/// What the source does with `filter`.
pub fn classify(table: &FilesTable, filter: &Expr) -> Pushdown {
    if let Some(reason) = not_deterministic(filter) {
        return Pushdown::No(reason);
    }
    let columns = filter.column_refs();
    if columns.is_empty() {
        return Pushdown::No(Reason::NotCapable("a filter without columns".to_owned()));
    }
    if let Some(unknown) = columns.iter().find(|c| table.schema.index_of(&c.name).is_err()) {
        return Pushdown::No(Reason::NotCapable(format!("the unknown column {}", unknown.name)));
    }
    if computes(filter) {
        return Pushdown::No(Reason::DifferentMeaning(
            "arithmetic that overflows is an error only in the engine".to_owned(),
        ));
    }
    if columns.iter().all(|column| table.is_partition(&column.name)) {
        return Pushdown::Exact;
    }
    if table.format != Format::Parquet {
        return Pushdown::No(Reason::NotCapable(format!("filters inside {} files", table.format)));
    }
    if !nan_safe(filter, &table.schema) {
        return Pushdown::No(Reason::DifferentMeaning(
            "Parquet statistics leave NaN out, so they cannot decide this comparison".to_owned(),
        ));
    }
    Pushdown::Inexact(Reason::PruningOnly)
}

/// Whether all columns of `filter` are partition columns, so that it is decided by file list.
pub fn is_exact(table: &FilesTable, filter: &Expr) -> bool {
    matches!(classify(table, filter), Pushdown::Exact)
}

/// Makes `filters` one condition over all columns of the table; `None` when there are none.
pub fn physical(
    filters: &[&Expr],
    schema: &Arc<Schema>,
) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
    let df_schema = DFSchema::try_from(Arc::clone(schema))?;
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let exprs = filters
        .iter()
        .map(|filter| create_physical_expr(filter, &df_schema, &props, &context))
        .collect::<DfResult<Vec<_>>>()?;
    Ok((!exprs.is_empty()).then(|| conjunction(exprs)))
}

/// What joins have found out, as one condition over the columns of `schema`.
pub fn of_joins(condition: &Expr, schema: &Arc<Schema>) -> DfResult<Arc<dyn PhysicalExpr>> {
    let physical = physical(&[condition], schema)?;
    let physical = physical.ok_or_else(|| DataFusionError::Internal("no condition".to_owned()))?;
    moved(physical, &mut |column| Some(column.clone()))
}

/// Whether a dynamic filter has got a list of keys, which is a join's and complete.
pub fn has_list(filter: &Arc<dyn PhysicalExpr>) -> bool {
    current(filter).is_some()
}

/// What a dynamic filter says now, when that has a list.
fn current(filter: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    let current = filter.downcast_ref::<DynamicFilterPhysicalExpr>()?.current().ok()?;
    let is_list = |expr: &Arc<dyn PhysicalExpr>| Ok(expr.downcast_ref::<InListExpr>().is_some());
    current.exists(is_list).unwrap_or(false).then_some(current)
}

/// Whether `filter` is about floating-point numbers.
pub fn is_of_floats(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let columns = collect_columns(filter);
    columns.iter().any(|column| has_float(schema.field(column.index()).data_type()))
}

/// A dynamic filter over the columns `projection` of the table, made one over all its columns. One
/// that holds a list is a join's and complete, so it is taken as it is; others go on changing while
/// the file is read. `None` when Parquet statistics cannot decide it.
pub fn dynamic(
    filter: &Arc<dyn PhysicalExpr>,
    projection: &[usize],
    schema: &Schema,
) -> Option<Arc<dyn PhysicalExpr>> {
    let mut usable = true;
    let moved = moved(current(filter).unwrap_or_else(|| Arc::clone(filter)), &mut |column| {
        let index = projection.get(column.index()).copied()?;
        let field = schema.fields().get(index)?;
        usable &= !has_float(field.data_type());
        Some(PhysicalColumn::new(field.name(), index))
    });
    moved.ok().filter(|_| usable)
}

/// `expr` over other columns. Long lists in it become one expression each.
fn moved(
    expr: Arc<dyn PhysicalExpr>,
    target: &mut dyn FnMut(&PhysicalColumn) -> Option<PhysicalColumn>,
) -> DfResult<Arc<dyn PhysicalExpr>> {
    let moved = expr.transform_down(|expr| {
        if let Some(members) = Members::of(&expr, |inner| moved(Arc::clone(inner), target))? {
            return Ok(Transformed::new(Arc::new(members), true, TreeNodeRecursion::Jump));
        }
        let Some(column) = expr.downcast_ref::<PhysicalColumn>() else {
            return Ok(Transformed::no(expr));
        };
        let Some(target) = target(column) else {
            return Err(DataFusionError::Internal(format!("{column} is not read")));
        };
        Ok(Transformed::new(Arc::new(target), true, TreeNodeRecursion::Jump))
    });
    moved.map(|moved| moved.data)
}

fn not_deterministic(filter: &Expr) -> Option<Reason> {
    let mut reason = None;
    let visited = filter.apply(|expr| {
        reason = match expr {
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some(Reason::Volatile(call.func.name().to_owned()))
            }
            Expr::ScalarSubquery(_)
            | Expr::InSubquery(_)
            | Expr::Exists(_)
            | Expr::OuterReferenceColumn(..)
            | Expr::AggregateFunction(_)
            | Expr::WindowFunction(_)
            | Expr::Placeholder(_)
            | Expr::ScalarVariable(..)
            | Expr::Unnest(_) => {
                Some(Reason::NotCapable(format!("{} in a filter", expr.variant_name())))
            }
            _ => None,
        };
        Ok(if reason.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match visited {
        Ok(_) => reason,
        Err(error) => Some(Reason::NotCapable(error.strip_backtrace())),
    }
}

/// Whether `filter` computes with numbers: here that would wrap where the engine fails.
fn computes(filter: &Expr) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    let found = filter.exists(|expr| {
        Ok(match expr {
            Expr::Negative(_) => true,
            Expr::BinaryExpr(BinaryExpr { op, .. }) => {
                matches!(op, Plus | Minus | Multiply | Divide | Modulo)
            }
            _ => false,
        })
    });
    found.unwrap_or(true)
}

/// Whether statistics that leave NaN out still never drop a row the filter keeps. There is one NaN
/// here, above every number (see `nan`): so `x > 1` keeps it, and a row group whose numbers end at
/// 1 may hold it; `x < 1`, `x = 1` and `x BETWEEN 0.5 AND 1` never do.
fn nan_safe(filter: &Expr, schema: &Schema) -> bool {
    let is_float = |expr: &Expr| match expr {
        Expr::Column(column) => {
            schema.field_with_name(&column.name).is_ok_and(|f| f.data_type().is_floating())
        }
        _ => false,
    };
    let touches_float = filter
        .column_refs()
        .iter()
        .any(|c| schema.field_with_name(&c.name).is_ok_and(|f| has_float(f.data_type())));
    if !touches_float {
        return true;
    }
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            nan_safe(left, schema) && nan_safe(right, schema)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Eq | Operator::Lt | Operator::LtEq => is_float(left) && is_number(right),
            Operator::Gt | Operator::GtEq => is_number(left) && is_float(right),
            _ => false,
        },
        Expr::Between(Between { expr, negated: false, low, high }) => {
            is_float(expr) && is_number(low) && is_number(high)
        }
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => is_float(inner),
        Expr::InList(list) if !list.negated => {
            is_float(&list.expr) && list.list.iter().all(is_number)
        }
        _ => false,
    }
}

/// A literal that statistics order as the engine does: not NaN, and not zero, whose two signs
/// writers mix.
fn is_number(expr: &Expr) -> bool {
    let number = match expr {
        Expr::Literal(ScalarValue::Float64(Some(number)), _) => *number,
        Expr::Literal(ScalarValue::Float32(Some(number)), _) => f64::from(*number),
        _ => return false,
    };
    !number.is_nan() && number != 0.0
}

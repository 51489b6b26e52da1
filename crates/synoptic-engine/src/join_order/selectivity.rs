//! Which part of a relation's rows a condition keeps. Pure; it steers plans, never answers.
//!
//! Where nothing is known the shares are those PostgreSQL's planner assumes.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

const EQUAL: f64 = 0.005;
const RANGE: f64 = 1.0 / 3.0;
const LIKE: f64 = 0.1;
const OTHER: f64 = 0.25;
/// The least share of a column's values that a range on both sides keeps.
const NARROWEST: f64 = 1e-4;

/// What is known of a column's values.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Values {
    /// How many different ones there are, before any filter: what filters leave of a domain still
    /// meets as many partners in another table.
    pub distinct: Option<f64>,
    /// Which part is NULL.
    pub nulls: Option<f64>,
    /// The least and the greatest.
    pub span: Option<(f64, f64)>,
    /// Of the column as it is stored; a span compares only with literals of this type.
    pub data_type: Option<DataType>,
}

/// The share of rows for which `condition` is true, at most 1.
pub(super) fn selectivity(condition: &Expr, values: &dyn Fn(&Column) -> Option<Values>) -> f64 {
    let mut share = 1.0;
    let mut ranges: Vec<(&Column, f64)> = Vec::new();
    for part in split_conjunction(condition) {
        let Some((column, kept)) = range(part, values) else {
            share *= one(part, values);
            continue;
        };
        match ranges.iter_mut().find(|(other, _)| *other == column) {
            // From and to: what each cuts off, not the product.
            Some((_, known)) => *known = (*known + kept - 1.0).max(NARROWEST),
            None => ranges.push((column, kept)),
        }
    }
    (share * ranges.into_iter().map(|(_, kept)| kept).product::<f64>()).clamp(0.0, 1.0)
}

fn one(condition: &Expr, values: &dyn Fn(&Column) -> Option<Values>) -> f64 {
    let known = |expr: &Expr| column(expr).and_then(values);
    let nulls = |expr: &Expr| known(expr).and_then(|values| values.nulls);
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::Or => {
                let (a, b) = (selectivity(left, values), selectivity(right, values));
                a + b - a * b
            }
            Operator::Eq => equal(left, right, values),
            Operator::NotEq => 1.0 - equal(left, right, values),
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => RANGE,
            _ => OTHER,
        },
        Expr::Not(inner) => 1.0 - selectivity(inner, values),
        Expr::IsNull(inner) => nulls(inner).unwrap_or(EQUAL),
        Expr::IsNotNull(inner) => 1.0 - nulls(inner).unwrap_or(EQUAL),
        Expr::InList(list) => {
            let each = known(&list.expr).and_then(|values| values.distinct);
            let each = each.map_or(EQUAL, |distinct| 1.0 / distinct.max(1.0));
            let any = (each * list.list.len() as f64).min(1.0);
            if list.negated { 1.0 - any } else { any }
        }
        Expr::Like(like) => match like.negated {
            true => 1.0 - LIKE,
            false => LIKE,
        },
        Expr::Between(Between { negated, .. }) => match negated {
            true => 1.0 - RANGE * RANGE,
            false => RANGE * RANGE,
        },
        Expr::Literal(ScalarValue::Boolean(value), _) => f64::from(u8::from(*value == Some(true))),
        _ => OTHER,
    }
}

fn equal(left: &Expr, right: &Expr, values: &dyn Fn(&Column) -> Option<Values>) -> f64 {
    let distinct = |expr| column(expr).and_then(values).and_then(|values| values.distinct);
    match (distinct(left), distinct(right)) {
        (Some(a), Some(b)) => 1.0 / f64::max(a, b).max(1.0),
        (Some(one), None) | (None, Some(one)) => 1.0 / one.max(1.0),
        (None, None) => EQUAL,
    }
}

/// A comparison of a column whose span is known with a number or a time.
fn range<'a>(
    condition: &'a Expr,
    values: &dyn Fn(&Column) -> Option<Values>,
) -> Option<(&'a Column, f64)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
        (Expr::Literal(literal, _), Expr::Column(column)) => (column, op.swap()?, literal),
        _ => return None,
    };
    let below = match op {
        Operator::Lt | Operator::LtEq => true,
        Operator::Gt | Operator::GtEq => false,
        _ => return None,
    };
    let values = values(column)?;
    let (least, greatest) = values.span?;
    if values.data_type? != literal.data_type() || greatest <= least {
        return None;
    }
    let share = ((number(literal)? - least) / (greatest - least)).clamp(0.0, 1.0);
    let share = if below { share } else { 1.0 - share };
    Some((column, share.max(NARROWEST)))
}

/// A number, or a date or a time as one.
pub(super) fn number(value: &ScalarValue) -> Option<f64> {
    let as_float = |value: &ScalarValue| match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(number)) => number,
        _ => None,
    };
    let data_type = value.data_type();
    let number = match data_type.is_numeric() {
        true => as_float(value)?,
        false if data_type == DataType::Date32 => as_float(&value.cast_to(&DataType::Int32).ok()?)?,
        false if data_type.is_temporal() => as_float(&value.cast_to(&DataType::Int64).ok()?)?,
        false => return None,
    };
    number.is_finite().then_some(number)
}

/// The one column that is compared, whatever type it is cast to.
pub(super) fn column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => column(&cast.expr),
        Expr::Alias(alias) => column(&alias.expr),
        _ => None,
    }
}

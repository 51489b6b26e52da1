//! Which expressions may be computed for rows they were not written for.

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};

/// Functions of the library that answer for every value, by name.
const TOTAL: &[&str] = &[
    "lower",
    "upper",
    "btrim",
    "ltrim",
    "rtrim",
    "coalesce",
    "character_length",
    "nullif",
    "starts_with",
];

/// Whether `expr` yields a value for every row: no error, whatever the row, and always the same.
///
/// A join moved to another place compares rows that a condition elsewhere would have dropped. What
/// can fail on them (`CAST('x' AS int)`, a division, a sum that overflows) must not see them. An
/// allow-list: what is not known to be safe is not.
pub(crate) fn is_safe(expr: &Expr, schema: &DFSchema) -> bool {
    let mut safe = true;
    let walked = expr.apply(|expr| {
        safe &= is_safe_itself(expr, schema);
        Ok(if safe { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    safe && walked.is_ok()
}

fn is_safe_itself(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Case(_) => true,
        // A pattern that comes from a row may be wrong.
        Expr::Like(like) => matches!(like.pattern.as_ref(), Expr::Literal(..)),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::And
            | Operator::Or
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => true,
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide => {
                let types = (binary.left.get_type(schema), binary.right.get_type(schema));
                let (Ok(left), Ok(right)) = types else { return false };
                // IEEE arithmetic has a value for everything.
                (left.is_floating() && right.is_floating()) || has_room(binary.op, &left, &right)
            }
            _ => false,
        },
        Expr::Cast(cast) => cast
            .expr
            .get_type(schema)
            .is_ok_and(|from| keeps_every_value(&from, cast.field.data_type())),
        Expr::ScalarFunction(call) => TOTAL.contains(&call.name()),
        _ => false,
    }
}

/// Whether every result of decimals has a type with as many digits as it may take.
fn has_room(op: Operator, left: &DataType, right: &DataType) -> bool {
    let (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) = (left, right) else {
        return false;
    };
    let [p1, s1, p2, s2] = [i16::from(*p1), i16::from(*s1), i16::from(*p2), i16::from(*s2)];
    let digits = match op {
        Operator::Multiply => p1 + p2 + 1,
        Operator::Plus | Operator::Minus => (p1 - s1).max(p2 - s2) + s1.max(s2) + 1,
        _ => return false,
    };
    digits <= i16::from(DECIMAL128_MAX_PRECISION)
}

/// Whether every value of one type has one in the other.
fn keeps_every_value(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Decimal256, Float32, Float64, LargeUtf8, Utf8, Utf8View};
    let is_text = |t: &DataType| matches!(t, Utf8 | LargeUtf8 | Utf8View);
    let digits = |t: &DataType| match t {
        DataType::Int8 | DataType::UInt8 => Some(3_i16),
        DataType::Int16 | DataType::UInt16 => Some(5),
        DataType::Int32 | DataType::UInt32 => Some(10),
        DataType::Int64 => Some(19),
        DataType::UInt64 => Some(20),
        Decimal128(precision, scale) | Decimal256(precision, scale) => {
            Some(i16::from(*precision) - i16::from(*scale))
        }
        _ => None,
    };
    let scale = |t: &DataType| match t {
        Decimal128(_, scale) | Decimal256(_, scale) => i16::from(*scale),
        _ => 0,
    };
    if from == to || (is_text(from) && is_text(to)) {
        return true;
    }
    match to {
        Float64 => digits(from).is_some() || *from == Float32,
        Decimal128(..) | Decimal256(..) => {
            digits(from).zip(digits(to)).is_some_and(|(from, to)| from <= to)
                && scale(from) <= scale(to)
        }
        _ if to.is_integer() && from.is_integer() => {
            let bits = |t: &DataType| t.primitive_width().unwrap_or(0);
            let signs = to.is_signed_integer()
                && (from.is_signed_integer() || bits(from) < bits(to))
                || to.is_unsigned_integer() && from.is_unsigned_integer();
            signs && bits(from) <= bits(to)
        }
        _ if is_text(to) => from.is_integer() || matches!(from, Date32 | DataType::Boolean),
        _ => false,
    }
}

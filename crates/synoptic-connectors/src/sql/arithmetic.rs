//! Arithmetic where no value the operands can have overflows: at an overflow DataFusion and the
//! source part ways.

use arrow::datatypes::DataType;
use datafusion::logical_expr::Operator;
use synoptic_types::Reason;

use super::value::{Class, Operand};

/// The most digits a decimal has before they are cut off.
const MAX_DIGITS: i64 = 38;

/// `left op right`, for `+`, `-` and `*` on integers and decimals.
pub(crate) fn combine(left: Operand, op: Operator, right: Operand) -> Result<Operand, Reason> {
    let (class, data_type) = match (left.class, right.class) {
        _ if left.literal.is_some() && right.literal.is_some() => {
            return Err(Reason::NotOnAllowList("arithmetic on literals alone".to_owned()));
        }
        (Class::Int { min: a, max: b }, Class::Int { min: c, max: d })
            if left.data_type == right.data_type =>
        {
            let ends = match op {
                Operator::Plus => [a + c, b + d, a + c, b + d],
                Operator::Minus => [a - d, b - c, a - d, b - c],
                _ => [a * c, a * d, b * c, b * d],
            };
            (integers(ends, &left.data_type)?, left.data_type.clone())
        }
        (Class::Decimal { digits: p, scale: s }, Class::Decimal { digits: q, scale: t }) => {
            let (p, s, q, t) = (i64::from(p), i64::from(s), i64::from(q), i64::from(t));
            let (digits, scale) = match op {
                Operator::Multiply => (p + q + 1, s + t),
                _ => ((p - s).max(q - t) + s.max(t) + 1, s.max(t)),
            };
            decimals(digits, scale)?
        }
        (class, _) => {
            return Err(Reason::NotOnAllowList(format!("the operator {op} on {}", class.noun())));
        }
    };
    let sql = format!("({} {op} {})", calculable(&left), calculable(&right));
    Ok(Operand::new(sql, class, &data_type))
}

/// `-operand`.
pub(crate) fn negate(operand: Operand) -> Result<Operand, Reason> {
    let class = match operand.class {
        Class::Int { min, max } => integers([-min, -max, -min, -max], &operand.data_type)?,
        class @ Class::Decimal { .. } => class,
        class => return Err(Reason::NotOnAllowList(format!("the negative of {}", class.noun()))),
    };
    let sql = format!("(- {})", calculable(&operand));
    Ok(Operand::new(sql, class, &operand.data_type))
}

/// The operand in the type it is calculated in.
pub(crate) fn calculable(operand: &Operand) -> String {
    match operand.widened_to {
        Some(native) => format!("CAST({} AS {native})", operand.sql),
        None => operand.sql.clone(),
    }
}

/// The class that spans `ends`, when all of it fits the type.
fn integers(ends: [i128; 4], data_type: &DataType) -> Result<Class, Reason> {
    let min = ends.into_iter().fold(i128::MAX, i128::min);
    let max = ends.into_iter().fold(i128::MIN, i128::max);
    match Class::of(data_type) {
        Some(Class::Int { min: least, max: most }) if least <= min && max <= most => {
            Ok(Class::Int { min, max })
        }
        _ => Err(Reason::DifferentMeaning("the arithmetic may overflow".to_owned())),
    }
}

/// A decimal of so many digits, when nothing is cut off.
fn decimals(digits: i64, scale: i64) -> Result<(Class, DataType), Reason> {
    let refused = || Reason::DifferentMeaning("the arithmetic may overflow".to_owned());
    if digits > MAX_DIGITS {
        return Err(refused());
    }
    let precision = u8::try_from(digits).map_err(|_| refused())?;
    let scale = i8::try_from(scale).map_err(|_| refused())?;
    let class = Class::Decimal { digits: u32::from(precision), scale: i32::from(scale) };
    Ok((class, DataType::Decimal128(precision, scale)))
}

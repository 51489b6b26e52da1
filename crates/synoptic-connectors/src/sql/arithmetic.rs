//! Arithmetic on integers and decimals. At an overflow DataFusion and the source part ways, so either
//! no value the operands can have overflows, or the overflow is made an error as it is here.

use arrow::datatypes::DataType;
use datafusion::logical_expr::Operator;
use synoptic_types::Reason;

use super::value::{Class, Operand};

/// The most digits a decimal has before they are cut off.
const MAX_DIGITS: i64 = 38;

/// `left op right`, for `+`, `-` and `*` on integers and decimals. `fails`: decimals that may overflow
/// are rendered so that this is an error; otherwise they are refused.
pub(crate) fn combine(
    left: Operand,
    op: Operator,
    right: Operand,
    fails: bool,
) -> Result<Operand, Reason> {
    let sql = format!("({} {op} {})", calculable(&left), calculable(&right));
    match (left.class, right.class) {
        _ if left.literal.is_some() && right.literal.is_some() => {
            Err(Reason::NotOnAllowList("arithmetic on literals alone".to_owned()))
        }
        (Class::Int { min: a, max: b }, Class::Int { min: c, max: d })
            if left.data_type == right.data_type =>
        {
            let ends = match op {
                Operator::Plus => [a + c, b + d, a + c, b + d],
                Operator::Minus => [a - d, b - c, a - d, b - c],
                _ => [a * c, a * d, b * c, b * d],
            };
            Ok(Operand::new(sql, integers(ends, &left.data_type)?, &left.data_type))
        }
        (Class::Decimal { digits: p, scale: s }, Class::Decimal { digits: q, scale: t }) => {
            let data_type = decimal_type(&left.data_type, op, &right.data_type)?;
            let (p, s, q, t) = (i64::from(p), i64::from(s), i64::from(q), i64::from(t));
            // Not the digits of the types, which grow by one in each step, but of the values.
            let (digits, scale) = match op {
                Operator::Multiply => (p + q, s + t),
                _ => ((p - s).max(q - t) + s.max(t) + 1, s.max(t)),
            };
            if digits <= MAX_DIGITS {
                return Ok(Operand::new(sql, decimal(digits, scale)?, &data_type));
            }
            if !fails {
                return Err(overflow());
            }
            let sql = format!("CAST({sql} AS numeric({MAX_DIGITS},{scale}))");
            Ok(Operand::new(sql, decimal(MAX_DIGITS, scale)?, &data_type))
        }
        (class, _) => Err(Reason::NotOnAllowList(format!("the operator {op} on {}", class.noun()))),
    }
}

/// `left op right` on integers, where an overflow at the source is an error as it is here.
pub(crate) fn failing(left: Operand, op: Operator, right: Operand) -> Result<Operand, Reason> {
    match combine(left.clone(), op, right.clone(), true) {
        // Narrower ones are calculated in a wider type there.
        Err(Reason::DifferentMeaning(_)) if left.data_type == DataType::Int64 => {
            let sql = format!("({} {op} {})", calculable(&left), calculable(&right));
            let class = Class::of(&left.data_type).ok_or_else(overflow)?;
            Ok(Operand::new(sql, class, &left.data_type))
        }
        other => other,
    }
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
        _ => Err(overflow()),
    }
}

/// The type DataFusion gives `left op right`.
fn decimal_type(left: &DataType, op: Operator, right: &DataType) -> Result<DataType, Reason> {
    let (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) = (left, right) else {
        return Err(Reason::NotOnAllowList(format!("the operator {op} on wide decimals")));
    };
    let (p, s, q, t) = (i64::from(*p), i64::from(*s), i64::from(*q), i64::from(*t));
    let (digits, scale) = match op {
        Operator::Multiply => (p + q + 1, s + t),
        _ => ((p - s).max(q - t) + s.max(t) + 1, s.max(t)),
    };
    let precision = u8::try_from(digits.min(MAX_DIGITS)).map_err(|_| overflow())?;
    let scale = i8::try_from(scale).ok().filter(|s| i64::from(*s) <= MAX_DIGITS);
    Ok(DataType::Decimal128(precision, scale.ok_or_else(overflow)?))
}

fn decimal(digits: i64, scale: i64) -> Result<Class, Reason> {
    let digits = u32::try_from(digits).map_err(|_| overflow())?;
    let scale = i32::try_from(scale).map_err(|_| overflow())?;
    Ok(Class::Decimal { digits, scale })
}

fn overflow() -> Reason {
    Reason::DifferentMeaning("the arithmetic may overflow".to_owned())
}

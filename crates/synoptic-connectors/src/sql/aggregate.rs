//! Aggregates, as PostgreSQL computes them exactly as DataFusion does.
//!
//! Floating-point sums depend on the order and the algorithm and stay in the engine, and so does
//! what is divided in floating point, as the average of integers is.

use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, Operator};
use synoptic_source::Aggregate;
use synoptic_types::Reason;

use super::relation::{Level, key};
use super::value::{Class, Collation, Operand};

/// Digits that the average of a decimal has beyond those of its argument.
const AVERAGE_SCALE: i8 = 4;

/// The engine adds up decimals of so many digits without an overflow when it averages them.
const MOST_AVERAGED_DIGITS: u8 = 25;

/// `call` over the columns of `level`, whose answer has the type `to`. `root`: every answer is
/// read, so that one that cannot be delivered is found.
pub(super) fn render(
    level: &Level<'_>,
    call: &Aggregate,
    to: &DataType,
    root: bool,
) -> Result<Operand, Reason> {
    let filter = match &call.filter {
        Some(filter) => format!(" FILTER (WHERE {})", level.condition(filter)?),
        None => String::new(),
    };
    let distinct = if call.distinct { "DISTINCT " } else { "" };
    let refused = || Reason::NotOnAllowList(format!("{}() of these arguments", call.function));
    let class = Class::of(to).ok_or_else(refused)?;
    let answer = |sql: String| Ok(Operand::new(sql, class, to));

    let arg = match call.args.as_slice() {
        [Expr::Literal(value, _)] if call.function == "count" && !call.distinct => {
            if value.is_null() {
                return Err(refused());
            }
            return answer(format!("count(*){filter}"));
        }
        [arg] => arg,
        _ => return Err(refused()),
    };
    // A NaN among what is added up, or is looked through for its greatest, is the answer.
    let shows = root && passes_nan(arg);
    let guarded = |needed: bool| -> Result<Operand, Reason> {
        let operand = level.computing(needed).operand(arg, 0)?;
        if operand.literal.is_some() { Err(refused()) } else { Ok(operand) }
    };
    let plain = guarded(false)?;
    level.dialect().aggregates(&call.function, plain.class)?;
    if call.distinct {
        key(&plain)?;
    }
    let wrong = |what: &str| {
        Reason::DifferentMeaning(format!("{}() of {what} is computed here", call.function))
    };
    match (call.function.as_str(), plain.class) {
        ("count", Class::Null) => Err(refused()),
        ("count", _) => {
            let x = collated(&guarded(true)?, level);
            answer(format!("count({distinct}{x}){filter}"))
        }
        ("sum", Class::Int { .. }) if *to == DataType::Int64 => {
            // The server adds bigints up as numeric; the cast around it finds what overflows.
            answer(format!("sum({distinct}{}){filter}", plain.sql))
        }
        ("sum", Class::Decimal { .. }) if matches!(to, DataType::Decimal128(..)) => {
            let x = guarded(!shows)?.sql;
            answer(format!("sum({distinct}{x}){filter}"))
        }
        ("avg", Class::Decimal { .. }) if !call.distinct => {
            let scale = match (&plain.data_type, to) {
                (DataType::Decimal128(p, s), DataType::Decimal128(_, scale))
                    if *p <= MOST_AVERAGED_DIGITS && *scale == s + AVERAGE_SCALE =>
                {
                    usize::try_from(*scale).map_err(|_| refused())?
                }
                _ => return Err(wrong("decimals of so many digits")),
            };
            let x = guarded(!shows)?.sql;
            // Cut off, not rounded, after `scale` digits. Multiplying by 0.01 is exact, where
            // dividing by 100 is not.
            answer(format!(
                "(div(sum({x}){filter} * '1{zeros}'::numeric, count({x}){filter}) \
                 * '0.{ones}1'::numeric)",
                zeros = "0".repeat(scale),
                ones = "0".repeat(scale.saturating_sub(1)),
            ))
        }
        (
            "min" | "max",
            Class::Int { .. }
            | Class::Decimal { .. }
            | Class::Text
            | Class::Date
            | Class::Time
            | Class::Timestamp
            | Class::Moment,
        ) => {
            let greatest_is_nan = call.function == "max" && matches!(class, Class::Decimal { .. });
            let x = guarded(!(shows && greatest_is_nan))?;
            let collate = match x.class {
                Class::Text if x.collation != Collation::Binary => level.binary_collation(),
                _ => "",
            };
            answer(format!("{}({}{collate}){filter}", call.function, x.sql))
        }
        ("bool_and" | "bool_or", Class::Bool) => {
            answer(format!("{}({}){filter}", call.function, plain.sql))
        }
        ("sum" | "avg" | "min" | "max" | "bool_and" | "bool_or", class) => Err(wrong(class.noun())),
        (other, _) => Err(Reason::NotOnAllowList(format!("{other}()"))),
    }
}

/// A text the source cannot tell the collation of.
fn collated(operand: &Operand, level: &Level<'_>) -> String {
    match (operand.class, operand.collation) {
        (Class::Text, Collation::Mixed) => {
            format!("{}{}", operand.sql, level.binary_collation())
        }
        _ => operand.sql.clone(),
    }
}

/// Whether one NaN among the columns makes the whole a NaN.
fn passes_nan(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => passes_nan(&alias.expr),
        Expr::Cast(cast) => passes_nan(&cast.expr),
        Expr::Negative(inner) => passes_nan(inner),
        Expr::BinaryExpr(binary) => {
            matches!(binary.op, Operator::Plus | Operator::Minus | Operator::Multiply)
                && passes_nan(&binary.left)
                && passes_nan(&binary.right)
        }
        _ => false,
    }
}

//! `$1`, `$2`, …: which a statement has, what they become, and constants beside them in VALUES.

use arrow::datatypes::DataType;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan};
use datafusion::sql::parser::Statement as DFStatement;
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};
use crate::write::{exact_constant, exact_value};

/// `$1`, `$2`, … with their types; the numbers must have no gap.
pub(super) fn parameters(plan: &LogicalPlan) -> Result<Vec<(String, Option<DataType>)>> {
    let types = plan.get_parameter_types()?;
    let mut parameters = Vec::with_capacity(types.len());
    for number in 1..=types.len() {
        let name = format!("${number}");
        match types.get(&name) {
            Some(data_type) => parameters.push((name, data_type.clone())),
            None => {
                return Err(Error::new(
                    ErrorCode::Syntax,
                    format!(
                        "placeholders must be numbered from $1 without a gap; {name} is missing"
                    ),
                ));
            }
        }
    }
    Ok(parameters)
}

pub(super) fn bind(
    plan: LogicalPlan,
    wanted: &[(String, Option<DataType>)],
    given: &[ScalarValue],
    exactly: bool,
) -> Result<LogicalPlan> {
    if wanted.len() != given.len() {
        return Err(Error::new(
            ErrorCode::InvalidOption,
            format!("the statement has {} parameters and got {}", wanted.len(), given.len()),
        ));
    }
    if wanted.is_empty() {
        return Ok(plan);
    }
    let values = wanted.iter().zip(given).map(|((name, data_type), value)| {
        let cast = match data_type {
            Some(data_type) => match exactly {
                true => exact_value(value, data_type),
                false => value.cast_to(data_type).map_err(|e| e.strip_backtrace()),
            }
            .map_err(|reason| {
                let message = format!("parameter {name} does not fit {data_type}: {reason}");
                Error::new(ErrorCode::Data, message)
            })?,
            None => value.clone(),
        };
        Ok(ScalarAndMetadata::from(cast))
    });
    let values = ParamValues::List(values.collect::<Result<_>>()?);
    Ok(plan.with_param_values(values)?)
}

/// The VALUES of an INSERT whose placeholders have the types of their columns. DataFusion casts
/// the other values to those types, which may round; so they are taken back and converted exactly.
pub(super) async fn typed_values(state: &SessionState, insert: DFStatement) -> Result<LogicalPlan> {
    let other = || {
        Error::new(
            ErrorCode::Unsupported,
            "VALUES of several rows or with placeholders take placeholders and constants only; \
             compute values with INSERT … SELECT",
        )
    };
    let LogicalPlan::Dml(dml) = state.statement_to_plan(insert).await? else { return Err(other()) };
    let LogicalPlan::Projection(projection) = dml.input.as_ref() else { return Err(other()) };
    let LogicalPlan::Values(values) = projection.input.as_ref() else { return Err(other()) };
    let mut values = values.clone();
    for row in &mut values.values {
        for (cell, field) in row.iter_mut().zip(values.schema.fields()) {
            let to = field.data_type();
            let value = match &*cell {
                Expr::Placeholder(_) => continue,
                Expr::Cast(_) | Expr::Literal(..) => constant(cell, true).ok_or_else(other)??,
                computed if computed.get_type(&values.schema)? == *to => continue,
                _ => return Err(other()),
            };
            let exact = exact_constant(&value, to).map_err(|why| {
                let message = format!("INSERT, column {}: {why}", field.name());
                Error::new(ErrorCode::Data, message)
            })?;
            *cell = Expr::Literal(exact, None);
        }
    }
    Ok(LogicalPlan::Values(values))
}

/// The value of a constant within casts; without the outermost one, when it is `peeled`.
fn constant(expr: &Expr, peeled: bool) -> Option<Result<ScalarValue>> {
    match expr {
        Expr::Literal(value, _) => Some(Ok(value.clone())),
        Expr::Cast(cast) => {
            let inner = constant(&cast.expr, false)?;
            if peeled {
                return Some(inner);
            }
            Some(inner.and_then(|value| Ok(value.cast_to(cast.field.data_type())?)))
        }
        _ => None,
    }
}

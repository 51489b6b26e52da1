//! Spellings that the planner does not know or reads otherwise than its users.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, LimitClause, Query, SetExpr, Statement, TopQuantity, Value, VisitMut,
    VisitorMut,
};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

/// Rewrites `FETCH FIRST n ROWS ONLY` and `SELECT TOP n` as `LIMIT n`, and numbers with an exponent
/// as doubles: as decimals, `1e300` would have no type.
///
/// # Errors
/// When they say more than LIMIT can: WITH TIES, PERCENT, or a LIMIT besides.
pub(super) fn spellings(statement: &mut Statement) -> Result<()> {
    match statement.visit(&mut Spellings) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Spellings;

impl VisitorMut for Spellings {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Value(value) = expr
            && let Value::Number(number, _) = &value.value
            && number.contains(['e', 'E'])
        {
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(Expr::value(Value::SingleQuotedString(number.clone()))),
                data_type: DataType::DoublePrecision,
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let Some(fetch) = query.fetch.take() {
            if fetch.with_ties || fetch.percent {
                return ControlFlow::Break(unsupported("FETCH … WITH TIES or PERCENT"));
            }
            let one = || Expr::value(Value::Number("1".to_owned(), false));
            if let Err(error) = limit(query, fetch.quantity.unwrap_or_else(one), "FETCH") {
                return ControlFlow::Break(error);
            }
        }
        let top = match &mut *query.body {
            SetExpr::Select(select) => select.top.take(),
            _ => None,
        };
        if let Some(top) = top {
            let quantity = match top.quantity {
                Some(TopQuantity::Expr(expr)) => expr,
                Some(TopQuantity::Constant(n)) => Expr::value(Value::Number(n.to_string(), false)),
                None => return ControlFlow::Break(unsupported("TOP without a number")),
            };
            if top.with_ties || top.percent {
                return ControlFlow::Break(unsupported("TOP … WITH TIES or PERCENT"));
            }
            if let Err(error) = limit(query, quantity, "TOP") {
                return ControlFlow::Break(error);
            }
        }
        ControlFlow::Continue(())
    }
}

fn limit(query: &mut Query, quantity: Expr, spelling: &str) -> Result<()> {
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(quantity),
                offset: None,
                limit_by: vec![],
            });
            Ok(())
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => {
            *limit = Some(quantity);
            Ok(())
        }
        Some(_) => Err(Error::new(
            ErrorCode::Syntax,
            format!("{spelling} and LIMIT in one query; keep one of them"),
        )),
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorCode::Unsupported, format!("{what} is not supported; use LIMIT n"))
}

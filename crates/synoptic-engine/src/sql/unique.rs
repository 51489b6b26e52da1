//! Columns of one name in one answer: `SELECT 1, 1` is fine in SQL and an error in DataFusion.

use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem, SetExpr, Statement};

const PREFIX: &str = "__synoptic_column_";

/// The statement with every item of its select list named apart, and the names they should have
/// had, in order; `None` when it is not a plain SELECT.
pub(crate) fn named_apart(statement: &DFStatement) -> Option<(DFStatement, Vec<String>)> {
    let DFStatement::Statement(statement) = statement else { return None };
    let mut statement = statement.clone();
    let Statement::Query(query) = &mut *statement else { return None };
    let SetExpr::Select(select) = &mut *query.body else { return None };
    let mut names = Vec::new();
    for item in &mut select.projection {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), default_name(expr)),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), alias.value.clone()),
            _ => continue,
        };
        let alias = Ident::with_quote('"', format!("{PREFIX}{}", names.len()));
        *item = SelectItem::ExprWithAlias { expr, alias };
        names.push(name);
    }
    Some((DFStatement::Statement(statement), names))
}

/// The name a column was given above, as it should have been.
pub(crate) fn shown_name<'a>(column: &'a str, names: &'a [String]) -> &'a str {
    let number = column.strip_prefix(PREFIX).and_then(|n| n.parse::<usize>().ok());
    number.and_then(|n| names.get(n)).map_or(column, String::as_str)
}

fn default_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(idents) => {
            idents.last().map_or_else(|| expr.to_string(), |ident| ident.value.clone())
        }
        other => other.to_string(),
    }
}

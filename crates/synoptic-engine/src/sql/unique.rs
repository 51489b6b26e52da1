//! Columns of one name in one answer: `SELECT 1, 1` is fine in SQL and an error in DataFusion.

use std::collections::HashMap;

use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, OrderByKind, SelectItem, SetExpr, Statement};

const PREFIX: &str = "__synoptic_column_";

/// The statement with the columns of its select list told apart, and the names the renamed ones
/// should have had, in order. `None` when it is not a plain SELECT, or when its ORDER BY names one
/// of two columns that are not the same.
///
/// The first column of a name keeps it: ORDER BY and GROUP BY may mean it. Expressions without a
/// name are all renamed, so that they are shown alike; they are meant by what they say.
pub(crate) fn named_apart(statement: &DFStatement) -> Option<(DFStatement, Vec<String>)> {
    let DFStatement::Statement(statement) = statement else { return None };
    let mut statement = statement.clone();
    let Statement::Query(query) = &mut *statement else { return None };
    let ordered: Vec<String> = match query.order_by.as_ref().map(|order| &order.kind) {
        Some(OrderByKind::Expressions(keys)) => {
            keys.iter().filter_map(|key| column_name(&key.expr)).collect()
        }
        _ => Vec::new(),
    };
    let SetExpr::Select(select) = &mut *query.body else { return None };
    let mut names = Vec::new();
    let mut first: HashMap<String, Expr> = HashMap::new();
    for item in &mut select.projection {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), column_name(expr)),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(folded(alias))),
            _ => continue,
        };
        if let Some(name) = &name {
            match first.get(name) {
                None => {
                    first.insert(name.clone(), expr);
                    continue;
                }
                Some(other) if *other != expr && ordered.contains(name) => return None,
                Some(_) => {}
            }
        }
        let shown = name.unwrap_or_else(|| expr.to_string());
        let alias = Ident::with_quote('"', format!("{PREFIX}{}", names.len()));
        *item = SelectItem::ExprWithAlias { expr, alias };
        names.push(shown);
    }
    Some((DFStatement::Statement(statement), names))
}

/// The name a column was given above, as it should have been.
pub(crate) fn shown_name<'a>(column: &'a str, names: &'a [String]) -> &'a str {
    let number = column.strip_prefix(PREFIX).and_then(|n| n.parse::<usize>().ok());
    number.and_then(|n| names.get(n)).map_or(column, String::as_str)
}

/// The name of a column that is selected as it is.
fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(folded(ident)),
        Expr::CompoundIdentifier(idents) => idents.last().map(folded),
        _ => None,
    }
}

/// A name as SQL means it: in lower case unless it is quoted.
fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

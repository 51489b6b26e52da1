//! UPDATE and DELETE: what of them is honoured. They are planned as the query of the values that
//! are set, over the rows that are changed; nothing of it is run here.
//!
//! As in `refuse.rs`, every struct is taken apart without `..`.

use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Ident, SelectItem, SetExpr, Statement,
    TableFactor, TableWithJoins, Update,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

use super::refuse::named;
use super::versions::version;
use super::write::{RETURNING, column, when};
use super::{Query, honoured};

/// An UPDATE or DELETE.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The columns that are set, in the order of the query's; `None` removes the rows.
    pub(crate) columns: Option<Vec<String>>,
    /// The values that are set, over the rows that are changed.
    pub(crate) query: Query,
    /// Only shown.
    pub(crate) explain: bool,
}

/// The UPDATE or DELETE that `statement` is; `None` when it is another kind of statement.
///
/// # Errors
/// `[UNSUPPORTED]` naming the clause that is not honoured.
pub(super) fn take(statement: &Statement, explain: bool) -> Result<Option<Change>> {
    let (table, selection, values, columns) = match statement {
        Statement::Update(update) => {
            let (table, selection, assignments) = update_of(update)?;
            let columns = assignments.iter().map(assigned).collect::<Result<Vec<_>>>()?;
            let values = assignments.iter().map(|assignment| assignment.value.clone()).collect();
            (table, selection, values, Some(columns))
        }
        Statement::Delete(delete) => {
            let (table, selection) = delete_of(delete)?;
            (
                table,
                selection,
                vec![Expr::value(datafusion::sql::sqlparser::ast::Value::Null)],
                None,
            )
        }
        _ => return Ok(None),
    };
    let TableWithJoins { relation, joins } = table;
    when(!joins.is_empty(), "a join in UPDATE or DELETE")?;
    let TableFactor::Table { name, .. } = relation else {
        return Err(named("UPDATE or DELETE of something other than a table"));
    };
    let last = name.0.last().and_then(|part| part.as_ident());
    when(
        last.is_some_and(|name| version(&name.value).is_some()),
        "UPDATE or DELETE of a table FOR SYSTEM_TIME or VERSION AS OF",
    )?;
    let query = query(table.clone(), selection.cloned(), values)?;
    when(!query.hints.is_empty(), "WITH (…) on the table of UPDATE or DELETE")?;
    Ok(Some(Change { columns, query, explain }))
}

fn update_of(update: &Update) -> Result<(&TableWithJoins, Option<&Expr>, &[Assignment])> {
    let Update {
        update_token: _,
        optimizer_hints,
        table,
        assignments,
        from,
        selection,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    when(!optimizer_hints.is_empty(), "an optimizer hint /*+ … */")?;
    when(from.is_some(), "FROM in UPDATE")?;
    when(returning.is_some(), RETURNING)?;
    when(output.is_some(), "OUTPUT")?;
    when(or.is_some(), "UPDATE OR …")?;
    when(!order_by.is_empty() || limit.is_some(), "ORDER BY or LIMIT in UPDATE")?;
    Ok((table, selection.as_ref(), assignments))
}

fn delete_of(delete: &Delete) -> Result<(&TableWithJoins, Option<&Expr>)> {
    let Delete {
        delete_token: _,
        optimizer_hints,
        tables,
        from,
        using,
        selection,
        returning,
        output,
        order_by,
        limit,
    } = delete;
    when(!optimizer_hints.is_empty(), "an optimizer hint /*+ … */")?;
    when(!tables.is_empty(), "DELETE of several tables")?;
    when(using.is_some(), "USING in DELETE")?;
    when(returning.is_some(), RETURNING)?;
    when(output.is_some(), "OUTPUT")?;
    when(!order_by.is_empty() || limit.is_some(), "ORDER BY or LIMIT in DELETE")?;
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
    match from.as_slice() {
        [table] => Ok((table, selection.as_ref())),
        _ => Err(named("DELETE from several tables")),
    }
}

fn assigned(assignment: &Assignment) -> Result<String> {
    let Assignment { target, value } = assignment;
    let default = matches!(value, Expr::Identifier(Ident { value, quote_style: None, .. })
        if value.eq_ignore_ascii_case("default"));
    when(default, "DEFAULT as a value")?;
    match target {
        AssignmentTarget::ColumnName(name) => column(name, "UPDATE … SET"),
        AssignmentTarget::Tuple(_) => Err(named("SET (…) = (…) (set the columns one by one)")),
    }
}

/// `SELECT values FROM table WHERE selection`.
fn query(table: TableWithJoins, selection: Option<Expr>, values: Vec<Expr>) -> Result<Query> {
    let unexpected = || Error::new(ErrorCode::Internal, "a SELECT that is none");
    let mut parsed = Parser::parse_sql(&GenericDialect, "SELECT 1 FROM t")
        .map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?;
    let mut statement = parsed.pop().ok_or_else(unexpected)?;
    let Statement::Query(query) = &mut statement else { return Err(unexpected()) };
    let SetExpr::Select(select) = &mut *query.body else { return Err(unexpected()) };
    // Equal values need names that are not.
    let value = |(n, expr)| SelectItem::ExprWithAlias {
        expr,
        alias: Ident::with_quote('"', format!("value {n}")),
    };
    select.projection = values.into_iter().enumerate().map(value).collect();
    select.from = vec![table];
    select.selection = selection;
    let hints = honoured(&mut statement)?;
    Ok(Query { statement: DFStatement::Statement(Box::new(statement)), hints, write: None })
}

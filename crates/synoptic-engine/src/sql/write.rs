//! INSERT: what of it is honoured. Its rows are planned as the query they are, so that nothing is
//! cast to a column's type on the way: the rows are converted exactly when they are written.
//!
//! As in `refuse.rs`, every struct is taken apart without `..`.

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Insert, ObjectName, Query, SetExpr, Statement, TableObject, Value,
};
use synoptic_types::ErrorCode;

use crate::error::{Error, Result};

use super::refuse::named;

/// What an INSERT writes.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// The table, as the statement names it.
    pub(crate) target: TableReference,
    /// The columns that are named; none means all.
    pub(crate) columns: Vec<String>,
    /// The whole INSERT, when it is one of several rows of VALUES, or of placeholders: alone they
    /// would be brought to a common type, which may round.
    pub(crate) typed: Option<DFStatement>,
}

/// What `statement` writes, leaving the query of its rows in its place; `None` when it is another
/// kind of statement.
///
/// # Errors
/// `[UNSUPPORTED]` naming the clause that is not honoured.
pub(super) fn take(statement: &mut Statement) -> Result<Option<Box<Write>>> {
    let (mut write, rows) = match statement {
        Statement::Insert(insert) => insert_of(insert)?,
        _ => return Ok(None),
    };
    let whole = std::mem::replace(statement, Statement::Query(rows));
    if needs_types(statement) {
        write.typed = Some(DFStatement::Statement(Box::new(whole)));
    }
    Ok(Some(Box::new(write)))
}

/// Whether the types of VALUES depend on anything but each value.
fn needs_types(statement: &Statement) -> bool {
    let Statement::Query(query) = statement else { return false };
    let SetExpr::Values(values) = &*query.body else { return false };
    let placeholder = |expr: &Expr| matches!(expr, Expr::Value(value) if matches!(value.value, Value::Placeholder(_)));
    values.rows.len() > 1 || values.rows.iter().any(|row| row.content.iter().any(placeholder))
}

pub(super) fn when(present: bool, what: &str) -> Result<()> {
    if present { Err(named(what)) } else { Ok(()) }
}

pub(super) const RETURNING: &str = "RETURNING (read the rows with a SELECT afterwards)";

fn insert_of(insert: &Insert) -> Result<(Write, Box<Query>)> {
    let Insert {
        insert_token: _,
        optimizer_hints,
        or,
        ignore,
        into: _,
        table,
        table_alias,
        columns,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    when(!optimizer_hints.is_empty(), "an optimizer hint /*+ … */")?;
    when(or.is_some(), "INSERT OR …")?;
    when(*ignore, "INSERT IGNORE")?;
    when(table_alias.is_some() || insert_alias.is_some(), "an alias of the table in INSERT")?;
    when(*overwrite, "INSERT OVERWRITE")?;
    when(!assignments.is_empty(), "INSERT … SET")?;
    when(partitioned.is_some() || !after_columns.is_empty(), "INSERT … PARTITION")?;
    when(*has_table_keyword, "INSERT INTO TABLE (write INSERT INTO name)")?;
    when(on.is_some(), "ON CONFLICT and ON DUPLICATE KEY")?;
    when(returning.is_some(), RETURNING)?;
    when(output.is_some(), "OUTPUT")?;
    when(*replace_into, "REPLACE INTO")?;
    when(priority.is_some(), "a priority in INSERT")?;
    when(settings.is_some() || format_clause.is_some(), "SETTINGS or FORMAT in INSERT")?;
    let several = multi_table_insert_type.is_some()
        || !multi_table_into_clauses.is_empty()
        || !multi_table_when_clauses.is_empty()
        || multi_table_else_clause.is_some();
    when(several, "INSERT into several tables")?;
    let source = source
        .as_ref()
        .ok_or_else(|| named("INSERT … DEFAULT VALUES (name a column and give it a value)"))?;
    if let SetExpr::Values(values) = &*source.body {
        let default = |expr: &Expr| {
            matches!(expr, Expr::Identifier(Ident { value, quote_style: None, .. })
                if value.eq_ignore_ascii_case("default"))
        };
        let any = values.rows.iter().any(|row| row.content.iter().any(default));
        when(any, "DEFAULT as a value (leave the column out)")?;
    }
    let TableObject::TableName(name) = table else {
        return Err(named("INSERT into something other than a table"));
    };
    let columns = columns.iter().map(|name| column(name, "INSERT (…)"));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok((Write { target: target(name)?, columns, typed: None }, source.clone()))
}

fn target(name: &ObjectName) -> Result<TableReference> {
    Ok(object_name_to_table_reference(name.clone(), true)?)
}

/// A column's name as SQL means it: in lower case unless it is quoted.
pub(super) fn column(name: &ObjectName, place: &str) -> Result<String> {
    match name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(ident) if ident.quote_style.is_some() => Ok(ident.value.clone()),
            Some(ident) => Ok(ident.value.to_lowercase()),
            None => Err(named("a function as a column")),
        },
        _ => Err(Error::new(
            ErrorCode::Syntax,
            format!("'{name}': write the column's name alone in {place}"),
        )),
    }
}

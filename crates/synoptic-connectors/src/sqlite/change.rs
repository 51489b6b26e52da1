//! UPDATE and DELETE: one transaction, one statement, on a thread that may block.
//!
//! SQLite compares and computes whatever it finds, so before the statement runs every row it will
//! change is looked at, in every column that the conditions and the new values use: what would make
//! a SELECT of these rows fail makes the statement fail.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::params_from_iter;
use rusqlite::types::Value;
use synoptic_source::{
    Assigned, Assignment, BatchStream, Change, ChangeRequest, CommitGate, ErrorKind, Fragment,
    PreparedWrite, Result, SourceError, WriteContext, WriteOutcome,
};
use synoptic_types::{Reason, TableName};

use super::check::{self, Check};
use super::connection::Open;
use super::discover::{self, ColumnDetail, Detail};
use super::filter::compared_columns;
use super::relation::{check_of, name};
use super::snapshot::Shared;
use super::types::Kind;
use super::write::{commit, position, value_of, writable};
use crate::sql::{Dialect as _, SQLITE, render_assigned, render_filter};

/// Instructions of SQLite's machine between two looks at whether the statement was given up.
const STEPS: i32 = 10_000;

/// An UPDATE or DELETE that is ready to run.
#[derive(Debug)]
pub(super) struct SqliteChange {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    table: TableName,
    stamp: String,
    sql: String,
    parameters: Vec<Value>,
    checks: Vec<Check>,
}

impl SqliteChange {
    pub fn new(shared: &Arc<Shared>, request: &ChangeRequest, detail: &Detail) -> Result<Self> {
        let table = request.table.name().clone();
        let verb = request.change.verb();
        writable(shared, &table, detail, verb)?;
        let place = |e: SourceError| e.in_source(&shared.name).in_table(&table);
        let (mut parameters, mut used) = (Vec::new(), BTreeSet::new());
        let mut sql =
            match &request.change {
                Change::Delete => format!("DELETE FROM {}", name(&request.table)),
                Change::Update(assignments) => {
                    let mut set = Vec::with_capacity(assignments.len());
                    for assignment in assignments {
                        if let Assigned::Expr(expr) = &assignment.value {
                            used.extend(expr.column_refs().into_iter().filter_map(|column| {
                                request.table.schema.index_of(&column.name).ok()
                            }));
                        }
                        let one = assigned(assignment, request, detail, &mut parameters);
                        set.push(one.map_err(place)?);
                    }
                    format!("UPDATE {} SET {}", name(&request.table), set.join(", "))
                }
            };
        let mut conditions = Vec::with_capacity(request.filters.len());
        for filter in &request.filters {
            let sql = render_filter(filter, &request.table.schema, detail, &SQLITE);
            conditions.push(sql.map_err(|reason| {
                place(unsupported(format!("{verb}: the condition {filter} stays here: {reason}")))
            })?);
            let compared = compared_columns(filter).into_iter();
            used.extend(compared.filter_map(|name| request.table.schema.index_of(name).ok()));
        }
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        let mut looked_at = Fragment::table(Arc::clone(&request.table));
        looked_at.projection = used.into_iter().collect();
        looked_at.filters.clone_from(&request.filters);
        let check = check_of(&looked_at)
            .map_err(|reason| place(unsupported(format!("{verb}: {reason}"))))?;
        let plan = Plan {
            table: table.clone(),
            stamp: request.table.stamp.clone(),
            sql,
            parameters,
            checks: check.into_iter().collect(),
        };
        Ok(Self { shared: Arc::clone(shared), plan: Arc::new(plan) })
    }
}

fn assigned(
    assignment: &Assignment,
    request: &ChangeRequest,
    detail: &Detail,
    parameters: &mut Vec<Value>,
) -> Result<String> {
    let schema = &request.table.schema;
    let (Some(column), Some(field)) =
        (detail.columns.get(assignment.column), schema.fields().get(assignment.column))
    else {
        return Err(SourceError::internal("a column that is written is not in the table"));
    };
    let name = SQLITE.quote_identifier(&column.name);
    match &assignment.value {
        Assigned::Constant(value) => {
            let value = value_of(column, value.as_ref(), 0)
                .map_err(|why| SourceError::data(why).in_column(&column.name))?;
            parameters.push(value);
            Ok(format!("{name} = ?{}", parameters.len()))
        }
        Assigned::Expr(expr) => {
            let rendered = plain(column)
                .and_then(|()| render_assigned(expr, field.data_type(), schema, detail, &SQLITE));
            let sql = rendered.map_err(|reason| {
                unsupported(format!("UPDATE: {expr} is not computed at the source: {reason}"))
                    .in_column(&column.name)
            })?;
            Ok(format!("{name} = {sql}"))
        }
    }
}

/// Whether the affinity of the column leaves a computed value of its kind as it is.
fn plain(column: &ColumnDetail) -> std::result::Result<(), Reason> {
    match column.kind {
        Kind::Int | Kind::Bool | Kind::Float | Kind::Decimal { .. } | Kind::Blob | Kind::Text => {
            Ok(())
        }
        Kind::Any | Kind::Date | Kind::Timestamp | Kind::Moment => Err(Reason::DifferentMeaning(
            format!("a column of type {} is set to constants only", column.declared),
        )),
    }
}

#[async_trait]
impl PreparedWrite for SqliteChange {
    fn remote_text(&self) -> &str {
        &self.plan.sql
    }

    async fn run(&self, rows: BatchStream, context: WriteContext) -> Result<WriteOutcome> {
        drop(rows);
        let (shared, plan) = (Arc::clone(&self.shared), Arc::clone(&self.plan));
        let gate = Arc::clone(&context.gate);
        // Ends when the gate says that the statement was given up, or with the statement.
        let thread = tokio::task::spawn_blocking(move || change(&shared, &plan, &gate));
        let outcome = thread.await.map_err(|e| {
            SourceError::internal(format!("the thread that writes ended: {e}"))
                .in_source(&self.shared.name)
        })?;
        outcome.map_err(|e| e.in_source(&self.shared.name).in_table(&self.plan.table))
    }
}

fn change(shared: &Shared, plan: &Plan, gate: &Arc<CommitGate>) -> Result<WriteOutcome> {
    let mut open = shared.connections.open_to_write()?;
    let given_up = Arc::clone(gate);
    let sql = |error: rusqlite::Error| {
        if gate.is_cancelled() {
            return SourceError::new(
                ErrorKind::Cancelled,
                "the statement was cancelled before its commit; nothing was written",
            );
        }
        shared.connections.error(error)
    };
    open.connection.progress_handler(STEPS, Some(move || given_up.is_cancelled())).map_err(sql)?;
    open.connection.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
    // Whatever ends this before the commit, closing the connection rolls back.
    let stamp = discover::stamp(&open.connection, &plan.table.name).map_err(sql)?;
    if stamp.as_ref() != Some(&plan.stamp) {
        return Err(SourceError::new(
            ErrorKind::Changed,
            "the table was altered since the statement was planned; run it again",
        ));
    }
    let Open { connection, verified, .. } = &mut open;
    check::run(connection, &shared.connections, verified, &plan.checks)?;
    let rows = connection.execute(&plan.sql, params_from_iter(&plan.parameters)).map_err(sql)?;
    gate.enter()?;
    commit(&open, &sql)?;
    Ok(WriteOutcome { rows: rows as u64, position: Some(position(&open)) })
}

fn unsupported(message: String) -> SourceError {
    SourceError::new(ErrorKind::Unsupported, message)
}

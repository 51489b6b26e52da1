//! UPDATE and DELETE as one statement. Constants travel as binary parameters, in the form in which
//! INSERT sends them; the rest is rendered by the rules that decide on filters.

use std::error::Error as StdError;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use synoptic_source::{
    Assigned, Assignment, Change, ChangeRequest, ErrorKind, Result, SourceError,
};
use synoptic_types::Reason;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::sql::{ColumnFacts, Columns, POSTGRES, render_assigned, render_filter};

use super::discover::{PgColumn, PgTable, identifier};
use super::encode;
use super::types::{Cast, Encoding};

/// A value in the server's binary form; `None` is NULL.
#[derive(Debug)]
pub(super) struct Constant(Option<Bytes>);

impl ToSql for Constant {
    fn to_sql(
        &self,
        _ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match &self.0 {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    /// It has the form of the column it is for, whose type the server gives the parameter.
    fn accepts(_ty: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The statement and its parameters.
///
/// # Errors
/// `Unsupported` naming the expression that would mean something else at the server.
pub(super) fn render(request: &ChangeRequest) -> Result<(String, Vec<Constant>)> {
    let table = &request.table;
    let detail = table
        .detail::<PgTable>()
        .ok_or_else(|| SourceError::internal("a table of another source"))?;
    let verb = request.change.verb();
    let name = format!("{}.{}", identifier(&table.name().schema), identifier(&table.name().name));
    let mut parameters = Vec::new();
    let mut sql = match &request.change {
        Change::Delete => format!("DELETE FROM {name}"),
        Change::Update(assignments) => {
            let mut set = Vec::with_capacity(assignments.len());
            for assignment in assignments {
                set.push(assigned(assignment, &table.schema, detail, &mut parameters)?);
            }
            format!("UPDATE {name} SET {}", set.join(", "))
        }
    };
    let mut conditions = Vec::with_capacity(request.filters.len());
    for filter in &request.filters {
        let condition = render_filter(filter, &table.schema, detail, &POSTGRES);
        conditions.push(condition.map_err(|reason| {
            unsupported(format!("{verb}: the condition {filter} stays here: {reason}"))
        })?);
    }
    if !conditions.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&conditions.join(" AND "));
    }
    Ok((sql, parameters))
}

fn assigned(
    assignment: &Assignment,
    schema: &Schema,
    detail: &PgTable,
    parameters: &mut Vec<Constant>,
) -> Result<String> {
    let (Some(column), Some(field)) =
        (detail.columns.get(assignment.column), schema.fields().get(assignment.column))
    else {
        return Err(SourceError::internal("a column that is written is not in the table"));
    };
    let name = identifier(&column.name);
    if column.resolved.cast != Cast::None || !encode::is_writable(column.encoding()) {
        return Err(unsupported(format!(
            "UPDATE: values of type {} cannot be written",
            column.resolved.native
        ))
        .in_column(&column.name));
    }
    match &assignment.value {
        Assigned::Constant(value) => {
            let of = Arc::new(Schema::new(vec![Field::new("c", value.data_type().clone(), true)]));
            let row = RecordBatch::try_new(of, vec![Arc::clone(value)])
                .map_err(|error| SourceError::internal(error.to_string()))?;
            let mut out = BytesMut::new();
            encode::row(&mut out, std::slice::from_ref(column.encoding()), &row, 0)
                .map_err(|(_, why)| SourceError::data(why).in_column(&column.name))?;
            // The number of columns, and the length, which is negative for NULL.
            let bytes = out.freeze();
            let null = value.logical_null_count() > 0;
            parameters.push(Constant((!null).then(|| bytes.slice(FIELD..))));
            Ok(format!("{name} = ${}", parameters.len()))
        }
        Assigned::Expr(expr) => {
            let rendered = plain(column).and_then(|()| {
                render_assigned(expr, field.data_type(), schema, &Guarded(detail), &POSTGRES)
            });
            let sql = rendered.map_err(|reason| {
                unsupported(format!("UPDATE: {expr} is not computed at the source: {reason}"))
                    .in_column(&column.name)
            })?;
            Ok(format!("{name} = {sql}"))
        }
    }
}

/// Bytes before the value in a row of one column.
const FIELD: usize = 6;

/// Whether the column keeps a computed value of its kind as it is. A `varchar(n)` cuts blanks off,
/// a `timestamp(3)` rounds, and other types are read in another form than they are kept in.
fn plain(column: &PgColumn) -> std::result::Result<(), Reason> {
    let native = column.resolved.native.as_str();
    let kept = match column.encoding() {
        Encoding::Bool
        | Encoding::Int2
        | Encoding::Int4
        | Encoding::Int8
        | Encoding::Float4
        | Encoding::Float8
        | Encoding::Numeric { .. }
        | Encoding::Date
        | Encoding::Bytea => true,
        Encoding::Text => native == "text",
        _ => false,
    };
    if kept {
        return Ok(());
    }
    Err(Reason::DifferentMeaning(format!("a column of type {native} is set to constants only")))
}

/// The columns, with values that cannot be delivered looked for: reading them would fail.
struct Guarded<'a>(&'a PgTable);

impl Columns for Guarded<'_> {
    fn facts(&self, column: &str) -> Option<ColumnFacts> {
        self.0.facts(column)
    }

    fn null_operand(&self, column: &str) -> Option<String> {
        self.0.null_operand(column)
    }

    fn unchecked(&self, column: &str) -> Option<&str> {
        self.0.columns.iter().find(|known| known.name == column).map(|known| known.name.as_str())
    }
}

fn unsupported(message: String) -> SourceError {
    SourceError::new(ErrorKind::Unsupported, message)
}

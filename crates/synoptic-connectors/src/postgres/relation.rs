//! Whole relations: joins, aggregates and the like in one COPY.

use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use synoptic_source::{JoinKind, OperatorKind, Relation, Result, SourceError, TableDef};
use synoptic_types::Reason;

use crate::sql::{Columns, POSTGRES, Rendered, Selected, Tables, render_relation};

use super::discover::PgTable;
use super::rows::{Expected, comes_by_rows};
use super::scan::foreign_table;
use super::snapshot::{ScanRequest, qualified};
use super::types::{Encoding, builtin_of};

/// What runs here over scans.
pub(super) const OPERATORS: [OperatorKind; 7] = [
    OperatorKind::Filter,
    OperatorKind::Project,
    OperatorKind::Aggregate,
    OperatorKind::Join,
    OperatorKind::Union,
    OperatorKind::TopN,
    OperatorKind::Limit,
];

/// The aggregates that some type's values have here as in the engine.
pub(super) const AGGREGATES: [&str; 7] =
    ["count", "sum", "avg", "min", "max", "bool_and", "bool_or"];

pub(super) const JOINS: [JoinKind; 4] =
    [JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti];

/// A relation as SQL, or why it stays in the engine.
pub(super) fn render(relation: &Relation) -> std::result::Result<Rendered, Reason> {
    let rendered = render_relation(relation, &PgTables, &POSTGRES)?;
    wire(relation, &rendered)?;
    Ok(rendered)
}

/// What is sent for a relation, and how what comes back is read.
///
/// # Errors
/// `Internal` when the relation is not one that [`render`] accepts.
pub(super) fn request(
    relation: &Relation,
    expected: Expected,
    comment: &str,
) -> Result<(ScanRequest, Vec<Encoding>)> {
    let stays = |reason: Reason| {
        SourceError::internal(format!("a relation was pushed that stays here: {reason}"))
    };
    let rendered = render(relation).map_err(stays)?;
    let (wire_types, encodings): (Vec<u32>, Vec<Encoding>) =
        wire(relation, &rendered).map_err(stays)?.into_iter().unzip();
    let lockable = rendered
        .tables
        .iter()
        .all(|(table, _)| table.detail::<PgTable>().is_some_and(|detail| detail.lockable));
    let mut tables = rendered
        .tables
        .into_iter()
        .map(|(table, used)| (table, used.into_iter().collect::<Vec<_>>()));
    let (table, used) = tables.next().ok_or_else(foreign_table)?;
    let select = rendered.sql;
    let by_rows = lockable && expected.is_few(None) && comes_by_rows(&wire_types);
    let copy = match by_rows {
        true => format!("{comment} {select}"),
        false => format!("{comment} COPY ({select}) TO STDOUT (FORMAT BINARY)"),
    };
    let request = ScanRequest {
        shown: copy.clone(),
        copies: vec![copy],
        by_rows,
        select: (!lockable).then(|| format!("{comment} {select}")),
        table,
        used,
        further: tables.collect(),
        wire_types,
    };
    Ok((request, encodings))
}

/// The type and the form of each column on the wire, when it becomes the relation's type exactly.
fn wire(
    relation: &Relation,
    rendered: &Rendered,
) -> std::result::Result<Vec<(u32, Encoding)>, Reason> {
    let columns = rendered.outputs.iter().zip(relation.schema.fields());
    let columns = columns.map(|(output, field)| {
        let data_type = field.data_type();
        let differs = || {
            let name = field.name();
            Reason::DifferentMeaning(format!("{name} is {data_type} here and not at the source"))
        };
        let found = match output.origin {
            Some((table, column)) => rendered.tables.get(table).and_then(|(table, _)| {
                let column = table.detail::<PgTable>()?.columns.get(column)?;
                Some((column.resolved.wire_oid, column.encoding().clone()))
            }),
            None => builtin_of(data_type),
        };
        found.filter(|(_, encoding)| encoding.arrow() == *data_type).ok_or_else(differs)
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    if columns.len() == relation.schema.fields().len() {
        return Ok(columns);
    }
    Err(Reason::NotOnAllowList("a relation of other columns than its schema".to_owned()))
}

/// The tables as the catalog described them.
pub(super) struct PgTables;

impl PgTables {
    fn detail(table: &TableDef) -> std::result::Result<&PgTable, Reason> {
        let other = || Reason::NotCapable("a table of another source".to_owned());
        table.detail::<PgTable>().ok_or_else(other)
    }
}

impl Tables for PgTables {
    fn from(&self, table: &TableDef) -> std::result::Result<String, Reason> {
        Ok(qualified(table.name()))
    }

    fn columns<'a>(&self, table: &'a TableDef) -> std::result::Result<&'a dyn Columns, Reason> {
        Ok(Self::detail(table)?)
    }

    fn selected(&self, table: &TableDef, index: usize) -> std::result::Result<Selected, Reason> {
        let detail = Self::detail(table)?;
        let unknown = || Reason::NotCapable(format!("a column {index} that is not there"));
        let column = detail.columns.get(index).ok_or_else(unknown)?;
        // Whether a value of other numerics can be delivered is known only once it is read.
        let computable = match column.encoding() {
            Encoding::Numeric { precision, constrained, .. } => {
                *constrained && *precision <= DECIMAL128_MAX_PRECISION
            }
            _ => true,
        };
        let unchecked = matches!(
            column.encoding(),
            Encoding::Numeric { .. }
                | Encoding::Date
                | Encoding::Time
                | Encoding::Timestamp
                | Encoding::TimestampTz
        );
        let facts = detail.facts(&column.name).filter(|_| computable);
        Ok(Selected { sql: column.select(), facts, unchecked })
    }
}

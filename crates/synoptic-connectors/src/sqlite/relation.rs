//! Whole relations: aggregates, joins and the like in one SELECT.
//!
//! What `check.rs` finds before it runs is what makes it exact: once every value fits its column,
//! equal there is equal here and less there is less here, for every type that
//! [`SQLITE`](crate::sql::SQLITE) compares. Only ordinary tables: a view or a virtual table may
//! show other values when it is read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use synoptic_source::{
    Fragment, JoinKind, Operator, OperatorCosts, OperatorKind, Relation, Result, SourceError,
    TableDef,
};
use synoptic_types::{Reason, SourceName};

use crate::sql::{
    Columns, Dialect as _, Rendered, SQLITE, Selected, Tables, render_filter, render_relation,
};

use super::check::{self, Check};
use super::decode::Wanted;
use super::discover::{self, Detail, SCHEMA};
use super::filter::compared_columns;
use super::types::Kind;
use super::worker::Plan;

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
pub(super) const AGGREGATES: [&str; 4] = ["count", "sum", "min", "max"];

pub(super) const JOINS: [JoinKind; 4] =
    [JoinKind::Inner, JoinKind::Left, JoinKind::Semi, JoinKind::Anti];

/// Measured with SQLite 3.40 on 1,000,000 rows in memory: counting takes 0.015 µs a row, adding up
/// 0.05, groups 0.2 to 0.26 (it sorts), the first few 0.06, a join by a key of the table 0.16 and by
/// an index made for it 0.19; looking at a value 0.05 to 0.2, once for each state of the file.
pub(super) const COSTS: OperatorCosts = OperatorCosts {
    fragment: 100.0,
    row: 0.1,
    byte: 0.004,
    scan: 1.0,
    check: 0.03,
    grouping: 1.25,
    aggregate: 0.35,
    join: 0.7,
    other: 0.7,
};

/// A relation as SQL, with the columns of its rows, or why it stays in the engine.
pub(super) fn render(
    relation: &Relation,
) -> std::result::Result<(Rendered, Vec<Wanted>, Vec<Check>), Reason> {
    let mut checks = Vec::new();
    collect_checks(relation, &mut checks)?;
    let rendered = render_relation(relation, &SqliteTables, &SQLITE)?;
    let columns = wanted(relation, &rendered)?;
    Ok((rendered, columns, checks))
}

/// How a relation is read.
///
/// # Errors
/// `Internal` when the relation is not one that [`render`] accepts.
pub(super) fn plan(relation: &Relation, source: &SourceName, batch_size: usize) -> Result<Plan> {
    let (rendered, columns, checks) = render(relation).map_err(|reason| {
        SourceError::internal(format!("a relation was pushed that stays here: {reason}"))
    })?;
    let mut tables = rendered.tables.iter().map(|(table, _)| table);
    let first = tables.next().ok_or_else(|| SourceError::internal("a relation without a table"))?;
    let further = tables.map(|table| (table.name().clone(), table.stamp.clone())).collect();
    let shown = shown(&checks, &rendered.sql);
    Ok(Plan {
        source: source.clone(),
        table: first.name().clone(),
        stamp: first.stamp.clone(),
        shown,
        sql: rendered.sql,
        columns: columns.into(),
        schema: Arc::clone(&relation.schema),
        batch_size,
        rowid: None,
        further,
        checks,
    })
}

/// What is sent, in turn.
pub(super) fn shown(checks: &[Check], sql: &str) -> String {
    let sent = checks.iter().map(|check| &*check.sql).chain([sql]);
    sent.collect::<Vec<_>>().join("; ")
}

/// How each column is read, when that gives the relation's type.
fn wanted(relation: &Relation, rendered: &Rendered) -> std::result::Result<Vec<Wanted>, Reason> {
    let fields = relation.schema.fields();
    if rendered.outputs.len() != fields.len() {
        let what = "a relation of other columns than its schema";
        return Err(Reason::NotOnAllowList(what.to_owned()));
    }
    let columns = rendered.outputs.iter().zip(fields).map(|(output, field)| {
        let origin = output.origin.and_then(|(table, column)| {
            let (table, _) = rendered.tables.get(table)?;
            table.detail::<Detail>()?.columns.get(column)
        });
        let kind = match (output.origin, origin) {
            (Some(_), Some(column)) => Some(column.kind),
            (Some(_), None) => None,
            (None, _) => computed(field.data_type()),
        };
        let kind = kind.filter(|kind| kind.arrow() == *field.data_type()).ok_or_else(|| {
            let (name, data_type) = (field.name(), field.data_type());
            Reason::DifferentMeaning(format!("{name} is {data_type} here and not at the source"))
        })?;
        Ok(Wanted {
            name: origin.map_or(field.name(), |column| &column.name).clone(),
            declared: origin.map_or_else(String::new, |column| column.declared.clone()),
            kind,
            nullable: field.is_nullable(),
        })
    });
    columns.collect()
}

/// How a computed value is read.
fn computed(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Int64 => Kind::Int,
        DataType::Boolean => Kind::Bool,
        DataType::Decimal128(precision, scale) => {
            Kind::Decimal { precision: *precision, scale: *scale }
        }
        DataType::Utf8 => Kind::Text,
        DataType::Binary => Kind::Blob,
        DataType::Date32 => Kind::Date,
        _ => return None,
    })
}

/// What is looked at before the scans below `relation`.
fn collect_checks(relation: &Relation, checks: &mut Vec<Check>) -> std::result::Result<(), Reason> {
    if let Operator::Scan(fragment) = &relation.operator {
        let check = check_of(fragment)?;
        checks.extend(check.filter(|check| !checks.contains(check)));
    }
    relation.inputs().into_iter().try_for_each(|input| collect_checks(input, checks))
}

/// The columns that a scan would deliver or compare, unless SQLite enforces their types.
pub(super) fn check_of(fragment: &Fragment) -> std::result::Result<Option<Check>, Reason> {
    let table = &fragment.table;
    let detail = ordinary(table)?;
    let mut read: BTreeSet<usize> = fragment.projection.iter().copied().collect();
    let mut filters = Vec::with_capacity(fragment.filters.len());
    for filter in &fragment.filters {
        let names = compared_columns(filter);
        read.extend(names.into_iter().filter_map(|name| table.schema.index_of(name).ok()));
        filters.push(render_filter(filter, &table.schema, detail, &SQLITE)?);
    }
    let mut columns = Vec::with_capacity(read.len());
    for index in read {
        let (Some(field), Some(column)) =
            (table.schema.fields().get(index), detail.columns.get(index))
        else {
            return Err(Reason::NotCapable(format!("a column {index} that is not there")));
        };
        if !check::is_enforced(column.kind, detail.strict, detail.rowid_alias == Some(index)) {
            columns.push(Wanted {
                name: column.name.clone(),
                declared: column.declared.clone(),
                kind: column.kind,
                nullable: field.is_nullable(),
            });
        }
    }
    if columns.is_empty() {
        return Ok(None);
    }
    if fragment.limit.is_some() {
        // Which rows they are is known only when they are read.
        let what = "looking at every value before a limit would cost more than the rows";
        return Err(Reason::DifferentMeaning(what.to_owned()));
    }
    Ok(Some(Check {
        table: table.name().clone(),
        sql: check::sql(&name(table), &columns, &filters),
        columns: columns.into(),
        rowid: detail.rowid,
        whole: filters.is_empty(),
    }))
}

pub(super) fn name(table: &TableDef) -> String {
    format!("\"{SCHEMA}\".{}", SQLITE.quote_identifier(&table.name().name))
}

/// The description of an ordinary table.
fn ordinary(table: &TableDef) -> std::result::Result<&Detail, Reason> {
    let detail = table.detail::<Detail>();
    let detail =
        detail.ok_or_else(|| Reason::NotCapable("a table of another source".to_owned()))?;
    let what = match detail.relation {
        discover::Relation::Table => return Ok(detail),
        discover::Relation::View => "view",
        discover::Relation::Virtual => "virtual table",
    };
    let name = table.name();
    Err(Reason::DifferentMeaning(format!("the {what} {name} may show other values the next time")))
}

/// The tables as the catalog described them.
struct SqliteTables;

impl Tables for SqliteTables {
    fn from(&self, table: &TableDef) -> std::result::Result<String, Reason> {
        Ok(name(table))
    }

    fn columns<'a>(&self, table: &'a TableDef) -> std::result::Result<&'a dyn Columns, Reason> {
        Ok(ordinary(table)?)
    }

    fn selected(&self, table: &TableDef, index: usize) -> std::result::Result<Selected, Reason> {
        let detail = ordinary(table)?;
        let unknown = || Reason::NotCapable(format!("a column {index} that is not there"));
        let column = detail.columns.get(index).ok_or_else(unknown)?;
        let quoted = SQLITE.quote_identifier(&column.name);
        // A column of a derived table keeps its collation, and groups would be made by it.
        let sql = if column.binary { quoted } else { format!("{quoted} COLLATE BINARY") };
        Ok(Selected { sql, facts: detail.facts(&column.name), unchecked: false })
    }
}

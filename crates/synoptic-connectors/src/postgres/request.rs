//! What a fragment is sent as.

use std::collections::BTreeSet;
use std::sync::Arc;

use synoptic_source::{Fragment, Result, SourceError};
use synoptic_types::QueryId;

use crate::sql::{POSTGRES, render_filter};

use super::discover::PgTable;
use super::ranges::Ranges;
use super::rows::{Expected, comes_by_rows};
use super::scan::foreign_table;
use super::snapshot::{ScanRequest, qualified};

/// The texts of a fragment, one for each of `ranges`.
///
/// # Errors
/// `Internal` when a filter cannot be rendered or the table is another source's.
pub(super) fn request(
    fragment: &Fragment,
    ranges: &Ranges,
    expected: Expected,
    query_id: &QueryId,
) -> Result<ScanRequest> {
    let table = &fragment.table;
    let detail = table.detail::<PgTable>().ok_or_else(foreign_table)?;
    let column = |i: usize| detail.columns.get(i).ok_or_else(foreign_table);

    let mut used: BTreeSet<usize> = fragment.projection.iter().copied().collect();
    let mut conditions = Vec::with_capacity(fragment.filters.len());
    for filter in &fragment.filters {
        for reference in filter.column_refs() {
            used.extend(table.schema.index_of(&reference.name));
        }
        let condition = render_filter(filter, &table.schema, detail, &POSTGRES);
        conditions.push(condition.map_err(|reason| {
            SourceError::internal(format!("a filter was pushed that stays here: {reason}"))
        })?);
    }

    let mut columns = Vec::with_capacity(fragment.projection.len());
    let mut wire_types = Vec::with_capacity(fragment.projection.len());
    for &i in &fragment.projection {
        let column = column(i)?;
        columns.push(column.select());
        wire_types.push(column.resolved.wire_oid);
    }

    let select = |range: Option<String>| {
        let table = qualified(table.name());
        let mut select = format!("SELECT {} FROM {table}", columns.join(", "));
        let conditions: Vec<&str> = range.iter().chain(&conditions).map(String::as_str).collect();
        if !conditions.is_empty() {
            select.push_str(" WHERE ");
            select.push_str(&conditions.join(" AND "));
        }
        if let Some(limit) = fragment.limit {
            // More than the server can count is all.
            select.push_str(&format!(" LIMIT {}", i64::try_from(limit).unwrap_or(i64::MAX)));
        }
        select
    };
    let comment = comment(query_id);
    let conditions = ranges.conditions();
    let by_rows = detail.lockable
        && conditions.len() == 1
        && expected.is_few(fragment.limit)
        && comes_by_rows(&wire_types);
    let copies: Vec<String> = conditions
        .into_iter()
        .map(|range| match by_rows {
            true => format!("{comment} {}", select(range)),
            false => format!("{comment} COPY ({}) TO STDOUT (FORMAT BINARY)", select(range)),
        })
        .collect();
    let first = copies.first().map_or("", String::as_str);
    Ok(ScanRequest {
        shown: format!("{first}{}", ranges.note()),
        copies,
        by_rows,
        select: (!detail.lockable).then(|| format!("{comment} {}", select(None))),
        table: Arc::clone(table),
        used: used.into_iter().collect(),
        further: Vec::new(),
        wire_types,
    })
}

/// Tells the server's operators whose query it is. Ids can come from outside.
pub(super) fn comment(query_id: &QueryId) -> String {
    let id: String = query_id
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.:".contains(c) { c } else { '_' })
        .collect();
    format!("/* synoptic query_id={id} */")
}

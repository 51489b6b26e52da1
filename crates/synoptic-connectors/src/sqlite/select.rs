//! What a fragment is asked as.

use std::collections::BTreeSet;

use synoptic_source::{Fragment, Result, SourceError};

use super::decode::Wanted;
use super::discover::{Detail, SCHEMA};
use super::filter::{self, Rendered};
use crate::sql::{Dialect as _, SQLITE};

/// The SELECT of a fragment, and the columns it reads.
pub(super) fn select(fragment: &Fragment, detail: &Detail) -> Result<(String, Vec<Wanted>)> {
    let table = &fragment.table;
    let mut conditions = Vec::with_capacity(fragment.filters.len());
    let mut read = fragment.projection.clone();
    let mut filtered = BTreeSet::new();
    for filter in &fragment.filters {
        let rendered = filter::render(filter, &table.schema, detail).map_err(|reason| {
            let message = format!("a filter was handed over that stays here: {reason}");
            SourceError::internal(message)
        })?;
        conditions.push(match rendered {
            Rendered::Exact(sql) | Rendered::Inexact(sql, _) => sql,
        });
        let compared = filter::compared_columns(filter);
        filtered.extend(compared.iter().filter_map(|name| table.schema.index_of(name).ok()));
    }
    // What a filter compares is read and checked even when nobody wants it.
    read.extend(filtered.into_iter().filter(|column| !fragment.projection.contains(column)));
    let mut columns = Vec::with_capacity(read.len());
    for &index in &read {
        let (Some(field), Some(column)) =
            (table.schema.fields().get(index), detail.columns.get(index))
        else {
            return Err(SourceError::internal(format!("there is no column {index}")));
        };
        let (name, declared) = (column.name.clone(), column.declared.clone());
        let (kind, nullable) = (column.kind, field.is_nullable());
        columns.push(Wanted { name, declared, kind, nullable });
    }

    let list = columns.iter().map(|column| SQLITE.quote_identifier(&column.name));
    let list = list.collect::<Vec<_>>().join(", ");
    let list = if list.is_empty() { "1".to_owned() } else { list };
    let name = SQLITE.quote_identifier(&table.name().name);
    let mut sql = format!("SELECT {list} FROM \"{SCHEMA}\".{name}");
    if !conditions.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&conditions.join(" AND "));
    }
    if let Some(limit) = fragment.limit {
        // More than SQLite can count is all.
        sql.push_str(&format!(" LIMIT {}", i64::try_from(limit).unwrap_or(i64::MAX)));
    }
    Ok((sql, columns))
}

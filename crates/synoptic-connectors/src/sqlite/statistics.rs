//! Estimates SQLite keeps or finds in a few pages; never a scan.

use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use rusqlite::{Connection, OptionalExtension as _};
use synoptic_source::{Fragment, TableDef};

use super::discover::{Detail, Relation, SCHEMA};
use crate::sql::{Dialect as _, SQLITE};

/// The least a row takes in a file: its header, its rowid, a byte in its page's index.
const LEAST_ROW_BYTES: i64 = 5;

/// What share of rows a filter keeps when nothing is known of it, as DataFusion assumes.
const DEFAULT_SELECTIVITY: f64 = 0.2;

/// Estimates for a whole table.
pub(super) fn table(
    connection: &Connection,
    table: &TableDef,
    detail: &Detail,
) -> rusqlite::Result<Statistics> {
    let mut statistics = Statistics::new_unknown(&table.schema);
    if detail.relation != Relation::Table {
        return Ok(statistics);
    }
    let analyzed = analyzed(connection, &table.name().name)?;
    let span = match detail.rowid {
        Some(rowid) => rowid_span(connection, &table.name().name, rowid)?,
        None => None,
    };
    let rows = match (analyzed.first(), span) {
        (Some(index), _) => Some(index.rows),
        (None, Some((min, max))) => {
            // Rowids may be sparse, yet the rows must have room in the file.
            let span = i128::from(max) - i128::from(min) + 1;
            let room = i128::from(file_bytes(connection)? / LEAST_ROW_BYTES);
            usize::try_from(span.min(room)).ok()
        }
        (None, None) => None,
    };
    let Some(rows) = rows else { return Ok(statistics) };
    statistics.num_rows = Precision::Inexact(rows);
    for index in analyzed {
        let column = index.column.and_then(|name| {
            detail.columns.iter().position(|column| column.name.eq_ignore_ascii_case(&name))
        });
        if let (Some(column), Some(distinct)) = (column, index.distinct) {
            statistics.column_statistics[column].distinct_count = Precision::Inexact(distinct);
        }
    }
    if let (Some(column), Some((min, max))) = (detail.rowid_alias, span) {
        let key = &mut statistics.column_statistics[column];
        key.distinct_count = Precision::Inexact(rows);
        key.null_count = Precision::Exact(0);
        key.min_value = Precision::Inexact(ScalarValue::Int64(Some(min)));
        key.max_value = Precision::Inexact(ScalarValue::Int64(Some(max)));
    }
    let width: usize = detail.columns.iter().map(|column| column.kind.assumed_width()).sum();
    statistics.total_byte_size = Precision::Inexact(rows.saturating_mul(width));
    Ok(statistics)
}

/// What `ANALYZE` found of one index.
struct Index {
    rows: usize,
    /// Its first column, unless that is an expression.
    column: Option<String>,
    /// Different values of the first column.
    distinct: Option<usize>,
}

fn analyzed(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Index>> {
    let exists = connection
        .query_row("SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_stat1'", [], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        return Ok(Vec::new());
    }
    // A partial index counts only its own rows.
    let mut statement = connection.prepare(
        "SELECT s.stat, (SELECT name FROM pragma_index_info(s.idx, 'main') WHERE seqno = 0) \
         FROM main.sqlite_stat1 AS s \
         LEFT JOIN pragma_index_list(?1, 'main') AS l ON l.name = s.idx \
         WHERE s.tbl = ?1 AND coalesce(l.partial, 0) = 0",
    )?;
    let mut found = Vec::new();
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        let stat: Option<String> = row.get(0)?;
        let stat = stat.unwrap_or_default();
        let mut numbers = stat.split(' ').map(|number| number.parse::<usize>().ok());
        // The number of rows, then rows for each value of the first column, rounded up.
        let Some(Some(rows)) = numbers.next() else { continue };
        let each = numbers.next().flatten().filter(|each| *each > 0);
        found.push(Index {
            rows,
            column: row.get(1)?,
            distinct: each.map(|each| rows.div_ceil(each)),
        });
    }
    Ok(found)
}

/// The least and the greatest rowid; each is at one end of the table's tree.
fn rowid_span(
    connection: &Connection,
    table: &str,
    rowid: &str,
) -> rusqlite::Result<Option<(i64, i64)>> {
    let table = format!("\"{SCHEMA}\".{}", SQLITE.quote_identifier(table));
    let sql =
        format!("SELECT (SELECT min({rowid}) FROM {table}), (SELECT max({rowid}) FROM {table})");
    let (min, max): (Option<i64>, Option<i64>) =
        connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(min.zip(max))
}

fn file_bytes(connection: &Connection) -> rusqlite::Result<i64> {
    let pages: i64 = connection.query_row("PRAGMA main.page_count", [], |row| row.get(0))?;
    let size: i64 = connection.query_row("PRAGMA main.page_size", [], |row| row.get(0))?;
    Ok(pages.saturating_mul(size))
}

/// What share of a table's rows one filter keeps.
fn share(table: &Statistics, fragment: &Fragment, filter: &Expr) -> f64 {
    let distinct = match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right)
        {
            (Expr::Column(column), Expr::Literal(..))
            | (Expr::Literal(..), Expr::Column(column)) => {
                let column = fragment.table.schema.index_of(&column.name).ok();
                let known = column.and_then(|column| table.column_statistics.get(column));
                known.and_then(|known| known.distinct_count.get_value().copied())
            }
            _ => None,
        },
        _ => None,
    };
    distinct.map_or(DEFAULT_SELECTIVITY, |distinct| 1.0 / distinct.max(1) as f64)
}

/// Estimates for what a scan of `fragment` yields, in its columns.
pub(super) fn fragment(table: &Statistics, fragment: &Fragment) -> Statistics {
    let Fragment { projection, limit, .. } = fragment;
    let (schema, limit) = (fragment.schema(), *limit);
    let mut statistics = Statistics::new_unknown(&schema);
    let shares = fragment.filters.iter().map(|filter| share(table, fragment, filter));
    let share: f64 = shares.product();
    let rows = table.num_rows.get_value().map(|rows| {
        let kept = (*rows as f64 * share).ceil() as usize;
        limit.map_or(kept, |limit| limit.min(kept))
    });
    let Some(rows) = rows.or(limit) else { return statistics };
    statistics.num_rows = Precision::Inexact(rows);
    let mut width = 0;
    for (output, &column) in projection.iter().enumerate() {
        let known = table.column_statistics.get(column).cloned().unwrap_or_default();
        let distinct = known.distinct_count.get_value().map(|distinct| (*distinct).min(rows));
        width += schema.field(output).data_type().primitive_width().unwrap_or(32);
        statistics.column_statistics[output] = ColumnStatistics {
            distinct_count: distinct.map_or(Precision::Absent, Precision::Inexact),
            // Of what is left, only estimates.
            null_count: known.null_count.to_inexact(),
            min_value: known.min_value.to_inexact(),
            max_value: known.max_value.to_inexact(),
            ..ColumnStatistics::new_unknown()
        };
    }
    statistics.total_byte_size = Precision::Inexact(rows.saturating_mul(width));
    statistics
}

//! Estimates from what the server keeps: `pg_class` and `pg_stats`. Never exact.

use std::collections::HashMap;
use std::sync::LazyLock;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use serde::Deserialize;
use synoptic_source::{Fragment, TableDef};

use super::discover::PgTable;

/// What is assumed where nothing is known, as the server's planner does.
const DEFAULT_EQUAL: f64 = 0.005;
const DEFAULT_RANGE: f64 = 1.0 / 3.0;
const DEFAULT_OTHER: f64 = 0.25;
/// So few rows are none of the frequent values when those are all that is known.
const SCARCE: f64 = 0.01;
/// The least part that a range is believed to keep.
const NARROWEST: f64 = 1e-4;

/// The first version that makes a hash table of a long list of constants.
const HASHES_LISTS: i32 = 140_000;

/// What a page holds without its header, and what a row has beside its columns.
const PAGE_BYTES: f64 = 8168.0;
const ROW_OVERHEAD: f64 = 28.0;

/// The kept statistics of table `$2` in schema `$1`, as one JSON text. Nothing in it takes a lock
/// on the table, as asking for its size would: planning must not wait for an `ALTER TABLE`.
pub(super) static STATISTICS_SQL: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT pg_catalog.json_build_object(\
            'version', pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
            'parts', (WITH RECURSIVE parts(oid) AS (\
                    SELECT c.oid \
                    UNION SELECT i.inhrelid FROM parts \
                    JOIN pg_catalog.pg_inherits i ON i.inhparent = parts.oid \
                    WHERE c.relkind = 'p') \
                SELECT pg_catalog.json_agg(pg_catalog.json_build_object(\
                    'analyzed', p.reltuples, 'pages', p.relpages, \
                    'live', pg_catalog.pg_stat_get_live_tuples(p.oid), \
                    'dead', pg_catalog.pg_stat_get_dead_tuples(p.oid))) \
                FROM parts JOIN pg_catalog.pg_class p ON p.oid = parts.oid \
                WHERE p.relkind <> 'p'), \
            'columns', (SELECT pg_catalog.json_object_agg(s.attname, pg_catalog.json_build_object(\
                    'null_fraction', s.null_frac, 'distinct', s.n_distinct, 'width', s.avg_width, \
                    'bounds', {bounds}, 'common', {common})) \
                FROM pg_catalog.pg_stats s \
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = s.attname \
                WHERE s.schemaname = n.nspname AND s.tablename = c.relname \
                AND s.inherited = (c.relkind = 'p')))::text \
        FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'm', 'p', 'f', 'v')",
        bounds =
            numbers("s.histogram_bounds", "NULL::pg_catalog.float4[]", |value| value.to_owned()),
        common = numbers("s.most_common_vals", "s.most_common_freqs", |value| {
            format!("pg_catalog.json_build_array({value}, f)")
        }),
    )
});

/// SQL of a JSON array: what `shown` makes of each of `values`, a number or a time as seconds since 1970,
/// and of its frequency `f`. Values that are no number there, and times without end, are left out; for
/// columns of other types it is NULL.
fn numbers(values: &str, frequencies: &str, shown: impl Fn(&str) -> String) -> String {
    // The types of a column, an array type that holds them all, the number, and when it is one.
    let kinds = [
        ("int2,int4,int8,numeric", "numeric", "b", "pg_catalog.abs(b) < 1e300"),
        ("float4,float8", "float8", "b", "pg_catalog.abs(b) < 1e300"),
        ("date", "date", "(b - DATE '1970-01-01') * 86400.0", "pg_catalog.isfinite(b)"),
        ("timestamp", "timestamp", "extract(epoch FROM b)", "pg_catalog.isfinite(b)"),
        ("timestamptz", "timestamptz", "extract(epoch FROM b)", "pg_catalog.isfinite(b)"),
    ];
    let whens = kinds.map(|(types, array, number, is_one)| {
        format!(
            "WHEN a.atttypid = ANY ('{{{types}}}'::pg_catalog.regtype[]) \
             THEN (SELECT pg_catalog.json_agg({} ORDER BY i) \
                FROM ROWS FROM (pg_catalog.unnest({values}::text::pg_catalog.{array}[]), \
                    pg_catalog.unnest({frequencies})) WITH ORDINALITY AS u(b, f, i) \
                WHERE {is_one}) ",
            shown(number)
        )
    });
    format!("CASE {}END", whens.concat())
}

/// What is known of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Estimates {
    rows: Option<f64>,
    /// Of a table that is one relation.
    pages: Option<f64>,
    columns: HashMap<String, ColumnEstimate>,
    version: i32,
}

#[derive(Deserialize)]
struct KeptTable {
    version: Option<i32>,
    parts: Option<Vec<KeptPart>>,
    columns: Option<HashMap<String, ColumnEstimate>>,
}

/// A table, or one partition.
#[derive(Deserialize)]
struct KeptPart {
    /// Rows at the last ANALYZE or VACUUM; −1 before the first (0 on servers before 14).
    analyzed: f64,
    pages: f64,
    /// Rows as they were written and deleted since the server's counters began; 0 on a standby.
    live: f64,
    /// Row versions that nobody sees and that still take up space; 0 on a standby.
    dead: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct ColumnEstimate {
    null_fraction: f64,
    /// Positive: how many. Negative: how many per row.
    distinct: f64,
    width: f64,
    /// Values between which there are equally many rows each, ascending; numbers, or seconds since
    /// 1970 of dates and times. Values that are frequent by themselves are left out of it.
    #[serde(default)]
    bounds: Option<Vec<f64>>,
    /// Frequent values, each with the part of all rows that has it.
    #[serde(default)]
    common: Option<Vec<(f64, f64)>>,
}

impl Estimates {
    /// Reads the JSON of [`STATISTICS_SQL`]; what cannot be read is not known.
    pub fn from_json(json: &str, table: &TableDef) -> Self {
        let kept: KeptTable = match serde_json::from_str(json) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::debug!(%error, table = %table.name(), "statistics cannot be read");
                return Self::default();
            }
        };
        let parts = kept.parts.unwrap_or_default();
        let is_view = table.info.kind == synoptic_source::TableKind::View;
        let rows = if parts.is_empty() || is_view {
            None
        } else {
            parts.iter().map(|part| part.rows()).sum()
        };
        let mut columns = kept.columns.unwrap_or_default();
        if let Some(rows) = rows {
            at_least_unique(&mut columns, &table.primary_key, rows);
        }
        let width = || {
            let detail = table.detail::<PgTable>();
            let of = |c: &super::discover::PgColumn| {
                columns.get(&c.name).map_or(c.encoding().assumed_width() as f64, |kept| kept.width)
            };
            detail.map_or(0.0, |detail| detail.columns.iter().map(of).sum::<f64>())
        };
        let pages = match parts.as_slice() {
            [one] if !is_view => Some(one.pages_now(width())),
            _ => None,
        };
        Self { rows, pages, columns, version: kept.version.unwrap_or_default() }
    }

    /// Whether the server looks values of long lists up in a hash table; before, it compared each
    /// row with each value.
    pub fn hashes_lists(&self) -> bool {
        self.version >= HASHES_LISTS
    }

    /// How many pages a table has now, roughly: what it had when it was last counted, or more when
    /// rows were written since. `None` when it is not one relation.
    pub fn pages(&self) -> Option<f64> {
        self.pages
    }

    /// Which part of a table's rows `filters` keep, roughly.
    pub fn kept(&self, filters: &[Expr]) -> f64 {
        let mut kept = 1.0;
        let mut ranges: Vec<(&str, f64)> = Vec::new();
        for filter in filters.iter().flat_map(split_conjunction) {
            match self.range(filter) {
                None => kept *= self.selectivity(filter),
                // From and to: what each cuts off, not the product.
                Some((column, share)) => match ranges.iter_mut().find(|(c, _)| *c == column) {
                    Some((_, known)) => *known = (*known + share - 1.0).max(NARROWEST),
                    None => ranges.push((column, share)),
                },
            }
        }
        kept * ranges.into_iter().map(|(_, share)| share).product::<f64>()
    }

    /// The column that a comparison with a constant is of, and which part of its rows that keeps.
    fn range<'f>(&self, filter: &'f Expr) -> Option<(&'f str, f64)> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
        let (column, op, constant) = match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(constant, _)) => (column, *op, constant),
            (Expr::Literal(constant, _), Expr::Column(column)) => (column, op.swap()?, constant),
            _ => return None,
        };
        let below = match op {
            Operator::Lt | Operator::LtEq => true,
            Operator::Gt | Operator::GtEq => false,
            _ => return None,
        };
        let known = self.columns.get(&column.name)?;
        let share = known.within(number(constant)?, below)?;
        Some((column.name.as_str(), share.clamp(NARROWEST, 1.0)))
    }

    /// For a whole table, in its columns.
    pub fn table(&self, table: &TableDef) -> Statistics {
        let all: Vec<usize> = (0..table.schema.fields().len()).collect();
        self.columns(table, &all, self.rows)
    }

    /// For what a fragment yields.
    pub fn fragment(&self, fragment: &Fragment) -> Statistics {
        let kept = self.kept(&fragment.filters);
        let mut rows = self.rows.map(|rows| rows * kept);
        if let Some(limit) = fragment.limit {
            rows = Some(rows.unwrap_or(f64::INFINITY).min(limit as f64));
        }
        self.columns(&fragment.table, &fragment.projection, rows)
    }

    fn columns(&self, table: &TableDef, projection: &[usize], rows: Option<f64>) -> Statistics {
        let detail = table.detail::<PgTable>();
        let mut total = Some(0.0);
        let column_statistics = projection
            .iter()
            .map(|&i| {
                let mut statistics = ColumnStatistics::new_unknown();
                let Some(column) = detail.and_then(|detail| detail.columns.get(i)) else {
                    return statistics;
                };
                let known = self.columns.get(&column.name);
                let assumed = column.encoding().assumed_width() as f64;
                let width = known.map_or(assumed, |known| known.width);
                let bytes = rows.map(|rows| rows * width);
                total = total.zip(bytes).map(|(total, bytes)| total + bytes);
                statistics.byte_size = inexact(bytes);
                let ends = known.and_then(ColumnEstimate::ends);
                let data_type = table.schema.fields().get(i).map(|field| field.data_type());
                let bound = |bound: Option<f64>| {
                    let value = bound.zip(data_type).and_then(|(bound, of)| value_of(bound, of));
                    value.map_or(Precision::Absent, Precision::Inexact)
                };
                statistics.min_value = bound(ends.map(|(low, _)| low));
                statistics.max_value = bound(ends.map(|(_, high)| high));
                if let (Some(known), Some(rows)) = (known, rows) {
                    statistics.null_count = inexact(Some(rows * known.null_fraction));
                    statistics.distinct_count =
                        inexact(self.distinct(&column.name).map(|n| n.min(rows)));
                }
                if !column.nullable {
                    statistics.null_count = Precision::Inexact(0);
                }
                statistics
            })
            .collect();
        Statistics { num_rows: inexact(rows), total_byte_size: inexact(total), column_statistics }
    }

    fn distinct(&self, column: &str) -> Option<f64> {
        let distinct = self.columns.get(column)?.distinct;
        match distinct {
            n if n > 0.0 => Some(n),
            n if n < 0.0 => self.rows.map(|rows| (rows * -n).max(1.0)),
            _ => None,
        }
    }

    fn null_fraction(&self, column: &str) -> Option<f64> {
        self.columns.get(column).map(|column| column.null_fraction)
    }

    /// The fraction of rows a filter keeps, roughly: it decides join sides, not answers.
    fn selectivity(&self, filter: &Expr) -> f64 {
        let fraction = match filter {
            Expr::BinaryExpr(binary) => match binary.op {
                Operator::And => self.kept(&[*binary.left.clone(), *binary.right.clone()]),
                Operator::Or => {
                    let (a, b) = (self.selectivity(&binary.left), self.selectivity(&binary.right));
                    a + b - a * b
                }
                Operator::Eq => self.equal(&binary.left, &binary.right),
                Operator::NotEq => 1.0 - self.equal(&binary.left, &binary.right),
                Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                    self.range(filter).map_or(DEFAULT_RANGE, |(_, share)| share)
                }
                _ => DEFAULT_OTHER,
            },
            Expr::Not(inner) => 1.0 - self.selectivity(inner),
            Expr::IsNull(inner) => {
                column(inner).and_then(|c| self.null_fraction(c)).unwrap_or(DEFAULT_EQUAL)
            }
            Expr::IsNotNull(inner) => {
                1.0 - column(inner).and_then(|c| self.null_fraction(c)).unwrap_or(DEFAULT_EQUAL)
            }
            Expr::InList(list) => {
                let one = column(&list.expr).and_then(|c| self.distinct(c));
                let one = one.map_or(DEFAULT_EQUAL, |distinct| 1.0 / distinct.max(1.0));
                let any = (one * list.list.len() as f64).min(1.0);
                if list.negated { 1.0 - any } else { any }
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let from = expr.as_ref().clone().gt_eq(low.as_ref().clone());
                let to = expr.as_ref().clone().lt_eq(high.as_ref().clone());
                let within = self.kept(&[from, to]);
                if *negated { 1.0 - within } else { within }
            }
            _ => DEFAULT_OTHER,
        };
        fraction.clamp(0.0, 1.0)
    }

    fn equal(&self, left: &Expr, right: &Expr) -> f64 {
        let name = column(left).or_else(|| column(right));
        let Some(distinct) = name.and_then(|name| self.distinct(name)) else {
            return DEFAULT_EQUAL;
        };
        let not_null = 1.0 - name.and_then(|name| self.null_fraction(name)).unwrap_or(0.0);
        not_null / distinct.max(1.0)
    }
}

impl ColumnEstimate {
    /// Which part of all rows is below `value`, or above it.
    fn within(&self, value: f64, below: bool) -> Option<f64> {
        let common = self.common.as_deref().unwrap_or_default();
        let rest =
            (1.0 - self.null_fraction - common.iter().map(|(_, part)| part).sum::<f64>()).max(0.0);
        let spread = match self.bounds.as_deref().and_then(|bounds| share_below(bounds, value)) {
            Some(share) if below => share,
            Some(share) => 1.0 - share,
            // All values are frequent ones.
            None if rest < SCARCE && !common.is_empty() => 0.0,
            None => return None,
        };
        let fits = |other: f64| if below { other <= value } else { other >= value };
        let frequent: f64 = common.iter().filter(|(v, _)| fits(*v)).map(|(_, part)| part).sum();
        Some(frequent + rest * spread)
    }

    /// The least and the greatest value that is known.
    fn ends(&self) -> Option<(f64, f64)> {
        let common = self.common.iter().flatten().map(|(value, _)| *value);
        let mut values = self.bounds.iter().flatten().copied().chain(common);
        let first = values.next()?;
        Some(values.fold((first, first), |(low, high), value| (low.min(value), high.max(value))))
    }
}

/// Raises what the sample says of a key's columns to what the key says of them.
///
/// Where equal values lie side by side, as in a table of lines in the order of their documents, a
/// sample of pages sees too few of them. But together the columns of a key have as many values as
/// there are rows: what the others cannot account for is due to the one that has most.
fn at_least_unique(columns: &mut HashMap<String, ColumnEstimate>, key: &[String], rows: f64) {
    let of = |name: &String| {
        let distinct = columns.get(name)?.distinct;
        Some(if distinct < 0.0 { rows * -distinct } else { distinct }).filter(|n| *n > 0.0)
    };
    let Some(known) = key.iter().map(of).collect::<Option<Vec<f64>>>() else { return };
    let most = known.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let Some((place, most)) = most else { return };
    let others: f64 = known.iter().product::<f64>() / most;
    let least = rows / others.max(1.0);
    if least > *most
        && let Some(column) = key.get(place).and_then(|name| columns.get_mut(name))
    {
        column.distinct = least;
    }
}

impl KeptPart {
    /// The larger of two estimates that can each be far too low; `None` when there is neither.
    fn rows(&self) -> Option<f64> {
        let known = self.analyzed > 0.0 || self.pages > 0.0 && self.analyzed == 0.0;
        (known || self.live > 0.0).then(|| self.analyzed.max(self.live))
    }

    /// `width`: the bytes a row has in its columns.
    fn pages_now(&self, width: f64) -> f64 {
        let per_page = match (self.analyzed, self.pages) {
            (rows, pages) if rows > 0.0 && pages > 0.0 => rows / pages,
            _ => PAGE_BYTES / (ROW_OVERHEAD + width),
        };
        let written = (self.live + self.dead) / per_page.max(f64::MIN_POSITIVE);
        self.pages.max(written)
    }
}

/// Which part of a histogram's rows is below `value`: within two bounds, rows are assumed to be spread
/// evenly.
fn share_below(bounds: &[f64], value: f64) -> Option<f64> {
    let (first, last) = (bounds.first()?, bounds.last()?);
    if bounds.len() < 2 || first >= last {
        return None;
    }
    let above = bounds.partition_point(|bound| *bound < value);
    let within = match (above.checked_sub(1).and_then(|at| bounds.get(at)), bounds.get(above)) {
        (Some(low), Some(high)) => (above - 1) as f64 + (value - low) / (high - low),
        (None, _) => 0.0,
        (_, None) => (bounds.len() - 1) as f64,
    };
    Some((within / (bounds.len() - 1) as f64).clamp(0.0, 1.0))
}

/// A number; a date or a time as seconds since 1970.
fn number(value: &ScalarValue) -> Option<f64> {
    let micros = |value: &ScalarValue| match value
        .cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None))
    {
        Ok(ScalarValue::TimestampMicrosecond(Some(micros), _)) => Some(micros as f64 / 1e6),
        _ => None,
    };
    let number = match value.data_type() {
        DataType::Date32 => match value {
            ScalarValue::Date32(Some(days)) => f64::from(*days) * 86_400.0,
            _ => return None,
        },
        DataType::Timestamp(..) => micros(value)?,
        data_type if data_type.is_numeric() => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(number)) => number?,
            _ => return None,
        },
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// The value of a column's type that `number` stands for.
fn value_of(number: f64, data_type: &DataType) -> Option<ScalarValue> {
    let whole = |number: f64| number.round() as i64;
    let value = match data_type {
        DataType::Date32 => ScalarValue::Date32(i32::try_from(whole(number / 86_400.0)).ok()),
        DataType::Timestamp(..) => {
            ScalarValue::TimestampMicrosecond(Some(whole(number * 1e6)), None)
        }
        data_type if data_type.is_integer() => ScalarValue::Int64(Some(whole(number))),
        data_type if data_type.is_numeric() => ScalarValue::Float64(Some(number)),
        _ => return None,
    };
    value.cast_to(data_type).ok().filter(|value| !value.is_null())
}

fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(&column.name),
        Expr::Cast(cast) => column(&cast.expr),
        _ => None,
    }
}

fn inexact(value: Option<f64>) -> Precision<usize> {
    match value {
        Some(value) if value.is_finite() && value >= 0.0 => {
            Precision::Inexact(value.round() as usize)
        }
        _ => Precision::Absent,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn columns(distinct: &[(&str, f64)]) -> HashMap<String, ColumnEstimate> {
        let column = |distinct| ColumnEstimate {
            null_fraction: 0.0,
            distinct,
            width: 8.0,
            bounds: None,
            common: None,
        };
        distinct.iter().map(|(name, n)| ((*name).to_owned(), column(*n))).collect()
    }

    #[test]
    fn a_key_says_how_many_values_there_are_at_least() {
        let key = ["order".to_owned(), "line".to_owned()];
        // TPC-H's lineitem at scale 1, as PostgreSQL samples it; there are 1,500,000 orders.
        let mut known = columns(&[("order", 133_000.0), ("line", 7.0), ("part", 200_000.0)]);
        at_least_unique(&mut known, &key, 6_000_000.0);
        assert_eq!(known["order"].distinct.round(), 857_143.0);
        assert_eq!((known["line"].distinct, known["part"].distinct), (7.0, 200_000.0));
        // Nothing is raised that accounts for all rows, or when a column is not known.
        for distinct in [-0.25, 1_500_000.0] {
            let mut known = columns(&[("order", distinct), ("line", 7.0)]);
            at_least_unique(&mut known, &key, 6_000_000.0);
            assert_eq!(known["order"].distinct, distinct);
        }
        let mut known = columns(&[("order", 133_000.0)]);
        at_least_unique(&mut known, &key, 6_000_000.0);
        assert_eq!(known["order"].distinct, 133_000.0);
        at_least_unique(&mut known, &[], 6_000_000.0);
    }

    fn dates() -> Estimates {
        // A hundred days each, but for the last part, which is half of them.
        let bounds = [0.0, 100.0, 150.0, 200.0].map(|days| days * 86_400.0).to_vec();
        let day = ColumnEstimate {
            null_fraction: 0.5,
            distinct: 200.0,
            width: 4.0,
            bounds: Some(bounds),
            common: None,
        };
        let columns = HashMap::from([("day".to_owned(), day)]);
        Estimates { rows: Some(1000.0), columns, ..Estimates::default() }
    }

    #[test]
    fn ranges_keep_what_the_histogram_says() {
        let known = dates();
        let day = |days: i32| lit(ScalarValue::Date32(Some(days)));
        let kept = |filters: &[Expr]| (known.kept(filters) * 1000.0).round();
        assert_eq!(kept(&[col("day").lt(day(100))]), 167.0);
        assert_eq!(kept(&[col("day").gt_eq(day(100))]), 333.0);
        assert_eq!(kept(&[day(150).gt(col("day"))]), 333.0);
        // Both ends, in one condition or two, and not the product of what each keeps.
        let within = [col("day").gt_eq(day(100)), col("day").lt(day(150))];
        let alone = kept(&within);
        assert_eq!(kept(&[within[0].clone().and(within[1].clone())]), alone);
        assert_eq!(kept(&[col("day").between(day(100), day(150))]), alone);
        // Beyond the ends, and where nothing is known.
        assert!(kept(&[col("day").gt(day(5000))]) <= 1.0);
        assert_eq!(kept(&[col("day").lt(day(5000))]), 500.0);
        assert_eq!(kept(&[col("other").lt(day(5))]), 333.0);
        assert_eq!(kept(&[col("day").lt(lit("a"))]), 333.0);
    }

    #[test]
    fn frequent_values_count_where_they_are() {
        let column = |bounds: Option<Vec<f64>>, common: &[(f64, f64)]| ColumnEstimate {
            null_fraction: 0.1,
            distinct: 50.0,
            width: 4.0,
            bounds,
            common: Some(common.to_vec()),
        };
        let shares = |column: &ColumnEstimate, value| {
            let share = |below| column.within(value, below).map(|share| (share * 100.0).round());
            (share(true), share(false))
        };
        let mixed = column(Some(vec![10.0, 20.0]), &[(1.0, 0.5), (30.0, 0.1)]);
        assert_eq!(shares(&mixed, 5.0), (Some(50.0), Some(40.0)));
        assert_eq!(shares(&mixed, 15.0), (Some(65.0), Some(25.0)));
        assert_eq!(mixed.ends(), Some((1.0, 30.0)));
        let only = column(None, &[(1.0, 0.4), (2.0, 0.5)]);
        assert_eq!(shares(&only, 1.5), (Some(40.0), Some(50.0)));
        // Most values are not known.
        assert_eq!(shares(&column(None, &[(1.0, 0.1)]), 1.5), (None, None));
    }

    #[test]
    fn bounds_become_values_of_the_columns_type() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let shown = |number, data_type| value_of(number, &data_type).map(|v| v.to_string());
        assert_eq!(shown(86_400.0, DataType::Date32).as_deref(), Some("1970-01-02"));
        assert_eq!(shown(1.5, micros.clone()).as_deref(), Some("1500000"));
        assert_eq!(shown(1.5, DataType::Decimal128(10, 2)).as_deref(), Some("1.50"));
        assert_eq!(shown(7.0, DataType::Int16).as_deref(), Some("7"));
        // What no column of that type holds is not known.
        assert_eq!(shown(1e9, DataType::Int16), None);
        assert_eq!(shown(1e30, DataType::Decimal128(10, 2)), None);
        assert_eq!(shown(1.0, DataType::Utf8), None);
        assert_eq!(number(&ScalarValue::TimestampMicrosecond(Some(1_500_000), None)), Some(1.5));
    }
}

//! What is expected of a part of a plan, from the statistics of the tables in it.
//!
//! The statistics are those of whole tables, and the shares that filters keep are estimated here,
//! so that the order of joins is the same whether filters are pushed or not.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::catalog::TableProvider;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, Constraint, DFSchema, JoinType, Statistics};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, FetchType, Join, LogicalPlan, SkipType, TableScan};

use crate::cut::cost::UNKNOWN_WIDTH;

use super::selectivity::{Values, column, number, selectivity};

/// Rows of a plan and the values in its columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expected {
    /// At least one.
    pub rows: f64,
    /// Before the filters: what limits how many keys of several columns there are.
    pub unfiltered: f64,
    /// One per column of the plan.
    pub columns: Vec<ExpectedColumn>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ExpectedColumn {
    pub values: Values,
    /// Bytes of a value.
    pub width: f64,
}

impl Expected {
    fn at_most(mut self, rows: f64) -> Self {
        self.rows = self.rows.min(rows).max(1.0);
        self
    }

    fn filtered(mut self, schema: &DFSchema, condition: &Expr) -> Self {
        let kept = selectivity(condition, &|column| self.values(schema, column));
        self.rows = (self.rows * kept).max(1.0);
        self
    }

    /// What is known of a column of the plan, whose schema is `schema`.
    pub fn values(&self, schema: &DFSchema, column: &Column) -> Option<Values> {
        let index = schema.maybe_index_of_column(column)?;
        self.columns.get(index).map(|column| column.values.clone())
    }

    /// Bytes of a row.
    pub fn width(&self) -> f64 {
        self.columns.iter().map(|column| column.width).sum()
    }
}

/// `None`: there are no statistics for a table in it, or it is of a kind nothing is known of.
pub(super) fn expected(plan: &LogicalPlan) -> Option<Expected> {
    match plan {
        LogicalPlan::TableScan(scan) => table(scan),
        LogicalPlan::Filter(filter) => {
            Some(expected(&filter.input)?.filtered(filter.input.schema(), &filter.predicate))
        }
        LogicalPlan::SubqueryAlias(alias) => expected(&alias.input),
        LogicalPlan::Projection(projection) => {
            let input = expected(&projection.input)?;
            let columns = projection
                .expr
                .iter()
                .zip(plan.schema().fields())
                .map(|(expr, field)| of_expr(&input, projection.input.schema(), expr, field));
            Some(Expected { columns: columns.collect(), ..input })
        }
        LogicalPlan::Aggregate(aggregate) => {
            let input = expected(&aggregate.input)?;
            let schema = aggregate.input.schema();
            let exprs = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
            let columns = exprs
                .zip(plan.schema().fields())
                .map(|(expr, field)| of_expr(&input, schema, expr, field));
            let mut columns: Vec<_> = columns.collect();
            // A grouping set has more columns than expressions.
            columns.resize_with(plan.schema().fields().len(), ExpectedColumn::default);
            let groups = columns.iter().take(aggregate.group_expr.len());
            let groups = groups.map(|column| column.values.distinct.unwrap_or(input.rows));
            let rows = groups.product::<f64>().min(input.rows).max(1.0);
            if let ([_], Some(key)) = (aggregate.group_expr.as_slice(), columns.first_mut()) {
                key.values.distinct = Some(rows);
            }
            Some(Expected { rows, unfiltered: rows, columns })
        }
        LogicalPlan::Join(join) => joined(join),
        LogicalPlan::Sort(sort) => {
            let input = expected(&sort.input)?;
            Some(match sort.fetch {
                Some(fetch) => input.at_most(fetch as f64),
                None => input,
            })
        }
        LogicalPlan::Limit(limit) => {
            let input = expected(&limit.input)?;
            Some(match (limit.get_skip_type().ok()?, limit.get_fetch_type().ok()?) {
                (SkipType::Literal(_), FetchType::Literal(Some(fetch))) => {
                    input.at_most(fetch as f64)
                }
                _ => input,
            })
        }
        LogicalPlan::Window(window) => {
            let mut input = expected(&window.input)?;
            input.columns.resize_with(plan.schema().fields().len(), || ExpectedColumn {
                width: 8.0,
                ..ExpectedColumn::default()
            });
            Some(input)
        }
        LogicalPlan::Union(union) => {
            let mut inputs = union.inputs.iter().map(|input| expected(input));
            let mut all = inputs.next()??;
            for input in inputs {
                all.rows += input?.rows;
            }
            all.unfiltered = all.rows;
            for column in &mut all.columns {
                column.values = Values::default();
            }
            Some(all)
        }
        LogicalPlan::Values(values) => {
            let widths = plan
                .schema()
                .fields()
                .iter()
                .map(|field| ExpectedColumn { values: Values::default(), width: width(field) });
            let rows = values.values.len().max(1) as f64;
            Some(Expected { rows, unfiltered: rows, columns: widths.collect() })
        }
        LogicalPlan::EmptyRelation(_) => {
            let columns = plan.schema().fields().iter().map(|_| ExpectedColumn::default());
            Some(Expected { rows: 1.0, unfiltered: 1.0, columns: columns.collect() })
        }
        _ => None,
    }
}

/// How many different values each column of a scan has in the whole table, and whether it is a key.
pub(crate) fn domains(scan: &TableScan) -> Option<Vec<(Option<f64>, bool)>> {
    let known = table(scan)?.columns.into_iter().map(|column| column.values.distinct);
    let provider = source_as_provider(&scan.source).ok()?;
    let keys = keys(provider.as_ref());
    let is_key = |place: usize| {
        let column = scan.projection.as_ref().map_or(Some(place), |all| all.get(place).copied());
        column.is_some_and(|column| keys.contains(&column))
    };
    Some(known.enumerate().map(|(place, distinct)| (distinct, is_key(place))).collect())
}

/// The columns of which each alone tells all rows apart.
fn keys(provider: &dyn TableProvider) -> Vec<usize> {
    let constraints = provider.constraints().into_iter().flat_map(|all| all.iter());
    let only = constraints.filter_map(|constraint| match constraint {
        Constraint::PrimaryKey(key) | Constraint::Unique(key) => match key.as_slice() {
            [only] => Some(*only),
            _ => None,
        },
    });
    only.collect()
}

fn table(scan: &TableScan) -> Option<Expected> {
    let provider = source_as_provider(&scan.source).ok()?;
    let statistics = provider.statistics()?;
    let schema = provider.schema();
    let rows = value(&statistics.num_rows)?;
    let keys = keys(provider.as_ref());
    let all: Vec<_> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| of_column(&statistics, index, rows, field, keys.contains(&index)))
        .collect();
    let known = |column: &Column| {
        let index = schema.index_of(&column.name).ok()?;
        all.get(index).map(|column| column.values.clone())
    };
    let kept: f64 = scan.filters.iter().map(|filter| selectivity(filter, &known)).product();
    let columns = match &scan.projection {
        Some(projection) => {
            projection.iter().map(|index| all.get(*index).cloned()).collect::<Option<_>>()?
        }
        None => all,
    };
    let found = Expected { rows: (rows * kept).max(1.0), unfiltered: rows.max(1.0), columns };
    Some(match scan.fetch {
        Some(fetch) => found.at_most(fetch as f64),
        None => found,
    })
}

fn of_column(
    statistics: &Statistics,
    index: usize,
    rows: f64,
    field: &Field,
    is_key: bool,
) -> ExpectedColumn {
    let Some(column) = statistics.column_statistics.get(index) else {
        return ExpectedColumn { values: Values::default(), width: width(field) };
    };
    let end = |end: &Precision<_>| end.get_value().and_then(number);
    let span = end(&column.min_value).zip(end(&column.max_value));
    // Whole numbers and days are no more than have room between the least and the greatest.
    let data_type = field.data_type();
    let discrete = data_type.is_integer() || *data_type == DataType::Date32;
    let room = span.filter(|_| discrete).map(|(least, greatest)| greatest - least + 1.0);
    let distinct = match is_key {
        true => Some(rows),
        false => value(&column.distinct_count).or(room).map(|distinct| distinct.min(rows)),
    };
    let bytes = value(&column.byte_size).filter(|_| rows > 0.0).map(|bytes| bytes / rows);
    ExpectedColumn {
        values: Values {
            distinct: distinct.map(|distinct| distinct.max(1.0)),
            nulls: value(&column.null_count).map(|nulls| (nulls / rows.max(1.0)).min(1.0)),
            span,
            data_type: Some(data_type.clone()),
        },
        width: bytes.unwrap_or_else(|| width(field)),
    }
}

fn width(field: &Field) -> f64 {
    field.data_type().primitive_width().map_or(UNKNOWN_WIDTH, |width| width as f64)
}

fn of_expr(input: &Expected, schema: &DFSchema, expr: &Expr, field: &Field) -> ExpectedColumn {
    let index = column(expr).and_then(|column| schema.maybe_index_of_column(column));
    let Some(known) = index.and_then(|index| input.columns.get(index)) else {
        return ExpectedColumn { values: Values::default(), width: width(field) };
    };
    match expr {
        Expr::Column(_) => known.clone(),
        // Of another type: as many values, in another span.
        _ => ExpectedColumn {
            values: Values { span: None, data_type: None, ..known.values.clone() },
            width: width(field),
        },
    }
}

/// A join that is not part of what is being ordered.
fn joined(join: &Join) -> Option<Expected> {
    let (left, right) = (expected(&join.left)?, expected(&join.right)?);
    let pairs = join.on.iter().map(|(l, r)| {
        let one = column(l).and_then(|column| left.values(join.left.schema(), column));
        let other = column(r).and_then(|column| right.values(join.right.schema(), column));
        (one.and_then(|values| values.distinct), other.and_then(|values| values.distinct))
    });
    let pairs: Vec<_> = pairs.collect();
    let (share, _) = matching(&pairs, left.unfiltered, right.unfiltered);
    let rows = left.rows * right.rows * share;
    // A partner for each key of the other side, as far as there are rows.
    let partnered = |one: &Expected, other: &Expected| {
        let least = pairs.iter().filter_map(|(l, r)| Some(f64::max((*l)?, (*r)?)));
        let domain = least.fold(other.rows, f64::max);
        (one.rows * (other.rows / domain).min(1.0)).max(1.0)
    };
    let without = |one: &Expected, with: f64| (one.rows - with).max(one.rows * 0.1).max(1.0);
    let both = || left.columns.iter().chain(&right.columns).cloned().collect::<Vec<_>>();
    let (rows, mut columns) = match join.join_type {
        JoinType::Inner => (rows, both()),
        JoinType::Left => (rows.max(left.rows), both()),
        JoinType::Right => (rows.max(right.rows), both()),
        JoinType::Full => (rows.max(left.rows + right.rows), both()),
        JoinType::LeftSemi => (partnered(&left, &right), left.columns.clone()),
        JoinType::RightSemi => (partnered(&right, &left), right.columns.clone()),
        JoinType::LeftAnti => (without(&left, partnered(&left, &right)), left.columns.clone()),
        JoinType::RightAnti => (without(&right, partnered(&right, &left)), right.columns.clone()),
        JoinType::LeftMark => (left.rows, left.columns.clone()),
        JoinType::RightMark => (right.rows, right.columns.clone()),
    };
    columns.resize_with(join.schema.fields().len(), ExpectedColumn::default);
    let rows = rows.max(1.0);
    Some(Expected { rows, unfiltered: rows, columns })
}

/// Which part of all pairs of rows has equal keys, and whether statistics say so. `keys` are the
/// different values of each pair of keys, `left` and `right` the rows of the two tables unfiltered. Each key
/// of the side with fewer is assumed to be one of the other's (containment).
pub(super) fn matching(keys: &[(Option<f64>, Option<f64>)], left: f64, right: f64) -> (f64, bool) {
    let mut known = true;
    let mut share = 1.0;
    let (mut lefts, mut rights) = (1.0, 1.0);
    for (one, other) in keys {
        let (a, b) = match (*one, *other) {
            (Some(a), Some(b)) => (a, b),
            (Some(one), None) | (None, Some(one)) => {
                known = false;
                (one, one)
            }
            // A key of the smaller table, referred to by the larger one.
            (None, None) => {
                known = false;
                (left.min(right), left.min(right))
            }
        };
        share /= f64::max(a, b).max(1.0);
        lefts *= a;
        rights *= b;
    }
    // Several keys together tell no more rows apart than there are.
    for (keys, rows) in [(lefts, left), (rights, right)] {
        if keys > rows {
            share = f64::max(share, 1.0 / rows.max(1.0));
        }
    }
    (share.min(1.0), known)
}

fn value(value: &Precision<usize>) -> Option<f64> {
    value.get_value().map(|value| *value as f64)
}

//! What an operator costs here and at a source. Pure; it decides where work is done, never answers.
//!
//! Costs are microseconds of one core, measured on PostgreSQL 15 with 600,000 rows in memory: COPY
//! BINARY of one column takes 0.14 a row and of six (32 bytes) 0.28, taking rows off the wire about
//! as much again; counting by a text 0.11; the eight aggregates of TPC-H's first query 0.59. The
//! engine's hash operators take 10 to 20 million rows a second on two cores. Reading a table is
//! left out: it is the same on either side.

use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use synoptic_source::{Operator, OperatorCosts};

/// A row into a group, there and here.
const AGGREGATE_THERE: f64 = 0.1;
const AGGREGATE_HERE: f64 = 0.08;
/// One computed value: an aggregate's step, an arithmetic operator. Decimals, of which there are
/// many, cost PostgreSQL two to three times what whole numbers do, and their products are rounded
/// and checked to be exactly ours.
const VALUE_THERE: f64 = 0.06;
const VALUE_HERE: f64 = 0.01;
/// A row into or past a hash table of a join.
const JOIN_THERE: f64 = 0.25;
const JOIN_HERE: f64 = 0.07;
/// A pair of rows that a join yields.
const PAIR_THERE: f64 = 0.1;
const PAIR_HERE: f64 = 0.03;
/// A row past a heap of the first few.
const TOP_THERE: f64 = 0.08;
const TOP_HERE: f64 = 0.03;
/// A row past a condition.
const FILTER_THERE: f64 = 0.05;
const FILTER_HERE: f64 = 0.02;
/// A group more in a hash table there, as long as it is small: PostgreSQL takes no longer for the ten
/// first groups of 30,000 joined rows, of which nobody knows how many are alike, than for sending the
/// rows.
const GROUP_THERE: f64 = 0.2;
/// Groups of which there are more cost more each: no processor's cache holds them, they go to disk
/// beyond `work_mem`, and every parallel worker makes them anew and hands them on. PostgreSQL takes
/// 7 s for the sums of 1.5 million orders of 6 million rows, where reading the rows and summing
/// here takes 1.6 s.
const FEW_GROUPS: f64 = 50_000.0;
const MANY_THERE: f64 = 4.0;
/// How much more a row costs there when rows without a partner are kept: PostgreSQL takes 1 s for
/// 1.5 million orders of 150,000 customers, half of that when it may drop some.
const OUTER_THERE: f64 = 1.5;

/// A row past the casts that make the columns of UNION ALL alike.
const UNITED_THERE: f64 = 0.04;
const UNITED_HERE: f64 = 0.01;

/// What is assumed of a table without statistics.
const UNKNOWN_ROWS: f64 = 1e6;
/// Bytes of a value of a type without a fixed width.
pub(crate) const UNKNOWN_WIDTH: f64 = 24.0;
/// What a condition over other operators keeps.
const FILTERED: f64 = 0.25;

/// What is expected of an operator's rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Estimate {
    pub rows: f64,
    /// Whether `rows` comes from statistics, and not from an assumption.
    pub known: bool,
    pub columns: Vec<ColumnEstimate>,
    /// Pairs of tables: a row of the first says which row of the second it is joined to.
    pub implied: Vec<(Table, Table)>,
}

/// Tells the tables of a plan apart; one that is read twice is two.
pub(crate) type Table = usize;

/// What is expected of a column's values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ColumnEstimate {
    /// Bytes of a value on average.
    pub width: f64,
    /// How many different ones there are.
    pub distinct: Option<f64>,
    /// How many different ones there are before any filter: what a key of another table is among.
    pub domain: Option<f64>,
    /// The table it comes from as it is.
    pub table: Option<Table>,
    /// The table whose row its value says: it is that table's key, or equal to it.
    pub identifies: Option<Table>,
}

/// Work at the source and here, for the same operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    pub there: f64,
    pub here: f64,
}

impl Estimate {
    /// Of a scan. `widths` are those of the types, where they have one.
    pub fn of_statistics(statistics: &Statistics, widths: &[Option<usize>]) -> Self {
        let rows = number(&statistics.num_rows);
        let columns = widths.iter().enumerate().map(|(i, width)| {
            let column = statistics.column_statistics.get(i);
            let bytes = column.and_then(|column| number(&column.byte_size)).zip(rows);
            let average = bytes.filter(|(_, rows)| *rows > 0.0).map(|(bytes, rows)| bytes / rows);
            let distinct = column.and_then(|column| number(&column.distinct_count));
            ColumnEstimate {
                width: average.or(width.map(|width| width as f64)).unwrap_or(UNKNOWN_WIDTH),
                distinct,
                domain: distinct,
                table: None,
                identifies: None,
            }
        });
        let columns = columns.collect();
        Self {
            rows: rows.unwrap_or(UNKNOWN_ROWS),
            known: rows.is_some(),
            columns,
            implied: Vec::new(),
        }
    }

    /// Of `table`, each of whose columns has so many different values, filtered or not, and may be
    /// its key.
    pub fn of_table(mut self, table: Table, columns: &[(Option<f64>, bool)]) -> Self {
        for (column, (domain, is_key)) in self.columns.iter_mut().zip(columns) {
            column.domain = domain.or(column.domain);
            column.distinct = domain.or(column.distinct);
            column.table = Some(table);
            column.identifies = is_key.then_some(table);
        }
        self.bounded()
    }

    /// What it costs to bring the rows here as one fragment of a source with these costs.
    pub fn transfer(&self, costs: &OperatorCosts) -> f64 {
        transfer(self.rows, self.columns.iter().map(|column| column.width).sum(), costs)
    }

    /// As it was when the same was read before.
    pub fn seen(mut self, rows: f64) -> Self {
        (self.rows, self.known) = (rows, true);
        self.bounded()
    }

    /// At most `rows` rows.
    pub fn at_most(mut self, rows: f64) -> Self {
        // A limit is known, whatever it is of.
        self.known |= rows < self.rows;
        self.rows = self.rows.min(rows);
        self.bounded()
    }

    /// After a condition over other operators.
    pub fn filtered(mut self) -> Self {
        self.rows *= FILTERED;
        self.bounded()
    }

    fn bounded(mut self) -> Self {
        for column in &mut self.columns {
            column.distinct = column.distinct.map(|distinct| distinct.min(self.rows));
        }
        self
    }

    /// The groups of `keys`, whose columns come first, followed by those of `aggregates`.
    pub fn grouped(&self, keys: Vec<ColumnEstimate>, aggregates: Vec<ColumnEstimate>) -> Self {
        if keys.is_empty() {
            return Self { rows: 1.0, known: true, columns: aggregates, implied: Vec::new() };
        }
        // Values that nothing is known of may all differ.
        let groups = (0..keys.len())
            .filter(|&key| !self.depends(&keys, key))
            .filter_map(|key| keys.get(key))
            .try_fold(1.0, |groups, key| key.distinct.map(|distinct| groups * distinct.max(1.0)));
        let rows = groups.unwrap_or(self.rows).min(self.rows);
        let columns = keys.into_iter().chain(aggregates).collect();
        Self { rows, known: self.known, columns, implied: self.implied.clone() }.bounded()
    }

    /// Whether another of the keys says the value of this one already, as the key of a table says
    /// its other columns.
    fn depends(&self, keys: &[ColumnEstimate], this: usize) -> bool {
        let Some(key) = keys.get(this) else { return false };
        let says = |table: Table, key: &ColumnEstimate| {
            let known = self.implied_by(table);
            [key.table, key.identifies].into_iter().flatten().any(|table| known.contains(&table))
        };
        keys.iter().enumerate().any(|(at, other)| {
            let said = other.identifies.is_some_and(|table| says(table, key));
            // Of two that say each other's value the first one counts.
            let mutual = key.identifies.is_some_and(|table| says(table, other));
            at != this && said && (at < this || !mutual)
        })
    }

    /// The tables whose rows a row of `table` says, itself among them.
    fn implied_by(&self, table: Table) -> Vec<Table> {
        let mut found = vec![table];
        let mut next = 0;
        while let Some(&from) = found.get(next) {
            next += 1;
            for &(_, to) in self.implied.iter().filter(|(one, _)| *one == from) {
                if !found.contains(&to) {
                    found.push(to);
                }
            }
        }
        found
    }

    /// Pairs of rows whose keys are equal; `keys` are how many different values each pair of keys
    /// has before filters, which take rows from a key and its partners alike. `pairs` are the places
    /// of keys that are columns. Without `inner`, rows of this side without a partner are kept.
    pub fn joined(
        &self,
        other: &Self,
        keys: &[(Option<f64>, Option<f64>)],
        pairs: &[(usize, usize)],
        inner: bool,
    ) -> Self {
        let mut matching = 1.0_f64;
        let mut known = self.known && other.known;
        for (left, right) in keys {
            match (left, right) {
                (Some(left), Some(right)) => matching *= left.max(*right).max(1.0),
                // Nothing is known: the side with more rows might repeat each key any number of times.
                _ => known = false,
            }
        }
        // Several keys together cannot tell more rows apart than there are.
        let most = self.rows.max(other.rows).max(1.0);
        let rows = self.rows * other.rows / matching.clamp(1.0, most);
        let mut columns: Vec<_> = self.columns.iter().chain(&other.columns).cloned().collect();
        let mut implied = [self.implied.as_slice(), &other.implied].concat();
        for &(left, right) in pairs {
            let (Some(one), Some(partner)) = (self.columns.get(left), other.columns.get(right))
            else {
                continue;
            };
            let both = one.distinct.zip(partner.distinct).map(|(a, b)| a.min(b));
            if let Some(column) = columns.get_mut(left) {
                column.distinct = both.filter(|_| inner).or(column.distinct);
                column.says(partner.identifies, &mut implied);
            }
            if let Some(column) = columns.get_mut(self.columns.len() + right) {
                column.distinct = both.or(column.distinct);
                column.says(one.identifies.filter(|_| inner), &mut implied);
            }
        }
        Self { rows, known, columns, implied }.bounded()
    }

    /// All rows of all inputs.
    pub fn united(inputs: &[&Self]) -> Self {
        let width = inputs.iter().map(|input| input.columns.len()).min().unwrap_or_default();
        let columns = (0..width).map(|index| {
            let of = |value: fn(&ColumnEstimate) -> Option<f64>| {
                let values = inputs.iter().map(|input| value(input.columns.get(index)?));
                values.sum::<Option<f64>>()
            };
            let widths = inputs.iter().filter_map(|input| input.columns.get(index));
            ColumnEstimate {
                width: widths.map(|column| column.width).fold(0.0, f64::max),
                // No value of one input may be one of another's.
                distinct: of(|column| column.distinct),
                domain: of(|column| column.domain),
                table: None,
                identifies: None,
            }
        });
        let columns = columns.collect();
        let rows = inputs.iter().map(|input| input.rows).sum();
        let known = inputs.iter().all(|input| input.known);
        Self { rows, known, columns, implied: Vec::new() }.bounded()
    }

    /// Rows with a partner, or without one; `keys` are how many different values each key has before
    /// filters, and its partner after them.
    pub fn having_partner(
        &self,
        other: &Self,
        keys: &[(Option<f64>, Option<f64>)],
        anti: bool,
    ) -> Self {
        let share =
            keys.iter().filter_map(|(left, right)| Some(((*right)? / (*left)?.max(1.0)).min(1.0)));
        let share = share.fold(None, |least: Option<f64>, share| {
            Some(least.map_or(share, |least| least.min(share)))
        });
        let known = self.known && other.known && share.is_some();
        let share = share.unwrap_or(1.0);
        let share = if anti { (1.0 - share).max(0.1) } else { share };
        Self { rows: self.rows * share, known, ..self.clone() }.bounded()
    }
}

impl ColumnEstimate {
    /// Of values of which only the width is known.
    pub fn of_width(width: f64) -> Self {
        Self { width, distinct: None, domain: None, table: None, identifies: None }
    }

    /// It is equal to a column that says a row of `table`.
    fn says(&mut self, table: Option<Table>, implied: &mut Vec<(Table, Table)>) {
        let Some(table) = table else { return };
        let known = [self.table, self.identifies].into_iter().flatten();
        implied.extend(known.filter(|own| *own != table).map(|own| (own, table)));
        self.identifies.get_or_insert(table);
    }
}

impl Work {
    /// The same at a source whose operators cost other than a server's.
    pub fn at(self, operator: &Operator, costs: &OperatorCosts) -> Self {
        let ratio = match operator {
            Operator::Aggregate { groups, .. } if groups.is_empty() => costs.aggregate,
            Operator::Aggregate { .. } => costs.grouping,
            Operator::Join { .. } => costs.join,
            _ => costs.other,
        };
        Self { there: self.there * ratio, ..self }
    }
}

/// Looking whether the values of `columns` columns of a scan fit, before operators run over it.
pub(crate) fn check(scan: &Estimate, columns: usize, costs: &OperatorCosts) -> f64 {
    scan.rows * columns as f64 * costs.check
}

/// Aggregating `input` to `groups` groups, computing `values` values a row.
pub(crate) fn aggregate(input: &Estimate, groups: f64, values: usize) -> Work {
    let values = values as f64;
    Work {
        there: input.rows * (AGGREGATE_THERE + VALUE_THERE * values)
            + groups.min(FEW_GROUPS) * GROUP_THERE
            + (groups - FEW_GROUPS).max(0.0) * MANY_THERE,
        here: input.rows * (AGGREGATE_HERE + VALUE_HERE * values),
    }
}

/// Computing `values` values a row.
pub(crate) fn project(input: &Estimate, values: usize) -> Work {
    let values = values as f64;
    Work { there: input.rows * VALUE_THERE * values, here: input.rows * VALUE_HERE * values }
}

/// Joining two inputs to `output`.
pub(crate) fn join(left: &Estimate, right: &Estimate, output: &Estimate) -> Work {
    join_of_rows(left.rows, right.rows, output.rows)
}

/// Joining so many rows with so many others to `output` rows.
pub(crate) fn join_of_rows(left: f64, right: f64, output: f64) -> Work {
    let rows = left + right;
    Work {
        there: rows * JOIN_THERE + output * PAIR_THERE,
        here: rows * JOIN_HERE + output * PAIR_HERE,
    }
}

/// Bringing `rows` rows of `bytes` bytes here as one fragment.
pub(crate) fn transfer(rows: f64, bytes: f64, costs: &OperatorCosts) -> f64 {
    costs.fragment + rows * (costs.row + costs.byte * bytes)
}

/// The same, keeping rows without a partner.
pub(crate) fn outer_join(left: &Estimate, right: &Estimate, output: &Estimate) -> Work {
    let inner = join(left, right, output);
    Work { there: inner.there * OUTER_THERE, ..inner }
}

/// Bringing the rows of several inputs together.
pub(crate) fn union(output: &Estimate) -> Work {
    Work { there: output.rows * UNITED_THERE, here: output.rows * UNITED_HERE }
}

/// Looking for the first few rows.
pub(crate) fn top(input: &Estimate) -> Work {
    Work { there: input.rows * TOP_THERE, here: input.rows * TOP_HERE }
}

/// A condition over other operators.
pub(crate) fn filter(input: &Estimate) -> Work {
    Work { there: input.rows * FILTER_THERE, here: input.rows * FILTER_HERE }
}

fn number(value: &Precision<usize>) -> Option<f64> {
    value.get_value().map(|value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: f64, distinct: &[f64]) -> Estimate {
        let column = |n| ColumnEstimate { distinct: Some(n), domain: Some(n), ..value() };
        let columns = distinct.iter().map(|n| column(*n));
        Estimate { rows, known: true, columns: columns.collect(), implied: Vec::new() }
    }

    fn value() -> ColumnEstimate {
        ColumnEstimate::of_width(8.0)
    }

    fn pushed_is_cheaper(inputs: &[&Estimate], output: &Estimate, work: Work) -> bool {
        let costs = &OperatorCosts::SERVER;
        let fetched: f64 = inputs.iter().map(|input| input.transfer(costs)).sum();
        work.there + output.transfer(costs) < work.here + fetched
    }

    #[test]
    fn aggregates_that_reduce_go_and_those_that_do_not_stay() {
        let input = table(1e6, &[10.0, 1e6]);
        let few = input.grouped(vec![input.columns[0].clone()], vec![value()]);
        assert_eq!(few.rows, 10.0);
        assert!(pushed_is_cheaper(&[&input], &few, aggregate(&input, few.rows, 1)));
        let all = input.grouped(vec![input.columns[1].clone()], vec![value()]);
        assert_eq!(all.rows, 1e6);
        assert!(!pushed_is_cheaper(&[&input], &all, aggregate(&input, all.rows, 1)));
        // Nothing is known of an expression: every row may be a group.
        let unknown = input.grouped(vec![value()], vec![value()]);
        assert!(!pushed_is_cheaper(&[&input], &unknown, aggregate(&input, unknown.rows, 1)));
        // One row is one row, whatever is known.
        let unknown = Estimate { known: false, ..input.clone() };
        let one = unknown.grouped(vec![], vec![value()]);
        assert!(one.known && one.rows == 1.0);
        assert!(pushed_is_cheaper(&[&unknown], &one, aggregate(&unknown, one.rows, 1)));
    }

    #[test]
    fn joins_that_multiply_stay_and_those_that_select_go() {
        let (orders, customers) = (table(1.5e6, &[1e5]), table(1e5, &[1e5]));
        // Every order with all of its customer: more bytes than before.
        let wide = orders.joined(&customers, &[(Some(1e5), Some(1e5))], &[], true);
        assert_eq!(wide.rows, 1.5e6);
        let work = join(&orders, &customers, &wide);
        assert!(!pushed_is_cheaper(&[&orders, &customers], &wide, work));
        // A few customers select a few of their orders.
        let few = table(100.0, &[100.0]);
        let selected = orders.joined(&few, &[(Some(1e5), Some(100.0))], &[], true);
        assert_eq!(selected.rows, 1500.0);
        let work = join(&orders, &few, &selected);
        assert!(pushed_is_cheaper(&[&orders, &few], &selected, work));
        assert!(!orders.joined(&few, &[(None, Some(100.0))], &[], true).known);
    }

    #[test]
    fn a_key_says_the_other_columns_of_its_row() {
        let table = |id, rows, columns: &[(f64, bool)]| {
            let of: Vec<_> = columns.iter().map(|(n, key)| (Some(*n), *key)).collect();
            table(rows, &columns.iter().map(|(n, _)| *n).collect::<Vec<_>>()).of_table(id, &of)
        };
        // Key, name, nation; key, name; customer, date.
        let customer = table(0, 1e5, &[(1e5, true), (1e5, false), (25.0, false)]);
        let nation = table(1, 25.0, &[(25.0, true), (25.0, false)]);
        let orders = table(2, 1e6, &[(6e4, false), (2400.0, false)]);
        let groups = |of: &Estimate, keys: &[usize]| {
            let keys = keys.iter().map(|key| of.columns[*key].clone()).collect();
            of.grouped(keys, vec![]).rows
        };
        assert_eq!(groups(&customer, &[0, 1, 2]), 1e5);
        assert_eq!(groups(&customer, &[2, 2]), 625.0);
        let both = customer.joined(&nation, &[(Some(25.0), Some(25.0))], &[(2, 0)], true);
        let all = orders.joined(&both, &[(Some(6e4), Some(1e5))], &[(0, 0)], true);
        assert_eq!(all.rows, 1e6);
        // The order's customer says the customer, who says the nation; not the date.
        assert_eq!(groups(&all, &[0, 3, 4, 6]), 6e4);
        assert_eq!(groups(&all, &[2, 0, 5]), 6e4);
        assert_eq!(groups(&all, &[6]), 25.0);
        assert_eq!(groups(&all, &[1, 6]), 6e4);
        assert_eq!(groups(&all, &[0, 1]), 1e6);
        // Rows of the left side that are kept without a partner have no key of the right one.
        let left = both.joined(&orders, &[(Some(1e5), Some(6e4))], &[(0, 0)], false);
        assert_eq!((left.columns[0].identifies, left.columns[5].identifies), (Some(0), None));
        assert_eq!((left.columns[0].distinct, left.columns[5].distinct), (Some(1e5), Some(6e4)));
    }

    #[test]
    fn partners() {
        let (left, right) = (table(1000.0, &[1000.0]), table(10.0, &[10.0]));
        let keys = [(Some(1000.0), Some(10.0))];
        assert_eq!(left.having_partner(&right, &keys, false).rows, 10.0);
        assert_eq!(left.having_partner(&right, &keys, true).rows, 990.0);
        assert!(!left.having_partner(&right, &[(None, None)], false).known);
    }

    #[test]
    fn the_first_few_go() {
        let input = table(1e5, &[1e5]);
        let top_ten = input.clone().at_most(10.0);
        assert_eq!((top_ten.rows, top_ten.columns[0].distinct), (10.0, Some(10.0)));
        assert!(pushed_is_cheaper(&[&input], &top_ten, top(&input)));
    }

    #[test]
    fn statistics_are_taken_as_they_are() {
        let mut statistics = Statistics::default();
        let unknown = Estimate::of_statistics(&statistics, &[Some(4), None]);
        assert!(!unknown.known && unknown.rows == UNKNOWN_ROWS);
        assert_eq!(unknown.columns[0].width, 4.0);
        statistics.num_rows = Precision::Inexact(50);
        let known = Estimate::of_statistics(&statistics, &[]);
        assert!(known.known && known.rows == 50.0);
    }
}

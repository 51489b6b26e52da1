//! A list of many values as one expression. What prepares a filter for a file goes through all of
//! its expressions, several times per file: through 30,000 literals that takes longer than to read
//! the file. Statistics are compared with a few ranges that hold the values.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, InListExpr, Literal, lit};

/// Lists of more values are made one expression. DataFusion compares statistics with 20 at most.
const MOST_VALUES: usize = 20;
/// Longer lists are not compared with statistics: their ranges would leave few gaps.
const MOST_IN_RANGES: usize = 20_000;
/// The ranges that statistics are compared with, at most.
const RANGES: usize = 16;
/// Ranges are worth having when they leave out such a part of what lies between the ends.
const WORTH: f64 = 0.2;

/// `expr IN (…)`, of which only `expr` is seen.
#[derive(Debug, Clone)]
pub struct Members {
    expr: Arc<dyn PhysicalExpr>,
    /// Over the same expression.
    list: Arc<dyn PhysicalExpr>,
    /// Ranges that hold all values; none when they cannot be told. Made when they are asked for.
    ranges: Arc<OnceLock<Vec<Range>>>,
}

/// The least and the greatest of some values.
type Range = (ScalarValue, ScalarValue);

impl Members {
    /// `list` as one expression when it is long, over `expr` instead of its own.
    pub fn of(
        list: &Arc<dyn PhysicalExpr>,
        replace: impl FnOnce(&Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Option<Self>> {
        let Some(long) = list.downcast_ref::<InListExpr>().filter(|l| l.len() > MOST_VALUES) else {
            return Ok(None);
        };
        let expr = replace(long.expr())?;
        Ok(Some(Self { list: over(list, &expr)?, expr, ranges: Arc::default() }))
    }

    fn ranges(&self) -> &[Range] {
        self.ranges.get_or_init(|| {
            let list = self.list.downcast_ref::<InListExpr>();
            list.filter(|list| !list.negated()).and_then(ranges).unwrap_or_default()
        })
    }
}

/// `None` when there are too many values, or some that have no order.
fn ranges(list: &InListExpr) -> Option<Vec<Range>> {
    if list.len() > MOST_IN_RANGES {
        return None;
    }
    let values = list.list().iter().map(|item| Some(item.downcast_ref::<Literal>()?.value()));
    let mut values: Vec<&ScalarValue> = values.collect::<Option<_>>()?;
    // NULL is equal to nothing.
    values.retain(|value| !value.is_null());
    let data_type = values.first()?.data_type();
    let ordered = !data_type.is_nested() && !data_type.is_floating();
    if !ordered || values.iter().any(|value| value.data_type() != data_type) {
        return None;
    }
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    // Apart at the widest gaps; in equal parts where there is no measure of them.
    let distances = values.windows(2).map(|pair| pair[0].distance_u64(pair[1]));
    let mut gaps: Vec<(usize, u64)> = match distances.collect::<Option<Vec<u64>>>() {
        Some(distances) => distances.into_iter().enumerate().collect(),
        None => {
            let part = values.len().div_ceil(RANGES).max(1);
            (1..values.len()).filter(|at| at % part == 0).map(|at| (at - 1, u64::MAX)).collect()
        }
    };
    let length = |gaps: &[(usize, u64)]| gaps.iter().map(|(_, gap)| *gap as f64).sum::<f64>();
    let all = length(&gaps);
    gaps.sort_unstable_by_key(|(_, distance)| Reverse(*distance));
    gaps.truncate(RANGES - 1);
    if length(&gaps) < WORTH * all {
        gaps.clear();
    }
    let mut ends: Vec<usize> = gaps.into_iter().map(|(before, _)| before).collect();
    ends.push(values.len().checked_sub(1)?);
    ends.sort_unstable();
    let mut start = 0;
    let ranges = ends.into_iter().map(|end| {
        let range = (values[start].clone(), values[end].clone());
        start = end + 1;
        range
    });
    Some(ranges.collect())
}

fn over(
    list: &Arc<dyn PhysicalExpr>,
    expr: &Arc<dyn PhysicalExpr>,
) -> DfResult<Arc<dyn PhysicalExpr>> {
    let values = list.children().into_iter().skip(1).cloned();
    let children = std::iter::once(Arc::clone(expr)).chain(values).collect();
    Arc::clone(list).with_new_children(children)
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.list, &other.list)
    }
}

impl Eq for Members {}

impl Hash for Members {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.list).cast::<()>().hash(state);
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.list.children().len().saturating_sub(1);
        write!(f, "{} IN ({values} values)", self.expr)
    }
}

impl PhysicalExpr for Members {
    fn return_field(&self, input_schema: &Schema) -> DfResult<FieldRef> {
        self.list.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        self.list.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.expr]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        let [expr] = children.as_slice() else {
            return Err(DataFusionError::Internal("a list of values has one child".to_owned()));
        };
        let (list, ranges) = (over(&self.list, expr)?, Arc::clone(&self.ranges));
        Ok(Arc::new(Self { expr: Arc::clone(expr), list, ranges }))
    }

    /// What statistics are compared with: ranges that hold all values.
    fn snapshot(&self) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
        let both = |left, op, right| -> Arc<dyn PhysicalExpr> {
            Arc::new(BinaryExpr::new(left, op, right))
        };
        let ranges = self.ranges().iter().map(|(low, high)| {
            let low = both(Arc::clone(&self.expr), Operator::GtEq, lit(low.clone()));
            let high = both(Arc::clone(&self.expr), Operator::LtEq, lit(high.clone()));
            both(low, Operator::And, high)
        });
        // A flat tree: every level asks the ones below for their types, again and again.
        let mut level: Vec<Arc<dyn PhysicalExpr>> = ranges.collect();
        while level.len() > 1 {
            let pairs = level.chunks(2).map(|pair| match pair {
                [one, other] => both(Arc::clone(one), Operator::Or, Arc::clone(other)),
                one => Arc::clone(&one[0]),
            });
            level = pairs.collect();
        }
        Ok(level.pop())
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod unit_tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, StructArray};
    use datafusion::physical_expr::expressions::{Column, InListExpr};
    use proptest::prelude::*;

    use super::*;

    /// What statistics are compared with, for each of `rows`; `None` when with nothing.
    fn in_ranges(keys: ArrayRef, rows: ArrayRef, negated: bool) -> Option<Vec<bool>> {
        let schema =
            Schema::new(vec![arrow::datatypes::Field::new("k", rows.data_type().clone(), true)]);
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("k", 0));
        let list = InListExpr::try_new_from_array(column, keys, negated, &schema).expect("a list");
        let list: Arc<dyn PhysicalExpr> = Arc::new(list);
        let members = Members::of(&list, |expr| Ok(Arc::clone(expr))).expect("made")?;
        let ranges = members.snapshot().expect("made")?;
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(&rows)]).expect("rows");
        let found = ranges.evaluate(&batch).and_then(|v| v.into_array(rows.len())).expect("said");
        Some(found.as_boolean().iter().map(|found| found == Some(true)).collect())
    }

    proptest! {
        #[test]
        fn ranges_hold_every_value(
            keys in proptest::collection::vec(prop_oneof![0_i64..500, any::<i64>()], 21..200),
            others in proptest::collection::vec(any::<i64>(), 0..50),
        ) {
            let rows = [keys.clone(), others].concat();
            let (list, all) = (Arc::new(Int64Array::from(keys.clone())), Arc::new(Int64Array::from(rows)));
            let found = in_ranges(list, all, false).expect("they have an order");
            prop_assert!(found[..keys.len()].iter().all(|found| *found));
        }

        #[test]
        fn texts_have_no_distance_but_an_order(
            keys in proptest::collection::vec("[a-c]{0,3}", 21..200),
        ) {
            let list = Arc::new(StringArray::from(keys.clone()));
            let found = in_ranges(Arc::clone(&list) as _, list, false).expect("they have an order");
            prop_assert!(found.iter().all(|found| *found));
        }
    }

    #[test]
    fn stretches_stay_apart() {
        let keys: Int64Array = (0..2_000).chain(1_000_000..1_002_000).chain([i64::MAX]).collect();
        let rows: Int64Array =
            [0, 1_999, 5_000, 999_999, 1_001_999, 1_002_500, i64::MAX].into_iter().collect();
        let found = in_ranges(Arc::new(keys), Arc::new(rows), false).expect("they have an order");
        assert_eq!(found, [true, true, false, false, true, false, true]);
    }

    #[test]
    fn keys_of_two_columns_have_no_ranges() {
        let numbers: ArrayRef = Arc::new((0..100).rev().collect::<Int64Array>());
        let pairs = StructArray::try_from(vec![("c0", Arc::clone(&numbers)), ("c1", numbers)]);
        let pairs: ArrayRef = Arc::new(pairs.expect("equally long"));
        assert_eq!(in_ranges(Arc::clone(&pairs), pairs, false), None);
    }

    #[test]
    fn what_is_not_in_a_list_has_no_ranges() {
        let keys: ArrayRef = Arc::new((0..100).collect::<Int64Array>());
        assert_eq!(in_ranges(Arc::clone(&keys), Arc::clone(&keys), true), None);
        let many: ArrayRef = Arc::new((0..30_000).collect::<Int64Array>());
        assert_eq!(in_ranges(many, keys, false), None);
    }
}

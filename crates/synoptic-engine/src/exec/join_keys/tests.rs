use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNullExpr,
    NotExpr, lit,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use super::{Domain, Keys};

type Physical = Arc<dyn PhysicalExpr>;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
    ])
}

fn column(index: usize) -> Physical {
    Arc::new(Column::new(["a", "b", "f"][index], index))
}

fn binary(left: Physical, op: Operator, right: Physical) -> Physical {
    Arc::new(BinaryExpr::new(left, op, right))
}

fn one_of(expr: Physical, values: ArrayRef) -> Physical {
    let list = InListExpr::try_new_from_array(expr, values, false, &schema());
    Arc::new(list.expect("the types agree"))
}

fn ints(values: &[i32]) -> Option<datafusion::common::HashSet<ScalarValue>> {
    Some(values.iter().map(|v| ScalarValue::Int32(Some(*v))).collect())
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % n
    }

    fn number(&mut self) -> i32 {
        i32::try_from(self.below(8)).expect("it is small")
    }

    fn word(&mut self) -> String {
        format!("w{}", self.below(6))
    }

    /// A filter like those of joins, and some that are not.
    fn filter(&mut self, depth: u64) -> Physical {
        let op = [Operator::GtEq, Operator::LtEq, Operator::Eq, Operator::NotEq];
        match self.below(if depth == 0 { 6 } else { 11 }) {
            0 => binary(column(0), op[self.below(4) as usize], lit(self.number())),
            1 => binary(column(1), op[self.below(4) as usize], lit(self.word())),
            2 => {
                let values = (0..self.below(4)).map(|i| (i != 3).then(|| self.number()));
                one_of(column(0), Arc::new(values.collect::<Int32Array>()))
            }
            3 => {
                let values = (0..=self.below(3)).map(|_| Some(self.word()));
                one_of(column(1), Arc::new(values.collect::<StringArray>()))
            }
            4 => Arc::new(IsNullExpr::new(column(self.below(2) as usize))),
            5 => lit(self.below(2) == 0),
            6 | 7 => binary(self.filter(depth - 1), Operator::And, self.filter(depth - 1)),
            8 => binary(self.filter(depth - 1), Operator::Or, self.filter(depth - 1)),
            9 => {
                let routed: Physical = Arc::new(CastExpr::new(column(0), DataType::Int64, None));
                let branches = (0..2).map(|i| (lit(i as i64), self.filter(depth - 1))).collect();
                let otherwise = (self.below(2) == 0).then(|| self.filter(depth - 1));
                Arc::new(CaseExpr::try_new(Some(routed), branches, otherwise).expect("a CASE"))
            }
            _ => Arc::new(NotExpr::new(self.filter(depth - 1))),
        }
    }
}

fn holds(domain: &Domain, value: &ScalarValue) -> bool {
    if value.is_null() {
        return domain.nulls;
    }
    domain.values.as_ref().is_none_or(|values| values.contains(value))
        && domain.low.as_ref().is_none_or(|low| value >= low)
        && domain.high.as_ref().is_none_or(|high| value <= high)
}

#[test]
fn no_row_that_a_filter_keeps_is_lost() {
    let a = (0..9).flat_map(|i| [(i < 8).then_some(i); 7]).collect::<Int32Array>();
    let words = |i| (i < 6).then(|| format!("w{i}"));
    let b = (0..9).flat_map(|_| (0..7).map(words)).collect::<StringArray>();
    let f = arrow::array::new_null_array(&DataType::Float64, a.len());
    let columns: Vec<ArrayRef> = vec![Arc::new(a), Arc::new(b), f];
    let batch = RecordBatch::try_new(Arc::new(schema()), columns).expect("a batch");
    let mut random = Random(7);
    let (mut dropped, mut nothing) = (0, 0);
    for _ in 0..20_000 {
        let filter = random.filter(3);
        let keys = Keys::of(&filter, &schema());
        let kept = filter.evaluate(&batch).expect("it is evaluated");
        let kept = kept.into_array(batch.num_rows()).expect("an array");
        let kept = kept.as_boolean();
        nothing += usize::from(keys == Keys::None);
        for row in 0..batch.num_rows() {
            let value = |i| ScalarValue::try_from_array(batch.column(i), row).expect("a value");
            let held = match &keys {
                Keys::Any => true,
                Keys::None => false,
                Keys::In(domains) => domains.iter().all(|(i, d)| holds(d, &value(*i))),
            };
            let wanted = kept.is_valid(row) && kept.value(row);
            assert!(held || !wanted, "{filter} keeps row {row}, and {keys:?} does not");
            dropped += usize::from(!held);
        }
    }
    assert!(dropped > 100_000 && nothing > 100, "{dropped} rows and {nothing} filters");
}

#[test]
fn keys_of_all_partitions_are_put_together() {
    let part = |from: i32, keys: &[i32]| {
        let low = binary(column(0), Operator::GtEq, lit(from));
        let high = binary(column(0), Operator::LtEq, lit(from + 10));
        let list = one_of(column(0), Arc::new(Int32Array::from(keys.to_vec())));
        binary(binary(low, Operator::And, high), Operator::And, list)
    };
    let branches = vec![(lit(0_i32), part(0, &[1, 1, 2])), (lit(1_i32), part(20, &[20, 21]))];
    let case = CaseExpr::try_new(Some(column(0)), branches, Some(lit(false))).expect("a CASE");
    let filter = Arc::new(DynamicFilterPhysicalExpr::new(vec![column(0)], lit(true)));
    let physical: Physical = Arc::<DynamicFilterPhysicalExpr>::clone(&filter);
    assert_eq!(Keys::of(&physical, &schema()), Keys::Any);
    filter.update(Arc::new(case)).expect("it is updated");
    let Keys::In(domains) = Keys::of(&physical, &schema()) else { panic!("there are keys") };
    let domain = Domain {
        values: ints(&[1, 2, 20, 21]),
        low: Some(ScalarValue::Int32(Some(0))),
        high: Some(ScalarValue::Int32(Some(30))),
        nulls: false,
    };
    assert_eq!(domains.into_iter().collect::<Vec<_>>(), [(0, domain)]);
}

#[test]
fn wider_keys_are_narrowed_exactly_and_floats_are_left_alone() {
    let wide: Physical = Arc::new(CastExpr::new(column(0), DataType::Int64, None));
    let values = Int64Array::from(vec![Some(5), Some(i64::MAX), None, Some(-1)]);
    let list = one_of(Arc::clone(&wide), Arc::new(values));
    let Keys::In(domains) = Keys::of(&list, &schema()) else { panic!("there are keys") };
    assert_eq!(domains[&0].values, ints(&[5, -1]));
    let none = one_of(Arc::clone(&wide), Arc::new(Int64Array::from(vec![i64::MAX])));
    assert_eq!(Keys::of(&none, &schema()), Keys::None);
    // A bound would have to be rounded.
    let bound = binary(wide, Operator::GtEq, lit(3_i64));
    assert_eq!(Keys::of(&bound, &schema()), Keys::Any);
    let narrowed: Physical = Arc::new(CastExpr::new(column(0), DataType::Int16, None));
    let list = one_of(narrowed, Arc::new(arrow::array::Int16Array::from(vec![1])));
    assert_eq!(Keys::of(&list, &schema()), Keys::Any);
    let floats = one_of(column(2), Arc::new(arrow::array::Float64Array::from(vec![0.0, 1.0])));
    assert_eq!(Keys::of(&floats, &schema()), Keys::Any);
    // A column of another name is another column.
    let renamed: Physical = Arc::new(Column::new("z", 0));
    let list = one_of(renamed, Arc::new(Int32Array::from(vec![1])));
    assert_eq!(Keys::of(&list, &schema()), Keys::Any);
}

#[test]
fn keys_of_two_columns_are_the_values_of_each() {
    let wide: Physical = Arc::new(CastExpr::new(column(0), DataType::Int64, None));
    let numbers = Int64Array::from(vec![Some(7), Some(7), None, Some(i64::MAX)]);
    let words = StringArray::from(vec![Some("x"), Some("y"), Some("x"), None]);
    let rows = StructArray::try_from(vec![
        ("c0", Arc::new(numbers) as ArrayRef),
        ("c1", Arc::new(words) as ArrayRef),
    ]);
    let rows = rows.expect("equally long");
    let pair = Arc::new(Field::new("struct", rows.data_type().clone(), true));
    let (function, config) = (datafusion::functions::core::r#struct(), Arc::default());
    let arguments = vec![wide, column(1)];
    let pair = Arc::new(ScalarFunctionExpr::new("struct", function, arguments, pair, config));
    let Keys::In(domains) = Keys::of(&one_of(pair, Arc::new(rows)), &schema()) else {
        panic!("there are keys")
    };
    assert_eq!(domains[&0].values, ints(&[7]));
    let words = ["x", "y"].map(ScalarValue::from);
    assert_eq!(domains[&1].values, Some(words.into_iter().collect()));
}

//! `sum()` that fails when the result does not fit, where DataFusion's would wrap around.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::sum_checked;
use arrow::datatypes::{
    ArrowNumericType, DataType, Decimal128Type, Decimal256Type, DecimalType, FieldRef, Int64Type,
    UInt64Type, i256,
};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Operator,
    ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// DataFusion's `sum`, checked for integers and decimals.
pub(crate) fn checked_sum() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(CheckedSum { plain: Sum::new() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    plain: Sum,
}

/// Calls `$checked` with the type of the result, or `$plain` where nothing can wrap.
macro_rules! by_type {
    ($args:expr, $checked:ident, $plain:expr $(, $more:expr)*) => {
        match $args.return_field.data_type() {
            DataType::Int64 => Ok($checked::<Int64Type>($args $(, $more)*)),
            DataType::UInt64 => Ok($checked::<UInt64Type>($args $(, $more)*)),
            DataType::Decimal128(..) => Ok($checked::<Decimal128Type>($args $(, $more)*)),
            DataType::Decimal256(..) => Ok($checked::<Decimal256Type>($args $(, $more)*)),
            _ => $plain,
        }
    };
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn signature(&self) -> &Signature {
        self.plain.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.plain.return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            let values = self.plain.accumulator(args.clone())?;
            return by_type!(args, distinct, Ok(values), values);
        }
        by_type!(args, one_group, self.plain.accumulator(args))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.plain.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.plain.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        by_type!(args, many_groups, self.plain.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return self.plain.create_sliding_accumulator(args);
        }
        by_type!(args, one_group, self.plain.create_sliding_accumulator(args))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.plain.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.plain.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.plain.set_monotonicity(data_type)
    }

    fn simplify_expr_op_literal(
        &self,
        aggregate: &AggregateFunction,
        arg: &Expr,
        op: Operator,
        literal: &Expr,
        arg_is_left: bool,
    ) -> Result<Option<Expr>> {
        self.plain.simplify_expr_op_literal(aggregate, arg, op, literal, arg_is_left)
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        self.plain.value_from_stats(statistics)
    }
}

/// A type whose sums are checked.
trait Summed: ArrowNumericType + fmt::Debug + Send {
    /// Whether a sum has no more digits than its type says.
    fn fits(sum: Self::Native, data_type: &DataType) -> bool;
}

impl Summed for Int64Type {
    fn fits(_sum: i64, _data_type: &DataType) -> bool {
        true
    }
}

impl Summed for UInt64Type {
    fn fits(_sum: u64, _data_type: &DataType) -> bool {
        true
    }
}

impl Summed for Decimal128Type {
    fn fits(sum: i128, data_type: &DataType) -> bool {
        match data_type {
            DataType::Decimal128(p, _) => Self::is_valid_decimal_precision(sum, *p),
            _ => true,
        }
    }
}

impl Summed for Decimal256Type {
    fn fits(sum: i256, data_type: &DataType) -> bool {
        match data_type {
            DataType::Decimal256(p, _) => Self::is_valid_decimal_precision(sum, *p),
            _ => true,
        }
    }
}

fn overflow(data_type: &DataType) -> DataFusionError {
    DataFusionError::Execution(format!(
        "a sum does not fit {data_type}; cast its argument to a wider type, for example \
         DECIMAL(38, 0)"
    ))
}

fn one_group<T: Summed>(args: AccumulatorArgs) -> Box<dyn Accumulator> {
    Box::new(SumOf::<T>::new(args))
}

/// The sum of one group, or of a window frame that slides.
#[derive(Debug)]
struct SumOf<T: Summed> {
    sum: T::Native,
    /// How many values that are not NULL are in the sum.
    values: u64,
    data_type: DataType,
}

impl<T: Summed> SumOf<T> {
    fn new(args: AccumulatorArgs) -> Self {
        let data_type = args.return_field.data_type().clone();
        Self { sum: T::Native::default(), values: 0, data_type }
    }

    fn part(&self, values: &[ArrayRef]) -> Result<(T::Native, u64)> {
        let values = values[0].as_primitive::<T>();
        let count = (values.len() - values.null_count()) as u64;
        let sum = sum_checked(values).map_err(|_| overflow(&self.data_type))?;
        Ok((sum.unwrap_or_default(), count))
    }
}

impl<T: Summed> Accumulator for SumOf<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (part, count) = self.part(values)?;
        self.sum = self.sum.add_checked(part).map_err(|_| overflow(&self.data_type))?;
        self.values += count;
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (part, count) = self.part(values)?;
        self.sum = self.sum.sub_checked(part).map_err(|_| overflow(&self.data_type))?;
        self.values -= count;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if !T::fits(self.sum, &self.data_type) {
            return Err(overflow(&self.data_type));
        }
        let sum = (self.values > 0).then_some(self.sum);
        ScalarValue::new_primitive::<T>(sum, &self.data_type)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

fn distinct<T: Summed>(
    args: AccumulatorArgs,
    values: Box<dyn Accumulator>,
) -> Box<dyn Accumulator> {
    Box::new(SumOfDistinct { values, sum: SumOf::<T>::new(args) })
}

/// The sum of one group's different values, which DataFusion's accumulator collects.
#[derive(Debug)]
struct SumOfDistinct<T: Summed> {
    values: Box<dyn Accumulator>,
    sum: SumOf<T>,
}

impl<T: Summed> Accumulator for SumOfDistinct<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.values.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.values.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        for state in self.values.state()? {
            if let ScalarValue::List(lists) = state {
                self.sum.update_batch(&[lists.value(0)])?;
            }
        }
        self.sum.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }
}

fn many_groups<T: Summed>(args: AccumulatorArgs) -> Box<dyn GroupsAccumulator> {
    let data_type = args.return_field.data_type().clone();
    let overflowed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&overflowed);
    let add = move |sum: &mut T::Native, value: T::Native| match sum.add_checked(value) {
        Ok(next) => *sum = next,
        Err(_) => seen.store(true, Ordering::Relaxed),
    };
    let sums = PrimitiveGroupsAccumulator::<T, _>::new(&data_type, add);
    Box::new(SumsOf::<T, _> { sums, overflowed, data_type, of: PhantomData })
}

/// The sums of many groups.
struct SumsOf<T, S> {
    sums: S,
    /// Set by the addition that did not fit; its closure has no other way to say so.
    overflowed: Arc<AtomicBool>,
    data_type: DataType,
    of: PhantomData<T>,
}

impl<T: Summed, S> SumsOf<T, S> {
    fn checked(&self) -> Result<()> {
        match self.overflowed.load(Ordering::Relaxed) {
            true => Err(overflow(&self.data_type)),
            false => Ok(()),
        }
    }

    fn fitting(&self, sums: &dyn Array) -> Result<()> {
        let sums: &PrimitiveArray<T> = sums.as_primitive();
        match sums.iter().flatten().all(|sum| T::fits(sum, &self.data_type)) {
            true => Ok(()),
            false => Err(overflow(&self.data_type)),
        }
    }
}

impl<T: Summed, S: GroupsAccumulator> GroupsAccumulator for SumsOf<T, S> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.sums.update_batch(values, groups, filter, total)?;
        self.checked()
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.sums.evaluate(emit_to)?;
        self.fitting(&sums)?;
        Ok(sums)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.sums.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.sums.merge_batch(states, groups, total)?;
        self.checked()
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.sums.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.sums.size()
    }
}

//! `min()` and `max()` of floating-point numbers per group, in the order that everything else here
//! has: negative infinity first, NaN above all.
//!
//! DataFusion's start at the largest and the smallest finite number, so that the least of only
//! infinities is 1.7976931348623157e308; and they let a NaN win or lose by the order of the rows, so
//! that the answer depends on the number of partitions.

use std::sync::Arc;

use arrow::array::ArrowNativeTypeOp;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, FieldRef, Float16Type, Float32Type, Float64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// DataFusion's `min` and `max`, with one order for floating-point numbers.
pub(crate) fn ordered_extremes() -> [Arc<AggregateUDF>; 2] {
    [(min_udaf(), false), (max_udaf(), true)]
        .map(|(plain, greatest)| Arc::new(AggregateUDF::from(OrderedExtreme { plain, greatest })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedExtreme {
    plain: Arc<AggregateUDF>,
    /// `max`, otherwise `min`.
    greatest: bool,
}

impl AggregateUDFImpl for OrderedExtreme {
    fn name(&self) -> &str {
        self.plain.inner().name()
    }

    fn signature(&self) -> &Signature {
        self.plain.inner().signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.plain.inner().coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.plain.inner().return_type(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.plain.inner().accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.plain.inner().state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.plain.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type();
        match data_type {
            DataType::Float16 => Ok(groups::<Float16Type>(data_type, self.greatest)),
            DataType::Float32 => Ok(groups::<Float32Type>(data_type, self.greatest)),
            DataType::Float64 => Ok(groups::<Float64Type>(data_type, self.greatest)),
            _ => self.plain.inner().create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.plain.inner().create_sliding_accumulator(args)
    }

    fn is_descending(&self) -> Option<bool> {
        self.plain.inner().is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.plain.inner().order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.plain.inner().reverse_expr()
    }

    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        self.plain.inner().value_from_stats(statistics)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.plain.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.plain.inner().documentation()
    }
}

fn groups<T: ArrowPrimitiveType + Send>(
    data_type: &DataType,
    greatest: bool,
) -> Box<dyn GroupsAccumulator> {
    let start = if greatest {
        <T::Native as ArrowNativeTypeOp>::MIN_TOTAL_ORDER
    } else {
        <T::Native as ArrowNativeTypeOp>::MAX_TOTAL_ORDER
    };
    let take = move |current: &mut T::Native, new: T::Native| {
        let better = if greatest { new.is_gt(*current) } else { new.is_lt(*current) };
        if better {
            *current = new;
        }
    };
    let values = PrimitiveGroupsAccumulator::<T, _>::new(data_type, take);
    Box::new(values.with_starting_value(start))
}

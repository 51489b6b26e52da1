//! `+`, `-` and `*` of decimals whose values are seen to be too small to overflow: prices and
//! quantities have a few digits, whatever their types allow. One pass finds out how many bits the
//! operands have, and the operation itself needs no check for any value, and no 128 bits where 64 do.

use arrow::array::{Array, AsArray, Datum, Decimal128Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type};

/// What is done to the operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
}

/// The result of `operation` in `result`, the type that the operator gives it; `None` when that
/// could overflow its digits, or when the operands are not two decimals of 128 bits with a value.
pub(super) fn compute(
    operation: Operation,
    left: &dyn Datum,
    right: &dyn Datum,
    result: &DataType,
) -> Option<Decimal128Array> {
    let DataType::Decimal128(digits, scale) = *result else { return None };
    let (left, right) = (Operand::of(left)?, Operand::of(right)?);
    let values = match operation {
        Operation::Multiply => {
            let bits = left.bits + right.bits;
            match fits(bits, digits) {
                false => None,
                // Two to the 62 at most.
                true if bits < i64::BITS - 1 => {
                    left.with(&right, |l, r| i128::from((l as i64).wrapping_mul(r as i64)))
                }
                true => left.with(&right, i128::wrapping_mul),
            }
        }
        Operation::Add | Operation::Subtract => {
            let power = |from| 10_i128.checked_pow(u32::try_from(scale.checked_sub(from)?).ok()?);
            let (to_left, to_right) = (power(left.scale)?, power(right.scale)?);
            let bits = (left.bits + bits_of(to_left)).max(right.bits + bits_of(to_right)) + 1;
            let negate = if operation == Operation::Subtract { -1 } else { 1 };
            match fits(bits, digits) {
                false => None,
                true if to_left == 1 && to_right == 1 && negate == 1 => {
                    left.with(&right, i128::wrapping_add)
                }
                true if to_left == 1 && to_right == 1 => left.with(&right, i128::wrapping_sub),
                true => {
                    let to_right = negate * to_right;
                    left.with(&right, |l, r| {
                        l.wrapping_mul(to_left).wrapping_add(r.wrapping_mul(to_right))
                    })
                }
            }
        }
    }?;
    values.with_precision_and_scale(digits, scale).ok()
}

/// Whether every number below two to the `bits` has no more than so many digits.
fn fits(bits: u32, digits: u8) -> bool {
    // log2(10) is 3.3219….
    bits <= u32::from(digits) * 3321 / 1000
}

/// How many bits hold `value`, which is not negative.
fn bits_of(value: i128) -> u32 {
    i128::BITS - value.leading_zeros()
}

/// An array, or one value for all rows.
struct Operand<'a> {
    array: &'a Decimal128Array,
    is_scalar: bool,
    scale: i8,
    /// No value is further from zero than two to the power of this.
    bits: u32,
}

impl<'a> Operand<'a> {
    fn of(datum: &'a dyn Datum) -> Option<Self> {
        let (array, is_scalar) = datum.get();
        let array = array.as_primitive_opt::<Decimal128Type>()?;
        let DataType::Decimal128(_, scale) = *array.data_type() else { return None };
        if is_scalar && (array.len() != 1 || array.null_count() > 0) {
            return None;
        }
        // What lies below a NULL counts, too: at worst, the checked way is taken.
        let all = array.values().iter().fold(0, |all, value| all | (value ^ (value >> 127)));
        Some(Self { array, is_scalar, scale, bits: bits_of(all) })
    }

    fn with(&self, right: &Self, f: impl Fn(i128, i128) -> i128) -> Option<Decimal128Array> {
        let (l, r) = (self.array.values(), right.array.values());
        let values: Vec<i128> = match (self.is_scalar, right.is_scalar) {
            (false, false) if l.len() == r.len() => {
                l.iter().zip(r.iter()).map(|(l, r)| f(*l, *r)).collect()
            }
            (true, false) => {
                let l = *l.first()?;
                r.iter().map(|r| f(l, *r)).collect()
            }
            (false, true) => {
                let r = *r.first()?;
                l.iter().map(|l| f(*l, r)).collect()
            }
            _ => return None,
        };
        // A scalar is not NULL.
        let nulls = |operand: &Self| operand.array.nulls().filter(|_| !operand.is_scalar).cloned();
        let nulls = NullBuffer::union(nulls(self).as_ref(), nulls(right).as_ref());
        Some(Decimal128Array::new(values.into(), nulls))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Scalar;
    use arrow::compute::kernels::numeric;
    use proptest::prelude::*;

    use super::*;

    /// Decimals of few and of many digits, with NULLs.
    fn operand(rows: usize) -> impl Strategy<Value = Decimal128Array> {
        (1_u8..=38).prop_flat_map(move |digits| {
            let most = 10_i128.pow(u32::from(digits)) - 1;
            let value = prop_oneof![
                4 => -1000_i128..1000,
                1 => Just(0_i128),
                2 => -most..=most,
                1 => Just(most),
                1 => Just(-most),
            ]
            .prop_map(move |value| value.clamp(-most, most));
            let values = proptest::collection::vec(proptest::option::weighted(0.9, value), rows);
            (values, 0..=digits.min(20) as i8).prop_map(move |(values, scale)| {
                let array: Decimal128Array = values.into_iter().collect();
                array.with_precision_and_scale(digits, scale).expect("the digits fit")
            })
        })
    }

    /// What arrow makes of it, checked against the digits of its type.
    fn slow(operation: Operation, left: &dyn Datum, right: &dyn Datum) -> Option<Decimal128Array> {
        let made = match operation {
            Operation::Add => numeric::add(left, right),
            Operation::Subtract => numeric::sub(left, right),
            Operation::Multiply => numeric::mul(left, right),
        };
        let made = made.ok()?.as_primitive::<Decimal128Type>().clone();
        made.validate_decimal_precision(made.precision()).ok().map(|()| made)
    }

    fn result_type(operation: Operation, left: &DataType, right: &DataType) -> Option<DataType> {
        let (left, right) =
            (arrow::array::new_empty_array(left), arrow::array::new_empty_array(right));
        slow(operation, &left, &right).map(|made| made.data_type().clone())
    }

    fn check(operation: Operation, left: &dyn Datum, right: &dyn Datum) {
        let types = (left.get().0.data_type(), right.get().0.data_type());
        let Some(result) = result_type(operation, types.0, types.1) else { return };
        if let Some(fast) = compute(operation, left, right, &result) {
            assert_eq!(Some(fast), slow(operation, left, right), "{operation:?} of {types:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_not_checked_is_what_checking_gives(left in operand(6), right in operand(6)) {
            for operation in [Operation::Add, Operation::Subtract, Operation::Multiply] {
                check(operation, &left, &right);
                check(operation, &Scalar::new(left.slice(0, 1)), &right);
                check(operation, &left, &Scalar::new(right.slice(0, 1)));
            }
        }
    }

    #[test]
    fn prices_are_not_checked_and_what_may_overflow_is() {
        let decimal = |values: Vec<i128>, digits, scale| {
            Decimal128Array::from(values).with_precision_and_scale(digits, scale).expect("digits")
        };
        let price = decimal(vec![10_494_950, -4, 0], 15, 2);
        let less = decimal(vec![96, 4, 0], 16, 2);
        let product = DataType::Decimal128(32, 4);
        let made = compute(Operation::Multiply, &price, &less, &product).expect("small");
        assert_eq!(made.values().as_ref(), [1_007_515_200, -16, 0]);
        let most = decimal(vec![10_i128.pow(38) - 1], 38, 0);
        let one = decimal(vec![1], 1, 0);
        let full = DataType::Decimal128(38, 0);
        assert_eq!(compute(Operation::Add, &most, &one, &full), None);
        assert_eq!(compute(Operation::Multiply, &most, &most, &full), None);
        let null = Scalar::new([None::<i128>].into_iter().collect::<Decimal128Array>());
        assert_eq!(compute(Operation::Add, &null, &one, &full), None);
    }
}

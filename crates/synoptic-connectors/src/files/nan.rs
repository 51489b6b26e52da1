//! One NaN. Floating-point columns may hold NaN with either sign and any payload; the engine orders
//! values by their bits, where a negative NaN is below every number and statistics, which leave
//! NaN out, say nothing of it. Files therefore show a single NaN, above every number.

use std::sync::Arc;

use arrow::array::types::ArrowPrimitiveType;
use arrow::array::{Array, ArrayData, ArrayRef, AsArray, make_array};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;

/// `array` with the positive quiet NaN in place of every NaN, at any depth.
pub fn one_nan(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    /// The three types have the same methods and no trait in common.
    macro_rules! floats {
        ($type:ty) => {{
            type Native = <$type as ArrowPrimitiveType>::Native;
            let floats = array.as_primitive::<$type>();
            let nan = Native::NAN;
            let other = |value: &Native| value.is_nan() && value.to_bits() != nan.to_bits();
            if floats.values().iter().any(other) {
                let one = |value: Native| if value.is_nan() { nan } else { value };
                Arc::new(floats.unary::<_, $type>(one)) as ArrayRef
            } else {
                Arc::clone(array)
            }
        }};
    }
    Ok(match array.data_type() {
        DataType::Float16 => floats!(Float16Type),
        DataType::Float32 => floats!(Float32Type),
        DataType::Float64 => floats!(Float64Type),
        data_type if has_float(data_type) => {
            let data = array.to_data();
            let children = data.child_data().iter().map(|child| {
                let child: ArrayRef = make_array(child.clone());
                one_nan(&child).map(|child| child.to_data())
            });
            let children: Vec<ArrayData> = children.collect::<Result<_, _>>()?;
            make_array(data.into_builder().child_data(children).build()?)
        }
        _ => Arc::clone(array),
    })
}

/// Whether values of this type hold floating-point numbers.
pub fn has_float(data_type: &DataType) -> bool {
    match data_type {
        t if t.is_floating() => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_float(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_float(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| has_float(field.data_type())),
        DataType::Dictionary(_, values) => has_float(values),
        DataType::RunEndEncoded(_, values) => has_float(values.data_type()),
        _ => false,
    }
}

#[cfg(test)]
mod unit_tests {
    use arrow::array::{Float32Array, Float64Array, ListArray, StructArray};
    use arrow::datatypes::Field;

    use super::*;

    fn bits(array: &ArrayRef) -> Vec<Option<u64>> {
        array.as_primitive::<Float64Type>().iter().map(|v| v.map(f64::to_bits)).collect()
    }

    #[test]
    fn every_nan_is_the_same_at_any_depth() {
        let payload = f64::from_bits(0x7FF0_0000_0000_0001);
        let mixed = vec![Some(-f64::NAN), None, Some(-0.0), Some(payload), Some(-f64::INFINITY)];
        let wanted = [Some(f64::NAN), None, Some(-0.0), Some(f64::NAN), Some(-f64::INFINITY)];
        let wanted: Vec<_> = wanted.iter().map(|v| v.map(f64::to_bits)).collect();
        let flat: ArrayRef = Arc::new(Float64Array::from(mixed));
        assert_eq!(bits(&one_nan(&flat).expect("made")), wanted);

        let inside = StructArray::from(vec![(
            Arc::new(Field::new("f", DataType::Float64, true)),
            Arc::clone(&flat),
        )]);
        let item = Arc::new(Field::new("item", inside.data_type().clone(), true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0, 3]);
        let list: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(inside), None));
        let made = one_nan(&list).expect("made");
        assert_eq!(made.data_type(), list.data_type());
        let inner = made.as_list::<i32>().values().as_struct().column(0).clone();
        assert_eq!(bits(&inner), wanted);
        // A part of it is the same part.
        let part = one_nan(&list.slice(2, 1)).expect("made");
        let inner = part.as_list::<i32>().value(0).as_struct().column(0).clone();
        assert_eq!(bits(&inner), wanted[2..]);

        let single: ArrayRef = Arc::new(Float32Array::from(vec![-f32::NAN, 1.0]));
        let made = one_nan(&single).expect("made");
        let made = made.as_primitive::<Float32Type>();
        assert!(made.value(0).is_nan() && made.value(0).is_sign_positive());
    }
}

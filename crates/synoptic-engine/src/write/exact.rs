//! Values as their columns take them: exactly, or an error. SQL's own casts round and cut off.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};

const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// Digits of a fraction of a second that a timestamp keeps.
const MICROS: usize = 6;

/// Kinds of types between which values can be converted and back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Bool,
    Number,
    Text,
    Bytes,
    Date,
    Wall,
    Moment,
    Time,
    List,
    Other,
}

fn class(data_type: &DataType) -> Class {
    match data_type {
        DataType::Boolean => Class::Bool,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Class::Bytes,
        DataType::Date32 | DataType::Date64 => Class::Date,
        DataType::Timestamp(_, None) => Class::Wall,
        DataType::Timestamp(_, Some(_)) => Class::Moment,
        DataType::Time32(_) | DataType::Time64(_) => Class::Time,
        DataType::List(_) | DataType::LargeList(_) => Class::List,
        DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Class::Number,
        other if other.is_integer() => Class::Number,
        _ => Class::Other,
    }
}

/// Whether values of `from` can be written to a column of `to`, if they fit.
///
/// # Errors
/// What to write instead.
pub(super) fn check(from: &DataType, to: &DataType) -> Result<(), String> {
    let (from, to) = (plain(from), to);
    if from == to || *from == DataType::Null {
        return Ok(());
    }
    let fits = match (class(from), class(to)) {
        (Class::Other, _) | (_, Class::Other) => false,
        (a, b) if a == b => true,
        (Class::Text, Class::Date | Class::Wall | Class::Moment | Class::Time)
        | (Class::Date, Class::Wall) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let advice = match (class(from), class(to)) {
        (Class::Wall | Class::Date, Class::Moment) => {
            "; write a timestamp with an offset, such as '2026-01-31T12:00:00Z'"
        }
        _ => "; convert it with CAST",
    };
    Err(format!("a value of type {from} cannot be written to a column of type {to}{advice}"))
}

/// A dictionary's values' type.
fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

/// `array` as `to`, with the same values.
///
/// # Errors
/// Which value does not fit.
pub(super) fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(to, array.len()));
    }
    check(array.data_type(), to)?;
    let from = plain(array.data_type()).clone();
    let array = cast_with_options(array, &from, &STRICT).map_err(|e| e.to_string())?;
    if class(&from) == Class::Text && class(to) != Class::Text {
        return text(&array, to);
    }
    let converted = cast_with_options(&array, to, &STRICT)
        .map_err(|e| format!("a value does not fit {to}: {e}"))?;
    let back = cast_with_options(&converted, &from, &STRICT)
        .map_err(|e| format!("a value does not fit {to}: {e}"))?;
    if back.to_data() == array.to_data() {
        return Ok(converted);
    }
    // The masked values of NULLs may differ; so it is looked for, value by value.
    for row in 0..array.len() {
        let same = array.is_null(row) && back.is_null(row)
            || array.slice(row, 1).to_data() == back.slice(row, 1).to_data();
        if !same {
            let shown = arrow::util::display::array_value_to_string(&array, row);
            return Err(format!(
                "the value {} cannot be stored as {to} without a change",
                shown.unwrap_or_default()
            ));
        }
    }
    Ok(converted)
}

/// Texts as dates and times.
fn text(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let texts = cast_with_options(array, &DataType::Utf8, &STRICT).map_err(|e| e.to_string())?;
    let texts: &StringArray = texts.as_string();
    for value in texts.iter().flatten() {
        time_text(value, to).map_err(|why| format!("'{value}' is no {to}: {why}"))?;
    }
    cast_with_options(&texts.slice(0, texts.len()), to, &STRICT)
        .map_err(|e| format!("a text is no {to}: {e}"))
}

/// Refuses what the cast would leave out.
fn time_text(text: &str, to: &DataType) -> Result<(), String> {
    if class(to) == Class::Date {
        return if text.len() == 10 { Ok(()) } else { Err("write YYYY-MM-DD".to_owned()) };
    }
    if let Some((_, fraction)) = text.split_once('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).collect::<Vec<_>>();
        if digits.iter().skip(MICROS).any(|digit| *digit != b'0') {
            return Err("it has more than microseconds".to_owned());
        }
    }
    let zoned = text.get(10..).is_some_and(|rest| rest.contains(['Z', 'z', '+', '-']));
    match to {
        DataType::Timestamp(TimeUnit::Microsecond, None) if zoned => {
            Err("the column has no time zone".to_owned())
        }
        DataType::Timestamp(_, Some(_)) if !zoned => {
            Err("write an offset, such as '2026-01-31T12:00:00Z'".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, Int64Array};

    use super::*;

    fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
        let array = Decimal128Array::from(values.to_vec());
        Arc::new(array.with_precision_and_scale(precision, scale).expect("they fit"))
    }

    #[test]
    fn what_is_exact_is_converted() {
        let cents = DataType::Decimal128(10, 2);
        let converted = convert(&decimals(&[15], 2, 1), &cents).expect("1.5 fits");
        assert_eq!(&converted, &decimals(&[150], 10, 2));
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        assert_eq!(convert(&ints, &cents).expect("7 fits").null_count(), 1);
        let tenth = convert(&decimals(&[1], 2, 1), &DataType::Float64).expect("0.1 is a literal");
        assert_eq!(tenth.to_data(), Float64Array::from(vec![0.1]).to_data());
    }

    #[test]
    fn what_would_be_changed_is_an_error() {
        let cents = DataType::Decimal128(10, 2);
        assert!(convert(&decimals(&[1239], 4, 3), &cents).is_err(), "1.239 would be rounded");
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        assert!(convert(&floats, &DataType::Int64).is_err(), "1.5 would be cut off");
        let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
        assert!(convert(&nan, &cents).is_err(), "NaN is no decimal");
        let large: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX]));
        assert!(convert(&large, &DataType::Float64).is_err(), "a float has 53 bits");
        assert!(convert(&large, &DataType::Int32).is_err(), "it has 32 bits");
        assert!(convert(&large, &DataType::Utf8).is_err(), "a number is no text");
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["2026-01-31T12:00:00.1234567"]));
        let wall = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert!(convert(&texts, &wall).is_err(), "it has 100 nanoseconds");
    }

    #[test]
    fn times_are_written_as_texts() {
        let wall = DataType::Timestamp(TimeUnit::Microsecond, None);
        let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
        assert!(convert(&text("2026-01-31 12:00:00.123456"), &wall).is_ok());
        assert!(convert(&text("2026-01-31 12:00:00Z"), &wall).is_err());
        assert!(convert(&text("2026-01-31T12:00:00+01:00"), &moment).is_ok());
        assert!(convert(&text("2026-01-31T12:00:00"), &moment).is_err());
        assert!(convert(&text("2026-01-31"), &DataType::Date32).is_ok());
        assert!(convert(&text("2026-01-31T12:00:00"), &DataType::Date32).is_err());
    }
}

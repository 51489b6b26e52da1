//! Which types hold every value of another.

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use synoptic_source::{Result, SourceError};

/// Refuses a file whose columns are not all whole in the table's: a reader would cut their values.
///
/// # Errors
/// `[DATA]` with the file and the column.
pub fn check(file: &Schema, table: &Schema, shown: &str) -> Result<()> {
    for field in file.fields() {
        if let Ok(wanted) = table.field_with_name(field.name())
            && !holds(wanted.data_type(), field.data_type())
        {
            return Err(cannot_hold(field, wanted.data_type(), shown));
        }
    }
    Ok(())
}

/// A type was declared that would change values.
pub fn cannot_hold(field: &Field, wanted: &DataType, shown: &str) -> SourceError {
    SourceError::data(format!(
        "it is {} in {shown}, of which {wanted} does not hold every value: give another type under \
         `schema` and CAST in the statement, or move the file to another table",
        field.data_type()
    ))
    .in_column(field.name().clone())
}

/// Whether `to` holds every value of `from`, or the reader refuses those it does not hold.
pub fn holds(to: &DataType, from: &DataType) -> bool {
    use DataType::{Date32, FixedSizeBinary, Float16, Float32, Float64, Time32, Time64, Timestamp};
    if to == from {
        return true;
    }
    match (from, to) {
        (DataType::Null, _) => true,
        (DataType::Dictionary(_, values), to) => holds(to, values),
        (DataType::RunEndEncoded(_, values), to) => holds(to, values.data_type()),
        (from, to) if from.is_string() || from.is_binary() => {
            // Bytes that are not UTF-8, and texts that are not numbers, are refused as they are
            // read. Other types would be parsed leniently.
            to.is_string()
                || (from.is_binary() && to.is_binary())
                || (from.is_string() && to.is_integer())
        }
        (FixedSizeBinary(_), to) => to.is_binary(),
        (from, to) if from.is_integer() => integer_fits(from, to),
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (DataType::Boolean | Date32, to) if to.is_string() => true,
        (Date32, Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone)) => {
            is_utc(zone.as_deref())
        }
        (Timestamp(a, from), Timestamp(b, to)) => {
            b >= a
                && match (from, to) {
                    (None, None) | (Some(_), Some(_)) => true,
                    (Some(zone), None) | (None, Some(zone)) => is_utc(Some(zone)),
                }
        }
        (Time32(a) | Time64(a), Time32(b) | Time64(b)) => b >= a,
        (from, to) => match (decimal(from), decimal(to)) {
            (Some((whole, scale)), Some((more, finer))) => more >= whole && finer >= scale,
            (Some((whole, scale)), None) => {
                scale <= 0 && to.is_signed_integer() && {
                    // One digit less than the largest has fits for certain.
                    whole < digits(to)
                }
            }
            _ => nested(from, to),
        },
    }
}

fn integer_fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{Float16, Float32, Float64};
    if let Some((whole, scale)) = decimal(to) {
        return scale >= 0 && whole >= digits(from);
    }
    let unsigned = from.is_unsigned_integer();
    let bits = from.primitive_width().unwrap_or(8) * 8;
    let magnitude = if unsigned { bits } else { bits - 1 };
    match to {
        Float16 => magnitude <= 11,
        Float32 => magnitude <= 24,
        Float64 => magnitude <= 53,
        to if to.is_string() => true,
        to if to.is_integer() => {
            let width = to.primitive_width().unwrap_or(0) * 8;
            let room = if to.is_unsigned_integer() { width } else { width - 1 };
            room >= magnitude && (unsigned || to.is_signed_integer())
        }
        _ => false,
    }
}

/// Decimal digits of the largest number of an integer type.
fn digits(integer: &DataType) -> i16 {
    match integer {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        _ => 20,
    }
}

/// Digits before the point, and digits after it.
fn decimal(data_type: &DataType) -> Option<(i16, i16)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            let scale = i16::from(*scale);
            Some((i16::from(*precision) - scale, scale))
        }
        _ => None,
    }
}

fn is_utc(zone: Option<&str>) -> bool {
    zone.is_none_or(|zone| matches!(zone, "UTC" | "+00:00" | "Z" | "Etc/UTC"))
}

fn nested(from: &DataType, to: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, List, Map, Struct};
    match (from, to) {
        (List(a) | LargeList(a) | FixedSizeList(a, _), List(b) | LargeList(b))
        | (Map(a, _), Map(b, _)) => holds(b.data_type(), a.data_type()),
        (FixedSizeList(a, n), FixedSizeList(b, m)) => n == m && holds(b.data_type(), a.data_type()),
        (Struct(a), Struct(b)) => same_names(a, b),
        _ => false,
    }
}

fn same_names(from: &Fields, to: &Fields) -> bool {
    from.len() == to.len()
        && from
            .iter()
            .zip(to)
            .all(|(a, b)| a.name() == b.name() && holds(b.data_type(), a.data_type()))
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn only_types_that_keep_every_value_hold_it() {
        use DataType::{
            Binary, Boolean, Date32, Decimal128, Float32, Float64, Int16, Int32, Int64, UInt8,
            UInt32, UInt64, Utf8, Utf8View,
        };
        let at = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
        let (us, ns) = (TimeUnit::Microsecond, TimeUnit::Nanosecond);
        let yes = [
            (Int32, Int64),
            (UInt32, Int64),
            (UInt8, Int16),
            (Int32, Float64),
            (Int16, Float32),
            (Int32, Decimal128(12, 2)),
            (Decimal128(10, 2), Decimal128(12, 4)),
            (Decimal128(18, 0), Int64),
            (Float32, Float64),
            (at(us, None), at(ns, None)),
            (at(us, Some("UTC")), at(us, None)),
            (at(us, Some("Europe/Berlin")), at(us, Some("UTC"))),
            (Utf8, Utf8View),
            (Utf8, Int64),
            (Binary, Utf8View),
            (Int64, Utf8),
            (DataType::Dictionary(Box::new(Int32), Box::new(Utf8)), Utf8View),
            (DataType::new_list(Int32, true), DataType::new_list(Int64, true)),
        ];
        for (from, to) in yes {
            assert!(holds(&to, &from), "{from} {to}");
        }
        let no = [
            (Float64, Int64),
            (Float64, Decimal128(10, 1)),
            (Float64, Float32),
            (Int64, Float64),
            (Int64, Int32),
            (Int64, UInt64),
            (UInt64, Int64),
            (Int32, Decimal128(11, 2)),
            (Decimal128(10, 3), Decimal128(12, 2)),
            (Decimal128(10, 2), Decimal128(11, 4)),
            (Decimal128(10, 2), Int64),
            (Decimal128(19, 0), Int64),
            (Decimal128(10, 2), Float64),
            (at(ns, None), at(us, None)),
            (at(us, None), Date32),
            (at(us, Some("Europe/Berlin")), at(us, None)),
            (Date32, at(ns, None)),
            (Utf8, Date32),
            (Utf8, Float64),
            (Utf8, Decimal128(10, 2)),
            (Boolean, Int64),
            (DataType::new_list(Float64, true), DataType::new_list(Int64, true)),
        ];
        for (from, to) in no {
            assert!(!holds(&to, &from), "{from} {to}");
        }
    }
}

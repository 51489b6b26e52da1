//! Values written as text, made into their type without losing anything.
//!
//! The CSV and JSON readers cut digits that do not fit a decimal, an integer or a timestamp.
//! Such columns are therefore read wide (as text, or as a very wide decimal) and made narrow here,
//! where a value that does not fit is an error with its row.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Time64MicrosecondType,
};
use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Decimal256Array, Float32Array,
    Float64Array, Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit, i256};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::Utc;

/// Digits after the point with which JSON numbers are read.
const WIDE_SCALE: i8 = 38;
const WIDE: DataType = DataType::Decimal256(76, WIDE_SCALE);

/// A value that does not fit its column.
#[derive(Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The row in the column, from 0.
    pub row: usize,
    /// The value as text.
    pub value: String,
}

/// The type a CSV column is read with.
pub fn csv_read_type(data_type: &DataType, has_null_value: bool) -> DataType {
    let native = data_type.is_integer() || data_type == &DataType::Boolean;
    if native && !has_null_value { data_type.clone() } else { DataType::Utf8 }
}

/// The type a JSON column is read with.
pub fn json_read_type(data_type: &DataType) -> DataType {
    match data_type {
        t if t.is_integer() => WIDE,
        DataType::Decimal128(..) | DataType::Decimal256(..) => WIDE,
        t if t.is_temporal() => DataType::Utf8,
        other => other.clone(),
    }
}

/// The row of the first number that is infinite: JSON has none, so it was one too large to hold.
pub fn infinite(column: &ArrayRef) -> Option<usize> {
    match column.data_type() {
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            values.iter().position(|value| value.is_some_and(f32::is_infinite))
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            values.iter().position(|value| value.is_some_and(f64::is_infinite))
        }
        _ => None,
    }
}

/// Makes `column`, as it was read, a column of type `to`. A text equal to `null_value` is NULL.
pub fn convert(
    column: &ArrayRef,
    to: &DataType,
    null_value: Option<&str>,
) -> Result<ArrayRef, Misfit> {
    let from = column.data_type().clone();
    if from == DataType::Utf8 {
        let texts = column.as_string::<i32>();
        return match null_value {
            Some(null) => {
                let kept: StringArray = texts.iter().map(|t| t.filter(|t| *t != null)).collect();
                from_text(&kept, to)
            }
            None => from_text(texts, to),
        };
    }
    if from == *to {
        return Ok(Arc::clone(column));
    }
    if from == WIDE {
        return from_wide(column.as_primitive::<Decimal256Type>(), to);
    }
    by_cast(column, to)
}

fn from_text(texts: &StringArray, to: &DataType) -> Result<ArrayRef, Misfit> {
    match to {
        DataType::Utf8 => Ok(Arc::new(texts.clone())),
        DataType::Decimal128(precision, scale) => {
            let values = each(texts, |text| decimal(text, *precision, *scale)?.to_i128())?;
            let array = Decimal128Array::from_iter(values);
            Ok(Arc::new(array.with_data_type(to.clone())))
        }
        DataType::Decimal256(precision, scale) => {
            let values = each(texts, |text| decimal(text, *precision, *scale))?;
            let array = Decimal256Array::from_iter(values);
            Ok(Arc::new(array.with_data_type(to.clone())))
        }
        DataType::Timestamp(unit, zone) => {
            let zoned = zone.is_some();
            let values = Int64Array::from(each(texts, |text| timestamp(text, *unit, zoned))?);
            let (_, values, nulls) = values.into_parts();
            let zone = zone.clone();
            Ok(match unit {
                TimeUnit::Second => {
                    Arc::new(TimestampSecondArray::new(values, nulls).with_timezone_opt(zone))
                        as ArrayRef
                }
                TimeUnit::Millisecond => {
                    Arc::new(TimestampMillisecondArray::new(values, nulls).with_timezone_opt(zone))
                }
                TimeUnit::Microsecond => {
                    Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone_opt(zone))
                }
                TimeUnit::Nanosecond => {
                    Arc::new(TimestampNanosecondArray::new(values, nulls).with_timezone_opt(zone))
                }
            })
        }
        DataType::Date32 => Ok(Arc::new(Date32Array::from(each(texts, date)?))),
        DataType::Float32 => Ok(Arc::new(Float32Array::from(each(texts, float::<f32>)?))),
        DataType::Float64 => Ok(Arc::new(Float64Array::from(each(texts, float::<f64>)?))),
        DataType::Time64(TimeUnit::Microsecond) => {
            let values = each(texts, |text| {
                let (_, fraction) = text.split_once('.').unwrap_or((text, ""));
                let whole = fraction.bytes().skip(6).all(|b| b == b'0');
                Time64MicrosecondType::parse(text).filter(|_| whole)
            })?;
            Ok(Arc::new(Time64MicrosecondArray::from(values)))
        }
        _ => by_cast(&(Arc::new(texts.clone()) as ArrayRef), to),
    }
}

fn from_wide(wide: &Decimal256Array, to: &DataType) -> Result<ArrayRef, Misfit> {
    let (precision, scale) = match to {
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => (*p, *s),
        _ => (19, 0),
    };
    let divisor = ten_to((WIDE_SCALE - scale).unsigned_abs().into());
    let mut narrow = Vec::with_capacity(wide.len());
    for row in 0..wide.len() {
        if wide.is_null(row) {
            narrow.push(None);
            continue;
        }
        let value = wide.value(row);
        let fits = value.checked_rem(divisor) == Some(i256::ZERO);
        let quotient = value.checked_div(divisor).filter(|q| fits && digits(*q) <= precision);
        let misfit = || Misfit { row, value: wide.value_as_string(row) };
        narrow.push(Some(quotient.ok_or_else(misfit)?));
    }
    match to {
        DataType::Decimal256(..) => {
            Ok(Arc::new(Decimal256Array::from_iter(narrow).with_data_type(to.clone())))
        }
        DataType::Decimal128(..) => {
            let narrow = narrow.into_iter().map(|value| value.and_then(i256::to_i128));
            let array = narrow.collect::<arrow::array::PrimitiveArray<Decimal128Type>>();
            Ok(Arc::new(array.with_data_type(to.clone())))
        }
        _ => {
            let whole = narrow.into_iter().map(|value| value.and_then(i256::to_i128));
            let whole: Decimal128Array = whole.collect();
            by_cast(&(Arc::new(whole.with_data_type(DataType::Decimal128(38, 0))) as ArrayRef), to)
        }
    }
}

/// For types where Arrow's own conversion either keeps a value whole or refuses it.
fn by_cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, Misfit> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let misfit = |row: usize| {
        let format = FormatOptions::default();
        let value = ArrayFormatter::try_new(column.as_ref(), &format)
            .map(|formatter| formatter.value(row).to_string());
        Misfit { row, value: value.unwrap_or_default() }
    };
    let converted = cast_with_options(column, to, &options).map_err(|_| misfit(0))?;
    let lost = (0..column.len()).find(|&row| column.is_valid(row) && converted.is_null(row));
    lost.map_or(Ok(converted), |row| Err(misfit(row)))
}

fn each<T>(
    texts: &StringArray,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<Option<T>>, Misfit> {
    let parsed = texts.iter().enumerate().map(|(row, text)| match text {
        None => Ok(None),
        Some(text) => {
            let misfit = || Misfit { row, value: text.to_owned() };
            parse(text.trim()).map(Some).ok_or_else(misfit)
        }
    });
    parsed.collect()
}

/// A decimal in units of its last digit; `None` when a digit would be lost.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i256> {
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let shift = i64::from(scale) + i64::from(exponent) - fraction.len() as i64;
    if all.bytes().all(|b| b == b'0') {
        return Some(i256::ZERO);
    }
    if shift < 0 {
        let kept = all.len().checked_sub(usize::try_from(-shift).ok()?)?;
        if all[kept..].bytes().any(|b| b != b'0') {
            return None;
        }
        all.truncate(kept);
    } else {
        let longest = usize::from(precision);
        let zeros = usize::try_from(shift).ok().filter(|&zeros| zeros <= longest)?;
        all.push_str(&"0".repeat(zeros));
    }
    let significant = all.trim_start_matches('0');
    if significant.len() > usize::from(precision) {
        return None;
    }
    let value = i256::from_string(if significant.is_empty() { "0" } else { significant })?;
    if negative { value.checked_neg() } else { Some(value) }
}

/// A day since 1970; `None` for what has a time of day, which would be cut.
fn date(text: &str) -> Option<i32> {
    let extended = text.starts_with(['+', '-']);
    Date32Type::parse(text).filter(|_| extended || text.len() <= "YYYY-MM-DD".len())
}

/// The nearest floating-point number; `None` when it would be infinite or zero and is not.
fn float<T: FromStr + Into<f64> + Copy>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    let wide: f64 = value.into();
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let lost = if wide.is_infinite() {
        text.bytes().any(|b| b.is_ascii_digit())
    } else {
        wide == 0.0 && mantissa.bytes().any(|b| matches!(b, b'1'..=b'9'))
    };
    (!lost).then_some(value)
}

/// The time of day of a timestamp, and the offset or zone after it, if any.
fn clock_and_zone(text: &str) -> (&str, &str) {
    let clock = text.get("YYYY-MM-DD ".len()..).unwrap_or_default();
    let end = clock.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'));
    let (clock, zone) = clock.split_at(end.unwrap_or(clock.len()));
    (clock, zone.trim())
}

fn is_utc(zone: &str) -> bool {
    let names = ["", "Z", "UTC", "+00:00", "-00:00", "+0000", "+00"];
    names.iter().any(|name| zone.eq_ignore_ascii_case(name))
}

/// The type of microseconds that keeps all of `texts`, which are timestamps: one with a zone when
/// any is not in UTC; text when others then have none.
pub fn timestamp_type<'a>(texts: impl Iterator<Item = &'a str>) -> DataType {
    let (mut elsewhere, mut without) = (false, false);
    for text in texts {
        let (_, zone) = clock_and_zone(text.trim());
        elsewhere |= !is_utc(zone);
        without |= zone.is_empty();
    }
    match (elsewhere, without) {
        (false, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
        (true, false) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        (true, true) => DataType::Utf8,
    }
}

/// A timestamp in `unit`; `None` when it is not one, a digit would be lost, or it has an offset
/// from UTC that a column without a zone cannot keep.
fn timestamp(text: &str, unit: TimeUnit, zoned: bool) -> Option<i64> {
    let (clock, zone) = clock_and_zone(text);
    if !zoned && !is_utc(zone) {
        return None;
    }
    let (_, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    if fraction.bytes().skip(9).any(|b| b != b'0') {
        return None;
    }
    let moment = string_to_datetime(&Utc, text).ok()?;
    let nanos = moment.timestamp_subsec_nanos();
    match unit {
        TimeUnit::Second => (nanos == 0).then(|| moment.timestamp()),
        TimeUnit::Millisecond => (nanos % 1_000_000 == 0).then(|| moment.timestamp_millis()),
        TimeUnit::Microsecond => (nanos % 1_000 == 0).then(|| moment.timestamp_micros()),
        TimeUnit::Nanosecond => moment.timestamp_nanos_opt(),
    }
}

fn ten_to(exponent: u32) -> i256 {
    i256::from_i128(10).checked_pow(exponent).unwrap_or(i256::MAX)
}

fn digits(value: i256) -> u8 {
    let text = value.to_string();
    u8::try_from(text.trim_start_matches('-').len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn text(values: &[Option<&str>], to: &DataType) -> Result<ArrayRef, Misfit> {
        convert(&(Arc::new(StringArray::from(values.to_vec())) as ArrayRef), to, Some("NA"))
    }

    #[test]
    fn decimals_keep_every_digit_or_say_which_row_does_not() {
        let money = DataType::Decimal128(6, 2);
        let got = text(&[Some("12.50"), None, Some("NA"), Some("-1e2"), Some("0.100")], &money);
        let got = got.expect("all fit");
        let want = Decimal128Array::from(vec![Some(1250), None, None, Some(-10000), Some(10)]);
        assert_eq!(got.as_primitive::<Decimal128Type>(), &want.with_data_type(money.clone()));
        for bad in ["1.234", "10000", "1.2.3", "", "abc", "1e400", "--1"] {
            let error = text(&[Some("1"), Some(bad)], &money).expect_err(bad);
            assert_eq!(error, Misfit { row: 1, value: bad.to_owned() });
        }
    }

    #[test]
    fn dates_times_and_floats_are_whole_or_refused() {
        let column = |value: &str, to: &DataType| text(&[Some(value)], to);
        let naive = DataType::Timestamp(TimeUnit::Microsecond, None);
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let time = DataType::Time64(TimeUnit::Microsecond);
        for (value, to) in [
            ("2024-01-05 23:59:59", &DataType::Date32),
            ("2024-01-05T01:00:00+05:00", &DataType::Date32),
            ("2024-02-30", &DataType::Date32),
            ("1e400", &DataType::Float64),
            ("-1e400", &DataType::Float64),
            ("1e-400", &DataType::Float64),
            ("1e39", &DataType::Float32),
            ("2024-01-05 12:00:00+02:00", &naive),
            ("2024-01-05T12:00:00 Europe/Berlin", &naive),
            ("2024-01-05 12:00:00.0000000001", &naive),
            ("2024-01-05 12:00:00.0000009Z", &zoned),
            ("12:00:00.0000009", &time),
        ] {
            let misfit = column(value, to).expect_err(value);
            assert_eq!(misfit, Misfit { row: 0, value: value.to_owned() });
        }
        for (value, to, shown) in [
            ("2024-01-05", &DataType::Date32, "2024-01-05"),
            ("1969-12-31", &DataType::Date32, "1969-12-31"),
            ("0.1", &DataType::Float64, "0.1"),
            ("-0e5", &DataType::Float64, "-0.0"),
            ("5e-324", &DataType::Float64, "5e-324"),
            ("-inf", &DataType::Float64, "-inf"),
            ("NaN", &DataType::Float32, "NaN"),
            ("2024-01-05 12:00:00Z", &naive, "2024-01-05T12:00:00"),
            ("2024-01-05T12:00:00.5000000000", &naive, "2024-01-05T12:00:00.500"),
            ("2024-01-05 12:00:00+02:00", &zoned, "2024-01-05T10:00:00Z"),
            ("12:00:00.0000010", &time, "12:00:00.000001"),
        ] {
            let array = column(value, to).unwrap_or_else(|m| panic!("{m:?}"));
            let format = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(&array, &format).expect("it is printable");
            assert_eq!(formatter.value(0).to_string(), shown, "{value} {to}");
        }
    }

    #[test]
    fn timestamps_and_wide_json_numbers_are_not_cut() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let edge =
            text(&[Some("1969-12-31 23:59:59.999999"), Some("9999-12-31T00:00:00")], &micros);
        assert_eq!(edge.map(|a| a.len()), Ok(2));
        assert_eq!(
            text(&[Some("2020-01-01 00:00:00.0000001")], &micros).map_err(|m| m.row),
            Err(0)
        );
        let wide = |text: &str| {
            let value = decimal(text, 76, WIDE_SCALE).expect("a number");
            Arc::new(Decimal256Array::from(vec![value]).with_data_type(WIDE)) as ArrayRef
        };
        let max = convert(&wide("9223372036854775807"), &DataType::Int64, None).expect("fits");
        assert_eq!(max.as_primitive::<arrow::datatypes::Int64Type>().value(0), i64::MAX);
        for bad in ["1.5", "9223372036854775808"] {
            assert!(convert(&wide(bad), &DataType::Int64, None).is_err(), "{bad}");
        }
    }
}

//! The parts of literals that dialects share.

use arrow::datatypes::TimeUnit;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use datafusion::common::ScalarValue;
use synoptic_types::Reason;

/// A literal's value in the units sources use, without the many spellings Arrow has for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i128),
    Float32(f32),
    Float64(f64),
    /// Exact, as text: an optional minus, digits, and `scale` digits after a point.
    Decimal(String),
    Text(&'a str),
    Binary(&'a [u8]),
    Date(NaiveDate),
    Time(NaiveTime),
    Timestamp(NaiveDateTime),
    Moment(NaiveDateTime),
}

/// The value of `scalar`.
pub(crate) fn plain(scalar: &ScalarValue) -> Result<Plain<'_>, Reason> {
    use ScalarValue as S;
    if let S::Dictionary(_, value) = scalar {
        return plain(value);
    }
    if scalar.is_null() {
        return Ok(Plain::Null);
    }
    Ok(match scalar {
        S::Boolean(Some(v)) => Plain::Bool(*v),
        S::Int8(Some(v)) => Plain::Int(i128::from(*v)),
        S::Int16(Some(v)) => Plain::Int(i128::from(*v)),
        S::Int32(Some(v)) => Plain::Int(i128::from(*v)),
        S::Int64(Some(v)) => Plain::Int(i128::from(*v)),
        S::UInt8(Some(v)) => Plain::Int(i128::from(*v)),
        S::UInt16(Some(v)) => Plain::Int(i128::from(*v)),
        S::UInt32(Some(v)) => Plain::Int(i128::from(*v)),
        S::UInt64(Some(v)) => Plain::Int(i128::from(*v)),
        S::Float32(Some(v)) => Plain::Float32(*v),
        S::Float64(Some(v)) => Plain::Float64(*v),
        S::Decimal32(Some(v), _, scale) => Plain::Decimal(decimal(&v.to_string(), *scale)),
        S::Decimal64(Some(v), _, scale) => Plain::Decimal(decimal(&v.to_string(), *scale)),
        S::Decimal128(Some(v), _, scale) => Plain::Decimal(decimal(&v.to_string(), *scale)),
        S::Decimal256(Some(v), _, scale) => Plain::Decimal(decimal(&v.to_string(), *scale)),
        S::Utf8(Some(v)) | S::LargeUtf8(Some(v)) | S::Utf8View(Some(v)) => {
            if v.contains('\0') {
                return Err(Reason::DifferentMeaning(
                    "a text with a NUL character cannot be sent to the source".to_owned(),
                ));
            }
            Plain::Text(v)
        }
        S::Binary(Some(v)) | S::LargeBinary(Some(v)) | S::BinaryView(Some(v)) => Plain::Binary(v),
        S::Date32(Some(days)) => Plain::Date(date(*days)?),
        S::Time64Microsecond(Some(v)) => Plain::Time(time(*v)?),
        S::Time64Nanosecond(Some(v)) => Plain::Time(time(micros(*v, TimeUnit::Nanosecond)?)?),
        S::TimestampSecond(Some(v), zone) => moment(*v, TimeUnit::Second, zone.is_some())?,
        S::TimestampMillisecond(Some(v), zone) => {
            moment(*v, TimeUnit::Millisecond, zone.is_some())?
        }
        S::TimestampMicrosecond(Some(v), zone) => {
            moment(*v, TimeUnit::Microsecond, zone.is_some())?
        }
        S::TimestampNanosecond(Some(v), zone) => moment(*v, TimeUnit::Nanosecond, zone.is_some())?,
        other => {
            let what = format!("a literal of type {}", other.data_type());
            return Err(Reason::NotOnAllowList(what));
        }
    })
}

/// `unscaled` with the point put `scale` digits from the right.
fn decimal(unscaled: &str, scale: i8) -> String {
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", unscaled),
    };
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) => {
            let digits = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) if digits == "0" => "0".to_owned(),
        Err(_) => format!("{sign}{digits}{}", "0".repeat(usize::from(scale.unsigned_abs()))),
    }
}

fn out_of_range(what: &str) -> Reason {
    Reason::DifferentMeaning(format!("{what} outside the years 1 to 9999 stays here"))
}

fn date(days: i32) -> Result<NaiveDate, Reason> {
    const EPOCH_FROM_CE: i32 = 719_163;
    days.checked_add(EPOCH_FROM_CE)
        .and_then(NaiveDate::from_num_days_from_ce_opt)
        .filter(|date| (1..=9999).contains(&date.year()))
        .ok_or_else(|| out_of_range("a date"))
}

fn time(micros: i64) -> Result<NaiveTime, Reason> {
    let time = u32::try_from(micros.div_euclid(1_000_000)).ok().and_then(|seconds| {
        let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).ok()?;
        NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)
    });
    time.ok_or_else(|| Reason::DifferentMeaning("a time of day beyond 24 hours".to_owned()))
}

/// `value` in microseconds, refused when that would round it.
fn micros(value: i64, unit: TimeUnit) -> Result<i64, Reason> {
    let scaled = match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond if value % 1000 == 0 => Some(value / 1000),
        TimeUnit::Nanosecond => {
            return Err(Reason::DifferentMeaning(
                "the literal is finer than the source's microseconds".to_owned(),
            ));
        }
    };
    scaled.ok_or_else(|| out_of_range("a timestamp"))
}

fn moment(value: i64, unit: TimeUnit, zoned: bool) -> Result<Plain<'static>, Reason> {
    let naive = DateTime::from_timestamp_micros(micros(value, unit)?)
        .map(|moment| moment.naive_utc())
        .filter(|moment| (1..=9999).contains(&moment.year()))
        .ok_or_else(|| out_of_range("a timestamp"))?;
    Ok(if zoned { Plain::Moment(naive) } else { Plain::Timestamp(naive) })
}

/// See [`super::timestamp_date`]. Finer than a microsecond does not matter to a date.
pub(crate) fn timestamp_date(value: &ScalarValue) -> Option<(NaiveDate, bool)> {
    use ScalarValue as S;
    let (nanos, zone) = match value {
        S::TimestampSecond(Some(v), zone) => (i128::from(*v) * 1_000_000_000, zone),
        S::TimestampMillisecond(Some(v), zone) => (i128::from(*v) * 1_000_000, zone),
        S::TimestampMicrosecond(Some(v), zone) => (i128::from(*v) * 1000, zone),
        S::TimestampNanosecond(Some(v), zone) => (i128::from(*v), zone),
        _ => return None,
    };
    let days = i32::try_from(nanos.div_euclid(86_400_000_000_000)).ok()?;
    Some((date(days).ok()?, zone.is_some()))
}

/// A date as ISO 8601: `2024-01-05`.
pub(crate) fn date_text(date: NaiveDate) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

/// A time as ISO 8601, with microseconds when there are any.
pub(crate) fn time_text(time: NaiveTime) -> String {
    let (h, m, s) = (time.hour(), time.minute(), time.second());
    match time.nanosecond() / 1000 {
        0 => format!("{h:02}:{m:02}:{s:02}"),
        micros => format!("{h:02}:{m:02}:{s:02}.{micros:06}"),
    }
}

/// A timestamp as date, blank, time.
pub(crate) fn timestamp_text(timestamp: NaiveDateTime) -> String {
    format!("{} {}", date_text(timestamp.date()), time_text(timestamp.time()))
}

/// The shortest text that reads back as the same number; finite numbers only.
pub(crate) fn float_text(value: f64) -> String {
    format!("{value:?}")
}

/// Bytes in hexadecimal, lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

//! Arrow values → binary COPY: what [`super::decode`] reads, the other way round.
//!
//! <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS>

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};

use super::types::Encoding;

/// Signature, flags, length of an extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
pub(super) const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const NANOS_IN_MICRO: i64 = 1_000;
const NUMERIC_NEGATIVE: u16 = 0x4000;
const GROUP_DIGITS: usize = 4;

/// Whether values of this form can be written.
pub(super) fn is_writable(encoding: &Encoding) -> bool {
    !matches!(encoding, Encoding::Array { .. })
}

/// Appends one row.
///
/// # Errors
/// The place of the column and why its value cannot be written.
pub(super) fn row(
    out: &mut BytesMut,
    encodings: &[Encoding],
    batch: &RecordBatch,
    row: usize,
) -> Result<(), (usize, String)> {
    let count = i16::try_from(encodings.len()).map_err(|_| (0, "too many columns".to_owned()))?;
    out.put_i16(count);
    for (place, (encoding, array)) in encodings.iter().zip(batch.columns()).enumerate() {
        if array.is_null(row) {
            out.put_i32(-1);
            continue;
        }
        let at = out.len();
        out.put_i32(0);
        value(out, encoding, array.as_ref(), row).map_err(|message| (place, message))?;
        let length = i32::try_from(out.len() - at - 4)
            .map_err(|_| (place, "a value of more than 2 GiB".to_owned()))?;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn value(
    out: &mut BytesMut,
    encoding: &Encoding,
    array: &dyn Array,
    row: usize,
) -> Result<(), String> {
    let wrong = || format!("a value of type {} reached it", array.data_type());
    macro_rules! primitive {
        ($type:ty) => {
            array.as_primitive_opt::<$type>().ok_or_else(wrong)?.value(row)
        };
    }
    let text = || Ok::<_, String>(array.as_string_opt::<i32>().ok_or_else(wrong)?.value(row));
    match encoding {
        Encoding::Bool => out.put_u8(array.as_boolean_opt().ok_or_else(wrong)?.value(row).into()),
        Encoding::Int2 => out.put_i16(primitive!(Int16Type)),
        Encoding::Int4 => out.put_i32(primitive!(Int32Type)),
        Encoding::Int8 => out.put_i64(primitive!(Int64Type)),
        Encoding::Float4 => out.put_f32(primitive!(Float32Type)),
        Encoding::Float8 => out.put_f64(primitive!(Float64Type)),
        Encoding::Numeric { scale, constrained, .. } => {
            let text = if let Some(array) = array.as_primitive_opt::<Decimal128Type>() {
                array.value_as_string(row)
            } else {
                array.as_primitive_opt::<Decimal256Type>().ok_or_else(wrong)?.value_as_string(row)
            };
            numeric(out, &text, (*constrained).then_some(*scale))?;
        }
        Encoding::Date => {
            let days = primitive!(Date32Type).checked_sub(EPOCH_DAYS);
            // The least and the greatest number mean infinity.
            let days = days.filter(|days| !matches!(*days, i32::MIN | i32::MAX));
            out.put_i32(days.ok_or("a date beyond PostgreSQL's")?);
        }
        Encoding::Time => out.put_i64(primitive!(Time64MicrosecondType)),
        Encoding::Timestamp | Encoding::TimestampTz => {
            let micros = primitive!(TimestampMicrosecondType).checked_sub(EPOCH_MICROS);
            let micros = micros.filter(|micros| !matches!(*micros, i64::MIN | i64::MAX));
            out.put_i64(micros.ok_or("a timestamp beyond PostgreSQL's")?);
        }
        Encoding::Interval => {
            let interval = primitive!(IntervalMonthDayNanoType);
            if interval.nanoseconds % NANOS_IN_MICRO != 0 {
                return Err("an interval with nanoseconds; PostgreSQL has microseconds".to_owned());
            }
            out.put_i64(interval.nanoseconds / NANOS_IN_MICRO);
            out.put_i32(interval.days);
            out.put_i32(interval.months);
        }
        Encoding::Text => out.put_slice(text()?.as_bytes()),
        Encoding::Jsonb => {
            out.put_u8(1);
            out.put_slice(text()?.as_bytes());
        }
        Encoding::Uuid => {
            let text = text()?;
            out.put_slice(&uuid(text).ok_or_else(|| format!("'{text}' is no UUID"))?);
        }
        Encoding::Bytea => {
            out.put_slice(array.as_binary_opt::<i32>().ok_or_else(wrong)?.value(row));
        }
        Encoding::Array { .. } => return Err("arrays cannot be written".to_owned()),
    }
    Ok(())
}

/// The bytes of `8-4-4-4-12` hexadecimal digits.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    let hyphen = |place: usize| matches!(place, 8 | 13 | 18 | 23);
    if bytes.len() != 36 || bytes.iter().enumerate().any(|(at, b)| hyphen(at) != (*b == b'-')) {
        return None;
    }
    let digits: Option<Vec<u8>> = bytes
        .iter()
        .filter(|b| **b != b'-')
        .map(|b| char::from(*b).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    let mut uuid = [0; 16];
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
        *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Some(uuid)
}

/// `-12.50` as base-10000 digits. Without a `scale`, zeros at the end of the fraction, which
/// came from the Arrow type and not from the value, are left out.
fn numeric(out: &mut BytesMut, text: &str, scale: Option<u8>) -> Result<(), String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let ascii = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !ascii(whole) || !ascii(fraction) {
        return Err(format!("'{text}' is no number"));
    }
    let whole = whole.trim_start_matches('0');
    let fraction = if scale.is_none() { fraction.trim_end_matches('0') } else { fraction };
    let lead = (GROUP_DIGITS - whole.len() % GROUP_DIGITS) % GROUP_DIGITS;
    let tail = (GROUP_DIGITS - fraction.len() % GROUP_DIGITS) % GROUP_DIGITS;
    let all = format!("{}{whole}{fraction}{}", "0".repeat(lead), "0".repeat(tail));
    let groups: Vec<u16> = all
        .as_bytes()
        .chunks(GROUP_DIGITS)
        .map(|group| group.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')))
        .collect();
    let skipped = groups.iter().take_while(|group| **group == 0).count();
    let used = groups.iter().rposition(|group| *group != 0).map_or(skipped, |last| last + 1);
    let kept = &groups[skipped.min(used)..used];
    let weight = (whole.len() + lead) / GROUP_DIGITS;
    let number = |n: usize| i16::try_from(n).map_err(|_| format!("'{text}' is too long"));
    let weight = if kept.is_empty() { 0 } else { number(weight)? - 1 - number(skipped)? };
    out.put_i16(number(kept.len())?);
    out.put_i16(weight);
    out.put_u16(if negative && !kept.is_empty() { NUMERIC_NEGATIVE } else { 0 });
    out.put_i16(number(fraction.len())?);
    for group in kept {
        out.put_u16(*group);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::numeric::decimal128;
    use super::*;

    #[test]
    fn numerics_read_back_as_they_were_written() {
        for (text, unscaled) in [
            ("0.00", 0_i128),
            ("1.00", 100),
            ("-12.50", -1250),
            ("0.01", 1),
            ("9999.99", 999_999),
            ("10000.00", 1_000_000),
            ("100000000.00", 10_000_000_000),
            ("123456789012345678901234567890.12", 12_345_678_901_234_567_890_123_456_789_012),
        ] {
            for scale in [Some(2), None] {
                let mut out = BytesMut::new();
                numeric(&mut out, text, scale).expect("it is a number");
                assert_eq!(decimal128(&out, 38, 2).expect("readable"), unscaled, "{text}");
            }
        }
    }
}

//! Dates, timestamps and decimals as SQLite databases keep them, read strictly.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};

const EPOCH_FROM_CE: i32 = 719_163;

/// Days since 1970 of `YYYY-MM-DD`, exactly in this form: so texts order as their dates do.
pub(super) fn date(text: &str) -> Option<i32> {
    use chrono::Datelike as _;
    Some(calendar_date(text)?.num_days_from_ce() - EPOCH_FROM_CE)
}

fn calendar_date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = digits(bytes.get(..4)?)?;
    let (month, day) = (digits(bytes.get(5..7)?)?, digits(bytes.get(8..)?)?);
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)
}

/// A timestamp without a zone, in microseconds since 1970: `YYYY-MM-DD`, then a blank or a `T`,
/// `HH:MM`, perhaps `:SS` and a fraction of up to six digits that count, perhaps `Z` or `+00:00`.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    let (wall, offset) = wall_and_offset(text)?;
    // Any other zone would silently be dropped.
    (offset.is_none_or(|minutes| minutes == 0)).then(|| wall.and_utc().timestamp_micros())
}

/// A moment, in microseconds since 1970: as above, with `Z` or `±HH:MM`, which must be there.
pub(super) fn moment(text: &str) -> Option<i64> {
    let (wall, offset) = wall_and_offset(text)?;
    let offset = i64::from(offset?) * 60_000_000;
    wall.and_utc().timestamp_micros().checked_sub(offset)
}

/// The wall clock and the zone's offset in minutes, when there is one.
fn wall_and_offset(text: &str) -> Option<(NaiveDateTime, Option<i32>)> {
    let date = calendar_date(text.get(..10)?)?;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some((date.and_time(NaiveTime::MIN), None));
    }
    let rest = rest.strip_prefix(' ').or_else(|| rest.strip_prefix('T'))?;
    let end = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    Some((date.and_time(time_of_day(time.trim_end())?), offset(zone)?))
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let bytes = clock.as_bytes();
    if text.ends_with('.') || (bytes.len() == 5 && !fraction.is_empty()) {
        return None;
    }
    let colon = |at: usize| bytes.get(at) == Some(&b':');
    let seconds = match bytes.len() {
        5 if colon(2) => 0,
        8 if colon(2) && colon(5) => digits(&bytes[6..])?,
        _ => return None,
    };
    // Digits beyond microseconds are fine while they say nothing.
    let (counted, rest) = fraction.as_bytes().split_at(fraction.len().min(6));
    if rest.iter().any(|b| *b != b'0') {
        return None;
    }
    let micros = match counted.len() {
        0 => 0,
        n => digits(counted)? * 10_u32.pow(6 - u32::try_from(n).ok()?),
    };
    let (hours, minutes) = (digits(&bytes[..2])?, digits(&bytes[3..5])?);
    NaiveTime::from_hms_micro_opt(hours, minutes, seconds, micros)
}

/// `Some(None)` for no zone at all, `None` for what is not a zone.
fn offset(zone: &str) -> Option<Option<i32>> {
    match zone {
        "" => return Some(None),
        "Z" | "z" => return Some(Some(0)),
        _ => {}
    }
    let (sign, rest) = zone.split_at_checked(1)?;
    let rest = rest.as_bytes();
    let (hours, minutes) = match rest.len() {
        2 => (digits(rest)?, 0),
        4 => (digits(&rest[..2])?, digits(&rest[2..])?),
        5 if rest[2] == b':' => (digits(&rest[..2])?, digits(&rest[3..])?),
        _ => return None,
    };
    if hours > 18 || minutes > 59 {
        return None;
    }
    let total = i32::try_from(hours * 60 + minutes).ok()?;
    Some(Some(if sign == "-" { -total } else { total }))
}

/// A number of ASCII digits only.
fn digits(bytes: &[u8]) -> Option<u32> {
    if bytes.is_empty() || bytes.len() > 9 {
        return None;
    }
    bytes.iter().try_fold(0_u32, |number, byte| {
        byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
    })
}

/// The unscaled value of a decimal text like `-12.5` or `1e3`, when it has no more than `scale`
/// digits after the point and fits `precision` digits.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    // What SQLite takes for blanks; behind others, a number is a text to it.
    let text = text.trim_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
    }
    if value == 0 {
        return Some(0);
    }
    // value × 10^shift is the unscaled value.
    let fraction = i32::try_from(fraction.len()).ok()?;
    let shift = i32::from(scale).checked_add(exponent)?.checked_sub(fraction)?;
    let value = if shift >= 0 {
        value.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?
    } else {
        let divisor = 10_i128.checked_pow(shift.unsigned_abs())?;
        (value % divisor == 0).then_some(value / divisor)?
    };
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (value < limit).then_some(if negative { -value } else { value })
}

/// An integer as an unscaled decimal.
pub(super) fn decimal_of_int(value: i64, precision: u8, scale: i8) -> Option<i128> {
    let factor = 10_i128.checked_pow(u32::try_from(scale).ok()?)?;
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    i128::from(value).checked_mul(factor).filter(|unscaled| unscaled.abs() < limit)
}

/// A float as an unscaled decimal: the shortest text that reads back as the same float is what
/// was meant, and must fit.
pub(super) fn decimal_of_float(value: f64, precision: u8, scale: i8) -> Option<i128> {
    // Below 15 digits only one decimal reads back as this float. Both operands of the division
    // are exact, so it rounds once, as reading the text would.
    if (0..=15).contains(&scale) {
        let factor = 10_f64.powi(i32::from(scale));
        let unscaled = (value * factor).round();
        if unscaled.abs() < 1e15 && unscaled / factor == value {
            let limit = 10_i128.checked_pow(u32::from(precision))?;
            return Some(unscaled as i128).filter(|unscaled| unscaled.abs() < limit);
        }
    }
    decimal(&format!("{value:?}"), precision, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_exactly_one_form() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("1969-12-31"), Some(-1));
        assert_eq!(date("0001-01-01"), Some(-719_162));
        assert_eq!(date("9999-12-31"), Some(2_932_896));
        for text in
            ["", "2024-1-5", "2024-02-30", "2024-01-05 00:00:00", "+024-01-05", "２024-01-5"]
        {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn timestamps_in_the_forms_people_write() {
        let day = 86_400_000_000_i64;
        for (text, micros) in [
            ("1970-01-02", day),
            ("1970-01-02 00:00", day),
            ("1970-01-02T00:00:00Z", day),
            ("1969-12-31 23:59:59.5", -500_000),
            ("1970-01-01 00:00:00.000001", 1),
            ("1970-01-01T00:00:00.123000000+00:00", 123_000),
        ] {
            assert_eq!(timestamp(text), Some(micros), "{text}");
        }
        for text in [
            "",
            "1970-01-01 24:00:00",
            "1970-01-01 00:00:00.",
            "1970-01-01 00:00:00.0000001",
            "1970-01-01T00:00:00+02:00",
            "1970-01-01 00:00:60",
            "1970-01-01x00:00:00",
            "1970-01-01 é",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
        assert_eq!(moment("1970-01-01T02:00:00+02:00"), Some(0));
        assert_eq!(moment("1969-12-31 19:00:00-0500"), Some(0));
        assert_eq!(moment("1970-01-01T00:00:00"), None);
    }

    #[test]
    fn decimals_are_exact_or_nothing() {
        for (text, value) in [
            ("12.34", 1234),
            ("-0.5", -50),
            ("1e2", 10_000),
            ("1.5e-1", 15),
            ("0.000", 0),
            ("7", 700),
        ] {
            assert_eq!(decimal(text, 10, 2), Some(value), "{text}");
        }
        for text in ["", ".", "1.234", "123456789.00", "1e99", "abc", "1_0", "--1", "0x10", "nan"] {
            assert_eq!(decimal(text, 10, 2), None, "{text}");
        }
    }

    #[test]
    fn floats_are_the_decimal_of_their_shortest_text() {
        for (value, unscaled) in [
            (12.34, Some(1234)),
            (-0.07, Some(-7)),
            (1e13, Some(10_i128.pow(15))),
            (0.1 + 0.2, None),
            (1.005, None),
            (-0.0, Some(0)),
            (f64::INFINITY, None),
            (1e300, None),
        ] {
            assert_eq!(decimal_of_float(value, 18, 2), unscaled, "{value}");
        }
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let unscaled = (state >> 13) as i64 % 10_i64.pow(15);
            let scale = (state % 13) as i8;
            let exact = decimal(&format!("{unscaled}e-{scale}"), 38, scale);
            let value: f64 = format!("{unscaled}e-{scale}").parse().expect("a number");
            assert_eq!(decimal_of_float(value, 38, scale), exact, "{unscaled}e-{scale}");
            let noise = f64::from_bits(state);
            let shortest = decimal(&format!("{noise:?}"), 38, scale);
            assert_eq!(decimal_of_float(noise, 38, scale), shortest, "{noise:?}");
        }
        assert_eq!(decimal_of_int(i64::MIN, 38, 18), Some(i128::from(i64::MIN) * 10_i128.pow(18)));
        assert_eq!(decimal_of_int(100, 4, 2), None);
    }
}

//! Durations (`250ms`, `5s`, `2m`, `1h`) and sizes (`512MiB`, `4GiB`) as people write them.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_bytes(self.0))
    }
}

/// A text that is not a duration or a size; the message says what is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{text}' is not a {what}: write {example}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    example: &'static str,
}

const DURATION_UNITS: [(&str, f64); 9] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("min", 60.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86400.0),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

/// Reads a duration: a number directly followed by its unit. A bare `0` needs none.
///
/// # Errors
/// When the number or the unit is missing, unknown, negative or out of range.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let error = || QuantityError {
        text: text.to_owned(),
        what: "duration",
        example: "for example '250ms', '5s', '2m' or '1h'",
    };
    let (number, unit) = split_unit(text).ok_or_else(error)?;
    if unit.is_empty() && number == 0.0 {
        return Ok(Duration::ZERO);
    }
    let (_, seconds) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| error())
}

/// Reads a size in bytes: a number and a unit of 1024 (`KiB` … `TiB`) or 1000 (`kB` … `TB`).
///
/// # Errors
/// When the number or the unit is missing, unknown, negative or out of range.
pub fn parse_bytes(text: &str) -> Result<ByteSize, QuantityError> {
    let error = || QuantityError {
        text: text.to_owned(),
        what: "size",
        example: "for example '512MiB' or '4GiB'",
    };
    let (number, unit) = split_unit(text).ok_or_else(error)?;
    let unit = unit.to_ascii_lowercase();
    let factor = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => return Err(error()),
    };
    let bytes = number * factor as f64;
    if bytes > (1_u64 << 53) as f64 {
        return Err(error());
    }
    Ok(ByteSize(bytes as u64))
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim_start()))
}

/// A duration in the largest unit that keeps it exact to the millisecond, else in `ms`.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        m if m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1000 == 0 => format!("{}s", m / 1000),
        m => format!("{m}ms"),
    }
}

/// A number of bytes for people: `1.2 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [("250ms", 250), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration(" 1.5 s "), Ok(Duration::from_millis(1500)));
    }

    #[test]
    fn what_is_not_a_duration_says_what_is() {
        for text in ["", "5", "s", "-1s", "5 parsecs", "1e3s", "99999999999999999999h", "nan"] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.to_string().contains("'250ms'"), "{error}");
        }
    }

    #[test]
    fn sizes_in_both_kinds_of_units() {
        assert_eq!(parse_bytes("4GiB"), Ok(ByteSize(4 << 30)));
        assert_eq!(parse_bytes("1.5 MB"), Ok(ByteSize(1_500_000)));
        assert_eq!(parse_bytes("17"), Ok(ByteSize(17)));
        assert!(parse_bytes("4 gallons").is_err());
        assert_eq!(format_bytes(1_288_490), "1.2 MiB");
    }
}

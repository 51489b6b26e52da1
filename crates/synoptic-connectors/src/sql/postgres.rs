//! PostgreSQL, with UTF-8 as the server's encoding.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use synoptic_types::Reason;

use super::like::Pattern;
use super::literal::{Plain, date_text, float_text, hex, plain, time_text, timestamp_text};
use super::value::{Class, Collation, Operand, is_micros};
use super::{ColumnFacts, Dialect};

/// PostgreSQL's SQL.
pub(crate) static POSTGRES: PostgresDialect = PostgresDialect;

/// The last timestamp that 64-bit microseconds since 1970 have.
const LAST: &str = "'294247-01-10 04:00:54.775807";

/// From so many values on a list is an array.
const LONG_LIST: usize = 64;

/// See [`POSTGRES`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostgresDialect;

impl Dialect for PostgresDialect {
    fn functions(&self) -> &'static [&'static str] {
        &["abs", "character_length", "coalesce", "contains", "nullif", "starts_with"]
    }

    fn column(
        &self,
        name: &str,
        data_type: &DataType,
        facts: &ColumnFacts,
    ) -> Result<Operand, Reason> {
        let native = native_name(&facts.native_type);
        let class = match (native.as_str(), Class::of(data_type)) {
            ("bool" | "boolean", Some(c @ Class::Bool))
            | (
                "int2" | "int4" | "int8" | "smallint" | "integer" | "bigint",
                Some(c @ Class::Int { .. }),
            )
            | ("float4" | "real", Some(c @ Class::Float32))
            | ("float8" | "double precision", Some(c @ Class::Float64))
            | ("numeric" | "decimal", Some(c @ Class::Decimal { .. }))
            | ("text" | "varchar" | "character varying" | "name", Some(c @ Class::Text))
            | ("bytea", Some(c @ Class::Binary))
            | ("date", Some(c @ Class::Date)) => c,
            ("uuid", Some(Class::Text)) => Class::Uuid,
            ("time" | "time without time zone", Some(c @ Class::Time))
            | ("timestamp" | "timestamp without time zone", Some(c @ Class::Timestamp))
            | ("timestamptz" | "timestamp with time zone", Some(c @ Class::Moment))
                if is_micros(data_type) =>
            {
                c
            }
            ("bpchar" | "character" | "char", _) => return Err(padded(name)),
            _ => {
                return Err(Reason::DifferentMeaning(format!(
                    "column {name} is {} at the source and {data_type} here",
                    facts.native_type
                )));
            }
        };
        if facts.padded_char {
            return Err(padded(name));
        }
        // `name` sorts by bytes whatever the database's collation is.
        let binary = facts.collation_is_binary || native == "name";
        let collation = if binary { Collation::Binary } else { Collation::Other };
        Ok(Operand::new(self.quote_identifier(name), class, data_type).with_collation(collation))
    }

    fn literal(&self, value: &ScalarValue) -> Result<Operand, Reason> {
        let class = Class::of(&value.data_type());
        let sql = match plain(value)? {
            Plain::Null => "NULL".to_owned(),
            Plain::Bool(v) => if v { "TRUE" } else { "FALSE" }.to_owned(),
            Plain::Int(v) if v > i128::from(i64::MAX) => {
                return Err(Reason::DifferentMeaning(format!("{v} exceeds a bigint")));
            }
            Plain::Int(v) if v < 0 => format!("({v})"),
            Plain::Int(v) => v.to_string(),
            Plain::Float32(v) => format!("'{}'::float4", float32(v)?),
            Plain::Float64(v) => format!("'{}'::float8", float64(v)?),
            Plain::Decimal(v) => format!("'{v}'::numeric"),
            Plain::Text(v) => format!("{}::text", string(v)),
            // Not `'\x…'`, whose meaning depends on `standard_conforming_strings`.
            Plain::Binary(v) => format!("decode('{}', 'hex')", hex(v)),
            Plain::Date(v) => format!("DATE '{}'", date_text(v)),
            Plain::Time(v) => format!("TIME '{}'", time_text(v)),
            Plain::Timestamp(v) => format!("TIMESTAMP '{}'", timestamp_text(v)),
            Plain::Moment(v) => format!("TIMESTAMPTZ '{}+00'", timestamp_text(v)),
        };
        let class = match plain(value)? {
            Plain::Int(v) => Class::Int { min: v, max: v },
            // Its own digits: 1 has one, whatever its type has room for.
            Plain::Decimal(v) => {
                let scale = v.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                let digits = v.bytes().filter(u8::is_ascii_digit).count().max(scale).max(1);
                Class::Decimal {
                    digits: u32::try_from(digits).unwrap_or(u32::MAX),
                    scale: i32::try_from(scale).unwrap_or(i32::MAX),
                }
            }
            _ => class.ok_or_else(|| {
                Reason::NotOnAllowList(format!("a literal of type {}", value.data_type()))
            })?,
        };
        let mut operand =
            Operand::new(sql, class, &value.data_type()).with_collation(Collation::Literal);
        operand.literal = Some(value.clone());
        Ok(operand)
    }

    fn cast(&self, operand: Operand, to: &DataType, class: Class) -> Result<Operand, Reason> {
        // Comparing mixes widths exactly; calculating needs the wider type.
        let widened = |operand: Operand, class, native| {
            let (data_type, widened_to) = (to.clone(), Some(native));
            Ok(Operand { class, data_type, widened_to, ..operand })
        };
        match (operand.class, class) {
            (Class::Int { min, max }, Class::Int { min: lo, max: hi })
                if lo <= min && max <= hi =>
            {
                let native = match hi {
                    h if h <= i128::from(i16::MAX) => "int2",
                    h if h <= i128::from(i32::MAX) => "int4",
                    _ => "int8",
                };
                // The range stays what the values can be: it decides what can overflow.
                widened(operand, Class::Int { min, max }, native)
            }
            (Class::Int { min, max }, Class::Decimal { digits, scale })
                if fits(min, max, digits, scale) =>
            {
                widened(operand, class, "numeric")
            }
            (Class::Decimal { digits: p, scale: s }, Class::Decimal { digits: q, scale: t })
                if t >= s && i64::from(q) - i64::from(t) >= i64::from(p) - i64::from(s) =>
            {
                // The digits stay what the values can have: they decide what can overflow.
                let digits = p.saturating_add(t.abs_diff(s)).min(q);
                let class = Class::Decimal { digits, scale: t };
                Ok(Operand { class, data_type: to.clone(), ..operand })
            }
            // To the nearest, ties to even, here as there.
            (Class::Int { .. } | Class::Float32, Class::Float64) => {
                Ok(Operand::new(format!("CAST({} AS float8)", operand.sql), class, to))
            }
            (from, to) => {
                Err(Reason::NotOnAllowList(format!("a cast from {} to {}", from.noun(), to.noun())))
            }
        }
    }

    fn comparable(
        &self,
        mut left: Operand,
        right: Operand,
        ordering: bool,
    ) -> Result<(Operand, Operand), Reason> {
        if left.class == Class::Text && right.class == Class::Text {
            use Collation::{Binary, Literal, Other};
            let plain = match (left.collation, right.collation) {
                (Binary, Binary | Literal) | (Literal, Binary) => true,
                // Equal is equal bytes under every deterministic collation.
                (Other, Literal) | (Literal, Other) => !ordering,
                _ => false,
            };
            if !plain {
                left.sql = format!("{} COLLATE \"C\"", left.sql);
            }
        }
        Ok((left, right))
    }

    /// One array, which is planned in a third of the time of a list. Its values must be of the
    /// subject's own type: only then does the server look them up in a hash table.
    fn long_list(&self, subject: &Operand, items: &[Operand]) -> Option<String> {
        if items.len() < LONG_LIST || subject.widened_to.is_some() {
            return None;
        }
        let native = match subject.class {
            Class::Uuid => "uuid".to_owned(),
            Class::Decimal { .. } => "numeric".to_owned(),
            Class::Int { .. } | Class::Text | Class::Date => {
                self.native_type(&subject.data_type)?
            }
            _ => return None,
        };
        let mut values = String::new();
        for item in items {
            let literal = item.literal.as_ref()?;
            if literal.data_type() != subject.data_type {
                return None;
            }
            if !values.is_empty() {
                values.push(',');
            }
            match plain(literal).ok()? {
                Plain::Int(v) => values.push_str(&v.to_string()),
                Plain::Decimal(v) => values.push_str(&v),
                Plain::Date(v) => values.push_str(&date_text(v)),
                // Whatever is in it: NULL, for one, would be NULL without quotes.
                Plain::Text(v) => {
                    let text = v.replace('\\', "\\\\").replace('"', "\\\"");
                    values.push_str(&format!("\"{text}\""));
                }
                _ => return None,
            }
        }
        Some(format!("= ANY ({}::{native}[])", string(&format!("{{{values}}}"))))
    }

    fn arithmetic(&self) -> bool {
        true
    }

    fn native_type(&self, data_type: &DataType) -> Option<String> {
        let name = match data_type {
            DataType::Boolean => "bool",
            DataType::Int16 => "int2",
            DataType::Int32 => "int4",
            DataType::Int64 => "int8",
            DataType::Float32 => "float4",
            DataType::Float64 => "float8",
            DataType::Decimal128(precision, scale @ 0..) => {
                return Some(format!("numeric({precision},{scale})"));
            }
            DataType::Utf8 => "text",
            DataType::Binary => "bytea",
            DataType::Date32 => "date",
            DataType::Time64(TimeUnit::Microsecond) => "time",
            DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp",
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => {
                "timestamptz"
            }
            _ => return None,
        };
        Some(name.to_owned())
    }

    fn checked(&self, operand: Operand, label: &str) -> Result<Operand, Reason> {
        let x = &operand.sql;
        let (good, native) = match operand.class {
            Class::Decimal { .. } => (format!("{x} <> 'NaN'::numeric"), "numeric"),
            Class::Date => (format!("isfinite({x})"), "date"),
            Class::Time => (format!("{x} < TIME '24:00'"), "time"),
            Class::Timestamp => {
                (format!("{x} > TIMESTAMP '-infinity' AND {x} <= TIMESTAMP {LAST}'"), "timestamp")
            }
            Class::Moment => (
                format!("{x} > TIMESTAMPTZ '-infinity' AND {x} <= TIMESTAMPTZ {LAST}+00'"),
                "timestamptz",
            ),
            _ => return Ok(operand),
        };
        // A text that is no such value fails when it is cast; the cast of NULL is NULL.
        let what = string(&format!("column {label} holds "));
        let sql = format!(
            "CASE WHEN {good} THEN {x} \
             ELSE CAST({what} || {x}::text || ', which Arrow has not' AS {native}) END"
        );
        Ok(Operand { sql: format!("({sql})"), ..operand })
    }

    fn binary_collation(&self) -> &'static str {
        " COLLATE \"C\""
    }

    fn distinct_operator(&self, negated: bool) -> &'static str {
        if negated { "IS NOT DISTINCT FROM" } else { "IS DISTINCT FROM" }
    }

    fn unknown(&self) -> &'static str {
        "UNKNOWN"
    }

    fn like(&self, value: &Operand, pattern: &Pattern) -> Result<String, Reason> {
        let collate = if value.collation == Collation::Mixed { " COLLATE \"C\"" } else { "" };
        Ok(format!("{}{collate} LIKE {}::text", value.sql, string(&pattern.text())))
    }

    fn contains(&self, haystack: &Operand, needle: &Operand) -> String {
        let collate = match (haystack.collation, needle.collation) {
            (Collation::Binary | Collation::Other, Collation::Literal) => "",
            _ => " COLLATE \"C\"",
        };
        format!("strpos({}{collate}, {}) > 0", haystack.sql, needle.sql)
    }
}

fn padded(name: &str) -> Reason {
    Reason::DifferentMeaning(format!(
        "column {name} is char(n), which ignores trailing blanks at the source"
    ))
}

/// `numeric(12,2)` and `timestamp(3) with time zone` without the modifier.
fn native_name(native: &str) -> String {
    let name = match (native.find('('), native.find(')')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", native[..open].trim_end(), &native[close + 1..])
        }
        _ => native.trim().to_owned(),
    };
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    name.to_ascii_lowercase()
}

/// Whether every integer from `min` to `max` fits a decimal.
fn fits(min: i128, max: i128, digits: u32, scale: i32) -> bool {
    let whole = u32::try_from(i64::from(digits) - i64::from(scale)).unwrap_or(0);
    scale >= 0 && 10_i128.checked_pow(whole).is_none_or(|limit| -limit < min && max < limit)
}

fn string(text: &str) -> String {
    let text = text.replace('\'', "''");
    // The E makes the meaning independent of `standard_conforming_strings`.
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\"))
    } else {
        format!("'{text}'")
    }
}

/// Of the many NaNs only the one that connectors deliver equals itself on both sides.
fn strange_nan() -> Reason {
    Reason::DifferentMeaning("this NaN is not the one the source knows".to_owned())
}

fn float64(v: f64) -> Result<String, Reason> {
    match v {
        v if v.to_bits() == f64::NAN.to_bits() => Ok("NaN".to_owned()),
        v if v.is_nan() => Err(strange_nan()),
        f64::INFINITY => Ok("Infinity".to_owned()),
        f64::NEG_INFINITY => Ok("-Infinity".to_owned()),
        v => Ok(float_text(v)),
    }
}

fn float32(v: f32) -> Result<String, Reason> {
    match v {
        v if v.to_bits() == f32::NAN.to_bits() => Ok("NaN".to_owned()),
        v if v.is_nan() => Err(strange_nan()),
        f32::INFINITY => Ok("Infinity".to_owned()),
        f32::NEG_INFINITY => Ok("-Infinity".to_owned()),
        v => Ok(format!("{v:?}")),
    }
}

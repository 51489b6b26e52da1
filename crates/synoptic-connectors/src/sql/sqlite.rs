//! SQLite, with UTF-8 as the database's encoding.
//!
//! Values have types of their own there, whatever the column declares, so a comparison is exact
//! for the values the connector accepts; a row that is kept is checked when it is read.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use synoptic_types::Reason;

use super::like::{Pattern, Shape, after_prefix};
use super::literal::{Plain, date_text, float_text, hex, plain};
use super::value::{Class, Collation, Operand};
use super::{ColumnFacts, Dialect};

/// Decimals are kept as doubles, which tell apart and order all decimals of so many digits.
const EXACT_DIGITS: u32 = 15;

/// SQLite's SQL.
pub(crate) static SQLITE: SqliteDialect = SqliteDialect;

/// See [`SQLITE`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct SqliteDialect;

impl Dialect for SqliteDialect {
    fn functions(&self) -> &'static [&'static str] {
        &["abs", "coalesce", "contains", "nullif", "starts_with"]
    }

    fn column(
        &self,
        name: &str,
        data_type: &DataType,
        facts: &ColumnFacts,
    ) -> Result<Operand, Reason> {
        let class = match Class::of(data_type) {
            Some(Class::Decimal { digits, .. }) if digits > EXACT_DIGITS => {
                return Err(Reason::DifferentMeaning(format!(
                    "column {name} has more digits than SQLite compares exactly"
                )));
            }
            Some(Class::Decimal { .. }) if !facts.collation_is_binary => None,
            Some(Class::Timestamp | Class::Moment) => {
                return Err(Reason::DifferentMeaning(format!(
                    "column {name} holds timestamps as text in several forms"
                )));
            }
            Some(Class::Text | Class::Date) if facts.native_type.is_empty() => None,
            Some(
                class @ (Class::Bool
                | Class::Int { .. }
                | Class::Float64
                | Class::Decimal { .. }
                | Class::Text
                | Class::Binary
                | Class::Date),
            ) => Some(class),
            _ => None,
        };
        let Some(class) = class else {
            return Err(Reason::DifferentMeaning(format!(
                "column {name} holds values of several types at the source"
            )));
        };
        let quoted = self.quote_identifier(name);
        // Another collation, or a view, whose columns have none that can be known: `+` also takes
        // away the affinity, so that values are compared as they are.
        let sql =
            if facts.collation_is_binary { quoted } else { format!("(+{quoted}) COLLATE BINARY") };
        Ok(Operand::new(sql, class, data_type).with_collation(Collation::Binary))
    }

    fn literal(&self, value: &ScalarValue) -> Result<Operand, Reason> {
        let read = plain(value)?;
        let sql = match &read {
            Plain::Null => "NULL".to_owned(),
            Plain::Bool(v) => i32::from(*v).to_string(),
            Plain::Int(v) if *v > i128::from(i64::MAX) => {
                return Err(Reason::DifferentMeaning(format!("{v} exceeds 64 bits")));
            }
            Plain::Int(v) if *v < 0 => format!("({v})"),
            Plain::Int(v) => v.to_string(),
            Plain::Float64(v) if !v.is_finite() => {
                return Err(Reason::DifferentMeaning(format!("SQLite has no literal {v}")));
            }
            Plain::Float64(v) if v.is_sign_negative() => format!("({})", float_text(*v)),
            Plain::Float64(v) => float_text(*v),
            Plain::Decimal(v) if significant_digits(v) > EXACT_DIGITS => {
                return Err(Reason::DifferentMeaning(format!(
                    "{v} has more digits than SQLite compares exactly"
                )));
            }
            Plain::Decimal(v) if v.starts_with('-') => format!("({v})"),
            Plain::Decimal(v) => v.clone(),
            Plain::Text(v) => string(v),
            Plain::Binary(v) => format!("X'{}'", hex(v)),
            Plain::Date(v) => format!("'{}'", date_text(*v)),
            Plain::Float32(_) | Plain::Time(_) | Plain::Timestamp(_) | Plain::Moment(_) => {
                let what = format!("a literal of type {}", value.data_type());
                return Err(Reason::NotOnAllowList(what));
            }
        };
        let class = match (read, Class::of(&value.data_type())) {
            (Plain::Int(v), _) => Class::Int { min: v, max: v },
            (_, Some(class)) => class,
            (_, None) => {
                let what = format!("a literal of type {}", value.data_type());
                return Err(Reason::NotOnAllowList(what));
            }
        };
        let mut operand =
            Operand::new(sql, class, &value.data_type()).with_collation(Collation::Literal);
        operand.literal = Some(value.clone());
        Ok(operand)
    }

    fn cast(&self, operand: Operand, to: &DataType, class: Class) -> Result<Operand, Reason> {
        match (operand.class, class) {
            (Class::Int { min, max }, Class::Int { min: lo, max: hi })
                if lo <= min && max <= hi =>
            {
                Ok(Operand { data_type: to.clone(), ..operand })
            }
            (Class::Decimal { digits: p, scale: s }, Class::Decimal { digits: q, scale: t })
                if t >= s && i64::from(q) - i64::from(t) >= i64::from(p) - i64::from(s) =>
            {
                Ok(Operand { class, data_type: to.clone(), ..operand })
            }
            (Class::Int { .. }, Class::Float64) => {
                Ok(Operand::new(format!("CAST({} AS REAL)", operand.sql), class, to))
            }
            (from, to) => {
                Err(Reason::NotOnAllowList(format!("a cast from {} to {}", from.noun(), to.noun())))
            }
        }
    }

    /// An integer that overflows becomes a float there, and stays one in what is computed with it:
    /// then it is made to fail.
    fn assigned(&self, operand: &Operand, to: &DataType) -> Result<String, Reason> {
        let sql = &operand.sql;
        match (operand.class, Class::of(to)) {
            (Class::Int { .. }, Some(Class::Int { .. })) if sql.contains('(') => Ok(format!(
                "CASE typeof({sql}) WHEN 'real' THEN abs(-9223372036854775807 - 1) ELSE {sql} END"
            )),
            (Class::Int { min, max }, Some(Class::Decimal { digits, scale })) => {
                let whole = u32::try_from(i64::from(digits) - i64::from(scale)).unwrap_or(0);
                let limit = 10_i128.checked_pow(whole).unwrap_or(i128::MAX);
                if -limit < min && max < limit { Ok(sql.clone()) } else { Err(too_large()) }
            }
            (
                Class::Decimal { digits: p, scale: s },
                Some(Class::Decimal { digits: q, scale: t }),
            ) if i64::from(p) - i64::from(s) > i64::from(q) - i64::from(t) => Err(too_large()),
            _ => Ok(sql.clone()),
        }
    }

    fn comparable(
        &self,
        left: Operand,
        right: Operand,
        _ordering: bool,
    ) -> Result<(Operand, Operand), Reason> {
        // Columns say BINARY themselves, and everything else is compared so by default.
        Ok((left, right))
    }

    fn arithmetic(&self) -> bool {
        false
    }

    /// Casts to these types change no value of a class that fits them. A computed float is left
    /// out: SQLite has but one zero.
    fn native_type(&self, data_type: &DataType) -> Option<String> {
        let name = match data_type {
            DataType::Boolean | DataType::Int64 => "INTEGER",
            DataType::Decimal128(digits, 0..) if u32::from(*digits) <= EXACT_DIGITS => "NUMERIC",
            DataType::Utf8 | DataType::Date32 => "TEXT",
            DataType::Binary => "BLOB",
            _ => return None,
        };
        Some(name.to_owned())
    }

    fn no_columns(&self) -> &'static str {
        "1"
    }

    /// Decimals are doubles there: the greatest of them is exact and their sum is not.
    fn aggregates(&self, function: &str, class: Class) -> Result<(), Reason> {
        match (function, class) {
            ("count", _) | ("sum", Class::Int { .. }) => Ok(()),
            (
                "min" | "max",
                Class::Int { .. } | Class::Decimal { .. } | Class::Text | Class::Date,
            ) => Ok(()),
            (function, class) => Err(Reason::DifferentMeaning(format!(
                "{function}() of {} is computed here",
                class.noun()
            ))),
        }
    }

    /// SQLite joins by an index, one it makes for the statement if need be, and that is possible
    /// for columns as they are. Anything else would be compared with every row.
    fn joins_by(&self, key: &Operand) -> Result<(), Reason> {
        let name = key.sql.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match name {
            Some(name) if !name.contains('"') => Ok(()),
            _ => Err(Reason::DifferentMeaning(
                "SQLite would compare every pair of rows to join by this key".to_owned(),
            )),
        }
    }

    /// It makes no index for the table of an EXISTS, but keeps a list of its own sorted.
    fn partners_by_list(&self) -> bool {
        true
    }

    fn binary_collation(&self) -> &'static str {
        " COLLATE BINARY"
    }

    fn distinct_operator(&self, negated: bool) -> &'static str {
        if negated { "IS" } else { "IS NOT" }
    }

    fn unknown(&self) -> &'static str {
        "NULL"
    }

    /// SQLite's own LIKE ignores ASCII case and stops at a NUL character.
    fn like(&self, value: &Operand, pattern: &Pattern) -> Result<String, Reason> {
        let value_sql = &value.sql;
        match pattern.shape() {
            Shape::Equals(text) => Ok(format!("{value_sql} = {}", string(&text))),
            Shape::StartsWith(text) if !text.is_empty() => Ok(match after_prefix(&text) {
                Some(after) => format!(
                    "({value_sql} >= {} AND {value_sql} < {})",
                    string(&text),
                    string(&after)
                ),
                None => format!("{value_sql} >= {}", string(&text)),
            }),
            Shape::Contains(text) if !text.is_empty() => {
                Ok(format!("instr({value_sql}, {}) > 0", string(&text)))
            }
            _ => Err(Reason::DifferentMeaning(
                "SQLite's LIKE ignores case; only a fixed prefix or part is looked for there"
                    .to_owned(),
            )),
        }
    }

    fn contains(&self, haystack: &Operand, needle: &Operand) -> String {
        format!("instr({}, {}) > 0", haystack.sql, needle.sql)
    }
}

fn too_large() -> Reason {
    Reason::DifferentMeaning("SQLite would keep more digits than the column declares".to_owned())
}

fn string(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Digits of a decimal text without leading zeros.
fn significant_digits(text: &str) -> u32 {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    u32::try_from(digits.trim_start_matches('0').len()).unwrap_or(u32::MAX)
}

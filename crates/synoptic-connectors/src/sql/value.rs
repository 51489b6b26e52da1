//! What the pieces of an expression are: their kind, their text, how tightly the text binds.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;

/// Kinds of values. Two operands compare only when they are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// NULL without a type.
    Null,
    Bool,
    /// Integers; `min` and `max` bound every value it can have.
    Int {
        min: i128,
        max: i128,
    },
    Float32,
    Float64,
    /// At most `digits` digits, `scale` of them after the point.
    Decimal {
        digits: u32,
        scale: i32,
    },
    Text,
    /// Text at the engine, a `uuid` at the source.
    Uuid,
    Binary,
    Date,
    Time,
    Timestamp,
    /// A moment, with a time zone.
    Moment,
}

impl Class {
    /// The class of a type; `None` for types no dialect compares.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        let int = |bits: u32, signed: bool| {
            let max = if signed { (1_i128 << (bits - 1)) - 1 } else { (1_i128 << bits) - 1 };
            Self::Int { min: if signed { -max - 1 } else { 0 }, max }
        };
        Some(match data_type {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool,
            DataType::Int8 => int(8, true),
            DataType::Int16 => int(16, true),
            DataType::Int32 => int(32, true),
            DataType::Int64 => int(64, true),
            DataType::UInt8 => int(8, false),
            DataType::UInt16 => int(16, false),
            DataType::UInt32 => int(32, false),
            DataType::UInt64 => int(64, false),
            DataType::Float32 => Self::Float32,
            DataType::Float64 => Self::Float64,
            DataType::Decimal32(p, s)
            | DataType::Decimal64(p, s)
            | DataType::Decimal128(p, s)
            | DataType::Decimal256(p, s) => {
                Self::Decimal { digits: u32::from(*p), scale: i32::from(*s) }
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Self::Binary,
            DataType::Date32 => Self::Date,
            DataType::Time64(_) => Self::Time,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::Moment,
            DataType::Dictionary(_, value) => return Self::of(value),
            _ => return None,
        })
    }

    /// Whether values of the two can be compared.
    pub(crate) fn agrees(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Null, _)
                | (_, Self::Null)
                | (Self::Int { .. }, Self::Int { .. })
                | (Self::Decimal { .. }, Self::Decimal { .. })
        ) || self == other
    }

    /// What a value taken from either of two agreeing classes is.
    pub(crate) fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, class) | (class, Self::Null) => class,
            (Self::Int { min: a, max: b }, Self::Int { min: c, max: d }) => {
                Self::Int { min: a.min(c), max: b.max(d) }
            }
            (Self::Decimal { digits: p, scale: s }, Self::Decimal { digits: q, scale: t }) => {
                let scale = s.max(t);
                let whole = (i64::from(p) - i64::from(s)).max(i64::from(q) - i64::from(t));
                let digits = u32::try_from(whole + i64::from(scale)).unwrap_or(u32::MAX);
                Self::Decimal { digits, scale }
            }
            (class, _) => class,
        }
    }

    /// A name for a reason.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Bool => "a boolean",
            Self::Int { .. } => "an integer",
            Self::Float32 | Self::Float64 => "a floating-point number",
            Self::Decimal { .. } => "a decimal",
            Self::Text => "text",
            Self::Uuid => "a uuid",
            Self::Binary => "binary data",
            Self::Date => "a date",
            Self::Time => "a time of day",
            Self::Timestamp => "a timestamp",
            Self::Moment => "a timestamp with time zone",
        }
    }
}

/// Whether timestamps of this type are whole microseconds, as sources keep them.
pub(crate) fn is_micros(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Time64(TimeUnit::Microsecond)
    )
}

/// Whether times of this type are finer than sources keep them.
pub(crate) fn is_nanos(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond)
    )
}

/// Under which collation the source would compare a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collation {
    /// By bytes.
    Binary,
    /// A deterministic one: equal is equal bytes, but the order is its own.
    Other,
    /// Whatever the other operand says.
    Literal,
    /// Made from several operands; the source may not be able to tell.
    Mixed,
}

/// A value in SQL. `sql` binds tightly enough to stand on either side of any operator.
#[derive(Debug, Clone)]
pub(crate) struct Operand {
    pub sql: String,
    pub class: Class,
    /// Its type at the engine.
    pub data_type: DataType,
    pub collation: Collation,
    /// The literal it is, when it is one.
    pub literal: Option<ScalarValue>,
    /// The type it must be cast to before the source calculates with it: comparing does not need
    /// a widening cast, and without it an index can be used.
    pub widened_to: Option<&'static str>,
}

impl Operand {
    pub(crate) fn new(sql: impl Into<String>, class: Class, data_type: &DataType) -> Self {
        Self {
            sql: sql.into(),
            class,
            data_type: data_type.clone(),
            collation: Collation::Mixed,
            literal: None,
            widened_to: None,
        }
    }

    pub(crate) fn with_collation(mut self, collation: Collation) -> Self {
        self.collation = collation;
        self
    }
}

/// How tightly a condition's text binds; the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Binding {
    Or,
    And,
    Not,
    Comparison,
    Atom,
}

/// A condition in SQL.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub sql: String,
    pub binding: Binding,
}

impl Condition {
    pub(crate) fn new(sql: impl Into<String>, binding: Binding) -> Self {
        Self { sql: sql.into(), binding }
    }

    /// The condition as a value.
    pub(crate) fn into_operand(self) -> Operand {
        Operand::new(self.at_least(Binding::Atom), Class::Bool, &DataType::Boolean)
    }

    /// The text, in parentheses when it binds less tightly than `needed`.
    pub(crate) fn at_least(self, needed: Binding) -> String {
        if self.binding < needed { format!("({})", self.sql) } else { self.sql }
    }
}

//! Declared types → Arrow types.

use arrow::datatypes::{DataType, TimeUnit};

/// The digits of a decimal that declares none: exact, or an error of the value that does not fit.
const UNCONSTRAINED: (u8, i8) = (38, 18);

/// The most digits of an Arrow decimal of 128 bits.
const MOST_DIGITS: u8 = 38;

/// How a column's values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Bool,
    Float,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Text,
    Blob,
    Date,
    /// Without a time zone: the wall clock as written.
    Timestamp,
    /// With one: the moment.
    Moment,
    /// Integers, floats and text side by side, all as text.
    Any,
}

impl Kind {
    /// From the declared type: well-known names first, then SQLite's affinity rules.
    pub fn of(declared: &str) -> Self {
        let (base, arguments) = split(declared);
        match base.as_str() {
            "DATE" => return Self::Date,
            "DATETIME" | "TIMESTAMP" | "TIMESTAMP WITHOUT TIME ZONE" => return Self::Timestamp,
            "TIMESTAMPTZ" | "TIMESTAMP WITH TIME ZONE" => return Self::Moment,
            "DECIMAL" | "NUMERIC" | "DEC" => return decimal(&arguments),
            // By the rules an integer, in use a text.
            "INTERVAL" => return Self::Any,
            name if name.starts_with("BOOL") => return Self::Bool,
            _ => {}
        }
        let has = |part: &str| base.contains(part);
        if has("INT") {
            Self::Int
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Float
        } else {
            Self::Any
        }
    }

    pub fn arrow(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::Bool => DataType::Boolean,
            Self::Float => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Text | Self::Any => DataType::Utf8,
            Self::Blob => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Moment => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// Bytes a value takes on average when nothing is known of it.
    pub fn assumed_width(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Date => 4,
            Self::Int | Self::Float | Self::Timestamp | Self::Moment => 8,
            Self::Decimal { .. } => 16,
            Self::Text | Self::Any | Self::Blob => 32,
        }
    }
}

fn decimal(arguments: &[i64]) -> Kind {
    let (precision, scale) = match arguments {
        [] => (i64::from(UNCONSTRAINED.0), i64::from(UNCONSTRAINED.1)),
        [precision] => (*precision, 0),
        [precision, scale, ..] => (*precision, *scale),
    };
    // SQLite itself never looks at the numbers, so they may be anything.
    let precision = precision.max(scale).clamp(1, i64::from(MOST_DIGITS));
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if (0..=MOST_DIGITS as i8).contains(&scale) => {
            Kind::Decimal { precision, scale }
        }
        _ => Kind::Any,
    }
}

/// `DECIMAL (10, 2)` as `DECIMAL` and `[10, 2]`; words in upper case with one blank between.
fn split(declared: &str) -> (String, Vec<i64>) {
    let upper = declared.to_ascii_uppercase();
    let (name, arguments) = match (upper.find('('), upper.find(')')) {
        (Some(open), Some(close)) if open < close => {
            let rest = &upper[close + 1..];
            (format!("{} {rest}", &upper[..open]), &upper[open + 1..close])
        }
        _ => (upper.clone(), ""),
    };
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let arguments = arguments.split(',').filter_map(|text| text.trim().parse().ok());
    (name, arguments.collect())
}

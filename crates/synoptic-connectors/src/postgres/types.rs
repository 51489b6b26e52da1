//! Native types → Arrow types, and how each travels.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, IntervalUnit, TimeUnit,
};
use serde::Deserialize;

/// What an unconstrained `numeric` becomes: exact, or an error of the value that does not fit.
const UNCONSTRAINED: Encoding =
    Encoding::Numeric { precision: DECIMAL128_MAX_PRECISION, scale: 18, constrained: false };

/// Bytes of `varlena` headers that a type modifier counts.
const TYPMOD_HEADER: i32 = 4;

/// The `oid` of `pg_catalog.text` and of its array.
pub(super) const TEXT_OID: u32 = 25;
pub(super) const TEXT_ARRAY_OID: u32 = 1009;

/// How a value looks in binary COPY, and thereby what it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Encoding {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Base-10000 digits. `precision` and `scale` are those of the Arrow decimal, 1 to 76 and
    /// 0 to `precision`.
    Numeric {
        precision: u8,
        scale: u8,
        /// Whether the column declares a precision.
        constrained: bool,
    },
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    /// UTF-8 as it comes.
    Text,
    /// A version byte and then text.
    Jsonb,
    Uuid,
    Bytea,
    /// As many dimensions as the column declares, at least 1.
    Array {
        element: Box<Self>,
        dimensions: usize,
    },
}

/// What the column is wrapped in before it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cast {
    None,
    /// `::text`, for types with no Arrow counterpart.
    Text,
    /// `::text[]`, for arrays of such.
    TextArray,
}

/// A native type with its domains taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub encoding: Encoding,
    pub cast: Cast,
    /// The `oid` the server reports for the column as it travels.
    pub wire_oid: u32,
    /// `pg_type.typname` of the base type, `enum` for every enumeration.
    pub native: String,
}

/// One row of `pg_type`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TypeRow {
    pub oid: u32,
    pub name: String,
    /// `typtype`: `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    pub kind: String,
    pub base: u32,
    pub base_typmod: i32,
    pub base_dimensions: i32,
    pub element: u32,
    /// The type whose element this is.
    pub array: u32,
}

impl Encoding {
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric { precision, scale, .. } => {
                // Both are at most 76.
                let scale = i8::try_from(*scale).unwrap_or(i8::MAX);
                if *precision <= DECIMAL128_MAX_PRECISION {
                    DataType::Decimal128(*precision, scale)
                } else {
                    DataType::Decimal256(*precision, scale)
                }
            }
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Text | Self::Jsonb | Self::Uuid => DataType::Utf8,
            Self::Bytea => DataType::Binary,
            Self::Array { element, dimensions } => {
                let mut list = element.arrow();
                for _ in 0..*dimensions {
                    list = DataType::List(Arc::new(Field::new_list_field(list, true)));
                }
                list
            }
        }
    }

    /// Bytes a value takes on average when nothing is known of it.
    pub fn assumed_width(&self) -> usize {
        match self {
            Self::Bool => 1,
            Self::Int2 => 2,
            Self::Int4 | Self::Float4 | Self::Date => 4,
            Self::Int8 | Self::Float8 | Self::Time | Self::Timestamp | Self::TimestampTz => 8,
            Self::Numeric { .. } => 10,
            Self::Interval | Self::Uuid => 16,
            Self::Text | Self::Jsonb | Self::Bytea | Self::Array { .. } => 32,
        }
    }

    fn builtin(oid: u32, typmod: i32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            // text, name, json, bpchar, varchar
            25 | 19 | 114 | 1042 | 1043 => Self::Text,
            700 => Self::Float4,
            701 => Self::Float8,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1186 => Self::Interval,
            1700 => return Self::numeric(typmod),
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ => return None,
        })
    }

    /// `numeric(p, s)`, where `s` may be negative or larger than `p`. `None` when no decimal has
    /// that many fraction digits.
    fn numeric(typmod: i32) -> Option<Self> {
        if typmod < TYPMOD_HEADER {
            return Some(UNCONSTRAINED);
        }
        let packed = typmod - TYPMOD_HEADER;
        let precision = (packed >> 16) & 0xffff;
        // Eleven bits, signed.
        let scale = ((packed & 0x7ff) ^ 1024) - 1024;
        let whole_digits = precision - scale;
        let scale = u8::try_from(scale.max(0)).ok()?;
        if scale > DECIMAL256_MAX_PRECISION {
            return None;
        }
        // A negative scale means more whole digits; a scale above the precision, leading zeros
        // after the point. What is beyond 76 digits is an error of the value, if there ever is one.
        let needed = (whole_digits.max(0) + i32::from(scale)).max(1);
        let precision = u8::try_from(needed).unwrap_or(u8::MAX).min(DECIMAL256_MAX_PRECISION);
        Some(Self::Numeric { precision, scale, constrained: true })
    }
}

/// The type a column is cast to at the server so that it becomes `data_type`, by its `oid`, and how it
/// travels; `None` for types nothing is cast to.
pub(super) fn builtin_of(data_type: &DataType) -> Option<(u32, Encoding)> {
    Some(match data_type {
        DataType::Boolean => (16, Encoding::Bool),
        DataType::Binary => (17, Encoding::Bytea),
        DataType::Int64 => (20, Encoding::Int8),
        DataType::Int16 => (21, Encoding::Int2),
        DataType::Int32 => (23, Encoding::Int4),
        DataType::Utf8 => (TEXT_OID, Encoding::Text),
        DataType::Float32 => (700, Encoding::Float4),
        DataType::Float64 => (701, Encoding::Float8),
        DataType::Date32 => (1082, Encoding::Date),
        DataType::Time64(TimeUnit::Microsecond) => (1083, Encoding::Time),
        DataType::Timestamp(TimeUnit::Microsecond, None) => (1114, Encoding::Timestamp),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => (1184, Encoding::TimestampTz),
        DataType::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).ok()?;
            (1700, Encoding::Numeric { precision: *precision, scale, constrained: true })
        }
        _ => return None,
    })
}

/// Resolves a column's type. `dimensions` is what the column declares (`attndims`).
pub(super) fn resolve(
    types: &HashMap<u32, TypeRow>,
    oid: u32,
    typmod: i32,
    dimensions: i32,
) -> Resolved {
    // Domains over domains end: the server does not let them be circular. So do we.
    resolve_within(types, oid, typmod, dimensions, 32)
}

fn resolve_within(
    types: &HashMap<u32, TypeRow>,
    oid: u32,
    mut typmod: i32,
    mut dimensions: i32,
    depth: usize,
) -> Resolved {
    let mut base = oid;
    for _ in 0..depth {
        match types.get(&base) {
            Some(row) if row.kind == "d" => {
                if typmod < 0 {
                    typmod = row.base_typmod;
                }
                dimensions = dimensions.max(row.base_dimensions);
                base = row.base;
            }
            _ => break,
        }
    }
    let row = types.get(&base);
    let native = row.map_or_else(|| base.to_string(), |row| row.name.clone());
    let plain = |encoding, native| Resolved { encoding, cast: Cast::None, wire_oid: base, native };
    let text = |native| Resolved {
        encoding: Encoding::Text,
        cast: Cast::Text,
        wire_oid: TEXT_OID,
        native,
    };

    if let Some(encoding) = Encoding::builtin(base, typmod) {
        return plain(encoding, native);
    }
    let Some(row) = row else { return text(native) };
    if row.kind == "e" {
        return plain(Encoding::Text, "enum".to_owned());
    }
    let is_array = row.element != 0 && types.get(&row.element).is_some_and(|e| e.array == row.oid);
    if !is_array || depth == 0 {
        return text(native);
    }
    let dimensions = usize::try_from(dimensions).unwrap_or(1).max(1);
    let element = resolve_within(types, row.element, typmod, 0, depth - 1);
    match element.cast {
        Cast::None => {
            plain(Encoding::Array { element: Box::new(element.encoding), dimensions }, native)
        }
        Cast::Text => Resolved {
            encoding: Encoding::Array { element: Box::new(Encoding::Text), dimensions },
            cast: Cast::TextArray,
            wire_oid: TEXT_ARRAY_OID,
            native,
        },
        Cast::TextArray => text(native),
    }
}

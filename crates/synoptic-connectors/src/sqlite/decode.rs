//! SQLite values → Arrow, strictly: what does not fit the declared type is an error.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
    Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use rusqlite::types::{Type, ValueRef};
use synoptic_source::{Result, SourceError};

use super::parse;
use super::types::Kind;

/// Integers up to here are exact as doubles.
const EXACT_AS_FLOAT: i64 = 1 << 53;

/// How much of a value an error shows.
const SHOWN_CHARS: usize = 40;

/// Rows that there is room for at first: most answers are small.
const FIRST_ROWS: usize = 256;

/// A batch ends here even when it has fewer rows than wanted: offsets and memory are bounded.
const MOST_BATCH_BYTES: usize = 16 << 20;

/// One column of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub name: String,
    pub declared: String,
    pub kind: Kind,
    pub nullable: bool,
}

/// A value that does not fit.
#[derive(Debug)]
pub(super) struct Misfit {
    /// Its place among the columns of the scan.
    pub column: usize,
    message: String,
}

impl Misfit {
    /// The error, for a column of this name; `place` may say which row.
    pub fn into_error(self, name: &str, place: &str) -> SourceError {
        SourceError::data(format!("{}{place}", self.message)).in_column(name)
    }
}

/// A value of a kind.
enum Value<'a> {
    Null,
    Int(i64),
    Bool(bool),
    Float(f64),
    Decimal(i128),
    Str(&'a str),
    String(String),
    Bytes(&'a [u8]),
    Days(i32),
    Micros(i64),
}

/// Builds batches. Columns beyond the schema's are checked and not kept: a filter saw them, and
/// SQLite compares what does not fit in its own way.
pub(super) struct Decoder {
    schema: SchemaRef,
    columns: Arc<[Wanted]>,
    builders: Vec<Builder>,
    rows: usize,
    /// Since the last batch.
    bytes: usize,
    capacity: usize,
}

impl Decoder {
    pub fn new(schema: SchemaRef, columns: Arc<[Wanted]>, capacity: usize) -> Self {
        let kept = columns.iter().take(schema.fields().len());
        let room = capacity.min(FIRST_ROWS);
        let builders = kept.map(|column| Builder::new(column.kind, room)).collect();
        Self { schema, columns, builders, rows: 0, bytes: 0, capacity }
    }

    /// Takes the values of one row, which `value` gives by column.
    pub fn append<'a>(
        &mut self,
        value: impl Fn(usize) -> rusqlite::Result<ValueRef<'a>>,
    ) -> rusqlite::Result<Result<(), Misfit>> {
        for (index, column) in self.columns.iter().enumerate() {
            let raw = value(index)?;
            self.bytes += stored_bytes(raw);
            match read(raw, column) {
                Ok(value) => {
                    if let Some(builder) = self.builders.get_mut(index) {
                        builder.append(value);
                    }
                }
                Err(message) => return Ok(Err(Misfit { column: index, message })),
            }
        }
        self.rows += 1;
        Ok(Ok(()))
    }

    /// Whether it is time to make a batch.
    pub fn is_full(&self) -> bool {
        self.rows >= self.capacity || self.bytes >= MOST_BATCH_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows since the last batch, and how many bytes their values took.
    pub fn finish(&mut self) -> Result<(RecordBatch, u64)> {
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        let bytes = self.bytes as u64;
        (self.rows, self.bytes) = (0, 0);
        let batch = batch.map_err(|error| {
            SourceError::internal("the decoded columns do not make a batch").caused_by(error)
        })?;
        Ok((batch, bytes))
    }
}

fn stored_bytes(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 0,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

/// The value as its column's kind, or what is wrong with it.
fn read<'a>(value: ValueRef<'a>, column: &Wanted) -> Result<Value<'a>, String> {
    let kind = column.kind;
    let text = |bytes: &'a [u8]| {
        std::str::from_utf8(bytes).map_err(|_| "the text is not valid UTF-8".to_owned())
    };
    let read = match (kind, value) {
        (_, ValueRef::Null) if column.nullable => Some(Value::Null),
        (_, ValueRef::Null) => return Err("a column that is NOT NULL holds NULL".to_owned()),
        (Kind::Int, ValueRef::Integer(v)) => Some(Value::Int(v)),
        (Kind::Bool, ValueRef::Integer(v @ 0..=1)) => Some(Value::Bool(v == 1)),
        (Kind::Float, ValueRef::Real(v)) => Some(Value::Float(v)),
        (Kind::Float, ValueRef::Integer(v)) if v.unsigned_abs() <= EXACT_AS_FLOAT as u64 => {
            Some(Value::Float(v as f64))
        }
        (Kind::Decimal { precision, scale }, value) => {
            let decimal = match value {
                ValueRef::Integer(v) => parse::decimal_of_int(v, precision, scale),
                ValueRef::Real(v) => parse::decimal_of_float(v, precision, scale),
                ValueRef::Text(bytes) => parse::decimal(text(bytes)?, precision, scale),
                ValueRef::Blob(_) | ValueRef::Null => None,
            };
            decimal.map(Value::Decimal)
        }
        (Kind::Text | Kind::Any, ValueRef::Text(bytes)) => Some(Value::Str(text(bytes)?)),
        (Kind::Any, ValueRef::Integer(v)) => Some(Value::String(v.to_string())),
        (Kind::Any, ValueRef::Real(v)) => Some(Value::String(format!("{v:?}"))),
        (Kind::Blob, ValueRef::Blob(bytes)) => Some(Value::Bytes(bytes)),
        (Kind::Date, ValueRef::Text(bytes)) => parse::date(text(bytes)?).map(Value::Days),
        (Kind::Timestamp, ValueRef::Text(bytes)) => {
            parse::timestamp(text(bytes)?).map(Value::Micros)
        }
        (Kind::Moment, ValueRef::Text(bytes)) => parse::moment(text(bytes)?).map(Value::Micros),
        _ => None,
    };
    read.ok_or_else(|| misfit(value, column))
}

fn misfit(value: ValueRef<'_>, column: &Wanted) -> String {
    let shown = match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(v) => format!("the integer {v}"),
        ValueRef::Real(v) => format!("the number {v:?}"),
        ValueRef::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let short: String = text.chars().take(SHOWN_CHARS).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            format!("the text '{short}{more}'")
        }
        ValueRef::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    };
    let declared = match column.declared.as_str() {
        "" => "a column without a type".to_owned(),
        declared => format!("the declared type {declared}"),
    };
    let numeric = matches!(value.data_type(), Type::Integer | Type::Real);
    let hint = match column.kind {
        Kind::Date | Kind::Timestamp | Kind::Moment if numeric => {
            "; numbers could count days or seconds from any start: store ISO 8601 text"
        }
        Kind::Date => ", which takes text like 2024-01-31",
        Kind::Timestamp => ", which takes text like 2024-01-31 12:30:00.5, in no zone but UTC",
        Kind::Moment => ", which takes text like 2024-01-31T12:30:00+01:00",
        Kind::Bool => ", which takes 0 and 1",
        Kind::Decimal { .. } => " exactly",
        _ => "",
    };
    format!("{shown} does not fit {declared}{hint}")
}

enum Builder {
    Int(Int64Builder),
    Bool(BooleanBuilder),
    Float(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Blob(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(kind: Kind, rows: usize) -> Self {
        match kind {
            Kind::Int => Self::Int(Int64Builder::with_capacity(rows)),
            Kind::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            Kind::Float => Self::Float(Float64Builder::with_capacity(rows)),
            Kind::Decimal { .. } => {
                let builder = Decimal128Builder::with_capacity(rows);
                Self::Decimal(builder.with_data_type(kind.arrow()))
            }
            Kind::Text | Kind::Any => Self::Text(StringBuilder::new()),
            Kind::Blob => Self::Blob(BinaryBuilder::new()),
            Kind::Date => Self::Date(Date32Builder::with_capacity(rows)),
            Kind::Timestamp | Kind::Moment => {
                let builder = TimestampMicrosecondBuilder::with_capacity(rows);
                Self::Timestamp(builder.with_data_type(kind.arrow()))
            }
        }
    }

    fn append(&mut self, value: Value<'_>) {
        match (self, value) {
            (Self::Int(builder), Value::Int(v)) => builder.append_value(v),
            (Self::Bool(builder), Value::Bool(v)) => builder.append_value(v),
            (Self::Float(builder), Value::Float(v)) => builder.append_value(v),
            (Self::Decimal(builder), Value::Decimal(v)) => builder.append_value(v),
            (Self::Text(builder), Value::Str(v)) => builder.append_value(v),
            (Self::Text(builder), Value::String(v)) => builder.append_value(v),
            (Self::Blob(builder), Value::Bytes(v)) => builder.append_value(v),
            (Self::Date(builder), Value::Days(v)) => builder.append_value(v),
            (Self::Timestamp(builder), Value::Micros(v)) => builder.append_value(v),
            // `read` gives each kind its own values, so what is left is NULL.
            (Self::Int(builder), _) => builder.append_null(),
            (Self::Bool(builder), _) => builder.append_null(),
            (Self::Float(builder), _) => builder.append_null(),
            (Self::Decimal(builder), _) => builder.append_null(),
            (Self::Text(builder), _) => builder.append_null(),
            (Self::Blob(builder), _) => builder.append_null(),
            (Self::Date(builder), _) => builder.append_null(),
            (Self::Timestamp(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Blob(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}

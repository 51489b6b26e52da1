//! The columns that a log declares.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use datafusion::datasource::file_format::parquet::transform_schema_to_view;
use serde::Deserialize;
use serde_json::Value;
use synoptic_source::{ErrorKind, Result, SourceError};

use super::Columns;
use super::actions::Metadata;

#[derive(Deserialize)]
struct Struct {
    fields: Vec<Column>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    data_type: Value,
}

/// The columns of a table. All are nullable, because a file may lack any that was added later.
///
/// # Errors
/// When the schema cannot be read, or a column has a type that is not supported.
pub fn columns(metadata: &Metadata) -> Result<Columns> {
    let declared: Struct = serde_json::from_str(&metadata.schema_string)
        .map_err(|e| SourceError::data(format!("the schema of the Delta table: {e}")))?;
    let fields = declared.fields.iter().map(|column| {
        let data_type = data_type(&column.data_type).map_err(|unknown| {
            SourceError::new(
                ErrorKind::Unsupported,
                format!("a Delta column of the type {unknown} is not supported"),
            )
            .in_column(column.name.clone())
        })?;
        Ok(Field::new(&column.name, data_type, true))
    });
    let mut inside = fields.collect::<Result<Vec<Field>>>()?;
    let mut partitions: Vec<FieldRef> = Vec::new();
    for name in &metadata.partition_columns {
        let Some(at) = inside.iter().position(|field| field.name() == name) else {
            let message = "the Delta table is partitioned by it and does not have it";
            return Err(SourceError::data(message).in_column(name.clone()));
        };
        let field = inside.remove(at);
        if field.data_type().is_nested() || *field.data_type() == DataType::Binary {
            let of = field.data_type();
            return Err(SourceError::new(
                ErrorKind::Unsupported,
                format!("a Delta table partitioned by a column of the type {of} is not supported"),
            )
            .in_column(name.clone()));
        }
        partitions.push(Arc::new(field));
    }
    Ok(Columns { inside: transform_schema_to_view(&Schema::new(inside)), partitions })
}

/// The Arrow type of a Delta type.
///
/// # Errors
/// With the type that is unknown.
fn data_type(declared: &Value) -> Result<DataType, String> {
    let unknown = || declared.to_string();
    if let Some(name) = declared.as_str() {
        return primitive(name).ok_or_else(unknown);
    }
    let part = |key: &str| declared.get(key).ok_or_else(unknown);
    match part("type")?.as_str() {
        Some("struct") => {
            let fields = part("fields")?.as_array().ok_or_else(unknown)?.iter().map(|field| {
                let name = field.get("name").and_then(Value::as_str).ok_or_else(unknown)?;
                let of = data_type(field.get("type").ok_or_else(unknown)?)?;
                Ok(Field::new(name, of, true))
            });
            Ok(DataType::Struct(fields.collect::<Result<Fields, String>>()?))
        }
        Some("array") => {
            let element = Field::new("element", data_type(part("elementType")?)?, true);
            Ok(DataType::List(Arc::new(element)))
        }
        Some("map") => {
            let key = Field::new("key", data_type(part("keyType")?)?, false);
            let value = Field::new("value", data_type(part("valueType")?)?, true);
            let entries = DataType::Struct(vec![key, value].into());
            Ok(DataType::Map(Arc::new(Field::new("key_value", entries, false)), false))
        }
        _ => Err(unknown()),
    }
}

fn primitive(name: &str) -> Option<DataType> {
    let micros =
        |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    Some(match name {
        "boolean" => DataType::Boolean,
        "byte" => DataType::Int8,
        "short" => DataType::Int16,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "date" => DataType::Date32,
        "timestamp" => micros(Some("UTC")),
        "timestamp_ntz" => micros(None),
        "string" => DataType::Utf8,
        "binary" => DataType::Binary,
        "decimal" => DataType::Decimal128(10, 0),
        other => {
            let inner = other.strip_prefix("decimal(")?.strip_suffix(')')?;
            let (precision, scale) = inner.split_once(',')?;
            let (precision, scale): (u8, i8) =
                (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            let fits = (1..=38).contains(&precision) && (0..=38).contains(&scale);
            if !fits || i16::from(scale) > i16::from(precision) {
                return None;
            }
            DataType::Decimal128(precision, scale)
        }
    })
}

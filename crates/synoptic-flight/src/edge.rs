//! The Arrow types that leave the server.
//!
//! The engine's own types are for speed: string views, dictionaries, small decimals. Clients read
//! them wrongly or not at all: JDBC before 19 fails on views and returns a dictionary's *index*
//! as its value. So each answer is put into types that every client reads, in its schema and in
//! its batches alike, nested types too. A client that wants the engine's types sends the header
//! `x-synoptic-types: native`.
//!
//! | engine | every client |
//! |---|---|
//! | Utf8View, BinaryView | Utf8, Binary |
//! | Dictionary, RunEndEncoded | their values |
//! | Decimal32, Decimal64 | Decimal128 of the same digits |
//! | ListView, LargeListView | List, LargeList |
//! | everything else | itself |

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    RecordBatch, RecordBatchOptions, StructArray, UnionArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UnionFields};
use arrow::error::ArrowError;
use synoptic_types::QueryId;

use crate::names;
use crate::status::{Fault, Result};

/// Key of the schema metadata that names the query an answer belongs to.
pub(crate) const QUERY_ID_KEY: &str = "synoptic.query_id";

/// Which Arrow types a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Types {
    /// Those every client reads.
    #[default]
    Compatible,
    /// The engine's own.
    Native,
}

/// The schema a client sees. `query` is named in the metadata of results, not of descriptions.
pub(crate) fn schema(engine: &Schema, types: Types, query: Option<&QueryId>) -> SchemaRef {
    let fields: Fields =
        engine.fields().iter().map(|f| Arc::new(described(client_field(f, types)))).collect();
    let mut metadata = engine.metadata().clone();
    if let Some(query) = query {
        metadata.insert(QUERY_ID_KEY.to_owned(), query.to_string());
    }
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// A batch of the engine with the schema a client was promised.
///
/// # Errors
/// `[DATA]` when a column that may not be NULL holds one; it names the column.
pub(crate) fn batch(batch: &RecordBatch, promised: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != promised.fields().len() {
        return Err(Fault::internal(format!(
            "the answer has {} columns, {} were promised",
            batch.num_columns(),
            promised.fields().len()
        )));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(promised.fields())
        .map(|(column, field)| converted(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(promised), columns, &options)?)
}

/// The type a client gets for one of the engine's.
pub(crate) fn client_type(data_type: &DataType) -> DataType {
    let inner = |field: &FieldRef| Arc::new(client_field(field, Types::Compatible));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => client_type(values),
        DataType::RunEndEncoded(_, values) => client_type(values.data_type()),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(field) | DataType::ListView(field) => DataType::List(inner(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => {
            DataType::LargeList(inner(field))
        }
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(inner(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(field, sorted) => DataType::Map(inner(field), *sorted),
        DataType::Union(fields, mode) => {
            let fields: UnionFields = fields.iter().map(|(id, field)| (id, inner(field))).collect();
            DataType::Union(fields, *mode)
        }
        other => other.clone(),
    }
}

fn client_field(field: &Field, types: Types) -> Field {
    match types {
        Types::Native => field.clone(),
        Types::Compatible => {
            Field::new(field.name(), client_type(field.data_type()), field.is_nullable())
                .with_metadata(field.metadata().clone())
        }
    }
}

/// Adds the SQL name of the type, and the digits of exact numbers, unless the source said them.
fn described(field: Field) -> Field {
    let mut facts = HashMap::from([(names::TYPE_NAME, names::type_name(&field).to_owned())]);
    if let Some((precision, scale)) = names::digits(field.data_type()) {
        facts.insert(names::PRECISION, precision.to_string());
        facts.insert(names::SCALE, scale.to_string());
    }
    let mut metadata = field.metadata().clone();
    for (key, value) in facts {
        metadata.entry(key.to_owned()).or_insert(value);
    }
    field.with_metadata(metadata)
}

/// `array` as `to`, which is its own type or what [`client_type`] says of it.
pub(crate) fn converted(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(match (array.data_type(), to) {
        (DataType::List(_), DataType::List(field)) => list::<i32>(array, field)?,
        (DataType::LargeList(_), DataType::LargeList(field)) => list::<i64>(array, field)?,
        (DataType::ListView(from), DataType::List(_)) => {
            // Views first become lists of the same values, in order and without gaps.
            let list = cast(array, &DataType::List(Arc::clone(from)))?;
            converted(&list, to)?
        }
        (DataType::LargeListView(from), DataType::LargeList(_)) => {
            let list = cast(array, &DataType::LargeList(Arc::clone(from)))?;
            converted(&list, to)?
        }
        (DataType::FixedSizeList(..), DataType::FixedSizeList(field, size)) => {
            let list = array.as_fixed_size_list();
            let values = converted(list.values(), field.data_type())?;
            Arc::new(FixedSizeListArray::try_new_with_length(
                Arc::clone(field),
                *size,
                values,
                list.nulls().cloned(),
                list.len(),
            )?)
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            Arc::new(structure(array.as_struct(), fields)?)
        }
        (DataType::Map(..), DataType::Map(field, sorted)) => {
            let map = array.as_map();
            let DataType::Struct(fields) = field.data_type() else {
                return Err(ArrowError::SchemaError("the entries of a map are a struct".into()));
            };
            Arc::new(MapArray::try_new(
                Arc::clone(field),
                map.offsets().clone(),
                structure(map.entries(), fields)?,
                map.nulls().cloned(),
                *sorted,
            )?)
        }
        (DataType::Union(..), DataType::Union(fields, _)) => {
            let union = array.as_union();
            let children = fields
                .iter()
                .map(|(id, field)| converted(union.child(id), field.data_type()))
                .collect::<Result<Vec<_>, _>>()?;
            Arc::new(UnionArray::try_new(
                fields.clone(),
                union.type_ids().clone(),
                union.offsets().cloned(),
                children,
            )?)
        }
        (DataType::Dictionary(_, values), _) => {
            let values = values.as_ref().clone();
            converted(&cast(array, &values)?, to)?
        }
        (DataType::RunEndEncoded(_, values), _) => {
            let values = values.data_type().clone();
            converted(&cast(array, &values)?, to)?
        }
        _ => cast(array, to)?,
    })
}

/// A cast that fails instead of making NULLs of what does not fit.
fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

fn list<O: OffsetSizeTrait>(array: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let list = array.as_list::<O>();
    let values = converted(list.values(), field.data_type())?;
    Ok(Arc::new(GenericListArray::<O>::try_new(
        Arc::clone(field),
        list.offsets().clone(),
        values,
        list.nulls().cloned(),
    )?))
}

fn structure(array: &StructArray, fields: &Fields) -> Result<StructArray, ArrowError> {
    let columns = array
        .columns()
        .iter()
        .zip(fields)
        .map(|(column, field)| converted(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())
}

#[cfg(test)]
mod tests;

//! Columns whose values stand in the names of folders: `year=2024/month=1/a.parquet`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::create_physical_expr;
use synoptic_source::{Result, SourceError};

use super::layout::Object;
use super::options::ReadOptions;
use super::{error, nan, text};

/// How Hive writes NULL.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The partition columns of a table: those the options name, else the keys of its folders. A type
/// that is not given is a 64-bit integer when every value is one as written, else text.
pub fn columns(objects: &[Object], read: &ReadOptions) -> Result<Vec<FieldRef>> {
    let Some(first) = objects.first() else { return Ok(Vec::new()) };
    let names = if read.partitions.is_empty() { keys(first) } else { read.partitions.clone() };
    let mut raw: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(objects.len()); names.len()];
    for object in objects {
        if read.partitions.is_empty() && keys(object) != names {
            return Err(SourceError::data(format!(
                "the folders of {} and {} have different keys: move one, or name the columns \
                 with `partitions`",
                first.shown, object.shown
            )));
        }
        for (column, value) in raw.iter_mut().zip(raw_values(object, &names)?) {
            column.push(value);
        }
    }
    let fields = names.iter().zip(raw).map(|(name, values)| {
        let declared = read.partition_types.get(name).cloned();
        let data_type = declared.unwrap_or_else(|| {
            let whole = values.iter().flatten().all(|value| is_canonical_integer(value));
            if whole { DataType::Int64 } else { DataType::Utf8 }
        });
        Arc::new(Field::new(name, data_type, true))
    });
    Ok(fields.collect())
}

/// The values of one object, in the order and types of `columns`.
pub fn values(object: &Object, columns: &[FieldRef]) -> Result<Vec<ScalarValue>> {
    let names: Vec<String> = columns.iter().map(|field| field.name().clone()).collect();
    let raw = raw_values(object, &names)?;
    let values = raw.into_iter().zip(columns).map(|(raw, field)| match raw {
        None => ScalarValue::try_from(field.data_type()).map_err(|e| e.to_string()),
        // So a log spells it.
        Some(text) if text.is_empty() && object.added.is_some() => {
            ScalarValue::try_from(field.data_type()).map_err(|e| e.to_string())
        }
        Some(text) => {
            let one = Arc::new(StringArray::from(vec![text.as_str()])) as ArrayRef;
            text::convert(&one, field.data_type(), None)
                .ok()
                .and_then(|one| ScalarValue::try_from_array(&nan::one_nan(&one).ok()?, 0).ok())
                .ok_or_else(|| format!("'{text}' in its path is not a {}", field.data_type()))
        }
    });
    values
        .zip(columns)
        .map(|(value, field)| {
            value.map_err(|message| {
                error::data(&object.shown, message).in_column(field.name().clone())
            })
        })
        .collect()
}

/// Which rows of `values` the engine would keep under `filters`, over the columns `columns`.
pub fn keep(
    filters: &[Expr],
    columns: &[FieldRef],
    values: &[Vec<ScalarValue>],
) -> DfResult<Vec<bool>> {
    let schema = Arc::new(Schema::new(columns.to_vec()));
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let arrays = (0..columns.len())
        .map(|i| ScalarValue::iter_to_array(values.iter().map(|row| row[i].clone())))
        .collect::<DfResult<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options)?;
    let df_schema = DFSchema::try_from(schema)?;
    let mut kept = vec![true; values.len()];
    for filter in filters {
        let filter = create_physical_expr(
            filter,
            &df_schema,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )?;
        let verdict = filter.evaluate(&batch)?.into_array(values.len())?;
        let verdict = as_boolean_array(&verdict)?;
        for (row, kept) in kept.iter_mut().enumerate() {
            *kept &= verdict.is_valid(row) && verdict.value(row);
        }
    }
    Ok(kept)
}

fn keys(object: &Object) -> Vec<String> {
    let keys = object.folders.iter().filter_map(|folder| folder.split_once('='));
    keys.map(|(key, _)| key.to_owned()).collect()
}

/// `key=value` folders by name, and folders without a key by position.
fn raw_values(object: &Object, names: &[String]) -> Result<Vec<Option<String>>> {
    if let Some(added) = &object.added {
        let values = names.iter().map(|name| match added.partition_values.get(name) {
            Some(value) => Ok(value.clone()),
            None => Err(error::data(
                &object.shown,
                format!("the log has no value of the partition column '{name}' for it"),
            )),
        });
        return values.collect();
    }
    names
        .iter()
        .enumerate()
        .map(|(position, name)| {
            let by_name = object
                .folders
                .iter()
                .filter_map(|folder| folder.split_once('='))
                .find_map(|(key, value)| (key == name).then_some(value));
            let by_position = || object.folders.get(position).filter(|f| !f.contains('='));
            match by_name.or_else(|| by_position().map(String::as_str)) {
                Some(HIVE_NULL) => Ok(None),
                Some(value) => Ok(Some(value.to_owned())),
                None => Err(error::data(
                    &object.shown,
                    format!("its path has no folder for the partition column '{name}'"),
                )),
            }
        })
        .collect()
}

/// `7` is, `07` and `+7` are not: they would not come back as they were written.
fn is_canonical_integer(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
}

//! Values for the placeholders of a prepared statement.
//!
//! They are bound by position, whatever the columns are called: ADBC sends "0", "1"; JDBC "$1";
//! flightsql-dbapi a dense union in each. Each value is put into the type its placeholder has in
//! the plan, and refused when it would change on the way.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use synoptic_types::ErrorCode;

use crate::edge;
use crate::status::{Fault, Result};

/// Placeholders in order, each with the type that the plan wants when it knows.
pub(crate) type Placeholders = [(String, Option<DataType>)];

/// The schema a client is told to bind: every field may be NULL, and one whose type is not known
/// is text, which JDBC can send and we can cast.
pub(crate) fn schema(placeholders: &Placeholders) -> Schema {
    let field = |(name, data_type): &(String, Option<DataType>)| {
        let data_type = data_type.as_ref().map_or(DataType::Utf8, edge::client_type);
        Field::new(name, data_type, true)
    };
    Schema::new(placeholders.iter().map(field).collect::<Vec<_>>())
}

/// The values of one row of `batch`.
///
/// # Errors
/// `[SYNTAX]` when their number is wrong, `[DATA]` when one does not fit its placeholder.
pub(crate) fn of_row(
    batch: &RecordBatch,
    row: usize,
    placeholders: &Placeholders,
) -> Result<Vec<ScalarValue>> {
    check_count(batch.num_columns(), placeholders)?;
    batch
        .columns()
        .iter()
        .zip(placeholders)
        .map(|(column, (name, data_type))| value(column.slice(row, 1), name, data_type.as_ref()))
        .collect()
}

/// Refuses a wrong number of values.
pub(crate) fn check_count(bound: usize, placeholders: &Placeholders) -> Result<()> {
    let wanted = placeholders.len();
    if bound == wanted {
        return Ok(());
    }
    Err(Fault::malformed(format!(
        "the statement has {wanted} parameter{}, {bound} {} bound",
        if wanted == 1 { "" } else { "s" },
        if bound == 1 { "value was" } else { "values were" },
    )))
}

/// Values as a ticket carries them; no values are no bytes.
pub(crate) fn write(values: &[ScalarValue]) -> Result<Bytes> {
    if values.is_empty() {
        return Ok(Bytes::new());
    }
    let columns = values
        .iter()
        .enumerate()
        .map(|(i, value)| Ok((format!("${}", i + 1), to_array(value)?, true)))
        .collect::<Result<Vec<_>>>()?;
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
    writer.write(&batch)?;
    Ok(writer.into_inner()?.into())
}

/// Reads what [`write`] wrote.
pub(crate) fn read(bytes: &Bytes) -> Result<Vec<ScalarValue>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = StreamReader::try_new(bytes.as_ref(), None)?;
    let batch = reader
        .next()
        .ok_or_else(|| Fault::malformed("the parameters in the ticket have no row"))??;
    batch.columns().iter().map(scalar).collect()
}

/// The one value of `array` as its placeholder wants it.
fn value(array: ArrayRef, name: &str, wanted: Option<&DataType>) -> Result<ScalarValue> {
    let array = plain(array)?;
    let Some(wanted) = wanted.filter(|wanted| *wanted != array.data_type()) else {
        return scalar(&array);
    };
    if array.is_null(0) || array.data_type() == &DataType::Null {
        return ScalarValue::try_from(wanted).map_err(|e| misfit(name, &array, wanted, &e));
    }
    let cast = |array: &ArrayRef, to: &DataType| {
        cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
    };
    let fitted = cast(&array, wanted).map_err(|e| misfit(name, &array, wanted, &e))?;
    if may_lose(array.data_type(), wanted) {
        let back =
            cast(&fitted, array.data_type()).map_err(|e| misfit(name, &array, wanted, &e))?;
        if back.to_data() != array.to_data() {
            return Err(misfit(name, &array, wanted, &"it would be rounded"));
        }
    }
    scalar(&fitted)
}

/// The value without wrapping: the member of a union, the value of a dictionary, text as Utf8.
fn plain(array: ArrayRef) -> Result<ArrayRef> {
    if let DataType::Union(..) = array.data_type() {
        let union = array.as_union();
        let child = union.child(union.type_id(0));
        return plain(child.slice(union.value_offset(0), 1));
    }
    let data_type = edge::client_type(array.data_type());
    Ok(edge::converted(&array, &data_type)?)
}

/// Casts that succeed on values they cannot hold.
fn may_lose(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Timestamp};
    let decimal = |t: &DataType| t.is_decimal();
    match (from, to) {
        (Timestamp(_, a), Timestamp(_, b)) => a == b,
        (Timestamp(_, None) | Date64, Date32 | Date64) => true,
        (DataType::Time32(_) | DataType::Time64(_), DataType::Time32(_) | DataType::Time64(_)) => {
            true
        }
        (from, to) if from.is_integer() || decimal(from) => {
            to.is_integer() || decimal(to) || (from.is_integer() && to.is_floating())
        }
        (from, to) => from.is_floating() && to.is_integer(),
    }
}

fn misfit(name: &str, array: &ArrayRef, wanted: &DataType, why: &dyn std::fmt::Display) -> Fault {
    Fault::new(
        ErrorCode::Data,
        format!("parameter {name}: a value of {} does not fit {wanted}: {why}", array.data_type()),
    )
}

fn scalar(array: &ArrayRef) -> Result<ScalarValue> {
    ScalarValue::try_from_array(array, 0).map_err(|e| Fault::new(ErrorCode::Data, e.to_string()))
}

fn to_array(value: &ScalarValue) -> Result<ArrayRef> {
    value.to_array().map_err(|e| Fault::new(ErrorCode::Data, e.to_string()))
}

#[cfg(test)]
mod tests;

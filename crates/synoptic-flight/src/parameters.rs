//! Values for the placeholders of a prepared statement.
//!
//! They are bound by position, whatever the columns are called: ADBC sends "0", "1"; JDBC "$1";
//! flightsql-dbapi a dense union in each. Each value is put into the type its placeholder has in
//! the plan, and refused when it would change on the way.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
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
    if let Some(text) =
        (array.data_type() == &DataType::Utf8).then(|| array.as_string::<i32>().value(0))
        && let Some(why) = text_would_lose(text, wanted)
    {
        return Err(misfit(name, &array, wanted, &why));
    }
    let cast = |array: &ArrayRef, to: &DataType| {
        cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
            .map_err(|e| misfit(name, array, wanted, &e))
    };
    // What a zone does to a timestamp is not a loss; only its unit may be.
    let array = match (array.data_type(), wanted) {
        (DataType::Timestamp(unit, _), DataType::Timestamp(_, zone)) => {
            cast(&array, &DataType::Timestamp(*unit, zone.clone()))?
        }
        _ => array,
    };
    let fitted = cast(&array, wanted)?;
    if may_lose(array.data_type(), wanted) {
        let back = cast(&fitted, array.data_type())?;
        if !same(&back, &array)? {
            return Err(misfit(name, &array, wanted, &"it would change on the way"));
        }
    }
    if wanted.is_floating()
        && array.data_type() == &DataType::Utf8
        && becomes_infinite(&array, &fitted)?
    {
        return Err(misfit(name, &array, wanted, &"it is too large"));
    }
    scalar(&fitted)
}

/// Whether two arrays of one type and one value hold the same value; zero has one sign here.
fn same(a: &ArrayRef, b: &ArrayRef) -> Result<bool> {
    if a.data_type().is_floating() {
        let (a, b) = (wide(a)?, wide(b)?);
        return Ok(a == b || (a.is_nan() && b.is_nan()));
    }
    Ok(a.to_data() == b.to_data())
}

fn wide(float: &ArrayRef) -> Result<f64> {
    Ok(arrow::compute::cast(float, &DataType::Float64)?.as_primitive::<Float64Type>().value(0))
}

/// Whether a text of digits became an infinite number.
fn becomes_infinite(text: &ArrayRef, number: &ArrayRef) -> Result<bool> {
    let digits = text.as_string::<i32>().value(0).bytes().any(|b| b.is_ascii_digit());
    Ok(digits && wide(number)?.is_infinite())
}

/// Why `text` would be cut or moved when it is read as `wanted`, which the casts do silently.
fn text_would_lose(text: &str, wanted: &DataType) -> Option<String> {
    let text = text.trim();
    match wanted {
        DataType::Date32 | DataType::Date64 => {
            let extended = text.starts_with(['+', '-']) && !text.contains([' ', 'T', ':']);
            let whole = extended || text.len() <= "YYYY-MM-DD".len();
            (!whole).then(|| "it has a time of day".to_owned())
        }
        DataType::Timestamp(unit, zone) => {
            let clock = text.get("YYYY-MM-DD ".len()..).unwrap_or_default();
            let end = clock.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'));
            let (clock, offset) = clock.split_at(end.unwrap_or(clock.len()));
            let utc = ["", "Z", "UTC", "+00:00", "-00:00", "+0000", "+00"];
            if zone.is_none() && !utc.iter().any(|utc| offset.trim().eq_ignore_ascii_case(utc)) {
                return Some("it has an offset from UTC".to_owned());
            }
            too_fine(clock, *unit)
        }
        DataType::Time32(unit) | DataType::Time64(unit) => too_fine(text, *unit),
        t if t.is_decimal() => {
            let scale = match t {
                DataType::Decimal32(_, scale)
                | DataType::Decimal64(_, scale)
                | DataType::Decimal128(_, scale)
                | DataType::Decimal256(_, scale) => i64::from(*scale),
                _ => 0,
            };
            let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
            let exponent: i64 = exponent.parse::<i32>().ok()?.into();
            let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
            // The place of the last digit that is not 0, counted from the point.
            let last = match fraction.trim_end_matches('0').len() as i64 {
                0 => whole.trim_end_matches('0').len() as i64 - whole.len() as i64,
                places => places,
            };
            (last - exponent > scale)
                .then(|| format!("it has more than {scale} digits after the point"))
        }
        _ => None,
    }
}

fn too_fine(clock: &str, unit: TimeUnit) -> Option<String> {
    let kept = match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let (_, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let lost = fraction.bytes().take_while(u8::is_ascii_digit).skip(kept).any(|b| b != b'0');
    lost.then(|| "it is finer than the column".to_owned())
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

/// Casts that succeed on values they cannot hold, and whose way back shows it.
fn may_lose(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Date64, Time32, Time64, Timestamp};
    match (from, to) {
        (Timestamp(..) | Date32 | Date64, Timestamp(..) | Date32 | Date64) => true,
        (Timestamp(..) | Date64 | Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (from, to) => from.is_numeric() && to.is_numeric(),
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

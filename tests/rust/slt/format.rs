//! Values as the `.slt` files have them.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The rows of all batches, in their order.
pub fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, ArrowError> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(column).collect::<Result<Vec<_>, _>>()?;
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column[row].clone()).collect::<Vec<_>>()),
        );
    }
    Ok(rows)
}

fn column(array: &ArrayRef) -> Result<Vec<String>, ArrowError> {
    let array = match array.data_type() {
        DataType::Dictionary(_, values) => &cast(array, values)?,
        _ => array,
    };
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(array, &options)?;
    Ok((0..array.len()).map(|row| value(array, row, &formatter)).collect())
}

fn value(array: &ArrayRef, row: usize, formatter: &ArrayFormatter<'_>) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        // Through its own shortest text: widening would add digits.
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            float(value.to_string().parse().unwrap_or(f64::from(value)))
        }
        _ => match formatter.value(row).to_string() {
            empty if empty.is_empty() => "(empty)".to_owned(),
            // One value is one line.
            text => text.replace('\n', "\\n"),
        },
    }
}

/// Twelve significant digits: sums in another order differ beyond them.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let rounded: f64 = format!("{value:.11e}").parse().unwrap_or(value);
    // The largest value rounds up to infinity; it is its own text.
    let shown = if rounded.is_finite() { rounded } else { value };
    if shown == 0.0 || (1e-6..1e15).contains(&shown.abs()) {
        format!("{shown}")
    } else {
        format!("{shown:e}")
    }
}

//! Aligned columns for people.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

/// The rows as a table with numbers to the right. NULL is spelt out, and control characters are
/// escaped, so that a value cannot move the cursor.
///
/// # Errors
/// When a value cannot be shown as text.
pub fn table(schema: &Schema, batches: &[RecordBatch]) -> Result<String, ArrowError> {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(schema.fields().iter().map(|field| Cell::new(printable(field.name()))));
    let options = FormatOptions::new().with_display_error(false);
    for batch in batches {
        let columns = batch.columns();
        let formatters: Vec<_> = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<_, _>>()?;
        // A column of type Null, or of dictionary values, is NULL without a bitmap of its own.
        let nulls: Vec<_> = columns.iter().map(|column| column.logical_nulls()).collect();
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(columns.len());
            for (nulls, formatter) in nulls.iter().zip(&formatters) {
                cells.push(if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    Cell::new("NULL")
                } else {
                    Cell::new(printable(&formatter.value(row).try_to_string()?))
                });
            }
            table.add_row(cells);
        }
    }
    for (i, field) in schema.fields().iter().enumerate() {
        if is_number(field.data_type())
            && let Some(column) = table.column_mut(i)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table.trim_fmt())
}

/// `1 row`, `12,345 rows`.
pub fn count_rows(rows: usize) -> String {
    let unit = if rows == 1 { "row" } else { "rows" };
    format!("{} {unit}", grouped(rows as u64))
}

/// A number with a comma between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_number(value),
        other => other.is_numeric(),
    }
}

/// The text with everything but line breaks escaped that a terminal would obey.
fn printable(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && c != '\n';
    if !text.contains(obeyed) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

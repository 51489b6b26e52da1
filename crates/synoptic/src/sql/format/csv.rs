//! RFC 4180. NULL is an empty field and an empty text is `""`, so that the two stay apart.

use std::io::{self, Write};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::arrow_error;
use crate::cli_error::Result;

pub(super) struct CsvWriter<W: Write> {
    out: W,
    line: String,
    cell: String,
}

pub(super) fn write_header(out: &mut impl Write, schema: &Schema) -> io::Result<()> {
    if schema.fields().is_empty() {
        return Ok(());
    }
    let mut line = String::new();
    for (i, field) in schema.fields().iter().enumerate() {
        push(&mut line, i, field.name());
    }
    writeln!(out, "{line}")
}

impl<W: Write> CsvWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, line: String::new(), cell: String::new() }
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_columns() == 0 {
            return Ok(());
        }
        let options = FormatOptions::new().with_display_error(false);
        let columns = batch.columns();
        let formatters: Vec<_> = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<_, _>>()
            .map_err(arrow_error)?;
        // A column of type Null, or of dictionary values, is NULL without a bitmap of its own.
        let nulls: Vec<_> = columns.iter().map(|column| column.logical_nulls()).collect();
        for row in 0..batch.num_rows() {
            self.line.clear();
            for (i, formatter) in formatters.iter().enumerate() {
                if nulls[i].as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    if i > 0 {
                        self.line.push(',');
                    }
                    continue;
                }
                self.cell.clear();
                formatter.value(row).write(&mut self.cell).map_err(arrow_error)?;
                push(&mut self.line, i, &self.cell);
            }
            writeln!(self.out, "{}", self.line)?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn push(line: &mut String, column: usize, value: &str) {
    if column > 0 {
        line.push(',');
    }
    let special = |c: char| matches!(c, ',' | '"' | '\n' | '\r');
    let quoted = value.is_empty()
        || value.contains(special)
        || value.starts_with([' ', '\t'])
        || value.ends_with([' ', '\t']);
    if quoted {
        line.push('"');
        line.push_str(&value.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(value);
    }
}

//! Answers as text or bytes. All but the table are written batch by batch.

mod csv;
mod json;
mod receipt;
mod table;

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use crate::cli::Format;
use crate::cli_error::{CliError, Result};

pub use receipt::receipt_table;
pub(crate) use table::grouped;
pub use table::{count_rows, table};

/// Writes one answer to `W`.
pub struct AnswerWriter<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Table { out: W, schema: SchemaRef, batches: Vec<RecordBatch> },
    Csv(csv::CsvWriter<W>),
    Json(json::JsonWriter<W>),
    Arrow(Box<StreamWriter<W>>),
}

impl<W: Write> AnswerWriter<W> {
    /// Begins an answer: formats that have a header write it now.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn new(format: Format, mut out: W, schema: &SchemaRef) -> Result<Self> {
        Ok(Self(match format {
            Format::Table => {
                Inner::Table { out, schema: SchemaRef::clone(schema), batches: Vec::new() }
            }
            Format::Csv => {
                csv::write_header(&mut out, schema)?;
                Inner::Csv(csv::CsvWriter::new(out))
            }
            Format::Json => Inner::Json(json::JsonWriter::array(out)?),
            Format::Ndjson => Inner::Json(json::JsonWriter::lines(out)),
            Format::Arrow => {
                let writer = StreamWriter::try_new(out, schema).map_err(arrow_error)?;
                Inner::Arrow(Box::new(writer))
            }
        }))
    }

    /// Writes one batch; the table format keeps it.
    ///
    /// # Errors
    /// When the output cannot be written to, or a value has no form in this format.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match &mut self.0 {
            Inner::Table { batches, .. } => batches.push(batch),
            Inner::Csv(writer) => writer.write(&batch)?,
            Inner::Json(writer) => writer.write(&batch)?,
            Inner::Arrow(writer) => writer.write(&batch).map_err(arrow_error)?,
        }
        self.flush()
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Inner::Table { mut out, schema, batches } => {
                if !schema.fields().is_empty() {
                    let rows = batches.iter().map(RecordBatch::num_rows).sum();
                    let text = table(&schema, &batches).map_err(arrow_error)?;
                    writeln!(out, "{text}\n({})", count_rows(rows))?;
                }
                out.flush()?;
            }
            Inner::Csv(mut writer) => writer.flush()?,
            Inner::Json(writer) => writer.finish()?,
            Inner::Arrow(mut writer) => {
                writer.finish().map_err(arrow_error)?;
                writer.get_mut().flush()?;
            }
        }
        Ok(())
    }

    /// Whoever reads a stream sees each batch when it is there.
    fn flush(&mut self) -> Result<()> {
        match &mut self.0 {
            Inner::Table { .. } => {}
            Inner::Csv(writer) => writer.flush()?,
            Inner::Json(writer) => writer.flush()?,
            Inner::Arrow(writer) => writer.get_mut().flush()?,
        }
        Ok(())
    }
}

/// An Arrow error as a command's: a closed pipe is one in disguise.
fn arrow_error(error: ArrowError) -> CliError {
    match error {
        ArrowError::IoError(_, error) => CliError::from(error),
        other => {
            CliError::failed(format!("[DATA] this answer has no form in this format: {other}"))
        }
    }
}

#[cfg(test)]
mod tests;

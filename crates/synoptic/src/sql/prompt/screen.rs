//! An answer on the terminal.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::cli_error::{CliError, Result};

use super::super::execute::Sink;
use super::super::format::table;

/// More rows are neither read nor shown: nobody reads them, and the sources need not send them.
pub(super) const MAX_ROWS: usize = 1000;

/// Keeps the first rows of an answer.
#[derive(Default)]
pub(super) struct Screen {
    schema: Option<SchemaRef>,
    batches: Vec<RecordBatch>,
    rows: usize,
}

impl Sink for Screen {
    fn begin(&mut self, schema: &SchemaRef) -> Result<()> {
        self.schema = Some(SchemaRef::clone(schema));
        Ok(())
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<bool> {
        let room = MAX_ROWS - self.rows;
        let fits = batch.num_rows() <= room;
        let batch = if fits { batch } else { batch.slice(0, room) };
        self.rows += batch.num_rows();
        self.batches.push(batch);
        Ok(fits)
    }
}

impl Screen {
    /// Whether there is anything to show at all: `SET` answers without columns.
    pub(super) fn has_columns(&self) -> bool {
        self.schema.as_ref().is_some_and(|schema| !schema.fields().is_empty())
    }

    /// Shows the rows, through `$PAGER` when they take more than `height` lines.
    pub(super) fn show(&self, height: usize) -> Result<()> {
        let Some(schema) = self.schema.as_ref().filter(|_| self.has_columns()) else {
            return Ok(());
        };
        let text = table(schema, &self.batches).map_err(|error| {
            CliError::failed(format!("[DATA] a value cannot be shown as text: {error}"))
        })?;
        if text.lines().count() < height || !page(&text) {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{text}")?;
            out.flush()?;
        }
        Ok(())
    }
}

/// Hands `text` to `$PAGER`. `false` when there is none.
fn page(text: &str) -> bool {
    let Ok(pager) = std::env::var("PAGER") else { return false };
    if pager.trim().is_empty() || !std::io::stdout().is_terminal() {
        return false;
    }
    let spawned = Command::new("sh").arg("-c").arg(&pager).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // A pager that is left early closes its end.
        let _ = writeln!(stdin, "{text}");
    }
    tokio::task::block_in_place(|| child.wait()).is_ok()
}

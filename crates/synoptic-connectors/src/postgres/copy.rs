//! The frame of `COPY … TO STDOUT (FORMAT BINARY)`: header, rows, trailer.

use std::sync::Arc;

use arrow::array::{Array as _, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::decode::{ColumnBuilder, Fault, append_field};
use super::types::Encoding;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Bit 16 says that rows carry object ids, bits below it are for those who care; the rest must be
/// understood.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// A batch is handed on at this many bytes even if it has fewer rows than asked for, so that wide
/// rows do not fill the memory.
const BATCH_BYTES: usize = 8 << 20;

/// Rows that there is room for at first: most answers are small, and room for a whole batch of each
/// column costs more than they do.
const FIRST_ROWS: usize = 256;

/// What could not be decoded, and in which column.
#[derive(Debug)]
pub(super) struct CopyFault {
    pub fault: Box<Fault>,
    pub column: Option<usize>,
}

impl CopyFault {
    pub(super) fn frame(what: &'static str) -> Self {
        Self { fault: Box::new(Fault::Malformed(what)), column: None }
    }
}

/// Turns the server's messages into batches.
#[derive(Debug)]
pub(super) struct CopyDecoder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    batch_rows: usize,
    rows: usize,
    bytes: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Rows,
    Done,
}

impl CopyDecoder {
    /// Batches of `schema`, one encoding per field, of at most about `batch_rows` rows.
    pub fn new(schema: SchemaRef, encodings: &[&Encoding], batch_rows: usize) -> Self {
        let batch_rows = batch_rows.max(1);
        let room = batch_rows.min(FIRST_ROWS);
        let columns = encodings.iter().map(|encoding| ColumnBuilder::new(encoding, room)).collect();
        Self { schema, columns, batch_rows, rows: 0, bytes: 0, state: State::Header }
    }

    /// Takes one message. The protocol says that a message is a whole row; the header comes with
    /// the first one. Several rows in a message are fine too.
    ///
    /// # Errors
    /// When the bytes are not a whole number of rows, or a value does not fit its type.
    #[inline]
    pub fn push(&mut self, message: &[u8]) -> Result<(), CopyFault> {
        let mut rest = message;
        self.bytes += message.len();
        if self.state == State::Header {
            rest = header(rest)?;
            self.state = State::Rows;
        }
        while !rest.is_empty() {
            rest = self.row(rest)?;
        }
        Ok(())
    }

    /// Takes one row as the row protocol brings it: its fields, `None` for NULL. Such rows have
    /// neither header nor trailer; [`CopyDecoder::end_rows`] says that they are all.
    ///
    /// # Errors
    /// As [`CopyDecoder::push`].
    pub fn push_row(&mut self, fields: &[Option<&[u8]>]) -> Result<(), CopyFault> {
        if self.state == State::Done {
            return Err(CopyFault::frame("a row after the end"));
        }
        if fields.len() != self.columns.len() {
            return Err(CopyFault::frame("a row with another number of fields"));
        }
        for (i, (column, value)) in self.columns.iter_mut().zip(fields).enumerate() {
            match value {
                None => column.append_null(),
                Some(value) => {
                    self.bytes += value.len();
                    column.append(value).map_err(|fault| CopyFault { fault, column: Some(i) })?;
                }
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// The server has ended a result that came row by row.
    pub fn end_rows(&mut self) {
        self.state = State::Done;
    }

    #[inline]
    fn row<'a>(&mut self, message: &'a [u8]) -> Result<&'a [u8], CopyFault> {
        if self.state == State::Done {
            return Err(CopyFault::frame("bytes after the end"));
        }
        let Some((fields, mut rest)) = message.split_first_chunk::<2>() else {
            return Err(CopyFault::frame("a row without its number of fields"));
        };
        let fields = i16::from_be_bytes(*fields);
        if usize::try_from(fields) != Ok(self.columns.len()) {
            if fields == -1 {
                self.state = State::Done;
                return Ok(rest);
            }
            return Err(CopyFault::frame("a row with another number of fields"));
        }
        for (i, column) in self.columns.iter_mut().enumerate() {
            rest = match append_field(column, rest) {
                Ok(rest) => rest,
                Err(fault) => return Err(CopyFault { fault, column: Some(i) }),
            };
        }
        self.rows += 1;
        Ok(rest)
    }

    /// Whether there are enough rows for a batch.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.rows >= self.batch_rows || self.bytes >= BATCH_BYTES
    }

    /// Whether the trailer was seen. Without it the result is not whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The rows so far; `None` when there are none.
    ///
    /// # Errors
    /// When a text is not UTF-8, or a NULL stands where the table promised none.
    pub fn take_batch(&mut self) -> Result<Option<RecordBatch>, CopyFault> {
        if self.rows == 0 {
            return Ok(None);
        }
        // After the last batch there is none to make room for.
        let room = if self.is_done() { 0 } else { self.batch_rows };
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (i, column) in self.columns.iter_mut().enumerate() {
            let array =
                column.finish(room).map_err(|fault| CopyFault { fault, column: Some(i) })?;
            if array.null_count() > 0 && !self.schema.field(i).is_nullable() {
                let fault = Fault::Value("a value is NULL in a column that is NOT NULL".to_owned());
                return Err(CopyFault { fault: Box::new(fault), column: Some(i) });
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map(Some)
            .map_err(|_| CopyFault::frame("columns that make no batch"))
    }
}

fn header(message: &[u8]) -> Result<&[u8], CopyFault> {
    let Some((header, rest)) = message.split_first_chunk::<19>() else {
        return Err(CopyFault::frame("no header"));
    };
    let (signature, words) = header.split_at(SIGNATURE.len());
    if signature != SIGNATURE {
        return Err(CopyFault::frame("another signature"));
    }
    let word = |at: usize| {
        let bytes = words.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(u32::MAX, u32::from_be_bytes)
    };
    if word(0) & CRITICAL_FLAGS != 0 {
        return Err(CopyFault::frame("flags that are not known"));
    }
    let extension = usize::try_from(word(4)).unwrap_or(usize::MAX);
    rest.get(extension..).ok_or_else(|| CopyFault::frame("a header that ends early"))
}

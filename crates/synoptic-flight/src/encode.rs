//! Record batches to Flight messages, none larger than a client takes.
//!
//! arrow-flight's own encoder turns LargeList into List and cuts by the size of shared buffers;
//! this one sends exactly the schema it was given and cuts by what was encoded.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{BinaryViewType, DataType, Schema, SchemaRef, StringViewType};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use synoptic_types::{ErrorCode, format_bytes};

use crate::status::{Fault, Result};

/// How large messages may be, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// What a message aims for; batches beyond it are split between rows.
    pub(crate) message: usize,
    /// What a single row may have.
    pub(crate) row: usize,
}

/// How the buffers of batches are compressed. It costs the server more than it saves on a fast
/// link, so it is for clients that ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Compression {
    #[default]
    None,
    Lz4,
    Zstd,
}

impl Compression {
    /// What the IPC format calls it. DataFusion's own features have both codecs built.
    fn options(self) -> IpcWriteOptions {
        let kind = match self {
            Self::None => None,
            Self::Lz4 => Some(CompressionType::LZ4_FRAME),
            Self::Zstd => Some(CompressionType::ZSTD),
        };
        // It fails only for formats older than the default one.
        IpcWriteOptions::default().try_with_compression(kind).unwrap_or_default()
    }
}

/// One encoded message.
pub(crate) enum Encoded {
    /// A dictionary that following batches refer to.
    Dictionary(FlightData),
    /// Rows.
    Batch(FlightData),
}

/// Turns the batches of one answer into messages.
pub(crate) struct Encoder {
    schema: SchemaRef,
    limits: Limits,
    options: IpcWriteOptions,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    /// An encoder, and the message that says the schema.
    pub(crate) fn new(
        schema: SchemaRef,
        limits: Limits,
        compression: Compression,
    ) -> (Self, FlightData) {
        let options = compression.options();
        let generator = IpcDataGenerator::default();
        // A dictionary that changes from batch to batch is sent again.
        let mut dictionaries = DictionaryTracker::new(false);
        let message =
            generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut dictionaries, &options);
        let context = IpcWriteContext::default();
        (Self { schema, limits, options, generator, dictionaries, context }, message.into())
    }

    /// A batch without rows, to carry the receipt of an answer that has none to hang it on.
    pub(crate) fn empty(&mut self) -> Result<FlightData> {
        let batch = RecordBatch::new_empty(Arc::clone(&self.schema));
        Ok(self.message(&batch)?.1)
    }

    /// The messages of `batch`, one at a time, so that a large batch is never encoded at once.
    pub(crate) fn encode(&mut self, batch: RecordBatch) -> Messages<'_> {
        Messages { encoder: self, rest: vec![batch], ready: Vec::new() }
    }

    fn message(&mut self, batch: &RecordBatch) -> Result<(Vec<FlightData>, FlightData)> {
        let (dictionaries, batch) = self.generator.encode(
            batch,
            &mut self.dictionaries,
            &self.options,
            &mut self.context,
        )?;
        Ok((dictionaries.into_iter().map(FlightData::from).collect(), batch.into()))
    }
}

/// See [`Encoder::encode`].
pub(crate) struct Messages<'a> {
    encoder: &'a mut Encoder,
    /// Pieces still to encode, the next one last.
    rest: Vec<RecordBatch>,
    /// Messages to hand out before the next piece, the next one last.
    ready: Vec<Encoded>,
}

impl Messages<'_> {
    fn next_message(&mut self) -> Result<Option<Encoded>> {
        let limits = self.encoder.limits;
        loop {
            if let Some(message) = self.ready.pop() {
                return Ok(Some(message));
            }
            let Some(piece) = self.rest.pop() else { return Ok(None) };
            let estimate = estimated_bytes(&piece);
            if estimate > limits.message && piece.num_rows() > 1 {
                self.split(&piece, estimate.div_ceil(limits.message));
                continue;
            }
            let (dictionaries, batch) = self.encoder.message(&piece)?;
            // What was said of a dictionary stays said, whatever becomes of the rows.
            self.ready = dictionaries.into_iter().rev().map(Encoded::Dictionary).collect();
            let bytes = wire_bytes(&batch);
            if bytes > limits.message && piece.num_rows() > 1 {
                self.split(&piece, bytes.div_ceil(limits.message));
            } else if bytes > limits.row.max(limits.message) {
                return Err(row_too_large(&piece, bytes, limits.row));
            } else {
                self.ready.insert(0, Encoded::Batch(batch));
            }
        }
    }

    /// Puts `piece` back as at least two and about `parts` pieces.
    fn split(&mut self, piece: &RecordBatch, parts: usize) {
        let rows = piece.num_rows();
        let size = rows.div_ceil(parts.max(2)).max(1);
        let starts = (0..rows).step_by(size).rev();
        self.rest.extend(starts.map(|start| {
            let slice = piece.slice(start, size.min(rows - start));
            compact_views(slice)
        }));
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<Encoded>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_message().transpose()
    }
}

/// Bytes of a message on the wire, with room for its tags.
pub(crate) fn wire_bytes(message: &FlightData) -> usize {
    message.data_header.len() + message.data_body.len() + message.app_metadata.len() + 32
}

/// About what the rows of `batch` take when encoded, not counting what it shares with others.
fn estimated_bytes(batch: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| {
        column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_buffer_memory_size())
    };
    batch.columns().iter().map(bytes).sum()
}

/// A slice of a view array keeps all its text; without this, splitting would not make it smaller.
fn compact_views(batch: RecordBatch) -> RecordBatch {
    let compact = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_byte_view::<StringViewType>().gc()),
            DataType::BinaryView => Arc::new(column.as_byte_view::<BinaryViewType>().gc()),
            _ => Arc::clone(column),
        }
    };
    let columns = batch.columns().iter().map(compact).collect();
    RecordBatch::try_new(batch.schema(), columns).unwrap_or(batch)
}

fn row_too_large(row: &RecordBatch, bytes: usize, limit: usize) -> Fault {
    let schema = row.schema();
    let size = |i: &usize| row.column(*i).to_data().get_slice_memory_size().unwrap_or(0);
    let column = (0..row.num_columns()).max_by_key(size);
    let name = column.map_or("", |i| schema.field(i).name().as_str());
    Fault::new(
        ErrorCode::BudgetExceeded,
        format!(
            "one row of the answer has {}, a row may have {} (server.max_row_size); its \
             largest column is '{name}': select a part of it",
            format_bytes(bytes as u64),
            format_bytes(limit as u64)
        ),
    )
}

/// A schema as an encapsulated IPC message, as FlightInfo, GetSchema and GetTables carry it.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options).try_into()?;
    Ok(bytes)
}

/// Reads what [`schema_bytes`] wrote.
pub(crate) fn read_schema(bytes: &Bytes) -> Result<Schema, ArrowError> {
    IpcMessage(bytes.clone()).try_into()
}

#[cfg(test)]
mod tests;

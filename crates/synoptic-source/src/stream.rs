//! Batches on their way out of a source, and what they cost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use futures::Stream;
use futures::stream::BoxStream;

use crate::error::Result;

/// Batches of one partition. Dropping it cancels the work at the source.
pub type BatchStream = BoxStream<'static, Result<RecordBatch>>;

/// What one scan has moved so far, over all its partitions. Shared and only ever growing.
#[derive(Debug, Default)]
pub struct ScanCounters {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl ScanCounters {
    /// Counts rows that left the source.
    pub fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// Counts bytes read from the source: off the wire or out of files, as the connector can tell.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A stream that counts its rows. Connectors count their bytes themselves.
pub struct Counted {
    inner: BatchStream,
    counters: Arc<ScanCounters>,
}

impl Counted {
    /// Counts the rows of `inner` into `counters`.
    pub fn new(inner: BatchStream, counters: Arc<ScanCounters>) -> Self {
        Self { inner, counters }
    }
}

impl Stream for Counted {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.inner.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(batch))) = &polled {
            self.counters.add_rows(batch.num_rows() as u64);
        }
        polled
    }
}

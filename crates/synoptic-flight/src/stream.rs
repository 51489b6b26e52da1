//! DoGet: batches of a running query to messages, in constant memory.
//!
//! A task of its own polls the query and encodes, two messages ahead of the connection at most:
//! so encoding overlaps with sending, and a slow reader holds back the sources. The task ends with
//! the response stream, which drops the query, which cancels at the sources.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use synoptic_types::{Deadline, ErrorCode, QueryId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::edge;
use crate::encode::{Compression, Encoded, Encoder, Limits, wire_bytes};
use crate::endpoints::Rows;
use crate::status::{Fault, Result, panic_text};

/// What DoGet answers with.
pub(crate) type Messages = BoxStream<'static, Result<FlightData, Status>>;

/// Messages that may wait for the connection.
const AHEAD: usize = 2;

/// How long the last message so far waits for the next batch, so that the receipt can travel on
/// the last one. A slow query's rows are not held back longer than this.
const HOLD: Duration = Duration::from_millis(20);

/// What sending an answer takes, besides the query.
pub(crate) struct Sending {
    pub(crate) schema: SchemaRef,
    pub(crate) limits: Limits,
    /// How the batches are compressed.
    pub(crate) compression: Compression,
    /// How long the client waits, and until when.
    pub(crate) limit: Option<(Duration, Deadline)>,
    /// Fires when the server stops waiting for its running queries.
    pub(crate) stop: CancellationToken,
}

/// The messages of a running query, or of one endpoint's part of it.
pub(crate) fn answer(rows: Rows, sending: Sending) -> Messages {
    let id = rows.id().clone();
    let (sender, receiver) = mpsc::channel(AHEAD);
    let task = tokio::spawn(produce(rows, sending, sender));
    Box::pin(Answer { receiver, id, ended: false, _task: AbortOnDropHandle::new(task) })
}

/// The messages of an answer that is already there.
pub(crate) fn listing(batch: &RecordBatch, limits: Limits) -> Messages {
    futures::stream::iter(messages(batch, limits)).boxed()
}

/// The messages of an answer that was given before, with the receipt on the last one.
pub(crate) fn repeated(batch: &RecordBatch, limits: Limits, receipt: Bytes) -> Messages {
    let mut messages = messages(batch, limits);
    if let Some(Ok(last)) = messages.last_mut() {
        last.app_metadata = receipt;
    }
    futures::stream::iter(messages).boxed()
}

fn messages(batch: &RecordBatch, limits: Limits) -> Vec<Result<FlightData, Status>> {
    let (mut encoder, schema) = Encoder::new(batch.schema(), limits, Compression::None);
    let mut messages = vec![Ok(schema)];
    if batch.num_rows() == 0 {
        messages.push(encoder.empty().map_err(Status::from));
    } else {
        messages.extend(encoder.encode(batch.clone()).map(|message| match message {
            Ok(Encoded::Batch(data) | Encoded::Dictionary(data)) => Ok(data),
            Err(fault) => Err(Status::from(fault)),
        }));
    }
    messages
}

enum Item {
    Message(FlightData),
    Failed(Fault),
    /// All was sent. Without it the answer is not whole.
    Ended,
}

struct Answer {
    receiver: mpsc::Receiver<Item>,
    id: QueryId,
    ended: bool,
    _task: AbortOnDropHandle<()>,
}

impl Stream for Answer {
    type Item = Result<FlightData, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = ready!(self.receiver.poll_recv(cx));
        if let Some(Item::Message(message)) = item {
            return Poll::Ready(Some(Ok(message)));
        }
        self.ended = true;
        let fault = match item {
            Some(Item::Ended) => return Poll::Ready(None),
            Some(Item::Failed(fault)) => fault,
            _ => Fault::internal("the answer broke off"),
        };
        Poll::Ready(Some(Err(fault.with_query(&self.id).into())))
    }
}

async fn produce(mut rows: Rows, sending: Sending, sender: mpsc::Sender<Item>) {
    let limit = sending.limit;
    let stop = sending.stop.clone();
    let work = AssertUnwindSafe(send_all(&mut rows, sending, &sender)).catch_unwind();
    let expired = async {
        match limit {
            Some((limit, deadline)) => {
                tokio::time::sleep_until(deadline.instant().into()).await;
                Fault::timeout(limit)
            }
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        // Work first: what is ready at the deadline still goes out.
        biased;
        done = work => done.unwrap_or_else(|panic| {
            let text = panic_text(&*panic);
            tracing::error!(panic = text, "a panic while an answer was sent");
            Err(Fault::internal("the server failed while it sent the answer; please report it"))
        }),
        fault = expired => Err(fault),
        () = stop.cancelled() => {
            Err(Fault::new(ErrorCode::Cancelled, "the server is shutting down; ask again later"))
        }
    };
    let last = match outcome {
        Ok(()) => Item::Ended,
        Err(fault) => {
            if !sender.is_closed() {
                rows.fail(&fault);
            }
            Item::Failed(fault)
        }
    };
    // The sources do not wait for a client that is slow to hear the end.
    drop(rows);
    // A client that has gone needs no answer.
    let _ = sender.send(last).await;
}

/// Sends the schema, every batch, and the receipt on the last message.
async fn send_all(rows: &mut Rows, sending: Sending, sender: &mpsc::Sender<Item>) -> Result<()> {
    let schema = sending.schema;
    let (mut encoder, message) =
        Encoder::new(SchemaRef::clone(&schema), sending.limits, sending.compression);
    let mut outbox = Outbox { sender, held: None };
    outbox.send(message).await?;
    while let Some(batch) = outbox.next(rows).await? {
        let batch = match batch {
            Ok(batch) => edge::batch(&batch, &schema)?,
            Err(fault) => {
                // The rows before the error are right, and were promised to go out.
                outbox.flush().await?;
                return Err(fault);
            }
        };
        if batch.num_rows() == 0 {
            continue;
        }
        for encoded in encoder.encode(batch) {
            match encoded? {
                Encoded::Dictionary(message) => outbox.send(message).await?,
                Encoded::Batch(message) => outbox.hold(message).await?,
            }
        }
    }
    let receipt = rows.receipt()?;
    let fits = |m: &FlightData| wire_bytes(m) + receipt.len() <= sending.limits.message;
    let mut last = match outbox.held.take() {
        Some(held) if fits(&held) => held,
        held => {
            outbox.held = held;
            outbox.flush().await?;
            encoder.empty()?
        }
    };
    last.app_metadata = receipt;
    outbox.send(last).await
}

/// Sends messages, the last rows so far a little later than they could be.
struct Outbox<'a> {
    sender: &'a mpsc::Sender<Item>,
    held: Option<FlightData>,
}

impl Outbox<'_> {
    /// Sends what is held, then `message`.
    async fn send(&mut self, message: FlightData) -> Result<()> {
        self.flush().await?;
        self.put(message).await
    }

    /// Sends what is held.
    async fn flush(&mut self) -> Result<()> {
        match self.held.take() {
            Some(held) => self.put(held).await,
            None => Ok(()),
        }
    }

    /// Sends what is held and holds `message` instead.
    async fn hold(&mut self, message: FlightData) -> Result<()> {
        match self.held.replace(message) {
            Some(held) => self.put(held).await,
            None => Ok(()),
        }
    }

    /// Waits for the next batch, and sends what is held when that takes long.
    async fn next(&mut self, rows: &mut Rows) -> Result<Option<Result<RecordBatch>>> {
        if self.held.is_some() {
            if let Ok(next) = tokio::time::timeout(HOLD, rows.next()).await {
                return Ok(next);
            }
            // Nothing waits for rows meanwhile: another endpoint may have them.
            self.flush().await?;
        }
        Ok(rows.next().await)
    }

    async fn put(&self, message: FlightData) -> Result<()> {
        self.sender
            .send(Item::Message(message))
            .await
            .map_err(|_| Fault::new(ErrorCode::Cancelled, "the client has gone"))
    }
}

//! The rows of a COPY go from the socket to the decoder in large pieces, past tokio-postgres.
//!
//! tokio-postgres reads 8 KiB at a time and makes a message of its own of every row, which costs
//! as much as decoding the row. [`Tapped`] lies between it and the socket (or TLS), reads as much as
//! there is, and looks at nothing but the headers of the server's messages (PostgreSQL's manual,
//! "Message Formats"): one byte of type, four of length. Runs of whole `CopyData` messages go to whoever
//! asked for them with [`Tap::rows`]; every other byte goes to tokio-postgres unchanged and in order.
//! When nobody asked, or what came is not understood, all of it goes there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_postgres::tls::{ChannelBinding, TlsStream};
use tokio_util::either::Either;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::PollSender;

/// Room for one read while rows are expected, and otherwise. Each in bytes.
const LARGE_READ: usize = 256 << 10;
const SMALL_READ: usize = 8 << 10;
/// Less room than this is not read into while rows are expected.
const LEAST_READ: usize = 32 << 10;
/// Pieces that wait for a slow decoder; behind them the server waits.
const PIECES_AHEAD: usize = 4;

/// Type and length of a message; the length counts itself.
const HEADER: usize = 5;
const LENGTH: usize = 4;
const COPY_DATA: u8 = b'd';
const COPY_DONE: u8 = b'c';
const ERROR: u8 = b'E';

/// Asks a connection for the rows of its next COPY.
#[derive(Debug, Default)]
pub(super) struct Tap {
    wanted: Mutex<Option<mpsc::Sender<Bytes>>>,
}

impl Tap {
    /// The rows of the COPY that is sent next; nobody else may send one meanwhile. They end before
    /// tokio-postgres hears of the end or the error of that COPY.
    pub fn rows(&self) -> Rows {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        *self.wanted.lock() = Some(sender);
        Rows { pieces, piece: Bytes::new() }
    }
}

/// Rows on their way from the socket.
#[derive(Debug)]
pub(super) struct Rows {
    pieces: mpsc::Receiver<Bytes>,
    /// Whole `CopyData` messages.
    piece: Bytes,
}

impl Rows {
    /// Hands the messages that are here to `take`, without their headers, as long as that answers
    /// `true`.
    ///
    /// # Errors
    /// The first of `take`.
    #[inline]
    pub fn each<E>(&mut self, mut take: impl FnMut(&[u8]) -> Result<bool, E>) -> Result<(), E> {
        let mut at = 0;
        let mut outcome = Ok(true);
        while matches!(outcome, Ok(true)) {
            let Some(length) = message_length(&self.piece[at..]) else { break };
            let Some(message) = self.piece.get(at + HEADER..at + length) else { break };
            outcome = take(message);
            at += length;
        }
        match outcome {
            // All of it was taken: a piece is a run of whole messages.
            Ok(true) => self.piece.clear(),
            _ => self.piece.advance(at),
        }
        outcome.map(drop)
    }

    /// Waits for more; `false` when there are no more on this way.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.piece.is_empty() {
            return Poll::Ready(true);
        }
        match ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => {
                self.piece = piece;
                Poll::Ready(true)
            }
            None => Poll::Ready(false),
        }
    }
}

/// A connection to the server whose COPYs can be tapped.
pub(super) struct Tapped<S> {
    inner: S,
    tap: Arc<Tap>,
    /// What was read and handed to nobody yet.
    buffer: BytesMut,
    /// The next bytes that are tokio-postgres's, which may still have to come.
    theirs: usize,
    /// Where rows go.
    rows: Option<PollSender<Bytes>>,
    /// Rows that wait for room.
    piece: Option<Bytes>,
}

/// Nobody waits for the rows of a connection that is gone.
impl<S> Drop for Tapped<S> {
    fn drop(&mut self) {
        self.end_rows();
    }
}

/// What the bytes at the front of the buffer are.
enum Front {
    /// So many belong to tokio-postgres.
    Theirs(usize),
    /// So many are rows.
    Rows(usize),
    /// There is no whole message; one has so many bytes at least.
    Part(usize),
}

impl<S> Tapped<S> {
    /// `inner` must be at the beginning of a message.
    pub fn new(inner: S, tap: Arc<Tap>) -> Self {
        Self { inner, tap, buffer: BytesMut::new(), theirs: 0, rows: None, piece: None }
    }

    fn front(&mut self) -> Front {
        let mut at = 0;
        loop {
            let rest = &self.buffer[at..];
            let Some(length) = message_length(rest) else {
                // Too short for a header; a length that is none lets everything pass.
                let part = if rest.len() < HEADER { HEADER } else { usize::MAX };
                return if at > 0 { Front::Theirs(at) } else { Front::Part(part) };
            };
            let tag = rest[0];
            match tag {
                COPY_DATA if self.wants_rows() => {
                    if at > 0 {
                        return Front::Theirs(at);
                    }
                    let run = self.run_of_rows();
                    return if run > 0 { Front::Rows(run) } else { Front::Part(length) };
                }
                // In the order of the stream: what was before these is with the reader already.
                COPY_DONE | ERROR => self.end_rows(),
                _ => {}
            }
            at += length;
            if at >= self.buffer.len() {
                return Front::Theirs(at);
            }
        }
    }

    fn wants_rows(&mut self) -> bool {
        if self.rows.is_none() {
            self.rows = self.tap.wanted.lock().take().map(PollSender::new);
        }
        self.rows.is_some()
    }

    fn end_rows(&mut self) {
        self.rows = None;
        *self.tap.wanted.lock() = None;
    }

    /// The bytes of whole rows at the front.
    fn run_of_rows(&self) -> usize {
        let mut at = 0;
        while let Some(length) = message_length(&self.buffer[at..])
            && self.buffer[at] == COPY_DATA
            && length <= self.buffer.len() - at
        {
            at += length;
        }
        at
    }

    /// Hands over rows that wait.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.piece.is_some()
            && let Some(rows) = &mut self.rows
            && ready!(rows.poll_reserve(cx)).is_ok()
            && let Some(piece) = self.piece.take()
        {
            // Nobody who is gone misses it.
            let _ = rows.send_item(piece);
        }
        self.piece = None;
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> Tapped<S> {
    /// Reads into the buffer, with room for `wanted` bytes in all; how many came.
    fn poll_fill(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let (room, least) = match self.rows {
            Some(_) => (LARGE_READ, LEAST_READ),
            None => (SMALL_READ, 1),
        };
        if self.rows.is_none() && self.buffer.is_empty() && self.buffer.capacity() > LEAST_READ {
            // A connection that waits in the pool needs no room.
            self.buffer = BytesMut::new();
        }
        let missing = wanted.saturating_sub(self.buffer.len());
        if self.buffer.capacity() - self.buffer.len() < least.max(missing.min(LARGE_READ)) {
            // A row of a gigabyte needs a gigabyte; until it comes, not more than twice what has.
            self.buffer.reserve(room.max(missing.min(self.buffer.len().max(LARGE_READ))));
        }
        poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.buffer)
    }
}

/// The bytes of the message that begins here, with its header; `None` without a whole header, or
/// when it makes no sense.
#[inline]
fn message_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let [_, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (LENGTH..=i32::MAX as usize).contains(&length).then(|| length + 1)
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            ready!(this.poll_piece(cx));
            let wanted = if this.theirs > 0 {
                if !this.buffer.is_empty() {
                    let count = this.theirs.min(this.buffer.len()).min(out.remaining());
                    out.put_slice(&this.buffer[..count]);
                    this.buffer.advance(count);
                    if this.theirs < usize::MAX {
                        this.theirs -= count;
                    }
                    return Poll::Ready(Ok(()));
                }
                1
            } else {
                match this.front() {
                    Front::Theirs(count) => {
                        this.theirs = count;
                        continue;
                    }
                    Front::Rows(count) => {
                        this.piece = Some(this.buffer.split_to(count).freeze());
                        continue;
                    }
                    Front::Part(usize::MAX) => {
                        this.theirs = usize::MAX;
                        continue;
                    }
                    Front::Part(wanted) => wanted,
                }
            };
            if ready!(this.poll_fill(cx, wanted))? == 0 {
                if this.buffer.is_empty() {
                    this.end_rows();
                    return Poll::Ready(Ok(()));
                }
                // The rest of a connection that broke.
                this.end_rows();
                this.theirs = usize::MAX;
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<P: AsyncRead + AsyncWrite + Unpin, T: TlsStream + Unpin> TlsStream for Tapped<Either<P, T>> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.inner {
            Either::Left(_) => ChannelBinding::none(),
            Either::Right(secured) => secured.channel_binding(),
        }
    }
}

#[cfg(test)]
mod tests;

//! TCP connections that have a name of their own.
//!
//! A client without cookie or token is known by its connection. Its port would not do: the next
//! client may get the same one and would find the options of the last.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

use crate::sessions::{Key, Sessions};

/// How long to wait after accepting has failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end; a request finds it among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    /// Unique while the server lives.
    pub(crate) id: u64,
}

/// One accepted connection. When it closes, the session that is known only by it ends.
pub(crate) struct Connection {
    io: TcpStream,
    info: ConnectionInfo,
    sessions: Arc<Sessions>,
}

/// The connections of a listener, without end.
pub(crate) fn accept(
    listener: TcpListener,
    sessions: Arc<Sessions>,
) -> impl Stream<Item = Result<Connection, std::io::Error>> + Send {
    let next_id = AtomicU64::new(1);
    futures::stream::unfold((listener, sessions, next_id), |state| async move {
        let (listener, sessions, next_id) = state;
        let accepted = match listener.accept().await {
            Ok((io, peer)) => {
                let id = next_id.fetch_add(1, Ordering::Relaxed);
                opened(&io, peer, id);
                Ok(Connection { io, info: ConnectionInfo { id }, sessions: Arc::clone(&sessions) })
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                Err(error)
            }
        };
        Some((accepted, (listener, sessions, next_id)))
    })
}

fn opened(io: &TcpStream, peer: SocketAddr, id: u64) {
    // A small message must not wait for a large one that never comes.
    if let Err(error) = io.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    tracing::debug!(%peer, id, "connection opened");
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sessions.forget(Key::Connection(self.info.id));
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

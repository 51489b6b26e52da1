//! The server: settings of HTTP/2, the sweep of expired state, and shutting down.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use synoptic_engine::Engine;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

use crate::connection::accept;
use crate::options::FlightOptions;
use crate::service::{Face, Service};
use crate::status::reword;

/// What a stream of uploads may have under way; the default of 64 KiB starves fast networks.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of headers that are read at all. A quarter of it is allowed, see `context.rs`: there the
/// error has a code, here it is a bare HTTP status.
const MAX_HEADER_BYTES: u32 = 256 << 10;
/// A connection whose peer has vanished is closed after these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often expired plans, statements and sessions are dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long connections may take to close once their answers were ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves Flight SQL on `listener` until `shutdown` completes.
///
/// Then no connection is accepted any more, and running queries may go on for
/// `options.drain_timeout`; those that still run then end with `[CANCELLED]`.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    engine: Arc<Engine>,
    listener: TcpListener,
    options: FlightOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let stop = CancellationToken::new();
    // However this function ends, answers end with it.
    let _stop_guard = stop.clone().drop_guard();
    let drain_timeout = options.drain_timeout;
    let max_request_bytes = options.max_request_bytes;
    let max_streams = options.max_streams_per_connection;
    let service = Service::new(engine, options, stop.clone());
    let _sweeper = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(&service))));
    let incoming = accept(listener, Arc::clone(&service.sessions));
    let flight = FlightServiceServer::new(Face(service))
        .max_decoding_message_size(max_request_bytes)
        // Messages are cut to size in `encode.rs`, with an error that says what to do.
        .max_encoding_message_size(usize::MAX);
    let (closing, closed) = oneshot::channel::<()>();
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(max_streams)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .layer(MapResponseLayer::new(reword))
        .add_service(flight)
        .serve_with_incoming_shutdown(incoming, async {
            // A dropped sender is a signal too.
            let _ = closed.await;
        });
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => return served.map_err(io::Error::other),
        () = shutdown => {}
    }
    tracing::info!(timeout = ?drain_timeout, "draining running queries");
    drop(closing);
    if let Ok(served) = tokio::time::timeout(drain_timeout, &mut serving).await {
        return served.map_err(io::Error::other);
    }
    tracing::warn!("queries still run after the drain timeout; they are cancelled");
    stop.cancel();
    // Connections that do not close now are left to the end of the process.
    match tokio::time::timeout(CLOSE_TIMEOUT, serving).await {
        Ok(served) => served.map_err(io::Error::other),
        Err(_) => Ok(()),
    }
}

async fn sweep(service: Arc<Service>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        service.sweep();
    }
}

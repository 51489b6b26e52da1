//! `/healthz`, `/readyz` and `/metrics`, for orchestrators and Prometheus.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use synoptic_engine::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::ready::Readiness;

/// Connections at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of headers a client may send.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// A connection is ended after this long, whatever it does.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(3600);

/// What the handlers look at.
pub(super) struct HttpState {
    engine: Arc<Engine>,
    readiness: Readiness,
    draining: CancellationToken,
}

impl HttpState {
    /// `workers` is where sources are asked.
    pub(super) fn new(engine: Arc<Engine>, draining: CancellationToken, workers: Handle) -> Self {
        Self { readiness: Readiness::new(Arc::clone(&engine), workers), engine, draining }
    }
}

/// Accepts connections until it is dropped, which closes them all.
pub(super) async fn serve(listener: TcpListener, state: Arc<HttpState>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let served = connection(stream, state);
                    let _ = tokio::time::timeout(CONNECTION_LIFETIME, served).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: give the rest time to end.
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<HttpState>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, request.method(), request.uri().path()).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn answer(state: &HttpState, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if state.draining.is_cancelled() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
        }
        "/readyz" => {
            let report = state.readiness.report().await;
            let status =
                if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            text(status, report.text.clone())
        }
        "/metrics" => {
            let mut answer = text(StatusCode::OK, metrics::render(&state.engine));
            let version = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(CONTENT_TYPE, version);
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use synoptic_config::Config;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    #[tokio::test]
    async fn the_three_pages_and_what_is_not_one() {
        let engine = crate::compose::compose(&Config::default()).expect("composed");
        let draining = CancellationToken::new();
        let state = Arc::new(HttpState::new(engine, draining.clone(), Handle::current()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(serve(listener, state));
        let page = async |line: &str| {
            get(address, &format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
        };
        assert!(page("GET /healthz").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let ready = page("GET /readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200 OK\r\n"), "{ready}");
        let metrics = page("GET /metrics").await;
        assert!(metrics.contains("\nsynoptic_queries{state=\"running\"} 0\n"), "{metrics}");
        assert!(page("GET /nope").await.starts_with("HTTP/1.1 404 "));
        assert!(page("POST /metrics").await.starts_with("HTTP/1.1 405 "));
        assert!(page("garbage").await.starts_with("HTTP/1.1 400 "));
        draining.cancel();
        assert!(page("GET /readyz").await.starts_with("HTTP/1.1 503 "));
        server.abort();
    }
}

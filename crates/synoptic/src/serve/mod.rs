//! `synoptic serve`: the server from its configuration to its last query.
//!
//! ```text
//! workers    every core: Flight, planning, queries, sources
//! control    one thread with a runtime of its own: signals and HTTP (control.rs, http.rs)
//! ```
//!
//! A plan that computes for long between two batches can occupy every worker. The control thread
//! shares nothing with them, so a signal is obeyed and `/healthz` answers all the same.

mod control;
mod http;
mod metrics;
mod ready;
mod reload;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use synoptic_config::Config;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::cli_error::{CliError, Result};
use crate::compose::{Composition, flight_options};

use control::{Control, ControlThread};
use http::HttpState;
use reload::Reloader;

/// Serves the configuration at `path` until a signal ends it.
///
/// # Errors
/// When the configuration is wrong or an address cannot be listened on.
pub async fn run(path: PathBuf) -> Result<()> {
    let config = Config::load(&path, &synoptic_connectors::names())?;
    let composition = Arc::new(Composition::new(&config)?);
    let listener = bind(&config, "listen", &config.server.listen).await?;
    let http = match &config.server.http {
        Some(address) => Some(bind(&config, "http", address).await?),
        None => None,
    };
    let engine = Arc::clone(composition.engine());
    let options = flight_options(&config.server);
    let stop = CancellationToken::new();
    let at_once = CancellationToken::new();
    let ready = ReadyLine::new(&listener, http.as_ref())?;
    let control = Control {
        stop: stop.clone(),
        at_once: at_once.clone(),
        drain_timeout: config.server.drain_timeout,
        http: http.map(|listener| {
            let state = HttpState::new(Arc::clone(&engine), stop.clone(), Handle::current());
            (listener, Arc::new(state))
        }),
        reloader: Reloader::new(path, config, composition),
        workers: Handle::current(),
    };
    let _control = ControlThread::start(control)?;
    // Whoever reads it may send a signal right away, so signals are caught before.
    ready.print()?;
    let sources = Arc::clone(&engine);
    let served = synoptic_flight::serve(engine, listener, options, stop.cancelled_owned());
    // On a worker, not on this thread: what it waits for is then in one place.
    let mut served = tokio::spawn(served);
    tokio::select! {
        ended = &mut served => match ended {
            Ok(Ok(())) => tracing::info!("stopped"),
            Ok(Err(error)) => return Err(CliError::failed(format!("the server failed: {error}"))),
            Err(error) => return Err(CliError::failed(format!("the server failed: {error}"))),
        },
        () = at_once.cancelled() => {
            served.abort();
            tracing::warn!("stopped at once");
        }
    }
    sources.settle().await;
    Ok(())
}

async fn bind(config: &Config, key: &str, address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let place = match config.line_of(&["server", key]) {
            Some(line) => format!("{}:{line}: ", config.file()),
            None => String::new(),
        };
        CliError::failed(format!("{place}key 'server.{key}': cannot listen on {address}: {error}"))
    })
}

/// The only thing that is ever written to stdout.
struct ReadyLine(String);

impl ReadyLine {
    fn new(listener: &TcpListener, http: Option<&TcpListener>) -> Result<Self> {
        if let Some(http) = http {
            tracing::info!("/metrics, /healthz and /readyz on http://{}", http.local_addr()?);
        }
        Ok(Self(format!("synoptic listening on grpc://{}", listener.local_addr()?)))
    }

    fn print(self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", self.0)?;
        out.flush()?;
        Ok(())
    }
}

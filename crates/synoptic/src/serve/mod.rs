//! `synoptic serve`: the server from its configuration to its last query.
//!
//! ```text
//! SIGTERM, SIGINT   no new queries; running ones may go on up to drain_timeout; then exit 0
//!   a second one    at once: what still runs is cancelled at the sources
//! SIGHUP            reads the file again; an invalid one changes nothing
//! ```

mod http;
mod metrics;
mod ready;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use synoptic_config::Config;
use synoptic_types::format_duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cli_error::{CliError, Result};
use crate::compose::{Composition, flight_options};

use http::HttpState;

/// Serves the configuration at `path` until a signal ends it.
///
/// # Errors
/// When the configuration is wrong or an address cannot be listened on.
pub async fn run(path: PathBuf) -> Result<()> {
    // Before anything else: a signal that comes early must not kill the process half-way.
    let signals = Signals::install()?;
    let config = Config::load(&path, &synoptic_connectors::names())?;
    let composition = Arc::new(Composition::new(&config)?);
    let listener = bind(&config, "listen", &config.server.listen).await?;
    let http = match &config.server.http {
        Some(address) => Some(bind(&config, "http", address).await?),
        None => None,
    };
    announce(&listener, http.as_ref())?;

    let stop = CancellationToken::new();
    let at_once = CancellationToken::new();
    let state = HttpState::new(Arc::clone(composition.engine()), stop.clone());
    let _http = http.map(|listener| {
        AbortOnDropHandle::new(tokio::spawn(http::serve(listener, Arc::new(state))))
    });
    let control = Control {
        path,
        composition: Arc::clone(&composition),
        stop: stop.clone(),
        at_once: at_once.clone(),
    };
    let options = flight_options(&config.server);
    let _signals = AbortOnDropHandle::new(tokio::spawn(control.obey(signals, config)));
    let engine = Arc::clone(composition.engine());
    let served = synoptic_flight::serve(engine, listener, options, stop.cancelled_owned());
    tokio::select! {
        served = served => {
            served.map_err(|error| CliError::failed(format!("the server ended: {error}")))?;
            tracing::info!("stopped");
        }
        () = at_once.cancelled() => tracing::warn!("stopped at once"),
    }
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

/// The ready line: the only thing that is ever written to stdout.
#[expect(clippy::print_stdout, reason = "whoever starts the server waits for this line")]
fn announce(listener: &TcpListener, http: Option<&TcpListener>) -> Result<()> {
    let address = listener.local_addr()?;
    println!("synoptic listening on grpc://{address}");
    std::io::stdout().flush()?;
    if let Some(http) = http {
        let address = http.local_addr()?;
        tracing::info!("/metrics, /healthz and /readyz on http://{address}");
    }
    Ok(())
}

/// The signals a server obeys. They are caught from the moment this exists.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn install() -> Result<Self> {
        let install =
            |kind| signal(kind).map_err(|error| CliError::io("listen for signals", &error));
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hang_up: install(SignalKind::hangup())?,
        })
    }
}

/// What signals act on.
struct Control {
    path: PathBuf,
    composition: Arc<Composition>,
    stop: CancellationToken,
    at_once: CancellationToken,
}

impl Control {
    async fn obey(self, mut signals: Signals, mut config: Config) {
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => self.end(&config),
                _ = signals.interrupt.recv() => self.end(&config),
                _ = signals.hang_up.recv() => {
                    if let Some(new) = reload(&self.path, &self.composition, &config) {
                        config = new;
                    }
                }
            }
        }
    }

    fn end(&self, config: &Config) {
        if self.stop.is_cancelled() {
            self.at_once.cancel();
        } else {
            let patience = format_duration(config.server.drain_timeout);
            tracing::info!("stopping: running queries have up to {patience}");
            self.stop.cancel();
        }
    }
}

/// Reads the file again. `None` when it is refused; the old configuration then stays as a whole.
///
/// Settings that need a restart keep their old values in the configuration that is returned, so
/// that the next reload still names them.
fn reload(path: &Path, composition: &Composition, old: &Config) -> Option<Config> {
    let refuse = |errors: synoptic_config::ConfigErrors| {
        for error in &errors.0 {
            tracing::error!("reload refused, the old configuration stays: {error}");
        }
    };
    let mut new = match Config::load(path, &synoptic_connectors::names()) {
        Ok(new) => new,
        Err(errors) => {
            refuse(errors);
            return None;
        }
    };
    match composition.replace_sources(&new) {
        Ok(replaced) => {
            tracing::info!(
                added = ?replaced.added,
                changed = ?replaced.changed,
                removed = ?replaced.removed,
                "reloaded"
            );
        }
        Err(errors) => {
            refuse(errors);
            return None;
        }
    }
    let changed = old.changed_settings(&new);
    if !changed.is_empty() {
        tracing::warn!("these changes take effect at the next start: {}", changed.join(", "));
        new.server = old.server.clone();
        new.query = old.query.clone();
        new.clock = old.clock.clone();
    }
    Some(new)
}

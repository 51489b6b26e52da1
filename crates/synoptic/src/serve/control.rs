//! Signals and HTTP, on a thread that no query can hold up.
//!
//! ```text
//! SIGTERM, SIGINT   no new queries; running ones may go on up to drain_timeout; then exit 0
//!   a second one    at once: what still runs is cancelled at the sources
//! SIGHUP            reads the file again; an invalid one changes nothing
//! ```

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use synoptic_types::format_duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli_error::{CliError, Result};

use super::http::{self, HttpState};
use super::reload::Reloader;

/// The workers cancel what still runs after the drain timeout. When they do not come to it in
/// this time, because they compute without a pause, the process ends without them.
const GRACE: Duration = Duration::from_secs(3);

/// What the control thread looks after.
pub(super) struct Control {
    /// Cancelled by the first signal to end.
    pub(super) stop: CancellationToken,
    /// Cancelled by the second one, or when the drain takes too long.
    pub(super) at_once: CancellationToken,
    pub(super) drain_timeout: Duration,
    pub(super) http: Option<(TcpListener, Arc<HttpState>)>,
    pub(super) reloader: Reloader,
    /// Where everything else runs.
    pub(super) workers: Handle,
}

/// The thread. Dropping it ends it.
pub(super) struct ControlThread {
    ended: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl ControlThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread, no event queue or no signals.
    pub(super) fn start(control: Control) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::io("start the control thread", &error))?;
        // Here and not in the thread: once this returns, no signal kills the process any more.
        let signals = {
            let _entered = runtime.enter();
            Signals::catch()?
        };
        let ended = CancellationToken::new();
        let end = ended.clone();
        let body = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = run(control, signals) => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(body)
            .map_err(|error| CliError::io("start the control thread", &error))?;
        Ok(Self { ended, thread: Some(thread) })
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        self.ended.cancel();
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but its token.
            let _ = thread.join();
        }
    }
}

async fn run(control: Control, signals: Signals) {
    let Control { stop, at_once, drain_timeout, http, reloader, workers } = control;
    let serve = async {
        match http.and_then(|(listener, state)| Some((move_here(listener)?, state))) {
            Some((listener, state)) => http::serve(listener, state).await,
            None => std::future::pending().await,
        }
    };
    let obey = obey(signals, &stop, &at_once, drain_timeout, reloader, &workers);
    let watch = async {
        stop.cancelled().await;
        tokio::time::sleep(drain_timeout + GRACE).await;
        tracing::warn!("the queries that are left do not end");
        at_once.cancel();
    };
    tokio::join!(serve, obey, watch);
}

/// A listener belongs to the runtime it was made in: this one is to be polled here.
fn move_here(listener: TcpListener) -> Option<TcpListener> {
    let moved = listener.into_std().and_then(TcpListener::from_std);
    moved.inspect_err(|error| tracing::error!(%error, "there is no HTTP")).ok()
}

async fn obey(
    mut signals: Signals,
    stop: &CancellationToken,
    at_once: &CancellationToken,
    drain_timeout: Duration,
    mut reloader: Reloader,
    workers: &Handle,
) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => end(stop, at_once, drain_timeout),
            _ = signals.interrupt.recv() => end(stop, at_once, drain_timeout),
            _ = signals.hang_up.recv() => {
                // Sources may start tasks when they are opened; those belong to the workers.
                let _entered = workers.enter();
                reloader.reload();
            }
        }
    }
}

fn end(stop: &CancellationToken, at_once: &CancellationToken, drain_timeout: Duration) {
    if stop.is_cancelled() {
        at_once.cancel();
    } else {
        tracing::info!("stopping: running queries have up to {}", format_duration(drain_timeout));
        stop.cancel();
    }
}

/// The signals a server obeys, caught in the runtime this is called in.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).map_err(|error| CliError::io("listen for signals", &error));
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }
}

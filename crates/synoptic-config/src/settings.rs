//! The checked values of `[server]`, `[freshness]` and `[clock]`, and their defaults.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use synoptic_types::{ByteSize, QueryOptions};

/// `[server]`: what the process may use and whom it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where Flight SQL is served, `HOST:PORT`. Port 0 picks a free one.
    pub listen: String,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, if at all.
    pub http: Option<String>,
    /// Whether `listen` and `http` may be addresses that other machines reach.
    pub insecure: bool,
    /// Memory for sorts, joins and aggregates over all queries.
    pub memory_limit: ByteSize,
    /// Disk for spilled data over all queries.
    pub spill_limit: ByteSize,
    /// Where spilled data goes; the system's temporary folder when not set.
    pub spill_dir: Option<PathBuf>,
    /// Queries that run at once.
    pub max_concurrent_queries: usize,
    /// How long running queries may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// Partitions a plan runs in.
    pub target_partitions: usize,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Tables of so many rows are read while others are.
    pub read_ahead_rows: usize,
    /// Ended queries that `system.queries` keeps.
    pub query_history: usize,
    /// Writes whose outcomes are remembered.
    pub write_outcomes: usize,
    /// Statements whose plans are kept.
    pub plan_cache: usize,
    /// How long a Flight ticket is valid.
    pub ticket_ttl: Duration,
    /// How long a plan waits for its DoGet.
    pub plan_ttl: Duration,
    /// Plans that wait for their DoGet at once.
    pub max_waiting_plans: usize,
    /// Flight sessions at once.
    pub max_sessions: usize,
    /// How long a Flight session or a prepared statement lives without a call.
    pub session_idle_timeout: Duration,
    /// Prepared statements at once.
    pub max_prepared_statements: usize,
    /// How long a listing may describe tables.
    pub metadata_timeout: Duration,
    /// The largest message a client may send.
    pub max_request_size: ByteSize,
    /// The size messages to clients aim for.
    pub message_size: ByteSize,
    /// The largest row that is sent to a client.
    pub max_row_size: ByteSize,
    /// Calls one connection may have open at once.
    pub max_streams_per_connection: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            listen: "127.0.0.1:50051".to_owned(),
            http: None,
            insecure: false,
            memory_limit: ByteSize(4 << 30),
            spill_limit: ByteSize(100 << 30),
            spill_dir: None,
            max_concurrent_queries: 64,
            drain_timeout: Duration::from_secs(30),
            target_partitions: cores,
            batch_size: 8192,
            read_ahead_rows: 100,
            query_history: 1000,
            write_outcomes: 10_000,
            plan_cache: 1000,
            ticket_ttl: Duration::from_secs(60 * 60),
            plan_ttl: Duration::from_secs(2 * 60),
            max_waiting_plans: 1024,
            max_sessions: 10_000,
            session_idle_timeout: Duration::from_secs(60 * 60),
            max_prepared_statements: 10_000,
            metadata_timeout: Duration::from_secs(10),
            max_request_size: ByteSize(16 << 20),
            // gRPC limits messages to 4 MiB in many clients, ADBC to 16 MiB; 64 KiB are for framing.
            message_size: ByteSize((4 << 20) - (64 << 10)),
            max_row_size: ByteSize((16 << 20) - (64 << 10)),
            max_streams_per_connection: 1000,
        }
    }
}

/// Where the error bound of the machine's clock comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockSource {
    /// The best there is on the machine.
    #[default]
    Auto,
    /// AWS ClockBound.
    ClockBound,
    /// The kernel's own estimate.
    Kernel,
    /// `max_offset`, as declared.
    Declared,
}

/// `[clock]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockConfig {
    /// Where the error bound comes from.
    pub source: ClockSource,
    /// The bound, with `source = 'declared'`.
    pub max_offset: Option<Duration>,
    /// Where ClockBound publishes its bound.
    pub segment: PathBuf,
    /// The longest a commit waits for its timestamp to be past.
    pub max_commit_wait: Duration,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self {
            source: ClockSource::default(),
            max_offset: None,
            segment: PathBuf::from("/var/run/clockbound/shm0"),
            max_commit_wait: Duration::from_secs(1),
        }
    }
}

/// `[freshness]`: how copies are followed, and what tokens are signed with. `Debug` does not show
/// the key.
#[derive(Clone, PartialEq, Eq)]
pub struct FreshnessConfig {
    /// How often every copy of a source is asked where it is, while statements use the source.
    pub probe_interval: Duration,
    /// Statements that may wait at once for one source to say where it is.
    pub max_waiting: usize,
    /// How long a statement waits for a replica that is about to be there, before it goes to a
    /// dearer copy.
    pub replay_wait: Duration,
    /// The pause between two attempts with `on_unmet = 'wait'`.
    pub retry_pause: Duration,
    /// The largest rate error of the monotonic clock, in parts per million.
    pub max_drift_ppm: u32,
    /// What tokens are signed with; `None`: a key of this process's own.
    pub token_key: Option<String>,
}

impl fmt::Debug for FreshnessConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshnessConfig")
            .field("probe_interval", &self.probe_interval)
            .field("max_waiting", &self.max_waiting)
            .field("replay_wait", &self.replay_wait)
            .field("retry_pause", &self.retry_pause)
            .field("max_drift_ppm", &self.max_drift_ppm)
            .finish_non_exhaustive()
    }
}

impl Default for FreshnessConfig {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_millis(250),
            max_waiting: 1000,
            replay_wait: Duration::from_millis(20),
            retry_pause: Duration::from_millis(50),
            // The kernel steers by at most 500 ppm, and a crystal is wrong by up to 100 more.
            max_drift_ppm: 600,
            token_key: None,
        }
    }
}

/// All sections but `[sources]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    pub(crate) server: ServerConfig,
    pub(crate) query: QueryOptions,
    pub(crate) freshness: FreshnessConfig,
    pub(crate) clock: ClockConfig,
}

/// Checks `HOST:PORT`; IPv6 hosts stand in brackets.
pub(crate) fn check_address(text: &str) -> Result<String, String> {
    let wrong = || format!("'{text}' is not HOST:PORT, for example '127.0.0.1:50051'");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let is_ip = text.parse::<SocketAddr>().is_ok();
    let is_name = !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if is_ip || is_name { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Whether only this machine can reach `address`.
pub(crate) fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

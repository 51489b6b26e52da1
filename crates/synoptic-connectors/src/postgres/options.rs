//! Declared → checked options of the connector.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use synoptic_types::{ByteSize, parse_bytes, parse_duration};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::options::{Declared, OptionsError};

const DEFAULT_MAX_CONNECTIONS: u32 = 20;
const LARGEST_MAX_CONNECTIONS: u32 = 10_000;
/// Reading this much takes longer than opening a connection.
const DEFAULT_MIN_PARTITION_SIZE: ByteSize = ByteSize(8 << 20);
/// More rows are better read by COPY.
const DEFAULT_MAX_QUERY_ROWS: u64 = 1000;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the configuration may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredOptions {
    url: String,
    max_connections: Option<u32>,
    max_partitions: Option<u32>,
    min_partition_size: Option<String>,
    max_query_rows: Option<u64>,
    connect_timeout: Option<String>,
    acquire_timeout: Option<String>,
    application_name: Option<String>,
    tls_root_cert: Option<PathBuf>,
    writable: Option<bool>,
}

/// How the server's certificate is checked once TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// Not at all, as libpq does for `prefer` and `require`.
    Nothing,
    /// Its chain, but not its name.
    Chain,
    /// Its chain and its name.
    ChainAndName,
}

/// What the connector runs with.
#[derive(Clone)]
pub(super) struct Options {
    /// Host, user, password, database, and whether TLS is used. Never printed whole.
    pub config: Config,
    pub verify: Verify,
    /// Roots to trust instead of the system's.
    pub tls_root_cert: Option<PathBuf>,
    pub max_connections: u32,
    /// Into how many ranges of pages one table is split at most.
    pub max_partitions: u32,
    /// How many bytes of the table a range has at least.
    pub min_partition_size: ByteSize,
    /// Results that are expected to have at most this many rows come by a query and not by COPY;
    /// see `rows.rs`.
    pub max_query_rows: u64,
    /// For the whole way from the name lookup to the end of authentication.
    pub connect_timeout: Duration,
    /// How long a statement waits for free connections.
    pub acquire_timeout: Duration,
    /// The first part of the `application_name` each session shows.
    pub application_name: String,
    /// Whether INSERT is allowed.
    pub writable: bool,
    /// `host:port/database`, without credentials.
    pub location: String,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("location", &self.location)
            .field("verify", &self.verify)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// # Errors
    /// When an option is unknown, missing or does not fit.
    pub fn from_declared(declared: &Declared) -> Result<Self, OptionsError> {
        let options: DeclaredOptions = declared.parse()?;
        let url = Url::split(&options.url)?;
        let mut config = url.config()?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(at_url("has no host: write postgresql://user@host:port/database"));
        }

        let tls_root_cert = match (options.tls_root_cert, url.root_cert.clone()) {
            (Some(path), _) | (None, Some(path)) => Some(declared.base_dir.join(path)),
            (None, None) => None,
        };
        let (mode, verify) = tls_mode(url.sslmode.as_deref(), tls_root_cert.is_some())?;
        config.ssl_mode(mode);

        let max_connections = options.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS);
        if !(1..=LARGEST_MAX_CONNECTIONS).contains(&max_connections) {
            return Err(OptionsError::at(
                &["max_connections"],
                format!("{max_connections} is not between 1 and {LARGEST_MAX_CONNECTIONS}"),
            ));
        }
        let max_partitions = match options.max_partitions {
            Some(0) => {
                let message = "must be at least 1: 1 reads every table over one connection";
                return Err(OptionsError::at(&["max_partitions"], message));
            }
            Some(most) => most,
            None => std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        };
        let min_partition_size = match options.min_partition_size.as_deref().map(parse_bytes) {
            None => DEFAULT_MIN_PARTITION_SIZE,
            Some(Ok(size)) => size,
            Some(Err(error)) => {
                return Err(OptionsError::at(&["min_partition_size"], error.to_string()));
            }
        };
        let connect_timeout = duration("connect_timeout", options.connect_timeout.as_deref())?
            .or(config.get_connect_timeout().copied())
            .unwrap_or(DEFAULT_CONNECT_TIMEOUT);
        config.connect_timeout(connect_timeout);
        let acquire_timeout = duration("acquire_timeout", options.acquire_timeout.as_deref())?
            .unwrap_or(DEFAULT_ACQUIRE_TIMEOUT);
        let application_name = options
            .application_name
            .or(config.get_application_name().map(str::to_owned))
            .unwrap_or_else(|| "synoptic".to_owned());
        if application_name.chars().any(char::is_control) {
            let message = "has a control character: write plain text";
            return Err(OptionsError::at(&["application_name"], message));
        }
        config.application_name(&application_name);
        if !url.sets_keepalives {
            // A peer that vanished mid-scan is noticed in about a minute and a half, not hours.
            config.keepalives_idle(Duration::from_secs(60));
            config.keepalives_interval(Duration::from_secs(10));
            config.keepalives_retries(3);
        }

        Ok(Self {
            location: location(&config),
            config,
            verify,
            tls_root_cert,
            max_connections,
            max_partitions,
            min_partition_size,
            max_query_rows: options.max_query_rows.unwrap_or(DEFAULT_MAX_QUERY_ROWS),
            connect_timeout,
            acquire_timeout,
            application_name,
            writable: options.writable.unwrap_or(false),
        })
    }
}

fn at_url(message: impl Into<String>) -> OptionsError {
    OptionsError::at(&["url"], message)
}

fn duration(name: &str, text: Option<&str>) -> Result<Option<Duration>, OptionsError> {
    let Some(text) = text else { return Ok(None) };
    let duration = parse_duration(text).map_err(|e| OptionsError::at(&[name], e.to_string()))?;
    if duration.is_zero() {
        return Err(OptionsError::at(&[name], "must be longer than 0: write for example '5s'"));
    }
    Ok(Some(duration))
}

/// libpq's modes. A root certificate makes `require` check the chain, as it does there.
fn tls_mode(mode: Option<&str>, has_root: bool) -> Result<(SslMode, Verify), OptionsError> {
    let verify = if has_root { Verify::Chain } else { Verify::Nothing };
    match mode {
        Some("disable") => Ok((SslMode::Disable, Verify::Nothing)),
        None | Some("prefer") => Ok((SslMode::Prefer, Verify::Nothing)),
        Some("require") => Ok((SslMode::Require, verify)),
        Some("verify-ca") => Ok((SslMode::Require, Verify::Chain)),
        Some("verify-full") => Ok((SslMode::Require, Verify::ChainAndName)),
        Some(other) => Err(at_url(format!(
            "sslmode '{other}' does not exist here: write disable, prefer, require, verify-ca or \
             verify-full"
        ))),
    }
}

/// A URL without the parameters that are read here and not by tokio-postgres.
struct Url {
    rest: String,
    sslmode: Option<String>,
    root_cert: Option<PathBuf>,
    sets_keepalives: bool,
}

impl Url {
    /// Never echoes the URL: it may hold a password.
    fn split(url: &str) -> Result<Self, OptionsError> {
        if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
            return Err(at_url("must start with postgresql://"));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut split =
            Self { rest: String::new(), sslmode: None, root_cert: None, sets_keepalives: false };
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
            match key {
                "sslmode" => split.sslmode = Some(value()),
                "sslrootcert" => split.root_cert = Some(PathBuf::from(value())),
                _ => {
                    split.sets_keepalives |= key.starts_with("keepalives");
                    kept.push(pair);
                }
            }
        }
        base.clone_into(&mut split.rest);
        if !kept.is_empty() {
            split.rest.push('?');
            split.rest.push_str(&kept.join("&"));
        }
        Ok(split)
    }

    fn config(&self) -> Result<Config, OptionsError> {
        self.rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            at_url(format!(
                "cannot be read{}: write postgresql://user:password@host:port/database, with \
                 special characters in the password percent-encoded",
                cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
            ))
        })
    }
}

fn location(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
    let hosts: Vec<String> = if config.get_hosts().is_empty() {
        let addresses = config.get_hostaddrs().iter().enumerate();
        addresses.map(|(i, address)| format!("{address}:{}", port(i))).collect()
    } else {
        let hosts = config.get_hosts().iter().enumerate();
        hosts
            .map(|(i, host)| match host {
                Host::Tcp(host) => format!("{host}:{}", port(i)),
                Host::Unix(path) => format!("{}:{}", path.display(), port(i)),
            })
            .collect()
    };
    let database = config.get_dbname().or(config.get_user()).unwrap_or("");
    format!("{}/{database}", hosts.join(","))
}

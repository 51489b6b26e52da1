//! Options: declared → checked.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use synoptic_types::parse_duration;

use crate::options::{Declared, OptionsError};

/// More connections than this are threads that wait for one disk.
const MOST_CONNECTIONS: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredOptions {
    path: String,
    max_connections: Option<usize>,
    acquire_timeout: Option<String>,
    busy_timeout: Option<String>,
    writable: Option<bool>,
}

/// What the connector works with.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// The database file, absolute when the configuration's folder is.
    pub path: PathBuf,
    /// Statements that read at once; each has a connection and a thread.
    pub max_connections: usize,
    /// How long a statement waits for a connection.
    pub acquire_timeout: Duration,
    /// How long SQLite waits for a writer's lock.
    pub busy_timeout: Duration,
    /// Whether INSERT is allowed.
    pub writable: bool,
}

impl Options {
    pub fn check(declared: &Declared) -> Result<Self, OptionsError> {
        let options: DeclaredOptions = declared.parse()?;
        if options.path.trim().is_empty() {
            return Err(OptionsError::at(&["path"], "the path of the database file is empty"));
        }
        if options.path.contains('\0') {
            return Err(OptionsError::at(&["path"], "a path cannot contain a NUL character"));
        }
        let max_connections = options.max_connections.unwrap_or(8);
        if !(1..=MOST_CONNECTIONS).contains(&max_connections) {
            return Err(OptionsError::at(
                &["max_connections"],
                format!("{max_connections} is not between 1 and {MOST_CONNECTIONS}"),
            ));
        }
        let duration = |key: &'static str, text: &Option<String>, default: u64| match text {
            None => Ok(Duration::from_secs(default)),
            Some(text) => parse_duration(text).map_err(|e| OptionsError::at(&[key], e.to_string())),
        };
        Ok(Self {
            path: declared.base_dir.join(options.path),
            max_connections,
            acquire_timeout: duration("acquire_timeout", &options.acquire_timeout, 10)?,
            busy_timeout: duration("busy_timeout", &options.busy_timeout, 5)?,
            writable: options.writable.unwrap_or(false),
        })
    }
}

//! The `postgres` connector: PostgreSQL 12 and later, primaries and standbys.
//!
//! ```text
//! source.rs      the Source: what it answers, which parts below do the work
//! options.rs     declared → checked;  tls.rs  sslmode → rustls
//! pool.rs        bounded connections, each with one task that drives it
//! discover.rs    tables and their columns from the catalog;  types.rs  native type → Arrow
//! statistics.rs  estimates from pg_class and pg_stats;  explain.rs  those of its planner
//! position.rs    where the server is in its log, for primaries and standbys
//! snapshot.rs    one transaction per scan, all in one exported snapshot
//! connect.rs     sslmode agreed with the server;  tap.rs  rows past tokio-postgres
//! scan.rs        COPY … (FORMAT BINARY) → copy.rs (frames) → decode.rs, numeric.rs (values)
//! rows.rs        the same for few rows, which a query brings a round trip sooner
//! error.rs       SQLSTATE → ErrorKind
//! ```

mod change;
mod connect;
mod copy;
mod decode;
mod discover;
mod encode;
mod error;
mod explain;
mod numeric;
mod options;
mod pool;
mod position;
mod ranges;
mod relation;
mod request;
mod rows;
mod scan;
mod snapshot;
mod source;
mod statistics;
mod tap;
#[cfg(test)]
mod tests;
mod tls;
mod types;
mod write;

use std::sync::Arc;

use synoptic_source::Source;

use crate::options::{Declared, OptionsError};

/// What a replica takes from its source: everything but the `url`.
pub const INHERITED: &[&str] = &[
    "max_connections",
    "max_partitions",
    "min_partition_size",
    "max_query_rows",
    "connect_timeout",
    "acquire_timeout",
    "application_name",
    "tls_root_cert",
];

/// Checks the options and makes the source.
///
/// # Errors
/// When an option is unknown, missing or does not fit.
pub fn open(declared: Declared) -> Result<Arc<dyn Source>, OptionsError> {
    let options = options::Options::from_declared(&declared)?;
    Ok(Arc::new(source::PostgresSource::new(declared.name, options)))
}

//! The `sqlite` connector: one database file, read only. See this folder's `README.md`.
//!
//! ```text
//! source.rs      Source: what the engine calls
//!   options.rs   declared → checked
//!   meta.rs      one thread for descriptions and statistics
//!     discover.rs, statistics.rs, types.rs
//!   filter.rs    which filters go to SQLite, exactly or to skip rows
//!   relation.rs  which operators go to SQLite, and check.rs what is looked at before
//!   snapshot.rs  one thread, connection and read transaction for each statement
//!     worker.rs  what that thread does
//!     decode.rs, parse.rs   values → Arrow, strictly
//!   scan.rs      a prepared scan and its stream
//! connection.rs, version.rs (which state a file is in), error.rs   used by all
//! ```

mod change;
mod check;
mod connection;
mod decode;
mod discover;
mod error;
mod filter;
mod meta;
mod options;
mod parse;
mod relation;
mod scan;
mod select;
mod snapshot;
mod source;
mod statistics;
mod types;
mod version;
mod worker;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use synoptic_source::Source;

use crate::options::{Declared, OptionsError};

/// What a replica takes from its source: everything but the `path`.
pub const INHERITED: &[&str] = &["max_connections", "acquire_timeout", "busy_timeout"];

/// Checks the options and makes the source.
pub fn open(declared: Declared) -> Result<Arc<dyn Source>, OptionsError> {
    let options = options::Options::check(&declared)?;
    Ok(Arc::new(source::SqliteSource::new(declared.name, options)))
}

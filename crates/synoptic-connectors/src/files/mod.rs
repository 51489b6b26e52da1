//! The `files` connector: Parquet, CSV, JSON, Arrow IPC and Delta Lake tables, on local disk and in
//! object stores.
//!
//! Read it in this order: `options` (declared → checked), `location` (where, and the object
//! store), `layout` (which objects make which table), `delta` (the same for tables that keep a
//! log), `schema` (what their columns are), `source`
//! (the [`Source`]), `scan` (a prepared fragment), `read` (one object → batches), and `pinned`
//! (the store that shows one statement only the objects it has listed, by ETag). `disk` says on which
//! thread all of that is done where the files are on this machine.

mod compression;
mod delta;
mod disk;
mod error;
mod facts;
mod filters;
mod format;
mod headers;
mod layout;
mod location;
mod members;
mod nan;
mod options;
mod partitions;
mod pinned;
mod position;
mod read;
mod scan;
mod schema;
mod source;
mod text;
mod tried;
mod widening;

use std::sync::Arc;

use synoptic_source::Source;

use crate::options::{Declared, OptionsError};

/// Checks the options and makes the source.
pub fn open(declared: Declared) -> Result<Arc<dyn Source>, OptionsError> {
    let options = options::check(&declared)?;
    Ok(Arc::new(source::FilesSource::new(declared.name, options)))
}

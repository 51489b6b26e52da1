//! Delta Lake tables: folders with a `_delta_log`, read as the published protocol says.
//!
//! A version of a table is a list of data files that never change. So a statement fixes the
//! version once, from one listing of the log, and reads it with what reads all other Parquet files.
//!
//! Read it in this order: `actions` (what stands in the log), `log` (which files the log has),
//! `replay` (actions → a [`State`]), `schema` (the columns), `tables` (the log of every table of a
//! source, with what is kept of it), `time` (which version was in force at a moment). What we do
//! not honour is refused in `replay` and `schema`, by name.

mod actions;
mod log;
mod replay;
mod schema;
mod tables;
mod time;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};

pub use replay::State;
pub use tables::DeltaTables;

/// The folder of a table's log, within the table's own.
pub const LOG: &str = "_delta_log";

/// One version of one table. Its files never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The table's own identifier: another table in the same place has another.
    pub id: Arc<str>,
    /// Counted from 0, one more with each commit.
    pub number: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delta-{}@{}", self.id, self.number)
    }
}

/// The columns of a table.
#[derive(Debug)]
pub struct Columns {
    /// Those inside the files.
    pub inside: Schema,
    /// Those whose values stand in the log.
    pub partitions: Vec<FieldRef>,
}

/// What the log says of a data file, besides its size.
#[derive(Debug)]
pub struct Added {
    /// Its path, as the log spells it.
    path: String,
    /// The values of partition columns, as texts.
    pub partition_values: HashMap<String, Option<String>>,
}

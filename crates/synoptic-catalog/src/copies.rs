//! A source with all the places where it can be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use synoptic_source::Source;
use synoptic_types::{CopyName, TableName};

/// A source: its authoritative copy, and its replicas, each a [`Source`] of its own that may even
/// be of another connector.
#[derive(Debug, Clone)]
pub struct CopySet {
    /// Where the source's owners write.
    pub authoritative: Arc<dyn Source>,
    /// The others, in the order of the configuration.
    pub replicas: Vec<Replica>,
    /// Tables that keep their earlier states, by the names that the source gives them.
    pub system_time: BTreeMap<TableName, SystemTime>,
}

/// The columns that say from when until when a row was in force, by the source's own clock:
/// SQL:2011's system time. The first moment counts, the last does not; a row without an end is in
/// force.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SystemTime {
    /// The column of the first moment.
    pub from: String,
    /// The column of the first moment after the last.
    pub to: String,
}

/// A copy that follows the authoritative one.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Its name in the source.
    pub name: CopyName,
    /// How it is read. Its [`Source::name`] is the source's, not its own.
    pub source: Arc<dyn Source>,
    /// Tables that are called otherwise there: the source's name to the replica's. A table that
    /// is not in here is looked for under its own name, in the replica's default schema when it
    /// is in the source's.
    pub tables: BTreeMap<TableName, TableName>,
}

impl From<Arc<dyn Source>> for CopySet {
    fn from(authoritative: Arc<dyn Source>) -> Self {
        Self { authoritative, replicas: Vec::new(), system_time: BTreeMap::new() }
    }
}

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
        Self { authoritative, replicas: Vec::new() }
    }
}

//! The engine: what all sessions share.

use std::path::PathBuf;
use std::sync::Arc;

use synoptic_catalog::Host;
use synoptic_types::{ByteSize, Clock, QueryId, QueryOptions};

use crate::error::Result;
use crate::metadata::TableEntry;
use crate::query::{CancelOutcome, QueryInfo};
use crate::session::Session;

/// What the engine is made of; every number has its place in the configuration.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Memory for sorts, joins and aggregates over all queries; beyond it they spill or fail.
    pub memory_limit: ByteSize,
    /// Disk for spilled data over all queries.
    pub spill_limit: ByteSize,
    /// Where spilled data goes; the system's temporary folder when not set.
    pub spill_dir: Option<PathBuf>,
    /// Partitions a plan runs in.
    pub target_partitions: usize,
    /// Rows a batch has.
    pub batch_size: usize,
    /// Queries that may run at once; further ones are refused with `[QUEUE_FULL]`.
    pub max_concurrent_queries: usize,
    /// Ended queries that `system.queries` still shows.
    pub query_history: usize,
    /// What sessions start with.
    pub defaults: QueryOptions,
}

/// What all sessions share: sources, memory, running queries.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// An engine over the sources of `host`.
    ///
    /// # Errors
    /// When the spill folder cannot be used.
    pub fn new(config: EngineConfig, host: Arc<Host>, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        todo!()
    }

    /// A new session with the default options. `client` is shown in `system.queries`.
    pub fn session(self: &Arc<Self>, client: &str) -> Session {
        todo!()
    }

    /// The sources.
    pub fn host(&self) -> &Arc<Host> {
        todo!()
    }

    /// Cancels a query that is planned or running.
    pub fn cancel(&self, id: &QueryId) -> CancelOutcome {
        todo!()
    }

    /// Planned, running and recently ended queries, newest first.
    pub fn queries(&self) -> Vec<QueryInfo> {
        todo!()
    }

    /// Catalogs, sorted: `synoptic` and every source.
    pub fn catalogs(&self) -> Vec<String> {
        todo!()
    }

    /// Schemas as (catalog, schema), sorted. A source that does not answer is left out.
    pub async fn schemas(&self) -> Vec<(String, String)> {
        todo!()
    }

    /// Every table and view of every catalog, sorted by catalog, schema and name. A source that
    /// does not answer within a second or two is left out.
    pub async fn tables(&self) -> Vec<TableEntry> {
        todo!()
    }
}

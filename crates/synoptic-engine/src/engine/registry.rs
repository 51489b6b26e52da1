//! The queries that are planned or running, and the last that ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use synoptic_types::QueryId;

use super::Engine;
use crate::query::{CancelOutcome, QueryInfo, QueryRecord};

/// Every statement passes through here once.
#[derive(Debug)]
pub(crate) struct Registry {
    history: usize,
    queries: Mutex<Queries>,
}

#[derive(Debug, Default)]
struct Queries {
    live: HashMap<QueryId, Arc<QueryRecord>>,
    /// Oldest first; at most `history` of them.
    ended: VecDeque<Arc<QueryRecord>>,
}

impl Registry {
    pub(crate) fn new(history: usize) -> Self {
        Self { history, queries: Mutex::default() }
    }

    pub(crate) fn add(&self, record: &Arc<QueryRecord>) {
        self.queries.lock().live.insert(record.id().clone(), Arc::clone(record));
    }

    /// Moves a query to the ended ones.
    pub(crate) fn end(&self, record: &Arc<QueryRecord>) {
        let mut queries = self.queries.lock();
        let is_same = |live: &Arc<QueryRecord>| Arc::ptr_eq(live, record);
        if queries.live.get(record.id()).is_some_and(is_same) {
            queries.live.remove(record.id());
            queries.ended.push_back(Arc::clone(record));
            while queries.ended.len() > self.history {
                queries.ended.pop_front();
            }
        }
    }

    /// A query that lives or ended not long ago.
    pub(crate) fn find(&self, id: &QueryId) -> Option<Arc<QueryRecord>> {
        let queries = self.queries.lock();
        let ended = || queries.ended.iter().rev().find(|record| record.id() == id);
        queries.live.get(id).or_else(ended).cloned()
    }

    pub(crate) fn cancel(&self, id: &QueryId) -> CancelOutcome {
        let queries = self.queries.lock();
        match queries.live.get(id) {
            Some(record) => {
                record.cancel();
                CancelOutcome::Cancelled
            }
            None if queries.ended.iter().any(|ended| ended.id() == id) => CancelOutcome::Ended,
            None => CancelOutcome::Unknown,
        }
    }

    pub(crate) fn list(&self, engine: &Engine) -> Vec<QueryInfo> {
        let queries = self.queries.lock();
        let all = queries.live.values().chain(&queries.ended);
        let mut infos: Vec<_> = all.map(|record| record.info(engine)).collect();
        drop(queries);
        infos.sort_by(|a, b| (b.started_at, &b.id).cmp(&(a.started_at, &a.id)));
        infos
    }
}

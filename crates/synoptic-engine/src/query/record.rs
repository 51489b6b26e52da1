//! What is known of a query while it lives and for a while after.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use synoptic_freshness::Receipt;
use synoptic_types::{Clock, ErrorCode, QueryId};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::engine::Engine;
use crate::error::Error;
use crate::scope::{ScanRecords, Scope};

use super::{QueryInfo, QueryState};

/// Longest statement text that is kept for `system.queries`, in characters.
const KEPT_SQL: usize = 10_000;

#[derive(Debug)]
pub(crate) struct QueryRecord {
    id: QueryId,
    sql: String,
    client: String,
    started_at: DateTime<Utc>,
    started: Instant,
    rows: AtomicU64,
    progress: Mutex<Progress>,
    cancel: CancellationToken,
    scans: Arc<ScanRecords>,
}

#[derive(Debug)]
struct Progress {
    state: QueryState,
    elapsed: Option<Duration>,
    error: Option<String>,
}

impl QueryRecord {
    pub(crate) fn new(
        id: QueryId,
        sql: &str,
        client: &str,
        scope: &Scope,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            sql: sql.chars().take(KEPT_SQL).collect(),
            client: client.to_owned(),
            started_at: clock.now(),
            started: Instant::now(),
            rows: AtomicU64::new(0),
            progress: Mutex::new(Progress {
                state: QueryState::Planned,
                elapsed: None,
                error: None,
            }),
            cancel: CancellationToken::new(),
            scans: scope.records(),
        })
    }

    pub(crate) fn id(&self) -> &QueryId {
        &self.id
    }

    pub(crate) fn receipt(&self, engine: &Engine) -> Receipt {
        self.scans.receipt(self.id.as_str(), engine)
    }

    pub(crate) fn add_rows(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(crate) fn cancelled(&self) -> WaitForCancellationFutureOwned {
        self.cancel.clone().cancelled_owned()
    }

    pub(crate) fn start(&self) {
        self.progress.lock().state = QueryState::Running;
    }

    pub(crate) fn done(&self) {
        self.finish(QueryState::Done, None);
    }

    pub(crate) fn fail(&self, error: &Error) {
        let state = match error.code() {
            ErrorCode::Cancelled => QueryState::Cancelled,
            _ => QueryState::Failed,
        };
        self.finish(state, Some(error.to_string()));
    }

    /// Ends a query that nobody waits for any more.
    pub(crate) fn drop_unfinished(&self) {
        self.finish(QueryState::Cancelled, None);
    }

    /// The first end counts.
    fn finish(&self, state: QueryState, error: Option<String>) {
        let mut progress = self.progress.lock();
        if progress.elapsed.is_none() {
            *progress = Progress { state, elapsed: Some(self.started.elapsed()), error };
        }
    }

    pub(crate) fn info(&self, engine: &Engine) -> QueryInfo {
        let progress = self.progress.lock();
        QueryInfo {
            id: self.id.clone(),
            sql: self.sql.clone(),
            client: self.client.clone(),
            state: progress.state,
            started_at: self.started_at,
            elapsed: progress.elapsed.unwrap_or_else(|| self.started.elapsed()),
            rows: self.rows.load(Ordering::Relaxed),
            error: progress.error.clone(),
            receipt: self.receipt(engine),
        }
    }
}

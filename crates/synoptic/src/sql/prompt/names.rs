//! The names that Tab completes, fetched in the background.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::backend::{Backend, TableRef};

/// Tables whose columns are kept; beyond it all are forgotten and fetched again when asked for.
const MAX_DESCRIBED: usize = 1000;

/// A list of tables is fetched again after a statement when it is older than this.
const TABLES_TTL: Duration = Duration::from_secs(30);

/// How long Tab waits for columns that are being fetched.
const PATIENCE: Duration = Duration::from_millis(400);

/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that wait to be fetched; Tab asks again, so more are dropped.
const MAX_WAITING: usize = 16;

enum Fetch {
    Tables,
    Columns(TableRef),
}

/// What is known of tables and columns. Shared by the editor and the task that fetches.
pub(super) struct Names {
    known: Mutex<Known>,
    fetched: Condvar,
    requests: mpsc::Sender<Fetch>,
}

#[derive(Default)]
struct Known {
    tables: Arc<[TableRef]>,
    tables_at: Option<Instant>,
    /// Empty for a table that cannot be described.
    columns: HashMap<TableRef, Arc<[String]>>,
}

impl Names {
    /// No names yet, and the task that fetches them. Its first act is to list the tables.
    pub(super) fn new(backend: Arc<Backend>) -> (Arc<Self>, impl Future<Output = ()>) {
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let names = Arc::new(Self { known: Mutex::default(), fetched: Condvar::new(), requests });
        names.refresh();
        let load = fetch_all(Arc::clone(&names), backend, waiting);
        (names, load)
    }

    /// Has the tables listed again, unless the list is young.
    pub(super) fn refresh(&self) {
        let at = self.known.lock().tables_at;
        if at.is_none_or(|at| at.elapsed() > TABLES_TTL) {
            // A full queue is busy with what was asked before.
            let _ = self.requests.try_send(Fetch::Tables);
        }
    }

    /// The tables that are known.
    pub(super) fn tables(&self) -> Arc<[TableRef]> {
        Arc::clone(&self.known.lock().tables)
    }

    /// The columns of a table. Waits a moment when they are not known yet; blocks, so it is for
    /// the thread of the editor.
    pub(super) fn columns(&self, table: &TableRef) -> Arc<[String]> {
        let mut known = self.known.lock();
        if !known.columns.contains_key(table) {
            let _ = self.requests.try_send(Fetch::Columns(table.clone()));
            let not_yet = |known: &mut Known| !known.columns.contains_key(table);
            self.fetched.wait_while_for(&mut known, not_yet, PATIENCE);
        }
        known.columns.get(table).cloned().unwrap_or_default()
    }

    fn learn(&self, learn: impl FnOnce(&mut Known)) {
        learn(&mut self.known.lock());
        self.fetched.notify_all();
    }
}

async fn fetch_all(names: Arc<Names>, backend: Arc<Backend>, mut requests: mpsc::Receiver<Fetch>) {
    while let Some(request) = requests.recv().await {
        match request {
            Fetch::Tables => {
                let tables = tokio::time::timeout(FETCH_TIMEOUT, backend.tables()).await;
                // A server that does not answer leaves the names that were known.
                if let Ok(Ok(tables)) = tables {
                    names.learn(|known| {
                        known.tables = tables.into();
                        known.tables_at = Some(Instant::now());
                        known.columns.clear();
                    });
                }
            }
            Fetch::Columns(table) => {
                if names.known.lock().columns.contains_key(&table) {
                    continue;
                }
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, backend.columns(&table)).await;
                let columns = fetched.ok().and_then(Result::ok).unwrap_or_default();
                names.learn(|known| {
                    if known.columns.len() >= MAX_DESCRIBED {
                        known.columns.clear();
                    }
                    known.columns.insert(table, columns.into());
                });
            }
        }
    }
}

//! A statement's snapshot: a thread with a read transaction, from `pin` or its first scan's first
//! poll until its last holder is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use synoptic_source::{CopyPosition, ErrorKind, Pinned, Result, Snapshot, SourceError, Statement};
use synoptic_types::{Position, SourceName};
use tokio::sync::{OnceCell, Semaphore, oneshot};

use super::connection::Connections;
use super::options::Options;
use super::worker::{self, Answer, Command, Plan, Progress, Scan};

/// What all statements on a source share.
#[derive(Debug)]
pub(super) struct Shared {
    pub name: SourceName,
    pub options: Options,
    pub connections: Arc<Connections>,
    /// One permit for each statement that reads.
    pub permits: Arc<Semaphore>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct SqliteSnapshot {
    shared: Arc<Shared>,
    statement: Arc<Statement>,
    begun: OnceCell<Begun>,
    stop: Arc<AtomicBool>,
    scans: AtomicU64,
}

/// A thread that has begun to read.
#[derive(Debug)]
struct Begun {
    commands: mpsc::Sender<Command>,
    /// The state it reads.
    position: Position,
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn pin(&self) -> Result<Pinned> {
        let start = self.begun.get_or_try_init(|| self.start());
        let begun = match self.statement.deadline {
            None => start.await,
            Some(deadline) => {
                let end = tokio::time::Instant::from_std(deadline.instant());
                tokio::time::timeout_at(end, start).await.unwrap_or_else(|_elapsed| {
                    let message = "the statement's time ran out while it waited for SQLite";
                    Err(SourceError::new(ErrorKind::Timeout, message))
                })
            }
        };
        let begun = begun.map_err(|error| error.in_source(&self.shared.name))?;
        let at = CopyPosition::at(begun.position.clone());
        Ok(Pinned { before: at.clone(), after: at, confirmed: false })
    }
}

impl Drop for SqliteSnapshot {
    fn drop(&mut self) {
        // The thread may be deep in a step; with the sender gone it then finds nothing to do.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl SqliteSnapshot {
    pub fn new(shared: &Arc<Shared>, statement: &Arc<Statement>) -> Self {
        Self {
            shared: Arc::clone(shared),
            statement: Arc::clone(statement),
            begun: OnceCell::new(),
            stop: Arc::default(),
            scans: AtomicU64::new(0),
        }
    }

    /// Whether it belongs to the source that `shared` is of.
    pub fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// A new scan of `plan`; nothing happens before it is asked for a batch.
    pub fn scan(&self, plan: Arc<Plan>) -> Arc<Scan> {
        let id = self.scans.fetch_add(1, Ordering::Relaxed);
        Arc::new(Scan { id, plan, cancelled: AtomicBool::new(false) })
    }

    /// Asks for the next batch of `scan`; the first time, starts the thread.
    pub async fn next(&self, scan: &Arc<Scan>) -> Result<oneshot::Receiver<Answer>> {
        let begun = self.begun.get_or_try_init(|| self.start()).await?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Next { scan: Arc::clone(scan), reply };
        begun.commands.send(command).map_err(|_| thread_ended())?;
        Ok(answer)
    }

    /// Ends `scan`, also in the middle of a step.
    pub fn close(&self, scan: &Scan) {
        scan.cancelled.store(true, Ordering::Relaxed);
        if let Some(Begun { commands, .. }) = self.begun.get() {
            // With the thread gone there is nothing to close.
            let _ = commands.send(Command::Close { id: scan.id });
        }
    }

    async fn start(&self) -> Result<Begun> {
        let permit = self.permit().await?;
        let (sender, received) = mpsc::channel();
        let (ready, begun) = oneshot::channel();
        let connections = Arc::clone(&self.shared.connections);
        let progress = Progress::new(Arc::clone(&self.stop), self.statement.deadline);
        std::thread::Builder::new()
            .name(format!("sqlite {}", self.shared.name))
            .spawn(move || {
                worker::run(&connections, &progress, ready, &received);
                drop(permit);
            })
            .map_err(|error| {
                SourceError::new(ErrorKind::Unavailable, "no thread could be started")
                    .caused_by(error)
            })?;
        let position = begun.await.map_err(|_| thread_ended())??;
        Ok(Begun { commands: sender, position })
    }

    async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let wait = self.shared.options.acquire_timeout;
        let acquired = Arc::clone(&self.shared.permits).acquire_owned();
        match tokio::time::timeout(wait, acquired).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(SourceError::internal("the source's permits are gone")),
            Err(_elapsed) => Err(busy(self.shared.options.max_connections, wait)),
        }
    }
}

fn busy(max_connections: usize, waited: Duration) -> SourceError {
    let waited = synoptic_types::format_duration(waited);
    SourceError::new(
        ErrorKind::Unavailable,
        format!(
            "all {max_connections} connections stayed in use for {waited}; \
             try again, or raise max_connections or acquire_timeout"
        ),
    )
}

pub(super) fn thread_ended() -> SourceError {
    SourceError::internal("the statement's thread ended unexpectedly")
}

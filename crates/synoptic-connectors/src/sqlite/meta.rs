//! Questions about the database, away from the async threads.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _};
use synoptic_source::{ErrorKind, Result, SourceError};
use synoptic_types::Position;
use tokio::sync::{mpsc, oneshot};

use super::connection::{Connections, Open};

/// Questions that wait for their turn; whoever asks more waits to ask.
const QUEUE: usize = 32;

type Job = Box<dyn FnOnce() + Send>;

/// One thread that answers questions one after the other. It starts with the first question and
/// ends when this is dropped.
#[derive(Debug)]
pub(super) struct Meta {
    connections: Arc<Connections>,
    thread_name: String,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Meta {
    pub fn new(connections: Arc<Connections>, thread_name: String) -> Self {
        Self { connections, thread_name, queue: Mutex::new(None) }
    }

    /// Asks `question` in a read transaction of its own.
    pub async fn ask<T, F>(&self, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run(move |connections| run(connections, |open| question(&open.connection))).await
    }

    /// Which state the database is in.
    pub async fn position(&self) -> Result<Position> {
        let look = |open: &Open| {
            // Takes the lock under which a file with a rollback journal stays as it is.
            let first = "SELECT 1 FROM main.sqlite_schema LIMIT 1";
            open.connection.query_row(first, [], |_| Ok(())).optional()?;
            Ok(open.look().position())
        };
        self.run(move |connections| run(connections, look)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connections) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let connections = Arc::clone(&self.connections);
        let job = Box::new(move || {
            // Nobody may be waiting any more.
            let _ = reply.send(work(&connections));
        });
        let queue = self.queue()?;
        queue.send(job).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    fn queue(&self) -> Result<mpsc::Sender<Job>> {
        let mut queue = self.queue.lock();
        if let Some(sender) = &*queue
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        let (sender, mut receiver) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new()
            .name(self.thread_name.clone())
            .spawn(move || {
                while let Some(job) = receiver.blocking_recv() {
                    job();
                }
            })
            .map_err(|error| {
                SourceError::new(ErrorKind::Unavailable, "no thread could be started")
                    .caused_by(error)
            })?;
        *queue = Some(sender.clone());
        Ok(sender)
    }
}

fn run<T>(
    connections: &Connections,
    question: impl FnOnce(&Open) -> rusqlite::Result<T>,
) -> Result<T> {
    let open = connections.acquire()?;
    let answer = open.connection.execute_batch("BEGIN").and_then(|()| {
        let answer = question(&open);
        // Also after an error, so that the connection can be used again.
        let ended = open.connection.execute_batch("COMMIT");
        answer.and_then(|answer| ended.map(|()| answer))
    });
    connections.release(open);
    answer.map_err(|error| connections.error(error))
}

fn ended() -> SourceError {
    SourceError::internal("the thread that describes tables ended")
}

//! The logs of a source's Delta tables, and what is kept of them.
//!
//! Nothing here goes by age. That a version is still the latest is asked with one listing, from
//! that version on; what a version holds never changes, so it is kept, by what its commit is.

use std::fmt;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use object_store::path::Path;
use synoptic_source::{ErrorKind, Result, SourceError};
use synoptic_types::TableVersion;
use tokio::task::spawn_blocking;

use super::super::location::Location;
use super::actions::{self, Action};
use super::log::{self, Log};
use super::replay::{Replay, State};
use super::time::Times;

/// Files of a log that are read at the same time.
const CONCURRENT_FILES: usize = 16;
/// Tables whose latest version is remembered.
const MOST_TABLES: u64 = 10_000;
/// Data files in all the versions that are kept.
const MOST_FILES: u64 = 2_000_000;
/// A commit that is written while its log is listed can be missing between two that are there.
const LISTINGS: usize = 3;

/// A version in its table's folder, and what its commit is there.
type Key = (Path, u64, String);

/// See the module.
pub struct DeltaTables {
    location: Arc<Location>,
    latest: Cache<Path, (u64, String)>,
    states: Cache<Key, Arc<State>>,
    times: Times,
}

impl DeltaTables {
    /// Knows nothing yet.
    pub fn new(location: Arc<Location>) -> Self {
        let weigh = |_: &Key, state: &Arc<State>| {
            u32::try_from(state.listing.objects.len() + 1).unwrap_or(u32::MAX)
        };
        Self {
            latest: Cache::new(MOST_TABLES),
            states: Cache::builder().max_capacity(MOST_FILES).weigher(weigh).build(),
            times: Times::default(),
            location,
        }
    }

    /// Whether a table was read before. It says where to look first, and nothing else.
    pub fn any_known(&self) -> bool {
        self.latest.iter().next().is_some()
    }

    /// The table in the folder `table` as it is now; `None` when there is no log.
    ///
    /// # Errors
    /// When the store does not answer, the log is corrupt, or the table needs what is not
    /// supported.
    pub async fn latest(&self, table: &Path) -> Result<Option<Arc<State>>> {
        if let Some((known, identity)) = self.latest.get(table)
            && let Some(state) = self.states.get(&(table.clone(), known, identity.clone()))
        {
            let log = log::list(&self.location, table, known).await?;
            let same = log.identity(known).is_some_and(|now| now == identity);
            let last = log.commits.last_key_value().map_or(known, |(last, _)| *last);
            let all_there = (known..=last).all(|at| log.commits.contains_key(&at));
            if same && last == known {
                return Ok(Some(state));
            }
            if same && all_there && log.latest() == Some(last) {
                let later = log.commits.range(known + 1..);
                let later = later.map(|(version, meta)| (*version, meta)).collect();
                let state = self.replayed(table, &log, Replay::from(&state), later, last).await?;
                return Ok(Some(state));
            }
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let log = self.log_of_latest(table).await?;
            let Some(latest) = log.latest() else { return Ok(None) };
            match log.made_of(latest) {
                Ok(_) => return self.state(table, &log, latest).await.map(Some),
                Err(_) if attempts < LISTINGS => {}
                Err(missing) => return Err(log.lacks(missing)),
            }
        }
    }

    /// The latest version and what its commit is, from the log's listing alone.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn head(&self, table: &Path) -> Result<Option<(u64, String)>> {
        let log = self.log_of_latest(table).await?;
        Ok(log.latest().and_then(|latest| Some((latest, log.identity(latest)?))))
    }

    /// An earlier state of the table in the folder `table`.
    ///
    /// # Errors
    /// As for the latest, and when there is or was no such version, or it is gone.
    pub async fn as_of(&self, table: &Path, wanted: TableVersion) -> Result<Arc<State>> {
        let log = log::list(&self.location, table, 0).await?;
        let Some(latest) = log.latest() else {
            return Err(SourceError::new(ErrorKind::Changed, "has no Delta log any more"));
        };
        let version = match wanted {
            TableVersion::Number(version) => version,
            TableVersion::At(moment) => self.times.version_at(&self.location, &log, moment).await?,
        };
        if version > latest {
            return Err(SourceError::new(
                ErrorKind::OutOfRange,
                format!("it has no version {version}: its latest is {latest}"),
            ));
        }
        match log.made_of(version) {
            Ok(_) => self.state(table, &log, version).await,
            Err(missing) => match log.oldest() {
                Some(oldest) if oldest > version => Err(SourceError::new(
                    ErrorKind::OutOfRange,
                    format!(
                        "its version {version} is gone from the log: the oldest that can be read \
                         is {oldest}"
                    ),
                )),
                _ => Err(log.lacks(missing)),
            },
        }
    }

    /// As much of the log as the latest version is made of.
    async fn log_of_latest(&self, table: &Path) -> Result<Log> {
        let location = &self.location;
        if let Some(checkpoint) = log::last_checkpoint(location, table).await? {
            let log = log::list(location, table, checkpoint).await?;
            if log.checkpoints.contains_key(&checkpoint) {
                return Ok(log);
            }
        }
        log::list(location, table, 0).await
    }

    /// A version that is in `log`.
    async fn state(&self, table: &Path, log: &Log, version: u64) -> Result<Arc<State>> {
        let (checkpoint, commits) = log.made_of(version).map_err(|missing| log.lacks(missing))?;
        if let Some(identity) = log.identity(version)
            && let Some(known) = self.states.get(&(table.clone(), version, identity.clone()))
        {
            self.note(table, log, version, identity);
            return Ok(known);
        }
        let mut replay = Replay::default();
        let parts = checkpoint.and_then(|at| log.checkpoints.get(&at)).into_iter().flatten();
        let parts = futures::stream::iter(parts.cloned())
            .map(|meta| async move {
                let bytes = log::read(&self.location, &meta).await?;
                let read = spawn_blocking(move || actions::of_checkpoint(bytes)).await;
                let read = read.unwrap_or_else(|error| Err(error.to_string()));
                read.map_err(|why| self.corrupt(&meta.location, &why))
            })
            .buffered(CONCURRENT_FILES);
        let parts: Vec<Vec<Action>> = parts.try_collect().await?;
        replay.apply(parts.into_iter().flatten().collect())?;
        self.replayed(table, log, replay, commits, version).await
    }

    /// `replay` after `commits`, which end at `version`.
    async fn replayed(
        &self,
        table: &Path,
        log: &Log,
        mut replay: Replay,
        commits: Vec<(u64, &object_store::ObjectMeta)>,
        version: u64,
    ) -> Result<Arc<State>> {
        let commits: Vec<_> = commits.into_iter().map(|(_, meta)| meta.clone()).collect();
        let mut read = futures::stream::iter(commits)
            .map(|meta| async move {
                let bytes = log::read(&self.location, &meta).await?;
                actions::of_commit(&bytes).map_err(|why| self.corrupt(&meta.location, &why))
            })
            .buffered(CONCURRENT_FILES);
        while let Some(actions) = read.try_next().await? {
            replay.apply(actions)?;
        }
        let state = Arc::new(replay.finish(version, &self.location, table)?);
        if let Some(identity) = log.identity(version) {
            self.states.insert((table.clone(), version, identity.clone()), Arc::clone(&state));
            self.note(table, log, version, identity);
        }
        Ok(state)
    }

    /// Remembers where to begin the next listing, when `version` is the latest.
    fn note(&self, table: &Path, log: &Log, version: u64, identity: String) {
        if log.latest() == Some(version) {
            self.latest.insert(table.clone(), (version, identity));
        }
    }

    fn corrupt(&self, path: &Path, why: &str) -> SourceError {
        super::super::error::data(&self.location.relative(path), self.location.say(why))
    }
}

impl fmt::Debug for DeltaTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeltaTables")
            .field("tables", &self.latest.entry_count())
            .finish_non_exhaustive()
    }
}

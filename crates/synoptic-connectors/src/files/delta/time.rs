//! Which version was in force at a moment.
//!
//! A commit has a time: the one it was given while it was committed, when the table keeps those;
//! else the one its writer noted; else that of the file. Only the first is sure to rise, so a time
//! that does not is taken to be a millisecond after the one before, as all readers of Delta do.

use chrono::{DateTime, SecondsFormat, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use object_store::ObjectMeta;
use object_store::path::Path;
use serde_json::Value;
use synoptic_source::{ErrorKind, Result, SourceError};

use super::super::error;
use super::super::layout::identity;
use super::super::location::Location;
use super::actions;
use super::log::{self, Log};

/// Commits that are read at the same time.
const CONCURRENT_COMMITS: usize = 16;
/// Times of commits that are kept.
const MOST_TIMES: u64 = 100_000;

/// The times of commits, in milliseconds since 1970.
pub struct Times(Cache<(Path, String), i64>);

impl Default for Times {
    fn default() -> Self {
        Self(Cache::new(MOST_TIMES))
    }
}

impl Times {
    /// The last version that was there at `moment`.
    ///
    /// # Errors
    /// When the moment is before the first version, or before the first of which the log still
    /// knows the time.
    pub async fn version_at(
        &self,
        location: &Location,
        log: &Log,
        moment: DateTime<Utc>,
    ) -> Result<u64> {
        let noted: Vec<(u64, i64)> = futures::stream::iter(log.commits.clone())
            .map(|(version, meta)| async move {
                Ok::<_, SourceError>((version, self.of(location, &meta).await?))
            })
            .buffered(CONCURRENT_COMMITS)
            .try_collect()
            .await?;
        let rising = rising(noted);
        let at = |millis: i64| DateTime::from_timestamp_millis(millis).unwrap_or_default();
        let last = rising.iter().take_while(|(_, millis)| at(*millis) <= moment).last();
        if let Some((version, _)) = last {
            return Ok(*version);
        }
        let message = match rising.first() {
            Some((0, first)) => format!("its first version is of {}", shown(at(*first))),
            Some((version, first)) => format!(
                "the oldest version of which its log knows the time, {version}, is of {}",
                shown(at(*first))
            ),
            None => {
                "its log has a checkpoint and no commits, which alone tell their time".to_owned()
            }
        };
        let moment = shown(moment);
        let message = format!("it cannot be read as of {moment}: {message}");
        Err(SourceError::new(ErrorKind::OutOfRange, message))
    }

    async fn of(&self, location: &Location, meta: &ObjectMeta) -> Result<i64> {
        let key = (meta.location.clone(), identity(meta));
        if let Some(known) = self.0.get(&key) {
            return Ok(known);
        }
        let bytes = log::read(location, meta).await?;
        let actions = actions::of_commit(&bytes)
            .map_err(|why| error::data(&location.relative(&meta.location), why))?;
        let infos: Vec<Value> =
            actions.into_iter().filter_map(|action| action.commit_info).collect();
        let noted = |key: &str| infos.iter().find_map(|info| info.get(key).and_then(Value::as_i64));
        let millis = noted("inCommitTimestamp")
            .or_else(|| noted("timestamp"))
            .unwrap_or_else(|| meta.last_modified.timestamp_millis());
        self.0.insert(key, millis);
        Ok(millis)
    }
}

fn rising(mut times: Vec<(u64, i64)>) -> Vec<(u64, i64)> {
    let mut least = i64::MIN;
    for (_, time) in &mut times {
        *time = (*time).max(least);
        least = time.saturating_add(1);
    }
    times
}

fn shown(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn times_rise() {
        let times = vec![(0, 10), (1, 5), (2, 11), (3, 20), (4, 20)];
        assert_eq!(rising(times), [(0, 10), (1, 11), (2, 12), (3, 20), (4, 21)]);
    }
}

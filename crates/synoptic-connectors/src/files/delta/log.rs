//! Which files a log has: commits, one a version, and checkpoints, which hold all before them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt as _};
use serde::Deserialize;
use synoptic_source::{ErrorKind, Result, SourceError};

use super::super::error;
use super::super::layout::identity;
use super::super::location::Location;
use super::LOG;

/// A file of a log that is larger is refused, in bytes.
const LARGEST_FILE: u64 = 1 << 30;
/// Digits of a version in a file's name.
const DIGITS: usize = 20;

/// What a file of a log is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Commit,
    Checkpoint {
        part: u64,
        of: u64,
    },
    /// One of the second version, which we do not read.
    CheckpointOfVersion2,
}

/// The version of a checkpoint, if any, and the commits after it, each with its version.
pub type MadeOf<'a> = (Option<u64>, Vec<(u64, &'a ObjectMeta)>);

/// The files of a log, or those from some version on.
#[derive(Debug, Default)]
pub struct Log {
    pub commits: BTreeMap<u64, ObjectMeta>,
    /// Whole ones, with their parts in order.
    pub checkpoints: BTreeMap<u64, Vec<ObjectMeta>>,
    checkpoints_of_version2: BTreeSet<u64>,
}

impl Log {
    /// The latest version; `None` when there is no log.
    pub fn latest(&self) -> Option<u64> {
        let commit = self.commits.last_key_value().map(|(version, _)| *version);
        let checkpoint = self.checkpoints.last_key_value().map(|(version, _)| *version);
        commit.max(checkpoint)
    }

    /// What tells this version from one of another table that was here.
    pub fn identity(&self, version: u64) -> Option<String> {
        let commit = self.commits.get(&version);
        let checkpoint = || self.checkpoints.get(&version)?.first();
        commit.or_else(checkpoint).map(identity)
    }

    /// From which files `version` is made: a checkpoint, and the commits after it.
    ///
    /// # Errors
    /// With the first commit that is missing.
    pub fn made_of(&self, version: u64) -> Result<MadeOf<'_>, u64> {
        let checkpoint = self.checkpoints.range(..=version).next_back().map(|(at, _)| *at);
        let first = checkpoint.map_or(0, |at| at.saturating_add(1));
        let commits = (first..=version).map(|at| match self.commits.get(&at) {
            Some(meta) => Ok((at, meta)),
            None => Err(at),
        });
        Ok((checkpoint, commits.collect::<Result<_, _>>()?))
    }

    /// The oldest version that can be made.
    pub fn oldest(&self) -> Option<u64> {
        let checkpoint = self.checkpoints.first_key_value().map(|(at, _)| *at);
        if self.commits.contains_key(&0) { Some(0) } else { checkpoint }
    }

    /// The error of a commit that is missing.
    pub fn lacks(&self, commit: u64) -> SourceError {
        match self.checkpoints_of_version2.range(commit..).next() {
            Some(at) => SourceError::new(
                ErrorKind::Unsupported,
                format!(
                    "the Delta table has a checkpoint of version 2 at {at} and no other: the \
                     feature v2Checkpoint is not supported"
                ),
            ),
            None => SourceError::data(format!(
                "the log of the Delta table lacks the commit {commit} ({})",
                file_name(commit)
            )),
        }
    }

    fn of(listed: impl Iterator<Item = (String, ObjectMeta)>) -> Self {
        let mut log = Self::default();
        let mut parts: BTreeMap<(u64, u64), BTreeMap<u64, ObjectMeta>> = BTreeMap::new();
        for (name, meta) in listed {
            match kind(&name) {
                Some((version, Kind::Commit)) => {
                    log.commits.insert(version, meta);
                }
                Some((version, Kind::Checkpoint { part, of })) => {
                    parts.entry((version, of)).or_default().insert(part, meta);
                }
                Some((version, Kind::CheckpointOfVersion2)) => {
                    log.checkpoints_of_version2.insert(version);
                }
                None => {}
            }
        }
        for ((version, of), parts) in parts {
            // A writer that died leaves some parts.
            if parts.keys().copied().eq(1..=of) {
                log.checkpoints.entry(version).or_insert(parts.into_values().collect());
            }
        }
        log
    }
}

fn file_name(commit: u64) -> String {
    format!("{commit:0DIGITS$}.json")
}

fn kind(name: &str) -> Option<(u64, Kind)> {
    let (digits, rest) = name.split_at_checked(DIGITS)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let version = digits.parse().ok()?;
    let parts: Vec<&str> = rest.strip_prefix('.')?.split('.').collect();
    let kind = match parts.as_slice() {
        ["json"] => Kind::Commit,
        ["checkpoint", "parquet"] => Kind::Checkpoint { part: 1, of: 1 },
        ["checkpoint", part, of, "parquet"] => {
            Kind::Checkpoint { part: part.parse().ok()?, of: of.parse().ok()? }
        }
        ["checkpoint", _, "parquet" | "json"] => Kind::CheckpointOfVersion2,
        _ => return None,
    };
    Some((version, kind))
}

/// The folder of the log of the table at `table`.
pub fn folder(table: &Path) -> Path {
    table.clone().join(LOG)
}

/// The files of the log from version `from` on.
pub async fn list(location: &Location, table: &Path, from: u64) -> Result<Log> {
    let folder = folder(table);
    let failed = |e: &StoreError| error::store(e, "the log of the Delta table", location);
    let listed = if from == 0 {
        location.store.list(Some(&folder))
    } else {
        // Before every file of the version itself.
        let offset = folder.clone().join(format!("{from:0DIGITS$}"));
        location.store.list_with_offset(Some(&folder), &offset)
    };
    let listed: Vec<ObjectMeta> = listed.try_collect().await.map_err(|e| failed(&e))?;
    let direct = listed.into_iter().filter_map(|meta| {
        let mut parts = meta.location.prefix_match(&folder)?;
        let name = parts.next()?.as_ref().to_owned();
        let nested = parts.next().is_some();
        drop(parts);
        (!nested).then_some((name, meta))
    });
    Ok(Log::of(direct))
}

/// The version of the last checkpoint, as far as the log's own note of it knows. It is a hint: the
/// note may be missing or old.
pub async fn last_checkpoint(location: &Location, table: &Path) -> Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Note {
        version: u64,
    }
    let path = folder(table).join("_last_checkpoint");
    let got = match location.store.get(&path).await {
        Ok(got) if got.meta.size <= LARGEST_FILE => got.bytes().await,
        Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => Err(error),
    };
    let bytes = got.map_err(|e| error::store(&e, &location.relative(&path), location))?;
    Ok(serde_json::from_slice::<Note>(&bytes).ok().map(|note| note.version))
}

/// A whole file of the log.
pub async fn read(location: &Location, meta: &ObjectMeta) -> Result<Bytes> {
    let shown = location.relative(&meta.location);
    if meta.size > LARGEST_FILE {
        return Err(SourceError::new(
            ErrorKind::Unsupported,
            format!("file {shown} of a Delta table's log is too large to read"),
        ));
    }
    let got = match location.store.get(&meta.location).await {
        Ok(got) => got.bytes().await,
        Err(error) => Err(error),
    };
    got.map_err(|e| match e {
        StoreError::NotFound { .. } => error::changed(&shown, "was removed"),
        other => error::store(&other, &format!("file {shown}"), location),
    })
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn names_tell_what_a_file_is() {
        let of = |rest: &str| kind(&format!("00000000000000000012{rest}"));
        assert_eq!(of(".json"), Some((12, Kind::Commit)));
        assert_eq!(of(".checkpoint.parquet"), Some((12, Kind::Checkpoint { part: 1, of: 1 })));
        let part = ".checkpoint.0000000002.0000000003.parquet";
        assert_eq!(of(part), Some((12, Kind::Checkpoint { part: 2, of: 3 })));
        let second = ".checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json";
        assert_eq!(of(second), Some((12, Kind::CheckpointOfVersion2)));
        for other in [".crc", ".json.tmp", ".00000000000000000015.compacted.json", "", "é"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(kind("_last_checkpoint"), None);
        assert_eq!(kind("0000000000000000001é.json"), None);
    }
}

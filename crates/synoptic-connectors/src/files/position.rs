//! Which state the files are in.
//!
//! Files of their own are at a *version*: a digest of every path, size and ETag at the location.
//! What a statement has pinned is at that version when its tables, listed again after everything
//! was, are as they were pinned: an object that changes gets another ETag and never its old one
//! back, so they were so in between as well.
//!
//! An *export* of another source is at the position that its exporter wrote into the position
//! file after the data, and removed before it touched the data again. What lies between two looks
//! at the same file is of that one export.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt as _};
use serde::Deserialize;
use synoptic_source::{CopyPosition, Pinned, Result};
use synoptic_types::{Clock as _, Position, SystemClock};

use super::layout::{self, Listing, TableSpec, digest, identity};
use super::location::Location;
use crate::recent::is_recent;

/// With more objects there is no version: they are listed for every statement, and a store gives
/// so many with one request.
const MOST_OBJECTS: usize = 1000;
/// The same for files on this machine.
const MOST_FILES: usize = 10_000;
/// A position is a short text.
const MOST_BYTES: u64 = 4096;

/// How a source of files knows where it is.
#[derive(Debug)]
pub struct Positions {
    pub location: Arc<Location>,
    pub position_file: Option<Path>,
}

/// What the position file said at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    identity: String,
    /// The data holds at least this.
    position: Position,
    /// The data holds at most this.
    seen: Position,
}

/// The position file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Marked {
    position: String,
    /// When the exporter could not read at exactly `position`: where the source was afterwards.
    seen: Option<String>,
}

impl Positions {
    /// Where the files are now.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn now(&self) -> Result<CopyPosition> {
        if self.position_file.is_none() {
            return Ok(CopyPosition::at(self.version().await?));
        }
        let position = self.mark().await.map_or(Position::Unknown, |mark| mark.position);
        Ok(CopyPosition { follows: true, ..CopyPosition::at(position) })
    }

    /// What the position file says; `None` when there is none, or none that can be read.
    pub async fn mark(&self) -> Option<Mark> {
        let path = self.position_file.as_ref()?;
        match self.read(path).await {
            Ok(mark) => Some(mark),
            Err(why) => {
                let file = self.location.relative(path);
                tracing::debug!(location = %self.location, file, why, "no position");
                None
            }
        }
    }

    async fn read(&self, path: &Path) -> std::result::Result<Mark, String> {
        let say = |error: StoreError| match error {
            StoreError::NotFound { .. } => "the file is not there".to_owned(),
            error => self.location.say(error),
        };
        let got = self.location.store.get(path).await.map_err(say)?;
        if got.meta.size > MOST_BYTES {
            return Err(format!("it has more than {MOST_BYTES} bytes"));
        }
        let identity = format!("{} {}", identity(&got.meta), got.meta.last_modified);
        let bytes = got.bytes().await.map_err(say)?;
        let marked: Marked = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let read = |text: &str| text.parse::<Position>().map_err(|error| error.to_string());
        let position = read(&marked.position)?;
        let seen = match &marked.seen {
            Some(seen) => read(seen)?,
            None => position.clone(),
        };
        Ok(Mark { identity, position, seen })
    }

    /// Where a statement reads that has listed `listed`, all of it after it saw `mark`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn pinned(
        &self,
        mark: Option<&Mark>,
        listed: &[(&TableSpec, &Arc<Listing>)],
    ) -> Result<Pinned> {
        if self.position_file.is_some() {
            let mark = match mark {
                Some(mark) if self.mark().await.as_ref() == Some(mark) => Some(mark),
                _ => None,
            };
            let at = |place: fn(&Mark) -> &Position| CopyPosition {
                follows: true,
                ..CopyPosition::at(mark.map_or(Position::Unknown, |mark| place(mark).clone()))
            };
            let (before, after) = (at(|mark| &mark.position), at(|mark| &mark.seen));
            return Ok(Pinned { before, after, confirmed: false });
        }
        if listed.is_empty() {
            return Ok(Pinned::default());
        }
        let version = self.version().await?;
        let mut same = version != Position::Unknown;
        for (spec, listing) in listed {
            same = same
                && layout::objects(&self.location, spec)
                    .await?
                    .is_some_and(|now| now.digest() == listing.digest());
        }
        let position = if same { version } else { Position::Unknown };
        let at = CopyPosition::at(position);
        Ok(Pinned { before: at.clone(), after: at, confirmed: false })
    }

    /// The state of everything at the location.
    async fn version(&self) -> Result<Position> {
        let most = if self.location.local.is_some() { MOST_FILES } else { MOST_OBJECTS };
        let found = layout::everything(&self.location, most).await?;
        let Some(found) = found else { return Ok(Position::Unknown) };
        // On a disk the ETag is made of the time of change.
        let now = SystemClock.now();
        if self.location.local.is_some()
            && found.iter().any(|object| is_recent(object.last_modified, now))
        {
            return Ok(Position::Unknown);
        }
        Ok(Position::version(format!("files-{}", digest(found.iter()))))
    }
}

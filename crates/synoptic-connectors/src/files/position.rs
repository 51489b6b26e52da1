//! Which state the files are in.
//!
//! Files of their own are at a *version*: a digest of every path, size and ETag at the location.
//! What a statement has pinned is at that version when its tables, listed again after everything
//! was, are as they were pinned: an object that changes gets another ETag and never its old one
//! back, so they were so in between as well.
//!
//! A Delta table is at its version, which says everything: where there are any, the state of the
//! files is made of their versions and the objects of the other tables. Versions only rise, so a
//! table whose version is asked last and is the one that is read was so all the while.
//!
//! An *export* of another source is at the position that its exporter wrote into the position
//! file after the data, and removed before it touched the data again. What lies between two looks
//! at the same file is of that one export.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt as _};
use serde::Deserialize;
use synoptic_source::{CopyPosition, ErrorKind, Pinned, Result, SourceError};
use synoptic_types::{Clock as _, Position, SystemClock};

use super::delta::{DeltaTables, LOG, State};
use super::layout::{self, Listing, Place, TableSpec, digest, digest_of, identity};
use super::location::Location;
use super::options::Options;
use super::source::objects;
use crate::recent::is_recent;

/// With more objects there is no version: they are listed for every statement, and a store gives
/// so many with one request.
const MOST_OBJECTS: usize = 1000;
/// The same for files on this machine.
const MOST_FILES: usize = 10_000;
/// With more tables there is no version, where any of them is a Delta table.
const MOST_TABLES: usize = 200;
/// Tables that are looked at at the same time.
const CONCURRENT_TABLES: usize = 16;
/// A position is a short text.
const MOST_BYTES: u64 = 4096;

/// How a source of files knows where it is.
#[derive(Debug)]
pub struct Positions {
    pub options: Arc<Options>,
    pub deltas: Arc<DeltaTables>,
}

/// The state of all files, and of each Delta table by its name.
struct Everything {
    position: Position,
    deltas: BTreeMap<String, String>,
}

impl Everything {
    fn unknown() -> Self {
        Self { position: Position::Unknown, deltas: BTreeMap::new() }
    }
}

/// Everything at a location, and the objects of some of its tables.
type Found = (Option<Vec<ObjectMeta>>, Vec<Option<Listing>>);

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
    fn location(&self) -> &Arc<Location> {
        &self.options.location
    }

    /// Where the files are now.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn now(&self) -> Result<CopyPosition> {
        if self.options.position_file.is_none() {
            return Ok(CopyPosition::at(self.version(&[]).await?.0.position));
        }
        let position = self.mark().await.map_or(Position::Unknown, |mark| mark.position);
        Ok(CopyPosition { follows: true, ..CopyPosition::at(position) })
    }

    /// What the position file says; `None` when there is none, or none that can be read.
    pub async fn mark(&self) -> Option<Mark> {
        let path = self.options.position_file.as_ref()?;
        match self.read(path).await {
            Ok(mark) => Some(mark),
            Err(why) => {
                let file = self.location().relative(path);
                tracing::debug!(location = %self.location(), file, why, "no position");
                None
            }
        }
    }

    async fn read(&self, path: &Path) -> std::result::Result<Mark, String> {
        let say = |error: StoreError| match error {
            StoreError::NotFound { .. } => "the file is not there".to_owned(),
            error => self.location().say(error),
        };
        let (location, path) = (Arc::clone(self.location()), path.clone());
        let got = async move {
            let got = location.store.get(&path).await?;
            let meta = got.meta.clone();
            let short = meta.size <= MOST_BYTES;
            Ok((meta, if short { Some(got.bytes().await?) } else { None }))
        };
        let (meta, bytes) = self.location().ask(got).await.map_err(say)?;
        let bytes = bytes.ok_or_else(|| format!("it has more than {MOST_BYTES} bytes"))?;
        let identity = format!("{} {}", identity(&meta), meta.last_modified);
        let marked: Marked = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let read = |text: &str| text.parse::<Position>().map_err(|error| error.to_string());
        let position = read(&marked.position)?;
        let seen = match &marked.seen {
            Some(seen) => read(seen)?,
            None => position.clone(),
        };
        Ok(Mark { identity, position, seen })
    }

    /// Where a statement reads that has listed `listed` and found `states` of Delta tables (whether
    /// the present one is meant), all of it after it saw `mark`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn pinned(
        &self,
        mark: Option<&Mark>,
        listed: &[(&TableSpec, &Arc<Listing>)],
        states: &[(String, bool, Arc<State>)],
    ) -> Result<Pinned> {
        if self.options.position_file.is_some() {
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
        if listed.is_empty() && states.is_empty() {
            return Ok(Pinned::default());
        }
        let specs: Vec<TableSpec> = listed.iter().map(|(spec, _)| TableSpec::clone(spec)).collect();
        let (Everything { position: version, deltas }, now) = self.version(&specs).await?;
        let same = version != Position::Unknown
            && states.iter().all(|(table, present, state)| {
                !present || deltas.get(table).is_some_and(|now| *now == state.version.to_string())
            })
            && listed
                .iter()
                .zip(now)
                .all(|((_, listing), now)| now.is_some_and(|now| now.digest() == listing.digest()));
        let position = if same { version } else { Position::Unknown };
        let at = CopyPosition::at(position);
        Ok(Pinned { before: at.clone(), after: at, confirmed: false })
    }

    /// The state of everything at the location, and the objects of `tables` as they are afterwards;
    /// none when the state cannot be told.
    async fn version(&self, tables: &[TableSpec]) -> Result<(Everything, Vec<Option<Listing>>)> {
        // A source that had Delta tables has them still, most likely: their logs say enough.
        if (self.options.read.delta || self.deltas.any_known())
            && let Some(everything) = self.version_by_logs().await?
        {
            return Ok((everything, self.listed(None, tables).await?.1));
        }
        let (found, listed) = self.listed(Some(self.most()), tables).await?;
        let with_logs = found.as_ref().is_none_or(|found| {
            found.iter().any(|meta| meta.location.parts().any(|part| part.as_ref() == LOG))
        });
        if with_logs && let Some(everything) = self.version_by_logs().await? {
            return Ok((everything, self.listed(None, tables).await?.1));
        }
        let Some(found) = found else { return Ok((Everything::unknown(), Vec::new())) };
        let found = layout::visible(self.location(), found);
        if self.is_moving(found.iter()) {
            return Ok((Everything::unknown(), Vec::new()));
        }
        let position = Position::version(format!("files-{}", digest(found.iter())));
        Ok((Everything { position, deltas: BTreeMap::new() }, listed))
    }

    /// Everything at the location, unless it is more than `most`, and then the objects of `tables`;
    /// on a disk all of it in one go.
    async fn listed(&self, most: Option<usize>, tables: &[TableSpec]) -> Result<Found> {
        if most.is_none() && tables.is_empty() {
            return Ok((None, Vec::new()));
        }
        let (location, tables) = (Arc::clone(self.location()), tables.to_vec());
        let work = async move {
            let mut everything = None;
            if let Some(most) = most {
                everything = layout::everything(&location, most).await?;
                if everything.is_none() {
                    return Ok((None, Vec::new()));
                }
            }
            let mut listed = Vec::with_capacity(tables.len());
            for spec in &tables {
                listed.push(layout::objects(&location, spec).await?);
            }
            Ok((everything, listed))
        };
        self.location().ask(work).await
    }

    /// The state of everything where there are Delta tables; `None` where there are none.
    async fn version_by_logs(&self) -> Result<Option<Everything>> {
        let specs = self.specs().await?;
        match specs.iter().any(|spec| spec.delta.is_some()) {
            true => self.version_of_tables(specs).await.map(Some),
            false => Ok(None),
        }
    }

    async fn specs(&self) -> Result<Vec<TableSpec>> {
        let options = Arc::clone(&self.options);
        self.location().ask(async move { layout::specs(&options, None).await }).await
    }

    /// The same, as the tables have it.
    async fn version_of_tables(&self, specs: Vec<TableSpec>) -> Result<Everything> {
        if specs.len() > MOST_TABLES {
            return Ok(Everything::unknown());
        }
        let parts: Vec<Option<(String, String, bool)>> = futures::stream::iter(specs)
            .map(|spec| async move {
                let delta = spec.delta.is_some();
                Ok::<_, SourceError>(self.part(&spec).await?.map(|part| (spec.name, part, delta)))
            })
            .buffered(CONCURRENT_TABLES)
            .try_collect()
            .await?;
        let Some(mut parts) = parts.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(Everything::unknown());
        };
        parts.sort();
        let text = match parts.as_slice() {
            [(_, version, true)] => version.clone(),
            parts => format!("tables-{}", digest_of(&parts)),
        };
        let deltas = parts.into_iter().filter(|(_, _, delta)| *delta);
        Ok(Everything {
            position: Position::version(text),
            deltas: deltas.map(|(name, version, _)| (name, version)).collect(),
        })
    }

    /// The state of one table; `None` when nobody can tell.
    async fn part(&self, spec: &TableSpec) -> Result<Option<String>> {
        if let Some(folder) = &spec.delta {
            return match self.deltas.latest(folder).await {
                Ok(Some(state)) => Ok(Some(state.version.to_string())),
                Ok(None) => Ok(Some("none".to_owned())),
                // It cannot be read; it has a state all the same.
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Data) => {
                    let head = self.deltas.head(folder).await?;
                    Ok(head.map(|(version, identity)| format!("{version} {identity}")))
                }
                Err(error) => Err(error),
            };
        }
        if matches!(spec.place, Place::Clash(..)) {
            return Ok(None);
        }
        Ok(match objects(self.location(), spec).await {
            Ok(None) => Some("none".to_owned()),
            Ok(Some(listing)) => {
                let metas = || listing.objects.iter().map(|object| &object.meta);
                let known = listing.objects.len() <= self.most() && !self.is_moving(metas());
                known.then(|| listing.digest())
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => return Err(error),
        })
    }

    fn most(&self) -> usize {
        if self.location().local.is_some() { MOST_FILES } else { MOST_OBJECTS }
    }

    /// On a disk the ETag is made of the time of change, so a change right now may not show.
    fn is_moving<'a>(&self, mut objects: impl Iterator<Item = &'a ObjectMeta>) -> bool {
        let now = SystemClock.now();
        self.location().local.is_some()
            && objects.any(|object| is_recent(object.last_modified, now))
    }
}

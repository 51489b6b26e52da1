//! Which state a database file is in, as a text that differs whenever the data does.
//!
//! * With a rollback journal, the change counter in the file's header grows with every
//!   transaction. It is read while a connection of ours holds the shared lock, under which nobody
//!   writes.
//! * With a write-ahead log, the header of the wal-index (the `-shm` file) says which frames count:
//!   the log's random salts, its length and its running checksum. The counter in the file stays as
//!   it is. A reader takes its snapshot between two looks at that header; when both see the same,
//!   that is the snapshot.
//! * With an empty log that was never written, only the file's time of change tells its states
//!   apart, and only once it is old enough for the next change to get another time. Until then
//!   nothing is known.
//!
//! The number of the file and its time of change are part of the text, so a restored file is
//! another state.
//!
//! POSIX takes *all* of a process's locks off a file when the process closes *any* descriptor of
//! it, and SQLite holds such locks. So the files that are looked at here are kept open as long as
//! there is a connection to them in this process; see `HELD`.
//!
//! * <https://www.sqlite.org/fileformat2.html#the_database_header>
//! * <https://www.sqlite.org/walformat.html#the_wal_index_header>
//! * <https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>

use synoptic_types::Position;

use super::connection::FileId;

/// What a look at the files says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Exact while the looker's connection holds its shared lock.
    Locked(Position),
    /// What the next read transaction will see, unless somebody writes first.
    Passing(Position),
}

impl Look {
    /// The state.
    pub fn position(self) -> Position {
        match self {
            Self::Locked(position) | Self::Passing(position) => position,
        }
    }

    /// The state of a transaction that took its snapshot after `before` and before `self`; `None`
    /// when somebody wrote in between.
    pub fn since(&self, before: &Self) -> Option<Position> {
        match self {
            Self::Locked(position) => Some(position.clone()),
            Self::Passing(position) => (self == before).then(|| position.clone()),
        }
    }
}

#[cfg(unix)]
pub(super) use unix::Held;

/// Without file numbers a database cannot be told from its successor: nothing is known.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Held;

#[cfg(not(unix))]
impl Held {
    pub fn of(_path: &std::path::Path, _file: FileId) -> Option<Self> {
        None
    }

    pub fn look(&self) -> Look {
        Look::Passing(Position::Unknown)
    }
}

#[cfg(unix)]
mod unix {
    use std::collections::HashMap;
    use std::fs::File;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, LazyLock};

    use chrono::{DateTime, Utc};
    use parking_lot::Mutex;
    use synoptic_types::{Clock as _, Position, SystemClock};

    use super::{FileId, Look};
    use crate::recent::is_recent;

    /// The files of every database that has a connection in this process. They are opened and
    /// closed under the lock, and closed only when the last connection is.
    static HELD: LazyLock<Mutex<HashMap<FileId, Arc<Files>>>> = LazyLock::new(Mutex::default);

    const HEADER_BYTES: usize = 100;
    const MAGIC: &[u8] = b"SQLite format 3\0";
    /// The read version of a database with a write-ahead log.
    const WAL: u8 = 2;

    const INDEX_BYTES: usize = 48;
    const INDEX_VERSION: u32 = 3_007_000;
    /// A writer may be at it; it takes a few instructions.
    const INDEX_ATTEMPTS: usize = 16;

    /// The open files of one database.
    #[derive(Debug)]
    struct Files {
        file: FileId,
        database: File,
        /// The wal-index, whose place is next to the database that symbolic links lead to.
        index_path: PathBuf,
        index: Mutex<Option<(FileId, File)>>,
    }

    /// One connection's share in the files of its database. To be dropped after the connection.
    #[derive(Debug)]
    pub struct Held(Option<Arc<Files>>);

    impl Drop for Held {
        fn drop(&mut self) {
            let mut held = HELD.lock();
            let Some(files) = self.0.take() else { return };
            // The table's own share and this one.
            if Arc::strong_count(&files) == 2 {
                held.remove(&files.file);
            }
            drop(files);
        }
    }

    impl Held {
        /// The files of the database at `path`, which is `file`; `None` when they cannot be looked
        /// at. To be called before a connection is opened.
        pub fn of(path: &Path, file: FileId) -> Option<Self> {
            let mut held = HELD.lock();
            if let Some(files) = held.get(&file) {
                return Some(Self(Some(Arc::clone(files))));
            }
            let path = path.canonicalize().ok()?;
            let database = File::open(&path).ok()?;
            let opened = id(&database)?;
            if let Some(files) = held.get(&opened) {
                // Replaced meanwhile by one that has connections: closing it would take their
                // locks. Its other descriptor lives as long as they do, and this one with it.
                let files = Arc::clone(files);
                std::mem::forget(database);
                return (opened == file).then_some(Self(Some(files)));
            }
            let mut index_path = path.into_os_string();
            index_path.push("-shm");
            let index = Mutex::default();
            let index_path = PathBuf::from(index_path);
            let files = Arc::new(Files { file: opened, database, index_path, index });
            held.insert(opened, Arc::clone(&files));
            let held_files = Self(Some(files));
            drop(held);
            (opened == file).then_some(held_files)
        }

        /// The state now. The connection must hold a read transaction that has read, for a
        /// [`Look::Locked`] to be true.
        pub fn look(&self) -> Look {
            let unknown = Look::Passing(Position::Unknown);
            let Some(files) = &self.0 else { return unknown };
            let mut header = [0; HEADER_BYTES];
            if files.database.read_exact_at(&mut header, 0).is_err() || !header.starts_with(MAGIC) {
                return unknown;
            }
            let Ok(metadata) = files.database.metadata() else { return unknown };
            let FileId(device, inode) = files.file;
            let changed = (metadata.mtime(), metadata.mtime_nsec());
            // Change counter, schema cookie, pages.
            let [counter, cookie, pages] = [24, 40, 28].map(|at| big_endian(&header, at));
            let whole = format!(
                "{device:x}.{inode:x}.{counter:x}.{cookie:x}.{pages:x}.{:x}.{:x}",
                changed.0, changed.1
            );
            if header[19] != WAL {
                return Look::Locked(Position::version(format!("sqlite-{whole}")));
            }
            let Some(index) = files.index() else { return unknown };
            if index.frames > 0 || index.salts != [0, 0] {
                return Look::Passing(Position::version(format!(
                    "sqlite-wal-{device:x}.{inode:x}.{:08x}{:08x}.{:x}.{:08x}{:08x}",
                    index.salts[0], index.salts[1], index.frames, index.sums[0], index.sums[1]
                )));
            }
            let time = u32::try_from(changed.1)
                .ok()
                .and_then(|nanos| DateTime::<Utc>::from_timestamp(changed.0, nanos));
            match time {
                Some(time) if !is_recent(time, SystemClock.now()) => {
                    Look::Passing(Position::version(format!("sqlite-base-{whole}")))
                }
                _ => unknown,
            }
        }
    }

    /// What counts of the write-ahead log.
    struct Index {
        frames: u32,
        sums: [u32; 2],
        salts: [u32; 2],
    }

    impl Files {
        fn index(&self) -> Option<Index> {
            let mut open = self.index.lock();
            let now = std::fs::metadata(&self.index_path).ok()?;
            let now = FileId(now.dev(), now.ino());
            // One that was deleted has no connection, so nobody's locks go with it.
            if open.as_ref().is_none_or(|(known, _)| *known != now) {
                let file = File::open(&self.index_path).ok()?;
                *open = Some((id(&file)?, file));
            }
            let (_, file) = open.as_ref()?;
            for _ in 0..INDEX_ATTEMPTS {
                let mut copies = [0; 2 * INDEX_BYTES];
                file.read_exact_at(&mut copies, 0).ok()?;
                let (first, second) = copies.split_at(INDEX_BYTES);
                if first == second {
                    let number = |at: usize| native_endian(first, at);
                    // Made, and by a version whose layout this is.
                    let good = number(0) == INDEX_VERSION && first[12] == 1;
                    return good.then(|| Index {
                        frames: number(16),
                        sums: [number(24), number(28)],
                        salts: [number(32), number(36)],
                    });
                }
                std::thread::yield_now();
            }
            None
        }
    }

    fn id(file: &File) -> Option<FileId> {
        file.metadata().ok().map(|metadata| FileId(metadata.dev(), metadata.ino()))
    }

    fn word(bytes: &[u8], at: usize) -> [u8; 4] {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        word
    }

    fn big_endian(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(word(bytes, at))
    }

    fn native_endian(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(word(bytes, at))
    }
}

//! Connections: read only, hardened, kept for the next statement while the file is the same.

use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OpenFlags};
use synoptic_source::{ErrorKind, Result, SourceError};
use synoptic_types::Position;

use super::check::Verified;
use super::error::convert;
use super::options::Options;
use super::version::{Held, Look};

/// A function of our connections: whether a text is valid UTF-8.
pub(super) const IS_UTF8: &str = "synoptic_is_utf8";

/// How often a file may be replaced while it is opened.
const OPEN_ATTEMPTS: usize = 5;

/// Which file a path leads to: a database that was replaced is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId(pub u64, pub u64);

/// An open connection and the file it was opened on.
#[derive(Debug)]
pub(super) struct Open {
    pub connection: Connection,
    /// The columns whose values all fit, as far as this connection knows.
    pub verified: Verified,
    file: FileId,
    /// After the connection, whose locks would go with it.
    held: Option<Held>,
}

impl Open {
    /// Which state the database is in; see [`Held::look`].
    pub fn look(&self) -> Look {
        self.held.as_ref().map_or(Look::Passing(Position::Unknown), Held::look)
    }
}

/// Opens connections and keeps idle ones, at most as many as statements may run.
#[derive(Debug)]
pub(super) struct Connections {
    path: PathBuf,
    busy_timeout: Duration,
    most_idle: usize,
    idle: Mutex<Vec<Open>>,
}

impl Connections {
    pub fn new(options: &Options) -> Self {
        Self {
            path: options.path.clone(),
            busy_timeout: options.busy_timeout,
            most_idle: options.max_connections,
            idle: Mutex::default(),
        }
    }

    /// A connection to the file that the path leads to now. Blocks.
    pub fn acquire(&self) -> Result<Open> {
        let file = self.identify()?;
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(open) if open.file == file => return Ok(open),
                Some(replaced) => drop(replaced),
                None => break,
            }
        }
        self.opened(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// A connection of its own that may write. Blocks.
    pub fn open_to_write(&self) -> Result<Open> {
        self.opened(self.identify()?, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn opened(&self, mut file: FileId, access: OpenFlags) -> Result<Open> {
        for _ in 0..OPEN_ATTEMPTS {
            let held = Held::of(&self.path, file);
            let connection = self.open(access).map_err(|error| convert(error, &self.path))?;
            // The path may lead to another file than a moment ago.
            let now = self.identify()?;
            if now == file {
                return Ok(Open { connection, verified: Verified::default(), file, held });
            }
            file = now;
        }
        let path = self.path.display();
        let message = format!("{path} is replaced again and again; try again");
        Err(SourceError::new(ErrorKind::Unavailable, message))
    }

    /// Keeps a connection for the next statement. It must be outside of a transaction.
    pub fn release(&self, open: Open) {
        let mut idle = self.idle.lock();
        if idle.len() < self.most_idle && open.connection.is_autocommit() {
            idle.push(open);
        }
    }

    /// An SQLite error with the path in it.
    pub fn error(&self, error: rusqlite::Error) -> SourceError {
        convert(error, &self.path)
    }

    fn identify(&self) -> Result<FileId> {
        let path = self.path.display();
        let metadata = std::fs::metadata(&self.path).map_err(|error| {
            let message = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("there is no file {path}; correct the option 'path'")
                }
                std::io::ErrorKind::PermissionDenied => format!("{path} may not be read"),
                _ => format!("{path} cannot be reached: {error}"),
            };
            let kind = match error.kind() {
                std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            };
            SourceError::new(kind, message).caused_by(error)
        })?;
        if metadata.is_dir() {
            return Err(SourceError::new(
                ErrorKind::Unavailable,
                format!("{path} is a folder, not a database file; correct the option 'path'"),
            ));
        }
        Ok(file_id(&metadata))
    }

    fn open(&self, access: OpenFlags) -> rusqlite::Result<Connection> {
        // Without SQLITE_OPEN_URI no character of a path has a meaning of its own.
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(self.busy_timeout)?;
        // A database may come from anywhere: its views cannot call functions with side effects.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        // Texts are not looked at by SQLite; views may not call it.
        let flags = FunctionFlags::SQLITE_UTF8
            | FunctionFlags::SQLITE_DETERMINISTIC
            | FunctionFlags::SQLITE_DIRECTONLY;
        connection.create_scalar_function(IS_UTF8, 1, flags, |context| {
            Ok(context.get_raw(0).as_bytes().is_ok_and(|bytes| std::str::from_utf8(bytes).is_ok()))
        })?;
        Ok(connection)
    }
}

#[cfg(unix)]
fn file_id(metadata: &std::fs::Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt as _;
    FileId(metadata.dev(), metadata.ino())
}

/// Where files have no number, a connection is never taken for another file's.
#[cfg(not(unix))]
fn file_id(_metadata: &std::fs::Metadata) -> FileId {
    FileId(0, 0)
}

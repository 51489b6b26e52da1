//! From what a store or a reader says to what a person can use.

use std::error::Error as StdError;
use std::io;

use datafusion::error::DataFusionError;
use object_store::Error as StoreError;
use synoptic_source::{ErrorKind, SourceError};

use super::location::Location;

/// An error of a request about `object`, which a statement has pinned.
pub fn pinned(error: &StoreError, object: &str, location: &Location) -> SourceError {
    match error {
        StoreError::NotFound { .. } => changed(object, "was removed"),
        StoreError::Precondition { .. } => changed(object, "was replaced"),
        other => store(other, &format!("file {object}"), location),
    }
}

/// An error of a request about `what`.
pub fn store(error: &StoreError, what: &str, location: &Location) -> SourceError {
    let (kind, message) = match error {
        StoreError::NotFound { .. } => (ErrorKind::Unavailable, "does not exist".to_owned()),
        StoreError::PermissionDenied { .. } => {
            (ErrorKind::PermissionDenied, "the store refuses the right to read it".to_owned())
        }
        StoreError::Unauthenticated { .. } => {
            (ErrorKind::PermissionDenied, "the store refuses the credentials".to_owned())
        }
        other if io_kind(other) == Some(io::ErrorKind::PermissionDenied) => {
            (ErrorKind::PermissionDenied, "no right to read it".to_owned())
        }
        other => (ErrorKind::Unavailable, location.say(other)),
    };
    SourceError::new(kind, format!("{what} at {location}: {message}"))
}

/// A pinned object that is not what it was.
pub fn changed(object: &str, happened: &str) -> SourceError {
    SourceError::new(
        ErrorKind::Changed,
        format!("file {object} {happened} while the statement ran; run the statement again"),
    )
}

/// A data file that belongs to a version of a table and is not there any more.
pub fn vacuumed(object: &str) -> SourceError {
    SourceError::new(
        ErrorKind::Changed,
        format!(
            "file {object} is gone, which belongs to the version that is read: the table was \
             vacuumed since; read a later version"
        ),
    )
}

/// An error of a reader about the content of `object`.
pub fn content(error: &DataFusionError, object: &str, location: &Location) -> SourceError {
    match error.find_root() {
        DataFusionError::ObjectStore(error) => pinned(error, object, location),
        DataFusionError::ResourcesExhausted(text) => {
            SourceError::new(ErrorKind::Unavailable, format!("file {object}: {text}"))
        }
        root => data(object, location.say(root)),
    }
}

/// A value that does not fit, or bytes that are not what they claim to be.
pub fn data(object: &str, message: impl AsRef<str>) -> SourceError {
    /// Enough to find the place; a reader may quote a whole row.
    const LONGEST: usize = 400;
    let message = message.as_ref();
    let message = match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    };
    SourceError::data(format!("file {object}: {message}"))
}

fn io_kind(error: &StoreError) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

//! SQLite's errors as ours.

use std::path::Path;

use rusqlite::ffi::ErrorCode;
use synoptic_source::{ErrorKind, SourceError};

/// An error of SQLite while it worked on the database at `path`.
pub(super) fn convert(error: rusqlite::Error, path: &Path) -> SourceError {
    let path = path.display();
    let text = message(&error);
    let Some(code) = error.sqlite_error_code() else {
        return SourceError::internal(format!("SQLite's library refused a call: {text}"))
            .caused_by(error);
    };
    let (kind, message) = match code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => (
            ErrorKind::Unavailable,
            format!("{path} stayed locked by a writer beyond busy_timeout; try again or raise it"),
        ),
        ErrorCode::CannotOpen => {
            (ErrorKind::Unavailable, format!("{path} cannot be opened: {text}"))
        }
        ErrorCode::SystemIoFailure | ErrorCode::DiskFull => {
            (ErrorKind::Unavailable, format!("{path} cannot be read: {text}"))
        }
        ErrorCode::NotADatabase => {
            (ErrorKind::Data, format!("{path} is not a SQLite database, or it is encrypted"))
        }
        ErrorCode::DatabaseCorrupt => (ErrorKind::Data, format!("{path} is corrupt: {text}")),
        ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied
        | ErrorCode::ReadOnly => {
            (ErrorKind::PermissionDenied, format!("{path} may not be used in this way: {text}"))
        }
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => {
            (ErrorKind::Data, format!("a row breaks a rule of the table: {text}"))
        }
        ErrorCode::SchemaChanged => (
            ErrorKind::Changed,
            format!("the schema of {path} changed meanwhile; run the statement again"),
        ),
        ErrorCode::OperationInterrupted => {
            (ErrorKind::Cancelled, "the scan was cancelled".to_owned())
        }
        ErrorCode::TooBig => {
            (ErrorKind::Data, format!("a value exceeds SQLite's own limit: {text}"))
        }
        ErrorCode::Unknown if text == "integer overflow" => (
            ErrorKind::Data,
            "a sum of integers exceeds 64 bits; add them up as DECIMAL(38, 0)".to_owned(),
        ),
        // What remains is an error in a statement. Ours are made from the description of the
        // table, so it is a view or a virtual table that does not work.
        ErrorCode::Unknown => (ErrorKind::Data, format!("SQLite cannot run the scan: {text}")),
        _ => (ErrorKind::Internal, format!("SQLite failed: {text}")),
    };
    SourceError::new(kind, message).caused_by(error)
}

/// What SQLite says, without the statement's text that rusqlite may add.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, None) => code.to_string(),
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

//! SQLSTATE → what the caller can do.

use std::error::Error as _;

use synoptic_source::{ErrorKind, SourceError};
use synoptic_types::Deadline;
use tokio_postgres::Error;

/// Maps an error of the server or of the way to it. `deadline` tells a timeout from a cancel.
pub(super) fn from_postgres(error: &Error, deadline: Option<Deadline>) -> SourceError {
    let Some(db) = error.as_db_error() else { return from_transport(error) };
    let code = db.code().code();
    let kind = match kind_of(code) {
        Some(kind) => kind,
        None if passed(deadline) || db.message().contains("timeout") => ErrorKind::Timeout,
        None => ErrorKind::Cancelled,
    };
    let mut message = format!("PostgreSQL says: {} (SQLSTATE {code})", db.message());
    for extra in [db.detail(), db.hint()].into_iter().flatten() {
        message.push_str("; ");
        message.push_str(extra);
    }
    if let Some(advice) = advice(code, kind) {
        message.push_str("; ");
        message.push_str(advice);
    }
    SourceError::new(kind, message)
}

fn passed(deadline: Option<Deadline>) -> bool {
    // The server's clock for statement_timeout starts a little earlier than ours ends.
    deadline.is_some_and(|deadline| deadline.remaining().as_millis() < 50)
}

/// `None` for `query_canceled`, which is a timeout or a cancel.
fn kind_of(code: &str) -> Option<ErrorKind> {
    let class = code.get(..2).unwrap_or_default();
    Some(match (class, code) {
        (_, "57014") => return None,
        ("28", _) | (_, "42501") => ErrorKind::PermissionDenied,
        (_, "42P01" | "42703" | "42804" | "3F000" | "42P02") => ErrorKind::Changed,
        (_, "55P03") => ErrorKind::Timeout,
        ("22" | "23" | "P0" | "38" | "39" | "55", _) | (_, "XX001" | "XX002") => ErrorKind::Data,
        ("0A" | "54", _) | (_, "25006" | "42809" | "42P10" | "428C9") => ErrorKind::Unsupported,
        // 40001 is also a standby's "conflict with recovery"; 3D000 is a database that is gone.
        ("08" | "40" | "53" | "57" | "58" | "3D" | "HV" | "XX" | "F0", _) | (_, "25P03") => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Internal,
    })
}

fn advice(code: &str, kind: ErrorKind) -> Option<&'static str> {
    match (code, kind) {
        ("28P01" | "28000", _) => Some("check the user and password in the source's url"),
        ("42501", _) => Some("grant the source's user SELECT on it (INSERT to write)"),
        (_, ErrorKind::Changed) => Some("it changed since the statement was planned: run it again"),
        ("40001", _) => Some("the server gave the statement up: run it again"),
        ("53300", _) => Some("lower max_connections, or raise it at the server"),
        ("55000", _) => Some("a materialized view is filled with REFRESH MATERIALIZED VIEW"),
        (_, ErrorKind::Timeout) => Some("raise synoptic.statement_timeout, or select less"),
        _ => None,
    }
}

fn from_transport(error: &Error) -> SourceError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = inner.source();
    }
    // tokio-postgres has no kinds to match on; these are the ones that are not about the network.
    let kind = match error.to_string().as_str() {
        "authentication error" | "invalid configuration" => ErrorKind::PermissionDenied,
        text if text.starts_with("error serializing")
            || text.starts_with("error deserializing") =>
        {
            ErrorKind::Internal
        }
        _ => ErrorKind::Unavailable,
    };
    SourceError::new(kind, message)
}

/// Whether the connection itself is gone, so that another one may do.
pub(super) fn is_lost(error: &Error) -> bool {
    match error.as_db_error() {
        Some(db) => {
            matches!(db.code().code().get(..2), Some("08"))
                || matches!(db.code().code(), "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
        }
        None => true,
    }
}

/// Whether the server closes the connection after this error.
pub(super) fn is_fatal(error: &Error) -> bool {
    match error.as_db_error() {
        Some(db) => {
            use tokio_postgres::error::Severity;
            matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
        }
        None => true,
    }
}

/// The statement ran past its deadline, by our clock.
pub(super) fn timed_out() -> SourceError {
    SourceError::new(
        ErrorKind::Timeout,
        "the statement ran past its time; raise synoptic.statement_timeout, or select less",
    )
}

//! What can go wrong at a source, sorted by what the caller does next.

use std::error::Error as StdError;

use synoptic_types::{ErrorCode, SourceName, TableName};
use thiserror::Error;

/// The result of every call on a source.
pub type Result<T, E = SourceError> = std::result::Result<T, E>;

/// What the caller can do about a [`SourceError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Not reachable, refused the connection, no free connection in time: another copy may answer.
    Unavailable,
    /// The source refused the credentials or the right to read.
    PermissionDenied,
    /// A table or column that was there when the statement was planned is gone or altered.
    Changed,
    /// A value does not fit its declared type, or the data is corrupt.
    Data,
    /// The connector cannot do this, and says what can.
    Unsupported,
    /// There is no such state of the table: too old, or not there yet.
    OutOfRange,
    /// The source's statement timeout, or ours, has passed.
    Timeout,
    /// The statement was cancelled.
    Cancelled,
    /// The source asked to be left alone for a while.
    RateLimited,
    /// A commit was sent and nobody can tell whether it happened. Never to be tried again blindly.
    OutcomeUnknown,
    /// A bug in the connector.
    Internal,
}

impl ErrorKind {
    /// The public code a client sees.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Unavailable => ErrorCode::SourceUnavailable,
            Self::PermissionDenied => ErrorCode::PermissionDenied,
            Self::Changed => ErrorCode::UnknownTable,
            Self::Data => ErrorCode::Data,
            Self::Unsupported => ErrorCode::Unsupported,
            Self::OutOfRange => ErrorCode::InvalidOption,
            Self::Timeout => ErrorCode::Timeout,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::RateLimited => ErrorCode::RateLimited,
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::Internal => ErrorCode::Internal,
        }
    }
}

/// An error with its place. `Display` is one sentence for a person:
/// `source 'portfolio', table public.positions, column qty: …`.
#[derive(Debug, Error)]
#[error("{}{message}", self.place())]
pub struct SourceError {
    kind: ErrorKind,
    message: String,
    source_name: Option<SourceName>,
    table: Option<TableName>,
    column: Option<String>,
    #[source]
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl SourceError {
    /// An error of `kind`; `message` says what happened and what to do, without secrets.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source_name: None,
            table: None,
            column: None,
            cause: None,
        }
    }

    /// A bug in the connector.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A value that does not fit its type.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// Names the source, unless it is named already.
    #[must_use]
    pub fn in_source(mut self, source: &SourceName) -> Self {
        self.source_name.get_or_insert_with(|| source.clone());
        self
    }

    /// Names the table, unless it is named already.
    #[must_use]
    pub fn in_table(mut self, table: &TableName) -> Self {
        self.table.get_or_insert_with(|| table.clone());
        self
    }

    /// Names the column, unless it is named already.
    #[must_use]
    pub fn in_column(mut self, column: impl Into<String>) -> Self {
        self.column.get_or_insert_with(|| column.into());
        self
    }

    /// Keeps the error this one came from. Its text is not shown, so put what matters in the
    /// message, without secrets.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The source, when known.
    pub fn source_name(&self) -> Option<&SourceName> {
        self.source_name.as_ref()
    }

    fn place(&self) -> String {
        let mut places = Vec::new();
        if let Some(source) = &self.source_name {
            places.push(format!("source '{source}'"));
        }
        if let Some(table) = &self.table {
            places.push(format!("table {table}"));
        }
        if let Some(column) = &self.column {
            places.push(format!("column {column}"));
        }
        if places.is_empty() { String::new() } else { format!("{}: ", places.join(", ")) }
    }
}

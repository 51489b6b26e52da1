//! Errors as a client sees them: a code in brackets, a sentence with the place, what to do.

use std::fmt;

use datafusion::common::{DataFusionError, SchemaError};
use synoptic_source::SourceError;
use synoptic_types::{ErrorCode, OptionError};

/// The result of everything the engine does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its public code. `Display` starts with the code in brackets.
#[derive(Debug, Clone)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

impl Error {
    /// An error with a message for a person: what happened, where, what to do. No secrets.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The public code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The message without its code.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

impl From<OptionError> for Error {
    fn from(error: OptionError) -> Self {
        Self::new(ErrorCode::InvalidOption, error.to_string())
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        Self::new(error.kind().code(), error.to_string())
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    /// Sorts DataFusion's errors into public codes. Our own errors, which travelled through
    /// DataFusion as external ones, come out as they went in.
    fn from(error: DataFusionError) -> Self {
        if let Some(ours) = find_ours(&error) {
            return ours;
        }
        let root = error.find_root();
        let code = match root {
            DataFusionError::SQL(..) => ErrorCode::Syntax,
            DataFusionError::SchemaError(schema, _) => match **schema {
                SchemaError::FieldNotFound { .. } => ErrorCode::UnknownColumn,
                _ => ErrorCode::Syntax,
            },
            DataFusionError::NotImplemented(_) => ErrorCode::Unsupported,
            DataFusionError::ResourcesExhausted(_) => ErrorCode::OutOfMemory,
            DataFusionError::Plan(message) if message.contains("not found") => {
                if message.contains("table '") || message.contains("Table") {
                    ErrorCode::UnknownTable
                } else {
                    ErrorCode::Syntax
                }
            }
            DataFusionError::Plan(_) => ErrorCode::Syntax,
            DataFusionError::Configuration(_) => ErrorCode::InvalidOption,
            DataFusionError::ArrowError(..)
            | DataFusionError::Execution(_)
            | DataFusionError::External(_)
            | DataFusionError::ParquetError(_) => ErrorCode::Data,
            _ => ErrorCode::Internal,
        };
        let message = readable(root);
        if code == ErrorCode::OutOfMemory {
            let advice = "select less, or raise server.memory_limit (server.spill_limit for disk)";
            return Self::new(code, format!("{message}; {advice}"));
        }
        Self::new(code, message)
    }
}

fn find_ours(error: &DataFusionError) -> Option<Error> {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = current {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours.clone());
        }
        if let Some(source) = error.downcast_ref::<SourceError>() {
            return Some(Error::new(source.kind().code(), source.to_string()));
        }
        current = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    None
}

/// The text of an error without DataFusion's class prefix and back trace.
fn readable(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    for prefix in [
        "Error during planning: ",
        "SQL error: ",
        "Schema error: ",
        "Execution error: ",
        "Arrow error: ",
        "Resources exhausted: ",
        "This feature is not implemented: ",
        "External error: ",
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return rest.to_owned();
        }
    }
    text
}

/// The error of a statement that ran out of time.
pub(crate) fn timed_out(statement_timeout: Option<std::time::Duration>) -> Error {
    let message = match statement_timeout {
        Some(timeout) => format!(
            "the statement was not done within {} (synoptic.statement_timeout)",
            synoptic_types::format_duration(timeout)
        ),
        None => "the statement was not done in time (synoptic.statement_timeout or the client's \
                 own)"
            .to_owned(),
    };
    Error::new(ErrorCode::Timeout, message)
}

impl Error {
    /// The error of a query that somebody cancelled.
    pub(crate) fn cancelled(id: &synoptic_types::QueryId) -> Self {
        Self::new(ErrorCode::Cancelled, format!("query {id} was cancelled"))
    }

    /// The error of a panic in any layer below. The panic itself is in the log.
    pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let what = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        tracing::error!(panic = what, "a query panicked");
        Self::new(
            ErrorCode::Internal,
            "this query met a bug in the server, which goes on; the server's log has the details",
        )
    }
}

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
        let code = match error {
            OptionError::NotYet { .. } => ErrorCode::Unsupported,
            OptionError::Unknown { .. } | OptionError::Value { .. } => ErrorCode::InvalidOption,
        };
        Self::new(code, error.to_string())
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
            DataFusionError::SchemaError(schema, _) => match **schema_error(schema) {
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
            | DataFusionError::ParquetError(_) => ErrorCode::Data,
            _ => ErrorCode::Internal,
        };
        Self::new(code, readable(root))
    }
}

/// Lets the match above look through the box without naming its type.
fn schema_error<T>(error: &T) -> &T {
    error
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

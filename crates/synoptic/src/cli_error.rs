//! Errors of the command line: what is printed on stderr and the exit code.

use std::fmt::{self, Display};
use std::io;

use synoptic_engine::Error as EngineError;

/// The result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// Why a command ended early. `Display` is what stands on stderr; it never holds a secret.
#[derive(Debug)]
pub enum CliError {
    /// The query, the check or the configuration failed: exit code 1.
    Failed(String),
    /// The command line itself is wrong: exit code 2.
    Usage(String),
    /// The reader of our output is gone (`synoptic sql … | head`): nothing to say, exit code 0.
    OutputClosed,
}

impl CliError {
    /// A failure with a message for a person: what happened, where, what to do.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// A failed read, write or connection; `doing` completes the sentence "cannot …".
    pub fn io(doing: impl Display, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Failed(format!("cannot {doing}: {error}"))
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::OutputClosed => 0,
        }
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::Usage(message) => f.write_str(message),
            Self::OutputClosed => f.write_str("the reader of the output is gone"),
        }
    }
}

impl std::error::Error for CliError {}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Failed(error.to_string())
    }
}

//! Logs: to stderr, so that stdout holds answers only.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli_error::{CliError, Result};

/// What a command logs unless told otherwise.
#[derive(Debug, Clone, Copy)]
pub enum Verbosity {
    /// Warnings, with our own progress: for a server.
    Server,
    /// Errors only: for commands that say themselves what went wrong.
    Quiet,
}

/// Sets up logging for the process: `--log` beats `RUST_LOG` beats `verbosity`.
///
/// # Errors
/// When the filter of `--log` is not one.
pub fn init(filter: Option<&str>, verbosity: Verbosity) -> Result<()> {
    let filter = match filter {
        Some(filter) => EnvFilter::try_new(filter)
            .map_err(|error| CliError::Usage(format!("--log '{filter}': {error}")))?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| {
            EnvFilter::new(match verbosity {
                // A filter matches by prefix: `synoptic` is all of our crates.
                Verbosity::Server => "warn,synoptic=info",
                Verbosity::Quiet => "error",
            })
        }),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call, in tests, keeps the first.
    let _ = subscriber.try_init();
    Ok(())
}

//! SQL over live sources, as fresh as you ask: the binary's parts, for tests and benchmarks too.
//!
//! [`compose()`] is the composition root: the only place where connectors, engine and
//! configuration meet. [`cli::main`] is the program; each command has its module.

mod check;
pub mod cli;
mod cli_error;
mod clock;
mod compose;
pub mod demo;
mod demo_options;
mod logging;
mod serve;
pub mod sql;

pub use cli_error::{CliError, Result};
pub use compose::{Composition, Replaced, compose, flight_options};
pub use demo_options::DemoOptions;

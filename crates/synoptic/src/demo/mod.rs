//! `synoptic demo`: a small bank on real prices and rates, and a tour of questions over it.
//!
//! The folder is made from data inside the binary ([`build`]); then everything goes the ordinary
//! way, from the configuration that was written to the answers: nothing is special-cased.

mod bank;
mod build;
mod freshness;
mod fx;
mod market;
mod portfolio;
mod questions;
mod raw;
mod text;
mod tour;

use std::io;

use synoptic_config::Config;

use crate::cli_error::{CliError, Result};
use crate::compose::compose;
use crate::demo_options::DemoOptions;

pub use build::build;
pub use questions::{QUESTIONS, Question};
pub use tour::{Answer, ask, tour};

/// Makes the sources, takes the tour on stdout, and goes on serving if asked to.
///
/// # Errors
/// When the folder cannot be written to, a question fails, or the address cannot be served.
pub async fn run(options: DemoOptions) -> Result<()> {
    let (dir, listen) = (options.dir.clone(), options.listen.clone());
    let building = tokio::task::spawn_blocking(move || build(&dir, &listen));
    let path = building.await.map_err(|error| {
        CliError::failed(format!("the demo's sources were not made: {error}"))
    })??;
    let config = Config::load(&path, &synoptic_connectors::names())?;
    tour(&compose(&config)?, &options, &mut io::stdout()).await?;
    if options.serve { crate::serve::run(path).await } else { Ok(()) }
}

//! The exchange rates of the demo: one CSV file, a row per day and currency.

use std::path::Path;

use super::raw::Fixing;
use crate::cli_error::{CliError, Result};

/// Writes the fixings to the new file `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, fixings: &[Fixing]) -> Result<()> {
    try_write(path, fixings)
        .map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))
}

fn try_write(path: &Path, fixings: &[Fixing]) -> csv::Result<()> {
    let mut writer = csv::Writer::from_path(path)?;
    writer.write_record(["fixing_day", "currency", "rate"])?;
    for fixing in fixings {
        let day = fixing.day.to_string();
        writer.write_record([day.as_str(), fixing.currency.as_str(), fixing.rate.as_str()])?;
    }
    writer.flush()?;
    Ok(())
}

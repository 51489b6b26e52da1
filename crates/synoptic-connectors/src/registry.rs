//! The one list of connectors.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use synoptic_source::Source;
use synoptic_types::SourceName;

use crate::options::{Declared, OptionsError};
use crate::{files, postgres, sqlite};

type Open = fn(Declared) -> Result<Arc<dyn Source>, OptionsError>;

const CONNECTORS: &[(&str, Open)] =
    &[("files", files::open), ("postgres", postgres::open), ("sqlite", sqlite::open)];

/// The names a configuration may use, sorted.
pub fn names() -> Vec<&'static str> {
    CONNECTORS.iter().map(|(name, _)| *name).collect()
}

/// Makes a source. Checks the options and does no I/O: a source that is down can be opened, and
/// says so when it is asked.
///
/// # Errors
/// When the connector does not exist or an option is wrong.
pub fn open(
    connector: &str,
    name: SourceName,
    options: Map<String, Value>,
    base_dir: &Path,
) -> Result<Arc<dyn Source>, OptionsError> {
    let (_, open) = CONNECTORS.iter().find(|(known, _)| *known == connector).ok_or_else(|| {
        let names = names().join(", ");
        OptionsError::at(
            &["connector"],
            format!("there is no connector '{connector}'; the connectors are {names}"),
        )
    })?;
    open(Declared { name, options, base_dir: base_dir.to_owned() })
}

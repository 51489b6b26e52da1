//! The one list of connectors.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use synoptic_source::Source;
use synoptic_types::SourceName;

use crate::options::{Declared, OptionsError};
use crate::{files, postgres, sqlite};

type Open = fn(Declared) -> Result<Arc<dyn Source>, OptionsError>;

struct Connector {
    name: &'static str,
    open: Open,
    /// Options that are not about the place: a replica has its source's unless it has its own.
    inherited: &'static [&'static str],
}

const CONNECTORS: &[Connector] = &[
    Connector { name: "files", open: files::open, inherited: &[] },
    Connector { name: "postgres", open: postgres::open, inherited: postgres::INHERITED },
    Connector { name: "sqlite", open: sqlite::open, inherited: sqlite::INHERITED },
];

/// The names a configuration may use, sorted.
pub fn names() -> Vec<&'static str> {
    CONNECTORS.iter().map(|connector| connector.name).collect()
}

/// The options of a replica of a source, both with `connector`: its own, and those of the source
/// that say how to read and not where.
pub fn with_inherited(
    connector: &str,
    mut options: Map<String, Value>,
    source: &Map<String, Value>,
) -> Map<String, Value> {
    let known = CONNECTORS.iter().find(|known| known.name == connector);
    for &name in known.map_or(&[][..], |known| known.inherited) {
        if let (false, Some(value)) = (options.contains_key(name), source.get(name)) {
            options.insert(name.to_owned(), value.clone());
        }
    }
    options
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
    let known = CONNECTORS.iter().find(|known| known.name == connector).ok_or_else(|| {
        let names = names().join(", ");
        OptionsError::at(
            &["connector"],
            format!("there is no connector '{connector}'; the connectors are {names}"),
        )
    })?;
    (known.open)(Declared { name, options, base_dir: base_dir.to_owned() })
}

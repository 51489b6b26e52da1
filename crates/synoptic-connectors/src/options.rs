//! From what the configuration declares to what a connector can use.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use synoptic_types::SourceName;

/// An option that is missing, unknown or does not fit. The caller knows the file and the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OptionsError {
    /// The keys that lead to the option from the source's own table, outermost first; empty when
    /// it is about the source as a whole.
    pub path: Vec<String>,
    /// What is wrong and what to do, without secrets.
    pub message: String,
}

impl OptionsError {
    /// An error about the option at `path`.
    pub fn at(path: &[&str], message: impl Into<String>) -> Self {
        Self { path: path.iter().map(|&s| s.to_owned()).collect(), message: message.into() }
    }
}

/// A source as the configuration declares it, with `${…}` already expanded.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The source's name.
    pub name: SourceName,
    /// Every key of the source's table but `connector`.
    pub options: Map<String, Value>,
    /// The folder that relative paths are relative to.
    pub base_dir: PathBuf,
}

impl Declared {
    /// Reads the options into the connector's own declared type, which should
    /// `deny_unknown_fields`.
    ///
    /// # Errors
    /// When a key is unknown or missing or a value has the wrong type, with the path to it.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, OptionsError> {
        let value = Value::Object(self.options.clone());
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().iter().filter_map(|segment| match segment {
                serde_path_to_error::Segment::Map { key } => Some(key.clone()),
                _ => None,
            });
            OptionsError { path: path.collect(), message: error.inner().to_string() }
        })
    }
}

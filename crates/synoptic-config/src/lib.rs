//! The configuration file: from what it declares to checked types, with the place of every error.
//!
//! ```
//! use std::path::Path;
//! use synoptic_config::Config;
//!
//! let text = r#"
//!     [server]
//!     listen = "127.0.0.1:0"
//!
//!     [sources.reference]
//!     connector = "sqlite"
//!     path = "reference.db"
//! "#;
//! let config = Config::parse(text, Path::new("."), &["sqlite"]).expect("it is valid");
//! assert_eq!(config.server.listen, "127.0.0.1:0");
//! assert_eq!(config.sources[0].connector, "sqlite");
//!
//! let errors = Config::parse("[server]\nlistn = ''", Path::new("."), &["sqlite"]).expect_err("it is not");
//! assert_eq!(
//!     errors.to_string(),
//!     "synoptic.toml:2: key 'server.listn' is unknown; did you mean 'listen'?",
//! );
//! ```
//!
//! Steps, one module each: `document` reads TOML into a tree that knows its lines and expands
//! `${…}` (`expand`); `keys` is the one table of what `[server]`, `[query]`, `[freshness]` and
//! `[clock]` take, from which checking, defaults and [`reference()`] come; `config` puts it together,
//! and `sources` keeps `[sources.*]` and their replicas as the connectors want them.
//!
//! Invariants: every key is known or an error; an error names its file, line and key; an expanded
//! value never stands in an error or in `Debug`.
#![deny(missing_docs)]

mod config;
mod document;
mod error;
mod expand;
mod keys;
mod nearest;
mod reference;
mod settings;
mod sources;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::{ConfigError, ConfigErrors};
pub use nearest::nearest;
pub use reference::reference;
pub use settings::{ClockConfig, ClockSource, FreshnessConfig, ServerConfig};
pub use sources::{ReplicaConfig, SourceConfig, TableText};

//! The places where a source's data can be read.

use std::fmt;
use std::sync::Arc;

/// The name of a copy inside its source: `primary` or what the configuration calls it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CopyName(Arc<str>);

impl CopyName {
    /// Takes any text; the configuration decides what is a valid name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name of every source's authoritative copy.
    pub fn primary() -> Self {
        Self::new("primary")
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a copy is to its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyKind {
    /// Where the source's owners write.
    Authoritative,
    /// Follows the authoritative copy by itself.
    Replica,
    /// An answer we kept, at the position it was read at.
    Cache,
    /// A table we keep up to date.
    Materialized,
    /// A stream of changes we follow.
    Feed,
}

impl CopyKind {
    /// The word in receipts and `system.copies`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authoritative => "authoritative",
            Self::Replica => "replica",
            Self::Cache => "cache",
            Self::Materialized => "materialized",
            Self::Feed => "feed",
        }
    }
}

impl fmt::Display for CopyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

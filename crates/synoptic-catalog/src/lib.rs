//! Sources and their tables: a mutable [`Host`], an immutable [`Snapshot`] per statement.
//!
//! A statement takes one [`Snapshot`] when it arrives and sees the same sources to its end, even
//! while a new configuration replaces them. Table descriptions are cached per source and
//! validated by [`Source::stamp`] each time a statement asks, never by age.
#![deny(missing_docs)]

mod copies;
mod entry;
mod host;
mod watch;

pub use copies::{CopySet, Replica, SystemTime};
pub use entry::{SourceEntry, TABLE_CACHE_CAPACITY};
pub use host::{Host, Snapshot, SourceCopies};
pub use watch::{FenceQueueFull, Watch, WatchSettings};

#[cfg(test)]
mod tests;

//! Which copy of each source a statement reads, and what its receipt says of that.
//!
//! The rules are pure and stand in `synoptic-freshness`; here they are asked at the right moments:
//!
//! ```text
//! parse ─▶ Wanted: the sources a statement names, and how fresh each must be      (wanted.rs)
//!   ▼ before planning, because plans are made for one copy
//! choose_copies: choose, do what it needs, ask again ─▶ Chosen                    (choose.rs)
//!   ▼ plan, prepare, wait, DoGet
//! open: every snapshot pinned with its positions, side by side; the bound again;
//!       behind that barrier the skew and the token ─▶ Reading                     (open.rs)
//!   ▼ the first row is read
//! ```
//!
//! When a chosen copy turns out not to answer, or not to be fresh enough any more when the read
//! starts, the statement is planned again with what is known by then. Nothing has been delivered
//! until then.

mod choose;
mod open;
mod receipt;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use synoptic_catalog::{SourceCopies, SourceEntry};
use synoptic_freshness::{Choice, Demand};
use synoptic_types::{Moment, SourceName};

pub(crate) use choose::{ask_again, choose_copies};
pub(crate) use open::{Opening, Reading, open};
pub(crate) use receipt::{of_version, statement_columns};
pub(crate) use wanted::Wanted;

/// How often a statement is planned before a copy that does not answer is its error.
pub(crate) const MAX_ATTEMPTS: u32 = 3;

/// The copies one statement reads.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// When planning began: what planning lists is complete since then.
    pub(crate) began: Moment,
    demand: Demand,
    sources: BTreeMap<SourceName, ChosenSource>,
    choices: Arc<Choices>,
}

/// How the copies of a statement were chosen; what receipts keep.
#[derive(Debug)]
pub(crate) struct Choices {
    by_source: BTreeMap<SourceName, Choice>,
    /// How long choosing took: probes, looks, waiting for a replica.
    waited: Duration,
    /// How often the statement has been planned, this time included.
    attempts: u32,
}

/// One source of a statement.
#[derive(Debug)]
struct ChosenSource {
    copies: Arc<SourceCopies>,
    entry: Arc<SourceEntry>,
}

impl Chosen {
    /// The chosen copy of a source; `None` for a source the statement does not name.
    pub(crate) fn entry(&self, source: &str) -> Option<&Arc<SourceEntry>> {
        self.sources.get(&SourceName::new(source)).map(|source| &source.entry)
    }

    /// How a source's copy was chosen.
    pub(crate) fn choice(&self, source: &SourceName) -> Option<&Choice> {
        self.choices.by_source.get(source)
    }

    /// How they were chosen.
    pub(crate) fn choices(&self) -> &Arc<Choices> {
        &self.choices
    }

    /// How often the statement has been planned, this time included.
    pub(crate) fn attempts(&self) -> u32 {
        self.choices.attempts
    }

    /// Whether any source has a copy that could stand in for another.
    pub(crate) fn has_replicas(&self) -> bool {
        self.copies().any(|copies| copies.has_replicas())
    }

    fn copies(&self) -> impl Iterator<Item = &Arc<SourceCopies>> {
        self.sources.values().map(|source| &source.copies)
    }
}

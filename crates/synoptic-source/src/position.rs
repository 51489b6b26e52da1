//! How far a copy has got, as it says itself.

use std::time::Duration;

use synoptic_types::{Lineage, Position};

/// What a copy says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPosition {
    /// For the authoritative copy what covers everything visible there; for any other what it has
    /// applied, not what it has received.
    pub position: Position,
    /// The history of its log, as far as it knows.
    pub lineage: Lineage,
    /// Whether it follows another node. An authoritative copy that says so is none any more.
    pub follows: bool,
    /// What has arrived but is not applied; for people, never a proof.
    pub received: Option<Position>,
    /// What the copy believes its lag to be by its own clock; for people, never a proof.
    pub reported_lag: Option<Duration>,
}

impl Default for CopyPosition {
    /// A copy that says nothing.
    fn default() -> Self {
        Self::at(Position::Unknown)
    }
}

impl CopyPosition {
    /// A bare position.
    pub fn at(position: Position) -> Self {
        Self {
            position,
            lineage: Lineage::unknown(),
            follows: false,
            received: None,
            reported_lag: None,
        }
    }
}

/// A snapshot that stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pinned {
    /// Where the copy was before the snapshot was taken: the snapshot shows at least this.
    pub before: CopyPosition,
    /// Where it was afterwards: the snapshot shows at most this. For a version, the same again.
    pub after: CopyPosition,
    /// Whether every table that is read is found to be exactly as it was described.
    pub confirmed: bool,
}

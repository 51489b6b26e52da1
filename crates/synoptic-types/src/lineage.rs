//! The history of a log that has been promoted.

use crate::position::Lsn;

/// Which timelines a log has been through, as PostgreSQL's timeline history files tell it:
/// the current timeline, and where each of its ancestors was left.
///
/// <https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    system: u64,
    /// Oldest first: a timeline and the address at which the next one left it.
    ancestors: Vec<(u32, Lsn)>,
    current: Option<u32>,
}

/// More promotions than anybody keeps history files for; older ones are forgotten.
const MAX_ANCESTORS: usize = 64;

impl Lineage {
    /// Nothing is known: only positions of one timeline can be compared.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// The history of `current` in `system`: `ancestors` are its earlier timelines, oldest first,
    /// each with the address at which the next one begins.
    pub fn new(system: u64, mut ancestors: Vec<(u32, Lsn)>, current: u32) -> Self {
        let surplus = ancestors.len().saturating_sub(MAX_ANCESTORS);
        ancestors.drain(..surplus);
        Self { system, ancestors, current: Some(current) }
    }

    /// The system whose history it is; meaningless when nothing is known.
    pub fn system(&self) -> u64 {
        self.system
    }

    /// Whether this history says more than `other` about the same system, or is all there is.
    pub fn supersedes(&self, other: &Self) -> bool {
        match (self.current, other.current) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(theirs)) => {
                self.system != other.system
                    || (mine, self.ancestors.len()) >= (theirs, other.ancestors.len())
            }
        }
    }

    /// The place of `timeline` in the chain, and where it was left; `None` when it is not in it.
    pub fn link(&self, timeline: u32) -> Option<(usize, Option<Lsn>)> {
        if self.current == Some(timeline) {
            return Some((self.ancestors.len(), None));
        }
        let place = self.ancestors.iter().position(|(known, _)| *known == timeline)?;
        Some((place, Some(self.ancestors[place].1)))
    }
}

//! The partial order of positions. What cannot be compared is unknown, and unknown is never fresh.

use synoptic_types::{Lsn, Position};

/// How the position of a copy relates to one that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// The copy holds everything up to the wanted position.
    Covers,
    /// The copy is on the way there.
    Behind,
    /// The copy and the wanted position are on branches that parted: it will never get there.
    Diverged,
    /// They cannot be compared: other kinds, other systems, a history nobody told us.
    Unknown,
}

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

    /// Whether this history says more than `other` about the same system, or is all there is.
    pub(crate) fn supersedes(&self, other: &Self) -> bool {
        match (self.current, other.current) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(theirs)) => {
                self.system != other.system
                    || (mine, self.ancestors.len()) >= (theirs, other.ancestors.len())
            }
        }
    }

    /// Its place in the chain, and where it was left.
    fn link(&self, timeline: u32) -> Option<(usize, Option<Lsn>)> {
        if self.current == Some(timeline) {
            return Some((self.ancestors.len(), None));
        }
        let place = self.ancestors.iter().position(|(known, _)| *known == timeline)?;
        Some((place, Some(self.ancestors[place].1)))
    }
}

/// How a copy at `copy` relates to `wanted`, given what is known of the log's history.
///
/// With a fixed lineage, "covers" is a partial order over log positions and over versions;
/// [`Position::Unknown`] does not even cover itself.
pub fn relate(copy: &Position, wanted: &Position, lineage: &Lineage) -> Relation {
    match (copy, wanted) {
        (Position::Version(copy), Position::Version(wanted)) if copy == wanted => Relation::Covers,
        (
            Position::Log { epoch: copy_epoch, lsn: copy_lsn },
            Position::Log { epoch: wanted_epoch, lsn: wanted_lsn },
        ) => {
            if copy_epoch.system != wanted_epoch.system {
                return Relation::Unknown;
            }
            let reached = if copy_lsn >= wanted_lsn { Relation::Covers } else { Relation::Behind };
            if copy_epoch.timeline == wanted_epoch.timeline {
                return reached;
            }
            if lineage.system != copy_epoch.system {
                return Relation::Unknown;
            }
            let links = (lineage.link(copy_epoch.timeline), lineage.link(wanted_epoch.timeline));
            let (Some((copy_place, copy_end)), Some((wanted_place, wanted_end))) = links else {
                return Relation::Unknown;
            };
            // The older one of the two is on the common branch only up to where it was left.
            if wanted_place < copy_place {
                if wanted_end.is_some_and(|end| *wanted_lsn <= end) {
                    reached
                } else {
                    Relation::Diverged
                }
            } else if copy_end.is_some_and(|end| *copy_lsn <= end) {
                Relation::Behind
            } else {
                Relation::Diverged
            }
        }
        _ => Relation::Unknown,
    }
}

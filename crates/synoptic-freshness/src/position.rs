//! The partial order of positions. What cannot be compared is unknown, and unknown is never fresh.

use synoptic_types::{Lineage, Position};

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
            if lineage.system() != copy_epoch.system {
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

//! "At least this much" of one source: what a token says per source.

use std::collections::BTreeMap;

use synoptic_types::{Epoch, Lsn, Position, Version};

use crate::Lineage;
use crate::position::Relation;
use crate::rules::{Rules, TheRules};
use crate::token::TokenError;

/// A set of positions that an answer must include.
///
/// Merging is a least upper bound: the greatest address per epoch (never over epochs: after a
/// promotion a greater address may lack what a smaller one of the old timeline has), and for
/// versions the one that was seen, or "several", which only a read of the source itself covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LowerBound {
    pub(crate) points: BTreeMap<Epoch, Lsn>,
    pub(crate) versions: Seen,
}

/// Which versions were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Seen {
    #[default]
    Nothing,
    One(Version),
    Several,
}

impl LowerBound {
    /// Epochs of one source a token can name: promotions that some session has lived through.
    pub const MAX_EPOCHS: usize = 8;

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.versions == Seen::Nothing
    }

    /// Raises the bound to include `position`. [`Position::Unknown`] changes nothing.
    ///
    /// # Errors
    /// When it would name more than [`LowerBound::MAX_EPOCHS`] epochs; it is then unchanged.
    pub fn include(&mut self, position: &Position) -> Result<(), TokenError> {
        self.include_by(&TheRules, position)
    }

    pub(crate) fn include_by<R: Rules>(
        &mut self,
        rules: &R,
        position: &Position,
    ) -> Result<(), TokenError> {
        match position {
            Position::Unknown => {}
            Position::Version(version) => self.see(Seen::One(version.clone())),
            Position::Log { epoch, lsn } => {
                let other =
                    self.points.iter().find(|(known, _)| rules.same_history(**known, *epoch));
                match other.map(|(known, lsn)| (*known, *lsn)) {
                    Some((_, known_lsn)) if known_lsn >= *lsn => {}
                    Some((known, _)) => {
                        self.points.remove(&known);
                        self.points.insert(*epoch, *lsn);
                    }
                    None if self.points.len() >= Self::MAX_EPOCHS => {
                        return Err(TokenError::TooManyEpochs);
                    }
                    None => {
                        self.points.insert(*epoch, *lsn);
                    }
                }
            }
        }
        Ok(())
    }

    /// Raises the bound to what both include.
    ///
    /// # Errors
    /// When it would name more than [`LowerBound::MAX_EPOCHS`] epochs; it may then be raised in
    /// part.
    pub fn merge(&mut self, other: &Self) -> Result<(), TokenError> {
        self.merge_by(&TheRules, other)
    }

    pub(crate) fn merge_by<R: Rules>(&mut self, rules: &R, other: &Self) -> Result<(), TokenError> {
        for (epoch, lsn) in &other.points {
            self.include_by(rules, &Position::Log { epoch: *epoch, lsn: *lsn })?;
        }
        self.see(other.versions.clone());
        Ok(())
    }

    /// Raises the bound to `position` and forgets what it is known to cover, so that a token does
    /// not grow with every promotion.
    ///
    /// # Errors
    /// As [`LowerBound::include`].
    pub fn advance(&mut self, position: &Position, lineage: &Lineage) -> Result<(), TokenError> {
        self.advance_by(&TheRules, position, lineage)
    }

    pub(crate) fn advance_by<R: Rules>(
        &mut self,
        rules: &R,
        position: &Position,
        lineage: &Lineage,
    ) -> Result<(), TokenError> {
        self.points.retain(|epoch, lsn| {
            let point = Position::Log { epoch: *epoch, lsn: *lsn };
            rules.relate(position, &point, lineage) != Relation::Covers
        });
        if let Position::Version(version) = position {
            // Whoever reads a version under this bound has proved that it includes the others.
            self.versions = Seen::One(version.clone());
        }
        self.include_by(rules, position)
    }

    /// How a copy at `position` relates to this bound. Log addresses decide; versions other than
    /// the one seen are [`Relation::Unknown`].
    pub fn relation(&self, position: &Position, lineage: &Lineage) -> Relation {
        self.relation_by(&TheRules, position, lineage)
    }

    pub(crate) fn relation_by<R: Rules>(
        &self,
        rules: &R,
        position: &Position,
        lineage: &Lineage,
    ) -> Relation {
        let version = match &self.versions {
            Seen::Nothing => Relation::Covers,
            Seen::One(seen) => rules.relate(position, &Position::Version(seen.clone()), lineage),
            Seen::Several => Relation::Unknown,
        };
        let points = self.points.iter().map(|(epoch, lsn)| {
            rules.relate(position, &Position::Log { epoch: *epoch, lsn: *lsn }, lineage)
        });
        points.fold(version, worse)
    }

    /// The farthest address it names that a copy at `position` still has before it.
    pub(crate) fn ahead_of<R: Rules>(
        &self,
        rules: &R,
        position: &Position,
        lineage: &Lineage,
    ) -> Option<Position> {
        let points =
            self.points.iter().rev().map(|(epoch, lsn)| Position::Log { epoch: *epoch, lsn: *lsn });
        let mut ahead =
            points.filter(|point| rules.relate(position, point, lineage) == Relation::Behind);
        ahead.next()
    }

    /// Whether log addresses are named at all.
    pub(crate) fn has_points(&self) -> bool {
        !self.points.is_empty()
    }

    fn see(&mut self, seen: Seen) {
        let known = std::mem::take(&mut self.versions);
        self.versions = match (known, seen) {
            (known, Seen::Nothing) => known,
            (Seen::Nothing, seen) => seen,
            (Seen::One(known), Seen::One(seen)) if known == seen => Seen::One(known),
            _ => Seen::Several,
        };
    }
}

fn worse(a: Relation, b: Relation) -> Relation {
    let rank = |relation| match relation {
        Relation::Covers => 0,
        Relation::Behind => 1,
        Relation::Unknown => 2,
        Relation::Diverged => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}

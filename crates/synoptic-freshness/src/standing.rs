//! How one copy stands to what is asked: proved, improvable, or refused with a reason.

use std::time::Duration;

use synoptic_types::{AsOf, Consistency, Moment, Position};

use crate::bound::LowerBound;
use crate::decision::{Action, CopyReason, Method};
use crate::demand::{Demand, ReadAt, SourceDemand};
use crate::facts::{CopyFacts, Health, SourceFacts};
use crate::position::Relation;
use crate::rules::{Proof, Rules};
use crate::sample::Sample;

/// How a copy stands.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It may answer.
    Proved { proof: Proof, method: Method },
    /// It may be able to answer after `action`, which takes about `extra`. Until then `reason`.
    Improvable { action: Action, extra: Duration, reason: CopyReason },
    /// It may not answer.
    Refused(CopyReason),
}

/// One source of one statement at one moment.
pub(crate) struct Ask<'a, R> {
    pub(crate) rules: &'a R,
    pub(crate) facts: &'a SourceFacts,
    pub(crate) demand: &'a Demand,
    pub(crate) source: &'a SourceDemand,
    pub(crate) token: Option<&'a LowerBound>,
    pub(crate) now: Moment,
}

impl<R: Rules> Ask<'_, R> {
    /// Why what is complete since `proof.lo` does not do; `None` when it does.
    pub(crate) fn shortfall(&self, proof: &Proof, fixed: Option<AsOf>) -> Option<Shortfall> {
        let hi = fixed.map_or(self.now, |kept| kept.hi.max(proof.lo));
        let as_of = AsOf { lo: proof.lo, hi };
        let drift = self.demand.policy.max_drift_ppm;
        match (self.demand.consistency, self.demand.read_at) {
            (Consistency::AsOf, Some(ReadAt::Within(moments))) => {
                return (proof.lo < moments.hi).then_some(Shortfall::Stale);
            }
            (Consistency::AsOf, _) => return Some(Shortfall::Stale),
            (Consistency::Bounded, _) => {
                // The other snapshots open now or later, so this much skew is certain.
                let skew = self.rules.skew(&[AsOf { lo: proof.lo, hi: self.now }], drift);
                if skew > self.demand.max_skew {
                    return Some(Shortfall::Skewed(skew));
                }
            }
            (Consistency::Source, _) => {}
        }
        let strong = self.rules.since_arrival(proof.lo, proof.finished, self.demand.arrival);
        let fresh =
            strong || self.rules.staleness(as_of, self.now, drift) <= self.source.max_staleness;
        (!fresh).then_some(Shortfall::Stale)
    }

    /// Whether a copy at `position`, complete since `proof`, holds what the token asks for.
    ///
    /// What a token stands for was visible at the source before the client could bring it here, so
    /// whatever is complete since the arrival holds it; that is how versions are covered.
    pub(crate) fn holds_token(&self, position: &Position, proof: &Proof) -> bool {
        self.token.is_none_or(|bound| {
            let relation = bound.relation_by(self.rules, position, &self.facts.lineage);
            let strong = self.rules.since_arrival(proof.lo, proof.finished, self.demand.arrival);
            relation == Relation::Covers || (strong && !bound.has_points())
        })
    }

    /// Whether a probe of this statement's own makes sense: once, or a statement whose bound is
    /// shorter than a round trip would ask for ever.
    pub(crate) fn may_probe(&self) -> bool {
        let authoritative = self.facts.copies.iter().find(|copy| copy.is_authoritative());
        authoritative.is_some_and(|copy| !matches!(copy.health, Health::Down(_)))
            && self.facts.probe_failed.is_none_or(|started| started < self.demand.arrival)
            && self.facts.samples.newest().is_none_or(|newest| newest.stamp < self.demand.arrival)
    }

    /// The oldest sample that proves enough: the easiest to reach.
    pub(crate) fn target(&self) -> Option<&Sample> {
        self.facts.samples.oldest_first().find(|sample| {
            let proof = Proof { lo: sample.stamp, finished: sample.finished, position: None };
            self.shortfall(&proof, None).is_none()
        })
    }

    pub(crate) fn standing(&self, copy: &CopyFacts) -> Standing {
        if let Some(reason) = self.excluded(copy) {
            return Standing::Refused(reason);
        }
        if copy.is_authoritative() {
            return self.authoritative();
        }
        let Some(observed) = &copy.observed else {
            return self.look(copy, CopyReason::NoPosition);
        };
        let proof = self.rules.proved(copy, self.facts, self.now);
        let reason = self.reason(copy, proof.as_ref());
        if let Some(proof) = proof {
            let enough = self.shortfall(&proof, copy.fixed).is_none();
            if enough && self.holds_token(&observed.position, &proof) {
                let method = self.method(copy, &proof);
                return Standing::Proved { proof, method };
            }
            if enough {
                return self.toward_token(copy, &observed.position);
            }
        }
        if copy.fixed.is_some() {
            return self.head_unmoved(copy, &observed.position, reason);
        }
        if observed.position == Position::Unknown {
            return Standing::Refused(CopyReason::NoPosition);
        }
        let Some(target) = self.target() else { return self.probe(copy, reason) };
        let relation = self.rules.relate(&observed.position, &target.position, &self.facts.lineage);
        if observed.at < target.finished {
            return self.look_for(copy, &target.position, reason);
        }
        match relation {
            Relation::Diverged => Standing::Refused(CopyReason::Diverged),
            Relation::Unknown if matches!(observed.position, Position::Log { .. }) => {
                Standing::Refused(CopyReason::Incomparable)
            }
            // Versions that differ: it may be there with its next refresh, nobody can say when.
            Relation::Unknown => Standing::Refused(reason),
            Relation::Behind | Relation::Covers => {
                self.wait(copy, &target.position, target.stamp, reason)
            }
        }
    }

    /// Reasons that no fact about positions can change.
    pub(crate) fn excluded(&self, copy: &CopyFacts) -> Option<CopyReason> {
        if self.source.pinned.as_ref().is_some_and(|pinned| *pinned != copy.name) {
            return Some(CopyReason::NotAskedFor);
        }
        if let Some((_, what)) = self.source.lacking.iter().find(|(name, _)| *name == copy.name) {
            return Some(CopyReason::Lacks(what.clone()));
        }
        if let Health::Down(why) = &copy.health {
            return Some(CopyReason::Down(why.clone()));
        }
        (self.demand.consistency == Consistency::AsOf && !copy.time_travel)
            .then_some(CopyReason::NoTimeTravel)
    }

    /// The read itself is the proof: it starts after now.
    fn authoritative(&self) -> Standing {
        if let (Consistency::AsOf, Some(ReadAt::Within(AsOf { hi: moment, .. }))) =
            (self.demand.consistency, self.demand.read_at)
            && moment > self.now
        {
            let reason = CopyReason::Stale {
                proved: Duration::ZERO,
                bound: self.source.max_staleness,
                lag: None,
            };
            let until = self.end_of_wait(self.source.wait_timeout);
            if moment > until {
                return Standing::Refused(reason);
            }
            let action = Action::Pause { source: self.facts.source.clone(), until: moment };
            return Standing::Improvable { action, extra: moment.since(self.now), reason };
        }
        let proof = Proof { lo: self.now, finished: self.now, position: None };
        Standing::Proved { proof, method: Method::StrongRead }
    }

    fn method(&self, copy: &CopyFacts, proof: &Proof) -> Method {
        let kept = copy.fixed.is_some_and(|kept| kept.lo >= proof.lo);
        if kept {
            Method::Kept
        } else if self.rules.since_arrival(proof.lo, proof.finished, self.demand.arrival) {
            Method::Fence
        } else {
            Method::Position
        }
    }

    /// What is wrong with a copy that is proved since `proof`.
    fn reason(&self, copy: &CopyFacts, proof: Option<&Proof>) -> CopyReason {
        let bound = self.source.max_staleness;
        let lag = copy.lag.quantile(0.9);
        let Some(proof) = proof else { return CopyReason::Behind { bound, lag } };
        match self.shortfall(proof, copy.fixed) {
            Some(Shortfall::Skewed(skew)) => {
                CopyReason::Skewed { skew, max_skew: self.demand.max_skew }
            }
            _ => {
                let hi = copy.fixed.map_or(self.now, |kept| kept.hi.max(proof.lo));
                let drift = self.demand.policy.max_drift_ppm;
                let as_of = AsOf { lo: proof.lo, hi };
                let proved = self.rules.staleness(as_of, self.now, drift);
                CopyReason::Stale { proved, bound, lag }
            }
        }
    }

    /// Something kept is fresh again when the head has not moved since.
    fn head_unmoved(&self, copy: &CopyFacts, position: &Position, reason: CopyReason) -> Standing {
        let unmoved = self.facts.samples.newest().is_some_and(|newest| {
            self.rules.relate(position, &newest.position, &self.facts.lineage) == Relation::Covers
        });
        if unmoved { self.probe(copy, reason) } else { Standing::Refused(reason) }
    }

    /// There is no head recent enough to compare with: ask for one.
    fn probe(&self, copy: &CopyFacts, reason: CopyReason) -> Standing {
        if !self.may_probe() {
            let unproved = matches!(reason, CopyReason::Behind { .. });
            return Standing::Refused(if unproved { CopyReason::NoHead } else { reason });
        }
        let source = self.facts.source.clone();
        let action = Action::Probe { source, not_before: self.demand.arrival };
        Standing::Improvable {
            action,
            extra: self.facts.probe_round_trip.saturating_add(copy.round_trip),
            reason,
        }
    }

    /// Nobody has asked this copy yet.
    fn look(&self, copy: &CopyFacts, reason: CopyReason) -> Standing {
        match self.target() {
            Some(target) => self.look_for(copy, &target.position, reason),
            None => self.probe(copy, reason),
        }
    }

    /// It was seen before the head was known: it may have got there since.
    fn look_for(&self, copy: &CopyFacts, position: &Position, reason: CopyReason) -> Standing {
        let action = Action::WaitFor {
            source: self.facts.source.clone(),
            copy: copy.name.clone(),
            position: position.clone(),
            until: self.now,
        };
        Standing::Improvable { action, extra: copy.round_trip, reason }
    }

    /// It was seen behind: waiting pays when it usually gets there soon.
    fn wait(
        &self,
        copy: &CopyFacts,
        position: &Position,
        since: Moment,
        reason: CopyReason,
    ) -> Standing {
        let until = self.end_of_wait(self.demand.policy.replay_wait);
        let expected = copy.lag.quantile(0.9).map(|lag| since.after(lag).max(self.now));
        match expected {
            Some(expected) if expected <= until && self.now < until => {
                let action = Action::WaitFor {
                    source: self.facts.source.clone(),
                    copy: copy.name.clone(),
                    position: position.clone(),
                    until,
                };
                let extra = expected.since(self.now).saturating_add(copy.round_trip);
                Standing::Improvable { action, extra, reason }
            }
            _ => Standing::Refused(reason),
        }
    }

    /// Fresh enough, but the token asks for more.
    fn toward_token(&self, copy: &CopyFacts, position: &Position) -> Standing {
        let reason = CopyReason::TokenNotReached;
        let Some(bound) = self.token else { return Standing::Refused(reason) };
        let ahead = bound.ahead_of(self.rules, position, &self.facts.lineage);
        let relation = bound.relation_by(self.rules, position, &self.facts.lineage);
        match (relation, ahead) {
            (Relation::Behind, Some(point)) => {
                let seen = copy.observed.as_ref().map_or(Moment::ORIGIN, |observed| observed.at);
                if copy.fixed.is_some() {
                    Standing::Refused(reason)
                } else if seen < self.demand.arrival {
                    self.look_for(copy, &point, reason)
                } else {
                    self.wait(copy, &point, self.demand.arrival, reason)
                }
            }
            _ => Standing::Refused(reason),
        }
    }

    /// When a wait of `budget` since the arrival ends.
    pub(crate) fn end_of_wait(&self, budget: Duration) -> Moment {
        let end = self.demand.arrival.after(budget);
        self.demand.deadline.map_or(end, |deadline| end.min(deadline))
    }
}

/// Why a proof is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortfall {
    Stale,
    Skewed(Duration),
}

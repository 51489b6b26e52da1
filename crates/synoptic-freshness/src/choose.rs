//! The choice: the cheapest copy that proves what is asked, once for all scans of a statement.

use std::time::Duration;

use synoptic_types::{Consistency, ErrorCode, Moment, OnUnmet, Position};

use crate::decision::{
    Action, Choice, CopyReason, Decision, Lag, Method, Plan, Refusal, Refused, SourceRefusal, show,
};
use crate::demand::{Demand, ReadAt};
use crate::facts::{CopyFacts, Facts};
use crate::position::Relation;
use crate::rules::{Proof, Rules, TheRules};
use crate::standing::{Ask, Shortfall, Standing};

/// Decides for all sources of a statement at once.
///
/// Per source, every copy costs what reading it costs, plus what it takes to prove it: nothing for
/// the authoritative copy and for a copy that is proved by facts at hand, a probe or a look at its
/// position, or a bounded wait for its replay. The cheapest wins. When no copy is proved and
/// nothing cheap can change that, `on_unmet` decides.
///
/// A bound is met by what is stale by no more than the bound when the read starts, and always by
/// what holds everything visible before the statement arrived: a strong read meets every bound.
pub fn choose(facts: &Facts, demand: &Demand, now: Moment) -> Decision {
    choose_by(&TheRules, facts, demand, now)
}

pub(crate) fn choose_by<R: Rules>(
    rules: &R,
    facts: &Facts,
    demand: &Demand,
    now: Moment,
) -> Decision {
    let unsynchronized = !matches!(demand.read_at, Some(ReadAt::Within(_)));
    if demand.consistency == Consistency::AsOf && unsynchronized {
        return Decision::Refuse(Refusal {
            code: ErrorCode::ClockUnsynchronized,
            sources: Vec::new(),
        });
    }
    let (mut choices, mut actions, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for source in &demand.sources {
        let Some(known) = facts.get(&source.source) else {
            refusals.push(SourceRefusal {
                source: source.source.clone(),
                code: ErrorCode::FreshnessUnprovable,
                what: "nothing is known of its copies".to_owned(),
                copies: Vec::new(),
            });
            continue;
        };
        let token = demand.token.as_ref().and_then(|token| token.of(&source.source));
        match (Ask { rules, facts: known, demand, source, token, now }).decide() {
            PerSource::Read(choice) => choices.push(choice),
            PerSource::Need(action) => actions.push(action),
            PerSource::Refuse(refusal) => refusals.push(refusal),
        }
    }
    if !refusals.is_empty() {
        Decision::Refuse(Refusal::of(refusals))
    } else if !actions.is_empty() {
        Decision::Need(actions)
    } else {
        let oldest = choices.iter().map(|choice| choice.lo.unwrap_or(Moment::ORIGIN)).min();
        let skew = oldest.map_or(Duration::ZERO, |lo| {
            crate::asof::staleness(lo, now, demand.policy.max_drift_ppm)
        });
        Decision::Read(Plan { choices, skew })
    }
}

enum PerSource {
    Read(Choice),
    Need(Action),
    Refuse(SourceRefusal),
}

impl<R: Rules> Ask<'_, R> {
    fn decide(&self) -> PerSource {
        if let Some(decided) = self.token_lost() {
            return decided;
        }
        let standings: Vec<_> =
            self.facts.copies.iter().map(|copy| (copy, self.standing(copy))).collect();
        let cheapest = standings
            .iter()
            .filter_map(|(copy, standing)| match standing {
                Standing::Proved { .. } => Some((copy.cost, 0, copy)),
                Standing::Improvable { extra, .. } => {
                    Some((copy.cost.saturating_add(*extra), 1, copy))
                }
                Standing::Refused(_) => None,
            })
            .min_by_key(|(cost, unproved, _)| (*cost, *unproved))
            .map(|(.., copy)| copy.name.clone());
        let Some(chosen) = cheapest else { return self.unmet(standings) };
        let mut refused = Vec::new();
        let mut decided = None;
        for (copy, standing) in standings {
            if copy.name == chosen && decided.is_none() {
                decided = Some((copy, standing));
                continue;
            }
            let reason = match standing {
                Standing::Proved { .. } => CopyReason::Dearer,
                Standing::Improvable { reason, .. } | Standing::Refused(reason) => reason,
            };
            let lag = self.lag(copy);
            refused.push(Refused { copy: copy.name.clone(), reason, lag });
        }
        match decided {
            Some((copy, Standing::Proved { proof, method })) => {
                PerSource::Read(self.choice(copy, Some(proof), method, refused))
            }
            Some((_, Standing::Improvable { action, .. })) => PerSource::Need(action),
            _ => PerSource::Refuse(self.refusal(refused)),
        }
    }

    /// A token from a history that the source has left, or that cannot be related to the present
    /// one, is reported as lost. Whether it is lost only a head says that was asked for after the
    /// token was here.
    fn token_lost(&self) -> Option<PerSource> {
        let bound = self.token.filter(|bound| bound.has_points())?;
        if !self.rules.doubts_lost_history() {
            return None;
        }
        let newest = self.facts.samples.newest()?;
        let relation = bound.relation_by(self.rules, &newest.position, &self.facts.lineage);
        let fenced = self.rules.since_arrival(newest.stamp, newest.finished, self.demand.arrival);
        match relation {
            Relation::Covers => return None,
            Relation::Behind if !fenced => return None,
            _ => {}
        }
        if fenced {
            return Some(PerSource::Refuse(SourceRefusal {
                source: self.facts.source.clone(),
                code: ErrorCode::TokenLost,
                what: format!(
                    "the history the token comes from does not lead to the present one, which is \
                     at {}",
                    newest.position
                ),
                copies: Vec::new(),
            }));
        }
        if self.may_probe() {
            let source = self.facts.source.clone();
            let action = Action::Probe { source, not_before: self.demand.arrival };
            return Some(PerSource::Need(action));
        }
        Some(PerSource::Refuse(SourceRefusal {
            source: self.facts.source.clone(),
            code: ErrorCode::FreshnessUnprovable,
            what: "the token is of another history than the last known one, and the authoritative \
                   copy does not answer"
                .to_owned(),
            copies: Vec::new(),
        }))
    }

    fn choice(
        &self,
        copy: &CopyFacts,
        proof: Option<Proof>,
        method: Method,
        refused: Vec<Refused>,
    ) -> Choice {
        Choice {
            source: self.facts.source.clone(),
            copy: copy.name.clone(),
            kind: copy.kind,
            lo: proof.as_ref().map(|proof| proof.lo),
            fixed: copy.fixed,
            method,
            finished: proof.as_ref().map(|proof| proof.finished),
            at_least: proof.and_then(|proof| proof.position),
            token: self.token.cloned(),
            satisfied: method != Method::Unproved,
            bound: self.source.max_staleness,
            lag: self.lag(copy),
            refused,
        }
    }

    /// How far a copy lags, for people.
    fn lag(&self, copy: &CopyFacts) -> Lag {
        if copy.is_authoritative() {
            return Lag::default();
        }
        let drift = self.demand.policy.max_drift_ppm;
        let since = self.facts.complete_since(copy, self.now);
        Lag {
            proved: since.map(|lo| crate::asof::staleness(lo, self.now, drift)),
            usual: copy.lag.quantile(0.9),
        }
    }

    /// No copy is proved, and nothing cheap can change that.
    fn unmet(&self, standings: Vec<(&CopyFacts, Standing)>) -> PerSource {
        let refused: Vec<_> = standings
            .into_iter()
            .filter_map(|(copy, standing)| match standing {
                Standing::Refused(reason) => {
                    Some(Refused { copy: copy.name.clone(), reason, lag: self.lag(copy) })
                }
                _ => None,
            })
            .collect();
        match self.source.on_unmet {
            OnUnmet::Wait => match self.keep_trying() {
                Some(action) => PerSource::Need(action),
                None => PerSource::Refuse(self.refusal(refused)),
            },
            OnUnmet::Stale if self.demand.consistency != Consistency::AsOf => {
                match self.freshest(&refused) {
                    Some(choice) => PerSource::Read(choice),
                    None => PerSource::Refuse(self.refusal(refused)),
                }
            }
            _ => PerSource::Refuse(self.refusal(refused)),
        }
    }

    /// What `on_unmet = 'wait'` does next; `None` when its time is over.
    fn keep_trying(&self) -> Option<Action> {
        let end = self.end_of_wait(self.source.wait_timeout);
        if self.now >= end {
            return None;
        }
        let pause = self.demand.policy.retry_pause.max(Duration::from_millis(1));
        let until = end.min(self.now.after(pause));
        let source = self.facts.source.clone();
        let follows = |copy: &&CopyFacts| {
            !copy.is_authoritative() && copy.fixed.is_none() && self.excluded(copy).is_none()
        };
        let follower = self.facts.copies.iter().filter(follows).min_by_key(|copy| copy.cost);
        let target = self.target().map(|target| target.position.clone());
        // Probes that prove too little must not follow each other as fast as the source answers.
        let probed = self.facts.samples.newest().map(|newest| newest.stamp);
        let tried = probed.max(self.facts.probe_failed);
        Some(match (follower, target) {
            (Some(copy), Some(position)) => {
                Action::WaitFor { source, copy: copy.name.clone(), position, until }
            }
            (Some(_), None) if tried.is_none_or(|tried| self.now.since(tried) >= pause) => {
                Action::Probe { source, not_before: self.now }
            }
            _ => Action::Pause { source, until },
        })
    }

    /// What `on_unmet = 'stale'` serves: the copy that is proved since the latest moment. A token
    /// and a bounded skew hold all the same.
    fn freshest(&self, refused: &[Refused]) -> Option<Choice> {
        let candidates = self
            .facts
            .copies
            .iter()
            .filter(|copy| !copy.is_authoritative() && self.excluded(copy).is_none());
        let proofs = candidates.filter_map(|copy| {
            let proof = self.rules.proved(copy, self.facts, self.now);
            let skewed = match &proof {
                Some(proof) => {
                    matches!(self.shortfall(proof, copy.fixed), Some(Shortfall::Skewed(_)))
                }
                None => self.demand.consistency == Consistency::Bounded,
            };
            let position = copy.observed.as_ref().map_or(&Position::Unknown, |o| &o.position);
            let claimed = proof.clone().unwrap_or(Proof {
                lo: Moment::ORIGIN,
                finished: Moment::ORIGIN,
                position: None,
            });
            (!skewed && self.holds_token(position, &claimed)).then_some((copy, proof))
        });
        let (copy, proof) = proofs.max_by_key(|(_, proof)| proof.as_ref().map(|p| p.lo))?;
        let others = refused.iter().filter(|refused| refused.copy != copy.name).cloned().collect();
        Some(self.choice(copy, proof, Method::Unproved, others))
    }

    fn refusal(&self, copies: Vec<Refused>) -> SourceRefusal {
        let any =
            |test: fn(&CopyReason) -> bool| copies.iter().any(|refused| test(&refused.reason));
        let skewed = any(|reason| matches!(reason, CopyReason::Skewed { .. }));
        let comparable = any(|reason| {
            !matches!(
                reason,
                CopyReason::NoPosition
                    | CopyReason::Incomparable
                    | CopyReason::NotAskedFor
                    | CopyReason::Lacks(_)
            )
        });
        let bound = show(self.source.max_staleness);
        let (code, what) = if self.demand.consistency == Consistency::AsOf {
            (ErrorCode::FreshnessUnmet, "no copy shows read_timestamp".to_owned())
        } else if skewed {
            let what = format!("no copy keeps max_skew = '{}'", show(self.demand.max_skew));
            (ErrorCode::SkewExceeded, what)
        } else if comparable {
            (ErrorCode::FreshnessUnmet, format!("no copy proves max_staleness = '{bound}'"))
        } else {
            (ErrorCode::FreshnessUnprovable, format!("no copy can prove max_staleness = '{bound}'"))
        };
        SourceRefusal { source: self.facts.source.clone(), code, what, copies }
    }
}

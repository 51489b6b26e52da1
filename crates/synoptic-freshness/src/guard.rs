//! When the read starts: the bound again, the copy's own word, and at last the receipt.

use std::time::Duration;

use synoptic_types::{AsOf, Consistency, CopyName, ErrorCode, Moment, Position, SourceName};

use crate::Lineage;
use crate::decision::{Choice, CopyReason, Lag, Method, Refusal, Refused, SourceRefusal};
use crate::demand::{Demand, ReadAt};
use crate::facts::SourceFacts;
use crate::position::Relation;
use crate::rules::{Proof, Rules, TheRules};
use crate::standing::{Ask, Shortfall};
use crate::token::{Token, TokenError};

/// Whether a read may start.
#[derive(Debug, Clone, PartialEq)]
pub enum Guard {
    /// Pin the snapshot now, then ask for the position once more and call [`opened`].
    Go(Guarded),
    /// The choice does not hold any more: choose again, without this copy if it failed.
    Again(Again),
    /// What the token stands for is gone.
    Refuse(Refusal),
}

/// Why a choice does not hold any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Again {
    /// The copy.
    pub copy: CopyName,
    /// What is wrong with it now.
    pub reason: CopyReason,
}

/// A read that may start.
#[derive(Debug, Clone, PartialEq)]
pub struct Guarded {
    source: SourceName,
    copy: CopyName,
    method: Method,
    lo: Option<Moment>,
    fixed: Option<AsOf>,
    read_at: Option<AsOf>,
    position: Position,
    lineage: Lineage,
    satisfied: bool,
    bound: Duration,
    staleness: Option<Duration>,
}

/// What the chosen copy says when its read starts.
#[derive(Debug, Clone, Copy)]
pub struct ReadStart<'a> {
    /// When we began to ask. A strong read is complete since then: not since a later moment,
    /// because files are read as the manifest was that came with the answer.
    pub began: Moment,
    /// Its answer, on the reading connection, in a query of its own, before the snapshot is
    /// pinned. For something kept it is the position it was kept with.
    pub position: &'a Position,
    /// The log's history: from the authoritative copy with its answer, else that of the facts.
    pub lineage: &'a Lineage,
}

/// Checks a choice when its read starts: after queueing, and at DoGet with the ticket's arrival as
/// `demand.arrival`. `now` is read after the copy's answer.
pub fn recheck(
    choice: &Choice,
    facts: &SourceFacts,
    demand: &Demand,
    start: ReadStart<'_>,
    now: Moment,
) -> Guard {
    recheck_by(&TheRules, choice, facts, demand, start, now)
}

pub(crate) fn recheck_by<R: Rules>(
    rules: &R,
    choice: &Choice,
    facts: &SourceFacts,
    demand: &Demand,
    ReadStart { began, position, lineage }: ReadStart<'_>,
    now: Moment,
) -> Guard {
    let again = |reason| Guard::Again(Again { copy: choice.copy.clone(), reason });
    let strong = choice.method == Method::StrongRead;
    if let Some(wanted) = &choice.at_least
        && rules.relate(position, wanted, lineage) != Relation::Covers
    {
        return again(CopyReason::MovedBack);
    }
    if let Some(bound) = choice.token.as_ref().filter(|bound| bound.has_points())
        && bound.relation_by(rules, position, lineage) != Relation::Covers
    {
        if strong && rules.doubts_lost_history() {
            return Guard::Refuse(lost(choice, position));
        }
        if !strong {
            return again(CopyReason::TokenNotReached);
        }
    }
    let lo = if strong { Some(began) } else { choice.lo };
    let drift = demand.policy.max_drift_ppm;
    let staleness = lo.map(|lo| {
        let hi = choice.fixed.map_or(now, |kept| kept.hi.max(lo));
        rules.staleness(AsOf { lo, hi }, now, drift)
    });
    if choice.satisfied && rules.guards_again() {
        let Some(source) = demand.sources.iter().find(|s| s.source == choice.source) else {
            return again(CopyReason::NotAskedFor);
        };
        let proof = Proof {
            lo: lo.unwrap_or(Moment::ORIGIN),
            finished: choice.finished.or(lo).unwrap_or(Moment::ORIGIN),
            position: None,
        };
        let ask = Ask { rules, facts, demand, source, token: None, now };
        match ask.shortfall(&proof, choice.fixed) {
            None => {}
            Some(Shortfall::Stale) => {
                return again(CopyReason::Stale {
                    proved: staleness.unwrap_or(Duration::MAX),
                    bound: choice.bound,
                    lag: None,
                });
            }
            Some(Shortfall::Skewed(skew)) => {
                return again(CopyReason::Skewed { skew, max_skew: demand.max_skew });
            }
        }
    }
    Guard::Go(Guarded {
        source: choice.source.clone(),
        copy: choice.copy.clone(),
        method: choice.method,
        lo,
        fixed: choice.fixed,
        read_at: match (demand.consistency, demand.read_at) {
            (Consistency::AsOf, Some(ReadAt::Within(moments))) => Some(moments),
            _ => None,
        },
        position: position.clone(),
        lineage: lineage.clone(),
        satisfied: choice.satisfied,
        bound: choice.bound,
        staleness,
    })
}

fn lost(choice: &Choice, position: &Position) -> Refusal {
    Refusal::of(vec![SourceRefusal {
        source: choice.source.clone(),
        code: ErrorCode::TokenLost,
        what: format!(
            "the history the token comes from does not lead to the present one, which is at \
             {position}"
        ),
        copies: Vec::new(),
    }])
}

/// One source whose snapshot stands: what its receipt says.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// The source.
    pub source: SourceName,
    /// The copy.
    pub copy: CopyName,
    /// How it was proved.
    pub method: Method,
    /// What the copy had applied before the snapshot was pinned: what the receipt names.
    pub position: Position,
    /// What the snapshot may show: asked after it was pinned. Tokens are made of it.
    pub seen: Position,
    /// The log's history.
    pub lineage: Lineage,
    /// Its interval; `lo` is the origin when nothing is proved.
    pub as_of: AsOf,
    /// The most it can have been stale when the read started; `None` when nothing is proved.
    pub staleness: Option<Duration>,
    /// The bound.
    pub bound: Duration,
    /// Whether it was met.
    pub satisfied: bool,
}

/// The snapshot of a guarded read stands. `seen` is the copy's position asked after that (for a
/// version, the same version again), and `now` was read after that.
pub fn opened(guarded: Guarded, seen: Position, now: Moment) -> Opened {
    let lo = guarded.lo.unwrap_or(Moment::ORIGIN);
    let hi = guarded.fixed.map_or(now, |kept| kept.hi).max(lo);
    Opened {
        source: guarded.source,
        copy: guarded.copy,
        method: guarded.method,
        position: guarded.position,
        seen,
        lineage: guarded.lineage,
        as_of: guarded.read_at.unwrap_or(AsOf { lo, hi }),
        staleness: guarded.staleness,
        bound: guarded.bound,
        satisfied: guarded.satisfied,
    }
}

/// What holds for the statement as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// How far apart the copies can be: greatest `hi` − least `lo`.
    pub skew: Duration,
    /// What a later read must include to see at least this much.
    pub token: Token,
}

/// All snapshots stand: the skew, judged when `consistency = 'bounded'`, and the token.
///
/// Called behind a barrier, before the first row is read.
///
/// # Errors
/// `[SKEW_EXCEEDED]` naming each source's interval; `[TOKEN_LOST]` when the session has lived
/// through more promotions than a token can name.
pub fn settle(opened: &[Opened], demand: &Demand) -> Result<Settled, Refusal> {
    settle_by(&TheRules, opened, demand)
}

pub(crate) fn settle_by<R: Rules>(
    rules: &R,
    opened: &[Opened],
    demand: &Demand,
) -> Result<Settled, Refusal> {
    let drift = demand.policy.max_drift_ppm;
    let intervals: Vec<_> = opened.iter().map(|opened| opened.as_of).collect();
    let skew = rules.skew(&intervals, drift);
    if demand.consistency == Consistency::Bounded && skew > demand.max_skew {
        let reason = CopyReason::Skewed { skew, max_skew: demand.max_skew };
        let refused = opened.iter().map(|opened| SourceRefusal {
            source: opened.source.clone(),
            code: ErrorCode::SkewExceeded,
            what: "the snapshots are too far apart".to_owned(),
            copies: vec![Refused {
                copy: opened.copy.clone(),
                reason: reason.clone(),
                lag: Lag::default(),
            }],
        });
        return Err(Refusal::of(refused.collect()));
    }
    let mut token = demand.token.clone().unwrap_or_default();
    for opened in opened {
        token.advance_by(rules, &opened.source, &opened.seen, &opened.lineage).map_err(
            |error| {
                let code = match error {
                    TokenError::TooManyEpochs => ErrorCode::TokenLost,
                    other => other.code(),
                };
                Refusal::of(vec![SourceRefusal {
                    source: opened.source.clone(),
                    code,
                    what: error.to_string(),
                    copies: Vec::new(),
                }])
            },
        )?;
    }
    Ok(Settled { skew, token })
}

//! The moment the read starts: every snapshot is pinned, the bound is checked again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use synoptic_freshness::{
    Choice, CopyReason, Guard, Opened, ReadStart, Settled, Shown, opened, recheck, settle,
};
use synoptic_source::{Pinned, Snapshot, SourceError};
use synoptic_types::{CopyKind, ErrorCode, Moment, SourceName};

use crate::engine::Engine;
use crate::error::{Error, Result};

use super::{Chosen, ChosenSource};

/// A plan is run as it was made when it is run within this time; a statement that begins later
/// arrives anew, so that a ticket that was kept does not show an old state as a strong read.
const PLAN_HOLDS: Duration = Duration::from_secs(1);

/// What became of the attempt.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Every snapshot stands.
    Open(Reading),
    /// A choice does not hold any more, or its copy does not answer: plan again.
    Again(Error),
}

/// What a statement reads, once all its snapshots stand.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(super) opened: Vec<Opened>,
    pub(super) settled: Settled,
    pub(super) shown: Shown,
    /// Whether every source says that its tables are exactly as they were described.
    confirmed: bool,
}

impl Reading {
    pub(crate) fn settled(&self) -> &Settled {
        &self.settled
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed
    }
}

/// Pins the snapshots of a statement, side by side, and checks every choice with what the copies
/// say. With `reads` there is one scan, which is opened next and as it was planned. The caller bounds
/// the time.
///
/// # Errors
/// When the skew is too large, the token is lost, or a source that has no other copy fails.
pub(crate) async fn open(
    engine: &Engine,
    chosen: &Chosen,
    snapshots: &[(SourceName, Arc<dyn Snapshot>)],
    reads: bool,
) -> Result<Opening> {
    let started = engine.now();
    let mut demand = chosen.demand.clone();
    if started.since(chosen.began) > PLAN_HOLDS {
        demand.arrival = started;
        if let Some((source, _)) = snapshots.iter().find(|(_, s)| s.is_fixed_by_planning()) {
            return Ok(Opening::Again(Error::new(
                ErrorCode::FreshnessUnmet,
                format!("source '{source}': what was planned to be read is not the present state"),
            )));
        }
    }
    let pins = snapshots.iter().filter_map(|(source, snapshot)| {
        let (choice, source) = (chosen.choice(source)?, chosen.sources.get(source)?);
        // What planning listed is complete since planning began, anything else since now.
        let began = snapshot.is_fixed_by_planning().then_some(chosen.began);
        // The answer to a question that reads at once may come only when the reading is done, by
        // when a replica would seem staler than it was. A read of the authoritative copy is fresh
        // from the moment it began.
        let reads = reads && choice.kind == CopyKind::Authoritative;
        Some(pin(engine, (choice, source), began, (snapshot.as_ref(), reads)))
    });
    let (mut all, mut confirmed) = (Vec::new(), true);
    for ((choice, source), began, pinned) in join_all(pins).await {
        let pinned = match pinned {
            Ok(pinned) => pinned,
            Err(error) => return failed(choice, source, began, error),
        };
        if let Some(again) = deposed(choice, source, began, &pinned) {
            return Ok(Opening::Again(again));
        }
        // Of the others the tables were asked for when the statement was planned.
        confirmed &= pinned.confirmed || !source.entry.source().confirms_tables();
        let facts = source.copies.watch().facts();
        let lineage = match choice.kind {
            CopyKind::Authoritative => &pinned.before.lineage,
            _ => &facts.lineage,
        };
        let start = ReadStart { began, position: &pinned.before.position, lineage };
        match recheck(choice, &facts, &demand, start, engine.now()) {
            Guard::Go(guarded) => {
                all.push(opened(guarded, pinned.after.position, engine.now()));
            }
            Guard::Again(again) => {
                let code = match again.reason {
                    CopyReason::Skewed { .. } => ErrorCode::SkewExceeded,
                    _ => ErrorCode::FreshnessUnmet,
                };
                return Ok(Opening::Again(Error::new(
                    code,
                    format!("source '{}': copy '{}' {}", choice.source, again.copy, again.reason),
                )));
            }
            Guard::Refuse(refusal) => {
                engine.counters().refused(&refusal, engine.now().since(started));
                return Err(Error::new(refusal.code, refusal.to_string()));
            }
        }
    }
    let settled = settle(&all, &demand).map_err(|refusal| {
        engine.counters().refused(&refusal, engine.now().since(started));
        Error::new(refusal.code, refusal.to_string())
    })?;
    let now = engine.now();
    let at = (now, engine.clock().now());
    let clock_error = engine.wall_time().ok().map(|reading| reading.error());
    let shown = Shown { at, clock_error, took: now.since(started) };
    Ok(Opening::Open(Reading { opened: all, settled, shown, confirmed }))
}

async fn pin<C>(
    engine: &Engine,
    chosen: C,
    began: Option<Moment>,
    (snapshot, reads): (&dyn Snapshot, bool),
) -> (C, Moment, synoptic_source::Result<Pinned>) {
    let began = began.unwrap_or_else(|| engine.now());
    let pinned = match reads {
        true => snapshot.pin_for_its_scan().await,
        false => snapshot.pin().await,
    };
    (chosen, began, pinned)
}

/// A copy that does not answer is one reason to choose again, if there are others.
fn failed(
    choice: &Choice,
    source: &ChosenSource,
    began: Moment,
    error: SourceError,
) -> Result<Opening> {
    let error = Error::from(error.in_source(&choice.source));
    if error.code() == ErrorCode::SourceUnavailable && source.copies.has_replicas() {
        source.copies.watch().failed(&choice.copy, began, error.message());
        return Ok(Opening::Again(error));
    }
    Err(error)
}

/// The authoritative copy says that it follows another node: after a promotion, say.
fn deposed(
    choice: &Choice,
    source: &ChosenSource,
    began: Moment,
    pinned: &Pinned,
) -> Option<Error> {
    let authoritative = choice.kind == CopyKind::Authoritative;
    if !(authoritative && pinned.before.follows && source.copies.has_replicas()) {
        return None;
    }
    let why = "it follows another node, so it is not the authoritative copy any more";
    source.copies.watch().failed(&choice.copy, began, why);
    let name = &choice.source;
    Some(Error::new(ErrorCode::SourceUnavailable, format!("source '{name}': {why}")))
}

//! What a receipt says of copies, in the words of the contract, section 6.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use synoptic_freshness::{Choice, Method, Opened, Token};
use synoptic_source::ScanVersion;
use synoptic_types::{Moment, SourceName};

use crate::engine::Engine;

use super::{Choices, Reading};

/// The columns of one scan that come from its copy. Before the read starts it says what was
/// chosen, and the fields that only the read can tell are absent.
#[derive(Debug, Clone, Serialize)]
pub struct CopyColumns {
    /// The copy that is read.
    pub copy: String,
    /// What it is to its source: `authoritative`, `replica`, …
    pub kind: &'static str,
    /// What the copy had applied before the snapshot was taken.
    pub position: Option<String>,
    /// Everything visible at the source before is in the answer.
    pub as_of_lo: Option<DateTime<Utc>>,
    /// Nothing committed at the source afterwards is in the answer.
    pub as_of_hi: Option<DateTime<Utc>>,
    /// The most it can have been stale when the read started, in milliseconds.
    pub staleness_ms: Option<f64>,
    /// The bound, in milliseconds.
    pub bound_ms: f64,
    /// Whether the bound is met.
    pub satisfied: bool,
    /// How that is proved.
    pub method: &'static str,
    /// How far our wall clock can be from true time; unknown when it is not synchronised. The
    /// proof does not use it: the times of the interval do.
    pub clock_error_ms: Option<f64>,
    /// How long choosing and opening took, in milliseconds.
    pub waited_ms: f64,
    /// How often the statement was planned.
    pub attempts: u32,
    /// Whether the read was hedged; never, in this version.
    pub hedged: bool,
    /// What the cache had to do with it; `none` in this version.
    pub cache: &'static str,
    /// Why the answer is less than was asked for, when it is.
    pub degraded_reason: Option<String>,
}

impl Default for CopyColumns {
    /// A read outside a statement of the engine, of which nothing is claimed.
    fn default() -> Self {
        Self {
            copy: "primary".to_owned(),
            kind: "authoritative",
            position: None,
            as_of_lo: None,
            as_of_hi: None,
            staleness_ms: None,
            bound_ms: 0.0,
            satisfied: false,
            method: Method::Unproved.as_str(),
            clock_error_ms: None,
            waited_ms: 0.0,
            attempts: 1,
            hedged: false,
            cache: "none",
            degraded_reason: None,
        }
    }
}

/// The columns of the whole statement.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StatementColumns {
    /// How far apart the copies can be, in milliseconds; absent until all snapshots stand.
    pub skew_ms: Option<f64>,
    /// What a later read must be given to see at least this much.
    pub token: Option<String>,
    /// The timestamp of what was written, when the clock is synchronised: a write that begins after
    /// this one was acknowledged has a later one, on whichever server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<DateTime<Utc>>,
}

impl CopyColumns {
    /// Of a scan that reads one of the states that its table keeps. One that was asked for is
    /// that state for ever: it claims nothing of the present.
    pub(crate) fn of_version(self, version: &ScanVersion) -> Self {
        let position = self.position.is_some().then(|| version.position.clone());
        if !version.asked {
            return Self { position, ..self };
        }
        Self {
            position,
            as_of_lo: None,
            as_of_hi: None,
            staleness_ms: None,
            method: "version",
            ..self
        }
    }
}

impl Choices {
    /// What is known of a source's copy, before and after the snapshots stand.
    pub(crate) fn columns(&self, source: &SourceName, reading: Option<&Reading>) -> CopyColumns {
        let Some(choice) = self.by_source.get(source) else { return CopyColumns::default() };
        let planned = CopyColumns {
            copy: choice.copy.to_string(),
            kind: choice.kind.as_str(),
            bound_ms: millis(choice.bound),
            satisfied: choice.satisfied,
            method: choice.method.as_str(),
            waited_ms: millis(self.waited),
            attempts: self.attempts,
            degraded_reason: degraded(choice),
            ..CopyColumns::default()
        };
        let opened = reading.and_then(|reading| {
            let opened = reading.opened.iter().find(|opened| opened.source == *source)?;
            Some((reading, opened))
        });
        match opened {
            None => planned,
            Some((reading, opened)) => read(planned, reading, opened),
        }
    }
}

fn read(planned: CopyColumns, reading: &Reading, opened: &Opened) -> CopyColumns {
    // The origin claims nothing.
    let claims = opened.as_of.lo > Moment::ORIGIN;
    CopyColumns {
        position: Some(opened.position.to_string()),
        as_of_lo: claims.then(|| reading.wall(opened.as_of.lo)).flatten(),
        as_of_hi: reading.wall(opened.as_of.hi),
        staleness_ms: opened.staleness.map(millis),
        bound_ms: millis(opened.bound),
        satisfied: opened.satisfied,
        method: opened.method.as_str(),
        clock_error_ms: reading.clock_error.map(millis),
        waited_ms: planned.waited_ms + millis(reading.took),
        ..planned
    }
}

fn degraded(choice: &Choice) -> Option<String> {
    if choice.satisfied {
        return None;
    }
    let why = |refused: &synoptic_freshness::Refused| {
        format!("copy '{}' {}", refused.copy, refused.reason)
    };
    let refused: Vec<_> = choice.refused.iter().map(why).collect();
    let others =
        if refused.is_empty() { String::new() } else { format!(": {}", refused.join("; ")) };
    Some(format!("nothing proves the bound, and on_unmet is 'stale'{others}"))
}

impl Reading {
    fn wall(&self, moment: Moment) -> Option<DateTime<Utc>> {
        let (now, wall) = self.at;
        let span = |d: Duration| TimeDelta::from_std(d).ok();
        wall.checked_sub_signed(span(now.since(moment))?)?
            .checked_add_signed(span(moment.since(now))?)
    }
}

impl StatementColumns {
    /// What holds for the statement as a whole: of what it read, and of what it wrote.
    pub(crate) fn of(reading: Option<&Reading>, written: &Token, engine: &Engine) -> Self {
        let mut token = reading.map(|reading| reading.settled.token.clone()).unwrap_or_default();
        if let Err(error) = token.merge(written) {
            tracing::warn!(%error, "what was written is not in the token");
        }
        let encoded = (!token.is_empty()).then(|| token.encode(engine.token_key()).ok()).flatten();
        let skew = reading
            .filter(|reading| !reading.opened.is_empty())
            .map(|reading| millis(reading.settled.skew));
        Self { skew_ms: skew, token: encoded, committed_at: None }
    }
}

fn millis(duration: Duration) -> f64 {
    // To the microsecond, rounded up: a staleness is never shown smaller than it is.
    duration.as_nanos().div_ceil(1000) as f64 / 1e3
}

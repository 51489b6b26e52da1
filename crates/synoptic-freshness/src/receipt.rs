//! What a receipt says, in the words of the contract, section 6.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use synoptic_types::Moment;

use crate::decision::{Choice, Method};
use crate::guard::{Opened, Settled};

/// What an answer says of where it came from. Serializes to the JSON of the contract.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The statement.
    pub query_id: String,
    /// What holds for the statement as a whole.
    #[serde(flatten)]
    pub statement: StatementColumns,
    /// One object per scan.
    pub scans: Vec<ScanReceipt>,
}

/// One scan of one table.
#[derive(Debug, Clone, Serialize)]
pub struct ScanReceipt {
    /// Its number in the statement, from 0.
    pub scan: usize,
    /// The source.
    pub source: String,
    /// Schema and table at the source.
    pub table: String,
    /// The copy that was read, and how fresh it was.
    #[serde(flatten)]
    pub copy: CopyColumns,
    /// Rows that left the source.
    pub rows: u64,
    /// Bytes that left the source.
    pub bytes: u64,
    /// The text sent to the source, with the keys that joins added while the statement ran; a
    /// text of thousands of keys is cut in the middle.
    pub remote_text: String,
}

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

impl CopyColumns {
    /// What is known once the copy is chosen, which took `waited`, at the `attempts`th time of
    /// planning.
    pub fn planned(choice: &Choice, waited: Duration, attempts: u32) -> Self {
        Self {
            copy: choice.copy.to_string(),
            kind: choice.kind.as_str(),
            bound_ms: millis(choice.bound),
            satisfied: choice.satisfied,
            method: choice.method.as_str(),
            waited_ms: millis(waited),
            attempts,
            degraded_reason: degraded(choice),
            ..Self::default()
        }
    }

    /// And once its snapshot stands.
    #[must_use]
    pub fn read(self, opened: &Opened, shown: &Shown) -> Self {
        // The origin claims nothing.
        let claims = opened.as_of.lo > Moment::ORIGIN;
        Self {
            position: Some(opened.position.to_string()),
            as_of_lo: claims.then(|| shown.wall(opened.as_of.lo)).flatten(),
            as_of_hi: shown.wall(opened.as_of.hi),
            staleness_ms: opened.staleness.map(millis),
            bound_ms: millis(opened.bound),
            satisfied: opened.satisfied,
            method: opened.method.as_str(),
            clock_error_ms: shown.clock_error.map(millis),
            waited_ms: self.waited_ms + millis(shown.took),
            ..self
        }
    }
}

/// How a receipt shows its moments.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// One look at both clocks, to show moments as wall time.
    pub at: (Moment, DateTime<Utc>),
    /// How far the wall clock can be from true time, when that has a bound.
    pub clock_error: Option<Duration>,
    /// From the start of pinning to the last snapshot.
    pub took: Duration,
}

impl Shown {
    fn wall(&self, moment: Moment) -> Option<DateTime<Utc>> {
        let (now, wall) = self.at;
        let span = |d: Duration| TimeDelta::from_std(d).ok();
        wall.checked_sub_signed(span(now.since(moment))?)?
            .checked_add_signed(span(moment.since(now))?)
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

impl StatementColumns {
    /// Of what was read, and the signed token of what was read and written.
    pub fn of(settled: Option<&Settled>, token: Option<String>) -> Self {
        Self { skew_ms: settled.map(|settled| millis(settled.skew)), token, committed_at: None }
    }
}

fn degraded(choice: &Choice) -> Option<String> {
    if choice.satisfied {
        return None;
    }
    let why = |refused: &crate::Refused| format!("copy '{}' {}", refused.copy, refused.reason);
    let refused: Vec<_> = choice.refused.iter().map(why).collect();
    let others =
        if refused.is_empty() { String::new() } else { format!(": {}", refused.join("; ")) };
    Some(format!("nothing proves the bound, and on_unmet is 'stale'{others}"))
}

fn millis(duration: Duration) -> f64 {
    // To the microsecond, rounded up: a staleness is never shown smaller than it is.
    duration.as_nanos().div_ceil(1000) as f64 / 1e3
}

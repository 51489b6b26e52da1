//! Commit wait: a write is acknowledged when its timestamp is past on every clock.
//!
//! The rules are in `synoptic_freshness::clock`. Here they are asked before the commit, whether
//! waiting will be possible, and after it, until it is over.

use std::time::Duration;

use synoptic_freshness::clock::CommitWait;
use synoptic_types::{ErrorCode, format_duration};

use crate::engine::Engine;
use crate::error::{Error, Result};

/// Refuses a write whose commit could not be acknowledged in time. Nothing is written by then.
///
/// # Errors
/// `[CLOCK_UNSYNCHRONIZED]`.
pub(super) fn check(engine: &Engine) -> Result<()> {
    let time = &engine.config().time;
    let reading = match engine.wall_time() {
        Ok(reading) => reading,
        Err(error) if time.required => {
            return Err(Error::new(
                error.code(),
                format!("a commit needs a timestamp, and nothing was written: {}", error.message()),
            ));
        }
        Err(_) => return Ok(()),
    };
    let needed = CommitWait::begin(&reading).remaining(&reading);
    // A clock that nobody asked for refuses nothing: the commit has no timestamp then.
    if needed <= time.max_commit_wait || !time.required {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::ClockUnsynchronized,
        format!(
            "this server's clock may be {} wrong, so that a commit would wait {}, longer than \
             clock.max_commit_wait ({}); nothing was written",
            format_duration(reading.error()),
            format_duration(needed),
            format_duration(time.max_commit_wait)
        ),
    ))
}

/// To be called when the commit is visible. Returns when its timestamp is past on every clock, with
/// the timestamp in nanoseconds since 1970; `None` when the clock's error has no bound, or nobody
/// asked for a timestamp and it would take longer than a commit may wait.
///
/// # Errors
/// When that takes longer than it may. The commit is done nevertheless.
pub(super) async fn wait(engine: &Engine) -> Result<Option<i64>> {
    let Ok(first) = engine.wall_time() else { return Ok(None) };
    let most = engine.config().time.max_commit_wait;
    let drift = engine.config().freshness.max_drift_ppm;
    let commit = CommitWait::begin(&first);
    if !engine.config().time.required && commit.remaining(&first) > most {
        return Ok(None);
    }
    loop {
        // The clock may be lost by now, or be known to be worse; what was known holds, by the
        // monotonic clock.
        let left = commit.remaining(&first.later(engine.now(), drift));
        if left.is_zero() {
            return Ok(Some(commit.stamp()));
        }
        let waited = engine.now().since(first.at);
        // The clock got worse between the check and the commit, and some slack for timers.
        if waited.saturating_add(left) > most.saturating_mul(2) {
            return Err(Error::new(
                ErrorCode::Timeout,
                format!(
                    "the write is committed, do not send it again; its timestamp is past on every \
                     clock only in {}, longer than clock.max_commit_wait ({}) allows",
                    format_duration(left),
                    format_duration(most)
                ),
            ));
        }
        tokio::time::sleep(left.max(Duration::from_micros(10))).await;
    }
}

#[cfg(test)]
mod tests;

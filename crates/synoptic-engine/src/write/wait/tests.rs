//! Commit wait over virtual time: the runtime's clock is the truth, the wall clock is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use synoptic_catalog::Host;
use synoptic_freshness::clock::{BoundSource, ClockBound, Declared};
use synoptic_types::{Clock, Moment};
use tokio::time::Instant;

use super::*;
use crate::engine::{EngineConfig, WallClock};

const BOUND: Duration = Duration::from_millis(50);

/// A wall clock that is always wrong by as much.
#[derive(Debug)]
struct Wrong {
    began: Instant,
    by: TimeDelta,
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000, 0).expect("a time")
}

impl Wrong {
    fn truth(&self) -> DateTime<Utc> {
        noon() + TimeDelta::from_std(self.began.elapsed()).expect("short")
    }
}

impl Clock for Wrong {
    fn now(&self) -> DateTime<Utc> {
        self.truth() + self.by
    }
}

fn engine(
    by: TimeDelta,
    bounds: Arc<dyn BoundSource>,
    most: Duration,
) -> (Arc<Wrong>, Arc<Engine>) {
    let clock = Arc::new(Wrong { began: Instant::now(), by });
    let time = WallClock { bounds, required: true, max_commit_wait: most };
    let config = EngineConfig { target_partitions: 1, time, ..EngineConfig::default() };
    let (shared, host) = (Arc::clone(&clock), Host::new(vec![]));
    let engine = Engine::new(config, host, shared).expect("an engine");
    (clock, engine)
}

/// Commits on a server whose clock is wrong by each of several amounts, then on one whose clock is
/// exactly as wrong the other way: what is wrong with the order of the two, if anything.
async fn order(wait: impl AsyncFn(&Engine) -> i64) -> Result<(), String> {
    for micros in [-50_000, -49_000, -20_000, 0, 1, 30_000, 50_000] {
        let by = TimeDelta::microseconds(micros);
        let bounds = || Arc::new(Declared(BOUND));
        let (clock, first) = engine(by, bounds(), Duration::from_secs(1));
        let (_, mut second) = engine(-by, bounds(), Duration::from_secs(1));
        let visible = clock.truth();
        let stamp = DateTime::from_timestamp_nanos(wait(&first).await);
        if stamp < visible {
            return Err(format!("{micros}: stamped {stamp}, visible since {visible}"));
        }
        if stamp >= clock.truth() {
            return Err(format!("{micros}: acknowledged before {stamp} is past"));
        }
        // The other server's clock goes on from the same truth.
        let other = Arc::new(Wrong { began: clock.began, by: -by });
        let time = WallClock { bounds: bounds(), ..WallClock::default() };
        let config = EngineConfig { target_partitions: 1, time, ..EngineConfig::default() };
        second = Engine::new(config, Arc::clone(second.host()), other).expect("an engine");
        let next = DateTime::from_timestamp_nanos(wait(&second).await);
        if next <= stamp {
            return Err(format!("{micros}: {next} follows {stamp}"));
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_later_commit_has_the_later_timestamp_on_any_server() {
    let waits = async |engine: &Engine| wait(engine).await.expect("it ends").expect("a stamp");
    order(waits).await.expect("in order");
}

#[tokio::test(start_paused = true)]
async fn without_the_wait_the_order_is_broken() {
    let no_wait = async |engine: &Engine| {
        CommitWait::begin(&engine.wall_time().expect("it is declared")).stamp()
    };
    order(no_wait).await.expect_err("nobody waited");
    let half = async |engine: &Engine| {
        let reading = engine.wall_time().expect("it is declared");
        let commit = CommitWait::begin(&reading);
        tokio::time::sleep(commit.remaining(&reading) / 4).await;
        commit.stamp()
    };
    order(half).await.expect_err("nobody waited long enough");
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_twice_the_error_and_no_longer() {
    let (_, engine) = engine(TimeDelta::zero(), Arc::new(Declared(BOUND)), BOUND * 3);
    check(&engine).expect("100 ms are allowed");
    let began = Instant::now();
    wait(&engine).await.expect("it ends").expect("a stamp");
    let took = began.elapsed();
    assert!(took >= BOUND * 2 && took < BOUND * 2 + Duration::from_millis(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_would_wait_too_long_is_refused_before_the_commit() {
    let (_, engine) = engine(TimeDelta::zero(), Arc::new(Declared(BOUND)), BOUND);
    let error = check(&engine).expect_err("100 ms are too long");
    assert_eq!(error.code(), ErrorCode::ClockUnsynchronized);
    assert!(error.to_string().contains("clock.max_commit_wait (50ms)"), "{error}");
    assert!(error.to_string().contains("nothing was written"), "{error}");
}

/// A daemon that dies, or that finds out how wrong the clock is.
#[derive(Debug, Default)]
struct Failing {
    gone: AtomicBool,
    worse: AtomicBool,
}

impl BoundSource for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn bound(&self, now: Moment) -> Result<ClockBound, String> {
        if self.gone.load(Ordering::Relaxed) {
            return Err("the daemon is gone".to_owned());
        }
        let worse = if self.worse.load(Ordering::Relaxed) { 1000 } else { 1 };
        Declared(BOUND * worse).bound(now)
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_lost_meanwhile_does_not_hold_up_a_commit() {
    let bounds = Arc::new(Failing::default());
    let (_, engine) = engine(TimeDelta::zero(), bounds.clone(), Duration::from_secs(1));
    let losing = async {
        tokio::time::sleep(BOUND).await;
        bounds.gone.store(true, Ordering::Relaxed);
    };
    let began = Instant::now();
    let (waited, ()) = tokio::join!(wait(&engine), losing);
    assert!(waited.expect("it ends").is_some());
    assert!(began.elapsed() >= BOUND * 2);
    let error = check(&engine).expect_err("it is required");
    assert!(error.to_string().contains("the daemon is gone"), "{error}");
    assert!(error.to_string().contains("clock.max_offset"), "{error}");
    assert_eq!(wait(&engine).await.expect("nothing to wait for"), None);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_got_worse_before_the_commit_is_not_waited_for_for_ever() {
    let bounds = Arc::new(Failing::default());
    let (_, engine) = engine(TimeDelta::zero(), bounds.clone(), Duration::from_secs(1));
    check(&engine).expect("100 ms are allowed");
    bounds.worse.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let error = wait(&engine).await.expect_err("100 s are too long");
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert!(error.to_string().contains("committed, do not send it again"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

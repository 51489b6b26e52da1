//! Commit wait on two servers whose wall clocks are wrong within their bounds.

use std::time::Duration;

use synoptic_types::Moment;

use crate::clock::{ClockBound, ClockStatus, CommitWait};

use super::mutants::Broken;
use super::world::Random;

/// A server's wall clock: off by `error` at the start and drifting, in nanoseconds.
struct WallClock {
    bound: ClockBound,
    error: i64,
    drift_ppb: i64,
    /// From then on nobody steers it, and it may stand anywhere.
    lost_at: u64,
    jump: i64,
}

impl WallClock {
    fn random(random: &mut Random) -> Self {
        let bound = random.within(200_000, 10_000_000);
        let max_drift_ppb = random.within(100_000, 5_000_000) as u32;
        let extreme = random.chance(50);
        let part = |random: &mut Random, of: i64| {
            let whole = if random.chance(50) { of } else { -of };
            if extreme { whole } else { random.within(0, 1001) as i64 * whole / 1000 }
        };
        let lost_at = if random.chance(20) { random.within(0, 8_000_000_000) } else { u64::MAX };
        Self {
            error: part(random, bound as i64),
            drift_ppb: part(random, i64::from(max_drift_ppb)),
            lost_at,
            jump: random.within(0, 4_000_000_000) as i64 - 2_000_000_000,
            bound: ClockBound {
                status: ClockStatus::Synchronized,
                as_of: Moment::ORIGIN,
                void_after: Moment::from_nanos(60_000_000_000),
                bound: Duration::from_nanos(bound),
                max_drift_ppb,
            },
        }
    }

    fn shows(&self, time: u64) -> i64 {
        let drifted = (i128::from(time) * i128::from(self.drift_ppb) / 1_000_000_000) as i64;
        let jumped = if time >= self.lost_at { self.jump } else { 0 };
        time as i64 + self.error + drifted + jumped
    }

    fn bound(&self, time: u64) -> ClockBound {
        let lost = time >= self.lost_at;
        let status = if lost { ClockStatus::Unsynchronized } else { ClockStatus::Synchronized };
        ClockBound { status, ..self.bound }
    }
}

/// Runs a chain of commits, each begun after the one before was acknowledged. Times in ns.
pub(super) fn check(random: &mut Random, rules: Broken) -> Result<u64, String> {
    let clocks = [WallClock::random(random), WallClock::random(random)];
    let mut time = random.within(1_000, 2_000_000_000);
    let mut last: Option<i64> = None;
    let mut acknowledged = 0;
    for _ in 0..12 {
        let clock = &clocks[random.within(0, 2) as usize];
        let read = |time: u64| {
            clock.bound(time).read_by(&rules, clock.shows(time), Moment::from_nanos(time))
        };
        // The source has committed by now.
        let Ok(reading) = read(time) else {
            time += 100_000_000;
            continue;
        };
        let commit = CommitWait::begin_by(&rules, &reading);
        if last.is_some_and(|last| last >= commit.stamp()) {
            return Err(format!(
                "a commit that began after {last:?} was acknowledged is stamped {}",
                commit.stamp()
            ));
        }
        let mut reading = reading;
        let mut waits = 0;
        let passed = loop {
            if commit.passed_by(&rules, &reading) {
                break true;
            }
            let wait = u64::try_from(commit.remaining(&reading).as_nanos()).unwrap_or(u64::MAX);
            // A broken rule may be content with less than what `remaining` asks for.
            time += wait.clamp(1_000, 500_000);
            waits += 1;
            match read(time) {
                Ok(next) => reading = next,
                // The wall clock is lost; what it showed is not. The monotonic clock is exact here.
                Err(_) => reading = reading.later(Moment::from_nanos(time), 0),
            }
            if waits > 10_000 {
                return Err("a commit waits for ever".to_owned());
            }
        };
        if passed {
            if commit.stamp() > i64::try_from(time).unwrap_or(i64::MAX) {
                return Err(format!("{} is acknowledged at {time}", commit.stamp()));
            }
            last = Some(commit.stamp());
            acknowledged += 1;
        }
        time += random.within(1, 3_000_000);
    }
    Ok(acknowledged)
}

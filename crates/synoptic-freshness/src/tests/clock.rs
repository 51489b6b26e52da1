//! Wall time with its error, commit wait, and the arithmetic that claims less.

use std::time::Duration;

use proptest::prelude::*;
use synoptic_types::{AsOf, Moment};

use super::{at, ms};
use crate::asof::{at_most, skew, staleness, within};
use crate::clock::{
    BoundSource as _, ClockBound, ClockReading, ClockStatus, CommitWait, Declared, NoBound,
    Unsynchronized, WallInterval,
};

const NOON: i64 = 1_795_000_000_000_000_000;

fn bound(status: ClockStatus) -> ClockBound {
    ClockBound {
        status,
        as_of: at(0),
        void_after: at(1_000_000),
        bound: ms(2),
        max_drift_ppb: 50_000,
    }
}

fn declared(millis: u64) -> ClockBound {
    Declared(ms(millis)).bound(at(5)).expect("it is declared")
}

fn reading(earliest: i64, latest: i64) -> ClockReading {
    ClockReading { at: at(0), wall: WallInterval { earliest, latest } }
}

fn nanos(n: u64) -> Duration {
    Duration::from_nanos(n)
}

proptest! {
    /// A clock that runs wrong by up to `ppm` shows between `within` and `at_most` of true time.
    #[test]
    fn true_time_is_never_longer_than_at_most(
        truth in 0..u64::MAX / 4, ppm in 0..500_000_u32, slow in 0.0..1.0_f64
    ) {
        let error = u128::from((f64::from(ppm) * slow) as u32);
        let shown = (u128::from(truth) * (1_000_000 - error)).div_ceil(1_000_000);
        let shown = nanos(u64::try_from(shown).expect("less than the truth"));
        prop_assert!(at_most(shown, ppm) >= nanos(truth));
        prop_assert!(at_most(shown, ppm) >= shown);
        prop_assert!(within(nanos(truth), ppm) <= shown);
    }

    /// `within` is the longest that `at_most` lets pass.
    #[test]
    fn within_and_at_most_belong_together(allowed in 0..u64::MAX / 4, ppm in 0..1_000_001_u32) {
        let longest = within(nanos(allowed), ppm);
        prop_assert!(at_most(longest, ppm) <= nanos(allowed));
        prop_assert!(at_most(longest + nanos(1), ppm) > nanos(allowed));
    }

    #[test]
    fn skew_does_not_depend_on_the_order_and_never_shrinks(
        ends in prop::collection::vec((0..10_000_u64, 0..1_000_u64), 1..6), more in 0..10_000_u64
    ) {
        let mut answers: Vec<_> =
            ends.iter().map(|(lo, long)| AsOf { lo: at(*lo), hi: at(lo + long) }).collect();
        let before = skew(&answers, 600);
        prop_assert!(answers.iter().all(|answer| before >= answer.hi.since(answer.lo)));
        answers.reverse();
        prop_assert_eq!(skew(&answers, 600), before);
        answers.push(AsOf { lo: at(more), hi: at(more) });
        prop_assert!(skew(&answers, 600) >= before);
    }

    /// A moment's wall time, taken back to the monotonic clock, contains the moment.
    #[test]
    fn wall_time_and_back_contains_the_moment(
        moment in 0..10_000_u64, looked in 0..10_000_u64, error in 0..1_000_000_000_i64,
        ppm in 0..1_000_u32,
    ) {
        let wall = WallInterval { earliest: NOON - error, latest: NOON + error };
        let reading = ClockReading { at: at(looked), wall };
        let there = reading.wall_at(at(moment), ppm);
        prop_assert!(there.earliest <= there.latest);
        prop_assert!(there.width() >= wall.width(), "no certainty is gained");
        for timestamp in [there.earliest, there.latest] {
            let back = reading.moments_of(timestamp, ppm);
            prop_assert!(back.lo <= back.hi);
        }
        prop_assert!(reading.moments_of(there.earliest, ppm).lo <= at(moment));
        prop_assert!(reading.moments_of(there.latest, ppm).hi >= at(moment));
    }

    /// True time is within a reading, and within what it tells later, whenever the wall clock was
    /// read between the two looks at the monotonic one, and however fast that runs.
    #[test]
    fn true_time_is_within_a_look_and_within_what_it_tells_later(
        before in 0..10_000_u64, read in 0..1_000_u64, gap in 0..1_000_u64, wrong in -1.0..1.0_f64,
        bound in 0..50_000_000_i64, passes in 0..100_000_000_u64, rate in -1.0..1.0_f64,
    ) {
        let read = read.min(gap);
        // True time at the moment the wall clock was read, and what that showed.
        let truth = NOON;
        let shown = truth + (bound as f64 * wrong) as i64;
        let error = ClockBound { bound: nanos(bound.unsigned_abs()), ..declared(1) };
        let look = error
            .look(Moment::from_nanos(before), shown, Moment::from_nanos(before + gap))
            .expect("synchronised");
        let there = truth + i64::try_from(gap - read).expect("small");
        prop_assert!(look.wall.earliest <= there && there <= look.wall.latest);
        // 500 ppm of `passes`, rounded towards the truth's disadvantage.
        let elapsed = (passes as f64 * (1.0 + rate * 499e-6)) as u64;
        let later = look.later(Moment::from_nanos(before + gap + elapsed), 500);
        let there = there + i64::try_from(passes).expect("small");
        prop_assert!(later.wall.earliest <= there + 1 && there - 1 <= later.wall.latest);
        prop_assert!(later.wall.width() >= look.wall.width());
    }

    /// Anything a clock may show, and anything asked of it.
    #[test]
    fn no_clock_makes_it_panic(
        wall: i64, now: u64, as_of: u64, error: u64, drift: u32, moment: u64, timestamp: i64,
        ppm: u32,
    ) {
        let bound = ClockBound {
            status: ClockStatus::FreeRunning,
            as_of: Moment::from_nanos(as_of),
            void_after: Moment::from_nanos(u64::MAX),
            bound: nanos(error),
            max_drift_ppb: drift,
        };
        if let Ok(reading) = bound.read(wall, Moment::from_nanos(now)) {
            prop_assert!(reading.wall.earliest <= wall && wall <= reading.wall.latest);
            let there = reading.wall_at(Moment::from_nanos(moment), ppm);
            prop_assert!(there.width() >= Duration::ZERO);
            let when = reading.moments_of(timestamp, ppm);
            prop_assert!(when.lo <= when.hi);
            let wait = CommitWait::begin(&reading);
            prop_assert_eq!(wait.passed(&reading), wait.remaining(&reading).is_zero());
        }
    }

    /// Two nodes whose intervals both contain true time: what begins after the acknowledgement
    /// gets the greater stamp.
    #[test]
    fn a_commit_after_an_acknowledged_one_has_the_greater_stamp(
        errors in [0..1_000_000_i64, 0..1_000_000, 0..1_000_000, 0..1_000_000],
        passes in 0..3_000_000_i64,
        later in 0..10_i64,
    ) {
        let [early, late, early_then, early_there] = errors;
        let wait = CommitWait::begin(&reading(NOON - early, NOON + late));
        let acknowledged = NOON + passes;
        if wait.passed(&reading(acknowledged - early_then, acknowledged)) {
            // The other node's clock may be certain to the nanosecond.
            let begins = acknowledged + later;
            let next = CommitWait::begin(&reading(begins - early_there, begins));
            prop_assert!(next.stamp() > wait.stamp());
        }
    }
}

#[test]
fn an_error_grows_with_the_drift() {
    for status in [ClockStatus::Synchronized, ClockStatus::FreeRunning] {
        let at_once = bound(status).read(NOON, at(0)).expect("synchronised");
        assert_eq!(
            at_once.wall,
            WallInterval { earliest: NOON - 2_000_000, latest: NOON + 2_000_000 }
        );
        // 50 ppm of 10 s are half a millisecond.
        let later = bound(status).read(NOON, at(10_000)).expect("not void yet");
        assert_eq!(later.wall.width(), Duration::from_micros(5_000));
    }
}

#[test]
fn a_declared_error_holds_for_ever_and_no_bound_says_why() {
    let look = declared(50).read(NOON, at(1_000_000_000)).expect("it is declared");
    assert_eq!(look.error(), ms(50));
    assert_eq!(look.wall.width(), ms(100));
    let nothing = NoBound("the segment is gone".to_owned());
    assert_eq!(nothing.bound(at(1)), Err("the segment is gone".to_owned()));
    assert_eq!((Declared(ms(1)).name(), nothing.name()), ("declared", "none"));
}

#[test]
fn a_commit_is_acknowledged_by_the_monotonic_clock_when_the_wall_clock_is_lost() {
    let first = ClockReading {
        at: at(0),
        wall: WallInterval { earliest: NOON - 5_000_000, latest: NOON + 5_000_000 },
    };
    let wait = CommitWait::begin(&first);
    assert_eq!(wait.remaining(&first), nanos(10_000_001));
    assert!(!wait.passed(&first.later(at(10), 0)), "not at the very nanosecond");
    assert!(wait.passed(&first.later(at(11), 0)));
    assert!(!wait.passed(&first.later(at(11), 200_000)), "a fast clock shows more than has passed");
}

#[test]
fn a_clock_without_a_bound_is_not_read() {
    assert_eq!(bound(ClockStatus::Unsynchronized).read(NOON, at(1)), Err(Unsynchronized));
    for status in [ClockStatus::Synchronized, ClockStatus::FreeRunning] {
        assert!(bound(status).read(NOON, at(999_999)).is_ok());
        assert_eq!(bound(status).read(NOON, at(1_000_000)), Err(Unsynchronized), "void");
    }
    // An error of more than three hundred years is none.
    let silly = ClockBound { bound: Duration::MAX, ..bound(ClockStatus::Synchronized) };
    assert_eq!(silly.read(NOON, at(1)), Err(Unsynchronized));
    assert!(Unsynchronized.to_string().contains("clock.max_offset"));
}

#[test]
fn a_commit_waits_until_the_earliest_time_is_past_its_stamp() {
    let wait = CommitWait::begin(&reading(NOON - 100, NOON + 100));
    assert_eq!(wait.stamp(), NOON + 100);
    for (earliest, left) in [(NOON - 100, 201), (NOON + 100, 1), (NOON + 101, 0), (NOON + 500, 0)] {
        let now = reading(earliest, earliest + 10);
        assert_eq!(wait.remaining(&now), nanos(left));
        assert_eq!(wait.passed(&now), left == 0);
    }
}

#[test]
fn a_perfect_clock_waits_for_its_next_tick_and_the_last_stamp_for_ever() {
    let exact = reading(NOON, NOON);
    let wait = CommitWait::begin(&exact);
    assert_eq!((wait.passed(&exact), wait.remaining(&exact)), (false, nanos(1)));

    let end = reading(i64::MAX, i64::MAX);
    let wait = CommitWait::begin(&end);
    assert_eq!((wait.passed(&end), wait.remaining(&end)), (false, nanos(1)));
    let first = reading(i64::MIN, i64::MIN);
    assert!(!wait.passed(&first) && wait.remaining(&first) > Duration::from_secs(9_000_000_000));
}

#[test]
fn a_timestamp_is_past_from_its_latest_moment_on() {
    let look = ClockReading {
        at: at(1_000),
        wall: WallInterval { earliest: NOON - 5_000_000, latest: NOON + 5_000_000 },
    };
    let when = |wall| look.moments_of(wall, 0);
    assert_eq!(when(NOON), AsOf { lo: at(995), hi: at(1_005) });
    assert_eq!(when(NOON + 100_000_000), AsOf { lo: at(1_095), hi: at(1_105) });
    assert_eq!(when(NOON - 100_000_000), AsOf { lo: at(895), hi: at(905) });
    let wide = look.moments_of(NOON + 100_000_000, 1_000);
    assert!(wide.lo < at(1_095) && wide.hi > at(1_105));
}

#[test]
fn staleness_is_rounded_up_and_never_negative() {
    assert_eq!(staleness(at(0), at(1_000), 0), ms(1_000));
    assert_eq!(staleness(at(0), at(1_000), 600), nanos(1_000_600_361));
    assert_eq!(staleness(at(5), at(0), 600), Duration::ZERO);
    assert_eq!(skew(&[], 600), Duration::ZERO);
    // A clock that may be wrong altogether proves next to nothing, and does not divide by zero.
    assert!(at_most(ms(1), 1_000_000) >= ms(1_000_000));
    assert_eq!(at_most(Duration::MAX, u32::MAX), nanos(u64::MAX));
}

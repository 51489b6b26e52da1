//! The kernel's own bound on its clock: what `adjtimex` says, as whoever disciplines the clock
//! (chronyd, ntpd, systemd-timesyncd) has told it.
//!
//! `maxerror` is a bound and grows by 500 ppm until the daemon renews it; `esterror` is a guess and
//! is never looked at. `STA_UNSYNC` and `TIME_ERROR` mean that there is no bound: so it is in many
//! containers and virtual machines. See `adjtimex(2)` and RFC 1589.

use std::time::Duration;

use nix::libc;
use synoptic_freshness::clock::{BoundSource, ClockBound, ClockStatus};
use synoptic_types::Moment;

/// What the kernel lets `maxerror` grow by per second, in parts per billion.
const GROWTH_PPB: u32 = 500_000;

/// It grows in one step at the end of each second, so that up to a second's worth is not in it yet;
/// and it is in whole microseconds.
const NOT_COUNTED_YET: Duration = Duration::from_micros(501);

/// Where the kernel itself gives up: `NTP_PHASE_LIMIT`, in microseconds.
const PHASE_LIMIT: i64 = 16_000_000;

/// A bound that was read is used for no longer than this.
const HOLDS: Duration = Duration::from_secs(1);

/// The clock of the machine this runs on.
#[derive(Debug)]
pub(super) struct Kernel;

/// What one call of `adjtimex` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    /// What the call returns: the state of the clock, or −1.
    state: libc::c_int,
    status: libc::c_int,
    /// In microseconds.
    max_error: i64,
}

impl BoundSource for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn bound(&self, now: Moment) -> Result<ClockBound, String> {
        let error = bound_of(ask())?;
        Ok(ClockBound {
            status: ClockStatus::Synchronized,
            as_of: now,
            void_after: now.after(HOLDS),
            bound: error,
            max_drift_ppb: GROWTH_PPB,
        })
    }
}

/// The largest error of the clock at the moment it was asked about, or why there is none.
fn bound_of(said: Said) -> Result<Duration, String> {
    let refused = |why: &str| Err(format!("the kernel {why}"));
    match said.state {
        libc::TIME_ERROR => {
            return refused("says that its clock is not synchronised (TIME_ERROR)");
        }
        libc::TIME_OOP => return refused("is inserting a leap second"),
        libc::TIME_OK | libc::TIME_INS | libc::TIME_DEL | libc::TIME_WAIT => {}
        _ => return refused("does not say how far its clock may be wrong"),
    }
    if said.status & libc::STA_UNSYNC != 0 {
        return refused("says that its clock is not synchronised (STA_UNSYNC)");
    }
    if said.status & libc::STA_CLOCKERR != 0 {
        return refused("says that the hardware of its clock has a fault (STA_CLOCKERR)");
    }
    match u64::try_from(said.max_error) {
        Ok(micros) if said.max_error < PHASE_LIMIT => {
            Ok(Duration::from_micros(micros) + NOT_COUNTED_YET)
        }
        _ => refused("says that its clock may be wrong by any amount"),
    }
}

#[expect(unsafe_code, reason = "no crate that is kept up reads `maxerror`; one system call")]
fn ask() -> Said {
    // SAFETY: `timex` is a struct of integers, for which zeroes are values. With `modes = 0` the
    // call changes nothing but the struct it is given, which is ours.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    #[allow(clippy::useless_conversion, reason = "`long` has 32 bits on some machines")]
    let max_error = i64::from(timex.maxerror);
    Said { state, status: timex.status, max_error }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: Said = Said { state: libc::TIME_OK, status: libc::STA_PLL, max_error: 1_500 };

    #[test]
    fn a_synchronised_clock_has_its_largest_error() {
        let bound = bound_of(GOOD).expect("it is synchronised");
        assert_eq!(bound, Duration::from_micros(1_500 + 501));
        for state in [libc::TIME_INS, libc::TIME_DEL, libc::TIME_WAIT] {
            assert_eq!(bound_of(Said { state, ..GOOD }), Ok(bound), "a leap second is announced");
        }
    }

    #[test]
    fn a_clock_without_a_bound_is_refused_with_the_reason() {
        let unsynchronised = GOOD.status | libc::STA_UNSYNC;
        let broken = GOOD.status | libc::STA_CLOCKERR;
        for (said, part) in [
            (Said { state: libc::TIME_ERROR, ..GOOD }, "TIME_ERROR"),
            (Said { status: unsynchronised, ..GOOD }, "STA_UNSYNC"),
            (Said { status: broken, ..GOOD }, "STA_CLOCKERR"),
            (Said { state: libc::TIME_OOP, ..GOOD }, "leap second"),
            (Said { state: -1, ..GOOD }, "does not say"),
            (Said { state: 17, ..GOOD }, "does not say"),
            (Said { max_error: -1, ..GOOD }, "any amount"),
            (Said { max_error: PHASE_LIMIT, ..GOOD }, "any amount"),
            (Said { max_error: i64::MAX, ..GOOD }, "any amount"),
        ] {
            assert!(bound_of(said).is_err_and(|why| why.contains(part)), "{said:?}");
        }
    }

    proptest! {
        /// Whatever the kernel says, a bound is never less than its largest error.
        #[test]
        fn a_bound_is_never_less_than_the_largest_error(
            state in -1..8_i32, status in any::<i32>(), max_error in any::<i64>(),
        ) {
            if let Ok(bound) = bound_of(Said { state, status, max_error }) {
                prop_assert!(status & libc::STA_UNSYNC == 0 && state != libc::TIME_ERROR);
                prop_assert!(bound.as_micros() >= u128::from(max_error.unsigned_abs()));
            }
        }
    }

    /// On whatever machine this runs: a bound, or a reason, and never a bound that does not grow.
    #[test]
    fn this_machine_is_asked() {
        let now = Moment::from_nanos(3_600_000_000_000);
        match Kernel.bound(now) {
            Ok(bound) => {
                let at = |later: u64| bound.read(0, now.after(Duration::from_millis(later)));
                let (first, then) = (at(0).expect("now"), at(900).expect("within a second"));
                assert!(first.error() < then.error() && then.error() < Duration::from_secs(17));
                assert!(at(1_000).is_err(), "the kernel is to be asked again");
            }
            Err(why) => assert!(why.starts_with("the kernel "), "{why}"),
        }
    }
}

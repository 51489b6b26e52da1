//! The rules, each broken once.

use std::time::Duration;

use synoptic_types::{AsOf, Epoch, Moment, Position};

use crate::Lineage;
use crate::asof;
use crate::clock::WallInterval;
use crate::facts::{CopyFacts, SourceFacts};
use crate::position::{Relation, relate};
use crate::rules::{Proof, Rules, TheRules};

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A broken rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Mutant { $($(#[$doc])* $name,)* }

        impl Mutant {
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

mutants! {
    /// A probe is stamped when its answer is back.
    StampAtProbeReturn,
    /// The head of the log is what is flushed.
    FlushedIsHead,
    /// Addresses are compared without their timeline.
    BareAddresses,
    /// A standby that has replayed all it received is taken to be at the head.
    ReceivedIsReplayed,
    /// The copy's own word for its lag is believed.
    SourceTimestampProves,
    /// The position is read in the statement that reads the data.
    PositionWithTheData,
    /// The bound is judged when planning only.
    NoRecheck,
    /// Staleness is counted from the middle of the interval.
    StalenessFromMidpoint,
    /// The rate error of our clock is forgotten.
    NoDrift,
    /// Commits are acknowledged at once.
    NoCommitWait,
    /// Commits wait half the interval.
    CommitWaitsHalf,
    /// Commits are stamped with the middle of the interval.
    CommitStampMidpoint,
    /// A clock that is not synchronised is used.
    UnsynchronizedClock,
    /// The error of a clock does not grow.
    ErrorDoesNotGrow,
    /// A fence is shared with those who arrived after it started.
    FenceFromBeforeArrival,
    /// Tokens keep the greatest address whatever its timeline.
    TokenWithoutEpoch,
    /// Tokens are made of the position from before the snapshot.
    TokenFromBeforeSnapshot,
    /// A timeline that does not lead to the present one is hoped to be included.
    LostHistoryIsFine,
    /// What is kept counts as complete since it was put into the cache.
    KeptSinceInsertion,
    /// What was read at the head of a log is proved again by its insert address.
    KeptAtInsertAddress,
    /// Skew is counted between the middles of the intervals.
    SkewFromMidpoints,
    /// The upper end is stamped before the snapshot stands.
    UpperEndAtStart,
    /// A copy without a position is taken to be at the head.
    UnknownIsFresh,
    /// Any other version counts as a later one.
    OtherVersionIsLater,
}

/// The rules with at most one of them broken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broken(pub(super) Option<Mutant>);

impl Broken {
    pub(super) fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }
}

fn middle(a: u64, b: u64) -> Moment {
    Moment::from_nanos(a / 2 + b / 2)
}

impl Rules for Broken {
    fn stamp(&self, started: Moment, finished: Moment) -> Moment {
        if self.is(Mutant::StampAtProbeReturn) { finished } else { started }
    }

    fn relate(&self, copy: &Position, wanted: &Position, lineage: &Lineage) -> Relation {
        match (copy, wanted) {
            (Position::Log { lsn: copy, .. }, Position::Log { lsn: wanted, .. })
                if self.is(Mutant::BareAddresses) =>
            {
                if copy >= wanted {
                    Relation::Covers
                } else {
                    Relation::Behind
                }
            }
            (Position::Version(_), Position::Version(_))
                if self.is(Mutant::OtherVersionIsLater) =>
            {
                Relation::Covers
            }
            _ => relate(copy, wanted, lineage),
        }
    }

    fn proved(&self, copy: &CopyFacts, facts: &SourceFacts, now: Moment) -> Option<Proof> {
        let observed = copy.observed.as_ref()?;
        let claim = |lo| Some(Proof { lo, finished: lo, position: None });
        if self.is(Mutant::ReceivedIsReplayed)
            && observed.received.as_ref() == Some(&observed.position)
        {
            return claim(observed.at);
        }
        if self.is(Mutant::SourceTimestampProves)
            && let Some(lag) = observed.reported_lag
        {
            return claim(observed.at.before(lag));
        }
        if self.is(Mutant::UnknownIsFresh) && observed.position == Position::Unknown {
            return claim(observed.at.max(copy.fixed.map_or(Moment::ORIGIN, |kept| kept.lo)));
        }
        struct Plain(Broken);
        impl Rules for Plain {
            fn relate(&self, copy: &Position, wanted: &Position, lineage: &Lineage) -> Relation {
                self.0.relate(copy, wanted, lineage)
            }
        }
        Plain(*self).proved(copy, facts, now)
    }

    fn since_arrival(&self, lo: Moment, finished: Moment, arrival: Moment) -> bool {
        lo >= arrival || (self.is(Mutant::FenceFromBeforeArrival) && finished >= arrival)
    }

    fn staleness(&self, as_of: AsOf, now: Moment, max_drift_ppm: u32) -> Duration {
        let lo = if self.is(Mutant::StalenessFromMidpoint) {
            middle(as_of.lo.nanos(), as_of.hi.nanos())
        } else {
            as_of.lo
        };
        asof::staleness(lo, now, if self.is(Mutant::NoDrift) { 0 } else { max_drift_ppm })
    }

    fn skew(&self, answers: &[AsOf], max_drift_ppm: u32) -> Duration {
        if !self.is(Mutant::SkewFromMidpoints) {
            return TheRules.skew(answers, max_drift_ppm);
        }
        let middles = answers.iter().map(|answer| {
            let at = middle(answer.lo.nanos(), answer.hi.nanos());
            AsOf { lo: at, hi: at }
        });
        asof::skew(&middles.collect::<Vec<_>>(), max_drift_ppm)
    }

    fn guards_again(&self) -> bool {
        !self.is(Mutant::NoRecheck)
    }

    fn doubts_lost_history(&self) -> bool {
        !self.is(Mutant::LostHistoryIsFine)
    }

    fn same_history(&self, a: Epoch, b: Epoch) -> bool {
        a == b || self.is(Mutant::TokenWithoutEpoch)
    }

    fn trusts_clock(&self, void: bool) -> bool {
        !void || self.is(Mutant::UnsynchronizedClock)
    }

    fn clock_error(&self, bound: Duration, elapsed: Duration, max_drift_ppb: u32) -> Duration {
        let elapsed = if self.is(Mutant::ErrorDoesNotGrow) { Duration::ZERO } else { elapsed };
        TheRules.clock_error(bound, elapsed, max_drift_ppb)
    }

    fn commit_stamp(&self, clock: WallInterval) -> i64 {
        let middle = clock.earliest + (clock.latest - clock.earliest) / 2;
        if self.is(Mutant::CommitStampMidpoint) { middle } else { clock.latest }
    }

    fn commit_passed(&self, stamp: i64, clock: WallInterval) -> bool {
        let middle = clock.earliest + (clock.latest - clock.earliest) / 2;
        match self.0 {
            Some(Mutant::NoCommitWait) => true,
            Some(Mutant::CommitWaitsHalf) => middle > stamp,
            _ => clock.earliest > stamp,
        }
    }
}

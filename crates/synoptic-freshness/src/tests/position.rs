//! "At or past" is a partial order, and what cannot be compared is never at or past.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use synoptic_types::{Lsn, Position};

use super::generate;
use crate::{Lineage, LowerBound, Relation, relate};

fn covers(copy: &Position, wanted: &Position, lineage: &Lineage) -> bool {
    relate(copy, wanted, lineage) == Relation::Covers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn whatever_is_known_covers_itself(
        a in generate::position(), lineage in generate::lineage()
    ) {
        prop_assert_eq!(covers(&a, &a, &lineage), a != Position::Unknown);
    }

    #[test]
    fn two_that_cover_each_other_are_the_same(
        a in generate::position(), b in generate::position(), lineage in generate::lineage()
    ) {
        if covers(&a, &b, &lineage) && covers(&b, &a, &lineage) {
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn covering_is_transitive(
        a in generate::position(), b in generate::position(), c in generate::position(),
        lineage in generate::lineage(),
    ) {
        if covers(&a, &b, &lineage) && covers(&b, &c, &lineage) {
            prop_assert!(covers(&a, &c, &lineage), "{a} covers {b} covers {c}");
        }
    }

    /// Other kinds, other systems, no position, timelines nobody told us of, versions that differ.
    #[test]
    fn what_cannot_be_compared_is_never_at_or_past(
        a in generate::position(), b in generate::position(), lineage in generate::lineage()
    ) {
        let comparable = match (&a, &b) {
            (Position::Log { epoch: a, .. }, Position::Log { epoch: b, .. }) => {
                a.system == b.system
                    && (a.timeline == b.timeline || lineage != Lineage::unknown())
            }
            (Position::Version(a), Position::Version(b)) => a == b,
            _ => false,
        };
        let relation = relate(&a, &b, &lineage);
        if !comparable {
            prop_assert_eq!(relation, Relation::Unknown);
        }
        // And it is unknown from both sides or from none.
        let back = relate(&b, &a, &lineage);
        prop_assert_eq!(relation == Relation::Unknown, back == Relation::Unknown);
    }

    /// Replaying more on the same timeline never loses what was held.
    #[test]
    fn going_on_loses_nothing(
        timeline in 1..6_u32, from in 0..100_u64, by in 0..100_u64,
        wanted in generate::position(), lineage in generate::lineage(),
    ) {
        if covers(&Position::log(1, timeline, from), &wanted, &lineage) {
            prop_assert!(covers(&Position::log(1, timeline, from + by), &wanted, &lineage));
        }
    }

    /// A bound asks for neither more nor less than both it was made of.
    #[test]
    fn a_merged_bound_is_the_least_above_both(
        a in prop::collection::vec(generate::position(), 0..4),
        b in prop::collection::vec(generate::position(), 0..4),
        at in generate::position(),
        lineage in generate::lineage(),
    ) {
        let bound = |points: &[Position]| {
            let mut bound = LowerBound::default();
            points.iter().for_each(|point| bound.include(point).expect("few epochs"));
            bound
        };
        let (a, b) = (bound(&a), bound(&b));
        let mut both = a.clone();
        prop_assume!(both.merge(&b).is_ok());
        let met = |bound: &LowerBound| bound.relation(&at, &lineage) == Relation::Covers;
        prop_assert_eq!(met(&both), met(&a) && met(&b));
    }

    /// What `advance` forgets was implied, whatever is read next under the same history.
    #[test]
    fn advancing_along_a_log_forgets_only_what_is_implied(
        points in prop::collection::vec(generate::position(), 0..5),
        to in generate::position(),
        next in generate::position(),
        lineage in generate::lineage(),
    ) {
        prop_assume!(!matches!(to, Position::Version(_)));
        let mut bound = LowerBound::default();
        points.iter().for_each(|point| bound.include(point).expect("few epochs"));
        let before = bound.clone();
        bound.advance(&to, &lineage).expect("few epochs");
        let met = |bound: &LowerBound| bound.relation(&next, &lineage) == Relation::Covers;
        if met(&bound) {
            prop_assert!(met(&before));
            let reached = to == Position::Unknown || covers(&next, &to, &lineage);
            prop_assert!(reached, "{next} does not cover {to}");
        }
    }
}

#[test]
fn a_promotion_parts_what_was_replayed_from_what_was_lost() {
    let lineage = Lineage::new(1, vec![(1, Lsn(30)), (2, Lsn(50))], 3);
    let log = |timeline, lsn| Position::log(1, timeline, lsn);
    for (copy, wanted, expected) in [
        (log(3, 60), log(1, 30), Relation::Covers),
        (log(3, 60), log(1, 31), Relation::Diverged),
        (log(3, 60), log(2, 50), Relation::Covers),
        (log(3, 60), log(3, 61), Relation::Behind),
        (log(1, 30), log(3, 60), Relation::Behind),
        (log(1, 31), log(3, 60), Relation::Diverged),
        (log(1, 31), log(3, 10), Relation::Diverged),
        // The same address on a later timeline is not reached by the earlier one.
        (log(2, 50), log(3, 50), Relation::Behind),
        (log(3, 60), log(4, 10), Relation::Unknown),
        (log(3, 60), Position::log(2, 3, 10), Relation::Unknown),
    ] {
        assert_eq!(relate(&copy, &wanted, &lineage), expected, "{copy} to {wanted}");
    }
}

#[test]
fn a_lineage_keeps_the_youngest_ancestors() {
    let ancestors = (1..=100).map(|timeline| (timeline, Lsn(u64::from(timeline) * 10))).collect();
    let lineage = Lineage::new(1, ancestors, 101);
    let head = Position::log(1, 101, 5_000);
    assert_eq!(relate(&head, &Position::log(1, 100, 1_000), &lineage), Relation::Covers);
    assert_eq!(relate(&head, &Position::log(1, 37, 370), &lineage), Relation::Covers);
    assert_eq!(relate(&head, &Position::log(1, 36, 360), &lineage), Relation::Unknown);
}

/// The order laws say little about positions that are never comparable.
#[test]
fn the_generated_positions_relate_in_every_way() {
    let mut runner = TestRunner::deterministic();
    let cases = (generate::position(), generate::position(), generate::lineage());
    let mut seen: BTreeMap<(String, bool), u32> = BTreeMap::new();
    for _ in 0..20_000 {
        let (a, b, lineage) = cases.new_tree(&mut runner).expect("a case").current();
        let same_timeline = match (&a, &b) {
            (Position::Log { epoch: a, .. }, Position::Log { epoch: b, .. }) => a == b,
            _ => continue,
        };
        let relation = format!("{:?}", relate(&a, &b, &lineage));
        *seen.entry((relation, same_timeline)).or_default() += 1;
    }
    println!("{seen:?}");
    for (relation, same_timeline) in [
        ("Covers", true),
        ("Behind", true),
        ("Covers", false),
        ("Behind", false),
        ("Diverged", false),
        ("Unknown", false),
    ] {
        let times = seen.get(&(relation.to_owned(), same_timeline)).copied().unwrap_or_default();
        assert!(times >= 200, "too few of {relation}, {same_timeline}: {seen:?}");
    }
}

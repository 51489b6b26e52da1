//! The choice: what it takes proves what was asked, and everything else has a reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use synoptic_types::{
    AsOf, Consistency, CopyKind, CopyName, ErrorCode, Moment, OnUnmet, Position, QueryOptions,
    SourceName,
};

use super::generate::{self, now, shared};
use super::{at, copy, demand, ms, source, staleness};
use crate::asof::at_most;
use crate::{
    Action, Choice, CopyReason, Decision, Demand, Facts, Health, Lineage, Method, Observed, Probe,
    ReadAt, Refusal, Relation, SourceFacts, Token, choose, relate,
};

/// What the documentation promises of a choice, judged without the code that chooses.
fn check(choice: &Choice, facts: &SourceFacts, demand: &Demand, now: Moment) {
    let asked = &demand.sources[0];
    let copy = facts.copy(&choice.copy).expect("a copy of the source");
    assert!(!matches!(copy.health, Health::Down(_)), "it does not answer");
    assert!(asked.lacking.iter().all(|(name, _)| *name != copy.name), "it lacks a table");
    assert!(asked.pinned.as_ref().is_none_or(|pinned| *pinned == copy.name), "another is pinned");
    assert_eq!(choice.bound, asked.max_staleness);
    assert_eq!(choice.satisfied, choice.method != Method::Unproved);
    let read_at = match (demand.consistency, demand.read_at) {
        (Consistency::AsOf, Some(ReadAt::Within(moments))) => {
            assert!(copy.time_travel);
            assert!(moments.hi <= now, "the future cannot be read");
            Some(moments)
        }
        (Consistency::AsOf, _) => panic!("read_timestamp without a clock"),
        _ => None,
    };
    if choice.method == Method::StrongRead {
        assert_eq!(copy.kind, CopyKind::Authoritative);
        return;
    }
    assert_ne!(copy.kind, CopyKind::Authoritative);
    let position = copy.observed.as_ref().map_or(&Position::Unknown, |seen| &seen.position);
    let lo = choice.lo.unwrap_or(Moment::ORIGIN);
    let by_sample = facts.samples.oldest_first().any(|sample| {
        sample.stamp == lo
            && choice.at_least.as_ref() == Some(&sample.position)
            && relate(position, &sample.position, &facts.lineage) == Relation::Covers
    });
    let by_read = copy.fixed.is_some_and(|kept| kept.lo == lo);
    assert!(by_sample || by_read || choice.lo.is_none(), "nothing proves {lo}");
    let age = at_most(now.since(lo), demand.policy.max_drift_ppm);
    let strong = lo >= demand.arrival;
    if choice.satisfied {
        assert!(choice.lo.is_some());
        match read_at {
            Some(moments) => assert!(lo >= moments.hi, "it may lack what read_timestamp shows"),
            None => assert!(strong || age <= asked.max_staleness, "{age:?} is too stale"),
        }
        assert_eq!(choice.method == Method::Fence, strong && !by_read);
    } else {
        assert_eq!(asked.on_unmet, OnUnmet::Stale);
    }
    if demand.consistency == Consistency::Bounded {
        assert!(age <= demand.max_skew, "{age:?} from the present");
    }
    if let Some(bound) = demand.token.as_ref().and_then(|token| token.of(&asked.source)) {
        let held = bound.relation(position, &facts.lineage) == Relation::Covers;
        assert!(held || (strong && !bound.has_points()), "it does not hold the token");
    }
}

fn everything_else(facts: &SourceFacts, but: Option<&CopyName>) -> Vec<CopyName> {
    facts.copies.iter().map(|copy| copy.name.clone()).filter(|name| Some(name) != but).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn what_is_chosen_satisfies_what_is_asked(
        facts in generate::facts(), demand in generate::demand()
    ) {
        if let Decision::Read(plan) = choose(&shared(&facts), &demand, now()) {
            prop_assert_eq!(plan.choices.len(), 1);
            check(&plan.choices[0], &facts, &demand, now());
        }
    }

    #[test]
    fn every_copy_that_is_not_taken_has_a_reason(
        facts in generate::facts(), demand in generate::demand()
    ) {
        match choose(&shared(&facts), &demand, now()) {
            Decision::Read(plan) => {
                let choice = &plan.choices[0];
                let refused: Vec<_> = choice.refused.iter().map(|r| r.copy.clone()).collect();
                prop_assert_eq!(refused, everything_else(&facts, Some(&choice.copy)));
            }
            Decision::Refuse(refusal) => match refusal.code {
                // These are about the statement or the token; no copy could help.
                ErrorCode::ClockUnsynchronized | ErrorCode::TokenLost => {}
                _ => {
                    let [only] = &refusal.sources[..] else { panic!("one source") };
                    let token = demand.token.is_some() && only.copies.is_empty();
                    let refused: Vec<_> = only.copies.iter().map(|r| r.copy.clone()).collect();
                    prop_assert!(token || refused == everything_else(&facts, None));
                    let dearer = only.copies.iter().any(|r| r.reason == CopyReason::Dearer);
                    prop_assert!(!dearer, "dearer than nothing");
                    let text = refusal.to_string();
                    prop_assert!(refused.iter().all(|name| text.contains(name.as_str())), "{text}");
                }
            },
            Decision::Need(actions) => prop_assert_eq!(actions.len(), 1),
        }
    }

    /// Who accepts more is never refused what the stricter one gets.
    #[test]
    fn a_looser_demand_never_turns_a_choice_into_a_refusal(
        facts in generate::facts(),
        demand in generate::demand(),
        more in 0..2_000_u64,
        skew in 0..2_000_u64,
        forget_token: bool,
        stale: bool,
    ) {
        let facts = shared(&facts);
        if let Decision::Read(_) = choose(&facts, &demand, now()) {
            let mut looser = demand.clone();
            looser.sources[0].max_staleness += ms(more);
            looser.max_skew += ms(skew);
            if forget_token {
                looser.token = None;
            }
            if stale {
                looser.sources[0].on_unmet = OnUnmet::Stale;
            }
            let decision = choose(&facts, &looser, now());
            prop_assert!(!matches!(decision, Decision::Refuse(_)), "{decision:?}");
        }
    }

    #[test]
    fn a_pinned_copy_is_never_replaced(
        facts in generate::facts(), mut demand in generate::demand(), name in 0..6_usize
    ) {
        let pinned = match name {
            0 => CopyName::primary(),
            n => CopyName::new(format!("copy{}", n - 1)),
        };
        demand.sources[0].pinned = Some(pinned.clone());
        match choose(&shared(&facts), &demand, now()) {
            Decision::Read(plan) => prop_assert_eq!(&plan.choices[0].copy, &pinned),
            Decision::Need(actions) => {
                for action in actions {
                    if let Action::WaitFor { copy, .. } = action {
                        prop_assert_eq!(&copy, &pinned);
                    }
                }
            }
            Decision::Refuse(_) => {}
        }
    }

    #[test]
    fn the_same_facts_give_the_same_decision(
        facts in generate::facts(), other in generate::facts(), demand in generate::demand()
    ) {
        let mut second = other;
        second.source = SourceName::new("market");
        let (a, b) = (Arc::new(facts), Arc::new(second));
        let one: Facts = [a.clone(), b.clone()].into_iter().collect();
        let two: Facts = [b, a].into_iter().collect();
        let decision = choose(&one, &demand, now());
        prop_assert_eq!(&decision, &choose(&one, &demand, now()));
        prop_assert_eq!(&decision, &choose(&two, &demand, now()));
    }

    /// Asking again ends, also when every answer takes no time, copies never move and the head
    /// says what it likes.
    #[test]
    fn asking_again_ends(
        mut facts in generate::facts(),
        demand in generate::demand(),
        heads in prop::collection::vec(prop::option::weighted(0.7, generate::position()), 1..8),
    ) {
        let (mut now, mut heads) = (now(), heads.into_iter().cycle());
        let limit = demand.arrival.after(demand.sources[0].wait_timeout.max(ms(200)));
        for _ in 0..2_000 {
            let Decision::Need(actions) = choose(&shared(&facts), &demand, now) else {
                return Ok(());
            };
            prop_assert!(now <= limit, "nobody waits any more");
            for action in actions {
                match action {
                    Action::Probe { not_before, .. } => {
                        prop_assert!(not_before <= now);
                        match heads.next().flatten() {
                            Some(head) => facts
                                .probed(Probe::start(now).finish(head, Lineage::unknown(), now)),
                            None => facts.probe_failed(now, "connection refused"),
                        }
                    }
                    Action::WaitFor { copy, until, .. } => {
                        now = now.max(until);
                        let position = facts.copy(&copy).and_then(|c| c.observed.clone());
                        let position = position.map_or(Position::Unknown, |seen| seen.position);
                        facts.observed(&copy, Observed::new(position, now), now);
                    }
                    Action::Pause { until, .. } => {
                        prop_assert!(until > now);
                        now = until;
                    }
                }
            }
        }
        prop_assert!(false, "asked 2,000 times");
    }
}

/// A primary that costs 50 ms and a standby that costs 5, seen at the head that was sampled at
/// `sampled`.
fn pair(sampled: u64) -> SourceFacts {
    let mut facts = SourceFacts::new(
        source(),
        vec![copy("primary", CopyKind::Authoritative, 50), copy("standby", CopyKind::Replica, 5)],
    );
    let head = Position::log(1, 1, 100);
    facts.probed(Probe::start(at(sampled)).finish(head.clone(), Lineage::unknown(), at(sampled)));
    let seen = Observed::new(head, at(sampled + 1));
    facts.observed(&CopyName::new("standby"), seen, at(sampled + 1));
    facts
}

fn read(decision: Decision) -> Choice {
    match decision {
        Decision::Read(plan) => plan.choices.into_iter().next().expect("one source"),
        other => panic!("not a choice: {other:?}"),
    }
}

fn refuse(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(refusal) => refusal,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[test]
fn the_bound_decides_to_the_nanosecond() {
    let facts = shared(&pair(0));
    let asked = demand(at(900), &staleness(1_000));
    // Staleness counts what our clock may have missed: 600 ppm of a second.
    let last = at(0).after(crate::asof::within(ms(1_000), 600));
    let choice = read(choose(&facts, &asked, last));
    assert_eq!((choice.copy.as_str(), choice.method), ("standby", Method::Position));
    let later = Moment::from_nanos(last.nanos() + 1);
    let choice = choose(&facts, &asked, later);
    assert!(!matches!(&choice, Decision::Read(plan) if plan.choices[0].copy.as_str() == "standby"));
}

#[test]
fn a_strong_read_takes_a_standby_only_behind_a_fence() {
    let asked = demand(at(900), &staleness(0));
    let Decision::Need(actions) = choose(&shared(&pair(899)), &asked, at(901)) else {
        panic!("a fence is cheaper than the primary")
    };
    assert_eq!(actions, [Action::Probe { source: source(), not_before: at(900) }]);
    let choice = read(choose(&shared(&pair(900)), &asked, at(902)));
    assert_eq!((choice.copy.as_str(), choice.method), ("standby", Method::Fence));
    assert_eq!(choice.lo, Some(at(900)));
    let [primary] = &choice.refused[..] else { panic!("one other copy") };
    assert_eq!(primary.reason, CopyReason::Dearer);
}

#[test]
fn a_cost_nobody_can_add_to_is_only_dear() {
    let mut facts = pair(0);
    facts.copies[1].cost = Duration::MAX;
    facts.copies[1].round_trip = Duration::MAX;
    facts.probe_round_trip = Duration::MAX;
    let choice = read(choose(&shared(&facts), &demand(at(900), &staleness(0)), at(901)));
    assert_eq!((choice.copy.as_str(), choice.method), ("primary", Method::StrongRead));
}

#[test]
fn a_source_nobody_knows_is_unprovable() {
    let refusal = refuse(choose(&Facts::default(), &demand(at(0), &staleness(0)), at(1)));
    assert_eq!(refusal.code, ErrorCode::FreshnessUnprovable);
    assert!(refusal.to_string().contains("source 'bank'"), "{refusal}");
}

#[test]
fn a_wait_that_sees_nothing_enough_does_not_probe_as_fast_as_the_source_answers() {
    let mut facts = pair(0);
    facts.unreachable(&CopyName::primary(), "connection refused");
    let mut options = staleness(0);
    (options.on_unmet, options.wait_timeout) = (OnUnmet::Wait, ms(500));
    options.consistency = Consistency::Bounded;
    options.max_skew = Duration::ZERO;
    let asked = demand(at(900), &options);
    facts.probed(Probe::start(at(901)).finish(
        Position::log(1, 1, 100),
        Lineage::unknown(),
        at(905),
    ));
    facts.unreachable(&CopyName::primary(), "connection refused");
    let Decision::Need(actions) = choose(&shared(&facts), &asked, at(910)) else {
        panic!("there is time left")
    };
    assert_eq!(actions, [Action::Pause { source: source(), until: at(960) }]);
    let Decision::Need(actions) = choose(&shared(&facts), &asked, at(960)) else {
        panic!("there is time left")
    };
    assert_eq!(actions, [Action::Probe { source: source(), not_before: at(960) }]);
    assert_eq!(refuse(choose(&shared(&facts), &asked, at(1_400))).code, ErrorCode::SkewExceeded);
}

fn as_of(lo: u64, hi: u64) -> Demand {
    let mut options = staleness(0);
    (options.consistency, options.wait_timeout) = (Consistency::AsOf, ms(200));
    let mut asked = demand(at(900), &options);
    asked.read_at = Some(ReadAt::Within(AsOf { lo: at(lo), hi: at(hi) }));
    asked
}

#[test]
fn a_timestamp_needs_a_clock() {
    let facts = shared(&pair(0));
    for read_at in [None, Some(ReadAt::Unsynchronized)] {
        let mut asked = as_of(0, 0);
        asked.read_at = read_at;
        let refusal = refuse(choose(&facts, &asked, at(901)));
        assert_eq!(refusal.code, ErrorCode::ClockUnsynchronized);
        assert!(refusal.hint().contains("chronyd"), "{refusal}");
        // Nothing else needs one.
        asked.consistency = Consistency::Source;
        asked.sources[0].max_staleness = ms(2_000);
        assert_eq!(read(choose(&facts, &asked, at(901))).copy.as_str(), "standby");
    }
}

#[test]
fn a_timestamp_is_read_where_earlier_states_can_be_shown() {
    let mut facts = pair(500);
    let refusal = refuse(choose(&shared(&facts), &as_of(300, 400), at(901)));
    assert_eq!(refusal.code, ErrorCode::FreshnessUnmet);
    let reasons = refusal.sources[0].copies.iter().map(|refused| refused.reason.clone());
    assert!(reasons.into_iter().all(|reason| reason == CopyReason::NoTimeTravel));

    facts.copies[1].time_travel = true;
    let choice = read(choose(&shared(&facts), &as_of(300, 500), at(901)));
    assert_eq!((choice.copy.as_str(), choice.method), ("standby", Method::Position));
    // It is complete since 500, and the timestamp may be later.
    let decision = choose(&shared(&facts), &as_of(300, 501), at(901));
    assert!(
        matches!(&decision, Decision::Need(actions) if matches!(actions[..], [Action::Probe { .. }]))
    );

    facts.copies[0].time_travel = true;
    facts.copies[1].time_travel = false;
    let choice = read(choose(&shared(&facts), &as_of(300, 400), at(901)));
    assert_eq!((choice.copy.as_str(), choice.method), ("primary", Method::StrongRead));
}

#[test]
fn a_timestamp_to_come_is_waited_for_within_the_timeout_and_the_deadline() {
    let mut facts = pair(500);
    facts.copies[0].time_travel = true;
    let facts = shared(&facts);
    let decision = choose(&facts, &as_of(900, 1_100), at(901));
    let pause = Action::Pause { source: source(), until: at(1_100) };
    assert_eq!(decision, Decision::Need(vec![pause]));
    assert_eq!(read(choose(&facts, &as_of(900, 1_100), at(1_100))).copy, CopyName::primary());

    let refusal = refuse(choose(&facts, &as_of(900, 1_101), at(901)));
    assert_eq!(refusal.code, ErrorCode::FreshnessUnmet);
    let mut hurried = as_of(900, 1_100);
    hurried.deadline = Some(at(1_000));
    assert_eq!(refuse(choose(&facts, &hurried, at(901))).code, ErrorCode::FreshnessUnmet);
}

#[test]
fn stale_does_not_stretch_a_timestamp() {
    let mut facts = pair(500);
    facts.copies[1].time_travel = true;
    facts.unreachable(&CopyName::primary(), "connection refused");
    let mut asked = as_of(600, 600);
    asked.sources[0].on_unmet = OnUnmet::Stale;
    assert_eq!(refuse(choose(&shared(&facts), &asked, at(901))).code, ErrorCode::FreshnessUnmet);
}

#[test]
fn a_token_of_a_history_that_was_lost_is_refused_behind_a_fence() {
    let mut facts = pair(0);
    let lineage = Lineage::new(1, vec![(1, synoptic_types::Lsn(120))], 2);
    facts.probed(Probe::start(at(950)).finish(Position::log(1, 2, 200), lineage, at(951)));
    let mut asked = demand(at(900), &QueryOptions::default());
    for (lsn, lost) in [(120, false), (121, true)] {
        let mut token = Token::default();
        token.include(&source(), &Position::log(1, 1, lsn)).expect("fits");
        asked.token = Some(token);
        let decision = choose(&shared(&facts), &asked, at(960));
        let refused = matches!(&decision, Decision::Refuse(r) if r.code == ErrorCode::TokenLost);
        assert_eq!(refused, lost, "{decision:?}");
    }
}

/// The properties above are worth what their cases are: every way to decide must come up.
#[test]
fn the_generated_cases_decide_in_every_way() {
    let mut runner = TestRunner::deterministic();
    let cases = (generate::facts(), generate::demand());
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..10_000 {
        let (facts, demand) = cases.new_tree(&mut runner).expect("a case").current();
        let kind = match choose(&shared(&facts), &demand, now()) {
            Decision::Read(plan) => plan.choices[0].method.as_str().to_owned(),
            Decision::Refuse(refusal) => refusal.code.as_str().to_owned(),
            Decision::Need(actions) => match actions[0] {
                Action::Probe { .. } => "probe".to_owned(),
                Action::WaitFor { .. } => "wait".to_owned(),
                Action::Pause { .. } => "pause".to_owned(),
            },
        };
        *seen.entry(kind).or_default() += 1;
    }
    println!("{seen:?}");
    for kind in [
        "strong_read",
        "fence",
        "position",
        "kept",
        "unproved",
        "probe",
        "wait",
        "pause",
        "FRESHNESS_UNMET",
        "FRESHNESS_UNPROVABLE",
        "SKEW_EXCEEDED",
        "TOKEN_LOST",
        "CLOCK_UNSYNCHRONIZED",
    ] {
        assert!(seen.get(kind).is_some_and(|times| *times >= 10), "too few of {kind}: {seen:?}");
    }
}

//! What was chosen is judged again when the read starts, and only then is anything promised.

use synoptic_types::{
    AsOf, Consistency, CopyKind, CopyName, ErrorCode, Lsn, Moment, Position, QueryOptions,
};

use super::{at, copy, demand, generate, ms, source, staleness};
use crate::{
    Choice, CopyFacts, CopyReason, Decision, Demand, Guard, Lineage, Method, Observed, Opened,
    Probe, ReadAt, ReadStart, SourceFacts, Token, choose, opened, recheck, settle,
};

fn log(lsn: u64) -> Position {
    Position::log(1, 1, lsn)
}

/// A standby that has what the head had at 0 ms, and a primary.
fn facts() -> SourceFacts {
    let primary = copy("primary", CopyKind::Authoritative, 50);
    let mut facts =
        SourceFacts::new(source(), vec![primary, copy("standby", CopyKind::Replica, 5)]);
    facts.probed(Probe::start(at(0)).finish(log(100), Lineage::unknown(), at(1)));
    facts.observed(&CopyName::new("standby"), Observed::new(log(100), at(2)), at(3));
    facts
}

fn chosen(facts: &SourceFacts, demand: &Demand, now: Moment) -> Choice {
    match choose(&generate::shared(facts), demand, now) {
        Decision::Read(plan) => plan.choices.into_iter().next().expect("one source"),
        other => panic!("not a choice: {other:?}"),
    }
}

fn start(began: Moment, position: &Position) -> ReadStart<'_> {
    static UNKNOWN: std::sync::LazyLock<Lineage> = std::sync::LazyLock::new(Lineage::unknown);
    ReadStart { began, position, lineage: &UNKNOWN }
}

fn again(guard: Guard) -> CopyReason {
    match guard {
        Guard::Again(again) => again.reason,
        other => panic!("not turned away: {other:?}"),
    }
}

fn open(guard: Guard, seen: Position, now: Moment) -> Opened {
    match guard {
        Guard::Go(guarded) => opened(guarded, seen, now),
        other => panic!("may not start: {other:?}"),
    }
}

#[test]
fn a_read_that_queued_past_its_bound_is_chosen_again() {
    let (facts, asked) = (facts(), demand(at(500), &staleness(1_000)));
    let choice = chosen(&facts, &asked, at(900));
    assert_eq!(choice.method, Method::Position);
    let go = recheck(&choice, &facts, &asked, start(at(901), &log(100)), at(902));
    let read = open(go, log(110), at(905));
    assert_eq!(read.as_of, AsOf { lo: at(0), hi: at(905) });
    assert_eq!((&read.position, &read.seen), (&log(100), &log(110)));
    assert!(read.satisfied && read.staleness >= Some(ms(902)) && read.staleness < Some(ms(904)));

    let late = recheck(&choice, &facts, &asked, start(at(1_001), &log(100)), at(1_002));
    assert!(matches!(again(late), CopyReason::Stale { proved, .. } if proved > ms(1_000)));
}

#[test]
fn a_connection_that_leads_elsewhere_is_noticed() {
    let (facts, asked) = (facts(), demand(at(500), &staleness(1_000)));
    let choice = chosen(&facts, &asked, at(900));
    for position in [log(99), Position::log(1, 2, 500), Position::log(2, 1, 500), Position::Unknown]
    {
        let guard = recheck(&choice, &facts, &asked, start(at(901), &position), at(902));
        assert_eq!(again(guard), CopyReason::MovedBack, "{position}");
    }
}

#[test]
fn a_strong_read_is_complete_since_the_copy_was_asked() {
    let (facts, mut asked) = (facts(), demand(at(500), &staleness(0)));
    asked.sources[0].pinned = Some(CopyName::primary());
    let choice = chosen(&facts, &asked, at(900));
    let go = recheck(&choice, &facts, &asked, start(at(950), &log(120)), at(960));
    let read = open(go, log(121), at(970));
    assert_eq!(read.as_of, AsOf { lo: at(950), hi: at(970) });
    assert_eq!(read.method, Method::StrongRead);
}

#[test]
fn a_token_that_the_primary_does_not_cover_is_lost() {
    let (facts, mut asked) = (facts(), demand(at(500), &staleness(0)));
    asked.sources[0].pinned = Some(CopyName::primary());
    let mut token = Token::default();
    token.include(&source(), &log(100)).expect("fits");
    asked.token = Some(token);
    let choice = chosen(&facts, &asked, at(900));
    let go = recheck(&choice, &facts, &asked, start(at(950), &log(100)), at(951));
    assert!(matches!(go, Guard::Go(_)));
    // Promoted since, and the tail from 90 on is gone.
    let (lineage, head) = (Lineage::new(1, vec![(1, Lsn(90))], 2), Position::log(1, 2, 400));
    let start = ReadStart { began: at(950), position: &head, lineage: &lineage };
    let Guard::Refuse(refusal) = recheck(&choice, &facts, &asked, start, at(951)) else {
        panic!("what the client has seen is gone")
    };
    assert_eq!(refusal.code, ErrorCode::TokenLost);
    assert!(refusal.to_string().contains("RESET synoptic.token"), "{refusal}");
}

#[test]
fn a_read_as_of_a_time_says_that_time() {
    let mut facts = facts();
    facts.copies[1].time_travel = true;
    let options = QueryOptions { consistency: Consistency::AsOf, ..QueryOptions::default() };
    let mut asked = demand(at(500), &options);
    let when = AsOf { lo: Moment::from_nanos(at(0).nanos() - 10), hi: at(0) };
    asked.read_at = Some(ReadAt::Within(when));
    let choice = chosen(&facts, &asked, at(900));
    let go = recheck(&choice, &facts, &asked, start(at(901), &log(100)), at(902));
    assert_eq!(open(go, log(100), at(905)).as_of, when);
}

fn two(consistency: Consistency, max_skew: u64) -> (Vec<Opened>, Demand) {
    let (facts, asked) = (facts(), demand(at(500), &staleness(1_000)));
    let choice = chosen(&facts, &asked, at(900));
    let go = recheck(&choice, &facts, &asked, start(at(901), &log(100)), at(902));
    let old = open(go, log(105), at(905));
    let mut new = old.clone();
    new.source = synoptic_types::SourceName::new("market");
    new.seen = Position::version("v1");
    new.as_of = AsOf { lo: at(902), hi: at(910) };
    let options = QueryOptions { consistency, max_skew: ms(max_skew), ..staleness(1_000) };
    (vec![old, new], demand(at(500), &options))
}

#[test]
fn snapshots_too_far_apart_are_refused_only_when_that_was_asked() {
    let (read, asked) = two(Consistency::Bounded, 910);
    let refusal = settle(&read, &asked).expect_err("910 ms and the drift");
    assert_eq!((refusal.code, refusal.sources.len()), (ErrorCode::SkewExceeded, 2));
    let (read, asked) = two(Consistency::Bounded, 911);
    assert!(settle(&read, &asked).is_ok());
    let (read, asked) = two(Consistency::Source, 0);
    let settled = settle(&read, &asked).expect("nobody asked");
    assert!(settled.skew > ms(910) && settled.skew < ms(911));
}

#[test]
fn a_token_is_made_of_what_was_seen_and_never_goes_back() {
    let (read, mut asked) = two(Consistency::Source, 0);
    let mut brought = Token::default();
    brought.include(&source(), &log(300)).expect("fits");
    brought.include(&synoptic_types::SourceName::new("other"), &log(7)).expect("fits");
    for (before, lsn) in [(None, 105), (Some(brought.clone()), 300)] {
        asked.token = before.clone();
        let mut expected = before.unwrap_or_default();
        expected.include(&source(), &log(lsn)).expect("fits");
        expected.include(&read[1].source, &Position::version("v1")).expect("fits");
        assert_eq!(settle(&read, &asked).expect("nothing is bounded").token, expected);
    }
}

#[test]
fn what_is_kept_is_as_old_as_its_read() {
    let (read, _) = two(Consistency::Source, 0);
    let kept = CopyFacts::kept(CopyName::new("kept"), &read[0]);
    assert_eq!((kept.kind, kept.fixed), (CopyKind::Cache, Some(read[0].as_of)));
    let at_position = |copy: &CopyFacts| copy.observed.clone().map(|seen| seen.position);
    assert_eq!(at_position(&kept), Some(log(100)), "what it had before the snapshot");

    let strong = Opened { method: Method::StrongRead, ..read[0].clone() };
    let kept = CopyFacts::kept(CopyName::new("kept"), &strong);
    assert_eq!(at_position(&kept), Some(Position::Unknown), "an insert address proves nothing");
    let version = Opened { position: Position::version("v1"), ..strong };
    let kept = CopyFacts::kept(CopyName::new("kept"), &version);
    assert_eq!(at_position(&kept), Some(Position::version("v1")));
}

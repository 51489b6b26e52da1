//! All scans of one source read one copy, so the strictest scan holds.

use synoptic_types::{CopyName, OnUnmet, SourceName};

use super::{at, demand, ms, source, staleness};
use crate::{DemandConflict, SourceDemand};

#[test]
fn the_strictest_scan_holds() {
    let mut asked = demand(at(0), &staleness(500));
    let mut loose = staleness(2_000);
    (loose.on_unmet, loose.wait_timeout) = (OnUnmet::Stale, ms(100));
    let mut scan = SourceDemand::new(source(), &loose);
    scan.lacking.push((CopyName::new("standby"), "it has no table 'orders'".to_owned()));
    asked.add_scan(scan).expect("no conflict");
    let [only] = &asked.sources[..] else { panic!("one source") };
    assert_eq!(only.max_staleness, ms(500));
    assert_eq!(only.wait_timeout, ms(100));
    assert_eq!(only.on_unmet, OnUnmet::Error);
    assert_eq!(only.lacking.len(), 1);

    let other = SourceDemand::new(SourceName::new("market"), &loose);
    asked.add_scan(other).expect("another source");
    assert_eq!(asked.sources[1].max_staleness, ms(2_000), "sources do not tighten each other");
}

#[test]
fn error_is_stricter_than_wait_and_wait_than_stale() {
    let strictness = [OnUnmet::Error, OnUnmet::Wait, OnUnmet::Stale];
    for (a, one) in strictness.into_iter().enumerate() {
        for (b, other) in strictness.into_iter().enumerate() {
            let options = |on_unmet| {
                let mut options = staleness(0);
                options.on_unmet = on_unmet;
                options
            };
            let mut asked = demand(at(0), &options(one));
            asked.add_scan(SourceDemand::new(source(), &options(other))).expect("no conflict");
            assert_eq!(asked.sources[0].on_unmet, strictness[a.min(b)]);
        }
    }
}

#[test]
fn two_pins_conflict_and_one_holds_for_all_scans() {
    let pinned = |name: Option<&str>| {
        let mut scan = SourceDemand::new(source(), &staleness(0));
        scan.pinned = name.map(CopyName::new);
        scan
    };
    for (first, second) in [(Some("a"), Some("a")), (Some("a"), None), (None, Some("a"))] {
        let mut asked = demand(at(0), &staleness(0));
        asked.add_scan(pinned(first)).expect("no conflict");
        asked.add_scan(pinned(second)).expect("no conflict");
        assert_eq!(asked.sources[0].pinned, Some(CopyName::new("a")));
    }
    let mut asked = demand(at(0), &staleness(10));
    asked.add_scan(pinned(Some("a"))).expect("no conflict");
    let before = asked.sources.clone();
    let conflict = asked.add_scan(pinned(Some("b"))).expect_err("two copies");
    let (source_name, one, other) = (source(), CopyName::new("a"), CopyName::new("b"));
    assert_eq!(conflict, DemandConflict { source_name, one, other });
    assert_eq!(asked.sources, before);
    let text = conflict.to_string();
    assert!(["'bank'", "'a'", "'b'"].iter().all(|word| text.contains(word)), "{text}");
}

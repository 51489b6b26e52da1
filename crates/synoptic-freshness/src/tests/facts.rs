//! Samples, lags and the bookkeeping of what was heard.

use std::time::Duration;

use proptest::prelude::*;
use synoptic_types::{CopyKind, CopyName, Lsn, Moment, Position};

use super::{at, copy, ms, source};
use crate::{
    CopyFacts, Health, LagHistogram, Lineage, Observed, Probe, Sample, Samples, SourceFacts,
};

fn sample(stamp: u64, lsn: u64) -> Sample {
    Probe::start(at(stamp)).finish(Position::log(1, 1, lsn), Lineage::unknown(), at(stamp + 1))
}

proptest! {
    /// In whatever order answers come: sorted, bounded, and one sample per standstill of the head.
    #[test]
    fn samples_are_sorted_bounded_and_keep_their_ends(
        stamps in prop::collection::vec((0..100_000_u64, 0..5_u64), 1..400)
    ) {
        let mut samples = Samples::default();
        for (stamp, lsn) in &stamps {
            samples.add(sample(*stamp, *lsn));
        }
        let kept: Vec<_> = samples.oldest_first().cloned().collect();
        prop_assert!(kept.len() <= Samples::CAPACITY);
        prop_assert!(kept.windows(2).all(|two| two[0].stamp <= two[1].stamp));
        // A sample that is kept is one that was made: nothing is averaged or moved.
        for one in &kept {
            prop_assert!(stamps.iter().any(|(stamp, lsn)| *one == sample(*stamp, *lsn)));
        }
        let newest = stamps.iter().map(|(stamp, _)| at(*stamp)).max();
        prop_assert_eq!(samples.newest().map(|sample| sample.stamp), newest);
        let mut backwards: Vec<_> = samples.newest_first().cloned().collect();
        backwards.reverse();
        prop_assert_eq!(backwards, kept);
    }

    /// A lag lies below the quantile that counts it, and the quantile is no more than twice it.
    #[test]
    fn a_quantile_is_the_upper_end_of_a_lags_bucket(micros in 0..(1_u64 << 39)) {
        let lag = Duration::from_micros(micros);
        let mut lags = LagHistogram::default();
        lags.add(lag);
        for share in [0.0, 0.5, 1.0, f64::NAN, -1.0, 7.0] {
            let end = lags.quantile(share).expect("one lag");
            prop_assert!(end > lag, "{end:?} for {lag:?}");
            prop_assert!(end <= lag * 2 + Duration::from_micros(1));
        }
    }

    #[test]
    fn the_histogram_is_bounded_and_its_quantiles_rise(
        micros in prop::collection::vec(any::<u64>(), 1..2_000)
    ) {
        let mut lags = LagHistogram::default();
        for lag in micros {
            lags.add(Duration::from_micros(lag));
            prop_assert!(lags.len() < 512);
        }
        let quantiles: Vec<_> = (0..=10).map(|n| lags.quantile(f64::from(n) / 10.0)).collect();
        prop_assert!(quantiles.is_sorted(), "{quantiles:?}");
        prop_assert_eq!(lags.is_empty(), lags.quantile(0.5).is_none());
    }
}

#[test]
fn thinned_samples_reach_far_back_and_are_dense_near_the_present() {
    let mut samples = Samples::default();
    for second in 0..10_000 {
        samples.add(sample(second * 1_000, second));
    }
    let ages: Vec<_> =
        samples.newest_first().map(|sample| at(9_999_000).since(sample.stamp).as_secs()).collect();
    assert_eq!(ages.len(), Samples::CAPACITY);
    assert_eq!(ages.last(), Some(&9_999), "the oldest stays");
    assert_eq!(ages[..5], [0, 1, 2, 3, 4], "the newest are all there");
    for two in ages.windows(2) {
        // 127 gaps that grow in proportion to the age: each is a small share of it.
        assert!(
            two[1] - two[0] <= two[0] / 4 + 2,
            "a gap of {} s at {} s",
            two[1] - two[0],
            two[0]
        );
    }
}

#[test]
fn lags_beyond_the_last_bucket_are_counted_in_it() {
    let mut lags = LagHistogram::default();
    lags.add(Duration::MAX);
    assert_eq!(lags.quantile(1.0), Some(Duration::from_micros(1 << 39)));
    assert_eq!(LagHistogram::default().quantile(0.9), None);
}

#[test]
fn old_lags_are_forgotten() {
    let mut lags = LagHistogram::default();
    (0..1_000).for_each(|_| lags.add(Duration::from_secs(60)));
    assert!(lags.quantile(0.5) > Some(Duration::from_secs(60)));
    (0..3_000).for_each(|_| lags.add(ms(1)));
    assert!(lags.quantile(0.9) < Some(ms(10)), "{:?}", lags.quantile(0.9));
}

fn facts() -> SourceFacts {
    let primary = CopyFacts::new(CopyName::primary(), CopyKind::Authoritative);
    SourceFacts::new(source(), vec![primary, copy("standby", CopyKind::Replica, 5)])
}

#[test]
fn an_answer_that_was_overtaken_is_dropped() {
    let (mut facts, standby) = (facts(), CopyName::new("standby"));
    let seen = |lsn, when| Observed::new(Position::log(1, 1, lsn), at(when));
    facts.observed(&standby, seen(20, 20), at(25));
    facts.observed(&standby, seen(10, 10), at(30));
    let known = facts.copy(&standby).and_then(|copy| copy.observed.clone());
    assert_eq!(known, Some(seen(20, 20)));
    facts.observed(&CopyName::new("nobody"), seen(1, 40), at(41));
    assert_eq!(facts.copies.len(), 2, "nobody is invented");
}

#[test]
fn a_lag_is_measured_against_the_newest_head_that_is_covered() {
    let (mut facts, standby) = (facts(), CopyName::new("standby"));
    facts.probed(sample(100, 10));
    facts.probed(sample(200, 20));
    facts.observed(&standby, Observed::new(Position::log(1, 1, 15), at(300)), at(301));
    let lag = facts.copy(&standby).and_then(|copy| copy.lag.quantile(1.0));
    assert!(lag > Some(ms(200)) && lag <= Some(ms(400)), "{lag:?}");
    assert_eq!(facts.copy(&standby).map(|copy| copy.round_trip), Some(ms(1)));
    assert_eq!(facts.probe_round_trip, ms(1));
}

#[test]
fn a_late_failure_does_not_hide_a_newer_answer() {
    let mut facts = facts();
    facts.probed(sample(100, 10));
    facts.probe_failed(at(90), "timed out");
    let health = |facts: &SourceFacts| facts.copy(&CopyName::primary()).map(|c| c.health.clone());
    assert_eq!(health(&facts), Some(Health::Up));
    facts.probe_failed(at(110), "connection refused");
    assert_eq!(health(&facts), Some(Health::Down("connection refused".to_owned())));
    facts.probed(sample(120, 11));
    assert_eq!(health(&facts), Some(Health::Up));
    assert_eq!(facts.probe_failed, Some(at(110)));
}

#[test]
fn an_older_history_does_not_replace_a_newer_one() {
    let mut facts = facts();
    let of = |stamp, timeline, lineage| {
        Probe::start(at(stamp)).finish(Position::log(1, timeline, 50), lineage, at(stamp + 1))
    };
    let newer = Lineage::new(1, vec![(1, Lsn(40))], 2);
    facts.probed(of(200, 2, newer.clone()));
    facts.probed(of(100, 1, Lineage::new(1, vec![], 1)));
    facts.probed(of(300, 2, Lineage::unknown()));
    assert_eq!(facts.lineage, newer);
    let rebuilt = Lineage::new(9, vec![], 1);
    facts.probed(of(400, 1, rebuilt.clone()));
    assert_eq!(facts.lineage, rebuilt, "another system is another history");
}

#[test]
fn a_probe_is_stamped_when_it_starts() {
    let probe = Probe::start(at(10));
    assert_eq!(probe.started(), at(10));
    let sample = probe.finish(Position::version("a"), Lineage::unknown(), at(35));
    assert_eq!((sample.stamp, sample.finished), (at(10), at(35)));
    assert!(sample.stamp > Moment::ORIGIN);
}

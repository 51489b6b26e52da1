//! Strategies. Few values of everything, so that they meet.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use synoptic_types::{
    AsOf, Consistency, CopyKind, CopyName, Lsn, Moment, OnUnmet, Position, QueryOptions, SourceName,
};

use super::{at, ms};
use crate::{
    CopyFacts, Demand, Health, Lineage, Observed, Policy, Probe, ReadAt, SourceDemand, SourceFacts,
    Token,
};

/// Where timelines 1 to 3 of system 1 were left.
const ENDS: [u64; 3] = [30, 50, 80];

pub(super) fn position() -> impl Strategy<Value = Position> {
    let system = prop_oneof![9 => Just(1_u64), 1 => Just(2_u64)];
    prop_oneof![
        12 => (system, 1..6_u32, 0..100_u64).prop_map(|(system, timeline, lsn)| {
            Position::log(system, timeline, lsn)
        }),
        2 => select(vec!["a", "b", "c"]).prop_map(Position::version),
        1 => Just(Position::Unknown),
    ]
}

/// What servers tell: all, nothing, another system's, or a chain whose start was forgotten.
pub(super) fn lineage() -> impl Strategy<Value = Lineage> {
    let chain = |from: usize, to: usize| {
        let ancestors = (from..to).map(|n| (n as u32 + 1, Lsn(ENDS[n]))).collect();
        Lineage::new(1, ancestors, to as u32 + 1)
    };
    prop_oneof![
        12 => Just(chain(0, 3)),
        1 => Just(chain(0, 1)),
        1 => Just(chain(1, 3)),
        1 => Just(Lineage::unknown()),
        1 => Just(Lineage::new(2, vec![(1, Lsn(40))], 2)),
        // Timeline 2 was given up: 3 left 1 before 2 did.
        1 => Just(Lineage::new(1, vec![(1, Lsn(20))], 3)),
        // Nonsense that no server should tell must not break the order either.
        1 => (vec((1..6_u32, (0..100_u64).prop_map(Lsn)), 0..5), 1..6_u32)
            .prop_map(|(ancestors, current)| Lineage::new(1, ancestors, current)),
    ]
}

/// Of few epochs, so that two or three of them fit into one bound.
pub(super) fn token() -> impl Strategy<Value = Token> {
    let names = select(vec!["bank", "market", "a source with a longer name, and Ünïcode"]);
    let point = prop_oneof![
        3 => (1..3_u64, 1..4_u32, any::<u64>()).prop_map(|(s, t, lsn)| Position::log(s, t, lsn)),
        1 => select(vec!["", "a", "etag \"ß\""]).prop_map(Position::version),
        1 => Just(Position::Unknown),
    ];
    btree_map(names, vec(point, 0..4), 0..4).prop_map(|sources| {
        let mut token = Token::default();
        for (name, points) in sources {
            for point in points {
                token.include(&SourceName::new(name), &point).expect("few epochs");
            }
        }
        token
    })
}

fn copy_position() -> impl Strategy<Value = Position> {
    prop_oneof![
        8 => (prop_oneof![6 => Just(4_u32), 1 => 1..5_u32], 50..100_u64)
            .prop_map(|(timeline, lsn)| Position::log(1, timeline, lsn)),
        1 => position(),
    ]
}

fn copy(name: String) -> impl Strategy<Value = CopyFacts> {
    let kind = select(vec![CopyKind::Replica, CopyKind::Materialized, CopyKind::Feed]);
    let health = prop_oneof![
        8 => Just(Health::Up),
        1 => Just(Health::Unknown),
        1 => Just(Health::Down("connection refused".to_owned())),
    ];
    let observed = option::weighted(0.9, (copy_position(), 0..1_000_u64));
    let kept = option::weighted(0.2, (0..900_u64, 0..100_u64));
    let lags = vec(0..400_u64, 0..5);
    let cost = prop_oneof![9 => (0..60_u64).prop_map(ms), 1 => Just(Duration::MAX)];
    (kind, health, observed, kept, lags, cost, any::<bool>()).prop_map(
        move |(kind, health, observed, kept, lags, cost, time_travel)| {
            let mut copy = CopyFacts::new(CopyName::new(name.as_str()), kind);
            copy.health = health;
            copy.observed = observed.map(|(position, seen)| Observed::new(position, at(seen)));
            if let Some((lo, length)) = kept {
                copy.kind = CopyKind::Cache;
                copy.fixed = Some(AsOf { lo: at(lo), hi: at(lo + length) });
            }
            lags.iter().for_each(|lag| copy.lag.add(ms(*lag)));
            (copy.cost, copy.time_travel, copy.round_trip) = (cost, time_travel, ms(1));
            copy
        },
    )
}

/// One source at 1,000 ms: a primary, up to four more copies, a head that was sampled now and then.
pub(super) fn facts() -> impl Strategy<Value = SourceFacts> {
    let copies = (0..5_usize)
        .prop_flat_map(|n| (0..n).map(|n| copy(format!("copy{n}")).boxed()).collect::<Vec<_>>());
    let samples = vec((0..990_u64, 0..10_u64, copy_position()), 0..12);
    let primary = (0..60_u64, any::<bool>(), 0..8_u8);
    (copies, samples, primary, lineage(), option::of(0..1_000_u64)).prop_map(
        |(mut copies, samples, (cost, time_travel, health), lineage, failed)| {
            let mut primary = CopyFacts::new(CopyName::primary(), CopyKind::Authoritative);
            (primary.cost, primary.time_travel) = (ms(cost), time_travel);
            copies.insert(copies.len() / 2, primary);
            let mut facts = SourceFacts::new(SourceName::new("bank"), copies);
            for (started, took, head) in samples {
                let probe = Probe::start(at(started));
                facts.probed(probe.finish(head, lineage.clone(), at(started + took)));
            }
            if let Some(failed) = failed {
                facts.probe_failed(at(failed), "connection refused");
            }
            if health == 0 {
                facts.unreachable(&CopyName::primary(), "connection refused");
            }
            facts
        },
    )
}

/// What one statement may ask of [`facts`], which arrived at 900 to 1,000 ms.
pub(super) fn demand() -> impl Strategy<Value = Demand> {
    let name = select(vec!["primary", "copy0", "copy1", "copy2", "nobody"]);
    let consistency = prop_oneof![
        4 => Just(Consistency::Source),
        1 => Just(Consistency::Bounded),
        1 => Just(Consistency::AsOf),
    ];
    let read_at = prop_oneof![
        4 => (0..1_100_u64, 0..20_u64)
            .prop_map(|(lo, width)| ReadAt::Within(AsOf { lo: at(lo), hi: at(lo + width) })),
        1 => Just(ReadAt::Unsynchronized),
    ];
    let options = (
        0..1_500_u64,
        select(vec![OnUnmet::Error, OnUnmet::Wait, OnUnmet::Stale]),
        0..300_u64,
        consistency,
        0..800_u64,
    )
        .prop_map(|(bound, on_unmet, wait, consistency, skew)| QueryOptions {
            max_staleness: ms(bound),
            on_unmet,
            wait_timeout: ms(wait),
            consistency,
            max_skew: ms(skew),
            ..QueryOptions::default()
        });
    let token = vec(copy_position(), 0..3);
    let pinned = option::weighted(0.3, name.clone());
    let lacking = vec(name, 0..2);
    (
        900..1_000_u64,
        options,
        option::weighted(0.7, read_at),
        option::weighted(0.4, token),
        pinned,
        lacking,
        option::weighted(0.2, 900..1_200_u64),
    )
        .prop_map(|(arrival, options, read_at, token, pinned, lacking, deadline)| {
            let policy = Policy { retry_pause: Duration::ZERO, ..Policy::default() };
            let mut demand = Demand::new(at(arrival), &options, policy);
            let mut scan = SourceDemand::new(SourceName::new("bank"), &options);
            scan.pinned = pinned.map(CopyName::new);
            scan.lacking = lacking
                .into_iter()
                .map(|name| (CopyName::new(name), "it has no table 'orders'".to_owned()))
                .collect();
            demand.add_scan(scan).expect("the first scan");
            demand.read_at = read_at;
            demand.deadline = deadline.map(at);
            demand.token = token.map(|points| {
                let mut token = Token::default();
                for point in points {
                    token.include(&SourceName::new("bank"), &point).expect("few epochs");
                }
                token
            });
            demand
        })
}

pub(super) fn now() -> Moment {
    at(1_000)
}

pub(super) fn shared(facts: &SourceFacts) -> crate::Facts {
    [Arc::new(facts.clone())].into_iter().collect()
}

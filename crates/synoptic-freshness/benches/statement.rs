//! What proving costs a statement: the choice, the second look when the read starts, the intervals,
//! the token, and the receipt as the JSON that goes to the client; with three copies of each source
//! and two scans of it.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use synoptic_freshness::{
    CopyColumns, CopyFacts, Decision, Demand, Facts, Guard, Lineage, Observed, Policy, Probe,
    ReadStart, Receipt, ScanReceipt, Shown, SourceDemand, SourceFacts, StatementColumns, TokenKey,
    choose, opened, recheck, settle,
};
use synoptic_types::{CopyKind, CopyName, Moment, Position, QueryOptions, SourceName};

const SECOND: u64 = 1_000_000_000;
/// How many heads are remembered of each source.
const PROBES: u64 = 60;

fn at(nanos: u64) -> Moment {
    Moment::ORIGIN.after(Duration::from_nanos(nanos))
}

/// A primary that was asked every second, a standby that is two seconds behind, another that is
/// ten seconds behind.
fn source(name: &SourceName) -> Arc<SourceFacts> {
    let copy = |name: &str, kind, cost| CopyFacts {
        cost: Duration::from_micros(cost),
        ..CopyFacts::new(CopyName::new(name), kind)
    };
    let copies = vec![
        CopyFacts {
            cost: Duration::from_micros(2000),
            ..CopyFacts::new(CopyName::primary(), CopyKind::Authoritative)
        },
        copy("near", CopyKind::Replica, 1000),
        copy("far", CopyKind::Replica, 1500),
    ];
    let mut facts = SourceFacts::new(name.clone(), copies);
    for second in 1..=PROBES {
        let (start, end) = (at(second * SECOND), at(second * SECOND + 1_000_000));
        let probe = Probe::start(start);
        let lineage = Lineage::new(7, vec![], 1);
        facts.probed(probe.finish(Position::log(7, 1, second * 1000), lineage, end));
        for (name, behind) in [("near", 2), ("far", 10)] {
            let position = Position::log(7, 1, second.saturating_sub(behind) * 1000);
            facts.observed(&CopyName::new(name), Observed::new(position, start), end);
        }
    }
    Arc::new(facts)
}

/// How often each source is read.
const SCANS: usize = 2;

const TEXT: &str = "SELECT \"account\", \"symbol\", \"quantity\" FROM \"public\".\"positions\" \
                    WHERE \"account\" = $1 AND \"quantity\" <> 0 ORDER BY \"symbol\" LIMIT 100";

/// Everything that is decided for one statement; the receipt, as it goes to the client.
fn statement(
    facts: &Facts,
    names: &[SourceName],
    options: &QueryOptions,
    key: &TokenKey,
) -> String {
    let arrival = at(PROBES * SECOND + 5_000_000);
    let mut demand = Demand::new(arrival, options, Policy::default());
    for name in names {
        demand.add_scan(SourceDemand::new(name.clone(), options)).expect("no copy is named");
    }
    let Decision::Read(plan) = choose(facts, &demand, arrival) else { panic!("it is proved") };
    let mut all = Vec::with_capacity(names.len());
    let now = at(PROBES * SECOND + 6_000_000);
    for choice in &plan.choices {
        let known = facts.get(&choice.source).expect("it is known");
        let seen = match choice.copy == CopyName::primary() {
            true => Position::log(7, 1, PROBES * 1000),
            false => known
                .copy(&choice.copy)
                .and_then(|copy| copy.observed.as_ref())
                .expect("seen")
                .position
                .clone(),
        };
        let start = ReadStart { began: arrival, position: &seen, lineage: &known.lineage };
        let Guard::Go(guarded) = recheck(choice, known, &demand, start, now) else {
            panic!("nothing has changed")
        };
        all.push(opened(guarded, seen, now));
    }
    let settled = settle(&all, &demand).expect("no skew is bounded");
    let shown = Shown {
        at: (now, DateTime::from_timestamp_nanos(1_764_000_000_123_456_789)),
        clock_error: Some(Duration::from_millis(2)),
        took: Duration::from_micros(870),
    };
    let token = settled.token.encode(key).expect("it is short");
    let scans = all.iter().zip(&plan.choices).flat_map(|read| [read; SCANS]).enumerate();
    let scans = scans.map(|(scan, (read, choice))| ScanReceipt {
        scan,
        source: choice.source.to_string(),
        table: "public.positions".to_owned(),
        copy: CopyColumns::planned(choice, Duration::from_micros(12), 1).read(read, &shown),
        rows: 100,
        bytes: 2_400,
        remote_text: TEXT.to_owned(),
    });
    let receipt = Receipt {
        query_id: "01939f3e-5b1a-7c3e-9a53-0d8e6a1f2b3c".to_owned(),
        statement: StatementColumns::of(Some(&settled), Some(token)),
        scans: scans.collect(),
    };
    serde_json::to_string(&receipt).expect("it is plain")
}

fn statements(criterion: &mut Criterion) {
    let key = TokenKey::new(&[7; 32]).expect("long enough");
    for (bound, copy) in [("0s", "primary"), ("5s", "near")] {
        let mut options = QueryOptions::default();
        options.set("max_staleness", bound).expect("a bound");
        let mut group = criterion.benchmark_group(format!("statement/{bound}-{copy}"));
        for sources in [1, 3, 10] {
            let names: Vec<_> =
                (0..sources).map(|n| SourceName::new(format!("source{n}").as_str())).collect();
            let facts: Facts = names.iter().map(source).collect();
            group.bench_function(BenchmarkId::from_parameter(sources), |bencher| {
                bencher.iter(|| statement(&facts, &names, &options, &key));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, statements);
criterion_main!(benches);

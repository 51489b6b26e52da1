//! The engine's state in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::Arc;

use synoptic_engine::{Counts, Engine, QueryState, Waits};
use synoptic_freshness::Health;

const STATES: [QueryState; 5] = [
    QueryState::Planned,
    QueryState::Running,
    QueryState::Done,
    QueryState::Failed,
    QueryState::Cancelled,
];

/// Every metric, as `/metrics` answers.
pub(super) fn render(engine: &Arc<Engine>) -> String {
    let queries = engine.queries();
    let config = engine.config();
    let mut page = Page::default();
    page.family(
        "synoptic_queries",
        "Queries that system.queries shows: all that live and the last server.query_history that \
         ended.",
    );
    for state in STATES {
        let count = queries.iter().filter(|query| query.state == state).count();
        page.sample("synoptic_queries", &format!("state=\"{}\"", state.as_str()), count);
    }
    let live = |state| matches!(state, QueryState::Planned | QueryState::Running);
    let live = queries.iter().filter(|query| live(query.state));
    let (mut delivered, mut read, mut bytes, mut oldest) = (0, 0, 0, 0.0_f64);
    for query in live {
        delivered += query.rows;
        read += query.receipt.scans.iter().map(|scan| scan.rows).sum::<u64>();
        bytes += query.receipt.scans.iter().map(|scan| scan.bytes).sum::<u64>();
        oldest = oldest.max(query.elapsed.as_secs_f64());
    }
    page.gauge(
        "synoptic_live_query_rows_delivered",
        "Rows that live queries have delivered so far.",
        delivered,
    );
    page.gauge(
        "synoptic_live_query_source_rows",
        "Rows that live queries have read from sources so far.",
        read,
    );
    page.gauge(
        "synoptic_live_query_source_bytes",
        "Bytes that live queries have read from sources so far.",
        bytes,
    );
    page.gauge("synoptic_oldest_query_seconds", "Age of the oldest live query.", oldest);
    page.gauge(
        "synoptic_max_concurrent_queries",
        "Queries that may run at once.",
        config.max_concurrent_queries,
    );
    page.gauge(
        "synoptic_memory_reserved_bytes",
        "Memory that queries have reserved for sorts, joins and aggregates.",
        engine.memory_reserved(),
    );
    page.gauge(
        "synoptic_memory_limit_bytes",
        "Memory that queries may reserve in all.",
        config.memory_limit.0,
    );
    let plans = engine.plan_cache();
    page.gauge("synoptic_plan_cache_entries", "Plans that are kept.", plans.entries);
    page.counter(
        "synoptic_plan_cache_hits_total",
        "Statements whose plan was kept and still right.",
        plans.hits,
    );
    page.counter(
        "synoptic_plan_cache_misses_total",
        "Statements that were planned from their text.",
        plans.misses,
    );
    page.gauge("synoptic_sources", "Sources.", engine.host().snapshot().sources().count());
    decisions(&mut page, &engine.counters().counts());
    copies(&mut page, engine);
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Resident memory of the process.", bytes);
    }
    page.0
}

/// What was decided of copies.
fn decisions(page: &mut Page, counts: &Counts) {
    let named = |source, copy, name, value| {
        format!("source=\"{source}\",copy=\"{copy}\",{name}=\"{value}\"")
    };
    page.counters(
        "synoptic_copy_chosen_total",
        "Statements that read a copy, by how it was proved.",
    );
    for ((source, copy, method), count) in &counts.chosen {
        page.sample("synoptic_copy_chosen_total", &named(source, copy, "method", method), count);
    }
    page.counters(
        "synoptic_copy_passed_over_total",
        "Statements that did not read a copy, by the reason.",
    );
    for ((source, copy, reason), count) in &counts.passed_over {
        let labels = named(source, copy, "reason", reason);
        page.sample("synoptic_copy_passed_over_total", &labels, count);
    }
    page.counters(
        "synoptic_freshness_refused_total",
        "Statements that were refused because no copy of a source would do, by the error's code.",
    );
    for ((source, code), count) in &counts.refused {
        let labels = format!("source=\"{source}\",code=\"{code}\"");
        page.sample("synoptic_freshness_refused_total", &labels, count);
    }
    let name = "synoptic_freshness_wait_seconds";
    page.typed(name, "How long choosing copies took: fences, questions, waiting.", "histogram");
    for (source, waits) in &counts.waits {
        for (bound, count) in Waits::BOUNDS.iter().zip(waits.at_most) {
            let labels = format!("source=\"{source}\",le=\"{bound}\"");
            page.sample(&format!("{name}_bucket"), &labels, count);
        }
        let labels = format!("source=\"{source}\"");
        page.sample(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), waits.count);
        page.sample(&format!("{name}_sum"), &labels, waits.sum.as_secs_f64());
        page.sample(&format!("{name}_count"), &labels, waits.count);
    }
}

/// What is known of copies.
fn copies(page: &mut Page, engine: &Arc<Engine>) {
    let snapshot = engine.host().snapshot();
    page.counters("synoptic_fences_total", "Probes of a head that statements asked for.");
    for source in snapshot.all_copies() {
        let labels = format!("source=\"{}\"", source.name());
        page.sample("synoptic_fences_total", &labels, source.watch().fences_started());
    }
    page.counters(
        "synoptic_position_questions_total",
        "Questions for a position, fences included.",
    );
    for source in snapshot.all_copies() {
        let labels = format!("source=\"{}\"", source.name());
        page.sample("synoptic_position_questions_total", &labels, source.watch().questions());
    }
    page.family("synoptic_copy_up", "Whether a copy answered last; absent when nobody asked.");
    let known: Vec<_> = snapshot
        .all_copies()
        .map(|source| (source.name().clone(), source.watch().facts(), source.watch().now()))
        .collect();
    let labels = |source, copy| format!("source=\"{source}\",copy=\"{copy}\"");
    for (source, facts, _) in &known {
        for copy in facts.copies.iter().filter(|copy| copy.health != Health::Unknown) {
            let up = u8::from(!copy.is_down());
            page.sample("synoptic_copy_up", &labels(source, &copy.name), up);
        }
    }
    let name = "synoptic_copy_lag_seconds";
    page.typed(name, "Lags of a copy that were measured lately, up to twice too long.", "summary");
    for (source, facts, _) in &known {
        for copy in facts.copies.iter().filter(|copy| !copy.lag.is_empty()) {
            for share in [0.5, 0.9, 0.99] {
                let lag = copy.lag.quantile(share).unwrap_or_default().as_secs_f64();
                let labels = format!("{},quantile=\"{share}\"", labels(source, &copy.name));
                page.sample(name, &labels, lag);
            }
        }
    }
    page.family("synoptic_copy_staleness_seconds", "The most a copy can lag, as far as is proved.");
    for (source, facts, now) in &known {
        for copy in &facts.copies {
            if let Some(since) = facts.complete_since(copy, *now) {
                let staleness = now.since(since).as_secs_f64();
                page.sample(
                    "synoptic_copy_staleness_seconds",
                    &labels(source, &copy.name),
                    staleness,
                );
            }
        }
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn typed(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn family(&mut self, name: &str, help: &str) {
        self.typed(name, help, "gauge");
    }

    fn counters(&mut self, name: &str, help: &str) {
        self.typed(name, help, "counter");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

/// Linux only; other systems leave the metric out.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

//! Whether every source answers.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use synoptic_engine::Engine;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Sources asked at once.
const SOURCES_AT_ONCE: usize = 16;

/// How long one source may take. Probes give up after a few seconds.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long all together may take.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A report is this old at most. However many probes ask, the sources are asked once in this time.
const REPORT_TTL: Duration = Duration::from_secs(1);

/// What `/readyz` says.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) ready: bool,
    /// One line per source.
    pub(super) text: String,
}

/// Asks the sources, for everybody who wants to know at the same time.
#[derive(Debug)]
pub(super) struct Readiness {
    engine: Arc<Engine>,
    workers: Handle,
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl Readiness {
    pub(super) fn new(engine: Arc<Engine>, workers: Handle) -> Self {
        Self { engine, workers, last: Mutex::new(None) }
    }

    pub(super) async fn report(&self) -> Arc<Report> {
        // Held while the sources are asked: whoever comes meanwhile gets the same answer.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < REPORT_TTL
        {
            return Arc::clone(report);
        }
        // On the workers: sources keep connections, and those live where the queries are.
        let asked = AbortOnDropHandle::new(self.workers.spawn(ask(Arc::clone(&self.engine))));
        let report = match tokio::time::timeout(REPORT_TIMEOUT, asked).await {
            Ok(Ok(report)) => report,
            // The workers have no time for the question, so they have none for queries.
            _ => Report { ready: false, text: "busy\nnot ready\n".to_owned() },
        };
        let report = Arc::new(report);
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }
}

async fn ask(engine: Arc<Engine>) -> Report {
    let snapshot = engine.host().snapshot();
    let entries: Vec<_> = snapshot.sources().map(Arc::clone).collect();
    let engine = &engine;
    let answers = stream::iter(entries)
        .map(|entry| async move {
            let check = engine.check(&entry);
            let answer = tokio::time::timeout(SOURCE_TIMEOUT, check).await;
            (entry.source().name().clone(), answer)
        })
        .buffered(SOURCES_AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut report = Report { ready: true, text: String::new() };
    for (name, answer) in answers {
        let (up, line) = match answer {
            Ok(Ok(check)) => {
                (true, format!("{name}: up, {:.1} ms", check.round_trip.as_secs_f64() * 1e3))
            }
            // The code says enough; the message may name hosts and users.
            Ok(Err(error)) => (false, format!("{name}: down {}", error.code())),
            Err(_) => (false, format!("{name}: down [TIMEOUT]")),
        };
        report.ready &= up;
        let _ = writeln!(report.text, "{line}");
    }
    let _ = writeln!(report.text, "{}", if report.ready { "ready" } else { "not ready" });
    report
}

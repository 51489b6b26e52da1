//! Asking the sources' own planners, before a plan is cut, what they expect of its parts.
//!
//! Statistics of single columns know nothing of how often values occur, or occur together; a
//! server's planner does, and says so without reading anything. It is asked of filtered tables and
//! of joins, only when the statement will move many rows, and no longer than a small part of what
//! those cost. It is not asked of groups: a sample that finds neighbours finds too few of them (of
//! the orders in TPC-H's lineitem, a tenth), which `postgres/statistics.rs` corrects by the keys.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use synoptic_catalog::SourceEntry;
use synoptic_source::Relation;

/// A statement that reads fewer rows is planned with what is known.
pub(super) const MANY_ROWS: f64 = 100_000.0;
/// Parts that are asked about, of one statement.
pub(super) const MOST_ASKED: usize = 16;
/// What asking may take of a statement's estimated cost, and at most.
const SHARE: f64 = 0.05;
const LONGEST: Duration = Duration::from_millis(50);
/// How much longer than the source itself we wait for its answer.
const ON_THE_WAY: Duration = Duration::from_millis(50);

/// A part of a plan of which nobody has said yet how many rows it yields.
pub(super) struct Unknown {
    pub entry: Arc<SourceEntry>,
    pub relation: Arc<Relation>,
    pub question: u64,
}

/// Asks about `unknown` parts of a plan that is estimated to cost `cost` microseconds, and keeps the
/// answers with the sources. A source that does not answer in time is not asked again for a while.
pub(super) async fn ask(unknown: Vec<Unknown>, cost: f64) {
    if unknown.is_empty() {
        return;
    }
    let budget = Duration::from_secs_f64((cost * SHARE / 1e6).max(0.0)).min(LONGEST);
    let mut sources: Vec<(Arc<SourceEntry>, Vec<Unknown>)> = Vec::new();
    for part in unknown {
        match sources.iter_mut().find(|(entry, _)| Arc::ptr_eq(entry, &part.entry)) {
            Some((_, parts)) => parts.push(part),
            None => sources.push((Arc::clone(&part.entry), vec![part])),
        }
    }
    join_all(sources.into_iter().map(|(entry, parts)| async move {
        let relations: Vec<_> = parts.iter().map(|part| Arc::clone(&part.relation)).collect();
        let source = entry.source();
        let asked = source.expected_rows(&relations, budget);
        let answers = match tokio::time::timeout(budget + ON_THE_WAY, asked).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => {
                tracing::debug!(source = %source.name(), %error, "its planner said nothing");
                Vec::new()
            }
            Err(_) => {
                tracing::debug!(source = %source.name(), "its planner took too long");
                Vec::new()
            }
        };
        let answers = answers.into_iter().chain(std::iter::repeat(None));
        for (part, rows) in parts.iter().zip(answers) {
            entry.keep_expected(part.question, rows);
        }
    }))
    .await;
}

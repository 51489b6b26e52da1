//! `system.copies`: where every source can be read, and how far each copy has got.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::Result;
use futures::future::join_all;
use synoptic_catalog::{SourceCopies, SourceEntry};
use synoptic_freshness::{CopyFacts, Health, SourceFacts};
use synoptic_types::Position;

use crate::engine::Engine;

use super::rows::{Rows, Wanted};
use super::system::{column, text};

/// Every copy, asked where it is when the table is read.
#[derive(Debug)]
pub(super) struct Copies(pub(super) Arc<Engine>);

/// One line.
struct Line {
    entry: Arc<SourceEntry>,
    facts: CopyFacts,
    source: Arc<SourceFacts>,
    staleness: Option<Duration>,
}

#[async_trait]
impl Rows for Copies {
    fn schema(&self) -> SchemaRef {
        let millis = |name| Field::new(name, DataType::Float64, true);
        Arc::new(Schema::new(vec![
            text("source", false),
            text("copy", false),
            text("kind", false),
            text("connector", false),
            text("location", false),
            text("status", false),
            text("position", true),
            millis("staleness_ms"),
            millis("lag_p50_ms"),
            millis("lag_p90_ms"),
            millis("lag_p99_ms"),
            text("received", true),
            millis("reported_lag_ms"),
            millis("round_trip_ms"),
            text("error", true),
        ]))
    }

    async fn rows(&self, wanted: &Wanted) -> Result<RecordBatch> {
        let snapshot = self.0.host().snapshot();
        let sources = snapshot.all_copies();
        let sources: Vec<_> = sources
            .filter(|source| wanted.get("source").is_none_or(|name| name == source.name().as_str()))
            .collect();
        join_all(sources.iter().map(|source| ask(source))).await;
        let lines: Vec<Line> = sources.iter().flat_map(|source| self.lines(source)).collect();
        let millis = |of: &dyn Fn(&Line) -> Option<Duration>| -> ArrayRef {
            let values = lines.iter().map(|line| of(line).map(|d| d.as_secs_f64() * 1e3));
            Arc::new(values.collect::<Float64Array>())
        };
        let columns: Vec<ArrayRef> = vec![
            column(lines.iter().map(|l| Some(l.entry.source().name().as_str()))),
            column(lines.iter().map(|l| Some(l.entry.copy().as_str()))),
            column(lines.iter().map(|l| Some(l.entry.kind().as_str()))),
            column(lines.iter().map(|l| Some(l.entry.source().connector()))),
            column(lines.iter().map(|l| Some(l.entry.source().location()))),
            column(lines.iter().map(|l| Some(status(&l.facts.health)))),
            column(lines.iter().map(|l| l.position().map(ToString::to_string))),
            millis(&|l| l.staleness),
            millis(&|l| l.facts.lag.quantile(0.5)),
            millis(&|l| l.facts.lag.quantile(0.9)),
            millis(&|l| l.facts.lag.quantile(0.99)),
            column(lines.iter().map(|l| {
                let received = l.facts.observed.as_ref().and_then(|o| o.received.as_ref());
                received.map(ToString::to_string)
            })),
            millis(&|l| l.facts.observed.as_ref().and_then(|o| o.reported_lag)),
            millis(&|l| match l.facts.is_authoritative() {
                true => Some(l.source.probe_round_trip).filter(|d| !d.is_zero()),
                false => Some(l.facts.round_trip).filter(|d| !d.is_zero()),
            }),
            column(lines.iter().map(|l| match &l.facts.health {
                Health::Down(why) => Some(why.as_str()),
                _ => None,
            })),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

impl Copies {
    fn lines(&self, source: &Arc<SourceCopies>) -> Vec<Line> {
        let (facts, now) = (source.watch().facts(), self.0.now());
        let line = |entry: &Arc<SourceEntry>| {
            let copy = facts.copy(entry.copy())?;
            Some(Line {
                entry: Arc::clone(entry),
                facts: copy.clone(),
                source: Arc::clone(&facts),
                staleness: facts.complete_since(copy, now).map(|since| now.since(since)),
            })
        };
        source.entries().filter_map(line).collect()
    }
}

impl Line {
    fn position(&self) -> Option<&Position> {
        match self.facts.is_authoritative() {
            true => self.source.samples.newest().map(|sample| &sample.position),
            false => self.facts.observed.as_ref().map(|observed| &observed.position),
        }
    }
}

/// Asks the head first, so that a replica that keeps up is seen to have it.
async fn ask(source: &Arc<SourceCopies>) {
    let watch = source.watch();
    watch.touch();
    // The answer that others wait for will do; when too many wait, so will the last one.
    let _ = watch.fence(watch.now()).await;
    let now = watch.now();
    join_all(source.entries().skip(1).map(|entry| watch.look(entry.copy(), now))).await;
}

fn status(health: &Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Unknown => "unknown",
        Health::Down(_) => "down",
    }
}

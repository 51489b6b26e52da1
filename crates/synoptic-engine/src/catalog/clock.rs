//! `system.clock`: what bounds the error of this server's clock, and what a commit wait costs.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::common::Result;
use synoptic_freshness::clock::{ClockStatus, CommitWait};

use crate::engine::Engine;

use super::rows::{Rows, Wanted};
use super::system::{column, text};

/// One row, made when the table is read.
#[derive(Debug)]
pub(super) struct ClockTable(pub(super) Arc<Engine>);

#[async_trait]
impl Rows for ClockTable {
    fn schema(&self) -> SchemaRef {
        let at = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            text("source", false),
            text("status", false),
            Field::new("time", at(), false),
            Field::new("error_ms", DataType::Float64, true),
            Field::new("commit_wait_ms", DataType::Float64, true),
            Field::new("max_commit_wait_ms", DataType::Float64, false),
            Field::new("updated_at", at(), true),
            text("reason", true),
        ]))
    }

    async fn rows(&self, _wanted: &Wanted) -> Result<RecordBatch> {
        let engine = &self.0;
        let shown = engine.clock().now();
        let read = engine.wall_time_and_bound();
        let time = &engine.config().time;
        let status = match &read {
            Ok((_, bound)) => match bound.status {
                ClockStatus::Synchronized => "synchronized",
                ClockStatus::FreeRunning => "free_running",
                ClockStatus::Unsynchronized => "unsynchronized",
            },
            Err(_) => "unsynchronized",
        };
        let known = read.as_ref().ok();
        let updated = known.map(|(reading, bound)| {
            let age = reading.at.since(bound.as_of);
            shown.timestamp_micros() - i64::try_from(age.as_micros()).unwrap_or(i64::MAX)
        });
        let wait = known.map(|(reading, _)| CommitWait::begin(reading).remaining(reading));
        let millis = |duration: Option<Duration>| -> ArrayRef {
            Arc::new(Float64Array::from(vec![duration.map(|d| d.as_secs_f64() * 1e3)]))
        };
        let moment = |micros: Option<i64>| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC"))
        };
        let columns: Vec<ArrayRef> = vec![
            column([Some(time.bounds.name())].into_iter()),
            column([Some(status)].into_iter()),
            moment(Some(shown.timestamp_micros())),
            millis(known.map(|(reading, _)| reading.error())),
            millis(wait),
            millis(Some(time.max_commit_wait)),
            moment(updated),
            column([read.as_ref().err().map(|error| error.message().to_owned())].into_iter()),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

//! `system.receipts` and `system.last_receipt`: what recent statements read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::common::Result;
use synoptic_freshness::{Receipt, ScanReceipt};

use crate::engine::Engine;
use crate::query::QueryRecord;

use super::rows::{Rows, Wanted};
use super::system::{column, text};

/// One row per scan, with the columns of the contract, section 6.
#[derive(Debug)]
pub(super) struct Receipts {
    engine: Arc<Engine>,
    of: Of,
}

#[derive(Debug)]
enum Of {
    /// Every statement that is remembered.
    All,
    /// The session's last statement that read a source.
    Last(Option<Arc<QueryRecord>>),
}

impl Receipts {
    pub(super) fn all(engine: Arc<Engine>) -> Self {
        Self { engine, of: Of::All }
    }

    pub(super) fn last(engine: Arc<Engine>, last: Option<Arc<QueryRecord>>) -> Self {
        Self { engine, of: Of::Last(last) }
    }

    fn receipts(&self) -> Vec<Receipt> {
        match &self.of {
            Of::All => self.engine.queries().into_iter().map(|query| query.receipt).collect(),
            Of::Last(last) => last.iter().map(|record| record.receipt(&self.engine)).collect(),
        }
    }
}

#[async_trait]
impl Rows for Receipts {
    fn schema(&self) -> SchemaRef {
        let at = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let field = |name: &str, data_type| Field::new(name, data_type, false);
        let maybe = |name: &str, data_type| Field::new(name, data_type, true);
        Arc::new(Schema::new(vec![
            text("query_id", false),
            field("scan", DataType::UInt64),
            text("source", false),
            text("table", false),
            text("copy", false),
            text("kind", false),
            text("position", true),
            maybe("as_of_lo", at()),
            maybe("as_of_hi", at()),
            maybe("staleness_ms", DataType::Float64),
            field("bound_ms", DataType::Float64),
            field("satisfied", DataType::Boolean),
            text("method", false),
            maybe("clock_error_ms", DataType::Float64),
            field("waited_ms", DataType::Float64),
            field("attempts", DataType::UInt32),
            field("hedged", DataType::Boolean),
            text("cache", false),
            field("rows", DataType::UInt64),
            field("bytes", DataType::UInt64),
            text("remote_text", false),
            text("degraded_reason", true),
            maybe("skew_ms", DataType::Float64),
            text("token", true),
        ]))
    }

    async fn rows(&self, wanted: &Wanted) -> Result<RecordBatch> {
        let mut receipts = self.receipts();
        if let Some(id) = wanted.get("query_id") {
            receipts.retain(|receipt| receipt.query_id == *id);
        }
        let rows: Vec<(&Receipt, &ScanReceipt)> =
            receipts.iter().flat_map(|r| r.scans.iter().map(move |scan| (r, scan))).collect();
        let words = |of: &dyn Fn(&ScanReceipt) -> String| -> ArrayRef {
            column(rows.iter().map(|(_, scan)| Some(of(scan))))
        };
        let numbers = |of: &dyn Fn(&ScanReceipt) -> Option<f64>| -> ArrayRef {
            Arc::new(rows.iter().map(|(_, scan)| of(scan)).collect::<Float64Array>())
        };
        let counts = |of: &dyn Fn(&ScanReceipt) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(_, scan)| of(scan))))
        };
        let flags = |of: &dyn Fn(&ScanReceipt) -> bool| -> ArrayRef {
            Arc::new(rows.iter().map(|(_, scan)| Some(of(scan))).collect::<BooleanArray>())
        };
        let times = |of: &dyn Fn(&ScanReceipt) -> Option<DateTime<Utc>>| -> ArrayRef {
            let micros = rows.iter().map(|(_, scan)| of(scan).map(|t| t.timestamp_micros()));
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        let maybe = |of: &dyn Fn(&ScanReceipt) -> Option<String>| -> ArrayRef {
            column(rows.iter().map(|(_, scan)| of(scan)))
        };
        let columns: Vec<ArrayRef> = vec![
            column(rows.iter().map(|(receipt, _)| Some(&receipt.query_id))),
            counts(&|s| s.scan as u64),
            words(&|s| s.source.clone()),
            words(&|s| s.table.clone()),
            words(&|s| s.copy.copy.clone()),
            words(&|s| s.copy.kind.to_owned()),
            maybe(&|s| s.copy.position.clone()),
            times(&|s| s.copy.as_of_lo),
            times(&|s| s.copy.as_of_hi),
            numbers(&|s| s.copy.staleness_ms),
            numbers(&|s| Some(s.copy.bound_ms)),
            flags(&|s| s.copy.satisfied),
            words(&|s| s.copy.method.to_owned()),
            numbers(&|s| s.copy.clock_error_ms),
            numbers(&|s| Some(s.copy.waited_ms)),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(_, s)| s.copy.attempts))),
            flags(&|s| s.copy.hedged),
            words(&|s| s.copy.cache.to_owned()),
            counts(&|s| s.rows),
            counts(&|s| s.bytes),
            words(&|s| s.remote_text.clone()),
            maybe(&|s| s.copy.degraded_reason.clone()),
            Arc::new(rows.iter().map(|(r, _)| r.statement.skew_ms).collect::<Float64Array>()),
            column(rows.iter().map(|(r, _)| r.statement.token.as_ref())),
        ];
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

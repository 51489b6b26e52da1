//! A condition that is tried on rows for as long as it leaves out enough of them.
//!
//! Decoding only what matches takes a Parquet reader two to three times as long where a few rows of
//! every page do (the filters of TPC-H 3 and 4, measured), and half as long where one in a hundred
//! does (the keys of a join with few partners). Leaving out rows that are decoded is worth it for
//! less: a join need not move and hash them. How many match shows only in the rows; so every
//! condition keeps count of them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

/// What keeps a larger part of the rows is not worth being tried before the others are decoded.
pub const BEFORE_DECODING: f64 = 0.1;
/// … and not afterwards either.
pub const AFTER_DECODING: f64 = 0.6;
/// Rows that are looked at before a condition is judged.
const JUDGED: u64 = 32_768;

/// `condition`, true for every row once it has turned out to leave out too few. What it lets through
/// is checked again by the engine, so it may let through any row.
#[derive(Debug, Clone)]
pub struct Tried {
    condition: Arc<dyn PhysicalExpr>,
    /// The largest part of the rows that it may keep.
    most: f64,
    tally: Arc<Tally>,
}

/// Rows seen and kept by all partitions of a scan.
#[derive(Debug, Default)]
struct Tally {
    seen: AtomicU64,
    kept: AtomicU64,
}

impl Tally {
    fn add(&self, seen: usize, kept: usize) {
        self.seen.fetch_add(seen as u64, Ordering::Relaxed);
        self.kept.fetch_add(kept as u64, Ordering::Relaxed);
    }

    fn is_worth(&self, most: f64) -> bool {
        let (seen, kept) = (self.seen.load(Ordering::Relaxed), self.kept.load(Ordering::Relaxed));
        seen < JUDGED || (kept as f64) <= most * seen as f64
    }
}

impl Tried {
    /// A condition of which nothing is known yet, to be tried as long as it keeps no more than
    /// `most` of the rows.
    pub fn new(condition: Arc<dyn PhysicalExpr>, most: f64) -> Self {
        Self { condition, most, tally: Arc::default() }
    }

    /// A condition that is compared with statistics and not with rows.
    pub fn never(condition: Arc<dyn PhysicalExpr>) -> Self {
        let tried = Self::new(condition, 0.0);
        tried.tally.add(usize::MAX >> 1, usize::MAX >> 1);
        tried
    }
}

impl PartialEq for Tried {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Tried {}

impl Hash for Tried {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.condition, f)
    }
}

impl PhysicalExpr for Tried {
    fn return_field(&self, input_schema: &Schema) -> DfResult<FieldRef> {
        self.condition.return_field(input_schema)
    }

    /// A row for which the condition fails is let through: what it fails with is the engine's to say.
    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        let all = ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)));
        if !self.tally.is_worth(self.most) {
            return Ok(all);
        }
        let rows = batch.num_rows();
        let found = self.condition.evaluate(batch).and_then(|found| found.into_array(rows));
        let Ok(found) = found else { return Ok(all) };
        let Some(kept) = found.as_boolean_opt() else { return Ok(all) };
        self.tally.add(rows, kept.true_count());
        Ok(ColumnarValue::Array(found))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DfResult<Arc<dyn PhysicalExpr>> {
        let [condition] = children.as_slice() else {
            return Err(DataFusionError::Internal("a condition is one expression".to_owned()));
        };
        let (condition, tally) = (Arc::clone(condition), Arc::clone(&self.tally));
        Ok(Arc::new(Self { condition, most: self.most, tally }))
    }

    /// Statistics are compared with the condition itself.
    fn snapshot(&self) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
        Ok(Some(Arc::clone(&self.condition)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}

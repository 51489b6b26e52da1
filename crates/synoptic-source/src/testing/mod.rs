//! The conformance suite: what every [`Source`] must do, asked of a real backend.
//!
//! A connector's test gives a [`Fixture`] that fills a fresh backend with the suite's tables, and
//! calls [`conformance`]. What a source *declares* selects what is asked of it: a filter it calls
//! exact must keep exactly the rows DataFusion keeps, one it calls inexact a superset of them; an
//! operator it supports must yield DataFusion's rows, and one it does not is refused with a reason. The
//! [`Report`] names every check, how many cases it had, and every case that failed.

mod checks;
mod data;
mod filters;
mod harness;
mod relations;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use synoptic_types::TableName;

use crate::Source;

/// A table that a fixture creates.
#[derive(Debug, Clone)]
pub struct TestTable {
    /// Its name, which may need quoting.
    pub name: String,
    /// Its rows.
    pub batch: RecordBatch,
    /// Columns that tell rows apart.
    pub primary_key: Vec<String>,
}

/// A backend that holds the tables of the suite.
pub struct Created {
    /// The source under test.
    pub source: Arc<dyn Source>,
    /// What each table of the suite is called there.
    pub names: HashMap<String, TableName>,
    /// What must live as long: a server, a folder. Hooks find their way back to it here.
    pub backend: Box<dyn Any + Send + Sync>,
}

/// Fills a real backend, and changes it while it is read.
///
/// The hooks are optional; a check that needs one is reported as skipped.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// What the report calls it.
    fn name(&self) -> String;

    /// Whether the backend has a type for such columns; the others are left out.
    fn supports(&self, data_type: &DataType) -> bool {
        let _ = data_type;
        true
    }

    /// The rows as the backend can hold them, for example without the NaN it does not have.
    fn adapt(&self, batch: RecordBatch) -> RecordBatch {
        batch
    }

    /// Whether fewer columns cost fewer bytes; not so in text files, where they cost fewer values.
    fn projection_saves_bytes(&self) -> bool {
        true
    }

    /// Creates `tables` in a fresh backend.
    async fn create(&self, tables: Vec<TestTable>) -> Created;

    /// Adds rows to a table and makes them visible; `false` when the backend cannot.
    async fn append(&self, created: &Created, table: &str, rows: &RecordBatch) -> bool {
        let _ = (created, table, rows);
        false
    }

    /// Drops a table; `false` when the backend cannot.
    async fn drop_table(&self, created: &Created, table: &str) -> bool {
        let _ = (created, table);
        false
    }

    /// How many statements of the source the backend is running now; `None` when it cannot tell.
    async fn active_remote_queries(&self, created: &Created) -> Option<usize> {
        let _ = created;
        None
    }
}

/// What one check found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The check.
    pub check: &'static str,
    /// How many cases were asked.
    pub cases: usize,
    /// Why it was not asked, if so.
    pub skipped: Option<String>,
    /// What went wrong, one line each.
    pub failures: Vec<String>,
}

/// What the suite found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The fixture.
    pub fixture: String,
    /// Every check in order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// How many cases failed.
    pub fn failures(&self) -> usize {
        self.outcomes.iter().map(|outcome| outcome.failures.len()).sum()
    }

    /// # Panics
    /// With the whole report, when any case failed.
    pub fn assert_passed(&self) {
        assert!(self.failures() == 0, "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Failures of one check that are shown; they tend to have one cause.
        const SHOWN: usize = 25;
        writeln!(f, "conformance of {}: {} failures", self.fixture, self.failures())?;
        for Outcome { check, cases, skipped, failures } in &self.outcomes {
            match skipped {
                Some(why) => writeln!(f, "  skip  {check}: {why}")?,
                None if failures.is_empty() => writeln!(f, "  ok    {check}: {cases} cases")?,
                None => writeln!(f, "  FAIL  {check}: {} of {cases} cases", failures.len())?,
            }
            for failure in failures.iter().take(SHOWN) {
                writeln!(f, "          {failure}")?;
            }
            if failures.len() > SHOWN {
                writeln!(f, "          … and {} more", failures.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}

/// Runs every check against a fresh backend of `fixture`.
pub async fn conformance(fixture: &dyn Fixture) -> Report {
    let tables = data::tables(fixture);
    let created = fixture.create(tables.clone()).await;
    let suite = checks::Suite { fixture, created, tables };
    Report { fixture: fixture.name(), outcomes: suite.run().await }
}

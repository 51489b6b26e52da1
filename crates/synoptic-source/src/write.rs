//! Writing: one statement, one transaction at the source, all or nothing.
//!
//! ```text
//! Source::prepare_write(request)    at plan time: the exact remote text, or why it is refused
//! Source::prepare_change(request)   the same for UPDATE and DELETE, which bring no rows
//!   └─ PreparedWrite::run(…)        once: begin, rows, CommitGate::enter, commit, position
//! ```
//!
//! What a source owes:
//!
//! * Nothing is visible before the commit, and everything after it. Dropping the future before
//!   [`CommitGate::enter`] leaves nothing behind.
//! * After `enter` the source finds out what became of the commit, whether somebody still waits or
//!   not, and never sends it twice. Only when that is impossible, the error is
//!   [`ErrorKind::OutcomeUnknown`] and says how to find out.
//! * A value that does not fit, and a violated constraint, is [`ErrorKind::Data`] with its place.
//!
//! [`ErrorKind::OutcomeUnknown`]: crate::ErrorKind::OutcomeUnknown
//! [`ErrorKind::Data`]: crate::ErrorKind::Data

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arrow::array::ArrayRef;
use async_trait::async_trait;
use datafusion_expr::Expr;
use synoptic_types::Position;

use crate::error::{ErrorKind, Result, SourceError};
use crate::source::Statement;
use crate::stream::BatchStream;
use crate::table::TableDef;

/// New rows for one table.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// The table, as the source described it.
    pub table: Arc<TableDef>,
    /// The columns that are sent, at least one, as places in the table's schema. The batches have
    /// them in this order, with the table's types; what is not named gets the source's default.
    pub columns: Vec<usize>,
}

/// Rows of one table that are changed where they are.
#[derive(Debug, Clone)]
pub struct ChangeRequest {
    /// The table, as the source described it.
    pub table: Arc<TableDef>,
    /// What happens to the rows.
    pub change: Change,
    /// Conditions over the table's columns; a row that meets all of them is changed.
    pub filters: Vec<Expr>,
}

/// What happens to rows.
#[derive(Debug, Clone)]
pub enum Change {
    /// They are removed.
    Delete,
    /// Columns get values, all computed from the row as it was.
    Update(Vec<Assignment>),
}

impl Change {
    /// The statement's verb, for errors.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Update(_) => "UPDATE",
        }
    }
}

/// A column and its new value.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The column, as a place in the table's schema.
    pub column: usize,
    /// The value.
    pub value: Assigned,
}

/// What a column is set to.
#[derive(Debug, Clone)]
pub enum Assigned {
    /// One value, of the column's own type.
    Constant(ArrayRef),
    /// Computed from the row. The source refuses what it would compute otherwise than the engine,
    /// or would change to fit the column.
    Expr(Expr),
}

/// What the run of a write needs to know.
#[derive(Debug, Clone)]
pub struct WriteContext {
    /// Who writes, and until when.
    pub statement: Arc<Statement>,
    /// Where the point of no return is.
    pub gate: Arc<CommitGate>,
}

/// What a committed write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOutcome {
    /// Rows that were inserted or changed, as the source counts them.
    pub rows: u64,
    /// Where the source was after the commit: a copy that is there has the write. `None` when
    /// it did not say.
    pub position: Option<Position>,
}

/// A write made ready at plan time.
#[async_trait]
pub trait PreparedWrite: Debug + Send + Sync {
    /// The text that is sent to the source.
    fn remote_text(&self) -> &str;

    /// Does it, once. `rows` are what is inserted; they are polled no faster than the source takes
    /// them. An error among them ends the write with nothing written. The stream is dropped before
    /// the commit.
    ///
    /// # Errors
    /// With nothing written, unless the error's kind is `OutcomeUnknown`.
    async fn run(&self, rows: BatchStream, context: WriteContext) -> Result<WriteOutcome>;
}

const OPEN: u8 = 0;
const COMMITTING: u8 = 1;
const CANCELLED: u8 = 2;

/// The point of no return of one write: either the commit begins or the cancel wins, never both.
#[derive(Debug, Default)]
pub struct CommitGate(AtomicU8);

impl CommitGate {
    /// Called by the source right before it sends the commit.
    ///
    /// # Errors
    /// `Cancelled` when the statement was cancelled before; then it must be rolled back.
    pub fn enter(&self) -> Result<()> {
        let swap = self.0.compare_exchange(OPEN, COMMITTING, Ordering::AcqRel, Ordering::Acquire);
        match swap {
            Ok(_) => Ok(()),
            Err(_) => Err(SourceError::new(
                ErrorKind::Cancelled,
                "the statement was cancelled before its commit; nothing was written",
            )),
        }
    }

    /// Whether the statement can still be given up: `false` once the commit has begun, and then
    /// its outcome is to be waited for.
    pub fn cancel(&self) -> bool {
        let swap = self.0.compare_exchange(OPEN, CANCELLED, Ordering::AcqRel, Ordering::Acquire);
        swap.is_ok() || self.0.load(Ordering::Acquire) == CANCELLED
    }

    /// Whether the statement was given up before its commit.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) == CANCELLED
    }

    /// Whether the commit has begun.
    pub fn is_committing(&self) -> bool {
        self.0.load(Ordering::Acquire) == COMMITTING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_the_commit_or_the_cancel_wins() {
        let committed = CommitGate::default();
        assert!(committed.enter().is_ok());
        assert!(!committed.cancel());
        assert!(committed.is_committing());
        assert!(committed.enter().is_err(), "a commit begins once");

        let cancelled = CommitGate::default();
        assert!(cancelled.cancel() && cancelled.cancel());
        let error = cancelled.enter().expect_err("it was cancelled");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(!cancelled.is_committing());
    }
}

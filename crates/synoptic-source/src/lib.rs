//! The contract between the engine and a backend.
//!
//! A backend is a [`Source`]: it lists its tables, says what it can do, and turns a [`Fragment`]
//! of a plan into streams of Arrow batches. The engine knows sources only through this crate and
//! names no connector; a connector implements these traits and nothing else.
//!
//! The life of one scan:
//!
//! ```text
//! Source::begin(statement)            once per source and statement: a lazy Snapshot
//!   ├─ Source::prepare(fragment, …)   at plan time: the exact remote text, the partitions
//!   └─ Source::prepare_relation(…)    the same for several operators that run there as a whole
//!        └─ PreparedScan::open(…)     at run time, once per partition: a BatchStream
//!             └─ drop                 cancels at the source, returns connections, frees all
//! ```
//!
//! Rules every source keeps (the conformance suite asserts them, see `testing`):
//!
//! * All scans of one statement read the state of its one [`Snapshot`].
//! * A filter answered with [`Pushdown::Exact`] keeps exactly the rows the engine would keep.
//! * `open` does no I/O before the first poll; a slow reader holds back the source, not memory.
//! * Dropping a stream at any moment cancels the work at the source within a second.
//! * A value that does not fit the declared type is [`ErrorKind::Data`], never NULL or rounded.
//! * No error text contains a secret.
#![deny(missing_docs)]

mod capabilities;
mod costs;
mod error;
mod fragment;
mod narrowed;
mod position;
mod relation;
mod source;
mod stream;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod write;

pub use capabilities::{Capabilities, FilterSupport, Pushdown, SnapshotKind};
pub use costs::OperatorCosts;
pub use error::{ErrorKind, Result, SourceError};
pub use fragment::Fragment;
pub use narrowed::{KeyLimits, Narrowed};
pub use position::{CopyPosition, Pinned};
pub use relation::{Aggregate, JoinKind, Operator, OperatorKind, Relation, SortKey};
pub use source::{
    PrepareOptions, PreparedScan, ScanContext, ScanVersion, Snapshot, Source, SourceCheck,
    Statement,
};
pub use stream::{BatchStream, Counted, ScanCounters};
pub use table::{TableDef, TableInfo, TableKind};
pub use write::{
    Assigned, Assignment, Change, ChangeRequest, CommitGate, PreparedWrite, WriteContext,
    WriteOutcome, WriteRequest,
};

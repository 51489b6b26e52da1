//! The life of a query on DataFusion.
//!
//! ```text
//! Received   Session::plan: one catalog snapshot; parse; refuse what is not honoured
//! Planned    logical plan, optimised, joins ordered, cut; what each source runs prepared by it
//! Running    PlannedQuery::run: RemoteScan streams, counted, bounded by deadline and memory
//! Done | Failed | Cancelled (dropped)
//! ```
//!
//! The engine knows sources only through `synoptic_source`; it names no connector.
#![deny(missing_docs)]

mod catalog;
mod cut;
mod engine;
mod error;
mod exec;
mod freshness;
mod join_order;
mod metadata;
mod query;
mod scope;
mod semantics;
mod session;
mod shared;
mod sql;
mod write;

pub use catalog::catalogs;
pub use cut::CutPolicy;
pub use engine::{Counters, Counts, Engine, EngineConfig, Waits, WallClock};
pub use error::{Error, Result};
pub use metadata::TableEntry;
pub use query::{
    CancelOutcome, Description, PlannedQuery, QueryInfo, QueryState, QueryStream, Request,
    THREAD_STACK,
};
pub use session::{PlanCacheStats, Session};
pub use synoptic_freshness::{CopyColumns, Receipt, ScanReceipt, StatementColumns};

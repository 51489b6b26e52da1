//! What a source can do, as data: EXPLAIN prints it and the conformance suite selects tests by it.

use synoptic_types::Reason;

use crate::costs::OperatorCosts;
use crate::relation::{JoinKind, OperatorKind};

/// How all scans of a statement come to see one state of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// A database transaction that all scans share.
    Transaction,
    /// Objects pinned by their ETag; one that changes meanwhile is an error, not a mixture.
    PinnedObjects,
}

/// How much of filtering a source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterSupport {
    /// Filters on the dialect's allow-list are applied exactly.
    Exact,
    /// Filters skip files, row groups and pages; the engine checks every row again.
    Pruning,
}

/// What a source can do.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// The dialect of the remote text, for example `postgres`.
    pub dialect: &'static str,
    /// Only the columns asked for leave the source.
    pub projection: bool,
    /// How filters are applied.
    pub filters: FilterSupport,
    /// The functions a pushed filter may call.
    pub functions: &'static [&'static str],
    /// The operators a [`crate::Relation`] for this source may have over its scans; empty when the
    /// source runs nothing but scans.
    pub operators: &'static [OperatorKind],
    /// The aggregates among them, by DataFusion's names.
    pub aggregates: &'static [&'static str],
    /// The joins among them.
    pub joins: &'static [JoinKind],
    /// What they cost there.
    pub costs: OperatorCosts,
    /// A LIMIT is applied at the source.
    pub limit: bool,
    /// Filters that a join makes while it runs are used.
    pub dynamic_filters: bool,
    /// One table can be read in several partitions.
    pub parallel_scan: bool,
    /// How all scans of a statement see one state.
    pub snapshot: SnapshotKind,
}

/// What a source does with one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushdown {
    /// The source keeps exactly the rows the engine would keep.
    Exact,
    /// The source drops only rows the engine would drop too, but not all of them.
    Inexact(Reason),
    /// The source does not see it.
    No(Reason),
}

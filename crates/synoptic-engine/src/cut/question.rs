//! What a part of a plan asks, as a number: that of the same question is the same.
//!
//! By it is remembered how many rows came (see [`SourceEntry::returned`]), which corrects the
//! estimate when the question comes again. Two questions with one number would only be estimated
//! badly.
//!
//! [`SourceEntry::returned`]: synoptic_catalog::SourceEntry::returned

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;
use std::sync::Arc;

use synoptic_source::{Fragment, Operator, Relation};

/// Of a relation over others, whose numbers are `known`.
pub(super) fn question(relation: &Relation, known: &[(&Arc<Relation>, u64)]) -> u64 {
    let mut state = DefaultHasher::new();
    discriminant(&relation.operator).hash(&mut state);
    for input in relation.inputs() {
        let before = known.iter().find(|(known, _)| Arc::ptr_eq(known, input));
        before.map_or_else(|| question(input, known), |(_, number)| *number).hash(&mut state);
    }
    match &relation.operator {
        Operator::Scan(fragment) => {
            fragment.projection.hash(&mut state);
            of_scan(fragment).hash(&mut state);
        }
        Operator::Filter { predicate, .. } => predicate.hash(&mut state),
        Operator::Project { exprs, .. } => exprs.hash(&mut state),
        Operator::Aggregate { groups, aggregates, .. } => {
            groups.hash(&mut state);
            for call in aggregates {
                (&call.function, &call.args, call.distinct, &call.filter).hash(&mut state);
            }
        }
        Operator::Join { kind, on, filter, .. } => {
            discriminant(kind).hash(&mut state);
            (on, filter).hash(&mut state);
        }
        Operator::Union { inputs } => inputs.len().hash(&mut state),
        Operator::TopN { keys, fetch, .. } => {
            for key in keys {
                (&key.expr, key.ascending, key.nulls_first).hash(&mut state);
            }
            fetch.hash(&mut state);
        }
        Operator::Limit { fetch, .. } => fetch.hash(&mut state),
    }
    state.finish()
}

/// Of the rows of one table, whichever of their columns are read.
pub(crate) fn of_scan(fragment: &Fragment) -> u64 {
    let mut state = DefaultHasher::new();
    (fragment.table.name(), &fragment.table.stamp, &fragment.filters, fragment.limit)
        .hash(&mut state);
    state.finish()
}

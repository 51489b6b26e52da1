//! The one remote operator, and what plans need beside it.

mod ahead;
mod cooperate;
mod filtering;
mod join_keys;
mod join_orders;
mod late;
mod lineage;
mod remote_scan;
mod replay;
mod top_rows;
mod unordered;

pub(crate) use ahead::{ReadingAhead, SmallTables};
pub(crate) use cooperate::yielding_joins;
pub(crate) use filtering::filtering_first;
pub(crate) use join_orders::JoinOrders;
pub(crate) use late::{LateRecord, expects_keys, knowing_joins, listing_keys};
pub(crate) use remote_scan::{RemoteScanExec, replaying_recursions};
pub(crate) use top_rows::keeping_first_rows;
pub(crate) use unordered::{
    explains_unsorted, is_refused_as_unsorted, planned_unordered, sorts_in_place,
};

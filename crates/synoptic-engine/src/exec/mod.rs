//! The one remote operator.

mod cooperate;
mod join_keys;
mod late;
mod lineage;
mod remote_scan;
mod replay;
mod top_rows;

pub(crate) use cooperate::yielding_joins;
pub(crate) use late::{LateRecord, expects_keys, knowing_joins, listing_keys};
pub(crate) use remote_scan::{RemoteScanExec, replaying_recursions};
pub(crate) use top_rows::keeping_first_rows;

//! The one remote operator.

mod remote_scan;
mod replay;

pub(crate) use remote_scan::{RemoteScanExec, replaying_recursions};

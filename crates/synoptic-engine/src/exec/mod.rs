//! The one remote operator.

mod remote_scan;

pub(crate) use remote_scan::RemoteScanExec;

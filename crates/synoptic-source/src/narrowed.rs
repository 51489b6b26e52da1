//! A prepared scan made smaller while the statement runs.

use std::sync::Arc;

use datafusion_expr::Expr;
use synoptic_types::Reason;

use crate::source::PreparedScan;

/// What a scan does with conditions that became known when the plan was running already.
#[derive(Debug)]
pub struct Narrowed {
    /// The same scan with the same schema and partitions, and with the conditions in its text. It
    /// takes the place of the scan it was made from, which is not opened then.
    pub scan: Arc<dyn PreparedScan>,
    /// Conditions the source cannot apply as they are meant, and why.
    pub left: Vec<(Expr, Reason)>,
}

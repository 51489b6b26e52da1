//! Between which moments an answer shows its source.

use crate::moment::Moment;

/// The as-of interval of an answer, on our own monotonic clock.
///
/// Everything visible at the authoritative copy before `lo` is in the answer; nothing committed
/// after `hi` is. `lo` is [`Moment::ORIGIN`] when nothing is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AsOf {
    /// Everything visible before is in the answer.
    pub lo: Moment,
    /// Nothing committed afterwards is in the answer.
    pub hi: Moment,
}

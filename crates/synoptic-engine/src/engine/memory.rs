//! Memory for query operators: bounded, shared fairly, and never all taken by one merge.

use std::fmt;

use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// DataFusion's fair pool with one rule more: an operator that merges spilled runs may take what
/// is there only as long as half of the pool stays free, and otherwise its share.
///
/// Such a merge reads as many runs at once as it gets memory for. Left alone, the first partition
/// that is done with its input takes all of it, and the next one, which still has rows to sort,
/// fails although it could spill.
#[derive(Debug)]
pub(super) struct SharingPool {
    inner: FairSpillPool,
    bytes: usize,
    share: usize,
}

/// What a sort needs at least to merge what it has spilled; DataFusion's
/// `sort_spill_reservation_bytes`.
const LEAST_SHARE: usize = 10 << 20;

impl SharingPool {
    /// A pool of `bytes` for plans of `partitions` partitions.
    pub fn new(bytes: usize, partitions: usize) -> Self {
        let share = (bytes / (2 * partitions.max(1))).max(LEAST_SHARE);
        Self { inner: FairSpillPool::new(bytes), bytes, share }
    }

    fn is_greedy(&self, reservation: &MemoryReservation, additional: usize) -> bool {
        let consumer = reservation.consumer();
        let merges = !consumer.can_spill() && consumer.name().contains("SorterMerge");
        let free = self.bytes.saturating_sub(self.inner.reserved() + additional);
        merges && reservation.size() + additional > self.share && free < self.bytes / 2
    }
}

impl MemoryPool for SharingPool {
    fn name(&self) -> &str {
        "sharing"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if self.is_greedy(reservation, additional) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "a merge of spilled rows may use {} of {} bytes while others need memory",
                self.share, self.bytes
            )));
        }
        self.inner.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

impl fmt::Display for SharingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_merge_leaves_the_others_their_share() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SharingPool::new(48 << 20, 2));
        let merge = MemoryConsumer::new("ExternalSorterMerge[1]").register(&pool);
        while merge.try_grow(1 << 20).is_ok() {}
        assert_eq!(merge.size(), 24 << 20);
        let other = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        other.try_grow(10 << 20).expect("its reservation");
        let rows = MemoryConsumer::new("Rows").register(&pool);
        rows.try_grow(14 << 20).expect("the rest is anybody's");
    }
}

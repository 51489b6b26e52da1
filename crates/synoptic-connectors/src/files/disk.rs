//! Work on this machine's disk, away from the async threads.
//!
//! Where tokio runs, the store of local files hands every call to another thread, and where it does
//! not, it does it at once ([`LocalFileSystem`]). To change threads and back takes longer than most
//! of these calls; so what belongs together is done in one go, on a thread that is not tokio's.
//!
//! [`LocalFileSystem`]: object_store::local::LocalFileSystem

use std::future::pending;

use futures::executor::block_on;
use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::location::Location;

/// So many entries of a folder are taken before it is asked whether anybody still wants them.
const ENTRIES_BETWEEN_PAUSES: usize = 1024;

impl Location {
    /// Does `work`, which asks this location's store and waits for nothing else: on this machine's
    /// disk in one go, elsewhere call by call. Dropped, it ends at the next [`pausing`].
    pub async fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        if self.local.is_none() {
            return work.await;
        }
        let wanted = CancellationToken::new();
        let _unwanted_when_dropped = wanted.clone().drop_guard();
        let done = blocking::unblock(move || block_on(wanted.run_until_cancelled_owned(work)));
        match done.await {
            Some(done) => done,
            // Only when nobody waits for it.
            None => pending().await,
        }
    }
}

/// `entries`, with a chance to end between them.
pub fn pausing<S: Stream>(entries: S) -> impl Stream<Item = S::Item> {
    entries.enumerate().then(|(place, entry)| async move {
        if place % ENTRIES_BETWEEN_PAUSES == ENTRIES_BETWEEN_PAUSES - 1 {
            tokio::task::yield_now().await;
        }
        entry
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::stream;

    use super::*;

    fn here() -> Location {
        Location::new(".", &std::env::temp_dir(), &BTreeMap::new()).expect("a location")
    }

    #[tokio::test]
    async fn work_is_done_on_one_thread_that_is_not_tokios() {
        let before = std::thread::current().id();
        let (first, last, tokio) = here()
            .ask(async {
                let first = std::thread::current().id();
                pausing(stream::iter(0..5000)).collect::<Vec<_>>().await;
                let tokio = tokio::runtime::Handle::try_current().is_ok();
                (first, std::thread::current().id(), tokio)
            })
            .await;
        assert!(first == last && first != before && !tokio);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_ends() {
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let endless = stream::repeat_with(move || counted.fetch_add(1, Ordering::Relaxed));
        let location = here();
        let work = location.ask(pausing(endless).for_each(|_| async {}));
        assert!(tokio::time::timeout(Duration::from_millis(20), work).await.is_err());
        let mut before = taken.load(Ordering::Relaxed);
        assert!(before > 0);
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = taken.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
        panic!("it goes on");
    }
}

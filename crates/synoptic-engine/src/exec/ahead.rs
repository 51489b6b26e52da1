//! Scans that are begun while others are read.
//!
//! The operators of a plan read one input after the other, and each source would be asked only when
//! its turn comes: a join of small tables of three sources waits for them three times, and a
//! database that takes its time before the first row begins late. Here the first scan of a statement
//! that is polled polls the others that need not wait, too. Nothing runs by itself: they go on when
//! the statement does, and hold one batch each until their own reader comes.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use synoptic_source::BatchStream;

/// How many rows a small table has at most, as sessions know it.
#[derive(Debug)]
pub(crate) struct SmallTables {
    pub(crate) rows: usize,
}

type Item = Option<<BatchStream as Stream>::Item>;

/// The streams of a statement that may be begun before their readers get to them.
#[derive(Debug, Default)]
pub(crate) struct ReadingAhead(Mutex<Vec<Weak<Mutex<State>>>>);

struct State {
    batches: BatchStream,
    /// What came before the reader did.
    first: Option<Item>,
    /// Its reader is there, who must be the one that is woken from now on.
    claimed: bool,
}

/// A stream that may be begun.
pub(super) struct Ahead(Arc<Mutex<State>>);

impl ReadingAhead {
    /// Lets `batches` be begun.
    pub(super) fn offer(&self, batches: BatchStream) -> Ahead {
        let state = Arc::new(Mutex::new(State { batches, first: None, claimed: false }));
        self.0.lock().push(Arc::downgrade(&state));
        Ahead(state)
    }

    /// Begins, and goes on with, what was offered and has nothing to show yet. Whoever polls with
    /// `cx` is woken when there is more to do, and does this again.
    pub(super) fn advance(&self, cx: &mut Context<'_>) {
        // Somebody else is at it.
        let Some(mut offered) = self.0.try_lock() else { return };
        offered.retain(|offered| {
            let Some(state) = offered.upgrade() else { return false };
            // Only its reader can be in it.
            let Some(mut state) = state.try_lock() else { return false };
            if state.claimed {
                return false;
            }
            match state.batches.poll_next_unpin(cx) {
                Poll::Ready(item) => state.first = Some(item),
                Poll::Pending => return true,
            }
            false
        });
    }
}

impl Stream for Ahead {
    type Item = <BatchStream as Stream>::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        state.claimed = true;
        match state.first.take() {
            Some(item) => Poll::Ready(item),
            None => state.batches.poll_next_unpin(cx),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("claimed", &self.claimed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Waker;

    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;
    use futures::stream;

    use super::*;

    /// A stream of one batch that is there at the second poll, and how often it was polled.
    fn slow() -> (BatchStream, Arc<AtomicUsize>) {
        let polled = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polled);
        let batches = stream::poll_fn(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Poll::Pending,
            1 => Poll::Ready(Some(Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))))),
            _ => Poll::Ready(None),
        });
        (batches.boxed(), polled)
    }

    #[test]
    fn each_item_comes_once_and_one_is_kept() {
        let cx = &mut Context::from_waker(Waker::noop());
        let (batches, polled) = slow();
        let offered = ReadingAhead::default();
        let mut reader = offered.offer(batches);
        for expected in [1, 2, 2] {
            offered.advance(cx);
            assert_eq!(polled.load(Ordering::Relaxed), expected);
        }
        assert!(matches!(reader.poll_next_unpin(cx), Poll::Ready(Some(Ok(_)))));
        assert_eq!(polled.load(Ordering::Relaxed), 2);
        assert!(matches!(reader.poll_next_unpin(cx), Poll::Ready(None)));
    }

    #[test]
    fn what_has_its_reader_or_lost_it_is_left_alone() {
        let cx = &mut Context::from_waker(Waker::noop());
        let offered = ReadingAhead::default();
        let (one, of_one) = slow();
        let (other, of_other) = slow();
        let mut reader = offered.offer(one);
        drop(offered.offer(other));
        assert!(reader.poll_next_unpin(cx).is_pending());
        offered.advance(cx);
        assert_eq!((of_one.load(Ordering::Relaxed), of_other.load(Ordering::Relaxed)), (1, 0));
        assert!(matches!(reader.poll_next_unpin(cx), Poll::Ready(Some(Ok(_)))));
    }
}

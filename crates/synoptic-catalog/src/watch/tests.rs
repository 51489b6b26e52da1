use std::sync::atomic::Ordering::SeqCst;

use futures::future::try_join_all;
use synoptic_freshness::Health;
use tokio::time::advance;

use super::*;
use crate::tests::{Altering, ROUND_TRIP};

struct Pair {
    primary: Arc<Altering>,
    standby: Arc<Altering>,
    watch: Arc<Watch>,
}

impl Pair {
    fn new() -> Self {
        let (primary, standby) = (Altering::new("bank"), Altering::new("bank"));
        let copies: Vec<(_, _, Arc<dyn Source>)> = vec![
            (CopyName::primary(), CopyKind::Authoritative, Arc::clone(&primary) as _),
            (CopyName::new("standby"), CopyKind::Replica, Arc::clone(&standby) as _),
        ];
        let timeline = Timeline::starting_at(Instant::now().into_std());
        let settings = WatchSettings::default();
        let watch = Watch::new(SourceName::new("bank"), copies, settings, timeline);
        Self { primary, standby, watch }
    }

    fn is_down(&self, copy: &str) -> bool {
        let facts = self.watch.facts();
        let copy = facts.copies.iter().find(|known| known.name.as_str() == copy);
        matches!(copy.expect("it is known").health, Health::Down(_))
    }

    /// A statement uses the source, finds what is down, and nobody uses it for a while.
    async fn used_once(&self) {
        self.watch.touch();
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_down_when_the_watching_ended_is_tried_again() {
    let pair = Pair::new();
    pair.primary.down.store(true, SeqCst);
    pair.standby.down.store(true, SeqCst);
    pair.used_once().await;
    assert!(pair.is_down("primary") && pair.is_down("standby"));
    sleep(IDLE_AFTER * 2).await;
    let asked = pair.primary.positions.load(SeqCst);
    sleep(IDLE_AFTER).await;
    assert_eq!(pair.primary.positions.load(SeqCst), asked, "nobody asks for nobody");

    pair.watch.touch();
    assert!(!pair.is_down("primary") && !pair.is_down("standby"), "that was minutes ago");
    sleep(Duration::from_secs(1)).await;
    assert!(pair.is_down("primary"), "it is seen to be down still");
}

/// The statement comes when the watching is about to end, or has not been given time for long.
#[tokio::test(start_paused = true)]
async fn a_statement_that_comes_just_before_the_watching_ends_is_not_told_old_facts() {
    let pair = Pair::new();
    pair.primary.down.store(true, SeqCst);
    pair.used_once().await;
    assert!(pair.is_down("primary"));
    pair.primary.down.store(false, SeqCst);
    // We run again before the watching does, which has not noticed yet that nobody came.
    advance(IDLE_AFTER * 2).await;
    pair.watch.touch();
    assert!(!pair.is_down("primary"), "two minutes ago");
    let asked = pair.primary.positions.load(SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert!(pair.primary.positions.load(SeqCst) > asked, "it is watched again");
}

#[tokio::test(start_paused = true)]
async fn a_source_in_use_is_watched_and_what_is_down_stays_down() {
    let pair = Pair::new();
    pair.primary.down.store(true, SeqCst);
    pair.used_once().await;
    for _ in 0..200 {
        sleep(Duration::from_secs(1)).await;
        pair.watch.touch();
        assert!(pair.is_down("primary"), "it was asked a moment ago");
    }
    pair.primary.down.store(false, SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert!(!pair.is_down("primary"));
}

/// All that arrive while one fence is under way are served by the next.
#[tokio::test(start_paused = true)]
async fn a_thousand_strong_reads_at_once_share_two_fences() {
    let pair = Pair::new();
    let began = Instant::now();
    let read = || async {
        // One by one, as a loaded machine gets to them.
        let arrival = pair.watch.now();
        tokio::task::yield_now().await;
        pair.watch.fence(arrival).await?;
        let newest = pair.watch.facts().samples.newest().map(|sample| sample.stamp);
        assert!(newest >= Some(arrival), "the fence started after the read arrived");
        Ok::<_, FenceQueueFull>(())
    };
    try_join_all((0..1000).map(|_| read())).await.expect("as many as may wait");
    assert!(pair.watch.fences_started() <= 2, "{} fences", pair.watch.fences_started());
    assert!(began.elapsed() <= ROUND_TRIP * 3);

    // A burst that takes a second to arrive: one fence per round trip, whatever their number.
    let before = pair.watch.fences_started();
    let spread = |n: u32| {
        let read = &read;
        async move {
            sleep(Duration::from_millis(1) * n).await;
            read().await
        }
    };
    try_join_all((0..1000).map(spread)).await.expect("fewer wait at once");
    let fences = pair.watch.fences_started() - before;
    assert!(fences <= 1000 / 10 + 2, "{fences} fences in a second of 10 ms each");
}

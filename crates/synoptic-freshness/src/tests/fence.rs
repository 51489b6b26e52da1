//! Fences: few probes for many, and never one that started too early.

use std::collections::BTreeMap;

use proptest::prelude::*;
use synoptic_types::Moment;

use super::at;
use crate::{FenceId, FenceTicket, Fences};

/// A server that does what tickets say; a probe takes `length`.
struct Server {
    fences: Fences,
    length: u64,
    running: Option<(FenceId, u64)>,
    started: BTreeMap<FenceId, u64>,
    /// Arrivals of those who wait.
    waiting: BTreeMap<FenceId, Vec<u64>>,
    longest_wait: u64,
    served: usize,
}

impl Server {
    fn new(length: u64, max_waiting: usize) -> Self {
        Self {
            fences: Fences::new(max_waiting),
            length,
            running: None,
            started: BTreeMap::new(),
            waiting: BTreeMap::new(),
            longest_wait: 0,
            served: 0,
        }
    }

    fn start(&mut self, id: FenceId, now: u64) {
        assert!(self.running.replace((id, now + self.length)).is_none(), "two at once");
        assert!(self.started.insert(id, now).is_none(), "started twice");
    }

    /// Lets probes end that have ended by `now`.
    fn run_until(&mut self, now: u64) {
        while let Some((id, end)) = self.running.filter(|(_, end)| *end <= now) {
            self.running = None;
            let finished = self.fences.finished(id, at(end));
            let served = self.waiting.remove(&id).unwrap_or_default();
            assert_eq!(finished.served, served.len());
            for arrival in served {
                assert!(self.started[&id] >= arrival, "started before the statement arrived");
                self.longest_wait = self.longest_wait.max(end - arrival);
                self.served += 1;
            }
            if let Some(next) = finished.start {
                self.start(next, end);
            }
            let again = self.fences.finished(id, at(end));
            assert_eq!((again.served, again.start), (0, None), "an end counts once");
        }
    }

    /// A statement that arrived at `arrival` asks at `now`; whether it was let in.
    fn request(&mut self, arrival: u64, now: u64) -> Option<FenceId> {
        self.run_until(now);
        let id = match self.fences.request(at(arrival), at(now)) {
            FenceTicket::Start(id) => {
                self.start(id, now);
                id
            }
            FenceTicket::Wait(id) => id,
            FenceTicket::Full => return None,
        };
        self.waiting.entry(id).or_default().push(arrival);
        Some(id)
    }
}

fn burst(arrivals: &mut [u64], length: u64) -> Server {
    arrivals.sort_unstable();
    let mut server = Server::new(length, usize::MAX);
    for arrival in &*arrivals {
        assert!(server.request(*arrival, *arrival).is_some());
    }
    server.run_until(u64::MAX / 2_000_000);
    assert_eq!(server.served, arrivals.len(), "everybody is served");
    assert_eq!(server.fences.waiting(), 0);
    server
}

proptest! {
    /// One probe for the first, one for all who came while it was under way; whoever came in the
    /// very moment the first one ended may need a third.
    #[test]
    fn a_thousand_within_one_probe_need_a_handful(
        mut arrivals in prop::collection::vec(0..=10_u64, 1_000),
    ) {
        let server = burst(&mut arrivals, 10);
        prop_assert!(server.fences.started() <= 3, "{} probes", server.fences.started());
        prop_assert!(server.longest_wait <= 20, "waited {}", server.longest_wait);
    }

    /// However they come, nobody waits for more than two probes, and probes do not overlap.
    #[test]
    fn whenever_they_come_two_probes_are_the_longest_wait(
        mut arrivals in prop::collection::vec(0..5_000_u64, 1..300), length in 1..400_u64
    ) {
        let server = burst(&mut arrivals, length);
        prop_assert!(server.longest_wait <= 2 * length);
        prop_assert!(server.fences.started() <= 5_000 / length + 3);
        prop_assert!(server.fences.started() as usize <= arrivals.len());
    }

    /// Statements that queue before they ask, that give up, and that are turned away.
    #[test]
    fn nobody_is_served_by_a_fence_from_before_and_the_queue_is_bounded(
        steps in prop::collection::vec((0..50_u64, 0..60_u64, 0..4_u8), 1..200),
        length in 1..100_u64,
        max_waiting in 0..20_usize,
    ) {
        let mut server = Server::new(length, max_waiting);
        let mut now = 0;
        for (pass, queued, what) in steps {
            now += pass;
            server.run_until(now);
            let left = server.waiting.iter_mut().find(|(_, arrivals)| !arrivals.is_empty());
            match left {
                Some((id, arrivals)) if what == 0 => {
                    arrivals.pop();
                    server.fences.leave(*id);
                }
                _ => {
                    let full = server.fences.waiting() >= max_waiting;
                    let ticket = server.request(now.saturating_sub(queued), now);
                    prop_assert_eq!(ticket.is_none(), full);
                }
            }
            let model: usize = server.waiting.values().map(Vec::len).sum();
            prop_assert_eq!(server.fences.waiting(), model);
            prop_assert!(model <= max_waiting);
        }
        server.run_until(now + 3 * length);
        prop_assert_eq!(server.fences.waiting(), 0, "nobody is left behind");
        prop_assert!(server.running.is_none(), "and no probe runs for nobody");
    }
}

#[test]
fn who_arrived_before_the_probe_started_shares_it_and_who_came_after_waits_for_the_next() {
    let mut fences = Fences::new(10);
    let FenceTicket::Start(first) = fences.request(at(5), at(10)) else { panic!("nothing runs") };
    assert_eq!(fences.request(at(10), at(12)), FenceTicket::Wait(first));
    let just_after = Moment::from_nanos(at(10).nanos() + 1);
    let FenceTicket::Wait(second) = fences.request(just_after, at(12)) else { panic!("one runs") };
    assert_ne!(first, second);
    assert_eq!(fences.request(at(14), at(14)), FenceTicket::Wait(second));
    assert_eq!(fences.started(), 1);
    let finished = fences.finished(first, at(15));
    assert_eq!((finished.served, finished.start), (2, Some(second)));
    let finished = fences.finished(second, at(20));
    assert_eq!((finished.served, finished.start), (2, None));
    assert_eq!(fences.started(), 2);
}

#[test]
fn a_queued_fence_that_everybody_left_is_not_started() {
    let mut fences = Fences::new(10);
    let FenceTicket::Start(first) = fences.request(at(0), at(0)) else { panic!("nothing runs") };
    let FenceTicket::Wait(second) = fences.request(at(1), at(1)) else { panic!("one runs") };
    fences.leave(second);
    let finished = fences.finished(first, at(5));
    assert_eq!((finished.served, finished.start), (1, None));
    let FenceTicket::Start(third) = fences.request(at(6), at(6)) else { panic!("nothing runs") };
    assert!(third != first && third != second, "ids are not used again");
}

#[test]
fn a_full_queue_turns_away_until_somebody_leaves() {
    let mut fences = Fences::new(2);
    let FenceTicket::Start(first) = fences.request(at(0), at(0)) else { panic!("nothing runs") };
    let FenceTicket::Wait(second) = fences.request(at(1), at(1)) else { panic!("one runs") };
    assert_eq!(fences.request(at(2), at(2)), FenceTicket::Full);
    fences.leave(first);
    assert_eq!(fences.request(at(3), at(3)), FenceTicket::Wait(second));
    assert_eq!(fences.request(at(3), at(3)), FenceTicket::Full);
    assert_eq!(Fences::new(0).request(at(0), at(0)), FenceTicket::Full);
}

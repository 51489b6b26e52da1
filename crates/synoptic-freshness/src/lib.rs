//! Which copy of each source may answer a statement, and how that is proved.
//!
//! Everything here is a pure function or a state machine that is told what happened and when:
//! there is no I/O, no async and no clock. Facts are gathered elsewhere, in the background, and
//! put into a [`SourceFacts`] per source; a statement asks [`choose`] once for all its scans and
//! does what the [`Decision`] says; [`recheck`] guards the read when it starts; [`opened`] and
//! [`settle`] make the receipt's intervals when the snapshots stand.
//!
//! ```text
//! Probe::start(now) ─ ask the head ─▶ Sample ───▶ SourceFacts::probed        background, and
//! now ─ ask a copy where it is ─────▶ Observed ─▶ SourceFacts::observed      fences on demand
//!
//! choose(facts, demand, now) ─▶ Need(actions) ─ do them, ask again ─┐
//!        ▲──────────────────────────────────────────────────────────┘
//!        ├─▶ Refuse(refusal)   one reason for every copy
//!        └─▶ Read(plan)        one choice per source
//!               │  queue, DoGet
//!               ▼
//!   position of the copy, own query, same connection ─▶ recheck(choice, …) ─▶ Again: choose
//!               ▼ Go                                                      └─▶ Refuse: lost
//!   pin the snapshot, then the position once more ─▶ opened(…) ─▶ Opened
//!               ▼ all sources of the statement
//!           settle(opened, demand) ─▶ as-of intervals, skew, token
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use synoptic_freshness::{
//!     CopyFacts, Decision, Demand, Facts, Guard, Lineage, Method, Observed, Policy, Probe,
//!     ReadStart, SourceDemand, SourceFacts, choose, opened, recheck, settle,
//! };
//! use synoptic_types::{CopyKind, CopyName, Moment, Position, QueryOptions, SourceName};
//!
//! let at = |millis: u64| Moment::from_nanos((3_600_000 + millis) * 1_000_000);
//! let (bank, standby) = (SourceName::new("bank"), CopyName::new("standby"));
//! let mut primary = CopyFacts::new(CopyName::primary(), CopyKind::Authoritative);
//! primary.cost = Duration::from_millis(50);
//! let copies = vec![primary, CopyFacts::new(standby.clone(), CopyKind::Replica)];
//!
//! // In the background: the head was asked at 0 ms, the standby at 20 ms, and it is there.
//! let mut facts = SourceFacts::new(bank.clone(), copies);
//! let head = Position::log(7, 1, 100);
//! facts.probed(Probe::start(at(0)).finish(head.clone(), Lineage::unknown(), at(10)));
//! facts.observed(&standby, Observed::new(head.clone(), at(20)), at(25));
//!
//! // A statement that arrives at 400 ms and accepts answers up to half a second old.
//! let options = QueryOptions { max_staleness: Duration::from_millis(500), ..Default::default() };
//! let mut demand = Demand::new(at(400), &options, Policy::default());
//! demand.add_scan(SourceDemand::new(bank, &options))?;
//! let shared: Facts = [Arc::new(facts.clone())].into_iter().collect();
//! let Decision::Read(plan) = choose(&shared, &demand, at(401)) else { panic!("it is proved") };
//! let choice = &plan.choices[0];
//! assert_eq!((&choice.copy, choice.method, choice.lo), (&standby, Method::Position, Some(at(0))));
//!
//! // The read starts: the standby says where it is, the snapshot is pinned, it says so again.
//! let start = ReadStart { began: at(403), position: &head, lineage: &facts.lineage };
//! let Guard::Go(guarded) = recheck(choice, &facts, &demand, start, at(405)) else {
//!     panic!("nothing has changed")
//! };
//! let receipt = opened(guarded, Position::log(7, 1, 103), at(410));
//! assert_eq!((receipt.as_of.lo, receipt.as_of.hi), (at(0), at(410)));
//! let settled = settle(&[receipt], &demand).expect("no skew is bounded");
//! assert!(!settled.token.is_empty());
//! # Ok::<(), synoptic_freshness::DemandConflict>(())
//! ```
//!
//! # What is proved, and from what
//!
//! A probe asks the authoritative copy for its head and is stamped with our own monotonic clock
//! at the moment it *starts*. Whatever was visible before that moment is at or below the position
//! that comes back, so a copy that has applied this position shows everything visible before the
//! stamp. No source clock and no estimate of lag takes part. The PostgreSQL facts (insert LSN as
//! head, replay LSN as position, timelines) are explained in [`postgres`], with their sources.
//!
//! Three things are assumed, and must be true of a source:
//!
//! 1. A commit is visible on the authoritative copy before it is visible on any other.
//!    PostgreSQL keeps this up to the time a backend needs between writing its commit record and
//!    leaving the list of running transactions; with synchronous replication that time includes
//!    the wait for the standby, during which a standby already shows the row.
//! 2. At most one node at a time takes writes and answers as the authoritative copy. An old
//!    primary that was cut off, not stopped, and is still reached under the same address can be
//!    told apart only by its timeline, once the new one has been seen.
//! 3. A copy whose positions can only be compared for equality ([`Position::Version`]) does not
//!    silently return to an earlier state. A restored file has another version; that the version
//!    is an older one cannot be seen.
//!
//! The monotonic clock must not stand still while time passes elsewhere: a suspended machine
//! stops `CLOCK_MONOTONIC`. Its rate error is bounded by [`Policy::max_drift_ppm`].
//!
//! # How it is tested
//!
//! `simulation` runs the whole protocol over a virtual world (drifting clocks, delayed and lost
//! messages, paused replay, promotion with a lost tail) and checks every receipt against the
//! truth; each rule of `rules` has a broken twin that the same simulation must catch. `tests` holds
//! the laws: the order of positions, merging of tokens, what a choice promises.
//!
//! [`Position::Version`]: synoptic_types::Position::Version
#![deny(missing_docs)]

pub mod asof;
mod bound;
mod choose;
pub mod clock;
mod decision;
mod demand;
mod facts;
mod fence;
mod guard;
mod lag;
mod position;
pub mod postgres;
mod receipt;
mod rules;
mod sample;
mod standing;
mod token;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use bound::LowerBound;
pub use choose::choose;
pub use decision::{
    Action, Choice, CopyReason, Decision, Lag, Method, Plan, Refusal, Refused, SourceRefusal,
};
pub use demand::{Demand, DemandConflict, Policy, ReadAt, SourceDemand};
pub use facts::{CopyFacts, Facts, Health, Observed, SourceFacts};
pub use fence::{FenceId, FenceTicket, Fences, Finished};
pub use guard::{Again, Guard, Guarded, Opened, ReadStart, Settled, opened, recheck, settle};
pub use lag::LagHistogram;
pub use position::{Relation, relate};
pub use receipt::{CopyColumns, Receipt, ScanReceipt, Shown, StatementColumns};
pub use sample::{Probe, Sample, Samples};
pub use synoptic_types::Lineage;
pub use token::{Token, TokenError, TokenKey};

//! Which copy of each source may answer a statement, and how that is proved.
//!
//! Everything here is a pure function or a state machine that is told what happened and when:
//! there is no I/O, no async and no clock. Facts are gathered elsewhere, in the background, and
//! put into a [`SourceFacts`] per source; a statement asks [`choose`] once for all its scans and
//! does what the [`Decision`] says; [`recheck`] guards the read when it starts; [`opened`] and
//! [`settle`] make the receipt's intervals when the snapshots stand.
//!
//! ```text
//! Probe::start(now) ─ Source::head() ─▶ Sample ─▶ SourceFacts::probed        background, and
//! now ─ Source::position(copy) ───────▶ Observed ─▶ SourceFacts::observed    fences on demand
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
//! truth; each rule of `rules` has a broken twin that the same simulation must catch.
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
mod rules;
mod sample;
mod standing;
mod token;

#[cfg(test)]
mod simulation;

pub use bound::LowerBound;
pub use choose::choose;
pub use decision::{
    Action, Choice, CopyReason, Decision, Method, Plan, Refusal, Refused, SourceRefusal,
};
pub use demand::{Demand, DemandConflict, Policy, ReadAt, SourceDemand};
pub use facts::{CopyFacts, Facts, Health, Observed, SourceFacts};
pub use fence::{FenceId, FenceTicket, Fences, Finished};
pub use guard::{Again, Guard, Guarded, Opened, ReadStart, Settled, opened, recheck, settle};
pub use lag::LagHistogram;
pub use position::{Lineage, Relation, relate};
pub use sample::{Probe, Sample, Samples};
pub use token::{Token, TokenError, TokenKey};

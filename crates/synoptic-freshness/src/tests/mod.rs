//! The laws, each on its own. The protocol as a whole is tested in `simulation`.

mod choose;
mod clock;
mod demand;
mod facts;
mod fence;
mod generate;
mod guard;
mod position;
mod token;
mod token_text;

use std::time::Duration;

use synoptic_types::{CopyKind, CopyName, Moment, QueryOptions, SourceName};

use crate::{CopyFacts, Demand, Health, Policy, SourceDemand};

/// A moment `millis` after an hour: nothing here is near the origin.
fn at(millis: u64) -> Moment {
    Moment::from_nanos((3_600_000 + millis) * 1_000_000)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn source() -> SourceName {
    SourceName::new("bank")
}

/// A copy that answers and costs `cost` milliseconds.
fn copy(name: &str, kind: CopyKind, cost: u64) -> CopyFacts {
    CopyFacts { health: Health::Up, cost: ms(cost), ..CopyFacts::new(CopyName::new(name), kind) }
}

/// A statement that arrived at `arrival` and reads [`source`].
fn demand(arrival: Moment, options: &QueryOptions) -> Demand {
    let mut demand = Demand::new(arrival, options, Policy::default());
    demand.add_scan(SourceDemand::new(source(), options)).expect("the first scan");
    demand
}

fn staleness(millis: u64) -> QueryOptions {
    QueryOptions { max_staleness: ms(millis), ..QueryOptions::default() }
}

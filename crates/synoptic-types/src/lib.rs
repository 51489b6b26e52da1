//! The words of the domain: names, ids, durations, sizes, clocks, positions, error codes and
//! reasons.
//!
//! Everything here is a value. There is no I/O, no async and no DataFusion, so that every crate
//! may use it and a decision written in these words can be tested without a server.
#![deny(missing_docs)]

mod as_of;
mod clock;
mod code;
mod copy;
mod ids;
mod lineage;
mod moment;
mod options;
mod position;
mod quantity;
mod reason;
mod table_version;

pub use as_of::AsOf;
pub use clock::{Clock, Deadline, ManualClock, SystemClock};
pub use code::ErrorCode;
pub use copy::{CopyKind, CopyName};
pub use ids::{QueryId, SourceName, TableName};
pub use lineage::Lineage;
pub use moment::{Moment, Timeline};
pub use options::{Consistency, OnUnmet, OptionError, Pushdown, QueryOptions};
pub use position::{Epoch, Lsn, LsnError, Position, PositionError, Version};
pub use quantity::{
    ByteSize, QuantityError, format_bytes, format_duration, parse_bytes, parse_duration,
};
pub use reason::Reason;
pub use table_version::TableVersion;

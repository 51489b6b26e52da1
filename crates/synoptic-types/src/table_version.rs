//! Which earlier state of a table is meant.

use chrono::{DateTime, Utc};

/// An earlier state of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableVersion {
    /// The one that was there at a moment.
    At(DateTime<Utc>),
    /// The one of this number, for tables that number their states.
    Number(u64),
}

impl TableVersion {
    /// The moment, when that is what was asked for.
    pub fn moment(self) -> Option<DateTime<Utc>> {
        match self {
            Self::At(moment) => Some(moment),
            Self::Number(_) => None,
        }
    }
}

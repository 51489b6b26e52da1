//! Few rows, read by the row protocol.
//!
//! COPY is the fast way to read many rows, and a slow way to read one: it cannot be sent before it is
//! prepared, so it takes a round trip more. A query can be sent together with what begins its
//! transaction, and its rows are in the same binary format, so the same code decodes them. For each
//! row it costs the server more than COPY does, so it is for results that are expected to be small;
//! a result that is larger than expected is slower to read and otherwise the same.

use std::error::Error;

use datafusion::common::stats::Precision;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use super::copy::{CopyDecoder, CopyFault};

/// How many rows a result is expected to have, and how many are few.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub rows: Precision<usize>,
    /// `max_query_rows`; none are few when it is 0.
    pub few: u64,
}

impl Expected {
    /// Whether they are few, of a result that has a limit of its own perhaps.
    pub fn is_few(&self, limit: Option<usize>) -> bool {
        let fits = |rows: usize| self.few > 0 && u64::try_from(rows).is_ok_and(|n| n <= self.few);
        self.rows.get_value().copied().is_some_and(fits) || limit.is_some_and(fits)
    }
}

/// Whether rows of these types can be read without asking the server what the types are, which
/// would wait behind the rows for ever.
pub(super) fn comes_by_rows(wire_types: &[u32]) -> bool {
    wire_types.iter().all(|oid| Type::from_oid(*oid).is_some())
}

/// A field as it travels.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Decodes one row; its bytes, as COPY would count them.
pub(super) fn push(decoder: &mut CopyDecoder, row: &Row) -> Result<u64, CopyFault> {
    let mut bytes = size_of::<i16>();
    let mut fields = Vec::with_capacity(row.len());
    for i in 0..row.len() {
        let value = row.try_get::<_, Option<Raw<'_>>>(i);
        let value = value.map_err(|_| CopyFault::frame("a field that cannot be read"))?;
        let value = value.map(|Raw(value)| value);
        bytes += size_of::<i32>() + value.map_or(0, <[u8]>::len);
        fields.push(value);
    }
    decoder.push_row(&fields)?;
    Ok(bytes as u64)
}

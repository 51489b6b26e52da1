//! Tickets: all that is needed to answer a query, signed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, Mac};
use prost::Message;
use sha2::Sha256;
use synoptic_proto::v1;
use synoptic_types::{ErrorCode, QueryId};

use crate::edge::Types;
use crate::status::{Fault, Result};

/// What a statement ticket says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) query: QueryId,
    pub(crate) sql: String,
    /// One row as an Arrow IPC stream, see `parameters.rs`; empty without parameters.
    pub(crate) parameters: Bytes,
    /// Every option as it was when the statement was planned.
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) catalog: String,
    pub(crate) schema: String,
    pub(crate) expires_at: DateTime<Utc>,
    /// What FlightInfo promised, as an encapsulated IPC message.
    pub(crate) arrow_schema: Bytes,
    pub(crate) types: Types,
    /// Which of several endpoints of one answer, from 1; 0 for the only one.
    pub(crate) endpoint: u32,
}

/// Signs tickets and session tokens.
#[derive(Clone)]
pub(crate) struct Signer {
    key: [u8; 32],
}

impl Signer {
    /// A signer with the given key, or with one that nobody else knows.
    pub(crate) fn new(key: Option<[u8; 32]>) -> Self {
        Self { key: key.unwrap_or_else(rand::random) }
    }

    /// A signature over `bytes`; `purpose` keeps a token from passing as a ticket.
    pub(crate) fn sign(&self, purpose: &str, bytes: &[u8]) -> Vec<u8> {
        self.mac(purpose, bytes).finalize().into_bytes().to_vec()
    }

    /// Whether [`Signer::sign`] made `signature`; takes the same time for every wrong one.
    pub(crate) fn verify(&self, purpose: &str, bytes: &[u8], signature: &[u8]) -> bool {
        self.mac(purpose, bytes).verify_slice(signature).is_ok()
    }

    fn mac(&self, purpose: &str, bytes: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(bytes);
        mac
    }
}

const PURPOSE: &str = "ticket";

impl Ticket {
    /// The ticket as a client gets it.
    pub(crate) fn seal(&self, signer: &Signer) -> Bytes {
        let ticket = v1::Ticket {
            query_id: self.query.to_string(),
            sql: self.sql.clone(),
            parameters: self.parameters.to_vec(),
            options: self.options.clone(),
            catalog: self.catalog.clone(),
            schema: self.schema.clone(),
            expires_at_ms: self.expires_at.timestamp_millis(),
            arrow_schema: self.arrow_schema.to_vec(),
            native_types: self.types == Types::Native,
            endpoint: self.endpoint,
        }
        .encode_to_vec();
        let mac = signer.sign(PURPOSE, &ticket);
        v1::SignedTicket { ticket, mac }.encode_to_vec().into()
    }

    /// Reads a ticket, whether or not it has expired.
    ///
    /// # Errors
    /// `[SYNTAX]` when it is no ticket, `[PERMISSION_DENIED]` when it was not signed here.
    pub(crate) fn open(bytes: &[u8], signer: &Signer) -> Result<Self> {
        let malformed = || {
            Fault::malformed(
                "the ticket cannot be read: it is truncated or from elsewhere; send the ticket of \
                 FlightInfo unchanged",
            )
        };
        let signed = v1::SignedTicket::decode(bytes).map_err(|_| malformed())?;
        if signed.ticket.is_empty() || signed.mac.is_empty() {
            return Err(malformed());
        }
        // Nothing is read of a ticket that is not ours.
        if !signer.verify(PURPOSE, &signed.ticket, &signed.mac) {
            return Err(Fault::new(
                ErrorCode::PermissionDenied,
                "the ticket was altered, or signed by another server or before this one started; \
                 ask for FlightInfo again",
            ));
        }
        let ticket = v1::Ticket::decode(signed.ticket.as_slice()).map_err(|_| malformed())?;
        Ok(Self {
            query: QueryId::new(ticket.query_id),
            sql: ticket.sql,
            parameters: ticket.parameters.into(),
            options: ticket.options,
            catalog: ticket.catalog,
            schema: ticket.schema,
            expires_at: DateTime::from_timestamp_millis(ticket.expires_at_ms)
                .ok_or_else(malformed)?,
            arrow_schema: ticket.arrow_schema.into(),
            types: if ticket.native_types { Types::Native } else { Types::Compatible },
            endpoint: ticket.endpoint,
        })
    }

    /// Refuses a ticket that has expired.
    pub(crate) fn check_expiry(&self, now: DateTime<Utc>) -> Result<()> {
        if now < self.expires_at {
            return Ok(());
        }
        Err(Fault::new(
            ErrorCode::Timeout,
            format!(
                "the ticket expired at {}; ask for FlightInfo again",
                self.expires_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            ),
        )
        .with_query(&self.query))
    }
}

/// `ttl` from `now`, or the end of time.
pub(crate) fn expiry(now: DateTime<Utc>, ttl: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(ttl)
        .ok()
        .and_then(|ttl| now.checked_add_signed(ttl))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// The same moment for FlightInfo.
pub(crate) fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;

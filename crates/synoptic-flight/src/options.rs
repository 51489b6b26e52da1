//! Every limit of the Flight server.

use std::fmt;
use std::time::Duration;

/// What the Flight server is made of. Every store and queue has its bound here.
#[derive(Clone)]
pub struct FlightOptions {
    /// Bytes an encoded message aims for; larger batches are split between rows. Default 4 MiB
    /// less 64 KiB: gRPC clients in Rust and JavaScript take 4 MiB unless told otherwise.
    pub message_bytes: usize,
    /// Bytes one row may have when it alone is larger than `message_bytes`; beyond it the query
    /// fails with `[BUDGET_EXCEEDED]`. Default 16 MiB less 64 KiB, what ADBC takes.
    pub max_row_bytes: usize,
    /// Bytes a message from a client may have. Default 16 MiB.
    pub max_request_bytes: usize,
    /// How long a ticket is valid. Default one hour.
    pub ticket_ttl: Duration,
    /// The key tickets and session tokens are signed with; random for each server when not set.
    /// Servers that share it answer each other's tickets.
    pub ticket_key: Option<[u8; 32]>,
    /// How long a plan waits for its DoGet before it is dropped, which ends its query; the ticket
    /// then plans it again. Default two minutes.
    pub planned_ttl: Duration,
    /// Plans that wait for their DoGet at once, and as many again for answers over several endpoints;
    /// the oldest is dropped. Default 1,024.
    pub max_planned: u64,
    /// Sessions at once; the one unused for longest is dropped. Default 10,000.
    pub max_sessions: u64,
    /// How long a session, or a prepared statement, is kept unused. Default one hour.
    pub session_idle_ttl: Duration,
    /// Prepared statements at once; the one unused for longest is dropped. Default 10,000.
    pub max_prepared: u64,
    /// How long a listing may describe tables; those not described by then are left out.
    /// Default ten seconds.
    pub metadata_timeout: Duration,
    /// How long running queries may go on after the signal to stop. Default 30 seconds.
    pub drain_timeout: Duration,
    /// RPCs that one connection may have open at once. Default 1,000.
    pub max_streams_per_connection: u32,
}

impl Default for FlightOptions {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        Self {
            message_bytes: 4 * MIB - 64 * KIB,
            max_row_bytes: 16 * MIB - 64 * KIB,
            max_request_bytes: 16 * MIB,
            ticket_ttl: Duration::from_secs(3600),
            ticket_key: None,
            planned_ttl: Duration::from_secs(120),
            max_planned: 1024,
            max_sessions: 10_000,
            session_idle_ttl: Duration::from_secs(3600),
            max_prepared: 10_000,
            metadata_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            max_streams_per_connection: 1000,
        }
    }
}

impl fmt::Debug for FlightOptions {
    /// All but the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlightOptions")
            .field("message_bytes", &self.message_bytes)
            .field("max_row_bytes", &self.max_row_bytes)
            .field("max_request_bytes", &self.max_request_bytes)
            .field("ticket_ttl", &self.ticket_ttl)
            .field("planned_ttl", &self.planned_ttl)
            .field("max_planned", &self.max_planned)
            .field("max_sessions", &self.max_sessions)
            .field("session_idle_ttl", &self.session_idle_ttl)
            .field("max_prepared", &self.max_prepared)
            .field("metadata_timeout", &self.metadata_timeout)
            .field("drain_timeout", &self.drain_timeout)
            .field("max_streams_per_connection", &self.max_streams_per_connection)
            .finish_non_exhaustive()
    }
}

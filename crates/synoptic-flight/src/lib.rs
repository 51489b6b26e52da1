//! Flight SQL in, Arrow out.
//!
//! One gRPC service answers pyarrow, ADBC, JDBC, ODBC and plain Flight clients. It implements
//! Flight's own trait instead of arrow-flight's `FlightSqlService`, whose blanket implementation
//! fixes `PollFlightInfo`, `GetSchema` and `ListFlights` to UNIMPLEMENTED, refuses SQL text and
//! paths as descriptors, and knows no session messages.
//!
//! ```text
//! service.rs      one method per RPC: who calls (context), what is asked (descriptor), answer
//!   statement.rs    SQL: plan, ticket, kept plan, DoGet
//!   prepared.rs     prepared statements and their parameters; put.rs receives them
//!   metadata.rs     catalogs, schemas, tables, keys; sql_info.rs and xdbc.rs
//!   actions.rs      DoAction; session_options.rs
//! edge.rs         Arrow types every client reads    stream.rs, encode.rs  batches to messages
//! ticket.rs       what a ticket says, signed        sessions.rs           whose options hold
//! ```
//!
//! Rules: the schema in FlightInfo is the one DoGet sends; a ticket is enough to answer it; every
//! store has a bound; no panic leaves a handler; every error starts with its code in brackets.
#![deny(missing_docs)]

mod actions;
pub mod client;
mod connection;
mod context;
mod descriptor;
mod edge;
mod encode;
mod endpoints;
mod metadata;
mod names;
mod options;
mod parameters;
mod pattern;
mod prepared;
mod put;
mod server;
mod service;
mod session_options;
mod sessions;
mod sql_info;
mod statement;
mod status;
mod stream;
mod ticket;
mod xdbc;

pub use options::FlightOptions;
pub use server::serve;

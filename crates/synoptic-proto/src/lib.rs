//! Messages that cross the wire: tickets, receipts, and Flight's session options. Generated from
//! `proto/` when built.

/// Version 1 of our own messages.
pub mod v1 {
    #![expect(missing_docs, reason = "the comments stand in the .proto files")]
    include!(concat!(env!("OUT_DIR"), "/synoptic.v1.rs"));
}

/// Flight's session options, which the Rust crate of Flight does not have.
pub mod session {
    #![expect(missing_docs, reason = "the comments stand in the .proto files")]
    include!(concat!(env!("OUT_DIR"), "/arrow.flight.protocol.rs"));
}

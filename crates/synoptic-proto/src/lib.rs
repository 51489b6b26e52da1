//! Messages that cross the wire: tickets and receipts. Generated from `proto/` when built.

/// Version 1 of every message.
pub mod v1 {
    #![expect(missing_docs, reason = "the comments stand in the .proto files")]
    include!(concat!(env!("OUT_DIR"), "/synoptic.v1.rs"));
}

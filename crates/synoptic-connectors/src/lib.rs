//! The backends: one folder each, one registry.
//!
//! A connector is an [`Source`](synoptic_source::Source) and its options. Adding one touches its
//! folder and one line of [`registry`].

mod files;
mod options;
mod postgres;
mod recent;
mod registry;
mod sql;
mod sqlite;

pub use options::OptionsError;
pub use registry::{names, open, with_inherited};

//! Test harness.

pub mod s3;
pub mod postgres;

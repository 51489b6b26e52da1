//! Test harness.

pub mod postgres;
pub mod proxy;
pub mod s3;

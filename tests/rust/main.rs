mod conformance;
mod demo;
mod edges;
mod engine;
mod files;
mod postgres;
mod slt;
mod sqlite;

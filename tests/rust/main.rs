mod demo;
mod edges;
mod engine;
mod slt;
mod postgres;
mod files;
mod conformance;
mod sqlite;

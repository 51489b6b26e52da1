//! The sources as DataFusion sees them: catalogs, schemas, one table provider for all.

mod as_of;
mod clock;
mod copies;
mod information_schema;
mod library;
mod receipts;
mod rows;
mod source;
mod statement;
mod system;
mod table;

pub use library::catalogs;
pub(crate) use statement::{INFORMATION_SCHEMA, PUBLIC, SYNOPTIC, SYSTEM, StatementCatalogs};
pub(crate) use system::{SYSTEM_TABLES, system_schema_of};
pub(crate) use table::SourceTable;

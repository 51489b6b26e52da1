//! What is there to query, for `information_schema`, Flight SQL and completion.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::error::Result;

/// One table in a listing.
#[derive(Clone, Debug)]
pub struct TableEntry {
    /// Catalog: a source, or `synoptic`.
    pub catalog: String,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub kind: &'static str,
}

impl TableEntry {
    /// The columns; asks the source when they are not known yet.
    pub async fn columns(&self) -> Result<SchemaRef> {
        todo!()
    }

    /// Primary key columns in key order; empty when there is none or it is not known.
    pub async fn primary_key(&self) -> Result<Vec<String>> {
        todo!()
    }
}

/// A column in a listing.
pub type ColumnInfo = Arc<arrow::datatypes::Field>;

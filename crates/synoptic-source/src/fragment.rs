//! The part of a plan that a source runs.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion_expr::Expr;

use crate::table::TableDef;

/// Filter, then project, then limit one table. Never SQL text: each connector renders it.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// The table.
    pub table: Arc<TableDef>,
    /// Indices into the table's columns, in output order. May be empty: then only the number of
    /// rows matters, and batches have no columns but a row count.
    pub projection: Vec<usize>,
    /// Conditions joined by AND, over the table's columns by unqualified name. Only such that the
    /// source answered with `Exact` or `Inexact`.
    pub filters: Vec<Expr>,
    /// At most this many rows, over all partitions together. Set only when every filter of the
    /// plan below it is exact at the source.
    pub limit: Option<usize>,
}

impl Fragment {
    /// All columns of a table, every row.
    pub fn table(table: Arc<TableDef>) -> Self {
        let projection = (0..table.schema.fields().len()).collect();
        Self { table, projection, filters: Vec::new(), limit: None }
    }

    /// The schema of the batches this fragment yields.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.projection.iter().map(|&i| Arc::clone(&self.table.schema.fields()[i]));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

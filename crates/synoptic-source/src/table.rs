//! Tables as a source describes them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use synoptic_types::TableName;

/// What kind of relation a table is at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// A base table, or the files of a folder.
    Table,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// The parent of partitions.
    PartitionedTable,
    /// A table that lives in yet another system.
    ForeignTable,
}

impl TableKind {
    /// The type as `information_schema.tables` and Flight SQL spell it.
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::View | Self::MaterializedView => "VIEW",
            Self::Table | Self::PartitionedTable | Self::ForeignTable => "TABLE",
        }
    }
}

/// One line of a listing: enough to show a table without describing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Schema and name.
    pub name: TableName,
    /// Its kind at the source.
    pub kind: TableKind,
    /// The source's own comment on it.
    pub comment: Option<String>,
}

/// A described table. Immutable: when the table changes at the source, a new one is made.
#[derive(Clone)]
pub struct TableDef {
    /// Schema, name, kind, comment.
    pub info: TableInfo,
    /// The columns and their Arrow types, in the source's order. Nullable unless the source
    /// guarantees otherwise.
    pub schema: SchemaRef,
    /// Primary key columns in key order; empty when there is none or it is not known.
    pub primary_key: Vec<String>,
    /// What [`crate::Source::stamp`] said when this description was made.
    pub stamp: String,
    /// The connector's own facts: native types, collations, files.
    pub detail: Arc<dyn Any + Send + Sync>,
}

impl TableDef {
    /// Schema and name.
    pub fn name(&self) -> &TableName {
        &self.info.name
    }

    /// The connector's own facts, when they are a `T`.
    pub fn detail<T: 'static>(&self) -> Option<&T> {
        self.detail.downcast_ref()
    }
}

impl fmt::Debug for TableDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableDef")
            .field("info", &self.info)
            .field("schema", &self.schema)
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}

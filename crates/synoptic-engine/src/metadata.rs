//! What is there to query, for `information_schema`, Flight SQL and completion.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use synoptic_catalog::SourceEntry;
use synoptic_types::{ErrorCode, TableName};

use crate::catalog::{SYNOPTIC, SYSTEM, system_schema_of};
use crate::engine::Engine;
use crate::error::{Error, Result};

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
    /// The source's own comment.
    pub comment: Option<String>,
    owner: Owner,
}

/// Who can describe a table.
#[derive(Clone, Debug)]
enum Owner {
    Source(Arc<SourceEntry>),
    System(Arc<Engine>),
}

impl TableEntry {
    pub(crate) fn of_source(entry: &Arc<SourceEntry>, info: synoptic_source::TableInfo) -> Self {
        Self {
            catalog: entry.source().name().to_string(),
            schema: info.name.schema.to_string(),
            name: info.name.name.to_string(),
            kind: info.kind.as_sql(),
            comment: info.comment,
            owner: Owner::Source(Arc::clone(entry)),
        }
    }

    pub(crate) fn of_system(engine: &Arc<Engine>, name: &str) -> Self {
        Self {
            catalog: SYNOPTIC.to_owned(),
            schema: SYSTEM.to_owned(),
            name: name.to_owned(),
            kind: "SYSTEM TABLE",
            comment: None,
            owner: Owner::System(Arc::clone(engine)),
        }
    }

    pub(crate) fn is_of_a_source(&self) -> bool {
        matches!(self.owner, Owner::Source(_))
    }

    /// The columns; asks the source when they are not known yet.
    ///
    /// # Errors
    /// When the source does not answer or the table has gone.
    pub async fn columns(&self) -> Result<SchemaRef> {
        match &self.owner {
            Owner::Source(entry) => Ok(Arc::clone(&self.described(entry).await?.schema)),
            Owner::System(engine) => {
                system_schema_of(engine, &self.name).await.ok_or_else(|| self.gone())
            }
        }
    }

    /// Primary key columns in key order; empty when there is none or it is not known.
    ///
    /// # Errors
    /// When the source does not answer or the table has gone.
    pub async fn primary_key(&self) -> Result<Vec<String>> {
        match &self.owner {
            Owner::Source(entry) => Ok(self.described(entry).await?.primary_key.clone()),
            Owner::System(_) => Ok(Vec::new()),
        }
    }

    async fn described(&self, entry: &SourceEntry) -> Result<Arc<synoptic_source::TableDef>> {
        let name = TableName::new(self.schema.as_str(), self.name.as_str());
        entry.table(&name).await?.ok_or_else(|| self.gone())
    }

    fn gone(&self) -> Error {
        let Self { catalog, schema, name, .. } = self;
        Error::new(
            ErrorCode::UnknownTable,
            format!("table {catalog}.{schema}.{name} has gone since it was listed"),
        )
    }
}

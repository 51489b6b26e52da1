//! A source as a catalog, its schemas as schemas.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, TableReference};
use synoptic_catalog::SourceEntry;
use synoptic_source::TableDef;
use synoptic_types::{CopyKind, ErrorCode, TableName, TableVersion};

use crate::error::Error;
use crate::sql::version;

use super::as_of::AsOfTable;
use super::table::{ScopeOf, SourceTable};

/// A schema of a source. Tables are looked up when they are named: a listing is not needed to run
/// a query, and what a listing says may be old.
pub(crate) struct SourceSchema {
    pub(crate) entry: Arc<SourceEntry>,
    pub(crate) schema: Arc<str>,
    pub(crate) scope: ScopeOf,
    /// Where to look when this schema has no such table: `source.table` said from another catalog.
    pub(crate) otherwise: Option<Arc<SourceSchema>>,
    /// Names for callers who list synchronously; empty inside our own engine.
    pub(crate) listed: Vec<String>,
}

#[async_trait]
impl SchemaProvider for SourceSchema {
    fn table_names(&self) -> Vec<String> {
        self.listed.clone()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let whole = name;
        let (name, asked) = match version(name) {
            Some((name, version)) => (name, Some(version)),
            None => (name, None),
        };
        let table = TableName::new(Arc::clone(&self.schema), name);
        match self.entry.table(&table).await.map_err(|e| Error::from(e.in_table(&table)))? {
            Some(described) => {
                let scope = self.scope.clone();
                let read_at = asked.or_else(|| match &scope {
                    ScopeOf::Statement(scope) => scope.read_at.map(TableVersion::At),
                    ScopeOf::Session(_) => None,
                });
                let present =
                    |described| SourceTable::new(Arc::clone(&self.entry), described, scope.clone());
                let Some(version) = read_at else {
                    return Ok(Some(Arc::new(present(described).await)));
                };
                let columns = self.entry.system_time(&table);
                if columns.is_none()
                    && let Some(earlier) = self.earlier(&described, version).await?
                {
                    return Ok(Some(Arc::new(present(earlier).await)));
                }
                let catalog = self.entry.source().name().as_str();
                let reference = TableReference::full(catalog, &*self.schema, name);
                let source = present(described).await;
                Ok(Some(Arc::new(AsOfTable::new(source, reference, columns, version)?)))
            }
            None => match &self.otherwise {
                Some(schema) => schema.table(whole).await,
                None => Ok(None),
            },
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.listed.iter().any(|listed| listed == name)
    }
}

impl SourceSchema {
    /// A state that the table keeps itself; `None` when it keeps none.
    async fn earlier(
        &self,
        table: &Arc<TableDef>,
        version: TableVersion,
    ) -> Result<Option<Arc<TableDef>>, Error> {
        let source = self.entry.source();
        let place = |e: synoptic_source::SourceError| {
            Error::from(e.in_source(source.name()).in_table(table.name()))
        };
        let earlier = source.table_as_of(table, version).await.map_err(place)?;
        // What a replica held at a moment is not what its source held.
        if earlier.is_some() && self.entry.kind() != CopyKind::Authoritative {
            return Err(Error::new(
                ErrorCode::Unsupported,
                format!(
                    "source '{}', table {}: the earlier states of the copy '{}' are not those of \
                     its source; read them without WITH (copy = …)",
                    source.name(),
                    table.name(),
                    self.entry.copy()
                ),
            ));
        }
        Ok(earlier)
    }
}

impl std::fmt::Debug for SourceSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceSchema({}.{})", self.entry.source().name(), self.schema)
    }
}

/// A catalog made of ready schemas.
#[derive(Debug, Default)]
pub(crate) struct FixedCatalog(pub(crate) Vec<(String, Arc<dyn SchemaProvider>)>);

impl CatalogProvider for FixedCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, schema)| Arc::clone(schema))
    }
}

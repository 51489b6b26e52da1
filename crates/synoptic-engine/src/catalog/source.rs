//! A source as a catalog, its schemas as schemas.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, TableReference};
use synoptic_catalog::SourceEntry;
use synoptic_types::TableName;

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
            Some((name, moment)) => (name, Some(moment)),
            None => (name, None),
        };
        let table = TableName::new(Arc::clone(&self.schema), name);
        match self.entry.table(&table).await.map_err(|e| Error::from(e.in_table(&table)))? {
            Some(described) => {
                let scope = self.scope.clone();
                let read_at = asked.or_else(|| match &scope {
                    ScopeOf::Statement(scope) => scope.read_at,
                    ScopeOf::Session(_) => None,
                });
                let source = SourceTable::new(Arc::clone(&self.entry), described, scope).await;
                let Some(moment) = read_at else { return Ok(Some(Arc::new(source))) };
                let catalog = self.entry.source().name().as_str();
                let reference = TableReference::full(catalog, &*self.schema, name);
                let columns = self.entry.system_time(&table);
                Ok(Some(Arc::new(AsOfTable::new(source, reference, columns, moment)?)))
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

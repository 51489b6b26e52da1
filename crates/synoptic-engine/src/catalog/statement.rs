//! The catalogs of one statement: the sources of one snapshot, and our own catalog `synoptic`.

use std::fmt;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::common::ResolvedTableReference;
use synoptic_catalog::{Snapshot, SourceEntry};
use synoptic_types::TableName;

use crate::engine::Engine;
use crate::query::QueryRecord;
use crate::scope::Scope;
use crate::sql::version;

use super::information_schema::InformationSchema;
use super::source::SourceSchema;
use super::system::SystemSchema;
use super::table::{ScopeOf, SourceTable};

/// Our own catalog.
pub(crate) const SYNOPTIC: &str = "synoptic";
/// The schema for what users make; empty in this version.
pub(crate) const PUBLIC: &str = "public";
/// The schema of system tables.
pub(crate) const SYSTEM: &str = "system";
/// The standard's schema, in every catalog.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// What a statement can name.
#[derive(Clone)]
pub(crate) struct StatementCatalogs {
    pub(crate) engine: Arc<Engine>,
    pub(crate) sources: Arc<Snapshot>,
    pub(crate) scope: Arc<Scope>,
    /// The session's last statement that read a source.
    pub(crate) last: Option<Arc<QueryRecord>>,
}

impl StatementCatalogs {
    /// The copy of a source that the statement reads; the authoritative one until it is chosen.
    fn entry(&self, source: &str) -> Option<&Arc<SourceEntry>> {
        let chosen = self.scope.chosen().and_then(|chosen| chosen.entry(source));
        chosen.or_else(|| self.sources.source(source))
    }

    /// A schema by its names.
    pub(crate) fn schema(&self, catalog: &str, schema: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.catalog(catalog)?.schema(schema)
    }

    /// The table of that name as it was last known; with `confirmed_by_reading` only at a source
    /// that says whether it still is when it is read.
    pub(crate) async fn last_known(
        &self,
        name: &ResolvedTableReference,
        confirmed_by_reading: bool,
    ) -> Option<SourceTable> {
        if version(&name.table).is_some() || self.scope.read_at.is_some() {
            return None;
        }
        let (source, schema) = match self.sources.source(&name.catalog) {
            Some(_) => (&name.catalog, &*name.schema),
            None if *name.catalog == *SYNOPTIC => {
                let source = self.sources.source(&name.schema)?.source();
                (&name.schema, source.default_schema())
            }
            None => return None,
        };
        let entry = self.entry(source)?;
        if confirmed_by_reading && !entry.source().confirms_tables() {
            return None;
        }
        let table = entry.last_known(&TableName::new(schema, &*name.table))?;
        let scope = ScopeOf::Statement(Arc::clone(&self.scope));
        Some(SourceTable::new(Arc::clone(entry), table, scope).await)
    }

    fn source_schema(
        &self,
        entry: &Arc<SourceEntry>,
        schema: &str,
        otherwise: Option<Arc<SourceSchema>>,
    ) -> Arc<SourceSchema> {
        Arc::new(SourceSchema {
            entry: Arc::clone(entry),
            schema: schema.into(),
            scope: ScopeOf::Statement(Arc::clone(&self.scope)),
            otherwise,
            listed: Vec::new(),
        })
    }

    /// The schema that `source.table` means, when `name` is a source.
    fn shorthand(&self, name: &str) -> Option<Arc<SourceSchema>> {
        let entry = self.entry(name)?;
        let schema = self.sources.source(name)?.source().default_schema();
        Some(self.source_schema(entry, schema, None))
    }
}

impl CatalogProviderList for StatementCatalogs {
    fn register_catalog(
        &self,
        _name: String,
        _catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        let sources = self.sources.sources().map(|entry| entry.source().name().to_string());
        std::iter::once(SYNOPTIC.to_owned()).chain(sources).collect()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let source = match self.entry(name) {
            Some(entry) => Some(Arc::clone(entry)),
            None if name == SYNOPTIC => None,
            None => return None,
        };
        Some(Arc::new(StatementCatalog { all: self.clone(), source }))
    }
}

impl fmt::Debug for StatementCatalogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatementCatalogs({:?})", self.scope)
    }
}

/// One catalog of a statement: a source, or our own when there is none.
#[derive(Debug)]
struct StatementCatalog {
    all: StatementCatalogs,
    source: Option<Arc<SourceEntry>>,
}

impl CatalogProvider for StatementCatalog {
    fn schema_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == INFORMATION_SCHEMA {
            let engine = Arc::clone(&self.all.engine);
            return Some(Arc::new(InformationSchema::new(engine)));
        }
        match &self.source {
            Some(entry) => {
                let otherwise = self.all.shorthand(name);
                Some(self.all.source_schema(entry, name, otherwise))
            }
            None => match name {
                SYSTEM => Some(Arc::new(SystemSchema::new(
                    Arc::clone(&self.all.engine),
                    self.all.last.clone(),
                ))),
                _ => Some(self.all.shorthand(name)?),
            },
        }
    }
}

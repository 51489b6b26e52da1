//! Our catalogs inside somebody else's DataFusion session.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};

use datafusion::catalog::{CatalogProvider, SchemaProvider, Session};
use parking_lot::Mutex;
use synoptic_catalog::Host;
use synoptic_source::Statement;
use synoptic_types::{QueryId, QueryOptions};
use uuid::Uuid;

use crate::error::Result;
use crate::scope::Scope;

use super::source::{FixedCatalog, SourceSchema};
use super::table::ScopeOf;

/// The scopes of statements that run in sessions we do not own.
///
/// DataFusion stamps every statement of a session with the time it started; all scans that carry
/// one stamp read one snapshot per source. Scopes live as long as a plan holds them.
#[derive(Default)]
pub(crate) struct SessionScopes {
    options: QueryOptions,
    scopes: Mutex<HashMap<(String, i64), Weak<Scope>>>,
}

impl SessionScopes {
    pub(super) fn scope_of(&self, state: &dyn Session) -> Arc<Scope> {
        let started = state.execution_props().query_execution_start_time;
        let Some(started) = started.and_then(|t| t.timestamp_nanos_opt()) else {
            return self.fresh();
        };
        let mut scopes = self.scopes.lock();
        scopes.retain(|_, scope| scope.strong_count() > 0);
        let key = (state.session_id().to_owned(), started);
        if let Some(scope) = scopes.get(&key).and_then(Weak::upgrade) {
            return scope;
        }
        let scope = self.fresh();
        scopes.insert(key, Arc::downgrade(&scope));
        scope
    }

    fn fresh(&self) -> Arc<Scope> {
        let id = Uuid::now_v7().to_string();
        let statement = Statement { query_id: QueryId::new(id), deadline: None };
        Scope::new(Arc::new(statement), &self.options)
    }
}

impl fmt::Debug for SessionScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionScopes")
    }
}

/// Every source of `host` as a catalog to register in a `SessionContext` of your own.
///
/// Tables are listed once, now; a table that appears later is found by name all the same.
///
/// # Errors
/// When a source does not answer.
pub async fn catalogs(host: &Arc<Host>) -> Result<Vec<(String, Arc<dyn CatalogProvider>)>> {
    let scopes = Arc::new(SessionScopes::default());
    let mut catalogs: Vec<(String, Arc<dyn CatalogProvider>)> = Vec::new();
    for entry in host.snapshot().sources() {
        let source = entry.source();
        let mut schemas: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
        schemas.entry(source.default_schema().into()).or_default();
        for table in source.tables().await.map_err(|e| e.in_source(source.name()))? {
            schemas.entry(table.name.schema).or_default().push(table.name.name.to_string());
        }
        let schema = |(schema, listed): (Arc<str>, Vec<String>)| {
            let provider: Arc<dyn SchemaProvider> = Arc::new(SourceSchema {
                entry: Arc::clone(entry),
                schema: Arc::clone(&schema),
                scope: ScopeOf::Session(Arc::clone(&scopes)),
                otherwise: None,
                listed,
            });
            (schema.to_string(), provider)
        };
        let catalog = FixedCatalog(schemas.into_iter().map(schema).collect());
        catalogs.push((source.name().to_string(), Arc::new(catalog)));
    }
    Ok(catalogs)
}

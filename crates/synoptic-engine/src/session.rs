//! A session: options, and the place where unqualified names are looked up.

use std::sync::Arc;

use synoptic_types::QueryOptions;

use crate::engine::Engine;
use crate::error::Result;
use crate::query::{Description, PlannedQuery, Request};

/// One client's state. Cheap to clone; clones share the state.
#[derive(Debug, Clone)]
pub struct Session {}

impl Session {
    /// The engine behind it.
    pub fn engine(&self) -> &Arc<Engine> {
        todo!()
    }

    /// The options in force now.
    pub fn options(&self) -> QueryOptions {
        todo!()
    }

    /// Sets an option by name, with or without `synoptic.`, as `SET` does.
    pub fn set_option(&self, name: &str, value: &str) -> Result<()> {
        todo!()
    }

    /// Puts an option back to its default, as `RESET` does.
    pub fn reset_option(&self, name: &str) -> Result<()> {
        todo!()
    }

    /// The catalog that unqualified names are looked up in.
    pub fn catalog(&self) -> String {
        todo!()
    }

    /// The schema that unqualified names are looked up in.
    pub fn schema(&self) -> String {
        todo!()
    }

    /// Changes the current catalog.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn set_catalog(&self, catalog: &str) -> Result<()> {
        todo!()
    }

    /// Changes the current schema.
    ///
    /// # Errors
    /// When the current catalog has none of that name.
    pub async fn set_schema(&self, schema: &str) -> Result<()> {
        todo!()
    }

    /// What a statement would answer, without running it: its schema and its parameters.
    pub async fn describe(&self, request: &Request) -> Result<Description> {
        todo!()
    }

    /// Plans a statement. `SET` and its like take effect here, exactly once.
    pub async fn plan(&self, request: Request) -> Result<PlannedQuery> {
        todo!()
    }
}

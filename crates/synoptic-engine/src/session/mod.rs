//! A session: options, and the place where unqualified names are looked up.

mod change;
mod describe;
mod functions;
mod logical;
mod parameters;
mod plan;
mod plan_cache;
pub(crate) mod settings;
mod show;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use parking_lot::Mutex;
use synoptic_freshness::Token;
use synoptic_types::{ErrorCode, OptionError, QueryOptions};

pub(crate) use plan::{Planned, Replanning, within};
pub(crate) use plan_cache::PlanCache;
pub use plan_cache::PlanCacheStats;

use crate::catalog::{INFORMATION_SCHEMA, PUBLIC, SYNOPTIC, SYSTEM, StatementCatalogs};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::query::QueryRecord;

/// One client's state. Cheap to clone; clones share the state.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Arc<Engine>,
    client: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone)]
struct State {
    options: QueryOptions,
    catalog: String,
    schema: String,
    /// DataFusion settings that were set, by their full names.
    datafusion: BTreeMap<String, String>,
    /// At least this was seen by the session's reads.
    token: Token,
    /// The last statement that read a source.
    last: Option<Arc<QueryRecord>>,
}

/// DataFusion settings a session may change: how things look, never what is true.
const DATAFUSION_SETTINGS: [&str; 4] = [
    "datafusion.execution.time_zone",
    "datafusion.explain.format",
    "datafusion.explain.logical_plan_only",
    "datafusion.explain.physical_plan_only",
];

const TIME_ZONE: &str = "datafusion.execution.time_zone";

impl Session {
    pub(crate) fn new(engine: Arc<Engine>, client: &str) -> Self {
        let state = State {
            options: engine.config().defaults.clone(),
            catalog: SYNOPTIC.to_owned(),
            schema: PUBLIC.to_owned(),
            datafusion: BTreeMap::new(),
            token: Token::default(),
            last: None,
        };
        Self { engine, client: client.into(), state: Arc::new(Mutex::new(state)) }
    }

    /// The session as it is now, for a statement that may have to be planned again later.
    fn as_it_is(&self) -> Self {
        let state = Arc::new(Mutex::new(self.state.lock().clone()));
        Self { state, ..self.clone() }
    }

    /// The session's last statement that read a source.
    pub(crate) fn last_read(&self) -> Option<Arc<QueryRecord>> {
        self.state.lock().last.clone()
    }

    /// A statement that reads sources begins.
    pub(crate) fn reads(&self, record: &Arc<QueryRecord>) {
        self.state.lock().last = Some(Arc::clone(record));
    }

    /// The session has seen what `token` stands for.
    pub(crate) fn has_seen(&self, token: &Token) {
        if let Err(error) = self.state.lock().token.merge(token) {
            tracing::warn!(%error, "the session's token does not grow any more");
        }
    }

    /// The engine behind it.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The options in force now.
    pub fn options(&self) -> QueryOptions {
        self.state.lock().options.clone()
    }

    /// Sets an option by name, with or without `synoptic.`, as `SET` does.
    ///
    /// # Errors
    /// `[INVALID_OPTION]` when there is none of that name or it does not take the value,
    /// `[UNSUPPORTED]` when this version cannot honour the value.
    pub fn set_option(&self, name: &str, value: &str) -> Result<()> {
        let lower = name.to_ascii_lowercase();
        let name = match lower.as_str() {
            "timezone" | "time_zone" => TIME_ZONE,
            other => other,
        };
        if settings::IGNORED.contains(&name) {
            tracing::debug!(setting = name, "has no meaning here and is left alone");
            return Ok(());
        }
        if name == "search_path" {
            self.state.lock().schema = value.to_owned();
            return Ok(());
        }
        if name.starts_with("datafusion.") {
            return self.set_datafusion(name, value);
        }
        if name.trim_start_matches("synoptic.") == "token" && !value.trim().is_empty() {
            Token::decode(value.trim(), self.engine.token_key())
                .map_err(|e| Error::new(e.code(), format!("synoptic.token: {e}")))?;
        }
        Ok(self.state.lock().options.set(name, value)?)
    }

    fn set_datafusion(&self, name: &str, value: &str) -> Result<()> {
        if !DATAFUSION_SETTINGS.contains(&name) {
            return Err(Error::new(
                ErrorCode::InvalidOption,
                format!(
                    "'{name}' cannot be set here; of DataFusion's settings a session may change {}",
                    DATAFUSION_SETTINGS.join(", ")
                ),
            ));
        }
        if name == TIME_ZONE && value.parse::<arrow::array::timezone::Tz>().is_err() {
            return Err(Error::new(
                ErrorCode::InvalidOption,
                format!("'{value}' is not a time zone; write for example 'UTC' or '+01:00'"),
            ));
        }
        let mut probe = self.engine.base_state();
        probe
            .config_mut()
            .options_mut()
            .set(name, value)
            .map_err(|e| Error::new(ErrorCode::InvalidOption, e.strip_backtrace()))?;
        self.state.lock().datafusion.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// Puts an option back to its default, as `RESET` does.
    ///
    /// # Errors
    /// `[INVALID_OPTION]` when there is none of that name.
    pub fn reset_option(&self, name: &str) -> Result<()> {
        let lower = name.to_ascii_lowercase();
        let mut state = self.state.lock();
        match lower.as_str() {
            "timezone" | "time_zone" => drop(state.datafusion.remove(TIME_ZONE)),
            "search_path" => PUBLIC.clone_into(&mut state.schema),
            ignored if settings::IGNORED.contains(&ignored) => {}
            name if DATAFUSION_SETTINGS.contains(&name) => drop(state.datafusion.remove(name)),
            "all" => {
                state.options = self.engine.config().defaults.clone();
                state.datafusion.clear();
            }
            name => state.options.reset(name, &self.engine.config().defaults)?,
        }
        Ok(())
    }

    /// The text of an option, as `SHOW` answers it.
    ///
    /// # Errors
    /// `[INVALID_OPTION]` when there is none of that name.
    pub fn option(&self, name: &str) -> Result<String> {
        let lower = name.to_ascii_lowercase();
        let state = self.state.lock();
        let known = match lower.as_str() {
            "timezone" | "time_zone" | TIME_ZONE => {
                Some(state.datafusion.get(TIME_ZONE).map_or("UTC", String::as_str))
            }
            "search_path" => Some(state.schema.as_str()),
            "transaction_isolation" => Some("repeatable read"),
            "server_version" => Some(env!("CARGO_PKG_VERSION")),
            "client_encoding" => Some("UTF8"),
            "standard_conforming_strings" => Some("on"),
            "datestyle" => Some("ISO"),
            _ => None,
        };
        match known {
            Some(value) => Ok(value.to_owned()),
            None => state.options.get(&lower).map_err(Error::from),
        }
    }

    /// The catalog that unqualified names are looked up in.
    pub fn catalog(&self) -> String {
        self.state.lock().catalog.clone()
    }

    /// The schema that unqualified names are looked up in.
    pub fn schema(&self) -> String {
        self.state.lock().schema.clone()
    }

    /// Changes the current catalog, and the current schema to that catalog's default one.
    ///
    /// # Errors
    /// `[UNKNOWN_TABLE]` when there is none of that name.
    pub fn set_catalog(&self, catalog: &str) -> Result<()> {
        let snapshot = self.engine.host().snapshot();
        let schema = match snapshot.source(catalog) {
            Some(entry) => entry.source().default_schema().to_owned(),
            None if catalog == SYNOPTIC => PUBLIC.to_owned(),
            None => {
                let names = self.engine.catalogs().join(", ");
                return Err(Error::new(
                    ErrorCode::UnknownTable,
                    format!("there is no catalog '{catalog}'; the catalogs are {names}"),
                ));
            }
        };
        let mut state = self.state.lock();
        catalog.clone_into(&mut state.catalog);
        state.schema = schema;
        Ok(())
    }

    /// Changes the current schema.
    ///
    /// # Errors
    /// `[UNKNOWN_TABLE]` when the current catalog has none of that name.
    pub async fn set_schema(&self, schema: &str) -> Result<()> {
        let catalog = self.catalog();
        let own = [PUBLIC, SYSTEM, INFORMATION_SCHEMA];
        let known = (catalog == SYNOPTIC && own.contains(&schema))
            || self.engine.schemas().await.iter().any(|(c, s)| *c == catalog && s == schema);
        if !known {
            return Err(Error::new(
                ErrorCode::UnknownTable,
                format!("catalog '{catalog}' has no schema '{schema}'"),
            ));
        }
        schema.clone_into(&mut self.state.lock().schema);
        Ok(())
    }

    /// DataFusion's state for one statement of this session, as `session` was when it began.
    fn session_state(
        &self,
        session: State,
        catalogs: StatementCatalogs,
        options: &QueryOptions,
    ) -> SessionState {
        let token = match session.token.is_empty() {
            true => None,
            false => session.token.encode(self.engine.token_key()).ok(),
        };
        let mut state = self.engine.base_state();
        for function in functions::of_session(&session.catalog, &session.schema, &token) {
            // Replacing a built-in function of the same name is meant.
            if let Err(error) = state.register_udf(function) {
                tracing::error!(%error, "a session function cannot be registered");
            }
        }
        let config = state.config_mut().options_mut();
        config.catalog.default_catalog = session.catalog;
        config.catalog.default_schema = session.schema;
        config.optimizer.enable_dynamic_filter_pushdown = options.dynamic_filters;
        for (name, value) in &session.datafusion {
            // Checked when it was set.
            if let Err(error) = config.set(name, value) {
                tracing::error!(setting = name, %error, "a setting was accepted and cannot be used");
            }
        }
        state.register_catalog_list(Arc::new(catalogs));
        state.mark_start_execution();
        state
    }

    /// The session's options with those of one request.
    fn options_with(&self, overrides: &[(String, String)]) -> Result<QueryOptions> {
        let mut options = self.options();
        for (name, value) in overrides {
            options.set(name, value).map_err(|error| match error {
                OptionError::Unknown { name } => Error::from(OptionError::Unknown {
                    name: format!("{name} (given with the request)"),
                }),
                other => other.into(),
            })?;
        }
        Ok(options)
    }
}

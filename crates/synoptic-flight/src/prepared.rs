//! Prepared statements: text, description, and the values bound last.

use std::sync::{Arc, Weak};

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{ActionCreatePreparedStatementResult, Any, ProstMessageExt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use prost::Message;
use synoptic_engine::{Description, Request, Session};
use synoptic_types::ErrorCode;
use tonic::Code;

use crate::context::Call;
use crate::edge::{self, Types};
use crate::encode::schema_bytes;
use crate::options::FlightOptions;
use crate::parameters::{self, Placeholders};
use crate::sessions::ClientSession;
use crate::status::{Fault, Result};

/// A prepared statement. It runs in the session that prepared it.
pub(crate) struct Prepared {
    pub(crate) session: Session,
    pub(crate) sql: String,
    /// What a client was told the answer looks like.
    pub(crate) schema: SchemaRef,
    /// Which Arrow types it was told, kept so that the answer has them too.
    pub(crate) types: Types,
    description: Description,
    /// The last values bound; executing again without binding uses them again.
    bound: Mutex<Option<Vec<ScalarValue>>>,
    owner: Weak<ClientSession>,
}

impl Prepared {
    /// The placeholders in order.
    pub(crate) fn placeholders(&self) -> &Placeholders {
        &self.description.parameters
    }

    /// Takes new values, or none.
    pub(crate) fn bind(&self, values: Option<Vec<ScalarValue>>) {
        *self.bound.lock() = values;
    }

    /// The values to run with.
    ///
    /// # Errors
    /// `[SYNTAX]` when the statement has parameters and none were bound.
    pub(crate) fn values(&self) -> Result<Vec<ScalarValue>> {
        let values = self.bound.lock().clone().unwrap_or_default();
        parameters::check_count(values.len(), self.placeholders())?;
        Ok(values)
    }
}

/// All prepared statements. Clones share them.
#[derive(Clone)]
pub(crate) struct PreparedStore {
    by_handle: Cache<String, Arc<Prepared>>,
}

impl PreparedStore {
    pub(crate) fn new(options: &FlightOptions) -> Self {
        let by_handle = Cache::builder()
            .max_capacity(options.max_prepared)
            .time_to_idle(options.session_idle_ttl)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(|handle: Arc<String>, prepared: Arc<Prepared>, _| {
                if let Some(owner) = prepared.owner.upgrade() {
                    owner.handles.lock().remove(handle.as_str());
                }
            })
            .build();
        Self { by_handle }
    }

    /// Prepares `sql` and answers as the action CreatePreparedStatement does.
    pub(crate) async fn create(&self, call: &Call, sql: String) -> Result<Bytes> {
        let session = call.session.session.clone();
        let request = Request {
            sql: sql.clone(),
            overrides: call.overrides.clone(),
            timeout: call.remaining(),
            ..Request::default()
        };
        let description = call.bounded(async { Ok(session.describe(&request).await?) }).await?;
        let schema = edge::schema(&description.schema, call.types, None);
        // Guessing a handle must be hopeless: it is the only key to the statement.
        let handle = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.clone().into(),
            dataset_schema: schema_bytes(&schema)?,
            parameter_schema: schema_bytes(&parameters::schema(&description.parameters))?,
        };
        let is_update = description.is_update;
        call.session.handles.lock().insert(handle.clone());
        let prepared = Prepared {
            session,
            sql,
            schema,
            types: call.types,
            description,
            bound: Mutex::default(),
            owner: Arc::downgrade(&call.session),
        };
        self.by_handle.insert(handle, Arc::new(prepared));
        Ok(encode_result(&result, is_update))
    }

    /// The statement of a handle.
    ///
    /// # Errors
    /// NOT_FOUND when there is none, or no longer.
    pub(crate) fn get(&self, handle: &[u8]) -> Result<Arc<Prepared>> {
        std::str::from_utf8(handle)
            .ok()
            .and_then(|handle| self.by_handle.get(handle))
            .ok_or_else(unknown)
    }

    /// Closes the statement of a handle, when a client asks for it.
    ///
    /// # Errors
    /// NOT_FOUND when there is none, or no longer.
    pub(crate) fn close_existing(&self, handle: &[u8]) -> Result<()> {
        let handle = std::str::from_utf8(handle).map_err(|_| unknown())?;
        let prepared = self.by_handle.remove(handle).ok_or_else(unknown)?;
        if let Some(owner) = prepared.owner.upgrade() {
            owner.handles.lock().remove(handle);
        }
        Ok(())
    }

    /// Closes the statement of a handle, when there is one.
    pub(crate) fn close(&self, handle: &str) {
        self.by_handle.invalidate(handle);
    }

    /// Drops what has expired; without it that happens only when statements are used.
    pub(crate) fn sweep(&self) {
        self.by_handle.run_pending_tasks();
    }
}

fn unknown() -> Fault {
    Fault::new(
        ErrorCode::InvalidOption,
        "there is no prepared statement of this handle: it was closed, was unused for too long, \
         or its session has ended; prepare it again",
    )
    .with_grpc(Code::NotFound)
}

/// The message with `is_update` (field 4, a varint), which arrow-flight's does not have. With it
/// a client knows for certain which way to run the statement.
fn encode_result(result: &ActionCreatePreparedStatementResult, is_update: bool) -> Bytes {
    let mut value = result.encode_to_vec();
    value.extend([0x20, u8::from(is_update)]);
    let type_url = ActionCreatePreparedStatementResult::type_url().to_owned();
    Any { type_url, value: value.into() }.encode_to_vec().into()
}

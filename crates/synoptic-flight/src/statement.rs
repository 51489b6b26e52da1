//! Statements: FlightInfo with a ticket, and the answer to a ticket.
//!
//! GetFlightInfo plans and keeps the plan; DoGet takes it and runs it. When the plan is gone
//! (it waited too long, was read before, or another server made it) the ticket plans it again,
//! with the options, names and parameters of then, and must come to the same columns. Options in
//! the headers of DoGet come too late for a ticket; they hold for a DoGet that carries SQL.
//!
//! A statement that writes is run by GetFlightInfo, once; its ticket answers what it did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray as _;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo};
use bytes::Bytes;
use datafusion::common::ScalarValue;
use futures::StreamExt;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use prost::Message;
use synoptic_engine::{CancelOutcome, Engine, PlannedQuery, Request, Session};
use synoptic_types::{ErrorCode, QueryId, QueryOptions};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response};
use uuid::Uuid;

use crate::context::Call;
use crate::edge::{self, Types};
use crate::encode::{Limits, read_schema, schema_bytes};
use crate::endpoints::{Rows, SharedAnswers, receipt_json};
use crate::options::FlightOptions;
use crate::parameters;
use crate::status::{Fault, QUERY_ID_HEADER, Result};
use crate::stream::{self, Messages, Sending};
use crate::ticket::{Signer, Ticket, expiry, timestamp};

/// Session settings beside the options: the engine's names for them.
const TIME_ZONE: &str = "timezone";
const SCHEMA: &str = "search_path";

/// A statement as it is to be run.
pub(crate) struct Statement {
    pub(crate) session: Session,
    pub(crate) sql: String,
    pub(crate) parameters: Vec<ScalarValue>,
    pub(crate) types: Types,
}

impl Statement {
    /// A statement of the calling session, without parameters.
    pub(crate) fn of_call(call: &Call, sql: String) -> Self {
        let session = call.session.session.clone();
        Self { session, sql, parameters: Vec::new(), types: call.types }
    }
}

/// A plan that waits for its DoGet. It is taken once; dropping it ends the query.
type Kept = Arc<Mutex<Option<PlannedQuery>>>;

/// Plans, keeps plans, runs.
pub(crate) struct Statements {
    engine: Arc<Engine>,
    signer: Signer,
    options: FlightOptions,
    kept: Cache<QueryId, Kept>,
    shared: SharedAnswers,
    stop: CancellationToken,
}

impl Statements {
    pub(crate) fn new(
        engine: Arc<Engine>,
        signer: Signer,
        options: FlightOptions,
        stop: CancellationToken,
    ) -> Self {
        let kept = Cache::builder()
            .max_capacity(options.max_planned)
            .time_to_live(options.planned_ttl)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        let shared = SharedAnswers::new(&options);
        Self { engine, signer, options, kept, shared, stop }
    }

    /// Plans a statement and answers as GetFlightInfo does. `SET` takes effect here.
    pub(crate) async fn info(
        &self,
        call: &Call,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Result<(QueryId, FlightInfo)> {
        let id = new_query_id();
        // The limit of this call bounds planning; the answer is another call's.
        let planned =
            self.plan(call, &statement, &id, None).await.map_err(|f| f.with_query(&id))?;
        let schema = edge::schema(&planned.schema(), statement.types, Some(&id));
        let arrow_schema = schema_bytes(&schema)?;
        let ticket = Ticket {
            query: id.clone(),
            sql: statement.sql,
            parameters: parameters::write(&statement.parameters)?,
            options: options_in_force(
                &statement.session,
                &self.engine.session(&call.client),
                &call.overrides,
            )?,
            catalog: statement.session.catalog(),
            schema: statement.session.schema(),
            expires_at: expiry(self.engine.clock().now(), self.options.ticket_ttl),
            arrow_schema: arrow_schema.clone(),
            types: statement.types,
            endpoint: 0,
        };
        // An order that was asked for has one reader; what is written is told once.
        let divided = call.endpoints > 1 && !planned.is_ordered() && !planned.is_write();
        let endpoint = match divided {
            true => (1..=call.endpoints)
                .map(|endpoint| self.endpoint(&Ticket { endpoint, ..ticket.clone() }))
                .collect(),
            false => vec![self.endpoint(&ticket)],
        };
        let info = FlightInfo {
            schema: arrow_schema,
            endpoint,
            app_metadata: receipt_json(&planned.receipt())?,
            ..FlightInfo::new().with_descriptor(descriptor)
        };
        if planned.is_write() {
            // Some clients never read the answer of what they take for an update. The ticket
            // answers with what is remembered.
            let written = async {
                let mut stream = planned.run()?;
                while let Some(batch) = stream.next().await {
                    batch?;
                }
                Ok(serde_json::to_vec(&stream.receipt()).ok())
            };
            let receipt = call.bounded(written).await.map_err(|f| f.with_query(&id))?;
            let app_metadata = receipt.map_or(info.app_metadata.clone(), Bytes::from);
            return Ok((id, FlightInfo { app_metadata, ..info }));
        }
        match divided {
            true => self.shared.keep(planned, call.endpoints),
            false => self.kept.insert(id.clone(), Arc::new(Mutex::new(Some(planned)))),
        }
        Ok((id, info))
    }

    /// Answers a signed ticket.
    pub(crate) async fn get(&self, call: &Call, handle: &[u8]) -> Result<Response<Messages>> {
        let ticket = Ticket::open(handle, &self.signer)?;
        ticket.check_expiry(self.engine.clock().now())?;
        let answer = async {
            let promised = read_schema(&ticket.arrow_schema)
                .map_err(|e| Fault::internal(format!("the schema in a ticket: {e}")))?;
            if ticket.endpoint > 0 {
                let rows = self.shared.open(&ticket.query, ticket.endpoint)?;
                return Ok(self.send(call, Rows::Part(rows), Arc::new(promised)));
            }
            let planned = match self.take(&ticket.query) {
                Some(planned) => planned,
                None => {
                    if let Some(answer) = self.written(call, &ticket).await? {
                        return Ok(answer);
                    }
                    self.plan_again(call, &ticket).await?
                }
            };
            let schema = edge::schema(&planned.schema(), ticket.types, Some(&ticket.query));
            same_columns(&promised, &schema)?;
            Ok(self.send(call, Rows::All(planned.run()?), Arc::new(promised)))
        };
        answer.await.map_err(|f: Fault| f.with_query(&ticket.query))
    }

    /// Plans and answers at once, for a DoGet that carries the statement itself.
    pub(crate) async fn run(
        &self,
        call: &Call,
        statement: Statement,
    ) -> Result<Response<Messages>> {
        let id = new_query_id();
        let answer = async {
            let request = request(call, &statement, &id, call.remaining());
            let started = async { Ok(statement.session.start(request).await?) };
            let query = call.bounded(started).await?;
            let schema = edge::schema(&query.schema(), statement.types, Some(&id));
            Ok(self.send(call, Rows::All(query), schema))
        };
        answer.await.map_err(|f: Fault| f.with_query(&id))
    }

    /// Runs a statement that writes, or answers no rows, such as `SET`, to its end; the rows that
    /// were written.
    ///
    /// # Errors
    /// `[UNSUPPORTED]` when it answers rows: they would be lost.
    pub(crate) async fn update(&self, call: &Call, statement: Statement) -> Result<i64> {
        let id = new_query_id();
        let work = async {
            let planned = self.plan(call, &statement, &id, call.remaining()).await?;
            let writes = planned.is_write();
            if !writes && !planned.schema().fields().is_empty() {
                return Err(Fault::unsupported(
                    "the statement answers rows; send it as a query, not as an update",
                ));
            }
            let mut stream = planned.run()?;
            let mut count = 0;
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                if writes {
                    let column = batch.column(0).as_primitive_opt::<Int64Type>();
                    count += column.map_or(0, |column| column.values().iter().sum::<i64>());
                }
            }
            Ok(count)
        };
        call.bounded(work).await.map_err(|f| f.with_query(&id))
    }

    /// What a statement would answer, without planning its scans.
    pub(crate) async fn describe(&self, call: &Call, sql: String) -> Result<SchemaRef> {
        let request = Request {
            sql,
            overrides: call.overrides.clone(),
            timeout: call.remaining(),
            ..Request::default()
        };
        let session = &call.session.session;
        let description = call.bounded(async { Ok(session.describe(&request).await?) }).await?;
        Ok(edge::schema(&description.schema, call.types, None))
    }

    /// Cancels the query of a ticket, whether it waits or runs.
    pub(crate) fn cancel(&self, handle: &[u8]) -> Result<CancelOutcome> {
        let ticket = Ticket::open(handle, &self.signer)?;
        let waited = self.take(&ticket.query).is_some() || self.shared.forget(&ticket.query);
        let outcome = self.engine.cancel(&ticket.query);
        Ok(if waited { CancelOutcome::Cancelled } else { outcome })
    }

    /// The same ticket with a later expiry.
    ///
    /// # Errors
    /// When it has expired already.
    pub(crate) fn renew(&self, handle: &[u8]) -> Result<FlightEndpoint> {
        let mut ticket = Ticket::open(handle, &self.signer)?;
        let now = self.engine.clock().now();
        ticket.check_expiry(now)?;
        ticket.expires_at = expiry(now, self.options.ticket_ttl);
        Ok(self.endpoint(&ticket))
    }

    /// Ends plans that have waited too long; without it that happens only when plans are used.
    pub(crate) fn sweep(&self) {
        self.kept.run_pending_tasks();
        self.shared.sweep();
    }

    /// How large messages may be.
    pub(crate) fn limits(&self) -> Limits {
        Limits { message: self.options.message_bytes, row: self.options.max_row_bytes }
    }

    async fn plan(
        &self,
        call: &Call,
        statement: &Statement,
        id: &QueryId,
        timeout: Option<Duration>,
    ) -> Result<PlannedQuery> {
        let request = request(call, statement, id, timeout);
        call.bounded(async { Ok(statement.session.plan(request).await?) }).await
    }

    /// Plans the statement of a ticket in a session of its own, so that nothing but the ticket
    /// decides what it means.
    async fn plan_again(&self, call: &Call, ticket: &Ticket) -> Result<PlannedQuery> {
        let session = self.engine.session(&call.client);
        if session.catalog() != ticket.catalog {
            session.set_catalog(&ticket.catalog)?;
        }
        // It was there when the ticket was made: no need to ask the source once more.
        session.set_option(SCHEMA, &ticket.schema)?;
        let mut options = ticket.options.clone();
        if let Some(zone) = options.remove(TIME_ZONE) {
            session.set_option(TIME_ZONE, &zone)?;
        }
        let request = Request {
            sql: ticket.sql.clone(),
            parameters: parameters::read(&ticket.parameters)?,
            overrides: options.into_iter().collect(),
            timeout: call.remaining(),
            query_id: Some(ticket.query.clone()),
        };
        let planned = call.bounded(async { Ok(session.plan(request).await?) }).await?;
        if planned.is_write() {
            return Err(Fault::new(
                ErrorCode::InvalidOption,
                "this ticket writes, and what became of it is not known here any more: it waited \
                 too long, was read long ago, or another server made it. Nothing is written now; \
                 look whether the rows are there before you send the statement again",
            )
            .with_grpc(Code::FailedPrecondition));
        }
        Ok(planned)
    }

    /// The answer of a ticket whose write was begun before: nothing is written twice.
    async fn written(&self, call: &Call, ticket: &Ticket) -> Result<Option<Response<Messages>>> {
        let known = call.bounded(async { Ok(self.engine.written(&ticket.query).await) }).await?;
        let Some(answer) = known else { return Ok(None) };
        let batch = answer?;
        let schema = edge::schema(&batch.schema(), ticket.types, Some(&ticket.query));
        let batch = batch
            .with_schema(schema)
            .map_err(|e| Fault::internal(format!("the answer of a write: {e}")))?;
        let receipt = self.engine.receipt(&ticket.query);
        let receipt = receipt.and_then(|receipt| serde_json::to_vec(&receipt).ok());
        let receipt = receipt.map(Bytes::from).unwrap_or_default();
        let mut response = Response::new(stream::repeated(&batch, self.limits(), receipt));
        name_query(&mut response, &ticket.query);
        Ok(Some(response))
    }

    fn take(&self, id: &QueryId) -> Option<PlannedQuery> {
        self.kept.remove(id)?.lock().take()
    }

    fn send(&self, call: &Call, rows: Rows, schema: SchemaRef) -> Response<Messages> {
        let id = rows.id().clone();
        let sending = Sending {
            schema,
            limits: self.limits(),
            limit: call.limit,
            compression: call.compression,
            stop: self.stop.child_token(),
        };
        let mut response = Response::new(stream::answer(rows, sending));
        name_query(&mut response, &id);
        response
    }

    fn endpoint(&self, ticket: &Ticket) -> FlightEndpoint {
        let command = TicketStatementQuery { statement_handle: ticket.seal(&self.signer) };
        // No location: the client goes on with the server it talks to.
        let endpoint = FlightEndpoint::new()
            .with_ticket(arrow_flight::Ticket::new(command.as_any().encode_to_vec()));
        match ticket.endpoint {
            0 => endpoint.with_expiration_time(timestamp(ticket.expires_at)),
            // With a time, clients may take it that they can read it again until then.
            _ => endpoint,
        }
    }
}

fn request(call: &Call, statement: &Statement, id: &QueryId, timeout: Option<Duration>) -> Request {
    Request {
        sql: statement.sql.clone(),
        parameters: statement.parameters.clone(),
        overrides: call.overrides.clone(),
        timeout,
        query_id: Some(id.clone()),
    }
}

/// Names the query in a response header.
pub(crate) fn name_query<T>(response: &mut Response<T>, id: &QueryId) {
    if let Ok(value) = id.as_str().parse() {
        response.metadata_mut().insert(QUERY_ID_HEADER, value);
    }
}

/// The handle inside the ticket of a FlightInfo's first endpoint, when it is a statement's.
pub(crate) fn handle_of_endpoint(endpoint: Option<&FlightEndpoint>) -> Result<Bytes> {
    let ticket = endpoint.and_then(|endpoint| endpoint.ticket.as_ref());
    let ticket = ticket.ok_or_else(|| Fault::malformed("there is no ticket in it"))?;
    let any = crate::descriptor::read_any(&ticket.ticket);
    match any.map(|any| any.unpack::<TicketStatementQuery>()) {
        Some(Ok(Some(command))) => Ok(command.statement_handle),
        _ => Err(Fault::malformed("its ticket is not that of a statement")),
    }
}

fn new_query_id() -> QueryId {
    QueryId::new(Uuid::now_v7().to_string())
}

/// Every option as text, the overrides applied, so that a ticket means the same everywhere; and
/// the time zone, when it is not that of a fresh session.
fn options_in_force(
    session: &Session,
    fresh: &Session,
    overrides: &[(String, String)],
) -> Result<BTreeMap<String, String>> {
    let as_engine = |e| Fault::from(synoptic_engine::Error::from(e));
    let mut options = session.options();
    for (name, value) in overrides {
        options.set(name, value).map_err(as_engine)?;
    }
    let mut texts = BTreeMap::new();
    for name in QueryOptions::NAMES {
        texts.insert(name.to_owned(), options.get(name).map_err(as_engine)?);
    }
    let zone = session.option(TIME_ZONE)?;
    if zone != fresh.option(TIME_ZONE)? {
        texts.insert(TIME_ZONE.to_owned(), zone);
    }
    Ok(texts)
}

/// Refuses to answer a ticket with other columns than its FlightInfo promised.
fn same_columns(promised: &Schema, now: &Schema) -> Result<()> {
    let columns = |schema: &Schema| {
        let column = |field: &Arc<arrow::datatypes::Field>| {
            (field.name().clone(), field.data_type().clone(), field.is_nullable())
        };
        schema.fields().iter().map(column).collect::<Vec<_>>()
    };
    let (promised, now) = (columns(promised), columns(now));
    if promised == now {
        return Ok(());
    }
    let differs = promised.iter().zip(&now).find(|(a, b)| a != b);
    let what = match differs {
        Some((a, b)) => format!("column '{}' was {}, '{}' is {}", a.0, a.1, b.0, b.1),
        None => format!("there were {} columns, there are {}", promised.len(), now.len()),
    };
    Err(Fault::new(
        ErrorCode::Data,
        format!("the answer's columns have changed since FlightInfo: {what}; ask for it again"),
    )
    .with_grpc(Code::FailedPrecondition))
}

#[cfg(test)]
mod tests;

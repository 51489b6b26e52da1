//! One method per RPC: who calls, what is asked, who answers.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, BasicAuth, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint,
    FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use prost::Message;
use synoptic_engine::Engine;
use synoptic_types::QueryId;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::actions::{self, ActionResults, no_transaction};
use crate::context::{Call, bearer};
use crate::descriptor::{Asked, read_descriptor, read_ticket, select_path};
use crate::encode::schema_bytes;
use crate::metadata;
use crate::options::FlightOptions;
use crate::pattern::matches;
use crate::prepared::PreparedStore;
use crate::put::{self, PutResults};
use crate::sessions::Sessions;
use crate::statement::{Statement, Statements, name_query};
use crate::status::{Fault, Result, panic_text};
use crate::stream::{self, Messages};
use crate::ticket::Signer;

/// What all RPCs share.
pub(crate) struct Service {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: FlightOptions,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) prepared: PreparedStore,
    pub(crate) statements: Statements,
}

impl Service {
    /// A service over `engine`. Running answers end when `stop` fires.
    pub(crate) fn new(
        engine: Arc<Engine>,
        options: FlightOptions,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let signer = Signer::new(options.ticket_key);
        let prepared = PreparedStore::new(&options);
        let sessions =
            Sessions::new(Arc::clone(&engine), signer.clone(), prepared.clone(), &options);
        let statements = Statements::new(Arc::clone(&engine), signer, options.clone(), stop);
        Arc::new(Self { engine, options, sessions: Arc::new(sessions), prepared, statements })
    }

    /// Drops what has expired in every store.
    pub(crate) fn sweep(&self) {
        self.statements.sweep();
        self.prepared.sweep();
        self.sessions.sweep();
    }

    async fn info(
        &self,
        call: &Call,
        descriptor: FlightDescriptor,
    ) -> Result<(Option<QueryId>, FlightInfo)> {
        let statement = match read_descriptor(&descriptor)? {
            Asked::Sql(sql) => Statement::of_call(call, sql),
            Asked::Command(command) => match *command {
                Command::CommandStatementQuery(command) => {
                    no_transaction(command.transaction_id.as_ref())?;
                    Statement::of_call(call, command.query)
                }
                Command::CommandPreparedStatementQuery(command) => {
                    self.prepared_statement(&command.prepared_statement_handle)?
                }
                command => return Ok((None, listing_info(command, descriptor)?)),
            },
        };
        let (id, info) = self.statements.info(call, statement, descriptor).await?;
        Ok((Some(id), info))
    }

    async fn schema(&self, call: &Call, descriptor: &FlightDescriptor) -> Result<SchemaRef> {
        match read_descriptor(descriptor)? {
            Asked::Sql(sql) => self.statements.describe(call, sql).await,
            Asked::Command(command) => match *command {
                Command::CommandStatementQuery(command) => {
                    no_transaction(command.transaction_id.as_ref())?;
                    self.statements.describe(call, command.query).await
                }
                Command::CommandPreparedStatementQuery(command) => {
                    let prepared = self.prepared.get(&command.prepared_statement_handle)?;
                    Ok(Arc::clone(&prepared.schema))
                }
                command => metadata::schema_of(&command)?.ok_or_else(|| no_query(&command)),
            },
        }
    }

    async fn get(&self, call: &Call, ticket: &Ticket) -> Result<Response<Messages>> {
        match read_ticket(&ticket.ticket)? {
            Asked::Sql(sql) => self.statements.run(call, Statement::of_call(call, sql)).await,
            Asked::Command(command) => match *command {
                Command::TicketStatementQuery(ticket) => {
                    self.statements.get(call, &ticket.statement_handle).await
                }
                Command::CommandStatementQuery(command) => {
                    no_transaction(command.transaction_id.as_ref())?;
                    self.statements.run(call, Statement::of_call(call, command.query)).await
                }
                Command::CommandPreparedStatementQuery(command) => {
                    let statement = self.prepared_statement(&command.prepared_statement_handle)?;
                    self.statements.run(call, statement).await
                }
                command => {
                    let work = metadata::answer(&self.engine, &self.options, &command, call.types);
                    let batch = call.bounded(work).await?.ok_or_else(|| no_query(&command))?;
                    Ok(Response::new(stream::listing(&batch, self.statements.limits())))
                }
            },
        }
    }

    fn prepared_statement(&self, handle: &[u8]) -> Result<Statement> {
        let prepared = self.prepared.get(handle)?;
        Ok(Statement {
            session: prepared.session.clone(),
            sql: prepared.sql.clone(),
            parameters: prepared.values()?,
            types: prepared.types,
        })
    }

    /// Tables as flights, for clients that know no SQL. `criteria` is a LIKE pattern for
    /// `catalog.schema.table`, or a part of it.
    async fn flights(&self, call: &Call, criteria: &[u8]) -> Result<Vec<FlightInfo>> {
        let criteria = std::str::from_utf8(criteria)
            .map_err(|_| Fault::malformed("the criteria are a pattern as text"))?;
        let pattern =
            if criteria.contains('%') { criteria.to_owned() } else { format!("%{criteria}%") };
        let mut tables = self.engine.tables().await;
        tables.retain(|t| matches(&pattern, &format!("{}.{}.{}", t.catalog, t.schema, t.name)));
        let described = metadata::described(tables, &self.options).await;
        described
            .into_iter()
            .map(|(table, columns)| {
                let path = vec![table.catalog, table.schema, table.name];
                let sql = select_path(&path)?;
                let schema = crate::edge::schema(&columns, call.types, None);
                Ok(FlightInfo {
                    schema: schema_bytes(&schema)?,
                    ..FlightInfo::new()
                        .with_descriptor(FlightDescriptor::new_path(path))
                        .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(sql)))
                })
            })
            .collect()
    }

    /// Answers a handshake in all its forms: every one succeeds, for authentication is off, and
    /// gives a token that names a session.
    async fn shake(
        &self,
        headers: &MetadataMap,
        mut stream: Streaming<HandshakeRequest>,
    ) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>> {
        // A token that was brought along is the client's own; it gets it back.
        let token = bearer(headers).unwrap_or_else(|| self.sessions.mint());
        let mut answers = Vec::new();
        // With a header everything is said, and some clients send nothing else. Older ones send
        // user and password as a message, and expect the token as one.
        if !headers.contains_key("authorization") {
            let first = stream.message().await.ok().flatten();
            let auth = first.and_then(|m| BasicAuth::decode(m.payload).ok());
            if auth.is_some_and(|auth| !auth.username.is_empty()) {
                let payload = token.clone().into();
                answers.push(Ok(HandshakeResponse { protocol_version: 0, payload }));
            }
        }
        let mut response = Response::new(futures::stream::iter(answers).boxed());
        if let Ok(value) = format!("Bearer {token}").parse() {
            response.metadata_mut().insert("authorization", value);
        }
        Ok(response)
    }

    fn call(&self, headers: &MetadataMap, extensions: &Extensions) -> Result<Call> {
        Call::read(&self.sessions, headers, extensions)
    }
}

/// FlightInfo of a metadata command: its schema, and itself as the ticket.
fn listing_info(command: Command, descriptor: FlightDescriptor) -> Result<FlightInfo> {
    let schema = metadata::schema_of(&command)?.ok_or_else(|| no_query(&command))?;
    let ticket: Any = command.into_any();
    Ok(FlightInfo {
        schema: schema_bytes(&schema)?,
        ..FlightInfo::new()
            .with_descriptor(descriptor)
            .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket.encode_to_vec())))
    })
}

/// A command that is sent to another RPC, or that this server has not.
fn no_query(command: &Command) -> Fault {
    let name = command.type_url().rsplit('.').next().unwrap_or_default().to_owned();
    match command {
        Command::CommandStatementSubstraitPlan(_) => {
            Fault::unsupported("this server runs SQL, not Substrait plans")
        }
        Command::CommandStatementUpdate(_)
        | Command::CommandPreparedStatementUpdate(_)
        | Command::CommandStatementIngest(_) => {
            Fault::malformed(format!("{name} is sent with DoPut"))
        }
        _ => Fault::malformed(format!("{name} does not ask for rows")),
    }
}

/// Runs a handler; its errors become statuses, and so do its panics.
pub(crate) async fn guarded<T>(handler: impl Future<Output = Result<T>>) -> Result<T, Status> {
    match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(outcome) => outcome.map_err(Status::from),
        Err(panic) => {
            let id = QueryId::new(Uuid::now_v7().to_string());
            tracing::error!(%id, panic = panic_text(&*panic), "a panic in a handler");
            let fault = Fault::internal(format!(
                "the server failed at this call; please report it with the id {id}"
            ));
            Err(fault.with_query(&id).into())
        }
    }
}

/// The gRPC face of [`Service`].
pub(crate) struct Face(pub(crate) Arc<Service>);

type Streamed<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl FlightService for Face {
    type HandshakeStream = Streamed<HandshakeResponse>;
    type ListFlightsStream = Streamed<FlightInfo>;
    type DoGetStream = Messages;
    type DoPutStream = PutResults;
    type DoActionStream = ActionResults;
    type ListActionsStream = Streamed<ActionType>;
    type DoExchangeStream = Streamed<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let (headers, _, stream) = request.into_parts();
        guarded(self.0.shake(&headers, stream)).await
    }

    async fn list_flights(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let (headers, extensions, criteria) = request.into_parts();
        guarded(async {
            let call = self.0.call(&headers, &extensions)?;
            let flights = call.bounded(self.0.flights(&call, &criteria.expression)).await?;
            Ok(Response::new(futures::stream::iter(flights).map(Ok).boxed()))
        })
        .await
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let (headers, extensions, descriptor) = request.into_parts();
        guarded(async {
            let call = self.0.call(&headers, &extensions)?;
            let (id, info) = self.0.info(&call, descriptor).await?;
            let mut response = Response::new(info);
            if let Some(id) = id {
                name_query(&mut response, &id);
            }
            Ok(response)
        })
        .await
    }

    /// A query that is planned can be read: so the first poll is the last.
    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let response = self.get_flight_info(request).await?;
        let (headers, info, extensions) = response.into_parts();
        let expiration_time = info.endpoint.first().and_then(|endpoint| endpoint.expiration_time);
        let poll = PollInfo {
            info: Some(info),
            flight_descriptor: None,
            progress: Some(1.0),
            expiration_time,
        };
        Ok(Response::from_parts(headers, poll, extensions))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let (headers, extensions, descriptor) = request.into_parts();
        guarded(async {
            let call = self.0.call(&headers, &extensions)?;
            let schema = self.0.schema(&call, &descriptor).await?;
            Ok(Response::new(SchemaResult { schema: schema_bytes(&schema)? }))
        })
        .await
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let (headers, extensions, ticket) = request.into_parts();
        guarded(async {
            let call = self.0.call(&headers, &extensions)?;
            self.0.get(&call, &ticket).await
        })
        .await
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let (headers, extensions, stream) = request.into_parts();
        guarded(async {
            let call = self.0.call(&headers, &extensions)?;
            put::put(&self.0, &call, stream).await
        })
        .await
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Fault::unsupported(
            "this server takes no uploads, so there is nothing to exchange; use GetFlightInfo and \
             DoGet",
        )
        .into())
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let (headers, extensions, action) = request.into_parts();
        guarded(async {
            let call = self.0.call(&headers, &extensions)?;
            actions::act(&self.0, &call, &action).await
        })
        .await
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(Response::new(futures::stream::iter(actions::list()).map(Ok).boxed()))
    }
}

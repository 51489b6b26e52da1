//! A small Flight SQL client, for `synoptic sql --url` and for tests.
//!
//! ```no_run
//! # async fn example() -> Result<(), synoptic_engine::Error> {
//! use futures::TryStreamExt;
//! use synoptic_flight::client::Client;
//!
//! let client = Client::connect("grpc://127.0.0.1:50051").await?;
//! let mut answer = client.query("SELECT 1 AS one", &[]).await?;
//! let mut rows = 0;
//! while let Some(batch) = answer.try_next().await? {
//!     rows += batch.num_rows();
//! }
//! println!("{rows} rows, read from {:?}", answer.receipt());
//! # Ok(())
//! # }
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandGetTables, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, HandshakeRequest, Ticket};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use serde_json::Value;
use synoptic_engine::{Error, Result};
use synoptic_types::{ErrorCode, QueryId};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response};

use crate::edge::QUERY_ID_KEY;
use crate::status::read_status;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes that may be under way to us; the default of 64 KiB starves fast networks.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A connection to a Flight SQL server. Clones share the connection and the session.
#[derive(Debug, Clone)]
pub struct Client {
    flight: FlightServiceClient<Channel>,
    /// Names our session, so that `SET` holds even when the connection is made anew.
    authorization: Option<AsciiMetadataValue>,
}

/// A table in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// Catalog.
    pub catalog: String,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
}

impl Client {
    /// Connects to `grpc://HOST:PORT` and starts a session.
    ///
    /// # Errors
    /// `[INVALID_OPTION]` for a URL of another form, `[SOURCE_UNAVAILABLE]` when nobody answers.
    pub async fn connect(url: &str) -> Result<Self> {
        let channel = endpoint(url)?.connect().await.map_err(|error| {
            // tonic itself says only "transport error"; the reason is behind it.
            let mut reason: &dyn std::error::Error = &error;
            while let Some(source) = reason.source() {
                reason = source;
            }
            Error::new(ErrorCode::SourceUnavailable, format!("cannot connect to {url}: {reason}"))
        })?;
        let flight = FlightServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut client = Self { flight, authorization: None };
        client.authorization = client.handshake().await?;
        Ok(client)
    }

    /// Runs a statement. Headers, such as `x-synoptic-max-staleness`, hold for it alone.
    /// Dropping the answer, or this future, cancels the query.
    ///
    /// # Errors
    /// Those of the server, with their codes.
    pub async fn query(&self, sql: &str, headers: &[(String, String)]) -> Result<Answer> {
        let command = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let info = self.flight_info(&command, headers).await?;
        self.read(info, headers).await
    }

    /// Every table there is.
    ///
    /// # Errors
    /// Those of the server, with their codes.
    pub async fn tables(&self) -> Result<Vec<TableName>> {
        let info = self.flight_info(&CommandGetTables::default(), &[]).await?;
        let batches: Vec<RecordBatch> = self.read(info, &[]).await?.try_collect().await?;
        let mut tables = Vec::new();
        for batch in &batches {
            let text = |name: &str, row: usize| -> String {
                let column = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
                column.filter(|c| c.is_valid(row)).map_or("", |c| c.value(row)).to_owned()
            };
            tables.extend((0..batch.num_rows()).map(|row| TableName {
                catalog: text("catalog_name", row),
                schema: text("db_schema_name", row),
                name: text("table_name", row),
            }));
        }
        Ok(tables)
    }

    /// Does an action and gives the bodies of its results.
    ///
    /// # Errors
    /// Those of the server, with their codes.
    pub async fn action(&self, name: &str, body: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let request = self.request(Action::new(name, body), &[])?;
        let mut flight = self.flight.clone();
        let results = flight.do_action(request).await.map_err(|s| read_status(&s))?.into_inner();
        results
            .map_ok(|result| result.body.to_vec())
            .map_err(|status| read_status(&status))
            .try_collect()
            .await
    }

    async fn handshake(&self) -> Result<Option<AsciiMetadataValue>> {
        let request = Request::new(futures::stream::empty::<HandshakeRequest>());
        let response = self.flight.clone().handshake(request).await;
        match response {
            Ok(response) => Ok(response.metadata().get("authorization").cloned()),
            // A server that has no handshake needs none.
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) => Err(read_status(&status)),
        }
    }

    async fn flight_info<M: ProstMessageExt>(
        &self,
        command: &M,
        headers: &[(String, String)],
    ) -> Result<FlightInfo> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.request(descriptor, headers)?;
        let response = self.flight.clone().get_flight_info(request).await;
        Ok(response.map_err(|status| read_status(&status))?.into_inner())
    }

    async fn read(&self, info: FlightInfo, headers: &[(String, String)]) -> Result<Answer> {
        let schema: Schema = info.clone().try_decode_schema().map_err(undecodable)?;
        let tickets: Vec<Ticket> =
            info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket).collect();
        let requests = tickets
            .into_iter()
            .map(|ticket| self.request(ticket, headers))
            .collect::<Result<Vec<_>>>()?;
        let flight = self.flight.clone();
        let messages = futures::stream::iter(requests)
            .then(move |request| {
                let mut flight = flight.clone();
                async move { flight.do_get(request).await.map(Response::into_inner) }
            })
            .try_flatten()
            .map_err(FlightError::from);
        Ok(Answer {
            query_id: schema.metadata().get(QUERY_ID_KEY).map(|id| QueryId::new(id.as_str())),
            schema: Arc::new(schema),
            receipt: serde_json::from_slice(&info.app_metadata).ok(),
            messages: FlightDataDecoder::new(messages),
        })
    }

    fn request<T>(&self, message: T, headers: &[(String, String)]) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(authorization) = &self.authorization {
            metadata.insert("authorization", authorization.clone());
        }
        for (name, value) in headers {
            let key = name.to_ascii_lowercase().parse::<AsciiMetadataKey>();
            let value = value.parse::<AsciiMetadataValue>();
            let (Ok(key), Ok(value)) = (key, value) else {
                return Err(Error::new(
                    ErrorCode::InvalidOption,
                    format!("'{name}' with this value cannot be a header"),
                ));
            };
            metadata.insert(key, value);
        }
        Ok(request)
    }
}

/// The answer to a query, batch by batch. Dropping it cancels the query.
#[derive(Debug)]
pub struct Answer {
    schema: SchemaRef,
    query_id: Option<QueryId>,
    receipt: Option<Value>,
    messages: FlightDataDecoder,
}

impl Answer {
    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The query's id, when the server says it.
    pub fn query_id(&self) -> Option<&QueryId> {
        self.query_id.as_ref()
    }

    /// The receipt: the draft of planning until the last batch has come, then the final one.
    pub fn receipt(&self) -> Option<&Value> {
        self.receipt.as_ref()
    }
}

impl Stream for Answer {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(message) = ready!(self.messages.poll_next_unpin(cx)) else {
                return Poll::Ready(None);
            };
            let message = match message {
                Ok(message) => message,
                Err(FlightError::Tonic(status)) => {
                    return Poll::Ready(Some(Err(read_status(&status))));
                }
                Err(error) => return Poll::Ready(Some(Err(undecodable(error)))),
            };
            if !message.inner.app_metadata.is_empty()
                && let Ok(receipt) = serde_json::from_slice(&message.inner.app_metadata)
            {
                self.receipt = Some(receipt);
            }
            // An empty batch carries nothing but the receipt.
            if let DecodedPayload::RecordBatch(batch) = message.payload
                && batch.num_rows() > 0
            {
                return Poll::Ready(Some(Ok(batch)));
            }
        }
    }
}

fn endpoint(url: &str) -> Result<Endpoint> {
    let invalid = |why: &str| {
        Error::new(ErrorCode::InvalidOption, format!("'{url}' {why}; it is grpc://HOST:PORT"))
    };
    let address = match url.split_once("://") {
        Some(("grpc" | "grpc+tcp" | "http", address)) => address,
        Some((scheme, _)) => return Err(invalid(&format!("has the scheme '{scheme}'"))),
        None => url,
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| invalid("is not a URL of a server"))?;
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(STREAM_WINDOW_BYTES)
        .user_agent(concat!("synoptic-sql/", env!("CARGO_PKG_VERSION")))
        .map_err(|_| invalid("is not a URL of a server"))
}

fn undecodable(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::Internal, format!("the server's answer cannot be read: {error}"))
}

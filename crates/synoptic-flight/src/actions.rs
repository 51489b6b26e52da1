//! DoAction.
//!
//! The actions of Flight SQL wrap their bodies in `Any`; those of Flight itself do not.

use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginTransactionRequest, ActionCancelQueryRequest,
    ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use chrono::SecondsFormat;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use serde_json::json;
use synoptic_engine::{CancelOutcome, QueryInfo};
use synoptic_types::ErrorCode;
use tonic::{Code, Response, Status};

use crate::context::Call;
use crate::descriptor::read_any;
use crate::service::Service;
use crate::session_options;
use crate::sessions::COOKIE;
use crate::statement::handle_of_endpoint;
use crate::status::{Fault, Result};

/// What DoAction answers with.
pub(crate) type ActionResults = BoxStream<'static, Result<arrow_flight::Result, Status>>;

/// Name and description of every action there is.
const ACTIONS: [(&str, &str); 9] = [
    (
        "CreatePreparedStatement",
        "Prepares a statement. Body: Any of ActionCreatePreparedStatementRequest. Answer: Any of \
         ActionCreatePreparedStatementResult",
    ),
    (
        "ClosePreparedStatement",
        "Closes a prepared statement. Body: Any of ActionClosePreparedStatementRequest. No answer",
    ),
    (
        "CancelQuery",
        "Cancels a query. Body: Any of ActionCancelQueryRequest. Answer: Any of \
         ActionCancelQueryResult",
    ),
    (
        "CancelFlightInfo",
        "Cancels the query of a FlightInfo. Body: CancelFlightInfoRequest. Answer: \
         CancelFlightInfoResult",
    ),
    (
        "RenewFlightEndpoint",
        "Extends the time a ticket is valid. Body: RenewFlightEndpointRequest. Answer: \
         FlightEndpoint",
    ),
    (
        "SetSessionOptions",
        "Sets options of the session. Body: SetSessionOptionsRequest. Answer: \
         SetSessionOptionsResult",
    ),
    (
        "GetSessionOptions",
        "Gives the options of the session. Body: GetSessionOptionsRequest. Answer: \
         GetSessionOptionsResult",
    ),
    (
        "CloseSession",
        "Ends the session; later calls start a fresh one. Body: CloseSessionRequest. Answer: \
         CloseSessionResult",
    ),
    (
        "QueryStatus",
        "Says where a query stands, as JSON. Body: the query's id as text; without one, one answer \
         for each query planned, running or recently ended",
    ),
];

/// Every action, for ListActions.
pub(crate) fn list() -> Vec<ActionType> {
    ACTIONS
        .into_iter()
        .map(|(name, description)| ActionType {
            r#type: name.to_owned(),
            description: description.to_owned(),
        })
        .collect()
}

/// Does one action.
pub(crate) async fn act(
    service: &Service,
    call: &Call,
    action: &Action,
) -> Result<Response<ActionResults>> {
    let body = &action.body;
    let session = &call.session.session;
    match action.r#type.as_str() {
        "CreatePreparedStatement" => {
            let request: ActionCreatePreparedStatementRequest = unpack(body)?;
            no_transaction(request.transaction_id.as_ref())?;
            Ok(one(service.prepared.create(call, request.query).await?))
        }
        "ClosePreparedStatement" => {
            let request: ActionClosePreparedStatementRequest = unpack(body)?;
            service.prepared.close_existing(&request.prepared_statement_handle)?;
            Ok(Response::new(futures::stream::empty().boxed()))
        }
        "CancelQuery" => {
            let request: ActionCancelQueryRequest = unpack(body)?;
            let info = FlightInfo::decode(request.info)
                .map_err(|e| Fault::malformed(format!("CancelQuery's FlightInfo: {e}")))?;
            let result = cancel(service, Some(&info))? as i32;
            Ok(one(ActionCancelQueryResult { result }.as_any().encode_to_vec()))
        }
        "CancelFlightInfo" => {
            let request = CancelFlightInfoRequest::decode(body.clone())
                .map_err(|e| Fault::malformed(format!("CancelFlightInfo cannot be read: {e}")))?;
            let status = cancel(service, request.info.as_ref())?;
            Ok(one(CancelFlightInfoResult::new(status).encode_to_vec()))
        }
        "RenewFlightEndpoint" => {
            let request = RenewFlightEndpointRequest::decode(body.clone())
                .map_err(|e| Fault::malformed(format!("RenewFlightEndpoint: {e}")))?;
            let handle = handle_of_endpoint(request.endpoint.as_ref())?;
            Ok(one(service.statements.renew(&handle)?.encode_to_vec()))
        }
        "SetSessionOptions" => set_session_options(service, call, body).await,
        "GetSessionOptions" => Ok(one(session_options::get(session))),
        "CloseSession" => {
            service.sessions.close(&call.session);
            Ok(one(session_options::closed()))
        }
        "QueryStatus" => query_status(service, body),
        "BeginTransaction" => {
            unpack::<ActionBeginTransactionRequest>(body)?;
            Err(no_transactions())
        }
        "BeginSavepoint" => {
            unpack::<ActionBeginSavepointRequest>(body)?;
            Err(no_transactions())
        }
        "EndTransaction" | "EndSavepoint" => Err(no_transactions()),
        "CreatePreparedSubstraitPlan" => {
            Err(Fault::unsupported("this server runs SQL, not Substrait plans"))
        }
        other => Err(Fault::unsupported(format!(
            "there is no action '{other}'; the actions are {}",
            ACTIONS.map(|(name, _)| name).join(", ")
        ))),
    }
}

async fn set_session_options(
    service: &Service,
    call: &Call,
    body: &Bytes,
) -> Result<Response<ActionResults>> {
    let defaults = service.engine.session(&call.client);
    let work = session_options::set(&call.session.session, &defaults, body);
    let mut response = one(call.bounded(work).await?);
    // A session known by its connection gets a cookie, so that it outlives the connection.
    if !call.named
        && let Ok(cookie) = format!("{COOKIE}={}", service.sessions.alias(&call.session)).parse()
    {
        response.metadata_mut().insert("set-cookie", cookie);
    }
    Ok(response)
}

/// Cancels the query of a FlightInfo.
fn cancel(service: &Service, info: Option<&FlightInfo>) -> Result<CancelStatus> {
    let info = info.ok_or_else(|| Fault::malformed("there is no FlightInfo to cancel"))?;
    let Ok(handle) = handle_of_endpoint(info.endpoint.first()) else {
        // A listing is over before it could be cancelled.
        return Ok(CancelStatus::NotCancellable);
    };
    Ok(match service.statements.cancel(&handle)? {
        CancelOutcome::Cancelled => CancelStatus::Cancelled,
        CancelOutcome::Ended | CancelOutcome::Unknown => CancelStatus::NotCancellable,
    })
}

fn query_status(service: &Service, body: &Bytes) -> Result<Response<ActionResults>> {
    let id = std::str::from_utf8(body)
        .map_err(|_| Fault::malformed("QueryStatus takes the id of a query as text"))?
        .trim();
    let queries = service.engine.queries();
    let wanted: Vec<_> = queries
        .iter()
        .filter(|query| id.is_empty() || query.id.as_str() == id)
        .map(|query| Ok(arrow_flight::Result::new(status_json(query))))
        .collect();
    if wanted.is_empty() && !id.is_empty() {
        return Err(Fault::new(
            ErrorCode::InvalidOption,
            format!("there is no query '{id}', or no longer; see synoptic.system.queries"),
        )
        .with_grpc(Code::NotFound));
    }
    Ok(Response::new(futures::stream::iter(wanted).boxed()))
}

fn status_json(query: &QueryInfo) -> String {
    json!({
        "query_id": query.id.as_str(),
        "state": query.state.as_str(),
        "sql": query.sql,
        "client": query.client,
        "started_at": query.started_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        "elapsed_ms": u64::try_from(query.elapsed.as_millis()).unwrap_or(u64::MAX),
        "rows": query.rows,
        "error": query.error,
        "receipt": query.receipt,
    })
    .to_string()
}

fn unpack<M: ProstMessageExt>(body: &Bytes) -> Result<M> {
    let name = M::type_url().rsplit('.').next().unwrap_or_default();
    match read_any(body).map(|any| any.unpack::<M>()) {
        Some(Ok(Some(message))) => Ok(message),
        Some(Err(error)) => Err(Fault::malformed(format!("{name} cannot be read: {error}"))),
        Some(Ok(None)) | None => {
            Err(Fault::malformed(format!("the body of this action is an Any of {name}")))
        }
    }
}

/// Refuses to run something inside a transaction.
pub(crate) fn no_transaction(id: Option<&Bytes>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => Err(no_transactions()),
        _ => Ok(()),
    }
}

fn no_transactions() -> Fault {
    Fault::unsupported(
        "this server has no transactions: every statement reads one snapshot of each source, and \
         an INSERT is a transaction of its own; use auto-commit",
    )
}

fn one(body: impl Into<Bytes>) -> Response<ActionResults> {
    let result = arrow_flight::Result::new(body);
    Response::new(futures::stream::iter([Ok(result)]).boxed())
}

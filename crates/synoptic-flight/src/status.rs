//! Errors on the wire: a gRPC code and a message that starts with our code in brackets.

use std::any::Any;
use std::time::Duration;

use arrow::error::ArrowError;
use http::HeaderName;
use synoptic_engine::Error;
use synoptic_types::{ErrorCode, QueryId, format_duration};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The result of everything a handler does.
pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

/// The response header that carries the query's id.
pub(crate) const QUERY_ID_HEADER: &str = "x-query-id";

/// Bytes a message may have on the wire, where gRPC writes it percent-encoded into a header:
/// Java and C++ take 8 KiB of headers in all.
const MAX_MESSAGE_BYTES: usize = 4000;

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    code: ErrorCode,
    grpc: Code,
    message: String,
    query: Option<QueryId>,
}

impl Fault {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, grpc: grpc_code(code), message: message.into(), query: None }
    }

    /// A request that cannot be understood.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Syntax, message)
    }

    /// Something the protocol has and this server has not, with the reason.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unsupported, message)
    }

    /// A bug in the server.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// The client stops waiting after `timeout`.
    pub(crate) fn timeout(timeout: Duration) -> Self {
        Self::new(
            ErrorCode::Timeout,
            format!(
                "the call's own limit of {} has passed; allow more time, or read less",
                format_duration(timeout)
            ),
        )
    }

    /// A gRPC code that says more than the one our code has.
    pub(crate) fn with_grpc(mut self, grpc: Code) -> Self {
        self.grpc = grpc;
        self
    }

    /// The same with more text.
    pub(crate) fn adding(mut self, more: &str) -> Self {
        self.message.push_str(more);
        self
    }

    /// Names the query in the header `x-query-id`.
    pub(crate) fn with_query(mut self, query: &QueryId) -> Self {
        self.query.get_or_insert_with(|| query.clone());
        self
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.message())
    }
}

impl From<ArrowError> for Fault {
    /// Arrow fails here on values, never on what a client asked.
    fn from(error: ArrowError) -> Self {
        Self::new(ErrorCode::Data, error.to_string())
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let text = clip(&format!("{} {}", fault.code, fault.message));
        let mut status = Self::new(fault.grpc, text);
        if let Some(query) = &fault.query
            && let Ok(value) = MetadataValue::try_from(query.as_str())
        {
            status.metadata_mut().insert(QUERY_ID_HEADER, value);
        }
        status
    }
}

/// The gRPC code of one of ours, as the contract has it in section 9.
pub(crate) fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::Syntax | ErrorCode::InvalidOption | ErrorCode::Data => Code::InvalidArgument,
        ErrorCode::UnknownTable | ErrorCode::UnknownColumn => Code::NotFound,
        ErrorCode::Unsupported => Code::Unimplemented,
        ErrorCode::FreshnessUnmet
        | ErrorCode::FreshnessUnprovable
        | ErrorCode::SkewExceeded
        | ErrorCode::TokenLost
        | ErrorCode::ClockUnsynchronized => Code::FailedPrecondition,
        // Of the class that gRPC tells clients not to try again before somebody has looked.
        ErrorCode::OutcomeUnknown => Code::FailedPrecondition,
        ErrorCode::SourceUnavailable => Code::Unavailable,
        ErrorCode::RateLimited
        | ErrorCode::BudgetExceeded
        | ErrorCode::OutOfMemory
        | ErrorCode::QueueFull => Code::ResourceExhausted,
        ErrorCode::Timeout => Code::DeadlineExceeded,
        ErrorCode::Cancelled => Code::Cancelled,
        ErrorCode::Unauthenticated => Code::Unauthenticated,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::Internal => Code::Internal,
    }
}

/// Every code, so that a word on the wire finds its way back.
const CODES: [ErrorCode; 22] = [
    ErrorCode::Syntax,
    ErrorCode::UnknownTable,
    ErrorCode::UnknownColumn,
    ErrorCode::Unsupported,
    ErrorCode::InvalidOption,
    ErrorCode::FreshnessUnmet,
    ErrorCode::FreshnessUnprovable,
    ErrorCode::SkewExceeded,
    ErrorCode::TokenLost,
    ErrorCode::ClockUnsynchronized,
    ErrorCode::SourceUnavailable,
    ErrorCode::RateLimited,
    ErrorCode::BudgetExceeded,
    ErrorCode::OutOfMemory,
    ErrorCode::QueueFull,
    ErrorCode::Timeout,
    ErrorCode::OutcomeUnknown,
    ErrorCode::Cancelled,
    ErrorCode::Unauthenticated,
    ErrorCode::PermissionDenied,
    ErrorCode::Data,
    ErrorCode::Internal,
];

/// A status as the engine's error: its code in brackets when it has one, else the nearest code.
pub(crate) fn read_status(status: &Status) -> Error {
    let text = status.message();
    if let Some((word, rest)) = text.strip_prefix('[').and_then(|t| t.split_once("] "))
        && let Some(code) = CODES.into_iter().find(|code| code.as_str() == word)
    {
        return Error::new(code, rest);
    }
    let code = match status.code() {
        Code::Unavailable => ErrorCode::SourceUnavailable,
        Code::DeadlineExceeded => ErrorCode::Timeout,
        Code::Cancelled => ErrorCode::Cancelled,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::Unimplemented => ErrorCode::Unsupported,
        Code::ResourceExhausted | Code::OutOfRange => ErrorCode::BudgetExceeded,
        Code::InvalidArgument => ErrorCode::Syntax,
        Code::NotFound => ErrorCode::UnknownTable,
        _ => ErrorCode::Internal,
    };
    Error::new(code, if text.is_empty() { status.code().description() } else { text })
}

/// An error that gRPC itself found before a handler saw the request, in our form.
pub(crate) fn from_transport(status: &Status) -> Fault {
    let text = status.message();
    if text.starts_with('[') {
        let error = read_status(status);
        return Fault::new(error.code(), error.message()).with_grpc(status.code());
    }
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Fault::new(
            ErrorCode::BudgetExceeded,
            format!("the message is larger than this server takes: {text}"),
        ),
        // tonic calls bytes that are no protobuf message an internal error; they are the client's.
        Code::Internal | Code::Unknown | Code::InvalidArgument => {
            Fault::malformed(format!("the request cannot be read: {text}"))
        }
        Code::Unimplemented => Fault::unsupported(if text.is_empty() {
            "this server has no such method; it speaks Arrow Flight and Flight SQL".to_owned()
        } else {
            text.to_owned()
        }),
        Code::Cancelled => Fault::new(ErrorCode::Cancelled, "the client ended the call"),
        _ => Fault::internal(text),
    }
}

/// Puts errors that gRPC itself answered with into our form. They have no body: gRPC writes them
/// into the headers.
pub(crate) fn reword<B>(mut response: http::Response<B>) -> http::Response<B> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if status.code() == Code::Ok || status.message().starts_with('[') {
        return response;
    }
    let status = Status::from(from_transport(&status));
    let mut headers = http::HeaderMap::new();
    if status.add_header(&mut headers).is_ok() {
        for name in ["grpc-status", "grpc-message"] {
            if let Some(value) = headers.remove(name) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
    }
    response
}

/// What a panic said, for the log.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// The start of `text` that fits a header once it is percent-encoded.
fn clip(text: &str) -> String {
    let mut room = MAX_MESSAGE_BYTES;
    for (at, c) in text.char_indices() {
        let plain = c.is_ascii() && !c.is_ascii_control() && !" \"#<>`?{}%".contains(c);
        let cost = if plain { 1 } else { 3 * c.len_utf8() };
        if cost > room {
            return format!("{}…", &text[..at]);
        }
        room -= cost;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests;

use synoptic_types::ErrorCode;
use tonic::{Code, Status};

use super::*;

#[test]
fn every_code_finds_its_way_back() {
    for code in CODES {
        let status = Status::from(Fault::new(code, "what happened, and what to do"));
        assert_eq!(status.message(), format!("[{}] what happened, and what to do", code.as_str()));
        assert_eq!(status.code(), grpc_code(code));
        let error = read_status(&status);
        assert_eq!((error.code(), error.message()), (code, "what happened, and what to do"));
    }
}

#[test]
fn codes_are_those_of_the_contract() {
    for (code, grpc) in [
        (ErrorCode::Syntax, Code::InvalidArgument),
        (ErrorCode::UnknownTable, Code::NotFound),
        (ErrorCode::UnknownColumn, Code::NotFound),
        (ErrorCode::Unsupported, Code::Unimplemented),
        (ErrorCode::InvalidOption, Code::InvalidArgument),
        (ErrorCode::FreshnessUnmet, Code::FailedPrecondition),
        (ErrorCode::SourceUnavailable, Code::Unavailable),
        (ErrorCode::QueueFull, Code::ResourceExhausted),
        (ErrorCode::Timeout, Code::DeadlineExceeded),
        (ErrorCode::OutcomeUnknown, Code::FailedPrecondition),
        (ErrorCode::Cancelled, Code::Cancelled),
        (ErrorCode::Internal, Code::Internal),
    ] {
        assert_eq!(grpc_code(code), grpc, "{code}");
    }
}

#[test]
fn a_long_message_is_cut_between_characters() {
    for text in ["x".repeat(100_000), "%".repeat(100_000), "🦀".repeat(100_000)] {
        let status = Status::from(Fault::malformed(text));
        assert!(status.message().ends_with('…'));
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).expect("a header");
        let bytes = headers.get("grpc-message").expect("a message").len();
        assert!((2000..4096).contains(&bytes), "{bytes}");
    }
}

#[test]
fn the_query_is_named_in_a_header() {
    let fault = Fault::timeout(Duration::from_secs(2)).with_query(&QueryId::new("q1"));
    let status = Status::from(fault.with_query(&QueryId::new("q2")));
    assert_eq!(status.metadata().get(QUERY_ID_HEADER).expect("a header"), "q1");
    assert!(status.message().contains("2s"), "{}", status.message());
}

#[test]
fn what_grpc_itself_refuses_gets_a_code_too() {
    let answer = |status: Status| {
        let mut response = http::Response::new(());
        status.add_header(response.headers_mut()).expect("headers");
        let response = reword(response);
        Status::from_header_map(response.headers()).expect("a status")
    };
    for (status, code, start) in [
        (
            Status::out_of_range("Error, decoded message length too large: found 9 bytes"),
            Code::ResourceExhausted,
            "[BUDGET_EXCEEDED] the message is larger",
        ),
        (
            Status::internal("failed to decode Protobuf message: invalid tag value: 0"),
            Code::InvalidArgument,
            "[SYNTAX] the request cannot be read",
        ),
        (Status::unimplemented(""), Code::Unimplemented, "[UNSUPPORTED] this server has no such"),
        (Status::not_found("[UNKNOWN_TABLE] t"), Code::NotFound, "[UNKNOWN_TABLE] t"),
    ] {
        let answered = answer(status);
        assert_eq!(answered.code(), code);
        assert!(answered.message().starts_with(start), "{}", answered.message());
    }
    assert!(reword(http::Response::new(())).headers().is_empty());
}

#[test]
fn a_status_of_another_server_gets_the_nearest_code() {
    for (status, code) in [
        (Status::unavailable("gone"), ErrorCode::SourceUnavailable),
        (Status::internal("[NO_SUCH_CODE] x"), ErrorCode::Internal),
        (Status::deadline_exceeded(""), ErrorCode::Timeout),
        (Status::unauthenticated("who"), ErrorCode::Unauthenticated),
    ] {
        assert_eq!(read_status(&status).code(), code);
    }
}

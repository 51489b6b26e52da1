use arrow_flight::sql::{CommandGetTables, CommandStatementQuery, ProstMessageExt};
use bytes::Bytes;
use synoptic_types::ErrorCode;

use super::*;

fn command(bytes: impl Into<Bytes>) -> Result<Asked> {
    read_descriptor(&FlightDescriptor::new_cmd(bytes))
}

fn sql(text: &str) -> Asked {
    Asked::Sql(text.to_owned())
}

#[test]
fn commands_texts_and_json_are_told_apart() {
    let query = CommandStatementQuery { query: "SELECT 1".into(), transaction_id: None };
    let bytes = query.as_any().encode_to_vec();
    let asked = Asked::Command(Box::new(Command::CommandStatementQuery(query)));
    assert_eq!(command(bytes.clone()).expect("a command"), asked);
    assert_eq!(read_ticket(&bytes).expect("a command"), asked);

    for text in ["SELECT 1", "\n\tSELECT\r\n1", "{not json", "select 'ünï 🦀'", "{\"a\": 1}"] {
        assert_eq!(command(text).expect(text), sql(text));
    }
    let json = r#"{"sql_query": "SELECT 2", "database": "x", "query_type": "sql"}"#;
    assert_eq!(read_ticket(json.as_bytes()).expect("JSON"), sql("SELECT 2"));
}

#[test]
fn what_is_neither_is_refused_with_what_it_should_be() {
    let foreign = Any {
        type_url: "type.googleapis.com/google.protobuf.StringValue".into(),
        value: Bytes::from_static(b"abc"),
    };
    let truncated = Any {
        type_url: CommandGetTables::type_url().into(),
        value: Bytes::from_static(b"\x0a\x05ab"),
    };
    for bytes in [
        b"".to_vec(),
        b"  \n".to_vec(),
        b"\xff\xfe\xfd".to_vec(),
        b"SELECT \0".to_vec(),
        foreign.encode_to_vec(),
        truncated.encode_to_vec(),
    ] {
        assert_eq!(command(bytes).expect_err("refused").code(), ErrorCode::Syntax);
    }
    let unknown = Any { type_url: format!("{COMMAND_PREFIX}CommandNew"), value: Bytes::new() };
    let fault = command(unknown.encode_to_vec()).expect_err("unknown");
    assert_eq!(fault.code(), ErrorCode::Unsupported);
    assert!(fault.message().contains("CommandNew"), "{}", fault.message());
}

#[test]
fn a_path_is_a_table_whatever_its_names() {
    let path = |parts: &[&str]| {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        read_descriptor(&FlightDescriptor::new_path(parts))
    };
    assert_eq!(path(&["t"]).expect("one"), sql("SELECT * FROM \"t\""));
    assert_eq!(
        path(&["bank", "Mixed Case", "a\"; DROP"]).expect("three"),
        sql("SELECT * FROM \"bank\".\"Mixed Case\".\"a\"\"; DROP\"")
    );
    for wrong in [&[][..], &[""], &["a", ""], &["a", "b", "c", "d"]] {
        assert_eq!(path(wrong).expect_err("refused").code(), ErrorCode::Syntax);
    }
}

#[test]
fn a_type_that_does_not_exist_is_refused() {
    let descriptor = |r#type| FlightDescriptor {
        r#type,
        cmd: Bytes::from_static(b"SELECT 1"),
        path: Vec::new(),
    };
    assert!(read_descriptor(&descriptor(0)).is_ok());
    assert_eq!(read_descriptor(&descriptor(99)).expect_err("99").code(), ErrorCode::Syntax);
}

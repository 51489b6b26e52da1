use arrow::datatypes::{DataType, Field};

use super::*;

fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
    Schema::new(
        fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>(),
    )
}

#[test]
fn an_answer_with_other_columns_than_promised_is_refused() {
    let promised = schema(&[("id", DataType::Int32, false), ("n", DataType::Utf8, true)]);
    let described = promised.clone().with_metadata([("k".to_owned(), "v".to_owned())].into());
    assert!(same_columns(&promised, &described).is_ok());
    for (now, part) in [
        (schema(&[("id", DataType::Int32, false)]), "2 columns"),
        (schema(&[("id", DataType::Int32, false), ("m", DataType::Utf8, true)]), "'m'"),
        (schema(&[("id", DataType::Int64, false), ("n", DataType::Utf8, true)]), "Int64"),
        (schema(&[("id", DataType::Int32, true), ("n", DataType::Utf8, true)]), "'id'"),
    ] {
        let fault = same_columns(&promised, &now).expect_err("changed");
        assert_eq!(fault.code(), ErrorCode::Data);
        assert!(fault.message().contains(part), "{}", fault.message());
    }
}

#[test]
fn only_the_ticket_of_a_statement_has_a_handle() {
    let endpoint =
        |ticket: Vec<u8>| FlightEndpoint::new().with_ticket(arrow_flight::Ticket::new(ticket));
    let handle = Bytes::from_static(b"signed");
    let command = TicketStatementQuery { statement_handle: handle.clone() };
    let ours = endpoint(command.as_any().encode_to_vec());
    assert_eq!(handle_of_endpoint(Some(&ours)).expect("a handle"), handle);
    let listing = arrow_flight::sql::CommandGetCatalogs {}.as_any().encode_to_vec();
    for other in [Some(endpoint(listing)), Some(endpoint(b"SELECT 1".to_vec())), None] {
        assert_eq!(handle_of_endpoint(other.as_ref()).expect_err("none").code(), ErrorCode::Syntax);
    }
    assert!(handle_of_endpoint(Some(&FlightEndpoint::new())).is_err());
}

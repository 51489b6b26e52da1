use std::time::Duration;

use chrono::TimeZone;

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000 + seconds, 0).single().expect("a moment")
}

fn ticket() -> Ticket {
    Ticket {
        query: QueryId::new("0193"),
        sql: "SELECT * FROM t WHERE x = $1".to_owned(),
        parameters: Bytes::from_static(b"ipc"),
        options: [("pushdown".to_owned(), "none".to_owned())].into(),
        catalog: "bank".to_owned(),
        schema: "Mixed Case".to_owned(),
        expires_at: at(60),
        arrow_schema: Bytes::from_static(b"schema"),
        types: Types::Native,
        endpoint: 3,
    }
}

fn code(result: Result<Ticket>) -> ErrorCode {
    result.expect_err("refused").code()
}

#[test]
fn what_is_sealed_is_read_back() {
    let signer = Signer::new(None);
    let sealed = ticket().seal(&signer);
    assert_eq!(Ticket::open(&sealed, &signer).expect("ours"), ticket());
    // One ticket has one encoding.
    assert_eq!(sealed, ticket().seal(&signer));
}

#[test]
fn a_truncated_ticket_is_refused_at_every_length() {
    let signer = Signer::new(None);
    let sealed = ticket().seal(&signer);
    for length in 0..sealed.len() {
        let code = code(Ticket::open(&sealed[..length], &signer));
        assert!(matches!(code, ErrorCode::Syntax | ErrorCode::PermissionDenied), "{length} {code}");
    }
}

#[test]
fn a_ticket_with_one_bit_changed_is_refused() {
    let signer = Signer::new(None);
    let sealed = ticket().seal(&signer);
    for at in 0..sealed.len() * 8 {
        let mut forged = sealed.to_vec();
        forged[at / 8] ^= 1 << (at % 8);
        let code = code(Ticket::open(&forged, &signer));
        assert!(matches!(code, ErrorCode::Syntax | ErrorCode::PermissionDenied), "{at} {code}");
    }
}

#[test]
fn a_ticket_of_another_server_is_refused_unless_they_share_a_key() {
    let key = [7; 32];
    let sealed = ticket().seal(&Signer::new(Some(key)));
    assert_eq!(code(Ticket::open(&sealed, &Signer::new(None))), ErrorCode::PermissionDenied);
    assert!(Ticket::open(&sealed, &Signer::new(Some(key))).is_ok());
}

#[test]
fn garbage_is_refused() {
    let signer = Signer::new(None);
    for garbage in [&b""[..], b"SELECT 1", &[0; 100], &[0xff; 1000], b"\x0a\x00\x12\x00"] {
        assert_eq!(code(Ticket::open(garbage, &signer)), ErrorCode::Syntax);
    }
    let unsigned = v1::SignedTicket { ticket: b"x".to_vec(), mac: vec![] }.encode_to_vec();
    assert_eq!(code(Ticket::open(&unsigned, &signer)), ErrorCode::Syntax);
}

#[test]
fn a_token_does_not_pass_as_a_ticket() {
    let signer = Signer::new(None);
    let bytes = v1::Ticket::default().encode_to_vec();
    let ticket = [&bytes[..], b"x"].concat();
    let mac = signer.sign("session", &ticket);
    let forged = v1::SignedTicket { ticket, mac }.encode_to_vec();
    assert_eq!(code(Ticket::open(&forged, &signer)), ErrorCode::PermissionDenied);
}

#[test]
fn a_ticket_expires_by_the_clock() {
    let ticket = ticket();
    assert!(ticket.check_expiry(at(59)).is_ok());
    for now in [at(60), at(600)] {
        let fault = ticket.check_expiry(now).expect_err("expired");
        assert_eq!(fault.code(), ErrorCode::Timeout);
        assert!(fault.message().contains("2027-01-15T08:01:00Z"), "{}", fault.message());
    }
    assert_eq!(expiry(at(0), Duration::from_secs(60)), at(60));
    assert_eq!(expiry(at(0), Duration::MAX), DateTime::<Utc>::MAX_UTC);
    assert_eq!(timestamp(at(5)).seconds, 1_800_000_005);
}

use synoptic_types::ErrorCode;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataValue};

use super::*;

fn headers(entries: &[(&str, &str)]) -> MetadataMap {
    let mut headers = MetadataMap::new();
    for (name, value) in entries {
        let name: AsciiMetadataKey = name.parse().expect("a name");
        let value: AsciiMetadataValue = value.parse().expect("a value");
        headers.append(name, value);
    }
    headers
}

#[test]
fn options_come_with_dashes_or_underscores() {
    let Form { overrides, types, .. } = read_options(&headers(&[
        ("x-synoptic-max-staleness", "5s"),
        ("x-synoptic-on_unmet", "stale"),
        ("x-synoptic-client", "me"),
        ("x-other", "x"),
    ]))
    .expect("options");
    let overrides: Vec<_> = overrides.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert!(overrides.contains(&("max_staleness", "5s")), "{overrides:?}");
    assert!(overrides.contains(&("on_unmet", "stale")), "{overrides:?}");
    assert_eq!((overrides.len(), types), (2, Types::Compatible));
}

#[test]
fn an_option_that_does_not_exist_or_fit_is_refused_on_every_call() {
    for (name, value, code) in [
        ("x-synoptic-nope", "x", ErrorCode::InvalidOption),
        ("x-synoptic-", "x", ErrorCode::InvalidOption),
        ("x-synoptic-pushdown", "sometimes", ErrorCode::InvalidOption),
        ("x-synoptic-read-timestamp", "yesterday", ErrorCode::InvalidOption),
    ] {
        let fault = read_options(&headers(&[(name, value)])).expect_err(name);
        assert_eq!(fault.code(), code, "{}", fault.message());
    }
}

#[test]
fn headers_have_a_limit() {
    let value = "x".repeat(10_000);
    let entries = vec![("x-other", value.as_str()); 7];
    assert!(check_size(&headers(&entries[..6])).is_ok());
    let fault = check_size(&headers(&entries)).expect_err("too large");
    assert_eq!(fault.code(), ErrorCode::InvalidOption);
}

#[test]
fn types_are_chosen_by_header() {
    let types =
        |value| read_options(&headers(&[("x-synoptic-types", value)])).map(|form| form.types);
    assert_eq!(types("native").expect("native"), Types::Native);
    assert_eq!(types("Compatible").expect("compatible"), Types::Compatible);
    let fault = types("fast").expect_err("neither");
    assert_eq!(fault.code(), ErrorCode::InvalidOption);
    assert!(fault.message().contains("x-synoptic-types"), "{}", fault.message());
}

#[test]
fn compression_is_chosen_by_header() {
    let chosen = |value| {
        read_options(&headers(&[("x-synoptic-compression", value)])).map(|form| form.compression)
    };
    assert_eq!(chosen("lz4").expect("lz4"), Compression::Lz4);
    assert_eq!(chosen("ZSTD").expect("zstd"), Compression::Zstd);
    assert_eq!(chosen("none").expect("none"), Compression::None);
    let fault = chosen("gzip").expect_err("none of them");
    assert_eq!(fault.code(), ErrorCode::InvalidOption);
    assert!(fault.message().contains("x-synoptic-compression"), "{}", fault.message());
}

#[test]
fn endpoints_are_asked_for_by_header() {
    let asked = |value| {
        read_options(&headers(&[("x-synoptic-endpoints", value)])).map(|form| form.endpoints)
    };
    assert_eq!(read_options(&MetadataMap::new()).expect("none").endpoints, 1);
    for (value, number) in [("1", 1), (" 4 ", 4), ("16", 16)] {
        assert_eq!(asked(value).expect("a number"), number);
    }
    for wrong in ["0", "17", "-1", "many", ""] {
        let fault = asked(wrong).expect_err(wrong);
        assert_eq!(fault.code(), ErrorCode::InvalidOption);
        assert!(fault.message().contains("x-synoptic-endpoints"), "{}", fault.message());
        assert!(fault.message().contains("1 to 16"), "{}", fault.message());
    }
}

#[test]
fn the_scheme_of_a_token_may_be_written_in_any_case() {
    for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
        assert_eq!(bearer(&headers(&[("authorization", value)])).as_deref(), Some("abc"));
    }
    for value in ["Basic abc", "abc", ""] {
        assert_eq!(bearer(&headers(&[("authorization", value)])), None);
    }
    let mut old = MetadataMap::new();
    old.insert_bin("auth-token-bin", BinaryMetadataValue::from_bytes(b"abc"));
    assert_eq!(bearer(&old).as_deref(), Some("abc"));
}

#[test]
fn timeouts_of_grpc() {
    let timeout = |value| read_timeout(&headers(&[("grpc-timeout", value)]));
    let millis = |ms| Some(Duration::from_millis(ms));
    assert_eq!(timeout("1S"), millis(995));
    assert_eq!(timeout("100m"), millis(95));
    assert_eq!(timeout("4m"), millis(3));
    assert_eq!(timeout("1H"), millis(3_599_995));
    for wrong in ["", "1", "S", "1x", "123456789S", "-1S", "1.5S"] {
        assert_eq!(timeout(wrong), None, "{wrong}");
    }
    assert_eq!(read_timeout(&MetadataMap::new()), None);
}

#[test]
fn a_client_has_a_name_without_end_or_control() {
    let long = "x".repeat(10_000);
    assert_eq!(client_name(&headers(&[("user-agent", &long)])).len(), MAX_CLIENT_BYTES);
    let both = headers(&[("user-agent", "grpc-c++"), ("x-synoptic-client", "report")]);
    assert_eq!(client_name(&both), "report");
    assert_eq!(client_name(&MetadataMap::new()), "unknown");
}

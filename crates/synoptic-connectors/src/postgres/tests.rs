//! What needs no server. The rest is in `tests/rust/postgres.rs`, against a real one.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use synoptic_types::{Deadline, SourceName};
use tokio_postgres::config::SslMode;

use super::copy::CopyDecoder;
use super::decode::Fault;
use super::options::{Options, Verify};
use super::types::Encoding;
use crate::options::{Declared, OptionsError};

fn options(options: Value) -> Result<Options, OptionsError> {
    let Value::Object(options) = options else { panic!("options are a table") };
    let name = SourceName::new("portfolio");
    Options::from_declared(&Declared { name, options, base_dir: "/etc/synoptic".into() })
}

fn url(url: &str) -> Result<Options, OptionsError> {
    options(json!({ "url": url }))
}

#[test]
fn options_have_defaults() {
    let checked = url("postgresql://app@db1:5432/portfolio").unwrap();
    assert_eq!(checked.location, "db1:5432/portfolio");
    assert_eq!(checked.max_connections, 20);
    assert_eq!(checked.connect_timeout.as_secs(), 5);
    assert_eq!(checked.acquire_timeout.as_secs(), 10);
    assert_eq!(checked.application_name, "synoptic");
    assert_eq!(checked.config.get_ssl_mode(), SslMode::Prefer);
}

#[test]
fn sslmodes_are_those_of_libpq() {
    let modes = [
        ("disable", SslMode::Disable, Verify::Nothing),
        ("prefer", SslMode::Prefer, Verify::Nothing),
        ("require", SslMode::Require, Verify::Nothing),
        ("verify-ca", SslMode::Require, Verify::Chain),
        ("verify-full", SslMode::Require, Verify::ChainAndName),
    ];
    for (text, mode, verify) in modes {
        let checked = url(&format!("postgres://db/x?sslmode={text}&connect_timeout=7")).unwrap();
        assert_eq!((checked.config.get_ssl_mode(), checked.verify), (mode, verify), "{text}");
        assert_eq!(checked.connect_timeout.as_secs(), 7);
    }
    let rooted = url("postgres://db/x?sslmode=require&sslrootcert=ca%2Froot.pem").unwrap();
    assert_eq!(rooted.verify, Verify::Chain);
    assert_eq!(rooted.tls_root_cert.unwrap().to_str(), Some("/etc/synoptic/ca/root.pem"));
}

#[test]
fn wrong_options_say_where_and_what() {
    let good = "postgresql://db/x";
    let cases = [
        (json!({}), "url", "missing field"),
        (json!({ "url": good, "pool": 3 }), "pool", "max_connections"),
        (json!({ "url": good, "max_connections": 0 }), "max_connections", "between 1 and"),
        (json!({ "url": good, "max_partitions": 0 }), "max_partitions", "at least 1"),
        (json!({ "url": good, "min_partition_size": "big" }), "min_partition_size", "big"),
        (json!({ "url": good, "connect_timeout": "soon" }), "connect_timeout", "'5s'"),
        (json!({ "url": good, "acquire_timeout": "0s" }), "acquire_timeout", "longer than 0"),
        (json!({ "url": good, "application_name": "a\nb" }), "application_name", "control"),
        (json!({ "url": "db1" }), "url", "postgresql://"),
        (json!({ "url": "postgresql:///x" }), "url", "no host"),
        (json!({ "url": "postgresql://db/x?sslmode=maybe" }), "url", "verify-full"),
        (json!({ "url": "postgresql://db/x?sslcert=c.pem" }), "url", "sslcert"),
        (json!({ "url": "postgresql://db:many/x" }), "url", "port"),
    ];
    for (declared, path, message) in cases {
        let error = options(declared.clone()).expect_err(&declared.to_string());
        let text = format!("{}: {error}", error.path.join("."));
        assert!(text.contains(path) && text.contains(message), "{declared} gave {text}");
    }
}

#[test]
fn the_password_is_never_shown() {
    for text in [
        "postgresql://app:hunter2@db1/x",
        "postgresql://app:hunter2@db1:port/x",
        "app:hunter2@db1/x",
        "postgresql://app:hunter2@db1/x?sslmode=maybe",
        "host=db1 password=hunter2",
    ] {
        let shown = match url(text) {
            Ok(checked) => format!("{checked:?} {}", checked.location),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let declared = Declared {
        name: SourceName::new("portfolio"),
        options: Map::from_iter([("url".to_owned(), json!("postgresql://app:hunter2@db1/x"))]),
        base_dir: "/".into(),
    };
    let source = super::open(declared).unwrap();
    assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
    assert_eq!(source.location(), "db1:5432/x");
}

/// A stream of rows as the server sends them; `None` is NULL.
fn frame(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for row in rows {
        bytes.extend(u16::try_from(row.len()).unwrap().to_be_bytes());
        for field in row {
            match field {
                None => bytes.extend((-1_i32).to_be_bytes()),
                Some(value) => {
                    bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    bytes.extend(value);
                }
            }
        }
    }
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}

fn decoder(encodings: &[Encoding]) -> CopyDecoder {
    let fields = encodings.iter().enumerate();
    let fields = fields.map(|(i, e)| Field::new(format!("c{i}"), e.arrow(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    CopyDecoder::new(schema, &encodings.iter().collect::<Vec<_>>(), 100)
}

#[test]
fn rows_become_batches() {
    let mut decoder = decoder(&[Encoding::Int4, Encoding::Text]);
    let rows = [
        vec![Some(7_i32.to_be_bytes().to_vec()), Some(b"seven".to_vec())],
        vec![None, Some(Vec::new())],
        vec![Some((-1_i32).to_be_bytes().to_vec()), None],
    ];
    decoder.push(&frame(&rows)).unwrap();
    assert!(decoder.is_done());
    let batch = decoder.take_batch().unwrap().unwrap();
    let numbers: Vec<_> = batch.column(0).as_primitive::<Int32Type>().iter().collect();
    assert_eq!(numbers, [Some(7), None, Some(-1)]);
    let texts: Vec<_> = batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("seven"), Some(""), None]);
    assert!(decoder.take_batch().unwrap().is_none());
}

#[test]
fn rows_without_columns_are_counted() {
    let mut decoder = decoder(&[]);
    decoder.push(&frame(&vec![Vec::new(); 5])).unwrap();
    assert_eq!(decoder.take_batch().unwrap().unwrap().num_rows(), 5);
}

#[test]
fn a_text_that_is_not_utf8_is_refused() {
    let mut decoder = decoder(&[Encoding::Text]);
    decoder.push(&frame(&[vec![Some(vec![0xff])]])).unwrap();
    let fault = decoder.take_batch().unwrap_err();
    assert!(matches!(*fault.fault, Fault::Value(text) if text.contains("UTF-8")));
    assert_eq!(fault.column, Some(0));
}

fn every_encoding() -> Vec<Encoding> {
    let numeric = |precision, scale| Encoding::Numeric { precision, scale, constrained: true };
    let array = |element, dimensions| Encoding::Array { element: Box::new(element), dimensions };
    vec![
        Encoding::Bool,
        Encoding::Int2,
        Encoding::Int4,
        Encoding::Int8,
        Encoding::Float4,
        Encoding::Float8,
        numeric(15, 2),
        numeric(76, 38),
        Encoding::Date,
        Encoding::Time,
        Encoding::Timestamp,
        Encoding::TimestampTz,
        Encoding::Interval,
        Encoding::Text,
        Encoding::Jsonb,
        Encoding::Uuid,
        Encoding::Bytea,
        array(Encoding::Int4, 1),
        array(Encoding::Text, 2),
        array(array(numeric(38, 10), 1), 1),
    ]
}

/// A value of about the right shape for any of the encodings.
fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    let array = (0_u32..4, prop::collection::vec((0_i32..4, 0_i32..3), 0..3), any::<Vec<u8>>());
    let array = array.prop_map(|(dimensions, bounds, rest)| {
        let mut bytes = dimensions.to_be_bytes().to_vec();
        bytes.extend([0; 8]);
        for (length, lower) in bounds {
            bytes.extend(length.to_be_bytes());
            bytes.extend(lower.to_be_bytes());
        }
        bytes.extend(rest);
        bytes
    });
    let numeric =
        (0_u16..6, any::<i16>(), prop::sample::select(vec![0_u16, 0x4000, 0xC000, 0xD000]));
    let numeric = (numeric, prop::collection::vec(0_u16..10_001, 0..6));
    let numeric = numeric.prop_map(|((groups, weight, sign), digits)| {
        let mut bytes = groups.to_be_bytes().to_vec();
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend([0, 0]);
        digits.iter().for_each(|digit| bytes.extend(digit.to_be_bytes()));
        bytes
    });
    prop_oneof![
        Just(None),
        prop::sample::select(vec![0_usize, 1, 2, 4, 8, 16])
            .prop_flat_map(|n| prop::collection::vec(any::<u8>(), n).prop_map(Some)),
        any::<Vec<u8>>().prop_map(Some),
        array.prop_map(Some),
        numeric.prop_map(Some),
    ]
}

proptest! {
    #[test]
    fn values_of_any_bytes_never_panic(values in prop::collection::vec(value(), 20)) {
        for (encoding, value) in every_encoding().into_iter().zip(values) {
            let mut decoder = decoder(std::slice::from_ref(&encoding));
            if decoder.push(&frame(&[vec![value]])).is_ok()
                && let Ok(Some(batch)) = decoder.take_batch()
            {
                prop_assert_eq!(batch.num_rows(), 1);
                prop_assert_eq!(batch.column(0).data_type(), &encoding.arrow());
            }
        }
    }

    #[test]
    fn frames_of_any_bytes_never_panic(bytes in any::<Vec<u8>>(), cut in any::<usize>()) {
        let mut whole = frame(&[vec![Some(vec![0, 0, 0, 1]), Some(b"one".to_vec())]]);
        let encodings = [Encoding::Int4, Encoding::Text];
        // Cut off anywhere, the end is never reported as reached.
        let cut = cut % whole.len();
        let mut short = decoder(&encodings);
        prop_assert!(short.push(&whole[..cut]).is_err() || !short.is_done());
        // Overwritten anywhere.
        for (i, byte) in bytes.iter().enumerate() {
            let at = (cut + i) % whole.len();
            whole[at] = *byte;
        }
        let mut garbled = decoder(&encodings);
        let _ = garbled.push(&whole);
        let _ = garbled.take_batch();
    }
}

#[test]
fn sqlstates_become_kinds() {
    // The mapping of server errors is seen against a server; this is what never gets that far.
    let past = Deadline::after(std::time::Duration::ZERO);
    assert!(past.unwrap().remaining().is_zero());
    assert_eq!(super::error::timed_out().kind(), synoptic_source::ErrorKind::Timeout);
}

#[test]
fn decimals_keep_their_declared_shape() {
    use super::types::{TypeRow, resolve};
    let numeric = TypeRow {
        oid: 1700,
        name: "numeric".to_owned(),
        kind: "b".to_owned(),
        base: 0,
        base_typmod: -1,
        base_dimensions: 0,
        element: 0,
        array: 1231,
    };
    let types = std::collections::HashMap::from([(1700, numeric)]);
    let typmod = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
    let cases = [
        (typmod(15, 2), DataType::Decimal128(15, 2)),
        (typmod(38, 0), DataType::Decimal128(38, 0)),
        (typmod(39, 10), DataType::Decimal256(39, 10)),
        (typmod(76, 38), DataType::Decimal256(76, 38)),
        (typmod(3, -4), DataType::Decimal128(7, 0)),
        (typmod(2, 5), DataType::Decimal128(5, 5)),
        (typmod(1000, 10), DataType::Decimal256(76, 10)),
        (typmod(1000, 1000), DataType::Utf8),
        (-1, DataType::Decimal128(38, 18)),
    ];
    for (typmod, expected) in cases {
        let resolved = resolve(&types, 1700, typmod, 0);
        assert_eq!(resolved.encoding.arrow(), expected, "{typmod}");
    }
}

//! Tokens as text: what was written is read, and nothing else is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use synoptic_types::{Position, SourceName};

use super::{generate, source};
use crate::{Token, TokenError, TokenKey};

const SECRET: &[u8] = b"a secret of thirty-two bytes....";

fn key() -> TokenKey {
    TokenKey::new(SECRET).expect("long enough")
}

/// The header of our own key, written as the module's documentation says.
fn header(format: u8) -> Vec<u8> {
    let id = Sha256::new().chain_update(b"synoptic token key\0").chain_update(SECRET).finalize();
    [&[format], &id[..4]].concat()
}

/// Signs `bytes` as a server with our key would.
fn signed(bytes: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key of any length");
    let mac = mac.chain_update(b"synoptic token\0").chain_update(bytes).finalize().into_bytes();
    URL_SAFE_NO_PAD.encode([bytes, &mac[..]].concat())
}

fn entries(entries: &[u8]) -> Result<Token, TokenError> {
    Token::decode(&signed(&[&header(1), entries].concat()), &key())
}

fn example() -> Token {
    let mut token = Token::default();
    token.include(&source(), &Position::log(7, 2, 0x16_B374_D848)).expect("fits");
    token.include(&SourceName::new("files"), &Position::version("etag")).expect("fits");
    token
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn a_token_reads_back_as_it_was_written(token in generate::token()) {
        let text = token.encode(&key()).expect("small");
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        prop_assert_eq!(Token::decode(&text, &key()), Ok(token.clone()));
        prop_assert_eq!(Token::decode(&format!(" {text}\n"), &key()), Ok(token));
    }

    #[test]
    fn any_text_is_an_error(text in prop_oneof![any::<String>(), "[A-Za-z0-9_-]{0,200}"]) {
        prop_assert!(Token::decode(&text, &key()).is_err());
    }

    #[test]
    fn any_bytes_are_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200), ours: bool) {
        if ours {
            bytes.splice(..0, header(1));
        }
        prop_assert!(Token::decode(&URL_SAFE_NO_PAD.encode(bytes), &key()).is_err());
    }

    /// A holder of the key that is broken, or of a later version that forgot its format byte.
    #[test]
    fn signed_nonsense_does_not_panic_and_what_is_read_is_written_again(
        bytes in prop::collection::vec(prop_oneof![3 => 0..3_u8, 1 => any::<u8>()], 0..80)
    ) {
        if let Ok(token) = entries(&bytes) {
            let text = token.encode(&key()).expect("small");
            prop_assert_eq!(Token::decode(&text, &key()), Ok(token));
        }
    }

    #[test]
    fn a_changed_character_is_noticed(
        token in generate::token(), place: prop::sample::Index, other in "[A-Za-z0-9_-]"
    ) {
        let text = token.encode(&key()).expect("small");
        let place = place.index(text.len());
        let changed = format!("{}{other}{}", &text[..place], &text[place + 1..]);
        prop_assume!(changed != text);
        prop_assert!(Token::decode(&changed, &key()).is_err());
    }

    #[test]
    fn a_truncated_token_is_an_error(token in generate::token(), place: prop::sample::Index) {
        let text = token.encode(&key()).expect("small");
        let short = &text[..place.index(text.len())];
        let error = Token::decode(short, &key()).expect_err("cut off");
        prop_assert!(matches!(error, TokenError::Malformed | TokenError::Forged), "{error:?}");
    }

    #[test]
    fn a_token_of_another_key_is_foreign(token in generate::token(), secret: [u8; 32]) {
        prop_assume!(secret != SECRET);
        let foreign = TokenKey::new(&secret).expect("long enough");
        let text = token.encode(&foreign).expect("small");
        prop_assert_eq!(Token::decode(&text, &key()), Err(TokenError::ForeignKey));
    }
}

/// Clients keep tokens over upgrades: a change here needs another format byte.
#[test]
fn the_format_is_the_documented_one() {
    let body = [
        &header(1)[..],
        &[0, 2],
        &[0, 4],
        b"bank",
        &[0, 1],
        &7_u64.to_be_bytes(),
        &2_u32.to_be_bytes(),
        &0x16_B374_D848_u64.to_be_bytes(),
        &[0],
        &[0, 5],
        b"files",
        &[0, 0],
        &[1, 0, 4],
        b"etag",
    ]
    .concat();
    assert_eq!(example().encode(&key()).as_deref(), Ok(signed(&body).as_str()));
}

#[test]
fn other_formats_are_told_from_garbage() {
    let long = signed(&[&header(2)[..], &[0, 0]].concat());
    assert_eq!(Token::decode(&long, &key()), Err(TokenError::UnknownFormat));
    for text in ["", "x", "Ag", "AQ", "AQAAAAA", "a b", "AQ==", "ä"] {
        assert_eq!(Token::decode(text, &key()), Err(TokenError::Malformed), "{text}");
    }
}

#[test]
fn a_bound_that_was_lowered_by_hand_is_forged() {
    let text = example().encode(&key()).expect("small");
    let mut bytes = URL_SAFE_NO_PAD.decode(text).expect("base64");
    let lsn = 5 + 2 + 2 + 4 + 2 + 8 + 4;
    bytes[lsn..lsn + 8].fill(0);
    let forged = Token::decode(&URL_SAFE_NO_PAD.encode(bytes), &key());
    assert_eq!(forged, Err(TokenError::Forged));
}

#[test]
fn entries_that_are_signed_but_wrong_are_an_error() {
    let version = [&[0, 1, b'a', 0, 0, 1, 0, 1][..], b"v"].concat();
    assert!(entries(&[&[0, 1][..], &version].concat()).is_ok());
    let wrong: [&[u8]; 7] = [
        &[],
        // One source announced, none there; then one byte too many.
        &[0, 1],
        &[0, 0, 0],
        // An unknown kind of version, a name that is not UTF-8, an address that is cut off.
        &[0, 1, 0, 1, b'a', 0, 0, 3],
        &[0, 1, 0, 1, 0xFF, 0, 0, 0],
        &[0, 1, 0, 1, b'a', 0, 1, 0],
        // One source twice: the second entry must not replace the first.
        &[&[0, 2][..], &version, &[0, 1, b'a', 0, 0, 0]].concat(),
    ];
    for bytes in wrong {
        assert_eq!(entries(bytes), Err(TokenError::Malformed), "{bytes:?}");
    }
}

#[test]
fn what_is_too_long_is_neither_written_nor_read() {
    for length in [30_000, 70_000] {
        let mut token = Token::default();
        token.include(&source(), &Position::version("v".repeat(length))).expect("one source");
        assert_eq!(token.encode(&key()), Err(TokenError::TooLarge), "{length}");
    }
    let text = "A".repeat(Token::MAX_LENGTH + 1);
    assert_eq!(Token::decode(&text, &key()), Err(TokenError::TooLarge));
}

#[test]
fn a_key_is_long_enough_and_never_shown() {
    assert!(TokenKey::new(&[7; 15]).is_none());
    assert!(TokenKey::new(&[7; 16]).is_some());
    let shown = format!("{:?}", key());
    assert_eq!(shown, "TokenKey { .. }");
}

#[test]
fn errors_do_not_quote_the_token() {
    let text = "c2VjcmV0";
    let error = Token::decode(text, &key()).expect_err("not a token");
    assert!(!error.to_string().contains(text));
}

//! Who calls, and how: what the headers of one call say.

use std::sync::Arc;
use std::time::Duration;

use synoptic_engine::Error;
use synoptic_types::{Deadline, ErrorCode, QueryOptions};
use tonic::Extensions;
use tonic::metadata::{KeyAndValueRef, MetadataMap};

use crate::connection::ConnectionInfo;
use crate::edge::Types;
use crate::encode::Compression;
use crate::endpoints::MAX_ENDPOINTS;
use crate::sessions::{COOKIE, ClientSession, Key, Sessions};
use crate::status::{Fault, Result};

/// Options for one call come in headers of this prefix.
const OPTION_PREFIX: &str = "x-synoptic-";
/// Bytes of names and values that the headers of a call may have in all.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Bytes of a client's name that are kept.
const MAX_CLIENT_BYTES: usize = 200;

/// One call.
pub(crate) struct Call {
    /// The client's name.
    pub(crate) client: String,
    /// Its session.
    pub(crate) session: Arc<ClientSession>,
    /// Options for this call only.
    pub(crate) overrides: Vec<(String, String)>,
    /// Which Arrow types the client asked for.
    pub(crate) types: Types,
    /// How it wants batches compressed.
    pub(crate) compression: Compression,
    /// Over how many endpoints it would read an answer.
    pub(crate) endpoints: u32,
    /// How long the client waits in all, and until when.
    pub(crate) limit: Option<(Duration, Deadline)>,
    /// Whether the call named its session itself, by cookie or token.
    pub(crate) named: bool,
}

impl Call {
    /// Reads the headers of a call.
    ///
    /// # Errors
    /// `[INVALID_OPTION]` for a header `x-synoptic-…` that names no option or does not fit it, and
    /// for headers that are too large.
    pub(crate) fn read(
        sessions: &Sessions,
        headers: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Self> {
        check_size(headers)?;
        let named = session_key(sessions, headers);
        let connection = extensions.get::<ConnectionInfo>().map_or(0, |info| info.id);
        let key = named.unwrap_or(Key::Connection(connection));
        let Form { overrides, types, compression, endpoints } = read_options(headers)?;
        let client = client_name(headers);
        Ok(Self {
            session: sessions.get(key, &client),
            client,
            overrides,
            types,
            compression,
            endpoints,
            limit: read_timeout(headers).and_then(|t| Deadline::after(t).map(|d| (t, d))),
            named: named.is_some(),
        })
    }

    /// The time the client still waits.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.limit.map(|(_, deadline)| deadline.remaining())
    }

    /// Ends `work` when the client stops waiting.
    pub(crate) async fn bounded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.limit {
            None => work.await,
            Some((limit, deadline)) => tokio::time::timeout(deadline.remaining(), work)
                .await
                .unwrap_or_else(|_| Err(Fault::timeout(limit))),
        }
    }
}

/// The name a client gives itself: `x-synoptic-client`, else its user agent.
pub(crate) fn client_name(headers: &MetadataMap) -> String {
    let name = ["x-synoptic-client", "user-agent"]
        .into_iter()
        .find_map(|header| headers.get(header)?.to_str().ok())
        .unwrap_or("unknown");
    name.chars().filter(|c| !c.is_control()).take(MAX_CLIENT_BYTES).collect()
}

/// The token of `authorization: Bearer …` or of the older `auth-token-bin`.
pub(crate) fn bearer(headers: &MetadataMap) -> Option<String> {
    if let Some(value) = headers.get("authorization").and_then(|v| v.to_str().ok()) {
        let (scheme, token) = value.trim().split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let bytes = headers.get_bin("auth-token-bin")?.to_bytes().ok()?;
    String::from_utf8(bytes.to_vec()).ok()
}

fn session_key(sessions: &Sessions, headers: &MetadataMap) -> Option<Key> {
    let cookies = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut tokens = cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.trim_matches('"').to_owned())
        .chain(bearer(headers));
    tokens.find_map(|token| sessions.read(&token))
}

fn check_size(headers: &MetadataMap) -> Result<()> {
    let bytes = |entry| match entry {
        KeyAndValueRef::Ascii(name, value) => name.as_str().len() + value.as_encoded_bytes().len(),
        KeyAndValueRef::Binary(name, value) => name.as_str().len() + value.as_encoded_bytes().len(),
    };
    let bytes: usize = headers.iter().map(bytes).sum();
    if bytes <= MAX_HEADER_BYTES {
        return Ok(());
    }
    Err(Fault::new(
        ErrorCode::InvalidOption,
        format!("the headers of the call have {bytes} bytes, they may have {MAX_HEADER_BYTES}"),
    ))
}

/// What the headers of this prefix say.
#[derive(Debug)]
struct Form {
    /// Session options by name.
    overrides: Vec<(String, String)>,
    types: Types,
    compression: Compression,
    endpoints: u32,
}

fn read_options(headers: &MetadataMap) -> Result<Form> {
    let mut probe = QueryOptions::default();
    let mut overrides = Vec::new();
    let (mut types, mut compression) = (Types::default(), Compression::default());
    let mut endpoints = 1;
    for entry in headers.iter() {
        let KeyAndValueRef::Ascii(name, value) = entry else { continue };
        let Some(option) = name.as_str().strip_prefix(OPTION_PREFIX) else { continue };
        let invalid =
            |why: &str| Fault::new(ErrorCode::InvalidOption, format!("header '{name}': {why}"));
        let Ok(value) = value.to_str() else { return Err(invalid("the value is not ASCII text")) };
        match option {
            "client" => {}
            "types" => {
                types = match value.trim().to_ascii_lowercase().as_str() {
                    "native" => Types::Native,
                    "compatible" | "compat" => Types::Compatible,
                    _ => return Err(invalid("it takes 'native' or 'compatible'")),
                }
            }
            "compression" => {
                compression = match value.trim().to_ascii_lowercase().as_str() {
                    "none" => Compression::None,
                    "lz4" => Compression::Lz4,
                    "zstd" => Compression::Zstd,
                    _ => return Err(invalid("it takes 'none', 'lz4' or 'zstd'")),
                }
            }
            "endpoints" => {
                endpoints = match value.trim().parse() {
                    Ok(number @ 1..=MAX_ENDPOINTS) => number,
                    _ => {
                        let why = format!("it takes a number from 1 to {MAX_ENDPOINTS}");
                        return Err(invalid(&why));
                    }
                }
            }
            option => {
                // Also on calls that have no use for it: a misspelt option is not passed over.
                probe.set(option, value).map_err(Error::from)?;
                overrides.push((option.replace('-', "_"), value.to_owned()));
            }
        }
    }
    Ok(Form { overrides, types, compression, endpoints })
}

/// The header `grpc-timeout`: at most eight digits and a unit.
///
/// gRPC's own layer answers CANCELLED at that time; a little earlier we say what happened.
fn read_timeout(headers: &MetadataMap) -> Option<Duration> {
    const MARGIN: Duration = Duration::from_millis(5);
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout - MARGIN.min(timeout / 4))
}

#[cfg(test)]
mod tests;

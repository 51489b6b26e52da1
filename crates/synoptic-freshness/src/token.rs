//! Tokens: signed lower bounds that clients carry between sessions, servers and copies.
//!
//! A token is base64url (RFC 4648, no padding) of: format `1`, four bytes naming the key, the
//! entries, and HMAC-SHA256 (RFC 2104) over all that stands before it and a word for the purpose.
//! Clients must treat it as opaque.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use synoptic_types::{Epoch, ErrorCode, Lsn, Position, SourceName, Version};
use thiserror::Error;

use crate::Lineage;
use crate::bound::{LowerBound, Seen};
use crate::rules::{Rules, TheRules};

const FORMAT: u8 = 1;
const KEY_ID: usize = 4;
const SIGNATURE: usize = 32;
const PURPOSE: &[u8] = b"synoptic token\0";

/// Why a token cannot be used. The messages never quote the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TokenError {
    #[error("the token is not one of ours or was cut off; pass on what synoptic_token() returned")]
    Malformed,
    #[error("the token is of a later version of Synoptic; use the server that made it")]
    UnknownFormat,
    #[error(
        "the token was signed with another key: servers that share tokens need the same key; \
         clear the token with RESET synoptic.token to read without it"
    )]
    ForeignKey,
    #[error("the token's signature is wrong: it was changed on the way")]
    Forged,
    #[error("the token names too many sources or is too long; start with a new session")]
    TooLarge,
    #[error("the token has lived through too many promotions; start with a new session")]
    TooManyEpochs,
}

impl TokenError {
    /// The code a client sees.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::TooManyEpochs => ErrorCode::TokenLost,
            _ => ErrorCode::InvalidOption,
        }
    }
}

/// The secret that servers share to trust each other's tokens.
#[derive(Clone)]
pub struct TokenKey {
    secret: Vec<u8>,
    id: [u8; KEY_ID],
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").finish_non_exhaustive()
    }
}

impl TokenKey {
    /// A key of at least 16 bytes, better 32, from a secure generator; `None` for a shorter one.
    pub fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < 16 {
            return None;
        }
        let digest = Sha256::new().chain_update(b"synoptic token key\0").chain_update(secret);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest.finalize()[..KEY_ID]);
        Some(Self { secret: secret.to_vec(), id })
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key of any length");
        mac.chain_update(PURPOSE).chain_update(bytes)
    }
}

/// What an answer must include, per source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    sources: BTreeMap<SourceName, LowerBound>,
}

impl Token {
    /// Sources a token can name.
    pub const MAX_SOURCES: usize = 64;
    /// Characters a token can have.
    pub const MAX_LENGTH: usize = 32 * 1024;

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.sources.values().all(LowerBound::is_empty)
    }

    /// What it asks of one source.
    pub fn of(&self, source: &SourceName) -> Option<&LowerBound> {
        self.sources.get(source).filter(|bound| !bound.is_empty())
    }

    /// Raises what it asks of `source` to include `position`, which was seen or written there.
    ///
    /// After a read this is the position asked *after* the snapshot was pinned: the one from
    /// before it may lack what the snapshot shows, and the next read would go backwards. After a
    /// write it is the position asked after the commit. [`Position::Unknown`] changes nothing.
    ///
    /// # Errors
    /// When the token would be too large.
    pub fn include(&mut self, source: &SourceName, position: &Position) -> Result<(), TokenError> {
        if *position == Position::Unknown {
            return Ok(());
        }
        self.bound(source)?.include(position)
    }

    /// As [`Token::include`], forgetting what `position` is known to cover.
    ///
    /// # Errors
    /// When the token would be too large.
    pub fn advance(
        &mut self,
        source: &SourceName,
        position: &Position,
        lineage: &Lineage,
    ) -> Result<(), TokenError> {
        self.advance_by(&TheRules, source, position, lineage)
    }

    pub(crate) fn advance_by<R: Rules>(
        &mut self,
        rules: &R,
        source: &SourceName,
        position: &Position,
        lineage: &Lineage,
    ) -> Result<(), TokenError> {
        // A source without positions takes no place.
        if *position == Position::Unknown {
            return Ok(());
        }
        self.bound(source)?.advance_by(rules, position, lineage)
    }

    /// Raises it to what both ask for.
    ///
    /// # Errors
    /// When the token would be too large; it may then be raised in part.
    pub fn merge(&mut self, other: &Self) -> Result<(), TokenError> {
        self.merge_by(&TheRules, other)
    }

    pub(crate) fn merge_by<R: Rules>(&mut self, rules: &R, other: &Self) -> Result<(), TokenError> {
        for (source, bound) in &other.sources {
            self.bound(source)?.merge_by(rules, bound)?;
        }
        Ok(())
    }

    fn bound(&mut self, source: &SourceName) -> Result<&mut LowerBound, TokenError> {
        if self.sources.len() >= Self::MAX_SOURCES && !self.sources.contains_key(source) {
            return Err(TokenError::TooLarge);
        }
        Ok(self.sources.entry(source.clone()).or_default())
    }

    /// The token as a client gets it.
    ///
    /// # Errors
    /// [`TokenError::TooLarge`] when names or versions are too long.
    pub fn encode(&self, key: &TokenKey) -> Result<String, TokenError> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&key.id);
        put_len(&mut bytes, self.sources.len())?;
        for (source, bound) in &self.sources {
            put_text(&mut bytes, source.as_str())?;
            put_len(&mut bytes, bound.points.len())?;
            for (epoch, lsn) in &bound.points {
                bytes.extend_from_slice(&epoch.system.to_be_bytes());
                bytes.extend_from_slice(&epoch.timeline.to_be_bytes());
                bytes.extend_from_slice(&lsn.0.to_be_bytes());
            }
            match &bound.versions {
                Seen::Nothing => bytes.push(0),
                Seen::One(version) => {
                    bytes.push(1);
                    put_text(&mut bytes, version.as_str())?;
                }
                Seen::Several => bytes.push(2),
            }
        }
        let signature = key.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&signature);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        if text.len() > Self::MAX_LENGTH { Err(TokenError::TooLarge) } else { Ok(text) }
    }

    /// Reads a token that a client brought.
    ///
    /// # Errors
    /// When it is not a token, was changed, or was signed with another key. Any text may be given:
    /// it comes from outside.
    pub fn decode(text: &str, key: &TokenKey) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > Self::MAX_LENGTH {
            return Err(TokenError::TooLarge);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(_) if bytes.len() > 1 + KEY_ID + SIGNATURE => {
                return Err(TokenError::UnknownFormat);
            }
            _ => return Err(TokenError::Malformed),
        }
        let end = bytes.len().checked_sub(SIGNATURE).ok_or(TokenError::Malformed)?;
        let (signed, signature) = bytes.split_at(end);
        let (header, entries) = signed.split_at_checked(1 + KEY_ID).ok_or(TokenError::Malformed)?;
        if header[1..] != key.id {
            return Err(TokenError::ForeignKey);
        }
        key.mac(signed).verify_slice(signature).map_err(|_| TokenError::Forged)?;
        read(entries).ok_or(TokenError::Malformed)
    }
}

fn put_len(bytes: &mut Vec<u8>, len: usize) -> Result<(), TokenError> {
    let len = u16::try_from(len).map_err(|_| TokenError::TooLarge)?;
    bytes.extend_from_slice(&len.to_be_bytes());
    Ok(())
}

fn put_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), TokenError> {
    put_len(bytes, text.len())?;
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

/// The signed entries. Nothing in them is trusted to be well formed all the same.
fn read(mut rest: &[u8]) -> Option<Token> {
    fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(len)?;
        *rest = left;
        Some(taken)
    }
    fn len(rest: &mut &[u8]) -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(take(rest, 2)?.try_into().ok()?)))
    }
    fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
        let len = len(rest)?;
        std::str::from_utf8(take(rest, len)?).ok()
    }
    let mut token = Token::default();
    let sources = len(&mut rest)?;
    for _ in 0..sources {
        let source = SourceName::new(text(&mut rest)?);
        if token.sources.contains_key(&source) {
            return None;
        }
        let bound = token.bound(&source).ok()?;
        for _ in 0..len(&mut rest)? {
            let system = u64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?);
            let timeline = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let lsn = Lsn(u64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?));
            bound.include(&Position::Log { epoch: Epoch { system, timeline }, lsn }).ok()?;
        }
        bound.versions = match take(&mut rest, 1)? {
            [0] => Seen::Nothing,
            [1] => Seen::One(Version::new(text(&mut rest)?)),
            [2] => Seen::Several,
            _ => return None,
        };
    }
    rest.is_empty().then_some(token)
}

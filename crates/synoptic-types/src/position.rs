//! How far a copy has got, in its source's own terms.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// An address in PostgreSQL's write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not an LSN: two hexadecimal numbers of up to 8 digits with '/' between them")]
pub struct LsnError(String);

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let part = |text: &str| {
            let plain =
                (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        let read = || {
            let (high, low) = text.split_once('/')?;
            Some(Self(part(high)? << 32 | part(low)?))
        };
        read().ok_or_else(|| LsnError(text.to_owned()))
    }
}

/// One history of a log. Addresses of different epochs must not be compared as numbers: after a
/// promotion the same address holds something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// PostgreSQL's `system_identifier`, made by `initdb` and shared by a primary and its standbys.
    pub system: u64,
    /// PostgreSQL's timeline, one higher after each promotion.
    pub timeline: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.system, self.timeline)
    }
}

/// A state of a source that can only be equal to another or not: a set of ETags, a manifest
/// version, a content hash. Shorter than 256 bytes; hash what is longer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// Takes any text that differs whenever the data differs.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a copy has got. There is deliberately no `Ord`: which positions can be compared, and
/// how, is decided in `synoptic-freshness`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Position {
    /// A place in an ordered log.
    Log {
        /// Whose log, and which history of it.
        epoch: Epoch,
        /// The address.
        lsn: Lsn,
    },
    /// A state that can only be equal to another.
    Version(Version),
    /// Nobody can tell: the source has no position, or does not show it.
    Unknown,
}

impl Position {
    /// A place in PostgreSQL's log.
    pub const fn log(system: u64, timeline: u32, lsn: u64) -> Self {
        Self::Log { epoch: Epoch { system, timeline }, lsn: Lsn(lsn) }
    }

    /// A state that can only be equal to another.
    pub fn version(text: impl Into<Arc<str>>) -> Self {
        Self::Version(Version::new(text))
    }
}

impl fmt::Display for Position {
    /// As receipts show it: `SYSTEM:TIMELINE:HIGH/LOW`, the version, or `unknown`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { epoch, lsn } => write!(f, "{epoch}:{lsn}"),
            Self::Version(version) => write!(f, "{version}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_back_what_postgresql_prints() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().map(|lsn| lsn.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "/", "1", "1/", "G/1", "1/2/3", "+1/2", "123456789/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn positions_as_receipts_show_them() {
        assert_eq!(Position::log(7, 2, 0x16_B374_D848).to_string(), "7:2:16/B374D848");
        assert_eq!(Position::version("etag").to_string(), "etag");
        assert_eq!(Position::Unknown.to_string(), "unknown");
    }
}

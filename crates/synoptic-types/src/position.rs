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

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "this is not a position: write it as receipts show it, 'SYSTEM:TIMELINE:HIGH/LOW' or the \
     version, of 1 to 255 bytes"
)]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    /// Reads what receipts show: the inverse of `Display`, but for versions that look like
    /// something else, which none is made to do.
    fn from_str(text: &str) -> Result<Self, PositionError> {
        if text == "unknown" {
            return Ok(Self::Unknown);
        }
        let log = || {
            let (system, rest) = text.split_once(':')?;
            let (timeline, lsn) = rest.split_once(':')?;
            // Numbers take a sign, which is never shown.
            let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            if !digits(system) || !digits(timeline) {
                return None;
            }
            let (system, timeline) = (system.parse().ok()?, timeline.parse().ok()?);
            Some(Self::Log { epoch: Epoch { system, timeline }, lsn: lsn.parse().ok()? })
        };
        match log() {
            Some(place) => Ok(place),
            None if text.is_empty() || text.len() > 255 => Err(PositionError),
            None => Ok(Self::version(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_reads_back_what_receipts_show(
            system in any::<u64>(), timeline in any::<u32>(), lsn in any::<u64>(),
            version in "[ -~]{0,250}",
        ) {
            for position in [
                Position::log(system, timeline, lsn),
                Position::version(format!("v-{version}")),
                Position::Unknown,
            ] {
                prop_assert_eq!(position.to_string().parse::<Position>(), Ok(position));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            match text.parse::<Position>() {
                // Digits may be written in several ways; what is shown reads back the same.
                Ok(position) => {
                    prop_assert_eq!(position.to_string().parse::<Position>(), Ok(position));
                }
                Err(PositionError) => prop_assert!(text.is_empty() || text.len() > 255),
            }
        }
    }

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

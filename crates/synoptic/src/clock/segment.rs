//! The layout of ClockBound's shared memory segment, versions 1 and 2.
//!
//! ```text
//!  0 u32 u32  magic        16 i64 i64  as of (monotonic s, ns)     64 u32 drift   (v1) | u64 marker (v2)
//!  8 u32      size         32 i64 i64  void after                  72 i32 status  (v1) | u32 drift  (v2)
//! 12 u16      version      48 i64      bound (ns)                  76              i32 status (v2)
//! 14 u16      generation                                           80              u8 disruptions are seen (v2)
//! ```
//!
//! <https://github.com/aws/clock-bound/blob/main/docs/PROTOCOL.md>. The byte order is the machine's.

use std::time::Duration;

use synoptic_freshness::clock::{ClockBound, ClockStatus};
use synoptic_types::Moment;

const MAGIC: [u32; 2] = [0x414D_5A4E, 0x4342_0200];

/// The header: magic, size, version, generation.
const HEADER: usize = 16;

/// Readers may be this much before a stamp that was taken on another core.
const CAUSALITY: i128 = 1_000_000;

/// Bytes to be read; versions 1 and 2 have no more.
pub(super) const MOST: usize = 88;

/// What the segment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    pub as_of: i128,
    pub void_after: i128,
    pub bound: Duration,
    pub max_drift_ppb: u32,
    pub status: i32,
    /// The machine tells when its clock was disrupted, and this is how often it had been.
    pub disruptions: Option<u64>,
}

/// A number of the machine's byte order at a place.
macro_rules! number {
    ($type:ty, $bytes:expr, $at:expr) => {{
        let at: usize = $at;
        let taken = $bytes.get(at..at + size_of::<$type>());
        let taken = taken.and_then(|bytes| bytes.try_into().ok()).map(<$type>::from_ne_bytes);
        taken.ok_or_else(|| format!("the segment ends after {} bytes", $bytes.len()))
    }};
}

/// The writer's counter: odd while it writes, zero before it has.
///
/// # Errors
/// When it is no segment of a version that is known.
pub(super) fn generation(bytes: &[u8]) -> Result<u16, String> {
    let magic = [number!(u32, bytes, 0)?, number!(u32, bytes, 4)?];
    if magic != MAGIC {
        return Err("it is no ClockBound segment".to_owned());
    }
    match number!(u16, bytes, 12)? {
        1 | 2 => number!(u16, bytes, 14),
        0 => Ok(0),
        version => Err(format!("its version is {version}, and versions 1 and 2 are known")),
    }
}

/// Reads a segment that nobody writes to.
///
/// # Errors
/// When it is none, or is not what its version says.
pub(super) fn read(bytes: &[u8]) -> Result<Published, String> {
    generation(bytes)?;
    let body = bytes.get(HEADER..).unwrap_or_default();
    let time = |at: usize| -> Result<i128, String> {
        let (seconds, nanos) = (number!(i64, body, at)?, number!(i64, body, at + 8)?);
        Ok(i128::from(seconds) * 1_000_000_000 + i128::from(nanos))
    };
    let bound = u64::try_from(number!(i64, body, 32)?)
        .map_err(|_| "the bound it publishes is negative".to_owned())?;
    let (max_drift_ppb, status, disruptions) = match number!(u16, bytes, 12)? {
        1 => (number!(u32, body, 40)?, number!(i32, body, 48)?, None),
        _ => {
            let seen = number!(u8, body, 56)? != 0;
            let marker = number!(u64, body, 40)?;
            (number!(u32, body, 48)?, number!(i32, body, 52)?, seen.then_some(marker))
        }
    };
    Ok(Published {
        as_of: time(0)?,
        void_after: time(16)?,
        bound: Duration::from_nanos(bound),
        max_drift_ppb,
        status,
        disruptions,
    })
}

impl Published {
    /// The bound on our timeline, when the machine's monotonic clock shows `monotonic` nanoseconds
    /// and ours showed `now` just before.
    ///
    /// # Errors
    /// When the clock is not synchronised, or the segment was made by another boot.
    pub fn on_timeline(&self, monotonic: i128, now: Moment) -> Result<ClockBound, String> {
        let status = match self.status {
            1 => ClockStatus::Synchronized,
            2 => ClockStatus::FreeRunning,
            3 => return Err("ClockBound says that the clock was disrupted".to_owned()),
            _ => return Err("ClockBound does not know whether the clock is right".to_owned()),
        };
        let age = monotonic - self.as_of;
        if age < -CAUSALITY {
            return Err("the segment is of another boot of this machine".to_owned());
        }
        let span =
            |nanos: i128| Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX));
        let left = self.void_after - monotonic;
        if left <= 0 {
            return Err("ClockBound has not renewed its bound, which is void".to_owned());
        }
        Ok(ClockBound {
            status,
            as_of: now.before(span(age)),
            void_after: now.after(span(left)),
            bound: self.bound,
            max_drift_ppb: self.max_drift_ppb,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn published() -> Published {
        Published {
            as_of: 1_000_000_000_000,
            void_after: 2_000_000_000_000,
            bound: Duration::from_micros(250),
            max_drift_ppb: 1_000,
            status: 1,
            disruptions: None,
        }
    }

    /// A hundred years after this machine was started.
    pub(crate) fn of_another_boot() -> Published {
        let as_of = 100 * 365 * 24 * 3600 * 1_000_000_000;
        Published { as_of, void_after: as_of + 1_000_000_000_000, ..published() }
    }

    /// The bytes a daemon writes.
    pub(crate) fn bytes(version: u16, generation: u16, published: &Published) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.iter().flat_map(|word| word.to_ne_bytes()));
        out.extend(if version == 1 { 72_u32 } else { 80 }.to_ne_bytes());
        out.extend(version.to_ne_bytes());
        out.extend(generation.to_ne_bytes());
        for time in [published.as_of, published.void_after] {
            out.extend(((time / 1_000_000_000) as i64).to_ne_bytes());
            out.extend(((time % 1_000_000_000) as i64).to_ne_bytes());
        }
        out.extend((published.bound.as_nanos() as i64).to_ne_bytes());
        if version == 1 {
            out.extend(published.max_drift_ppb.to_ne_bytes());
            out.extend([0; 4]);
            out.extend(published.status.to_ne_bytes());
            out.extend([0; 4]);
        } else {
            out.extend(published.disruptions.unwrap_or_default().to_ne_bytes());
            out.extend(published.max_drift_ppb.to_ne_bytes());
            out.extend(published.status.to_ne_bytes());
            out.push(published.disruptions.is_some().into());
            out.extend([0; 7]);
        }
        out
    }

    #[test]
    fn both_versions_say_the_same() {
        for version in [1, 2] {
            let bytes = bytes(version, 4, &published());
            assert_eq!(generation(&bytes), Ok(4));
            assert_eq!(read(&bytes), Ok(published()));
            for cut in 0..bytes.len() - 8 {
                assert!(read(&bytes[..cut]).is_err(), "{version} {cut}");
            }
        }
        let seen = Published { disruptions: Some(7), ..published() };
        assert_eq!(read(&bytes(2, 4, &seen)), Ok(seen));
        assert!(read(&bytes(3, 4, &published())).is_err_and(|why| why.contains("version is 3")));
        assert!(read(&[0; 88]).is_err_and(|why| why.contains("no ClockBound segment")));
    }

    #[test]
    fn its_times_are_put_on_our_timeline() {
        let now = Moment::from_nanos(5_000_000_000_000);
        let at = |seconds: i128| published().on_timeline(seconds * 1_000_000_000, now);
        let bound = at(1_010).expect("ten seconds old");
        assert_eq!(now.since(bound.as_of), Duration::from_secs(10));
        assert_eq!(bound.void_after.since(now), Duration::from_secs(990));
        let reading = bound.read(0, now).expect("synchronised");
        // 250 µs, and 1 µs for each second.
        assert_eq!(reading.error(), Duration::from_micros(260));
        assert!(at(2_000).is_err_and(|why| why.contains("void")));
        assert!(at(999).is_err_and(|why| why.contains("another boot")));
        for (status, part) in [(0, "does not know"), (3, "disrupted"), (-1, "does not know")] {
            let refused = Published { status, ..published() }.on_timeline(1_010_000_000_000, now);
            assert!(refused.is_err_and(|why| why.contains(part)), "{status}");
        }
        let free = Published { status: 2, ..published() };
        let free = free.on_timeline(1_010_000_000_000, now).expect("until it is void");
        assert_eq!(free.status, ClockStatus::FreeRunning);
    }
}

//! ClockBound's segment, read as the file it is.
//!
//! The daemon writes it in place and counts: odd while it writes. A read counts only when the
//! counter is even and the same before and after.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::time::{ClockId, clock_gettime};
use synoptic_freshness::clock::{BoundSource, ClockBound};
use synoptic_types::Moment;

use super::segment::{self, MOST, Published};

/// Reads that may meet the daemon writing before it is given up.
const ATTEMPTS: usize = 100;

/// Tells how often the clock of this virtual machine was disrupted.
const VMCLOCK: &str = "/dev/vmclock0";

/// Where the number of disruptions stands in it.
const VMCLOCK_MARKER: u64 = 16;
const VMCLOCK_MAGIC: u32 = 0x4B4C_4356;

/// The segment of the daemon on this machine.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
}

impl Segment {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn published(&self) -> Result<Published, String> {
        let file = File::open(&self.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => "there is no ClockBound segment".to_owned(),
            _ => format!("the ClockBound segment cannot be read: {error}"),
        })?;
        let unreadable = |error: Error| format!("the ClockBound segment cannot be read: {error}");
        for _ in 0..ATTEMPTS {
            let before = segment::generation(&bytes(&file).map_err(unreadable)?)?;
            if before == 0 {
                return Err("the ClockBound segment is empty so far".to_owned());
            }
            let bytes_between = bytes(&file).map_err(unreadable)?;
            let after = segment::generation(&bytes(&file).map_err(unreadable)?)?;
            if before == after && before % 2 == 0 {
                return segment::read(&bytes_between);
            }
            std::thread::yield_now();
        }
        Err("the ClockBound segment is being written all the time".to_owned())
    }
}

impl BoundSource for Segment {
    fn name(&self) -> &'static str {
        "clockbound"
    }

    fn bound(&self, now: Moment) -> Result<ClockBound, String> {
        let place = |why: String| format!("{why} ({})", self.path.display());
        let published = self.published().map_err(place)?;
        if let Some(known) = published.disruptions {
            let count = disruptions().map_err(|error| {
                place(format!("whether the clock was disrupted cannot be seen: {VMCLOCK}: {error}"))
            })?;
            if count != known {
                return Err(place("the clock was disrupted since ClockBound looked".to_owned()));
            }
        }
        // Later than `now`, so that the bound is taken to be older than it is.
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_err(|error| format!("the monotonic clock cannot be read: {error}"))?;
        let monotonic =
            i128::from(monotonic.tv_sec()) * 1_000_000_000 + i128::from(monotonic.tv_nsec());
        published.on_timeline(monotonic, now).map_err(place)
    }
}

fn bytes(file: &File) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; MOST];
    let mut length = 0;
    while length < MOST {
        match file.read_at(&mut bytes[length..], length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn disruptions() -> Result<u64, Error> {
    let file = File::open(VMCLOCK)?;
    let (mut magic, mut marker) = ([0; 4], [0; 8]);
    file.read_exact_at(&mut magic, 0)?;
    if u32::from_le_bytes(magic) != VMCLOCK_MAGIC {
        return Err(Error::new(ErrorKind::InvalidData, "it is no vmclock"));
    }
    file.read_exact_at(&mut marker, VMCLOCK_MARKER)?;
    Ok(u64::from_le_bytes(marker))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::super::segment::tests::{bytes, of_another_boot, published};
    use super::*;

    fn now() -> i128 {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is one");
        i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec())
    }

    fn fresh() -> Published {
        let second = 1_000_000_000;
        Published { as_of: now(), void_after: now() + 1000 * second, ..published() }
    }

    #[test]
    fn a_segment_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shm0");
        let segment = Segment::new(&path);
        let at = Moment::from_nanos(3_600_000_000_000);
        let refused = |part: &str| {
            let why = segment.bound(at).expect_err(part);
            assert!(why.contains(part) && why.contains("shm0"), "{why}");
        };
        refused("no ClockBound segment");
        std::fs::write(&path, bytes(2, 0, &fresh())).expect("written");
        refused("empty");
        std::fs::write(&path, bytes(2, 7, &fresh())).expect("written");
        refused("all the time");
        std::fs::write(&path, b"something else of some length").expect("written");
        refused("no ClockBound segment");
        for version in [1, 2] {
            std::fs::write(&path, bytes(version, 8, &fresh())).expect("written");
            let bound = segment.bound(at).expect("it is read");
            assert_eq!(bound.bound, Duration::from_micros(250));
            assert!(at.since(bound.as_of) < Duration::from_secs(10), "as of {}", bound.as_of);
        }
        for void in [of_another_boot(), Published { void_after: now() - 1, ..fresh() }] {
            std::fs::write(&path, bytes(2, 8, &void)).expect("written");
            assert!(segment.bound(at).is_err(), "of another boot, or void");
        }
    }

    /// A daemon that writes all the time is never read half.
    #[test]
    fn no_half_of_a_write_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shm0");
        // What belongs together: `n` seconds and `n` nanoseconds of error.
        let of = |n: u64| Published {
            bound: Duration::from_nanos(n),
            as_of: i128::from(n) * 1_000_000_000,
            max_drift_ppb: n as u32,
            ..published()
        };
        std::fs::write(&path, bytes(2, 2, &of(1))).expect("written");
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (stop, path) = (Arc::clone(&stop), path.clone());
            move || {
                let file = File::options().write(true).open(path).expect("it is there");
                let mut n = 1_u64;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    let generation = (n as u16).wrapping_mul(2).max(2);
                    let whole = bytes(2, generation, &of(n));
                    let odd = (generation - 1).to_ne_bytes();
                    file.write_all_at(&odd, 14).expect("written");
                    for at in (16..whole.len()).step_by(8) {
                        file.write_all_at(&whole[at..at + 8], at as u64).expect("written");
                    }
                    file.write_all_at(&whole[14..16], 14).expect("written");
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        let segment = Segment::new(&path);
        for _ in 0..2_000 {
            let read = segment.published().expect("it is read");
            let n = read.bound.as_nanos();
            assert_eq!(read.as_of, n as i128 * 1_000_000_000);
            assert_eq!(u128::from(read.max_drift_ppb), n);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("no panic");
    }
}

use std::time::Duration;

use super::segment::tests::{bytes, of_another_boot};
use super::*;

const NOW: Moment = Moment::from_nanos(3_600_000_000_000);

fn auto(segment: &Path, kernel: Arc<dyn BoundSource>) -> Auto {
    Auto { segment: segment.to_owned(), clockbound: clockbound(segment), kernel }
}

#[derive(Debug)]
struct NotSynchronised;

impl BoundSource for NotSynchronised {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn bound(&self, _now: Moment) -> Result<ClockBound, String> {
        Err("the kernel says no".to_owned())
    }
}

#[test]
fn without_a_segment_the_kernel_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("shm0");
    let good = auto(&nowhere, Arc::new(Declared(Duration::from_millis(3))));
    assert_eq!(good.name(), "auto: kernel");
    assert_eq!(good.bound(NOW).map(|bound| bound.bound), Ok(Duration::from_millis(3)));
    let why = auto(&nowhere, Arc::new(NotSynchronised)).bound(NOW).expect_err("no bound");
    assert!(why.contains("shm0") && why.contains("the kernel says no"), "{why}");
}

/// ClockBound knows of disruptions that the kernel does not.
#[test]
fn a_segment_that_says_no_is_not_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shm0");
    let auto = auto(&path, Arc::new(Declared(Duration::from_millis(3))));
    for content in [bytes(2, 8, &of_another_boot()), b"no segment at all".to_vec()] {
        std::fs::write(&path, content).expect("written");
        assert_eq!(auto.name(), "auto: clockbound");
        auto.bound(NOW).expect_err("the kernel is not asked");
    }
}

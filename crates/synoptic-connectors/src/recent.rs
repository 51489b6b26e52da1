//! When a file's time of change tells its states apart.

use chrono::{DateTime, TimeDelta, Utc};

/// Two changes of a file within one tick of the system's clock get the same time of change. So a
/// state is known by that time only when a change made now would get a later one: the rule of
/// git's index, with 100 ms for clocks that tick in milliseconds and 3 s for file systems that
/// keep seconds (two of them on FAT). A time that is yet to come says nothing.
///
/// <https://git-scm.com/docs/racy-git>
pub(crate) fn is_recent(changed: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    let whole_seconds = changed.timestamp_subsec_nanos() == 0;
    let tick = if whole_seconds { TimeDelta::seconds(3) } else { TimeDelta::milliseconds(100) };
    changed + tick > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_good_once_the_next_change_gets_another() {
        let at = |millis: i64| DateTime::from_timestamp_millis(1_700_000_000_000 + millis);
        let at = |millis| at(millis).expect("a time");
        assert!(is_recent(at(5), at(5)) && is_recent(at(5), at(104)) && !is_recent(at(5), at(105)));
        assert!(is_recent(at(0), at(2999)) && !is_recent(at(0), at(3000)));
        assert!(is_recent(at(10_005), at(5)), "the clock went back");
    }
}

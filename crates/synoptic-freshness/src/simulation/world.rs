//! The truth of one seed: what was committed when, and what every copy showed at any time.
//!
//! Nothing a server does changes it, so it is made beforehand and asked like a function of true
//! time, in microseconds.

use synoptic_types::{Epoch, Lsn, Position};

use crate::Lineage;
use crate::postgres::{WalHead, WalReplay};

/// True time in microseconds.
pub(super) type Time = u64;
/// A set of commits by their number in [`Log::commits`] or [`Files::commits`].
pub(super) type Rows = u128;

pub(super) const END: Time = 8_000_000;
const NEVER: Time = Time::MAX;
const SYSTEM: u64 = 7;
const BASE: u64 = 1000;

/// SplitMix64 (Steele, Lea, Flood 2014): small and the same everywhere.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From `from` up to but not `to`.
    pub(super) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.within(0, from.len() as u64) as usize]
    }
}

/// Times during which something does not work.
#[derive(Debug, Clone, Default)]
pub(super) struct Outages(Vec<(Time, Time)>);

impl Outages {
    fn random(random: &mut Random, percent: u64) -> Self {
        let mut outages = Vec::new();
        while outages.len() < 3 && random.chance(percent) {
            let from = random.within(0, END);
            outages.push((from, from + random.within(20_000, 2_500_000)));
        }
        Self(outages)
    }

    pub(super) fn at(&self, time: Time) -> bool {
        self.overlap(time, time)
    }

    pub(super) fn overlap(&self, from: Time, to: Time) -> bool {
        self.0.iter().any(|(start, end)| *start <= to && from < *end)
    }

    /// `time`, or the end of the outage it falls into.
    fn past(&self, mut time: Time) -> Time {
        while let Some((_, end)) = self.0.iter().find(|(from, to)| (*from..*to).contains(&time)) {
            time = *end;
        }
        time
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) timeline: u32,
    pub(super) lsn: u64,
    pub(super) inserted: Time,
    pub(super) visible: Time,
    pub(super) flushed: Time,
}

/// When a standby had what.
#[derive(Debug, Clone, Default)]
struct Standby {
    received: Vec<Time>,
    applied: Vec<Time>,
}

/// A PostgreSQL primary with two standbys. The first may be promoted, without its primary's tail.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) commits: Vec<Commit>,
    standbys: [Standby; 2],
    /// When the old primary died, when the standby took over, and where the timelines part.
    pub(super) promotion: Option<(Time, Time, u64)>,
    history_readable: bool,
    /// How far the source's wall clock is off, in microseconds, and when it jumps by how much.
    clock: (i64, Time, i64),
}

impl Log {
    fn random(random: &mut Random) -> Self {
        let promotion = random.chance(35).then(|| random.within(1_500_000, 5_000_000));
        let asynchronous = random.chance(50);
        let pace = random.pick(&[20_000, 60_000, 150_000]);
        let pauses = [Outages::random(random, 40), Outages::random(random, 40)];
        let cuts = [Outages::random(random, 30), Outages::random(random, 30)];
        let lag = [random.pick(&[2_000, 40_000, 700_000]), random.pick(&[2_000, 40_000, 700_000])];
        let mut log = Self {
            commits: Vec::new(),
            standbys: Default::default(),
            promotion: None,
            history_readable: random.chance(70),
            clock: (
                random.within(0, 4_000_000) as i64 - 2_000_000,
                random.within(0, END),
                random.within(0, 6_000_000) as i64 - 3_000_000,
            ),
        };
        let ship = |log: &mut Self, random: &mut Random, who: usize, number: usize| {
            let commit = log.commits[number];
            let standby = &mut log.standbys[who];
            let sent = commit.visible.max(commit.flushed) + random.within(300, 5_000);
            let before = standby.received.last().copied().filter(|t| *t != NEVER).unwrap_or(0);
            let received = cuts[who].past(sent).max(before);
            let before = standby.applied.iter().rev().copied().find(|t| *t != NEVER).unwrap_or(0);
            let applied = pauses[who].past(received + random.within(100, lag[who])).max(before);
            standby.received.push(received);
            standby.applied.push(applied);
        };
        let mut lsn = BASE;
        let mut time = 0;
        while log.commits.len() < 80 {
            time += random.within(1_000, 2 * pace);
            if time > promotion.unwrap_or(END) {
                break;
            }
            lsn += random.within(1, 20);
            let visible = time + random.within(0, 6_000);
            let flushed = if asynchronous {
                time + random.within(0, 400_000)
            } else {
                visible.min(time + 100)
            };
            log.commits.push(Commit { timeline: 1, lsn, inserted: time, visible, flushed });
            let number = log.commits.len() - 1;
            for who in 0..2 {
                ship(&mut log, random, who, number);
            }
        }
        let Some(died) = promotion else { return log };
        let took_over = died + random.within(1_000, 400_000);
        // What was not visible when the primary died never was.
        let kept = log.commits.iter().take_while(|commit| commit.visible < died).count();
        log.commits.truncate(kept);
        for standby in &mut log.standbys {
            standby.received.truncate(kept);
            standby.applied.truncate(kept);
        }
        let switch = log.replayed(0, took_over);
        log.promotion = Some((died, took_over, switch));
        let diverged = log.replayed(1, took_over) > switch;
        for standby in &mut log.standbys {
            for (number, commit) in log.commits.iter().enumerate() {
                if commit.lsn > switch && standby.applied[number] > took_over {
                    standby.applied[number] = NEVER;
                    standby.received[number] = NEVER;
                }
            }
        }
        let mut lsn = switch;
        let mut time = took_over + 3_000;
        while log.commits.len() < 120 && time < END {
            time += random.within(1_000, 2 * pace);
            lsn += random.within(1, 20);
            let visible = time + random.within(0, 6_000);
            let flushed = visible;
            log.commits.push(Commit { timeline: 2, lsn, inserted: time, visible, flushed });
            let number = log.commits.len() - 1;
            if diverged {
                log.standbys[1].applied.push(NEVER);
                log.standbys[1].received.push(NEVER);
            } else {
                ship(&mut log, random, 1, number);
            }
        }
        log
    }

    fn timeline(&self, time: Time) -> u32 {
        if self.promotion.is_some_and(|(_, took_over, _)| time >= took_over) { 2 } else { 1 }
    }

    fn down(&self, time: Time) -> bool {
        self.promotion.is_some_and(|(died, took_over, _)| (died..took_over + 2_000).contains(&time))
    }

    /// Whether a commit belongs to what `timeline` says has happened.
    fn in_history(&self, commit: &Commit, timeline: u32) -> bool {
        let switch = self.promotion.map_or(u64::MAX, |(.., switch)| switch);
        match timeline {
            1 => commit.timeline == 1,
            _ => commit.timeline == 2 || commit.lsn <= switch,
        }
    }

    fn highest(&self, time: Time, at: impl Fn(&Commit) -> Time) -> u64 {
        let timeline = self.timeline(time);
        let there = self.commits.iter().filter(|c| self.in_history(c, timeline) && at(c) <= time);
        there.map(|commit| commit.lsn).max().unwrap_or(BASE)
    }

    fn head(&self, time: Time) -> WalHead {
        let epoch = Epoch { system: SYSTEM, timeline: self.timeline(time) };
        let insert = Lsn(self.highest(time, |commit| commit.inserted));
        WalHead { epoch, insert, flush: Lsn(self.highest(time, |commit| commit.flushed)) }
    }

    fn lineage(&self, time: Time) -> Lineage {
        match (self.timeline(time), self.promotion) {
            (2, Some((.., switch))) if self.history_readable => {
                Lineage::new(SYSTEM, vec![(1, Lsn(switch))], 2)
            }
            (timeline, _) => Lineage::new(SYSTEM, vec![], timeline),
        }
    }

    fn replayed(&self, who: usize, time: Time) -> u64 {
        let applied = self.commits.iter().zip(&self.standbys[who].applied);
        applied.filter(|(_, at)| **at <= time).map(|(commit, _)| commit.lsn).max().unwrap_or(BASE)
    }

    fn replay(&self, who: usize, time: Time) -> WalReplay {
        let standby = &self.standbys[who];
        let received = self.commits.iter().zip(&standby.received);
        let received = received.filter(|(_, at)| **at <= time).map(|(c, _)| c.lsn).max();
        let on_second =
            self.commits.iter().zip(&standby.applied).any(|(c, at)| c.timeline == 2 && *at <= time);
        let timeline = if on_second { 2 } else { 1 };
        let in_order = self.commits.iter().zip(&standby.applied);
        let replayed = in_order
            .filter(|(c, at)| **at <= time && c.timeline == timeline)
            .map(|(c, _)| c.lsn)
            .max()
            .unwrap_or(BASE);
        WalReplay {
            epoch: Epoch { system: SYSTEM, timeline },
            received: Lsn(received.unwrap_or(BASE)),
            replayed: Lsn(replayed),
        }
    }

    /// `now() − pg_last_xact_replay_timestamp()` as a standby with the source's clock shows it.
    fn reported_lag(&self, who: usize, time: Time) -> i64 {
        let applied = self.commits.iter().zip(&self.standbys[who].applied);
        let last = applied.filter(|(_, at)| **at <= time).map(|(c, _)| c.visible).max();
        let wall = |time: Time| {
            let (off, jump_at, by) = self.clock;
            time as i64 + off + if time >= jump_at { by } else { 0 }
        };
        // The standby's own clock is right; the commit's stamp is of the primary's.
        last.map_or(0, |last| time as i64 - wall(last))
    }
}

/// Files with a manifest, and an export of them that is refreshed now and then.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) commits: Vec<Commit>,
    /// When an export was taken and when it could be read.
    exports: Vec<(Time, Time)>,
    /// How far the copy lags that does not say where it is.
    mirror_lag: Time,
}

impl Files {
    fn random(random: &mut Random) -> Self {
        let pace = random.pick(&[30_000, 200_000, 900_000]);
        let mut commits: Vec<Commit> = Vec::new();
        let mut time = 0;
        while commits.len() < 100 && time < END {
            time += random.within(1_000, 2 * pace);
            let lsn = commits.len() as u64;
            commits.push(Commit { timeline: 1, lsn, inserted: time, visible: time, flushed: time });
        }
        let mut exports = vec![(0, 0)];
        let mut time = 0;
        let pause = random.pick(&[50_000, 400_000, 1_500_000]);
        while time < END {
            time += random.within(10_000, 2 * pace + pause);
            exports.push((time, time + random.within(1_000, 50_000)));
        }
        Self { commits, exports, mirror_lag: random.within(1_000, 900_000) }
    }

    fn rows(&self, time: Time) -> Rows {
        rows_where(&self.commits, |_, commit| commit.visible <= time)
    }

    fn exported(&self, time: Time) -> Rows {
        let ready = self.exports.iter().rev().find(|(_, ready)| *ready <= time);
        ready.map_or(0, |(taken, _)| self.rows(*taken))
    }
}

fn rows_where(commits: &[Commit], test: impl Fn(usize, &Commit) -> bool) -> Rows {
    let there = commits.iter().enumerate().filter(|(number, commit)| test(*number, commit));
    there.fold(0, |rows, (number, _)| rows | 1 << number)
}

/// Copies of the first source: primary and two standbys. Of the second: files, an export with a
/// version, a mirror that says nothing.
pub(super) const COPIES: [[&str; 3]; 2] =
    [["primary", "standby1", "standby2"], ["primary", "export", "mirror"]];

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) log: Log,
    pub(super) files: Files,
    /// By server, source and copy.
    pub(super) links: [[[Outages; 3]; 2]; 2],
}

/// What a copy says when it is asked.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) head: Option<WalHead>,
    pub(super) position: Position,
    pub(super) received: Option<Position>,
    pub(super) reported_lag: Option<i64>,
    pub(super) lineage: Lineage,
}

impl World {
    pub(super) fn random(random: &mut Random) -> Self {
        let log = Log::random(random);
        let files = Files::random(random);
        let mut links: [[[Outages; 3]; 2]; 2] = Default::default();
        for outages in links.iter_mut().flatten().flatten() {
            *outages = Outages::random(random, 15);
        }
        Self { log, files, links }
    }

    /// Whether `copy` can be reached from `server`.
    pub(super) fn reachable(&self, server: usize, source: usize, copy: usize, time: Time) -> bool {
        let gone = match (source, copy) {
            (0, 0) => self.log.down(time),
            (0, 1) => self.log.promotion.is_some_and(|(_, took_over, _)| time >= took_over),
            _ => false,
        };
        !gone && !self.links[server][source][copy].at(time)
    }

    /// Whether the authoritative copy was there all the time.
    pub(super) fn undisturbed(&self, server: usize, source: usize, from: Time, to: Time) -> bool {
        let promoted = source == 0
            && self
                .log
                .promotion
                .is_some_and(|(died, took_over, _)| died <= to && from <= took_over + 2_000);
        !promoted && !self.links[server][source][0].overlap(from, to)
    }

    pub(super) fn ask(&self, source: usize, copy: usize, time: Time) -> Answer {
        let mut answer = Answer {
            head: None,
            position: Position::Unknown,
            received: None,
            reported_lag: None,
            lineage: Lineage::unknown(),
        };
        match (source, copy) {
            (0, 0) => {
                let head = self.log.head(time);
                answer.position = head.position();
                answer.head = Some(head);
                answer.lineage = self.log.lineage(time);
            }
            (0, standby) => {
                let replay = self.log.replay(standby - 1, time);
                answer.position = replay.position();
                answer.received = Some(Position::Log { epoch: replay.epoch, lsn: replay.received });
                answer.reported_lag = Some(self.log.reported_lag(standby - 1, time));
            }
            (_, 2) => {}
            (source, copy) => {
                answer.position = Position::version(format!("{:x}", self.rows(source, copy, time)));
            }
        }
        answer
    }

    /// What a snapshot taken at `time` shows.
    pub(super) fn rows(&self, source: usize, copy: usize, time: Time) -> Rows {
        let log = &self.log;
        match (source, copy) {
            (0, 0) => {
                let timeline = log.timeline(time);
                rows_where(&log.commits, |_, commit| {
                    log.in_history(commit, timeline) && commit.visible <= time
                })
            }
            (0, standby) => {
                let applied = &log.standbys[standby - 1].applied;
                rows_where(&log.commits, |number, _| {
                    applied.get(number).is_some_and(|at| *at <= time)
                })
            }
            (_, 0) => self.files.rows(time),
            (_, 1) => self.files.exported(time),
            _ => self.files.rows(time.saturating_sub(self.files.mirror_lag)),
        }
    }

    pub(super) fn commits(&self, source: usize) -> &[Commit] {
        if source == 0 { &self.log.commits } else { &self.files.commits }
    }

    /// What was visible at the source before `time`, by the history of `timeline`.
    pub(super) fn visible_before(&self, source: usize, timeline: u32, time: Time) -> Rows {
        rows_where(self.commits(source), |_, commit| {
            commit.visible < time && (source == 1 || self.log.in_history(commit, timeline))
        })
    }
}

//! Two servers and their clients in one world, and the checks of every answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use synoptic_types::{
    Consistency, CopyKind, CopyName, ErrorCode, Moment, OnUnmet, Position, QueryOptions, SourceName,
};

use crate::choose::choose_by;
use crate::guard::{recheck_by, settle_by};
use crate::rules::Rules as _;
use crate::{
    Action, Choice, CopyFacts, Decision, Demand, Facts, FenceId, FenceTicket, Fences, Guard,
    Lineage, Method, Observed, Opened, Policy, Probe, ReadStart, Relation, SourceDemand,
    SourceFacts, Token, TokenKey, opened,
};

use super::mutants::{Broken, Mutant};
use super::world::{Answer, COPIES, END, Random, Rows, Time, World};

const DRIFT_PPM: u32 = 20_000;
const SESSIONS: usize = 4;

/// What happened, to see that a seed tests something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) strong: u64,
    pub(super) fenced: u64,
    pub(super) positioned: u64,
    pub(super) kept: u64,
    pub(super) unproved: u64,
    pub(super) tokens_used: u64,
    pub(super) tokens_lost: u64,
    pub(super) refused: u64,
    pub(super) skewed: u64,
    pub(super) again: u64,
    pub(super) commits: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.strong += other.strong;
        self.fenced += other.fenced;
        self.positioned += other.positioned;
        self.kept += other.kept;
        self.unproved += other.unproved;
        self.tokens_used += other.tokens_used;
        self.tokens_lost += other.tokens_lost;
        self.refused += other.refused;
        self.skewed += other.skewed;
        self.again += other.again;
        self.commits += other.commits;
    }
}

enum Event {
    ProbeTick(usize, usize),
    ProbeDone(usize, usize, Option<FenceId>, Probe, Option<(Position, Lineage)>),
    LookTick(usize, usize, usize),
    Looked(usize, usize, usize, Result<Observed, Moment>, Option<(usize, Position, Moment)>),
    Arrive(usize),
    Wake(usize),
    Step(usize),
    Read(usize),
    Keep(usize, usize, Box<Kept>),
}

/// What a cache holds.
#[derive(Clone)]
struct Kept {
    name: CopyName,
    opened: Opened,
    rows: Rows,
    timeline: u32,
    pinned_at: Time,
}

struct Server {
    /// How fast its monotonic clock runs, in parts per million, and where it began.
    ppm: i128,
    offset: i128,
    facts: [Arc<SourceFacts>; 2],
    fences: [Fences; 2],
    waiting: [Vec<(FenceId, usize)>; 2],
    kept: [Option<Kept>; 2],
}

impl Server {
    fn moment(&self, time: Time) -> Moment {
        let nanos = self.offset + i128::from(time) * 1000 * (1_000_000 + self.ppm) / 1_000_000;
        Moment::from_nanos(nanos as u64)
    }

    /// A true time at which this clock had not passed `moment` yet.
    fn time(&self, moment: Moment) -> Time {
        let nanos = i128::from(moment.nanos()) - self.offset;
        (nanos * 1000 / (1_000_000 + self.ppm)).max(0) as Time
    }
}

#[derive(Default)]
struct Session {
    server: usize,
    token: Token,
    seen: [Rows; 2],
    arrived: Time,
    demand: Option<Demand>,
    choices: Vec<Choice>,
    pending: usize,
    steps: u32,
    reads: u32,
}

pub(super) struct Run {
    random: Random,
    rules: Broken,
    world: World,
    servers: [Server; 2],
    sessions: Vec<Session>,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    now: Time,
    key: TokenKey,
    pub(super) tally: Tally,
}

fn source_name(source: usize) -> SourceName {
    SourceName::new(["ledger", "prices"][source])
}

/// Runs one seed to its end.
pub(super) fn run(seed: u64, mutant: Option<Mutant>) -> Result<Tally, String> {
    let mut random = Random::new(seed);
    let rules = Broken(mutant);
    let commits = super::commits::check(&mut random, rules)?;
    let world = World::random(&mut random);
    let servers = [(); 2].map(|()| server(&mut random));
    let mut run = Run {
        random,
        rules,
        world,
        servers,
        sessions: (0..SESSIONS).map(|_| Session::default()).collect(),
        events: BTreeMap::new(),
        sequence: 0,
        now: 0,
        key: TokenKey::new(b"a key shared by both servers").ok_or("key")?,
        tally: Tally { commits, ..Tally::default() },
    };
    run.start();
    while let Some(((time, _), event)) = run.events.pop_first() {
        if time > END {
            break;
        }
        run.now = time;
        run.handle(event).map_err(|error| format!("at {time} µs: {error}"))?;
    }
    Ok(run.tally)
}

fn server(random: &mut Random) -> Server {
    let dear_primary = random.chance(70);
    let facts = [0, 1].map(|source| {
        let copies = COPIES[source].iter().enumerate().map(|(number, name)| {
            let kind = if number == 0 { CopyKind::Authoritative } else { CopyKind::Replica };
            let mut copy = CopyFacts::new(CopyName::new(*name), kind);
            let cost = if number == 0 && dear_primary { 100_000 } else { 2_000 + number as u64 };
            copy.cost = Duration::from_micros(cost);
            copy
        });
        Arc::new(SourceFacts::new(source_name(source), copies.collect()))
    });
    Server {
        ppm: i128::from(random.within(0, 2 * u64::from(DRIFT_PPM))) - i128::from(DRIFT_PPM),
        offset: i128::from(random.within(10_000_000_000, 90_000_000_000)),
        facts,
        fences: [Fences::new(100), Fences::new(100)],
        waiting: Default::default(),
        kept: Default::default(),
    }
}

impl Run {
    fn start(&mut self) {
        for server in 0..2 {
            for source in 0..2 {
                let at = self.random.within(0, 100_000);
                self.at(at, Event::ProbeTick(server, source));
                for copy in 1..3 {
                    let at = self.random.within(0, 100_000);
                    self.at(at, Event::LookTick(server, source, copy));
                }
            }
        }
        for session in 0..SESSIONS {
            let at = self.random.within(0, 1_000_000);
            self.at(at, Event::Arrive(session));
        }
    }

    fn at(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), event);
    }

    /// How long a message takes.
    fn delay(&mut self) -> Time {
        if self.random.chance(8) {
            self.random.within(20_000, 300_000)
        } else {
            self.random.within(100, 12_000)
        }
    }

    fn moment(&self, server: usize) -> Moment {
        self.servers[server].moment(self.now)
    }

    fn facts(&mut self, server: usize, source: usize) -> &mut SourceFacts {
        Arc::make_mut(&mut self.servers[server].facts[source])
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::ProbeTick(server, source) => {
                self.probe(server, source, None);
                let next = self.now + self.random.within(80_000, 350_000);
                self.at(next, Event::ProbeTick(server, source));
            }
            Event::ProbeDone(server, source, fence, probe, answer) => {
                self.probe_done(server, source, fence, probe, answer);
            }
            Event::LookTick(server, source, copy) => {
                self.look(server, source, copy, None);
                let next = self.now + self.random.within(50_000, 350_000);
                self.at(next, Event::LookTick(server, source, copy));
            }
            Event::Looked(server, source, copy, answer, wait) => {
                self.looked(server, source, copy, answer, wait);
            }
            Event::Arrive(session) => self.arrive(session)?,
            Event::Wake(session) => self.wake(session),
            Event::Step(session) => self.step(session)?,
            Event::Read(session) => self.read(session)?,
            Event::Keep(server, source, kept) => self.keep(server, source, *kept),
        }
        Ok(())
    }

    // --- facts -------------------------------------------------------------------------------

    fn probe(&mut self, server: usize, source: usize, fence: Option<FenceId>) {
        let probe = Probe::start(self.moment(server));
        let there = self.now + self.delay();
        let back = there + self.delay();
        let reached = self.world.reachable(server, source, 0, there)
            && self.world.reachable(server, source, 0, back);
        let answer = reached.then(|| {
            let answer = self.world.ask(source, 0, there);
            let position = match answer.head {
                Some(head) if self.rules.is(Mutant::FlushedIsHead) => {
                    Position::Log { epoch: head.epoch, lsn: head.flush }
                }
                _ => answer.position,
            };
            (position, answer.lineage)
        });
        self.at(back, Event::ProbeDone(server, source, fence, probe, answer));
    }

    fn probe_done(
        &mut self,
        server: usize,
        source: usize,
        fence: Option<FenceId>,
        probe: Probe,
        answer: Option<(Position, Lineage)>,
    ) {
        let now = self.moment(server);
        let rules = self.rules;
        match answer {
            Some((position, lineage)) => {
                let sample = probe.finish_by(&rules, position, lineage, now);
                self.facts(server, source).probed(sample);
            }
            None => self.facts(server, source).probe_failed(probe.started(), "no answer"),
        }
        let Some(fence) = fence else { return };
        let state = &mut self.servers[server];
        let finished = state.fences[source].finished(fence, now);
        let (served, waiting): (Vec<_>, Vec<_>) =
            state.waiting[source].drain(..).partition(|(id, _)| *id == fence);
        state.waiting[source] = waiting;
        for (_, session) in served {
            self.wake(session);
        }
        if let Some(next) = finished.start {
            self.probe(server, source, Some(next));
        }
    }

    fn look(
        &mut self,
        server: usize,
        source: usize,
        copy: usize,
        wait: Option<(usize, Position, Moment)>,
    ) {
        let began = self.moment(server);
        let there = self.now + self.delay();
        let back = there + self.delay();
        let answer = if self.world.reachable(server, source, copy, there)
            && self.world.reachable(server, source, copy, back)
        {
            let answer = self.world.ask(source, copy, there);
            let reported = answer.reported_lag.map(|lag| Duration::from_micros(lag.max(0) as u64));
            Ok(Observed {
                position: answer.position,
                at: began,
                received: answer.received,
                reported_lag: reported,
            })
        } else {
            Err(began)
        };
        self.at(back, Event::Looked(server, source, copy, answer, wait));
    }

    fn looked(
        &mut self,
        server: usize,
        source: usize,
        copy: usize,
        answer: Result<Observed, Moment>,
        wait: Option<(usize, Position, Moment)>,
    ) {
        let (now, rules) = (self.moment(server), self.rules);
        let name = CopyName::new(COPIES[source][copy]);
        let facts = self.facts(server, source);
        let position = answer.as_ref().ok().map(|observed| observed.position.clone());
        match answer {
            Ok(observed) => facts.observed_by(&rules, &name, observed, now),
            Err(_) => facts.unreachable(&name, "no answer"),
        }
        let lineage = facts.lineage.clone();
        let Some((session, wanted, until)) = wait else { return };
        let reached = position
            .is_none_or(|position| rules.relate(&position, &wanted, &lineage) == Relation::Covers);
        if reached || now >= until {
            self.wake(session);
        } else {
            self.look(server, source, copy, Some((session, wanted, until)));
        }
    }

    fn keep(&mut self, server: usize, source: usize, kept: Kept) {
        let now = self.moment(server);
        let mut copy = CopyFacts::kept(kept.name.clone(), &kept.opened);
        if self.rules.is(Mutant::KeptSinceInsertion)
            && let Some(fixed) = &mut copy.fixed
        {
            fixed.lo = now;
            fixed.hi = now;
        }
        if self.rules.is(Mutant::KeptAtInsertAddress)
            && let Some(observed) = &mut copy.observed
        {
            observed.position = kept.opened.position.clone();
        }
        copy.cost = Duration::from_micros(5);
        let facts = self.facts(server, source);
        facts.copies.retain(|copy| copy.kind != CopyKind::Cache);
        facts.copies.push(copy);
        self.servers[server].kept[source] = Some(kept);
    }

    // --- clients -----------------------------------------------------------------------------

    fn arrive(&mut self, session: usize) -> Result<(), String> {
        self.sessions[session].server = self.random.within(0, 2) as usize;
        self.sessions[session].arrived = self.now;
        if self.random.chance(25) {
            return self.write(session);
        }
        let mut options = QueryOptions {
            max_staleness: Duration::from_millis(self.random.pick(&[0, 0, 30, 150, 600, 2_500])),
            on_unmet: self.random.pick(&[OnUnmet::Error, OnUnmet::Wait, OnUnmet::Stale]),
            wait_timeout: Duration::from_millis(200),
            max_skew: Duration::from_millis(self.random.pick(&[30, 150, 700])),
            ..QueryOptions::default()
        };
        if self.random.chance(40) {
            options.consistency = Consistency::Bounded;
        }
        let policy = Policy {
            max_drift_ppm: DRIFT_PPM,
            replay_wait: Duration::from_millis(self.random.pick(&[0, 50])),
            retry_pause: Duration::from_millis(20),
        };
        let server = self.sessions[session].server;
        let mut demand = Demand::new(self.moment(server), &options, policy);
        let sources = self.random.pick(&[1, 2, 3, 3]);
        for source in (0..2).filter(|source| sources & (1 << source) != 0) {
            let mut scan = SourceDemand::new(source_name(source), &options);
            if self.random.chance(8) {
                let copy = self.random.pick(&COPIES[source]);
                scan.pinned = Some(CopyName::new(copy));
            }
            demand.add_scan(scan).map_err(|error| error.to_string())?;
        }
        let with_token = self.random.chance(70);
        if with_token {
            let token = &self.sessions[session].token;
            let carried = if self.random.chance(20) {
                let text = token.encode(&self.key).map_err(|error| error.to_string())?;
                Token::decode(&text, &self.key).map_err(|error| error.to_string())?
            } else {
                token.clone()
            };
            demand.token = Some(carried);
            self.tally.tokens_used += 1;
        }
        let state = &mut self.sessions[session];
        state.demand = Some(demand);
        (state.pending, state.steps, state.reads) = (0, 0, 0);
        self.step(session)
    }

    /// The client's write is one of the world's commits.
    fn write(&mut self, session: usize) -> Result<(), String> {
        let (source, server) = (self.random.within(0, 2) as usize, self.sessions[session].server);
        let commits = self.world.commits(source);
        let next = commits.iter().enumerate().find(|(_, commit)| commit.visible > self.now);
        let Some((number, commit)) = next.map(|(number, commit)| (number, *commit)) else {
            return Ok(());
        };
        let known = commit.visible + self.random.within(10, 3_000);
        if self.world.undisturbed(server, source, commit.inserted, known) {
            let answer = self.world.ask(source, 0, known);
            let mut token = Token::default();
            let source_name = source_name(source);
            token.include(&source_name, &answer.position).map_err(|error| error.to_string())?;
            let state = &mut self.sessions[session];
            state.token.merge_by(&self.rules, &token).map_err(|error| error.to_string())?;
            state.seen[source] |= 1 << number;
        }
        let next = known + self.random.within(10, 200_000);
        self.at(next, Event::Arrive(session));
        Ok(())
    }

    fn end(&mut self, session: usize) {
        self.sessions[session].demand = None;
        let next = self.now + self.random.within(10, 400_000);
        self.at(next, Event::Arrive(session));
    }

    fn wake(&mut self, session: usize) {
        let state = &mut self.sessions[session];
        state.pending = state.pending.saturating_sub(1);
        if state.pending == 0 {
            self.at(self.now, Event::Step(session));
        }
    }

    fn step(&mut self, session: usize) -> Result<(), String> {
        let server = self.sessions[session].server;
        let now = self.moment(server);
        let Some(demand) = self.sessions[session].demand.clone() else { return Ok(()) };
        self.sessions[session].steps += 1;
        if self.sessions[session].steps > 100 {
            return Err(format!("the decision does not end: {demand:?}"));
        }
        let facts: Facts = self.servers[server].facts.iter().cloned().collect();
        match choose_by(&self.rules, &facts, &demand, now) {
            Decision::Read(plan) => {
                self.sessions[session].choices = plan.choices;
                let first = self.sessions[session].reads == 0;
                let queue = if first && self.random.chance(30) { 800_000 } else { 500 };
                let at = self.now + self.random.within(1, queue);
                self.at(at, Event::Read(session));
                Ok(())
            }
            Decision::Need(actions) => {
                drop(facts);
                self.sessions[session].pending = actions.len();
                for action in actions {
                    self.act(session, server, &demand, action)?;
                }
                Ok(())
            }
            Decision::Refuse(refusal) => {
                self.refused(session, &demand, refusal.code, &refusal.to_string())
            }
        }
    }

    fn act(
        &mut self,
        session: usize,
        server: usize,
        demand: &Demand,
        action: Action,
    ) -> Result<(), String> {
        let now = self.moment(server);
        match action {
            Action::Probe { source, .. } => {
                let source = usize::from(source == source_name(1));
                let fences = &mut self.servers[server].fences[source];
                let (id, start) = match fences.request_by(&self.rules, demand.arrival, now) {
                    FenceTicket::Start(id) => (id, true),
                    FenceTicket::Wait(id) => (id, false),
                    FenceTicket::Full => return Err("too many wait for a fence".to_owned()),
                };
                self.servers[server].waiting[source].push((id, session));
                if start {
                    self.probe(server, source, Some(id));
                }
            }
            Action::WaitFor { source, copy, position, until } => {
                let source = usize::from(source == source_name(1));
                let copy = COPIES[source].iter().position(|name| *name == copy.as_str());
                let copy = copy.ok_or("a wait for a copy that does not move")?;
                self.look(server, source, copy, Some((session, position, until)));
            }
            Action::Pause { until, .. } => {
                let at = self.servers[server].time(until) + 2;
                self.at(at.max(self.now + 1), Event::Wake(session));
            }
        }
        Ok(())
    }

    fn refused(
        &mut self,
        session: usize,
        demand: &Demand,
        code: ErrorCode,
        text: &str,
    ) -> Result<(), String> {
        let (arrived, server) = (self.sessions[session].arrived, self.sessions[session].server);
        if code == ErrorCode::TokenLost {
            self.tally.tokens_lost += 1;
            if self.world.log.promotion.is_none_or(|(died, ..)| self.now + 1_000_000 < died) {
                return Err(format!("a token is lost without a promotion: {text}"));
            }
            self.sessions[session].token = Token::default();
            self.sessions[session].seen = [0; 2];
            self.end(session);
            return Ok(());
        }
        let settled = arrived.saturating_sub(1_500_000);
        let possible = demand.sources.iter().all(|source| {
            let number = usize::from(source.source == source_name(1));
            // A message that will be lost is known to be lost as soon as it is sent.
            let until = self.now + 1_000_000;
            source.pinned.is_none() && self.world.undisturbed(server, number, settled, until)
        });
        if possible {
            return Err(format!("refused although the source was there all the time: {text}"));
        }
        self.tally.refused += 1;
        self.end(session);
        Ok(())
    }

    // --- reading -----------------------------------------------------------------------------

    fn read(&mut self, session: usize) -> Result<(), String> {
        let server = self.sessions[session].server;
        let Some(demand) = self.sessions[session].demand.clone() else { return Ok(()) };
        let choices = self.sessions[session].choices.clone();
        self.sessions[session].reads += 1;
        if self.sessions[session].reads > 8 {
            self.end(session);
            return Ok(());
        }
        // Every copy is asked for its position, then checked.
        let mut asked = Vec::new();
        for choice in &choices {
            match self.ask(server, &demand, choice) {
                Ok(Some(one)) => asked.push(one),
                Ok(None) => {
                    self.tally.again += 1;
                    return self.step(session);
                }
                Err(lost) => return self.refused(session, &demand, ErrorCode::TokenLost, &lost),
            }
        }
        // All snapshots open behind a barrier when the skew matters.
        let barrier = asked.iter().map(|one| one.checked_at).max().unwrap_or(self.now);
        let mut answers = Vec::new();
        let mut last = self.now;
        for (choice, one) in choices.iter().zip(asked) {
            let bounded = demand.consistency == Consistency::Bounded;
            let ready = if bounded { barrier } else { one.checked_at };
            let Some(answer) = self.pin(server, choice, one, ready) else {
                self.tally.again += 1;
                return self.step(session);
            };
            last = last.max(answer.done);
            answers.push(answer);
        }
        let opened: Vec<_> = answers.iter().map(|answer| answer.opened.clone()).collect();
        let settled = match settle_by(&self.rules, &opened, &demand) {
            Ok(settled) => settled,
            Err(refusal) if refusal.code == ErrorCode::SkewExceeded => {
                self.tally.skewed += 1;
                self.end(session);
                return Ok(());
            }
            Err(refusal) => return Err(refusal.to_string()),
        };
        self.check(session, &demand, &answers)?;
        let token_merged = self.sessions[session].token.merge_by(&self.rules, &settled.token);
        token_merged.map_err(|error| error.to_string())?;
        for answer in answers {
            self.sessions[session].seen[answer.source] |= answer.rows;
            match answer.opened.method {
                Method::StrongRead => self.tally.strong += 1,
                Method::Fence => self.tally.fenced += 1,
                Method::Position => self.tally.positioned += 1,
                Method::Kept => self.tally.kept += 1,
                Method::Unproved => self.tally.unproved += 1,
            }
            if !answer.was_kept && self.random.chance(30) {
                self.sequence += 1;
                let kept = Kept {
                    name: CopyName::new(format!("cache-{}", self.sequence)),
                    opened: answer.opened,
                    rows: answer.rows,
                    timeline: answer.timeline,
                    pinned_at: answer.pinned_at,
                };
                let at = answer.done + self.random.within(1, 500_000);
                self.at(at, Event::Keep(server, answer.source, Box::new(kept)));
            }
        }
        // The client has its answer when the last snapshot stands.
        self.sessions[session].demand = None;
        let next = last + self.random.within(10, 300_000);
        self.at(next, Event::Arrive(session));
        Ok(())
    }

    /// Asks for the position on the reading connection and checks the choice. `Ok(None)`: choose
    /// again; `Err`: the token is lost.
    fn ask(
        &mut self,
        server: usize,
        demand: &Demand,
        choice: &Choice,
    ) -> Result<Option<Asked>, String> {
        let source = usize::from(choice.source == source_name(1));
        let facts = Arc::clone(&self.servers[server].facts[source]);
        let copy = COPIES[source].iter().position(|name| *name == choice.copy.as_str());
        let (answer, asked_at) = match copy {
            Some(copy) => {
                let asked_at = self.now + self.delay();
                if !self.world.reachable(server, source, copy, asked_at) {
                    drop(facts);
                    let name = choice.copy.clone();
                    self.facts(server, source).unreachable(&name, "no answer");
                    return Ok(None);
                }
                (self.world.ask(source, copy, asked_at), asked_at)
            }
            None => {
                let there = self.servers[server].kept[source].as_ref();
                let known = facts.copy(&choice.copy).and_then(|copy| copy.observed.clone());
                let (Some(_), Some(observed)) = (there.filter(|k| k.name == choice.copy), known)
                else {
                    return Ok(None);
                };
                let lineage = facts.lineage.clone();
                let position = observed.position;
                let answer =
                    Answer { head: None, position, received: None, reported_lag: None, lineage };
                (answer, self.now)
            }
        };
        let checked_at = asked_at + if copy.is_some() { self.random.within(50, 3_000) } else { 0 };
        let lineage = if copy == Some(0) { answer.lineage } else { facts.lineage.clone() };
        let (mut pinned_at, mut position) = (None, answer.position);
        if let Some(copy) = copy.filter(|_| self.rules.is(Mutant::PositionWithTheData)) {
            let pinned = checked_at + 10;
            pinned_at = Some(pinned);
            position = self.world.ask(source, copy, pinned + self.random.within(1, 9_000)).position;
        }
        let now = self.servers[server].moment(checked_at);
        let began = self.servers[server].moment(self.now);
        let start = ReadStart { began, position: &position, lineage: &lineage };
        match recheck_by(&self.rules, choice, &facts, demand, start, now) {
            Guard::Go(guarded) => {
                Ok(Some(Asked { source, copy, asked_at, checked_at, pinned_at, position, guarded }))
            }
            Guard::Again(_) => Ok(None),
            Guard::Refuse(refusal) => Err(refusal.to_string()),
        }
    }

    /// Pins the snapshot at `ready` or a little later.
    fn pin(&mut self, server: usize, choice: &Choice, one: Asked, ready: Time) -> Option<Pinned> {
        let source = one.source;
        let Some(copy) = one.copy else {
            let kept = self.servers[server].kept[source].clone()?;
            let seen = kept.opened.seen.clone();
            let now = self.servers[server].moment(ready);
            let by_position = choice.at_least.as_ref().and_then(timeline);
            return Some(Pinned {
                source,
                rows: kept.rows,
                timeline: by_position.unwrap_or(kept.timeline),
                pinned_at: kept.pinned_at,
                checked_at: one.checked_at,
                done: ready,
                was_kept: true,
                opened: opened(one.guarded, seen, now),
            });
        };
        let pinned_at = one.pinned_at.unwrap_or(ready + self.random.within(20, 9_000));
        let seen_at = pinned_at + self.random.within(20, 6_000);
        let done = seen_at + self.random.within(20, 6_000);
        let broke = copy == 0 && !self.world.undisturbed(server, source, one.asked_at, seen_at);
        if broke || !self.world.reachable(server, source, copy, seen_at) {
            let name = choice.copy.clone();
            self.facts(server, source).unreachable(&name, "the connection broke");
            return None;
        }
        let seen = if self.rules.is(Mutant::TokenFromBeforeSnapshot) {
            one.position.clone()
        } else {
            self.world.ask(source, copy, seen_at).position
        };
        let rows = self.world.rows(source, copy, pinned_at);
        // A manifest is pinned by its version: what is read is what was asked for.
        let (rows, seen) = match &one.position {
            Position::Version(_) => {
                (self.world.rows(source, copy, one.asked_at), one.position.clone())
            }
            _ => (rows, seen),
        };
        let hi = if self.rules.is(Mutant::UpperEndAtStart) { self.now } else { done };
        let claimed = choice.at_least.as_ref().or(Some(&one.position)).and_then(timeline);
        Some(Pinned {
            source,
            rows,
            timeline: claimed.unwrap_or(1),
            pinned_at,
            checked_at: one.checked_at,
            done,
            was_kept: false,
            opened: opened(one.guarded, seen, self.servers[server].moment(hi)),
        })
    }

    // --- the truth ---------------------------------------------------------------------------

    fn check(&self, session: usize, demand: &Demand, answers: &[Pinned]) -> Result<(), String> {
        let server = &self.servers[self.sessions[session].server];
        let latest = answers.iter().map(|answer| answer.pinned_at).max().unwrap_or(0);
        for answer in answers {
            let Opened { as_of, .. } = answer.opened;
            let wrong =
                |what: &str| Err(format!("{what}; rows {:x}; {:?}", answer.rows, answer.opened));
            let missing = |before: Time| {
                self.world.visible_before(answer.source, answer.timeline, before) & !answer.rows
            };
            if as_of.lo > Moment::ORIGIN && missing(server.time(as_of.lo)) != 0 {
                return wrong("something visible before lo is missing");
            }
            let after_hi =
                self.world.commits(answer.source).iter().enumerate().any(|(n, c)| {
                    answer.rows & (1 << n) != 0 && c.visible > server.time(as_of.hi) + 2
                });
            if after_hi {
                return wrong("something committed after hi is there");
            }
            let reference =
                answer.checked_at.saturating_sub(answer.opened.bound.as_micros() as u64);
            let reference = reference.min(self.sessions[session].arrived);
            if answer.opened.satisfied && missing(reference) != 0 {
                return wrong("the bound is broken");
            }
            let unmet = demand
                .sources
                .iter()
                .any(|s| s.source == answer.opened.source && s.on_unmet != OnUnmet::Stale);
            if !answer.opened.satisfied && unmet {
                return wrong("stale without being asked for");
            }
            if let Some(claimed) = answer.opened.staleness
                && as_of.lo > Moment::ORIGIN
            {
                let true_age = answer.checked_at.saturating_sub(server.time(as_of.lo) + 3);
                if claimed < Duration::from_micros(true_age) {
                    return wrong("staler than the receipt says");
                }
            }
            if demand.token.as_ref().is_some_and(|token| token.of(&answer.opened.source).is_some())
                && self.sessions[session].seen[answer.source] & !answer.rows != 0
            {
                return wrong("the session saw more than this before");
            }
            let allowed = demand.max_skew.as_micros() as u64 + 3;
            if demand.consistency == Consistency::Bounded
                && missing(latest.saturating_sub(allowed)) != 0
            {
                return wrong("the skew is broken");
            }
        }
        Ok(())
    }
}

fn timeline(position: &Position) -> Option<u32> {
    match position {
        Position::Log { epoch, .. } => Some(epoch.timeline),
        _ => None,
    }
}

/// A copy that was asked for its position on the reading connection.
struct Asked {
    source: usize,
    copy: Option<usize>,
    asked_at: Time,
    checked_at: Time,
    pinned_at: Option<Time>,
    position: Position,
    guarded: crate::Guarded,
}

/// A snapshot that stands, and what is really in it.
struct Pinned {
    source: usize,
    rows: Rows,
    timeline: u32,
    pinned_at: Time,
    checked_at: Time,
    done: Time,
    was_kept: bool,
    opened: Opened,
}

//! Where this server is in its log.
//!
//! | role | position | covers |
//! |---|---|---|
//! | primary | `pg_current_wal_insert_lsn()` | everything visible; the write and flush addresses miss commits under `synchronous_commit = off` |
//! | standby | `pg_last_wal_replay_lsn()` | what a snapshot taken now shows |
//!
//! An address means something only with its timeline. A primary writes the one in the name of
//! the WAL file that `pg_walfile_name` gives for the insert address; `pg_control_checkpoint()` has
//! the old one until the first checkpoint after a promotion. Of a standby nothing says directly
//! which timeline it replays. What can be known, with the replay address asked *in between*,
//! since each of these only grows:
//!
//! * *at least*, asked before: the timeline of the last restartpoint and of the minimum recovery
//!   point in `pg_control`;
//! * *of*, asked after: while the WAL receiver streams timeline T, replay is on the chain that
//!   leads to T and not beyond T's end: the startup process asks for the timeline that the address
//!   it wants belongs to. So what was replayed before is a prefix of T's history;
//! * *at most*, asked after: a standby moves to a timeline only after it has put that timeline's
//!   history file into `pg_wal`, where it stays.
//!
//! With a receiver that streams, the position is on its timeline. Without one (the link is cut),
//! it is known when *at least* and *at most* are the same; *at least* may also be the timeline that
//! this very server, not restarted since, was seen to stream. In every other case the position is
//! unknown: after a promotion the same address holds something else.
//!
//! * <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CONTROLDATA>
//! * `WaitForWALToBecomeAvailable`, `rescanLatestTimeLine` in `xlogrecovery.c`, `readTimeLineHistory`
//!   in `timeline.c` (in `xlog.c` before PostgreSQL 15)

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use synoptic_source::CopyPosition;
use synoptic_types::{Epoch, Lineage, Lsn, Position};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::discover::prepared_name;

/// After this long, a role that may not ask everything is looked at again.
const RIGHTS_LIFETIME: Duration = Duration::from_secs(60);

/// The longest history file that is read; each promotion is a line.
const HISTORY_BYTES: usize = 64 << 10;

/// What the role may ask. `true` only for functions that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rights {
    /// `pg_control_*`: without them nothing is known.
    control: bool,
    /// `pg_ls_waldir`: which timelines a standby without a receiver may be on.
    wal_files: bool,
    /// `pg_read_file`: where a timeline was left.
    history: bool,
}

/// What is kept of a server between two questions. None of it goes by age: rights are looked up
/// again when one fails, and the rest is about things that do not change.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    rights: Option<(Rights, Instant)>,
    /// The history of the timeline that was asked last.
    lineage: Option<(Epoch, Lineage)>,
    /// The timeline a standby was seen to stream since it was started.
    streamed: Option<(Epoch, Incarnation)>,
    /// Whether it was a standby when it was asked last.
    follows: Option<bool>,
}

/// One run of a server, from its start: its start in microseconds.
type Incarnation = i64;

/// The server's answer to [`question`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    system: Option<u64>,
    started: Option<Incarnation>,
    /// From `pg_control`.
    least_timeline: Option<u32>,
    recovering: Option<bool>,
    /// Of a primary.
    head: Option<Lsn>,
    written_timeline: Option<u32>,
    /// Of a standby.
    replayed: Option<Lsn>,
    received: Option<Lsn>,
    lag: Option<Duration>,
    streamed_timeline: Option<u32>,
    /// The newest timeline of which there is a history, 1 when there is none.
    most_timeline: Option<u32>,
    /// It was asked what only a primary can answer.
    as_primary: bool,
}

/// What the role may ask, in one row of texts.
const RIGHTS_SQL: &str = "SELECT \
    pg_catalog.bool_and(coalesce(pg_catalog.has_function_privilege(\
        pg_catalog.to_regprocedure(f)::pg_catalog.oid, 'EXECUTE'), false)) \
        FILTER (WHERE f LIKE '%control%') AS rights, \
    pg_catalog.bool_and(coalesce(pg_catalog.has_function_privilege(\
        pg_catalog.to_regprocedure(f)::pg_catalog.oid, 'EXECUTE'), false)) \
        FILTER (WHERE f LIKE '%waldir%'), \
    pg_catalog.bool_and(coalesce(pg_catalog.has_function_privilege(\
        pg_catalog.to_regprocedure(f)::pg_catalog.oid, 'EXECUTE'), false)) \
        FILTER (WHERE f LIKE '%read_file%') \
    FROM (VALUES ('pg_catalog.pg_control_system()'), ('pg_catalog.pg_control_checkpoint()'), \
        ('pg_catalog.pg_control_recovery()'), ('pg_catalog.pg_ls_waldir()'), \
        ('pg_catalog.pg_read_file(text,bigint,bigint,boolean)')) AS functions (f)";

/// The question for a server that was a primary when it was asked last: all that can be known of
/// one, in one statement. A standby answers that it is one, and is asked again.
const PRIMARY_QUESTION: &str = "SELECT s.system_identifier AS of_primary, \
    pg_catalog.int8((EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)), \
    pg_catalog.pg_is_in_recovery(), \
    CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
    THEN pg_catalog.pg_current_wal_insert_lsn() END, \
    CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
    THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END \
    FROM pg_catalog.pg_control_system() AS s";

/// Under which name connections keep it prepared; see `STAMP_NAME`.
static PRIMARY_QUESTION_NAME: LazyLock<String> =
    LazyLock::new(|| prepared_name("synoptic_position", PRIMARY_QUESTION));

/// Prepares the question for a primary on a connection: every statement asks it twice, and planning
/// it costs the server several times what answering it does.
pub(super) fn prepare_position_sql() -> String {
    format!("PREPARE {} AS {PRIMARY_QUESTION}", *PRIMARY_QUESTION_NAME)
}

/// The question, as one message of statements that run one after the other.
///
/// Whether a role may call a function is decided before the first row, whatever CASE says; so what
/// it may not call is left out.
fn question(rights: Rights) -> String {
    let mut sql = String::new();
    if rights.control {
        sql.push_str(
            "SELECT s.system_identifier AS control, pg_catalog.int8((EXTRACT(epoch FROM \
             pg_catalog.pg_postmaster_start_time()) * 1000000)), \
             greatest(c.timeline_id, r.min_recovery_end_timeline) \
             FROM pg_catalog.pg_control_system() AS s, \
             pg_catalog.pg_control_checkpoint() AS c, pg_catalog.pg_control_recovery() AS r; ",
        );
    }
    sql.push_str(
        "SELECT pg_catalog.pg_is_in_recovery() AS recovering, \
         CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
         THEN pg_catalog.pg_current_wal_insert_lsn() END, \
         CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
         THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
         pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_last_wal_receive_lsn(), \
         pg_catalog.int8(EXTRACT(epoch FROM pg_catalog.clock_timestamp() \
         - pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)",
    );
    if rights.control {
        let most = if rights.wal_files {
            "CASE WHEN r.streamed IS NULL AND pg_catalog.pg_is_in_recovery() THEN \
             (SELECT coalesce(pg_catalog.max(name COLLATE \"C\"), '00000001.history') \
             FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{8}[.]history$') END"
        } else {
            "NULL"
        };
        sql.push_str(&format!(
            "; SELECT r.streamed AS streamed, {most} FROM (SELECT pg_catalog.max(received_tli) \
             AS streamed FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming') AS r"
        ));
    }
    sql
}

impl Answer {
    /// Reads what came back; what is missing or cannot be read is not known.
    pub fn read(messages: &[SimpleQueryMessage]) -> Self {
        let mut answer = Self::default();
        for message in messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let Some(first) = row.columns().first() else { continue };
            let text = |i: usize| row.try_get(i).ok().flatten();
            let lsn = |i: usize| text(i).and_then(|text| text.parse::<Lsn>().ok());
            match first.name() {
                "control" => {
                    // A 64-bit number that the catalog shows with a sign.
                    answer.system = text(0).and_then(|t| t.parse().ok()).map(i64::cast_unsigned);
                    answer.started = text(1).and_then(|text| text.parse().ok());
                    answer.least_timeline = text(2).and_then(|text| text.parse().ok());
                }
                "of_primary" => {
                    answer.as_primary = true;
                    answer.system = text(0).and_then(|t| t.parse().ok()).map(i64::cast_unsigned);
                    answer.started = text(1).and_then(|text| text.parse().ok());
                    answer.recovering = text(2).map(|text| text == "t");
                    answer.head = lsn(3);
                    answer.written_timeline = text(4).and_then(hex_timeline);
                }
                "recovering" => {
                    answer.recovering = text(0).map(|text| text == "t");
                    answer.head = lsn(1);
                    answer.written_timeline = text(2).and_then(hex_timeline);
                    answer.replayed = lsn(3);
                    answer.received = lsn(4);
                    let micros = text(5).and_then(|text| text.parse::<i64>().ok());
                    answer.lag = micros.map(|m| Duration::from_micros(m.max(0).cast_unsigned()));
                }
                "streamed" => {
                    answer.streamed_timeline = text(0).and_then(|text| text.parse().ok());
                    answer.most_timeline = text(1).and_then(hex_timeline);
                }
                _ => {}
            }
        }
        answer
    }

    /// Whether both came from one run of one server.
    pub fn is_of_the_same_server(&self, other: &Self) -> bool {
        self.started.is_some() && (self.system, self.started) == (other.system, other.started)
    }
}

/// The timeline in the name of a WAL or history file.
fn hex_timeline(name: &str) -> Option<u32> {
    name.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok())
}

/// Reads a timeline history file, `PARENT<tab>LSN<tab>REASON` a line, oldest first; `None` when
/// it cannot be read as one.
fn history(text: &str) -> Option<Vec<(u32, Lsn)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let entries = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split_whitespace();
        let timeline = words.next()?.parse().ok()?;
        Some((timeline, words.next()?.parse().ok()?))
    });
    let entries: Vec<(u32, Lsn)> = entries.collect::<Option<_>>()?;
    let grows = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
    (grows && !entries.is_empty()).then_some(entries)
}

impl Memory {
    /// What the role may ask, from the server when it is not known or was too little a while ago.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn rights(&self, client: &Client) -> Result<Rights, tokio_postgres::Error> {
        let known = self.0.lock().rights;
        if let Some((rights, asked)) = known
            && (rights.control && rights.wal_files && rights.history
                || asked.elapsed() < RIGHTS_LIFETIME)
        {
            return Ok(rights);
        }
        let messages = client.simple_query(RIGHTS_SQL).await?;
        let mut rights = Rights::default();
        for message in &messages {
            if let SimpleQueryMessage::Row(row) = message {
                let flag = |i: usize| row.try_get(i).ok().flatten() == Some("t");
                rights = Rights { control: flag(0), wal_files: flag(1), history: flag(2) };
            }
        }
        if !rights.control {
            tracing::debug!(
                "the role may not call pg_control_system(), pg_control_checkpoint() and \
                 pg_control_recovery(): this copy's position is unknown"
            );
        }
        self.0.lock().rights = Some((rights, Instant::now()));
        Ok(rights)
    }

    /// What to ask, as one message; `prepared`: connections keep what was prepared on them.
    ///
    /// # Errors
    /// When the server does not answer what the role may ask.
    pub async fn question(
        &self,
        client: &Client,
        prepared: bool,
    ) -> Result<String, tokio_postgres::Error> {
        let rights = self.rights(client).await?;
        let was_primary = self.0.lock().follows == Some(false);
        Ok(match (rights.control && was_primary, prepared) {
            (true, true) => format!("EXECUTE {}", *PRIMARY_QUESTION_NAME),
            (true, false) => PRIMARY_QUESTION.to_owned(),
            (false, _) => question(rights),
        })
    }

    /// Whether `answer` is that of a standby that was asked as a primary, of which it says too
    /// little. It will be asked as a standby from now on.
    pub fn has_turned(&self, answer: &Answer) -> bool {
        let turned = answer.as_primary && answer.recovering != Some(false);
        if turned {
            self.0.lock().follows = None;
        }
        turned
    }

    /// Forgets what the role may ask: a question has failed.
    pub fn forget_rights(&self) {
        self.0.lock().rights = None;
    }

    /// What the role was last seen to be allowed to ask.
    pub fn known_rights(&self) -> Option<Rights> {
        self.0.lock().rights.map(|(rights, _)| rights)
    }

    /// The epoch of what `answer` says, when that can be known.
    fn epoch(&self, answer: &Answer) -> Option<Epoch> {
        let (system, started) = (answer.system?, answer.started?);
        if !answer.recovering? {
            return Some(Epoch { system, timeline: answer.written_timeline? });
        }
        let mut kept = self.0.lock();
        if let Some(timeline) = answer.streamed_timeline.filter(|timeline| *timeline > 0) {
            let epoch = Epoch { system, timeline };
            kept.streamed = Some((epoch, started));
            return Some(epoch);
        }
        let streamed = kept.streamed.filter(|(epoch, of)| epoch.system == system && *of == started);
        let least = answer.least_timeline?.max(streamed.map_or(0, |(epoch, _)| epoch.timeline));
        let most = answer.most_timeline?.max(answer.least_timeline?);
        (least == most).then_some(Epoch { system, timeline: least })
    }

    /// What `answer` says of the copy.
    pub fn position(&self, answer: &Answer) -> CopyPosition {
        if answer.recovering.is_some() {
            self.0.lock().follows = answer.recovering;
        }
        let epoch = self.epoch(answer);
        let follows = answer.recovering == Some(true);
        let at = |lsn: Option<Lsn>| match (epoch, lsn) {
            (Some(epoch), Some(lsn)) => Some(Position::Log { epoch, lsn }),
            _ => None,
        };
        let place = if follows { answer.replayed } else { answer.head };
        CopyPosition {
            position: at(place).unwrap_or(Position::Unknown),
            lineage: epoch.map_or_else(Lineage::unknown, |epoch| self.known_lineage(epoch)),
            follows,
            received: if follows { at(answer.received) } else { None },
            reported_lag: if follows { answer.lag } else { None },
        }
    }

    /// Asks the server at the end of `client` where it is.
    ///
    /// # Errors
    /// What the server says.
    pub async fn ask(&self, client: &Client) -> Result<CopyPosition, tokio_postgres::Error> {
        // On a connection that is used for this alone, and less often than statements ask.
        let question = self.question(client, false).await?;
        let mut answer = Answer::read(&client.simple_query(&question).await?);
        if self.has_turned(&answer) {
            let question = self.question(client, false).await?;
            answer = Answer::read(&client.simple_query(&question).await?);
        }
        self.learn_lineage(client, &answer).await?;
        Ok(self.position(&answer))
    }

    /// The history of `epoch` as far as it is known without asking.
    fn known_lineage(&self, epoch: Epoch) -> Lineage {
        match &self.0.lock().lineage {
            Some((known, lineage)) if *known == epoch => lineage.clone(),
            _ => Lineage::new(epoch.system, Vec::new(), epoch.timeline),
        }
    }

    /// Whether [`Memory::learn_lineage`] has nothing to ask after `answer`.
    pub fn knows_lineage(&self, answer: &Answer) -> bool {
        let Some(epoch) = self.epoch(answer) else { return true };
        let known = self.0.lock().lineage.as_ref().is_some_and(|(known, _)| *known == epoch);
        // The first timeline has none before it.
        known || epoch.timeline <= 1 || !self.known_rights().is_some_and(|r| r.history)
    }

    /// Asks for the history of the timeline that `answer` is on, unless it is known: a history
    /// never changes.
    ///
    /// # Errors
    /// What the server says.
    pub async fn learn_lineage(
        &self,
        client: &Client,
        answer: &Answer,
    ) -> Result<(), tokio_postgres::Error> {
        if self.knows_lineage(answer) {
            return Ok(());
        }
        let Some(epoch) = self.epoch(answer) else { return Ok(()) };
        let sql = format!(
            "SELECT pg_catalog.pg_read_file('pg_wal/{:08X}.history', 0, {HISTORY_BYTES}, true)",
            epoch.timeline
        );
        let messages = client.simple_query(&sql).await?;
        let text = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
            _ => None,
        });
        let Some(ancestors) = text.filter(|t| t.len() < HISTORY_BYTES).and_then(history) else {
            tracing::debug!(%epoch, "the timeline has no history that can be read");
            return Ok(());
        };
        let lineage = Lineage::new(epoch.system, ancestors, epoch.timeline);
        self.0.lock().lineage = Some((epoch, lineage));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: u64 = 7;

    fn primary(timeline: u32, head: u64) -> Answer {
        Answer {
            system: Some(SYSTEM),
            started: Some(1),
            least_timeline: Some(1),
            recovering: Some(false),
            head: Some(Lsn(head)),
            written_timeline: Some(timeline),
            ..Answer::default()
        }
    }

    fn standby(least: u32, streamed: Option<u32>, most: Option<u32>) -> Answer {
        Answer {
            system: Some(SYSTEM),
            started: Some(1),
            least_timeline: Some(least),
            recovering: Some(true),
            replayed: Some(Lsn(100)),
            received: Some(Lsn(200)),
            streamed_timeline: streamed,
            most_timeline: most,
            ..Answer::default()
        }
    }

    #[test]
    fn a_primary_is_on_the_timeline_it_writes() {
        let copy = Memory::default().position(&primary(2, 5));
        assert_eq!(copy.position, Position::log(SYSTEM, 2, 5));
        assert!(!copy.follows && copy.received.is_none());
    }

    #[test]
    fn a_standby_without_a_receiver_is_known_only_when_no_other_timeline_is_possible() {
        let at = |answer: &Answer| Memory::default().position(answer).position;
        assert_eq!(at(&standby(1, None, Some(1))), Position::log(SYSTEM, 1, 100));
        assert_eq!(at(&standby(2, None, Some(2))), Position::log(SYSTEM, 2, 100));
        // It has heard of timeline 2; whether it replays it, nothing says.
        assert_eq!(at(&standby(1, None, Some(2))), Position::Unknown);
        // Restored from a copy without its history file.
        assert_eq!(at(&standby(3, None, Some(1))), Position::log(SYSTEM, 3, 100));
        // The role may not look at the files.
        assert_eq!(at(&standby(1, None, None)), Position::Unknown);
    }

    #[test]
    fn a_timeline_that_was_streamed_is_remembered_for_this_run_of_the_server() {
        let memory = Memory::default();
        let streaming = memory.position(&standby(1, Some(2), None));
        assert_eq!(streaming.position, Position::log(SYSTEM, 2, 100));
        assert_eq!(streaming.received, Some(Position::log(SYSTEM, 2, 200)));
        let cut = standby(1, None, Some(2));
        assert_eq!(memory.position(&cut).position, Position::log(SYSTEM, 2, 100));
        // A third one has come up meanwhile.
        assert_eq!(memory.position(&standby(1, None, Some(3))).position, Position::Unknown);
        let restarted = Answer { started: Some(2), ..cut };
        assert_eq!(memory.position(&restarted).position, Position::Unknown);
    }

    #[test]
    fn without_the_system_there_is_no_position() {
        let answer = Answer { system: None, ..primary(1, 5) };
        assert_eq!(Memory::default().position(&answer).position, Position::Unknown);
    }

    #[test]
    fn history_files() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# x\n2\t16/B374D848\treason\n";
        assert_eq!(history(text), Some(vec![(1, Lsn(0x300_0148)), (2, Lsn(0x16_B374_D848))]));
        for broken in ["", "1\n", "x\t0/1\n", "2\t0/1\tx\n1\t0/2\tx\n"] {
            assert_eq!(history(broken), None, "{broken}");
        }
    }
}

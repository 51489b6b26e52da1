//! What begins a snapshot: one message that locks, exports and asks, and what the server answers.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join;
use synoptic_source::{ErrorKind, Pinned, Result, SourceError, TableDef};
use synoptic_types::{Position, TableName};
use tokio_postgres::SimpleQueryMessage;

use super::super::discover::{PgTable, describe_sql, difference, literal, stamps_sql, table_def};
use super::super::error::is_lost;
use super::super::pool::Lease;
use super::super::position::Answer;
use super::copy::{Ready, ReadyCopy, made_ready};
use super::{Begun, CopyId, Leg, ScanRequest, Shared, is_splittable, qualified};

/// PostgreSQL's longest `application_name`.
const APPLICATION_NAME_BYTES: usize = 63;

/// How often a question for the position may spoil a snapshot before it is left out: once when
/// the role's rights were taken away.
const POSITION_ATTEMPTS: usize = 2;

/// Ends what a client that is gone has left behind, also while it sends nothing: `0` is "never",
/// the default. PostgreSQL 14 and later know the setting and servers not on Linux refuse it.
const NOTICE_A_LOST_CLIENT: &str = "SELECT \
    pg_catalog.set_config('client_connection_check_interval', '1000', true) AS check_interval \
    WHERE pg_catalog.current_setting('client_connection_check_interval', true) = '0' \
    AND pg_catalog.version() LIKE '%linux%'; ";

impl Shared {
    /// Begins the snapshot: reserves, locks, exports, checks, and prepares the COPY `next`, all in
    /// one round trip; with `asks`, the position is asked before and after. With `reads`, and when
    /// `next` is the only one and has few rows, it is begun in the same round trip: its rows are
    /// handed on only when everything before them is found right.
    pub(super) async fn begin(
        self: &Arc<Self>,
        next: (CopyId, &Arc<ScanRequest>),
        asks: bool,
        reads: bool,
    ) -> Result<Begun> {
        let deadline = self.statement.deadline;
        let (copies, tables) = self.planned();
        let place = |error: SourceError| match tables.as_slice() {
            [only] if matches!(error.kind(), ErrorKind::Changed | ErrorKind::PermissionDenied) => {
                error.in_table(only.table.name())
            }
            _ => error,
        };
        let mut permits = self.pool.reserve(tables.len(), deadline).await?;
        let exports = copies > 1;
        let mut attempts = if asks { POSITION_ATTEMPTS } else { 0 };
        let mut reads = reads && !exports && tables.len() == 1 && next.1.by_rows;
        let (lease, began, answers) = loop {
            let batch = self.begin_batch(exports, &tables);
            // There is at least one: `reserve` gives no fewer.
            let permit = permits
                .split(1)
                .ok_or_else(|| SourceError::internal("a reservation of no connections"))?;
            let lease = self.pool.checkout(permit, deadline).await?;
            lease.set_transaction(true);
            let asks = attempts > 0;
            match lease.run(self.send(&lease, &batch, next, (asks, reads))).await {
                Ok(Sent::Began(began)) => {
                    let answers = Answers::read(&began.messages);
                    if !matches!(began.ready, Ready::Running(_)) {
                        break (lease, began, answers);
                    }
                    // Until its rows are read it can only be closed.
                    lease.set_busy(true);
                    if next.1.tables().all(|(table, _)| answers.confirm(table)) {
                        break (lease, began, answers);
                    }
                    // What the table is now has to be asked where no rows are in the way.
                    reads = false;
                }
                Ok(Sent::TooSoon) => {
                    lease.set_busy(true);
                    reads = false;
                }
                Ok(Sent::Spoilt) => {
                    self.memory.forget_rights();
                    attempts -= 1;
                }
                Err(error) if lease.is_stale(&error) || self.pool.lost_prepared(&error) => {}
                Err(error) => return Err(place(self.map(&error))),
            }
            drop(lease);
            permits.merge(self.pool.reserve(1, deadline).await?);
        };
        self.check(&lease, &tables, &answers).await?;
        let exported = match (exports, answers.exported.clone()) {
            (true, None) => return Err(SourceError::internal("no snapshot was exported")),
            (_, exported) => exported,
        };
        let (id, request) = (next.0, Arc::clone(next.1));
        let ready = Some(ReadyCopy { id, request, ready: began.ready });
        let mut state = self.state.lock();
        state.reserve = Some(permits);
        state.open += 1;
        state.idle.push(Leg { lease, exports, ready });
        drop(state);
        let mut pinned = began.pinned;
        let mut read = tables.iter().flat_map(|request| request.tables());
        pinned.confirmed = read.all(|(table, _)| answers.confirm(table));
        let checked = tables.iter().flat_map(|request| request.tables());
        let checked = checked.map(|(table, _)| table.name().clone()).collect();
        Ok(Begun { exported, checked, pinned })
    }

    /// Sends everything that begins the snapshot; with `asks` the questions for the position too,
    /// and with `reads` the query itself.
    async fn send(
        &self,
        lease: &Lease,
        batch: &str,
        (id, request): (CopyId, &Arc<ScanRequest>),
        (asks, reads): (bool, bool),
    ) -> Result<Sent, tokio_postgres::Error> {
        let client = lease.client();
        let question = match asks {
            true => Some(self.memory.question(client, self.pool.keeps_prepared()).await?),
            false => None,
        };
        let ask = || async {
            match &question {
                Some(question) => Ok(Answer::read(&client.simple_query(question).await?)),
                None => Ok(Answer::default()),
            }
        };
        // In order on one connection; a failed transaction fails what follows too.
        let rest = join(ask(), made_ready(lease, request, id.partition, reads));
        let (before, (messages, (after, ready))) =
            join(ask(), join(client.simple_query(batch), rest)).await;
        let messages = messages?;
        let (before, after) = match (before, after) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(error), _) | (_, Err(error)) => return self.spoilt(error),
        };
        let ready = ready?;
        if asks {
            // It was asked as a primary is and has become a standby: asked again as one.
            if self.memory.has_turned(&before) || self.memory.has_turned(&after) {
                return Ok(Sent::TooSoon);
            }
            if matches!(ready, Ready::Running(_)) && !self.memory.knows_lineage(&before) {
                return Ok(Sent::TooSoon);
            }
            if let Err(error) = self.memory.learn_lineage(client, &before).await {
                return self.spoilt(error);
            }
        }
        let mut pinned = Pinned::default();
        if asks {
            pinned.before = self.memory.position(&before);
            pinned.after = self.memory.position(&after);
            // A pooler in between may have asked one server and read from another.
            if !before.is_of_the_same_server(&after) {
                pinned.before.position = Position::Unknown;
                pinned.after.position = Position::Unknown;
            }
        }
        Ok(Sent::Began(Box::new(Began { messages, ready, pinned })))
    }

    /// A question for the position failed: for itself, or because the connection did, or did not
    /// keep what was prepared on it.
    fn spoilt(&self, error: tokio_postgres::Error) -> Result<Sent, tokio_postgres::Error> {
        if is_lost(&error) || self.pool.lost_prepared(&error) {
            return Err(error);
        }
        tracing::debug!(%error, "PostgreSQL did not say where it is");
        Ok(Sent::Spoilt)
    }

    /// Compares the tables with what was planned; describes again the ones whose stamp differs.
    pub(super) async fn check(
        &self,
        lease: &Lease,
        requests: &[Arc<ScanRequest>],
        answers: &Answers,
    ) -> Result<()> {
        let mut tables = Vec::new();
        for request in requests {
            let split = request.copies.len() > 1;
            for (table, used) in request.tables() {
                tables.push((table, used, split));
            }
        }
        for (table, used, split) in tables {
            let name = table.name();
            if answers.confirm(table) {
                continue;
            }
            let (sql, parameters) = (describe_sql(), [&*name.schema, &*name.name]);
            let rows = lease.run(lease.query(&sql, &parameters)).await;
            let rows = rows.map_err(|error| self.map(&error))?;
            let changed = match rows.first() {
                None => Some("the table is gone, or may no longer be read".to_owned()),
                Some(row) => {
                    let json = row.try_get::<_, String>(0).map_err(|error| self.map(&error))?;
                    let now = table_def(name, &json)?;
                    difference(table, &now, used).or_else(|| {
                        (split && !is_splittable(&now)).then(|| "its kind changed".to_owned())
                    })
                }
            };
            if let Some(what) = changed {
                return Err(changed_error(what).in_table(name));
            }
        }
        Ok(())
    }

    /// Everything up to the snapshot in one message.
    fn begin_batch(&self, exports: bool, requests: &[Arc<ScanRequest>]) -> String {
        let mut batch = self.session_settings(None);
        let mut tables: Vec<&TableDef> = Vec::new();
        for (table, _) in requests.iter().flat_map(|request| request.tables()) {
            if !tables.iter().any(|known| known.name() == table.name()) {
                tables.push(table);
            }
        }
        // In one order everywhere, so that two statements cannot wait for each other.
        tables.sort_by(|a, b| a.name().cmp(b.name()));
        let locked: Vec<String> = tables
            .iter()
            .filter(|table| is_lockable(table))
            .map(|table| qualified(table.name()))
            .collect();
        if !locked.is_empty() {
            batch.push_str(&format!("LOCK TABLE {} IN ACCESS SHARE MODE; ", locked.join(", ")));
        }
        // Its partitions must read one heap: this locks what LOCK TABLE refuses, to the end of
        // this transaction, which outlives the start of the last COPY.
        for request in requests {
            if request.copies.len() > 1 && !is_lockable(&request.table) {
                batch.push_str(&format!(
                    "SELECT FROM {} LIMIT 0; ",
                    qualified(request.table.name())
                ));
            }
        }
        if exports {
            batch.push_str("SELECT pg_catalog.pg_export_snapshot() AS exported; ");
        }
        let names = tables.iter().map(|table| table.name());
        batch.push_str(&stamps_sql(names, self.pool.keeps_prepared()));
        batch.push_str("; ");
        batch.push_str(&self.limits());
        if exports {
            batch.push_str("SAVEPOINT scan; ");
        }
        batch
    }

    pub(super) fn import_batch(&self, exported: &str) -> String {
        format!("{}{}", self.session_settings(Some(exported)), self.limits())
    }

    /// All of them end with the transaction, which poolers between us and the server rely on.
    fn session_settings(&self, import: Option<&str>) -> String {
        let mut batch = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ".to_owned();
        if let Some(exported) = import {
            batch.push_str(&format!("SET TRANSACTION SNAPSHOT {}; ", literal(exported)));
        }
        let mut name =
            format!("{} {}", self.pool.options().application_name, self.statement.query_id);
        while name.len() > APPLICATION_NAME_BYTES {
            name.pop();
        }
        batch.push_str("SET LOCAL standard_conforming_strings = on; ");
        batch.push_str(&format!("SET LOCAL application_name = {}; ", literal(&name)));
        // What a type becomes as text must not depend on the role's settings.
        batch.push_str(
            "SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'postgres'; \
             SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 1; \
             SET LOCAL bytea_output = 'hex'; ",
        );
        batch
    }

    /// Our deadline, unless the role's own limit is shorter; and what ends it when we are gone.
    fn limits(&self) -> String {
        let mut batch = NOTICE_A_LOST_CLIENT.to_owned();
        let Some(deadline) = self.statement.deadline else { return batch };
        let millis = deadline.remaining().as_millis().clamp(1, i32::MAX as u128);
        batch.push_str(&format!(
            "SELECT pg_catalog.set_config('statement_timeout', '{millis}', true) AS time_limit \
             WHERE NOT pg_catalog.current_setting('statement_timeout')::pg_catalog.interval \
             BETWEEN '1 millisecond' AND '{millis} milliseconds'; "
        ));
        batch
    }
}

/// What became of what [`Shared::send`] sent.
enum Sent {
    Began(Box<Began>),
    /// Something has to be asked first, and rows may be in the way already.
    TooSoon,
    /// Nothing but a question for the position failed, which has spoilt the transaction.
    Spoilt,
}

struct Began {
    messages: Vec<SimpleQueryMessage>,
    ready: Ready,
    pinned: Pinned,
}

/// What the server answered to the first message.
#[derive(Default)]
pub(super) struct Answers {
    exported: Option<String>,
    stamps: HashMap<TableName, String>,
}

impl Answers {
    /// Whether a table is what it was when it was described.
    fn confirm(&self, table: &TableDef) -> bool {
        self.stamps.get(table.name()).is_some_and(|stamp| *stamp == table.stamp)
    }

    fn read(messages: &[SimpleQueryMessage]) -> Self {
        let mut answers = Self::default();
        for message in messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            match (row.columns().first().map(|column| column.name()), row.len()) {
                (Some("exported"), _) => answers.exported = row.get(0).map(str::to_owned),
                (Some("table_schema"), 3) => {
                    if let (Some(schema), Some(name), Some(stamp)) =
                        (row.get(0), row.get(1), row.get(2))
                    {
                        answers.stamps.insert(TableName::new(schema, name), stamp.to_owned());
                    }
                }
                _ => {}
            }
        }
        answers
    }
}

pub(super) fn changed_error(what: String) -> SourceError {
    SourceError::new(
        ErrorKind::Changed,
        format!("{what} since the statement was planned; run it again"),
    )
}

fn is_lockable(table: &TableDef) -> bool {
    table.detail::<PgTable>().is_some_and(|table| table.lockable)
}

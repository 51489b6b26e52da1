//! One state of the server for all scans of a statement.
//!
//! The first scan that is opened begins: it reserves connections for every scan of the statement,
//! locks the tables, lets the server take its snapshot, and checks that the tables still are what
//! the plan says. With one scan that is all. With more, the snapshot is exported, and each scan
//! imports it into a transaction of its own: a *leg*.
//!
//! Tables are locked *before* the snapshot is taken, because a table that is rewritten after a
//! snapshot looks empty to it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use futures::future::join;
use parking_lot::Mutex;
use synoptic_source::{ErrorKind, Result, Snapshot, SourceError, Statement, TableDef};
use synoptic_types::TableName;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{CopyOutStream, SimpleQueryMessage, Statement as Prepared};

use super::discover::{
    PgTable, describe_sql, difference, identifier, literal, stamps_sql, table_def,
};
use super::error::from_postgres;
use super::pool::{Lease, Pool, within};

/// PostgreSQL's longest `application_name`.
const APPLICATION_NAME_BYTES: usize = 63;

/// What a scan needs to be opened.
#[derive(Debug)]
pub(super) struct ScanRequest {
    pub table: Arc<TableDef>,
    /// Indices of the columns that the projection and the filters use.
    pub used: Vec<usize>,
    /// Further tables of a relation, each with the columns that are used of it.
    pub further: Vec<(Arc<TableDef>, Vec<usize>)>,
    /// `COPY (…) TO STDOUT (FORMAT BINARY)`.
    pub copy: String,
    /// The SELECT inside, for tables that cannot be locked: preparing it locks them as far as
    /// possible and says what types they have now.
    pub select: Option<String>,
    /// The types the SELECT must have.
    pub wire_types: Vec<u32>,
}

impl ScanRequest {
    /// Every table that is read, with the columns that are used of it.
    fn tables(&self) -> impl Iterator<Item = (&Arc<TableDef>, &[usize])> {
        let further = self.further.iter().map(|(table, used)| (table, used.as_slice()));
        std::iter::once((&self.table, self.used.as_slice())).chain(further)
    }
}

/// A handle of the engine's; the streams share what is in it.
pub(super) struct PgSnapshot(pub Arc<Shared>);

impl Snapshot for PgSnapshot {}

impl fmt::Debug for PgSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgSnapshot({})", self.0.statement.query_id)
    }
}

/// The snapshot of one statement. When the last holder drops it, its transactions end.
pub(super) struct Shared {
    pub pool: Arc<Pool>,
    pub statement: Arc<Statement>,
    begun: OnceCell<Begun>,
    state: Mutex<State>,
    /// Told when a leg comes back.
    returned: Notify,
}

#[derive(Debug)]
struct Begun {
    /// The exported snapshot; `None` when there was a single scan.
    exported: Option<String>,
    /// Tables that are locked, where that is possible, and checked.
    checked: HashSet<TableName>,
}

#[derive(Default)]
struct State {
    /// Scans that were prepared and have no leg yet.
    waiting: HashMap<u64, Arc<ScanRequest>>,
    next: u64,
    /// Rights to connections that are not open yet.
    reserve: Option<OwnedSemaphorePermit>,
    /// Legs that are open and unused.
    idle: Vec<Leg>,
    /// A leg that exports the snapshot and can do nothing else any more.
    spent: Option<Leg>,
    /// Legs that are open.
    open: usize,
}

/// A scan's place in the statement, from its preparation to the end of the plan.
#[derive(Debug)]
pub(super) struct Registration {
    shared: std::sync::Weak<Shared>,
    id: u64,
}

impl Registration {
    /// Whether it is one of `shared`'s.
    pub fn belongs_to(&self, shared: &Arc<Shared>) -> bool {
        std::ptr::eq(self.shared.as_ptr(), Arc::as_ptr(shared))
    }
}

impl Drop for Registration {
    /// A plan that was never run does not count.
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.settle(self.id);
        }
    }
}

/// One transaction in the snapshot.
#[derive(Debug)]
struct Leg {
    lease: Lease,
    /// Others import the snapshot from it as long as it is open.
    exports: bool,
    /// What was prepared while it began, and for which scan.
    ready: Option<(u64, PreparedCopy)>,
}

#[derive(Debug)]
struct PreparedCopy {
    copy: Prepared,
    shape: Option<Prepared>,
}

/// A running COPY. Dropping it before its end cancels it.
pub(super) struct OpenCopy {
    shared: Arc<Shared>,
    leg: Option<Leg>,
    pub stream: std::pin::Pin<Box<CopyOutStream>>,
}

impl OpenCopy {
    /// The COPY came to its end: the leg can run another, or go.
    pub fn finished(mut self) {
        if let Some(leg) = self.leg.take() {
            leg.lease.set_busy(false);
            self.shared.give_back(leg, true);
        }
    }

    /// The server ended the COPY with an error.
    pub fn failed(mut self, error: &tokio_postgres::Error) {
        if let Some(leg) = self.leg.take() {
            leg.lease.set_busy(false);
            leg.lease.note(error);
            self.shared.give_back(leg, false);
        }
    }
}

impl Drop for OpenCopy {
    fn drop(&mut self) {
        if let Some(leg) = self.leg.take() {
            self.shared.give_back(leg, false);
        }
    }
}

impl Shared {
    pub fn new(pool: Arc<Pool>, statement: Arc<Statement>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            statement,
            begun: OnceCell::new(),
            state: Mutex::default(),
            returned: Notify::new(),
        })
    }

    /// Counts a scan in, so that the first one to be opened knows of all.
    pub fn register(self: &Arc<Self>, request: &Arc<ScanRequest>) -> Registration {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.insert(id, Arc::clone(request));
        Registration { shared: Arc::downgrade(self), id }
    }

    /// Starts a scan's COPY in the snapshot.
    ///
    /// # Errors
    /// `Unavailable` when there is no connection to be had, `Changed` when a table is not what
    /// was planned, and whatever the server says.
    pub async fn open(
        self: &Arc<Self>,
        registration: &Registration,
        request: &Arc<ScanRequest>,
    ) -> Result<OpenCopy> {
        let deadline = self.statement.deadline;
        let id = registration.id;
        self.state.lock().waiting.entry(id).or_insert_with(|| Arc::clone(request));
        let opened = async {
            let begun = self.begun.get_or_try_init(|| self.begin(id, request)).await?;
            // Whoever drops it from here on gives the leg back, and cancels what it runs.
            let mut leg = HeldLeg { shared: self, leg: Some(self.leg(id, request, begun).await?) };
            let prepared = match leg.take_ready() {
                Some((ready_for, prepared)) if ready_for == id => prepared,
                _ => leg.prepare(request).await.map_err(|e| self.map(&e))?,
            };
            check_shape(request, prepared.shape.as_ref())?;
            if !request.tables().all(|(table, _)| begun.checked.contains(table.name())) {
                let unknown = Answers::default();
                self.check(leg.lease(), std::slice::from_ref(request), &unknown).await?;
            }
            let stream = leg.copy(&prepared.copy).await.map_err(|e| self.map(&e))?;
            let leg = leg.leg.take();
            self.settle(id);
            Ok(OpenCopy { shared: Arc::clone(self), leg, stream: Box::pin(stream) })
        };
        within(deadline, opened).await
    }

    /// Begins the snapshot: reserves, locks, exports, checks.
    async fn begin(self: &Arc<Self>, id: u64, request: &Arc<ScanRequest>) -> Result<Begun> {
        let deadline = self.statement.deadline;
        let (scans, tables) = self.planned();
        let place = |error: SourceError| match tables.as_slice() {
            [only] if matches!(error.kind(), ErrorKind::Changed | ErrorKind::PermissionDenied) => {
                error.in_table(only.table.name())
            }
            _ => error,
        };
        let mut permits = self.pool.reserve(scans, deadline).await?;
        let exports = scans > 1;
        let batch = self.begin_batch(exports, &tables);
        let (lease, messages, prepared) = loop {
            // There is at least one: `reserve` gives no fewer.
            let permit = permits
                .split(1)
                .ok_or_else(|| SourceError::internal("a reservation of no connections"))?;
            let lease = self.pool.checkout(permit, deadline).await?;
            lease.set_transaction(true);
            let begin = async {
                let batch = lease.client().simple_query(&batch);
                // In order on one connection; a failed transaction fails the second too.
                let (messages, prepared) = join(batch, prepare(&lease, request)).await;
                Ok((messages?, prepared?))
            };
            match lease.run(begin).await {
                Ok((messages, prepared)) => break (lease, messages, prepared),
                Err(error) if lease.is_stale(&error) => {
                    drop(lease);
                    let more = self.pool.reserve(1, deadline).await?;
                    permits.merge(more);
                }
                Err(error) => return Err(place(self.map(&error))),
            }
        };
        let answers = Answers::read(&messages);
        self.check(&lease, &tables, &answers).await?;
        let exported = match (exports, answers.exported) {
            (true, None) => return Err(SourceError::internal("no snapshot was exported")),
            (_, exported) => exported,
        };
        let mut state = self.state.lock();
        state.reserve = Some(permits);
        state.open += 1;
        state.idle.push(Leg { lease, exports, ready: Some((id, prepared)) });
        drop(state);
        let checked = tables.iter().flat_map(|request| request.tables());
        let checked = checked.map(|(table, _)| table.name().clone()).collect();
        Ok(Begun { exported, checked })
    }

    /// How many scans wait, and one request per table.
    fn planned(&self) -> (usize, Vec<Arc<ScanRequest>>) {
        let state = self.state.lock();
        (state.waiting.len(), state.waiting.values().cloned().collect())
    }

    /// An idle leg, or a new one, or the next to come back.
    async fn leg(
        self: &Arc<Self>,
        id: u64,
        request: &Arc<ScanRequest>,
        begun: &Begun,
    ) -> Result<Leg> {
        let patience = self.pool.options().acquire_timeout;
        loop {
            let returned = self.returned.notified();
            let permit = {
                let mut state = self.state.lock();
                // The one that is ready for this scan, else any.
                let ready = state.idle.iter().position(|leg| leg.is_ready_for(id));
                if let Some(leg) = ready.map(|i| state.idle.swap_remove(i)).or(state.idle.pop()) {
                    return Ok(leg);
                }
                if state.open == 0 && state.spent.is_none() {
                    return Err(SourceError::internal(
                        "a scan was opened after the snapshot of its statement had ended",
                    ));
                }
                state.reserve.as_mut().and_then(|reserve| reserve.split(1))
            };
            if let (Some(permit), Some(exported)) = (permit, &begun.exported) {
                return self.import(permit, exported, id, request).await;
            }
            // More scans than connections: one of them has to end first.
            if timeout(patience, returned).await.is_err() {
                return Err(SourceError::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the statement has more scans at a time than max_connections ({}) and \
                         none ended within acquire_timeout; raise max_connections",
                        self.pool.options().max_connections
                    ),
                ));
            }
        }
    }

    async fn import(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        exported: &str,
        id: u64,
        request: &Arc<ScanRequest>,
    ) -> Result<Leg> {
        let deadline = self.statement.deadline;
        let mut permit = permit;
        let batch = self.import_batch(exported);
        loop {
            let lease = self.pool.checkout(permit, deadline).await?;
            lease.set_transaction(true);
            let begin = async {
                let batch = lease.client().simple_query(&batch);
                let (messages, prepared) = join(batch, prepare(&lease, request)).await;
                messages?;
                prepared
            };
            match lease.run(begin).await {
                Ok(prepared) => {
                    self.state.lock().open += 1;
                    return Ok(Leg { lease, exports: false, ready: Some((id, prepared)) });
                }
                Err(error) if lease.is_stale(&error) => {
                    drop(lease);
                    permit = self.pool.reserve(1, deadline).await?;
                }
                Err(error) => return Err(self.map(&error)),
            }
        }
    }

    /// Takes a leg back. `clean`: its COPY ended well and another one may follow.
    fn give_back(&self, leg: Leg, clean: bool) {
        let mut state = self.state.lock();
        let wanted = !state.waiting.is_empty();
        if wanted && clean {
            state.idle.push(leg);
        } else if wanted && leg.exports {
            // Others have yet to import from it. Its savepoint keeps the transaction, and with it
            // the snapshot, through the cancel.
            leg.lease.cancel();
            leg.lease.set_busy(true);
            state.spent = Some(leg);
        } else {
            state.open -= 1;
            drop(state);
            drop(leg);
        }
        self.returned.notify_waiters();
    }

    /// A scan has its leg, or will never want one. After the last one, nothing is kept for others.
    fn settle(&self, id: u64) {
        let mut state = self.state.lock();
        state.waiting.remove(&id);
        if !state.waiting.is_empty() || self.begun.get().is_none() {
            return;
        }
        let idle = std::mem::take(&mut state.idle);
        let spent = state.spent.take();
        let reserve = state.reserve.take();
        state.open -= idle.len() + usize::from(spent.is_some());
        drop(state);
        drop((idle, spent, reserve));
    }

    fn map(&self, error: &tokio_postgres::Error) -> SourceError {
        from_postgres(error, self.statement.deadline)
    }

    /// Compares the tables with what was planned; describes again the ones whose stamp differs.
    async fn check(
        &self,
        lease: &Lease,
        requests: &[Arc<ScanRequest>],
        answers: &Answers,
    ) -> Result<()> {
        for (table, used) in requests.iter().flat_map(|request| request.tables()) {
            let name = table.name();
            let stamp = answers.stamps.get(name);
            if stamp.is_some_and(|stamp| *stamp == table.stamp) {
                continue;
            }
            let (sql, parameters) = (describe_sql(), [&*name.schema, &*name.name]);
            let rows = lease.run(lease.query(&sql, &parameters)).await;
            let rows = rows.map_err(|error| self.map(&error))?;
            let changed = match rows.first() {
                None => Some("the table is gone, or may no longer be read".to_owned()),
                Some(row) => {
                    let json = row.try_get::<_, String>(0).map_err(|error| self.map(&error))?;
                    difference(table, &table_def(name, &json)?, used)
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
        if exports {
            batch.push_str("SELECT pg_catalog.pg_export_snapshot() AS exported; ");
        }
        batch.push_str(&stamps_sql(tables.iter().map(|table| table.name())));
        batch.push_str("; ");
        batch.push_str(&self.time_limit());
        if exports {
            batch.push_str("SAVEPOINT scan; ");
        }
        batch
    }

    fn import_batch(&self, exported: &str) -> String {
        format!("{}{}", self.session_settings(Some(exported)), self.time_limit())
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

    /// Our deadline, unless the role's own limit is shorter.
    fn time_limit(&self) -> String {
        let Some(deadline) = self.statement.deadline else { return String::new() };
        let millis = deadline.remaining().as_millis().clamp(1, i32::MAX as u128);
        format!(
            "SELECT pg_catalog.set_config('statement_timeout', '{millis}', true) AS time_limit \
             WHERE NOT pg_catalog.current_setting('statement_timeout')::pg_catalog.interval \
             BETWEEN '1 millisecond' AND '{millis} milliseconds'; "
        )
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("statement", &self.statement).finish_non_exhaustive()
    }
}

impl Leg {
    fn is_ready_for(&self, id: u64) -> bool {
        self.ready.as_ref().is_some_and(|(ready_for, _)| *ready_for == id)
    }
}

/// A leg on its way from the snapshot to a running COPY.
struct HeldLeg<'a> {
    shared: &'a Arc<Shared>,
    leg: Option<Leg>,
}

impl HeldLeg<'_> {
    fn lease(&self) -> &Lease {
        match &self.leg {
            Some(leg) => &leg.lease,
            None => unreachable!("the leg is taken only once its COPY runs"),
        }
    }

    fn take_ready(&mut self) -> Option<(u64, PreparedCopy)> {
        self.leg.as_mut().and_then(|leg| leg.ready.take())
    }

    async fn prepare(&self, request: &ScanRequest) -> Result<PreparedCopy, tokio_postgres::Error> {
        self.lease().run(prepare(self.lease(), request)).await
    }

    /// Leaves the lease busy when the COPY runs.
    async fn copy(&self, copy: &Prepared) -> Result<CopyOutStream, tokio_postgres::Error> {
        let lease = self.lease();
        lease.set_busy(true);
        let result = lease.client().copy_out(copy).await;
        if let Err(error) = &result {
            lease.set_busy(false);
            lease.note(error);
        }
        result
    }
}

impl Drop for HeldLeg<'_> {
    fn drop(&mut self) {
        if let Some(leg) = self.leg.take() {
            self.shared.give_back(leg, false);
        }
    }
}

/// What the server answered to the first message.
#[derive(Default)]
struct Answers {
    exported: Option<String>,
    stamps: HashMap<TableName, String>,
}

impl Answers {
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

/// Prepares a scan's texts. The first poll sends both.
async fn prepare(
    lease: &Lease,
    request: &ScanRequest,
) -> Result<PreparedCopy, tokio_postgres::Error> {
    let client = lease.client();
    let copy = client.prepare(&request.copy);
    match &request.select {
        None => Ok(PreparedCopy { copy: copy.await?, shape: None }),
        Some(select) => {
            let (shape, copy) = join(client.prepare(select), copy).await;
            Ok(PreparedCopy { shape: Some(shape?), copy: copy? })
        }
    }
}

/// A table that could not be locked before the snapshot is locked by now, and this is what it is.
fn check_shape(request: &ScanRequest, shape: Option<&Prepared>) -> Result<()> {
    let Some(shape) = shape else { return Ok(()) };
    let found: Vec<u32> = shape.columns().iter().map(|column| Type::oid(column.type_())).collect();
    for (i, (found, planned)) in found.iter().zip(&request.wire_types).enumerate() {
        if found != planned {
            let name = shape.columns().get(i).map_or("?", |column| column.name());
            let is = shape.columns().get(i).map_or("?", |column| column.type_().name());
            return Err(
                changed_error(format!("column {name} is {is} now")).in_table(request.table.name())
            );
        }
    }
    if found.len() == request.wire_types.len() {
        return Ok(());
    }
    Err(changed_error("it has other columns now".to_owned()).in_table(request.table.name()))
}

fn changed_error(what: String) -> SourceError {
    SourceError::new(
        ErrorKind::Changed,
        format!("{what} since the statement was planned; run it again"),
    )
}

fn is_lockable(table: &TableDef) -> bool {
    table.detail::<PgTable>().is_some_and(|table| table.lockable)
}

/// `"schema"."name"`.
pub(super) fn qualified(table: &TableName) -> String {
    format!("{}.{}", identifier(&table.schema), identifier(&table.name))
}

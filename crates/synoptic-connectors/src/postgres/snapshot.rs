//! One state of the server for all scans of a statement.
//!
//! [`Shared::pin`], or else the first scan that is opened, begins: it reserves connections for every scan of the statement,
//! locks the tables, lets the server take its snapshot, and checks that the tables still are what
//! the plan says. With one COPY that is all. With more, the snapshot is exported, and each COPY
//! imports it into a transaction of its own: a *leg*.
//!
//! A scan may be split into several COPYs. One connection per scan is reserved before anything
//! begins; a scan gets a second leg only while every scan that has none could still have one, or
//! from the pool when that has plenty. So no scan ever waits for another one's reader, and COPYs
//! that find no leg take turns on those of their own scan.
//!
//! With `pin`, the position of the server is asked before and after: before in a message of its
//! own, because the snapshot of a statement that reads the position may be older than what it
//! reads; after it in the transaction, which then stands. All of it is one round trip.
//!
//! Tables are locked *before* the snapshot is taken, because a table that is rewritten after a
//! snapshot looks empty to it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join;
use parking_lot::Mutex;
use synoptic_source::{ErrorKind, Pinned, Result, Snapshot, SourceError, Statement, TableDef};
use synoptic_types::{Position, TableName};
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{CopyOutStream, RowStream, SimpleQueryMessage, Statement as Prepared};

use super::discover::{
    PgTable, describe_sql, difference, identifier, literal, stamps_sql, table_def,
};
use super::error::{from_postgres, is_lost};
use super::pool::{Lease, Pool, within};
use super::position::{Answer, Memory};
use super::tap::Rows;

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

/// What a scan needs to be opened.
#[derive(Debug)]
pub(super) struct ScanRequest {
    pub table: Arc<TableDef>,
    /// Indices of the columns that the projection and the filters use.
    pub used: Vec<usize>,
    /// Further tables of a relation, each with the columns that are used of it.
    pub further: Vec<(Arc<TableDef>, Vec<usize>)>,
    /// `COPY (…) TO STDOUT (FORMAT BINARY)`, one for each partition.
    pub copies: Vec<String>,
    /// There is one partition, and its text is a query instead, for the row protocol: see
    /// `rows.rs`. Never for tables that cannot be locked.
    pub by_rows: bool,
    /// What EXPLAIN shows of them.
    pub shown: String,
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

#[async_trait]
impl Snapshot for PgSnapshot {
    async fn pin(&self) -> Result<Pinned> {
        self.0.pin(false).await.map_err(|error| self.0.pool.name(error))
    }

    async fn pin_for_its_scan(&self) -> Result<Pinned> {
        self.0.pin(true).await.map_err(|error| self.0.pool.name(error))
    }
}

impl fmt::Debug for PgSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PgSnapshot({})", self.0.statement.query_id)
    }
}

/// The snapshot of one statement. When the last holder drops it, its transactions end.
pub(super) struct Shared {
    pub pool: Arc<Pool>,
    pub statement: Arc<Statement>,
    memory: Arc<Memory>,
    begun: OnceCell<Begun>,
    state: Mutex<State>,
    /// Told when a leg comes back, or is not wanted any more.
    returned: Notify,
    /// Batches that readers have taken.
    moved: AtomicU64,
}

#[derive(Debug)]
struct Begun {
    /// The exported snapshot; `None` when there was a single scan.
    exported: Option<String>,
    /// Tables that are locked, where that is possible, and checked.
    checked: HashSet<TableName>,
    /// Where the server was; unknown when nobody asked.
    pinned: Pinned,
}

#[derive(Default)]
struct State {
    /// Scans that were prepared and of which some COPY has not been started yet.
    waiting: HashMap<u64, Waiting>,
    next: u64,
    /// Rights to connections that are not open yet.
    reserve: Option<OwnedSemaphorePermit>,
    /// Legs that are open and unused.
    idle: Vec<Leg>,
    /// A leg that exports the snapshot and can do nothing else any more.
    spent: Option<Leg>,
    /// Legs that are open.
    open: usize,
    /// COPYs that have a leg or are getting one.
    held: usize,
    /// A connection could not be opened: the legs there are have to do.
    makes_do: bool,
}

struct Waiting {
    request: Arc<ScanRequest>,
    /// COPYs that have not been started yet.
    left: usize,
    /// Its COPYs that have a leg or are getting one.
    held: usize,
}

/// What there is for a COPY that wants a leg.
enum Chance {
    Idle(Box<Leg>, Hold),
    New(OwnedSemaphorePermit, Hold),
    /// Nothing now; another COPY has to end first.
    Later,
    /// Nothing, and nothing will come back.
    Never(Hold),
}

/// One COPY of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CopyId {
    scan: u64,
    partition: usize,
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
    /// What was prepared while it began.
    ready: Option<ReadyCopy>,
}

/// A COPY that is prepared, and what it was made of: a scan may have been narrowed since.
#[derive(Debug)]
struct ReadyCopy {
    id: CopyId,
    request: Arc<ScanRequest>,
    ready: Ready,
}

/// How far it is.
enum Ready {
    /// Its texts are known to the server.
    Prepared(PreparedCopy),
    /// It is a query, which needs no preparation.
    Query,
    /// It is a query and was sent together with what began its transaction. Its rows must be read
    /// before anything else is asked on its connection.
    Running(Pin<Box<RowStream>>),
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared(_) => "Prepared",
            Self::Query => "Query",
            Self::Running(_) => "Running",
        })
    }
}

/// What comes from the server.
pub(super) enum Incoming {
    /// The rows that come past tokio-postgres, and what comes behind them; without the former all is
    /// in the latter.
    Copy(Option<Rows>, Pin<Box<CopyOutStream>>),
    Rows(Pin<Box<RowStream>>),
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
    /// Dropped after the leg was given back.
    _hold: Hold,
    pub incoming: Incoming,
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
    pub fn new(pool: Arc<Pool>, memory: Arc<Memory>, statement: Arc<Statement>) -> Arc<Self> {
        Arc::new(Self {
            pool,
            statement,
            memory,
            begun: OnceCell::new(),
            state: Mutex::default(),
            returned: Notify::new(),
            moved: AtomicU64::new(0),
        })
    }

    /// Counts a scan in, so that the first one to be opened knows of all.
    pub fn register(self: &Arc<Self>, request: &Arc<ScanRequest>) -> Registration {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        state.waiting.insert(id, Waiting::new(request, request.copies.len()));
        Registration { shared: Arc::downgrade(self), id }
    }

    /// Notes that a reader took a batch.
    pub fn progressed(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts one COPY of a scan in the snapshot.
    ///
    /// # Errors
    /// `Unavailable` when there is no connection to be had, `Changed` when a table is not what
    /// was planned, and whatever the server says.
    pub async fn open(
        self: &Arc<Self>,
        registration: &Registration,
        request: &Arc<ScanRequest>,
        partition: usize,
    ) -> Result<OpenCopy> {
        let deadline = self.statement.deadline;
        let id = CopyId { scan: registration.id, partition };
        let again = || Waiting::new(request, 1);
        self.state.lock().waiting.entry(id.scan).or_insert_with(again);
        let opened = async {
            // Nobody else can have a use for the transaction, when there is no other scan.
            let begin = || self.begin((id, request), false, true);
            let begun = self.begun.get_or_try_init(begin).await?;
            let (leg, hold) = self.leg(id, request, begun).await?;
            // Whoever drops it from here on gives the leg back, and cancels what it runs.
            let mut leg = HeldLeg { shared: self, leg: Some(leg), hold };
            let ready = match leg.take_ready() {
                Some(ready) if ready.id == id && Arc::ptr_eq(&ready.request, request) => {
                    ready.ready
                }
                other => {
                    if let Some(ReadyCopy { ready: Ready::Running(rows), .. }) = other {
                        leg.read_away(rows).await.map_err(|e| self.map(&e))?;
                    }
                    leg.prepare(request, partition).await.map_err(|e| self.map(&e))?
                }
            };
            if let Ready::Prepared(prepared) = &ready {
                check_shape(request, prepared.shape.as_ref())?;
            }
            if !request.tables().all(|(table, _)| begun.checked.contains(table.name())) {
                let unknown = Answers::default();
                self.check(leg.lease(), std::slice::from_ref(request), &unknown).await?;
            }
            let incoming = leg.start(ready, request).await.map_err(|e| self.map(&e))?;
            let (leg, hold) = leg.into_parts();
            self.started(id.scan);
            let shared = Arc::clone(self);
            Ok(OpenCopy { shared, leg, _hold: hold, incoming })
        };
        within(deadline, opened).await
    }

    /// Takes the snapshot for all scans that are registered, and says where the server was before
    /// and after. When there are none, nothing is sent and nothing is known. `reads`: the scan will
    /// be opened as it is, so that it may be begun at once.
    ///
    /// # Errors
    /// As [`Shared::open`], but for the COPY itself.
    pub async fn pin(self: &Arc<Self>, reads: bool) -> Result<Pinned> {
        let pinned = async {
            if let Some(begun) = self.begun.get() {
                return Ok(begun.pinned.clone());
            }
            let first = self.first_waiting();
            let Some((id, request)) = &first else { return Ok(Pinned::default()) };
            let begun =
                self.begun.get_or_try_init(|| self.begin((*id, request), true, reads)).await?;
            Ok(begun.pinned.clone())
        };
        within(self.statement.deadline, pinned).await
    }

    /// The first COPY of the scan that was prepared first.
    fn first_waiting(&self) -> Option<(CopyId, Arc<ScanRequest>)> {
        let state = self.state.lock();
        let (scan, waiting) = state.waiting.iter().min_by_key(|(scan, _)| **scan)?;
        Some((CopyId { scan: *scan, partition: 0 }, Arc::clone(&waiting.request)))
    }

    /// Begins the snapshot: reserves, locks, exports, checks, and prepares the COPY `next`, all in
    /// one round trip; with `asks`, the position is asked before and after. With `reads`, and when
    /// `next` is the only one and has few rows, it is begun in the same round trip: its rows are
    /// handed on only when everything before them is found right.
    async fn begin(
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

    /// How many COPYs wait, and the request of each scan.
    fn planned(&self) -> (usize, Vec<Arc<ScanRequest>>) {
        let state = self.state.lock();
        let copies = state.waiting.values().map(|scan| scan.left).sum();
        (copies, state.waiting.values().map(|scan| Arc::clone(&scan.request)).collect())
    }

    /// An idle leg, or a new one, or the next to come back.
    async fn leg(
        self: &Arc<Self>,
        id: CopyId,
        request: &Arc<ScanRequest>,
        begun: &Begun,
    ) -> Result<(Leg, Hold)> {
        let patience = self.pool.options().acquire_timeout;
        let mut moved = None;
        loop {
            let returned = self.returned.notified();
            let claim = match self.chance(id, begun.exported.is_some())? {
                Chance::Idle(leg, hold) => return Ok((*leg, hold)),
                Chance::New(permit, hold) => Some((permit, hold)),
                Chance::Never(hold) => {
                    Some((self.pool.reserve(1, self.statement.deadline).await?, hold))
                }
                Chance::Later => None,
            };
            if let (Some((permit, hold)), Some(exported)) = (claim, &begun.exported) {
                match self.import(permit, exported, id, request).await {
                    Ok(leg) => return Ok((leg, hold)),
                    // The server may have fewer connections for us than we may open.
                    Err(error)
                        if error.kind() == ErrorKind::Unavailable && self.is_one_of_many() =>
                    {
                        tracing::debug!(%error, "a scan goes on with fewer connections");
                        self.state.lock().make_do();
                        hold.forget();
                    }
                    Err(error) => return Err(error),
                }
            }
            // More COPYs than connections: one of them has to end first. That can take as long as
            // its reader takes, unless it waits for this one.
            if timeout(patience, returned).await.is_err() {
                let now = self.moved.load(Ordering::Relaxed);
                let stuck = moved.replace(now) == Some(now);
                let has_none = self.state.lock().held_by(id.scan) == 0;
                if stuck && has_none {
                    return Err(self.too_few_connections());
                }
            }
        }
    }

    /// What there is for a COPY now.
    fn chance(self: &Arc<Self>, id: CopyId, exported: bool) -> Result<Chance> {
        let mut state = self.state.lock();
        if state.open == 0 && state.spent.is_none() {
            return Err(SourceError::internal(
                "a scan was opened after the snapshot of its statement had ended",
            ));
        }
        let (mut leg, mut permit) = (None, None);
        if state.may_take(id.scan) {
            // The one that is ready for this COPY, else any.
            let ready = state.idle.iter().position(|leg| leg.is_ready_for(id));
            leg = ready.map(|i| state.idle.swap_remove(i)).or(state.idle.pop());
            if leg.is_none() && exported {
                permit = state.reserve.as_mut().and_then(|reserve| reserve.split(1));
            }
        }
        if leg.is_none() && permit.is_none() && exported && !state.makes_do {
            permit = self.pool.extra();
        }
        if leg.is_none() && permit.is_none() && state.held > 0 {
            return Ok(Chance::Later);
        }
        state.hold(id.scan, 1);
        drop(state);
        let hold = Hold { shared: Arc::clone(self), scan: Some(id.scan) };
        Ok(match (leg, permit) {
            (Some(leg), _) => Chance::Idle(Box::new(leg), hold),
            (None, Some(permit)) => Chance::New(permit, hold),
            (None, None) => Chance::Never(hold),
        })
    }

    /// Whether another leg is in use, which will come back.
    fn is_one_of_many(&self) -> bool {
        self.state.lock().held > 1
    }

    fn too_few_connections(&self) -> SourceError {
        SourceError::new(
            ErrorKind::Unavailable,
            format!(
                "the statement has more scans at a time than max_connections ({}) and none moved \
                 within acquire_timeout; raise max_connections",
                self.pool.options().max_connections
            ),
        )
    }

    async fn import(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        exported: &str,
        id: CopyId,
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
                let (messages, ready) =
                    join(batch, made_ready(&lease, request, id.partition, false)).await;
                messages?;
                ready
            };
            match lease.run(begin).await {
                Ok(ready) => {
                    self.state.lock().open += 1;
                    let ready = ReadyCopy { id, request: Arc::clone(request), ready };
                    return Ok(Leg { lease, exports: false, ready: Some(ready) });
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

    /// A COPY of a scan runs.
    fn started(&self, scan: u64) {
        let mut state = self.state.lock();
        if let Some(waiting) = state.waiting.get_mut(&scan) {
            waiting.left = waiting.left.saturating_sub(1);
            if waiting.left > 0 {
                return;
            }
        }
        drop(state);
        self.settle(scan);
    }

    /// A scan has all its legs, or will never want more. After the last one, nothing is kept for
    /// others.
    fn settle(&self, scan: u64) {
        let mut state = self.state.lock();
        state.waiting.remove(&scan);
        self.returned.notify_waiters();
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

    fn import_batch(&self, exported: &str) -> String {
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

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("statement", &self.statement).finish_non_exhaustive()
    }
}

impl Waiting {
    fn new(request: &Arc<ScanRequest>, copies: usize) -> Self {
        Self { request: Arc::clone(request), left: copies, held: 0 }
    }
}

impl State {
    fn held_by(&self, scan: u64) -> usize {
        self.waiting.get(&scan).map_or(0, |waiting| waiting.held)
    }

    fn hold(&mut self, scan: u64, more: isize) {
        self.held = self.held.saturating_add_signed(more);
        if let Some(waiting) = self.waiting.get_mut(&scan) {
            waiting.held = waiting.held.saturating_add_signed(more);
        }
    }

    /// Whether `scan` may take a leg without leaving too few for scans that have none.
    fn may_take(&self, scan: u64) -> bool {
        let reserved = self.reserve.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let others = self.waiting.iter().filter(|(id, w)| **id != scan && w.held == 0).count();
        self.held_by(scan) == 0 || self.idle.len() + reserved > others
    }

    fn make_do(&mut self) {
        self.makes_do = true;
        self.reserve = None;
    }
}

/// A COPY's claim to a leg, from the moment it looks for one until the leg is given back.
struct Hold {
    shared: Arc<Shared>,
    scan: Option<u64>,
}

impl Hold {
    /// It came to nothing; nobody else gains by that.
    fn forget(mut self) {
        if let Some(scan) = self.scan.take() {
            self.shared.state.lock().hold(scan, -1);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(scan) = self.scan.take() {
            self.shared.state.lock().hold(scan, -1);
            self.shared.returned.notify_waiters();
        }
    }
}

impl Leg {
    fn is_ready_for(&self, id: CopyId) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.id == id)
    }
}

/// A leg on its way from the snapshot to a running COPY.
struct HeldLeg<'a> {
    shared: &'a Arc<Shared>,
    leg: Option<Leg>,
    hold: Hold,
}

impl HeldLeg<'_> {
    fn lease(&self) -> &Lease {
        match &self.leg {
            Some(leg) => &leg.lease,
            None => unreachable!("the leg is taken only once its COPY runs"),
        }
    }

    fn take_ready(&mut self) -> Option<ReadyCopy> {
        self.leg.as_mut().and_then(|leg| leg.ready.take())
    }

    async fn prepare(
        &self,
        request: &ScanRequest,
        partition: usize,
    ) -> Result<Ready, tokio_postgres::Error> {
        self.lease().run(made_ready(self.lease(), request, partition, false)).await
    }

    /// Reads rows that nobody wants, so that the connection can be asked something else. There are
    /// few, or else another has estimated wrongly; they are not kept.
    async fn read_away(&self, mut rows: Pin<Box<RowStream>>) -> Result<(), tokio_postgres::Error> {
        self.lease()
            .run(async {
                while rows.next().await.transpose()?.is_some() {}
                Ok(())
            })
            .await
    }

    /// The leg, which runs its COPY now, and the claim to it.
    fn into_parts(mut self) -> (Option<Leg>, Hold) {
        let hold = Hold { shared: Arc::clone(self.shared), scan: self.hold.scan.take() };
        (self.leg.take(), hold)
    }

    /// Leaves the lease busy when the COPY, or the query, runs.
    async fn start(
        &self,
        ready: Ready,
        request: &ScanRequest,
    ) -> Result<Incoming, tokio_postgres::Error> {
        let lease = self.lease();
        lease.set_busy(true);
        let result = match ready {
            Ready::Running(rows) => Ok(Incoming::Rows(rows)),
            Ready::Query => query(lease, request).await.map(Incoming::Rows),
            Ready::Prepared(prepared) => {
                let past = lease.rows();
                let copy = lease.client().copy_out(&prepared.copy).await;
                copy.map(|messages| Incoming::Copy(past, Box::pin(messages)))
            }
        };
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
struct Answers {
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

/// Begins a query. The first poll sends it.
async fn query(
    lease: &Lease,
    request: &ScanRequest,
) -> Result<Pin<Box<RowStream>>, tokio_postgres::Error> {
    let sql = request.copies.first().map_or("", String::as_str);
    let none: [(&str, Type); 0] = [];
    Ok(Box::pin(lease.client().query_typed_raw(sql, none).await?))
}

/// Prepares a scan's texts, or begins its query when it is one and `reads`. The first poll sends
/// all there is.
async fn made_ready(
    lease: &Lease,
    request: &ScanRequest,
    partition: usize,
    reads: bool,
) -> Result<Ready, tokio_postgres::Error> {
    if request.by_rows {
        return match reads {
            true => query(lease, request).await.map(Ready::Running),
            false => Ok(Ready::Query),
        };
    }
    prepare(lease, request, partition).await.map(Ready::Prepared)
}

async fn prepare(
    lease: &Lease,
    request: &ScanRequest,
    partition: usize,
) -> Result<PreparedCopy, tokio_postgres::Error> {
    let client = lease.client();
    // `open` has checked the number.
    let copy = client.prepare(request.copies.get(partition).map_or("", String::as_str));
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

/// Whether its pages can be read in several ranges.
pub(super) fn is_splittable(table: &TableDef) -> bool {
    table.detail::<PgTable>().is_some_and(|table| table.splittable)
}

fn is_lockable(table: &TableDef) -> bool {
    table.detail::<PgTable>().is_some_and(|table| table.lockable)
}

/// `"schema"."name"`.
pub(super) fn qualified(table: &TableName) -> String {
    format!("{}.{}", identifier(&table.schema), identifier(&table.name))
}

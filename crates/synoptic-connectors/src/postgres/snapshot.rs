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

mod begin;
mod copy;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::future::join;
use parking_lot::Mutex;
use synoptic_source::{ErrorKind, Pinned, Result, Snapshot, SourceError, Statement, TableDef};
use synoptic_types::TableName;
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit};
use tokio::time::timeout;

use super::discover::{PgTable, identifier};
use super::error::from_postgres;
use super::pool::{Lease, Pool, within};
use super::position::Memory;

use begin::Answers;
use copy::{HeldLeg, Ready, ReadyCopy, check_shape, made_ready};
pub use copy::{Incoming, OpenCopy};

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

/// Whether its pages can be read in several ranges.
pub(super) fn is_splittable(table: &TableDef) -> bool {
    table.detail::<PgTable>().is_some_and(|table| table.splittable)
}

/// `"schema"."name"`.
pub(super) fn qualified(table: &TableName) -> String {
    format!("{}.{}", identifier(&table.schema), identifier(&table.name))
}

//! A bounded set of connections, each with the one task that drives it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use synoptic_source::{CopyPosition, ErrorKind, Result, SourceError};
use synoptic_types::{Deadline, SourceName, TableName};
use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage, Socket};
use tokio_util::task::AbortOnDropHandle;

use super::connect::{Connector, can_be_tapped, without_tls};
use super::discover::{prepare_stamps_sql, stamps_sql};
use super::error::{from_postgres, is_fatal, is_lost, timed_out};
use super::options::Options;
use super::position::{Memory, prepare_position_sql};
use super::tap::{Rows, Tap};
use super::tls::Tls;

/// An unused connection is closed after this long, and any connection at this age, so that
/// rotated credentials, failovers and leaking servers do not last for ever.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
const REAP_EVERY: Duration = Duration::from_secs(60);
/// After which pauses a cancel request is sent again, as long as the connection has not ended: one
/// that arrives before its query has begun is lost, and one that arrives after it does nothing.
const CANCEL_AGAIN: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// How long a connection may take to say goodbye, its query being cancelled if there is one.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// For questions to the catalog, which belong to no statement.
const METADATA_TIMEOUT: Duration = Duration::from_secs(30);

/// The connections of one source. At most `max_connections` are open, used and idle together.
pub(super) struct Pool {
    options: Options,
    source: SourceName,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    tls: OnceCell<Tls>,
    reaper: Mutex<Option<AbortOnDropHandle<()>>>,
    /// Whether connections keep what was prepared on them: not when a pooler stands in between
    /// that changes the server's connection from one transaction to the next.
    keeps_prepared: AtomicBool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("options", &self.options)
            .field("available", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}

/// A connection and its task. Dropping it cancels nothing, says goodbye, and ends the task within
/// [`CLOSE_GRACE`].
struct Connection {
    client: Client,
    /// The rows of its COPYs, where they can be had without tokio-postgres.
    tap: Option<Arc<Tap>>,
    cancel: Arc<Notify>,
    /// Takes the permit along, so that the connection counts until it is closed.
    closing: Option<oneshot::Sender<Option<OwnedSemaphorePermit>>>,
    opened: Instant,
    used: Instant,
}

/// A connection that is in use. Dropping it gives it back when it is clean, with its transaction
/// rolled back; else what it runs is cancelled and it is closed.
pub(super) struct Lease {
    connection: Option<Connection>,
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Pool>,
    /// Came from the idle ones, so the server may have closed it meanwhile.
    reused: bool,
    /// Something was sent whose end was not seen.
    busy: AtomicBool,
    /// The server is about to close it.
    broken: AtomicBool,
    /// A transaction may be open.
    transaction: AtomicBool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("busy", &self.busy).finish_non_exhaustive()
    }
}

impl Pool {
    pub fn new(source: SourceName, options: Options) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_connections as usize));
        Self {
            options,
            source,
            permits,
            idle: Mutex::default(),
            tls: OnceCell::new(),
            reaper: Mutex::default(),
            keeps_prepared: AtomicBool::new(true),
        }
    }

    /// Whether to execute what connections have prepared when they were opened.
    pub fn keeps_prepared(&self) -> bool {
        self.keeps_prepared.load(Ordering::Relaxed)
    }

    /// Whether `error` says that a connection did not keep what was prepared. From then on nothing
    /// relies on it, and what failed is to be tried again.
    pub fn lost_prepared(&self, error: &tokio_postgres::Error) -> bool {
        let lost = error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME);
        if lost {
            self.keeps_prepared.store(false, Ordering::Relaxed);
        }
        lost
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Names the source in an error.
    pub fn name(&self, error: SourceError) -> SourceError {
        error.in_source(&self.source)
    }

    /// Waits for the right to use `wanted` connections, or as many as there can be. All at once,
    /// so that two statements cannot each hold half of what both need.
    ///
    /// # Errors
    /// `Unavailable` after `acquire_timeout`, `Timeout` at the deadline.
    pub async fn reserve(
        &self,
        wanted: usize,
        deadline: Option<Deadline>,
    ) -> Result<OwnedSemaphorePermit> {
        let most = self.options.max_connections;
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, most);
        let permits = Arc::clone(&self.permits).acquire_many_owned(wanted);
        let patience = self.options.acquire_timeout;
        let reserved = within(deadline, async { Ok(timeout(patience, permits).await) }).await?;
        match reserved {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(SourceError::new(
                ErrorKind::Unavailable,
                format!(
                    "no {wanted} of its {most} connections were free within acquire_timeout \
                     ({}); raise max_connections, or run fewer statements at a time",
                    synoptic_types::format_duration(patience)
                ),
            )),
        }
    }

    /// The right to use one more connection, when at least half of all are free: what makes one
    /// statement faster must not keep others from beginning.
    pub fn extra(&self) -> Option<OwnedSemaphorePermit> {
        let most = self.options.max_connections as usize;
        if self.permits.available_permits() * 2 < most {
            return None;
        }
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Waits until no connection is in use or being closed, as long as a close may take.
    pub async fn settle(&self) {
        let all = self.permits.acquire_many(self.options.max_connections);
        let _ = timeout(CLOSE_GRACE, all).await;
    }

    /// An idle connection, or a new one.
    ///
    /// # Errors
    /// `Unavailable` or `PermissionDenied` when there is no way to connect.
    pub async fn checkout(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        deadline: Option<Deadline>,
    ) -> Result<Lease> {
        let idle = self.take_idle();
        let reused = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect(deadline).await?,
        };
        Ok(Lease {
            connection: Some(connection),
            permit: Some(permit),
            pool: Arc::clone(self),
            reused,
            busy: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            transaction: AtomicBool::new(false),
        })
    }

    /// Runs one read-only question to the catalog with text parameters.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn query(self: &Arc<Self>, sql: &str, parameters: &[&str]) -> Result<Vec<Row>> {
        let deadline = Deadline::after(METADATA_TIMEOUT);
        let asked = async {
            loop {
                let permit = self.reserve(1, deadline).await?;
                let lease = self.checkout(permit, deadline).await?;
                match lease.run(lease.query(sql, parameters)).await {
                    Err(error) if lease.is_stale(&error) => {}
                    result => return result.map_err(|e| from_postgres(&e, deadline)),
                }
            }
        };
        within(deadline, asked).await.map_err(|error| self.name(error))
    }

    /// The stamp of `table`, in a single round trip; `None` when there is no such table.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn stamp(self: &Arc<Self>, table: &TableName) -> Result<Option<String>> {
        // The protocol has no way to say it, and no table has such a name.
        if table.schema.contains('\0') || table.name.contains('\0') {
            return Ok(None);
        }
        let sql = |pool: &Self| stamps_sql(std::iter::once(table), pool.keeps_prepared());
        let messages = self.simple_query(sql).await?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get("stamp").map(str::to_owned),
            _ => None,
        }))
    }

    /// Runs read-only questions to the catalog or the planner, several in one message and so in one
    /// transaction; asks anew for them when they have to be sent again.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn simple_query(
        self: &Arc<Self>,
        sql: impl Fn(&Self) -> String + Send + Sync,
    ) -> Result<Vec<SimpleQueryMessage>> {
        let deadline = Deadline::after(METADATA_TIMEOUT);
        let asked = async {
            loop {
                let permit = self.reserve(1, deadline).await?;
                let lease = self.checkout(permit, deadline).await?;
                match lease.run(lease.client().simple_query(&sql(self))).await {
                    Err(error) if lease.is_stale(&error) || self.lost_prepared(&error) => {}
                    result => return result.map_err(|e| from_postgres(&e, deadline)),
                }
            }
        };
        within(deadline, asked).await.map_err(|error| self.name(error))
    }

    /// Asks where the server is, in one message; the first time on a timeline, a few more.
    ///
    /// # Errors
    /// What the server says, or that it cannot be reached.
    pub async fn position(self: &Arc<Self>, memory: &Memory) -> Result<CopyPosition> {
        let deadline = Deadline::after(METADATA_TIMEOUT);
        let asked = async {
            let mut spoilt = false;
            loop {
                let permit = self.reserve(1, deadline).await?;
                let lease = self.checkout(permit, deadline).await?;
                match lease.run(memory.ask(lease.client())).await {
                    Ok(position) => return Ok(position),
                    Err(error) if lease.is_stale(&error) => {}
                    // A right may have been taken away.
                    Err(error) if !spoilt && !is_lost(&error) => {
                        spoilt = true;
                        memory.forget_rights();
                    }
                    Err(error) => return Err(from_postgres(&error, deadline)),
                }
            }
        };
        within(deadline, asked).await.map_err(|error| self.name(error))
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(connection) = idle.pop() {
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(self: &Arc<Self>, deadline: Option<Deadline>) -> Result<Connection> {
        let limit = self.options.connect_timeout;
        let connected = within(deadline, async {
            let tls = self.tls.get_or_try_init(|| Tls::load(&self.options)).await?;
            Ok(timeout(limit, Connection::open(&self.options, tls.clone())).await)
        });
        let place = &self.options.location;
        match connected.await? {
            Ok(Ok(connection)) => {
                self.reap_idle();
                Ok(connection)
            }
            Ok(Err(error)) => {
                let error = from_postgres(&error, deadline);
                Err(SourceError::new(error.kind(), format!("cannot connect to {place}: {error}")))
            }
            Err(_) => Err(SourceError::new(
                ErrorKind::Unavailable,
                format!(
                    "cannot connect to {place}: no answer within connect_timeout ({})",
                    synoptic_types::format_duration(limit)
                ),
            )),
        }
    }

    /// Starts the task that closes what nobody uses; it ends with the pool.
    fn reap_idle(self: &Arc<Self>) {
        let mut reaper = self.reaper.lock();
        if reaper.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let pool: Weak<Self> = Arc::downgrade(self);
        *reaper = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(REAP_EVERY).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.idle.lock().retain(Connection::is_usable);
            }
        })));
    }
}

/// Runs `work` up to the deadline.
///
/// # Errors
/// `Timeout` once it has passed.
pub(super) async fn within<T>(
    deadline: Option<Deadline>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(deadline) = deadline else { return work.await };
    match tokio::time::timeout_at(deadline.instant().into(), work).await {
        Ok(result) => result,
        Err(_) => Err(timed_out()),
    }
}

impl Connection {
    async fn open(options: &Options, tls: Tls) -> Result<Self, tokio_postgres::Error> {
        if !can_be_tapped(&options.config) {
            return match tls {
                Tls::Off => Self::open_with(&options.config, NoTls, NoTls, None).await,
                Tls::On(tls) => Self::open_with(&options.config, tls.clone(), tls, None).await,
            };
        }
        let (config, tap) = (without_tls(&options.config), Arc::<Tap>::default());
        let connector = Connector::new(&options.config, tls.clone(), Arc::clone(&tap));
        let canceller = Connector::new(&options.config, tls, Arc::default());
        Self::open_with(&config, connector, canceller, Some(tap)).await
    }

    /// Cancel requests go over connections of their own, made with `canceller`.
    async fn open_with<T>(
        config: &Config,
        connector: T,
        canceller: T,
        tap: Option<Arc<Tap>>,
    ) -> Result<Self, tokio_postgres::Error>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let connected = config.connect(connector).await?;
        let (client, closing, cancel) = Self::start(connected, canceller);
        // The first poll sends it; its answer is read and thrown away before the next one's. Should
        // it fail, executing it says so.
        for sql in [prepare_stamps_sql(), prepare_position_sql()] {
            let _ = client.batch_execute(&sql).now_or_never();
        }
        let now = Instant::now();
        Ok(Self { client, tap, cancel, closing: Some(closing), opened: now, used: now })
    }

    fn start<S, T>(
        (client, connection): (Client, tokio_postgres::Connection<Socket, S>),
        canceller: T,
    ) -> (Client, oneshot::Sender<Option<OwnedSemaphorePermit>>, Arc<Notify>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let (closing, closed) = oneshot::channel();
        let cancel = Arc::new(Notify::new());
        let token = client.cancel_token();
        let wanted = Arc::clone(&cancel);
        // Owned by the `Connection`: its drop closes the channel, and with that ends the task.
        tokio::spawn(async move {
            let cancels = async {
                loop {
                    wanted.notified().await;
                    for pause in CANCEL_AGAIN {
                        let sent = token.cancel_query(canceller.clone());
                        if let Ok(Err(error)) = timeout(CLOSE_GRACE, sent).await {
                            tracing::debug!(%error, "a cancel request did not reach PostgreSQL");
                        }
                        sleep(pause).await;
                    }
                }
            };
            let work = async {
                tokio::select! {
                    ended = connection => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a connection to PostgreSQL ended");
                        }
                    }
                    () = cancels => {}
                }
            };
            tokio::pin!(work);
            let permit = tokio::select! {
                () = &mut work => return,
                permit = closed => permit,
            };
            let _ = timeout(CLOSE_GRACE, work).await;
            drop(permit);
        });
        (client, closing, cancel)
    }

    fn is_usable(&self) -> bool {
        !self.client.is_closed()
            && self.opened.elapsed() < MAX_LIFETIME
            && self.used.elapsed() < IDLE_TIMEOUT
    }

    fn close(mut self, permit: Option<OwnedSemaphorePermit>) {
        if let Some(closing) = self.closing.take() {
            // When the task has ended already, the permit comes back and is dropped here.
            let _ = closing.send(permit);
        }
    }
}

impl Lease {
    /// The client.
    ///
    /// # Panics
    /// Never: the connection is there until the lease is dropped.
    pub fn client(&self) -> &Client {
        match &self.connection {
            Some(connection) => &connection.client,
            None => unreachable!("a lease has its connection until it is dropped"),
        }
    }

    /// The rows of the COPY that is sent next; see [`Tap::rows`].
    pub fn rows(&self) -> Option<Rows> {
        self.connection.as_ref()?.tap.as_ref().map(|tap| tap.rows())
    }

    /// Waits for `work`; if this future is dropped before it is done, the connection is not used
    /// again and what it runs is cancelled.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        self.set_busy(true);
        let result = work.await;
        self.set_busy(false);
        if let Err(error) = &result {
            self.note(error);
        }
        result
    }

    /// Runs one statement without preparing it first, so in a single round trip.
    ///
    /// # Errors
    /// What the server says.
    pub async fn query(
        &self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> =
            parameters.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
        self.client().query_typed(sql, &typed).await
    }

    /// Whether something runs on it whose end must be seen, or else be cancelled.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether a transaction must be rolled back before others use the connection.
    pub fn set_transaction(&self, open: bool) {
        self.transaction.store(open, Ordering::Relaxed);
    }

    /// Remembers an error after which the connection cannot be used.
    pub fn note(&self, error: &tokio_postgres::Error) {
        if is_fatal(error) {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `error` only says that the server closed an idle connection meanwhile.
    pub fn is_stale(&self, error: &tokio_postgres::Error) -> bool {
        self.reused && is_lost(error)
    }

    /// Cancels what runs, without waiting. The connection stays with the lease and can only be
    /// dropped: the cancel may arrive late and hit whatever would run next.
    pub fn cancel(&self) {
        if let Some(connection) = &self.connection {
            connection.cancel.notify_one();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let permit = self.permit.take();
        if *self.busy.get_mut() {
            connection.cancel.notify_one();
            return connection.close(permit);
        }
        if *self.broken.get_mut() || !connection.is_usable() {
            return connection.close(permit);
        }
        if *self.transaction.get_mut() {
            // The first poll sends it; its answer is read and thrown away before the next one's.
            let sent = connection.client.batch_execute("ROLLBACK").now_or_never();
            if matches!(sent, Some(Err(_))) {
                return connection.close(permit);
            }
        }
        connection.used = Instant::now();
        self.pool.idle.lock().push(connection);
        drop(permit);
    }
}

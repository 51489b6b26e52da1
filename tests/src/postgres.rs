//! A real PostgreSQL of the test's own, on a free loopback port.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs its arguments as a child and ends it when standard input closes, so that a server never
/// outlives the test, however that ends.
const KEEPER: &str = r#""$@" & pid=$!; read -r _; kill -QUIT "$pid"; wait "$pid""#;

/// A running server. Dropping it stops it and deletes its data.
#[derive(Debug)]
pub struct PostgresServer {
    dir: TempDir,
    port: u16,
    settings: Vec<String>,
    /// `None` while it is stopped.
    keeper: Option<Child>,
    databases: AtomicUsize,
}

impl PostgresServer {
    /// Makes and starts a new server.
    ///
    /// # Panics
    /// When there is no PostgreSQL on this machine, or it does not start.
    pub fn start() -> Self {
        Self::start_with(&[], |_| {})
    }

    /// Starts a new server with more settings (`name=value`); `prepare` may put files into its
    /// data folder first.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    pub fn start_with(settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let dir = new_dir();
        let data = dir.path().join("data");
        run(as_owner("initdb", dir.path())
            .args(["--username=postgres", "--auth=trust"])
            .args([
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "--no-instructions",
                "--pgdata",
            ])
            .arg(&data));
        // The role `guarded` needs its password; everybody else is let in.
        let access = "host all guarded 127.0.0.1/32 scram-sha-256\n\
                      host all all 127.0.0.1/32 trust\n\
                      host replication all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), access).expect("pg_hba.conf is written");
        prepare(&data);
        Self::launch(dir, settings)
    }

    /// The server that tests share while at least one of them runs. Make a database of your own.
    ///
    /// # Panics
    /// As [`PostgresServer::start`].
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// A streaming standby of this server, caught up with what it has now.
    ///
    /// # Panics
    /// When it cannot be made or does not start.
    pub fn standby(&self) -> Self {
        self.standby_through(self.port)
    }

    /// A standby that streams through another port of this machine: a [`Proxy`], say.
    ///
    /// [`Proxy`]: crate::proxy::Proxy
    ///
    /// # Panics
    /// As [`PostgresServer::standby`].
    pub fn standby_through(&self, port: u16) -> Self {
        let dir = new_dir();
        let data = dir.path().join("data");
        run(as_owner("pg_basebackup", dir.path())
            .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"])
            .args(["--no-sync", "--host=127.0.0.1", "--username=postgres"])
            .arg(format!("--port={}", self.port))
            .arg("--pgdata")
            .arg(&data));
        // The last file wins, so no sign of this server is left in the standby.
        let follow = format!("primary_conninfo=host=127.0.0.1 port={port} user=postgres");
        Self::launch(dir, &["hot_standby=on", "wal_retrieve_retry_interval=100ms", &follow])
    }

    /// Stops replay at the next record; what arrives is kept.
    ///
    /// # Panics
    /// When it is no standby.
    pub async fn pause_replay(&self) {
        self.execute("SELECT pg_wal_replay_pause()").await;
    }

    /// Goes on with what [`PostgresServer::pause_replay`] stopped.
    ///
    /// # Panics
    /// When it is no standby.
    pub async fn resume_replay(&self) {
        self.execute("SELECT pg_wal_replay_resume()").await;
    }

    /// Makes this standby a primary, and waits until it is.
    ///
    /// # Panics
    /// When it is no standby.
    pub async fn promote(&self) {
        self.execute("SELECT pg_promote(true, 60)").await;
    }

    async fn execute(&self, sql: &str) {
        let client = self.client("postgres").await;
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Ends the server at once, as a crash does; its data and its port stay.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Starts what [`PostgresServer::stop`] has ended, with more settings.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self, settings: &[&str]) {
        self.stop();
        self.settings.extend(settings.iter().map(|&setting| setting.to_owned()));
        self.run();
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database, as the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database with a new name.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn create_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let client = self.client("postgres").await;
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .expect("a database is created");
        name
    }

    /// A client of the superuser. Its connection ends when it is dropped.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self, database: &str) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url(database), NoTls).await.expect("the server answers");
        tokio::spawn(connection);
        client
    }

    fn launch(dir: TempDir, settings: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("there is a free port")
            .port();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let databases = AtomicUsize::new(0);
        let mut server = Self { dir, port, settings, keeper: None, databases };
        server.run();
        server
    }

    fn run(&mut self) {
        let dir = self.dir.path();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log"));
        let log = log.expect("a log is made");
        let mut keeper = as_owner_program(Path::new("sh"), dir);
        keeper.args(["-c", KEEPER, "sh"]).arg(binary("postgres"));
        keeper.arg("-D").arg(dir.join("data")).args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=off",
            "max_connections=100",
            "autovacuum=off",
            "log_min_messages=warning",
        ] {
            keeper.args(["-c", setting]);
        }
        for setting in &self.settings {
            keeper.args(["-c", setting]);
        }
        let errors = log.try_clone().expect("a log is shared");
        let keeper = keeper.stdin(Stdio::piped()).stdout(log).stderr(errors).spawn();
        self.keeper = Some(keeper.expect("the server is started"));
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let started = Instant::now();
        let port = format!("--port={}", self.port);
        while started.elapsed() < START_TIMEOUT {
            let ready = Command::new(binary("pg_isready"))
                .args(["--quiet", "--host=127.0.0.1", &port])
                .status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        panic!("PostgreSQL did not start within {START_TIMEOUT:?}:\n{log}");
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A folder that belongs to the user the server runs as.
fn new_dir() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("synoptic-postgres-")
        .tempdir()
        .expect("a temporary folder is made");
    if is_root() {
        run(Command::new("chown").arg("postgres:").arg(dir.path()));
    }
    dir
}

fn as_owner(program: &str, dir: &Path) -> Command {
    as_owner_program(&binary(program), dir)
}

/// The server refuses to run as root.
fn as_owner_program(program: &Path, dir: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(dir).env("LC_ALL", "C.UTF-8");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// A program of the newest installed PostgreSQL.
fn binary(program: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(program)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    versions.sort();
    versions.pop().map_or_else(|| PathBuf::from(program), |(_, path)| path)
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?} cannot be run ({error}): PostgreSQL must be installed for this test")
    });
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

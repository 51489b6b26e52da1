"""PostgreSQL servers of the benchmarks: made once, kept in a folder, on free loopback ports while they run.

fsync is off: what is measured is reading, and the data can be made again.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import psycopg

from support.postgres import bin_dir
from support.process import free_port, run_as, spawn, stop

USER = "bench"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "1GB",
    "work_mem": "128MB",
    "maintenance_work_mem": "512MB",
    "effective_cache_size": "12GB",
    "random_page_cost": "1.1",
    "effective_io_concurrency": "100",
    "max_worker_processes": "8",
    "max_parallel_workers": "2",
    "max_parallel_workers_per_gather": "2",
    "jit": "off",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "autovacuum": "off",
    "timezone": "UTC",
}


class Cluster:
    """One server over `folder`, made when it is not there. It ends with this process, however that ends."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.data = folder, folder / "data"
        self.port = free_port()
        self.as_user = "postgres" if os.getuid() == 0 else None
        self.env = {**os.environ, "LC_ALL": "C.UTF-8"}
        folder.mkdir(parents=True, exist_ok=True)
        if self.as_user:
            shutil.chown(folder, self.as_user, self.as_user)
        if not (self.data / "PG_VERSION").exists():
            run_as([bin_dir() / "initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8",
                    "--locale=C.UTF-8", "--no-sync"], self.as_user, env=self.env)
        self._start()

    def _start(self) -> None:
        log = self.folder / "postgres.log"
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
        with log.open("ab") as out:
            self.process = spawn(
                [bin_dir() / "postgres", "-D", self.data, "-p", str(self.port), *settings], as_user=self.as_user,
                dies_by=signal.SIGQUIT, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while True:
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text(errors="replace")[-3000:]) from None
                time.sleep(0.05)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str, database: str = "postgres"):
        """The rows of a statement, or None when it has none."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def end_statements(self) -> None:
        """Ends what runs for clients that were given up."""
        self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                 " WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()")

    def stop(self) -> None:
        # SIGINT is PostgreSQL's fast shutdown.
        stop(self.process, signal.SIGINT, 120)

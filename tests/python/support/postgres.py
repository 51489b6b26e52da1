"""A PostgreSQL primary and a streaming standby of the tests' own, on loopback."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import psycopg

from .process import free_port, run_as, spawn, stop

# Must never be seen in a log, an error, EXPLAIN or a system table.
PASSWORD = "Hunter2-n3v3r-sh0w-this"
USER = "synoptic"


def bin_dir():
    if os.environ.get("PG_BIN"):
        return pathlib.Path(os.environ["PG_BIN"])
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if not on_path:
        raise RuntimeError("PostgreSQL's server programs are missing: run ./tests/run setup as root")
    return pathlib.Path(on_path).resolve().parent


def libfaketime():
    """The library that makes clocks lie."""
    found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        raise RuntimeError("libfaketime is missing: run ./tests/run setup as root")
    return found[0]


class Postgres:
    """One server. `folder` is its own; `of` makes it a standby of another. With `clock`, an offset
    as faketime(1) takes it (`+1h`, `-1d`, `+0 x1.5`), its clock lies; `set_clock` makes it jump."""

    SETTINGS = {
        "fsync": "off",
        "shared_buffers": "64MB",
        "max_connections": "100",
        "unix_socket_directories": "",
        "listen_addresses": "127.0.0.1",
        "max_wal_senders": "4",
        "wal_level": "replica",
        "hot_standby_feedback": "on",
        "logging_collector": "off",
        "autovacuum": "off",
        "timezone": "UTC",
    }

    def __init__(self, folder, of=None, clock=None):
        self.port = free_port()
        self.data = folder / "data"
        self.log = folder / "postgres.log"
        self.as_user = "postgres" if os.getuid() == 0 else None
        folder.mkdir(parents=True, exist_ok=True)
        if self.as_user:
            shutil.chown(folder, self.as_user, self.as_user)
        env = {**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"}
        if of is None:
            secret = folder / "password"
            secret.write_text(PASSWORD)
            secret.chmod(0o644)
            run_as(
                [bin_dir() / "initdb", "-D", self.data, "-U", USER, "-A", "scram-sha-256",
                 f"--pwfile={secret}", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
                self.as_user, env=env)
        else:
            run_as(
                [bin_dir() / "pg_basebackup", "-D", self.data, "-R", "-h", "127.0.0.1", "-p", str(of.port),
                 "-U", USER, "-c", "fast", "--no-sync"],
                self.as_user, env=env)
        self.process = None
        self.lie = None
        if clock is not None:
            self.lie = folder / "clock"
            self.set_clock(clock)
        self.start()

    def set_clock(self, clock):
        # Replaced, not written to: the servers read it all the time.
        part = self.lie.with_suffix(".part")
        part.write_text(clock + "\n")
        part.chmod(0o644)
        part.replace(self.lie)

    def environment(self):
        if self.lie is None:
            return None
        return {**os.environ, "LD_PRELOAD": str(libfaketime()), "FAKETIME_TIMESTAMP_FILE": str(self.lie),
                "FAKETIME_CACHE_DURATION": "1"}

    def start(self):
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in self.SETTINGS.items()]
        with self.log.open("ab") as log:
            # SIGQUIT is PostgreSQL's immediate shutdown: right when the tests die.
            self.process = spawn(
                [bin_dir() / "postgres", "-D", self.data, "-p", str(self.port), *settings],
                as_user=self.as_user, dies_by=signal.SIGQUIT, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, env=self.environment())
        deadline = time.monotonic() + 60
        while True:
            try:
                with self.connect():
                    return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self.log.read_text(errors="replace")[-3000:]) from None
                time.sleep(0.05)

    def stop(self):
        # SIGINT is PostgreSQL's fast shutdown.
        stop(self.process, signal.SIGINT, 30)

    def url(self, database="postgres", password=PASSWORD):
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database="postgres", **options):
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5, **options)

    def run(self, sql, database="postgres"):
        with self.connect(database) as connection:
            return connection.execute(sql)

    def rows(self, sql, database="postgres"):
        with self.connect(database) as connection:
            return connection.execute(sql).fetchall()

    def running(self, pattern):
        """Backends that run a statement whose text is LIKE `pattern`, other than this one."""
        return self.rows(
            "SELECT pid, query FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend'"
            f" AND pid <> pg_backend_pid() AND query LIKE '{pattern}'")

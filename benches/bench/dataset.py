"""TPC-H once for all benchmarks, in one folder: Parquet, SQLite, two PostgreSQL servers, and DuckDB's answers.

FOLDER/sfN/parquet/TABLE.parquet   zstd, groups of 122,880 rows
FOLDER/sfN/tpch.sqlite             all tables; decimals are REAL and dates text, as SQLite's users have them
FOLDER/sfN/answers.json            what DuckDB answers over its own tables, for every question
FOLDER/pg, FOLDER/pg2              a server each, with all tables in the database tpch_N

Each step is done once; a step that broke off is done again.
"""

import fcntl
import json
import pathlib
import shutil
import sqlite3
import time

import duckdb

from support import tpch

from . import answers, questions
from .cluster import Cluster

INDEXES = [
    "CREATE INDEX ON nation (n_regionkey)", "CREATE INDEX ON supplier (s_nationkey)",
    "CREATE INDEX ON customer (c_nationkey)", "CREATE INDEX ON partsupp (ps_suppkey)",
    "CREATE INDEX ON orders (o_custkey)", "CREATE INDEX ON orders (o_orderdate)",
    "CREATE INDEX ON lineitem (l_partkey, l_suppkey)", "CREATE INDEX ON lineitem (l_suppkey)",
    "CREATE INDEX ON lineitem (l_shipdate)",
]
# varchar instead of char(n): blank padding has tests of its own.
TO_POSTGRES = {"DECIMAL(15,2)": "numeric(15,2)", "VARCHAR": "varchar", "BIGINT": "bigint", "INTEGER": "integer",
               "DATE": "date"}
TO_SQLITE = {"DECIMAL(15,2)": "REAL", "VARCHAR": "TEXT", "BIGINT": "BIGINT", "INTEGER": "INTEGER", "DATE": "DATE"}


class Dataset:
    """The data of one scale and its running servers; `close` stops them."""

    def __init__(self, folder: pathlib.Path, scale: str):
        self.folder, self.scale = folder.resolve(), scale
        self.own = self.folder / f"sf{scale}"
        self.database = "tpch_" + scale.replace(".", "_")
        self.own.mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(f"another benchmark is using {self.folder}: wait for it, or give another --data") from None
        self.servers: dict[str, Cluster] = {}
        try:
            self._make_files()
            for name in ("pg", "pg2"):
                self.servers[name] = Cluster(self.folder / name)
                self._load(name)
        except BaseException:
            self.close()
            raise

    def parquet(self, table: str) -> pathlib.Path:
        return self.own / "parquet" / f"{table}.parquet"

    @property
    def sqlite(self) -> pathlib.Path:
        return self.own / "tpch.sqlite"

    @property
    def answers(self) -> pathlib.Path:
        return self.own / "answers.json"

    def url(self, server: str) -> str:
        return self.servers[server].url(self.database)

    def places(self) -> dict:
        """Where everything is, for the processes of the engines."""
        return {
            "parquet": {table: str(self.parquet(table)) for table in tpch.TABLES},
            "sqlite": str(self.sqlite),
            "answers": str(self.answers),
            "database": self.database,
            "pg": {name: server.port for name, server in self.servers.items()},
        }

    def close(self) -> None:
        for server in self.servers.values():
            server.stop()
        self.servers = {}
        self.lock.close()

    def _make_files(self) -> None:
        if self.answers.exists():
            return
        say(f"making TPC-H at scale {self.scale} in {self.own}")
        work = self.own / "local.duckdb"
        work.unlink(missing_ok=True)
        local = duckdb.connect(str(work))
        tpch.load_extension(local, "tpch")
        local.execute(f"CALL dbgen(sf={self.scale})")
        shutil.rmtree(self.own / "parquet", ignore_errors=True)
        (self.own / "parquet").mkdir()
        for table in tpch.TABLES:
            local.execute(f"COPY {table} TO '{self.parquet(table)}'"
                          " (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)")
        self._make_sqlite(local)
        right = {name: answers.canonical(local.execute(questions.text(name)).fetchall()) for name in questions.ALL}
        local.close()
        work.unlink()
        self.answers.write_text(json.dumps(right))

    def _make_sqlite(self, local) -> None:
        self.sqlite.unlink(missing_ok=True)
        target = sqlite3.connect(self.sqlite)
        target.execute("PRAGMA journal_mode = OFF")
        target.execute("PRAGMA synchronous = OFF")
        for table in tpch.TABLES:
            described = tpch.columns(local, table)
            declared = ", ".join(f"{name} {TO_SQLITE[kind]} NOT NULL" for name, kind in described)
            target.execute(f"CREATE TABLE {table} ({declared}, PRIMARY KEY ({tpch.KEYS[table]}))")
            casts = {"DECIMAL(15,2)": "DOUBLE", "DATE": "VARCHAR"}
            chosen = ", ".join(f"{name}::{casts[kind]}" if kind in casts else name for name, kind in described)
            rows = local.execute(f"SELECT {chosen} FROM {table}")
            insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(described))})"
            while block := rows.fetchmany(100_000):
                target.executemany(insert, block)
            target.commit()
        target.execute("ANALYZE")
        target.commit()
        target.close()

    def _load(self, name: str) -> None:
        server, done = self.servers[name], self.folder / f"{name}-{self.database}.loaded"
        if done.exists():
            return
        began = time.monotonic()
        server.run(f"DROP DATABASE IF EXISTS {self.database}")
        server.run(f"CREATE DATABASE {self.database}")
        local = duckdb.connect()
        tpch.load_extension(local, "postgres_scanner")
        local.execute(f"ATTACH '{self.url(name)}' AS target (TYPE postgres)")
        for table in tpch.TABLES:
            source = f"read_parquet('{self.parquet(table)}')"
            kinds = local.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            declared = ", ".join(f"{column} {TO_POSTGRES[kind]} NOT NULL" for column, kind, *_ in kinds)
            server.run(f"CREATE TABLE {table} ({declared})", self.database)
            local.execute("CALL pg_clear_cache()")
            local.execute(f"INSERT INTO target.public.{table} SELECT * FROM {source}")
        local.close()
        for table in tpch.TABLES:
            server.run(f"ALTER TABLE {table} ADD PRIMARY KEY ({tpch.KEYS[table]})", self.database)
        for index in INDEXES:
            server.run(index, self.database)
        server.run("VACUUM (FREEZE, ANALYZE)", self.database)
        server.run("CHECKPOINT")
        done.touch()
        say(f"loaded scale {self.scale} into {name} in {time.monotonic() - began:.0f} s")


def say(text: str) -> None:
    print(f"-- {text}", flush=True)

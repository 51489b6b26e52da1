"""TPC-H's 22 queries over tables spread over sources, against DuckDB's answers on its own tables.

P1 has lineitem, part and partsupp as Parquet, orders and customer in PostgreSQL, nation, region and
supplier in SQLite; P3 has everything in PostgreSQL; A, B and C split the tables over two databases.
The main cases run at scale 0.1 (SYNOPTIC_TPCH_SF sets another), the matrix of options at 0.01.
"""

import datetime as dt
import decimal
import functools
import os
import textwrap

import pyarrow.flight as fl
import pytest

from support import tpch
from support.clients import query
from support.server import Server

MAIN = os.environ.get("SYNOPTIC_TPCH_SF", "0.1")
SMALL = "0.01"
# What is asked with: the server, and the options of the statement.
WAYS = {
    "auto": ("usual", {}),
    "no-pushdown": ("usual", {"x_synoptic_pushdown": "none"}),
    "no-dynamic-filters": ("usual", {"x_synoptic_dynamic_filters": "off"}),
    "one-partition": ("one", {}),
    "many-partitions": ("many", {}),
}
# `[server]` and PostgreSQL's options of each server. With `many`, tables of a few pages are split too.
SERVERS = {
    "usual": ("", ""),
    "one": ("target_partitions = 1", "max_partitions = 1"),
    "many": ("target_partitions = 8\nbatch_size = 1000", "max_partitions = 4\nmin_partition_size = '64KiB'"),
}
CASES = [(MAIN, placement, way) for placement in ("P1", "P3") for way in ("auto", "no-pushdown")]
CASES += [(SMALL, placement, way) for placement in tpch.PLACEMENTS for way in WAYS]

pytestmark = pytest.mark.timeout(600)


class Scale:
    """The data of one scale in every source, DuckDB's answers, and the servers that were asked for."""

    def __init__(self, factor, folder, postgres):
        self.folder = folder
        local = tpch.generate(factor)
        self.right = {name: [tuple(map(cell, row)) for row in local.execute(tpch.text(name)).fetchall()]
                      for name in tpch.QUERIES}
        tpch.to_parquet(local, folder / "lake")
        # The second database is there for the splits, which only the matrix has.
        databases = [f"tpch_{factor.replace('.', '_')}_{at}" for at in range(2 if factor == SMALL else 1)]
        for database in databases:
            tpch.to_postgres(local, postgres, database, folder / "csv")
        tpch.to_sqlite(local, folder / "lite.db", ["nation", "region", "supplier"])
        local.close()
        self.urls = dict(zip(("pg", "pg2"), map(postgres.url, databases)))
        self.servers = {}

    @functools.cache
    def client(self, name):
        settings, options = SERVERS[name]
        config = self.folder / f"{name}.toml"
        text = textwrap.dedent(f"""
            [sources.lake]
            connector = "files"
            location = "./lake/"
            format = "parquet"
            [sources.lite]
            connector = "sqlite"
            path = "./lite.db"
            """)
        for source, url in self.urls.items():
            text += f'[sources.{source}]\nconnector = "postgres"\nurl = "{url}"\n{options}\n'
        config.write_text(f'[server]\nlisten = "127.0.0.1:0"\n{settings}\n{text}')
        self.servers[name] = server = Server(config, self.folder / f"{name}.log")
        return fl.connect(server.url)

    def stop(self):
        for name, server in self.servers.items():
            self.client(name).close()
            server.stop()


@pytest.fixture(scope="module")
def scales(folder, postgres):
    """Makes the data of a scale once, when it is first asked for."""
    made = {}

    def scale(factor):
        if factor not in made:
            made[factor] = Scale(factor, folder / f"tpch-{factor}", postgres)
        return made[factor]

    yield scale
    for scale in made.values():
        scale.stop()


def cell(value):
    if isinstance(value, dt.datetime):
        return value.date().isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, (int, decimal.Decimal)):
        return float(value)
    return value


def same_cell(got, want):
    if isinstance(got, float) and isinstance(want, float):
        return abs(got - want) <= max(0.01, 1e-6 * abs(want))
    return got == want


def different(got, want):
    """The first difference between two lists of rows in their own orders, or None."""
    if len(got) != len(want):
        return f"{len(got)} rows, not {len(want)}"
    for at, (one, other) in enumerate(zip(got, want)):
        if len(one) != len(other) or not all(map(same_cell, one, other)):
            return f"row {at}: {one}, not {other}"
    return None


def by_text(rows):
    return sorted(rows, key=lambda r: [f"{c:.3g}" if isinstance(c, float) else str(c) for c in r])


@pytest.mark.parametrize("name", tpch.QUERIES)
@pytest.mark.parametrize(("scale", "placement", "way"), CASES)
def test_tpch(scales, scale, placement, way, name):
    server, options = WAYS[way]
    data = scales(scale)
    want = data.right[name]
    table = query(data.client(server), tpch.text(name, placement), **options)
    got = [tuple(map(cell, row.values())) for row in table.to_pylist()]
    # Ties may come in any order: rows that differ in their places must be equal as sets.
    wrong = different(got, want)
    assert wrong is None or different(by_text(got), by_text(want)) is None, wrong

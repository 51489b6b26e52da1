"""TPC-H's 22 queries over tables spread over sources, against DuckDB's answers on its own tables.

P1 has lineitem, part and partsupp as Parquet, orders and customer in PostgreSQL, nation, region and
supplier in SQLite; P3 has everything in PostgreSQL. The scale is 0.1; SYNOPTIC_TPCH_SF sets another.
"""

import datetime as dt
import decimal
import os
import textwrap

import pyarrow.flight as fl
import pytest

from support import tpch
from support.clients import query
from support.server import Server

CASES = [(p, pushdown, os.environ.get("SYNOPTIC_TPCH_SF", "0.1")) for p in ("P1", "P3") for pushdown in ("auto", "none")]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def scales(folder, postgres):
    """Makes the data of a scale once: (DuckDB's own tables, a server over the sources)."""
    made = {}

    def scale(factor):
        if factor in made:
            return made[factor]
        where = folder / f"tpch-{factor}"
        local = tpch.generate(factor)
        tpch.to_parquet(local, where / "lake")
        database = "tpch_" + factor.replace(".", "_")
        tpch.to_postgres(local, postgres, database, where / "csv")
        tpch.to_sqlite(local, where / "lite.db", ["nation", "region", "supplier"])
        config = where / "synoptic.toml"
        config.write_text(textwrap.dedent(f"""
            [server]
            listen = "127.0.0.1:0"
            [sources.lake]
            connector = "files"
            location = "./lake/"
            format = "parquet"
            [sources.pg]
            connector = "postgres"
            url = "{postgres.url(database)}"
            [sources.lite]
            connector = "sqlite"
            path = "./lite.db"
            """))
        server = Server(config, where / "server.log")
        made[factor] = (local, server, fl.connect(server.url))
        return made[factor]

    yield scale
    for local, server, client in made.values():
        client.close()
        local.close()
        server.stop()


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
@pytest.mark.parametrize(("placement", "pushdown", "scale"), CASES)
def test_tpch(scales, placement, pushdown, scale, name):
    local, _, client = scales(scale)
    want = [tuple(map(cell, row)) for row in local.execute(tpch.text(name)).fetchall()]
    table = query(client, tpch.text(name, placement), x_synoptic_pushdown=pushdown)
    got = [tuple(map(cell, row.values())) for row in table.to_pylist()]
    # Ties may come in any order: rows that differ in their places must be equal as sets.
    wrong = different(got, want)
    assert wrong is None or different(by_text(got), by_text(want)) is None, wrong

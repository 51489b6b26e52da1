"""TPC-H: DuckDB makes the data and the answers."""

import importlib
import pathlib
import re
import sqlite3

import duckdb

from .process import ROOT

TABLES = ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"]
QUERIES = [f"q{n:02d}" for n in range(1, 23)]
KEYS = {"region": "r_regionkey", "nation": "n_nationkey", "supplier": "s_suppkey", "customer": "c_custkey",
        "part": "p_partkey", "partsupp": "ps_partkey, ps_suppkey", "orders": "o_orderkey",
        "lineitem": "l_orderkey, l_linenumber"}
PLACEMENTS = {
    "P1": {"lineitem": "lake.public", "part": "lake.public", "partsupp": "lake.public", "orders": "pg.public",
           "customer": "pg.public", "nation": "lite.main", "region": "lite.main", "supplier": "lite.main"},
    "P3": dict.fromkeys(TABLES, "pg.public"),
}
# Two databases with all tables each: every split reads one of these groups from the second.
GROUPS = {"A": ["part", "partsupp"], "B": ["lineitem", "orders"], "C": ["customer", "supplier", "nation", "region"]}
PLACEMENTS |= {split: {table: "pg2.public" if table in group else "pg.public" for table in TABLES}
               for split, group in GROUPS.items()}


def placed(sql, placement):
    """`sql` with its tables named as `placement` has them."""
    # A table stands after FROM, JOIN or a comma of the FROM list; columns all have prefixes.
    return re.sub(
        r"(?i)(\b(?:from|join)\s+|,\s+)(" + "|".join(TABLES) + r")\b(?=\s*(?:,|\)|$|[a-z]|\n))",
        lambda m: f"{m.group(1)}{PLACEMENTS[placement][m.group(2).lower()]}.{m.group(2)}", sql)


def text(query, placement=None):
    """A query, with its tables named as `placement` has them."""
    sql = (ROOT / "tests" / "tpch" / f"{query}.sql").read_text().strip().rstrip(";")
    return sql if placement is None else placed(sql, placement)


def load_extension(connection, name):
    """A DuckDB extension out of its wheel: nothing is fetched."""
    module = importlib.import_module(f"duckdb_extension_{name}")
    base = pathlib.Path(next(iter(module.__path__)))
    connection.execute(f"LOAD '{next(base.glob(f'extensions/*/{name}.duckdb_extension'))}'")


def generate(scale):
    connection = duckdb.connect()
    load_extension(connection, "tpch")
    connection.execute(f"CALL dbgen(sf={scale})")
    return connection


def columns(connection, table):
    return connection.execute(
        f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{table}' ORDER BY column_index"
    ).fetchall()


def to_parquet(connection, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        connection.execute(f"COPY {table} TO '{folder / table}.parquet' (FORMAT parquet, ROW_GROUP_SIZE 50000)")


def to_postgres(connection, postgres, database, folder):
    """Through CSV files and COPY. varchar instead of char(n): padding has tests of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    postgres.run(f"CREATE DATABASE {database}")
    with postgres.connect(database) as target:
        for table in TABLES:
            kinds = {"DECIMAL(15,2)": "numeric(15,2)", "VARCHAR": "varchar", "BIGINT": "bigint", "INTEGER": "integer",
                     "DATE": "date"}
            declared = ", ".join(f"{name} {kinds[kind]} NOT NULL" for name, kind in columns(connection, table))
            target.execute(f"CREATE TABLE {table} ({declared})")
            file = folder / f"{table}.csv"
            connection.execute(f"COPY {table} TO '{file}' (FORMAT csv, HEADER false)")
            with file.open("rb") as source, target.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv)") as copy:
                while block := source.read(1 << 20):
                    copy.write(block)
            file.unlink()
            target.execute(f"ALTER TABLE {table} ADD PRIMARY KEY ({KEYS[table]})")
        target.execute("VACUUM ANALYZE")


def to_sqlite(connection, path, tables=TABLES):
    """Decimals are stored as text, so that they are exact."""
    target = sqlite3.connect(path)
    kinds = {"VARCHAR": "TEXT"}
    for table in tables:
        described = columns(connection, table)
        declared = ", ".join(f"{name} {kinds.get(kind, kind)} NOT NULL" for name, kind in described)
        target.execute(f"CREATE TABLE {table} ({declared}, PRIMARY KEY ({KEYS[table]}))")
        chosen = ", ".join(f"{n}::VARCHAR" if k.startswith("DECIMAL") or k == "DATE" else n for n, k in described)
        rows = connection.execute(f"SELECT {chosen} FROM {table}").fetchall()
        target.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(described))})", rows)
    target.commit()
    target.execute("ANALYZE")
    target.close()

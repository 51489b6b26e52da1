"""Fetching by hand, with what left each source counted as the engine's receipts count it.

PostgreSQL: bytes of COPY … (FORMAT BINARY). SQLite: 8 for a number, the length of a text. Parquet: the
compressed column chunks of the row groups that cannot be left out. Keys that are sent to a source are
not bytes that left one.
"""

import collections
import sqlite3

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

# Around the rows of a COPY: the signature, flags, the length of the header's extension, and the end.
COPY_FRAME = 21


class Fetched:
    """What a federation written by hand has fetched, as tables of a DuckDB in memory."""

    def __init__(self, data, placement: dict):
        self.data, self.placement = data, placement
        self.local = duckdb.connect()
        self.rows: collections.Counter = collections.Counter()
        self.bytes: collections.Counter = collections.Counter()
        self.keys_sent = 0

    def from_postgres(self, name: str, table: str, sql: str, keys: list[int] | None = None) -> None:
        """`sql` at the server that has `table`; `{keys}` in it are sent as one array."""
        server = self.placement[table].split(".")[0]
        if keys is not None:
            self.keys_sent += len(keys)
            sql = sql.format(keys="'{" + ",".join(map(str, keys)) + "}'::bigint[]")
        with psycopg.connect(self.data.url(server)) as connection:
            with connection.cursor() as cursor, cursor.copy(f"COPY ({sql}) TO STDOUT (FORMAT BINARY)") as copy:
                moved = sum(map(len, copy))
            cursor = connection.execute(sql)
            self._keep(name, server, [column.name for column in cursor.description], cursor.fetchall(), moved - COPY_FRAME)

    def from_sqlite(self, name: str, sql: str) -> None:
        with sqlite3.connect(f"file:{self.data.sqlite}?mode=ro", uri=True) as connection:
            cursor = connection.execute(sql)
            rows = cursor.fetchall()
        moved = sum(len(value.encode()) if isinstance(value, str) else 8 for row in rows for value in row if value is not None)
        self._keep(name, "lite", [column[0] for column in cursor.description], rows, moved)

    def from_parquet(self, name: str, table: str, columns: list[str], where: str = "true") -> None:
        """Columns of a file, and of these the rows that `where` keeps once they are read."""
        path = self.data.parquet(table)
        described = pq.read_metadata(path)
        for group in map(described.row_group, range(described.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                if chunk.path_in_schema in columns:
                    self.bytes["lake"] += chunk.total_compressed_size
        self.local.execute(f"CREATE TABLE {name} AS SELECT {', '.join(columns)} FROM read_parquet('{path}') WHERE {where}")
        self.rows["lake"] += self.local.execute(f"SELECT count(*) FROM {name}").fetchone()[0]

    def ask(self, sql: str) -> list[tuple]:
        """Joins and aggregates here."""
        return self.local.execute(sql).fetchall()

    def column(self, sql: str) -> list:
        return [row[0] for row in self.ask(sql)]

    def _keep(self, name: str, source: str, columns: list[str], rows: list[tuple], moved: int) -> None:
        self.rows[source] += len(rows)
        self.bytes[source] += moved
        fetched = pa.table({column: [row[at] for row in rows] for at, column in enumerate(columns)})
        self.local.register("fetched", fetched)
        self.local.execute(f"CREATE TABLE {name} AS SELECT * FROM fetched")
        self.local.unregister("fetched")

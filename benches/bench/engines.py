"""The engines, each in a process of its own (worker.py): `execute` gives all rows as Python tuples.

Each imports its library itself: they live in different virtual environments.
"""


class Duckdb:
    """DuckDB in process: PostgreSQL and SQLite attached, Parquet through views."""

    def __init__(self, places: dict, placement: dict, **_):
        import duckdb

        from support import tpch

        self.connection = duckdb.connect()
        self.connection.execute("SET threads = 2")
        tpch.load_extension(self.connection, "postgres_scanner")
        tpch.load_extension(self.connection, "sqlite_scanner")
        for name, port in places["pg"].items():
            url = f"postgresql://bench@127.0.0.1:{port}/{places['database']}"
            self.connection.execute(f"ATTACH '{url}' AS {name} (TYPE postgres, READ_ONLY)")
        self.connection.execute(f"ATTACH '{places['sqlite']}' AS lite (TYPE sqlite, READ_ONLY)")
        for table, schema in placement.items():
            source = {"lake.public": f"read_parquet('{places['parquet'][table]}')", "lite.main": f"lite.{table}"}
            self.connection.execute(f"CREATE VIEW {table} AS SELECT * FROM {source.get(schema, f'{schema}.{table}')}")

    def execute(self, sql: str) -> list[tuple]:
        return self.connection.execute(sql).fetchall()


class Chdb:
    """ClickHouse in process: postgresql(), sqlite() and file() as tables."""

    def __init__(self, places: dict, placement: dict, **_):
        from chdb import session

        self.session = session.Session()
        for setting in ("join_use_nulls = 1", "allow_experimental_correlated_subqueries = 1", "max_threads = 2"):
            self.session.query(f"SET {setting}")
        self.session.query("CREATE DATABASE fed ENGINE = Atomic")
        self.session.query("USE fed")
        for table, schema in placement.items():
            source = {"lake.public": f"file('{places['parquet'][table]}', Parquet)",
                      "lite.main": f"sqlite('{places['sqlite']}', '{table}')"}.get(schema)
            if source is None:
                server = f"127.0.0.1:{places['pg'][schema.split('.')[0]]}"
                source = f"postgresql('{server}', '{places['database']}', '{table}', 'bench', '')"
            self.session.query(f"CREATE TABLE fed.{table} AS {source}")

    def execute(self, sql: str) -> list[tuple]:
        return rows(self.session.query(sql, "ArrowTable"))


class Synoptic:
    """This engine, through its Flight SQL server and ADBC."""

    def __init__(self, places: dict, placement: dict, url: str, **_):
        import adbc_driver_flightsql.dbapi as adbc

        self.connection = adbc.connect(url, autocommit=True)

    def execute(self, sql: str) -> list[tuple]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return rows(cursor.fetch_arrow_table())


def rows(table) -> list[tuple]:
    columns = [column.to_pylist() for column in table.columns]
    return list(zip(*columns)) if columns else []


ENGINES = {"duckdb": Duckdb, "chdb": Chdb, "synoptic": Synoptic}

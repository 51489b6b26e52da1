"""One question over several sources gives one answer, whoever asks and however."""

import csv
import io
import json

import adbc_driver_flightsql.dbapi as adbc
import datafusion
import pytest

from support import data
from support.clients import plain, query, rows
from support.server import synoptic

# All ordered, so that rows can be compared in their places.
QUESTIONS = {
    "three sources": """
        SELECT a.country, s.currency, sum(t.qty * p.close) AS value, count(*) AS trades
        FROM bank.public.accounts a JOIN bank.public.trades t ON t.account_id = a.id
        JOIN reference.main.symbols s ON s.symbol = t.symbol
        JOIN lake.public.prices p ON p.symbol = t.symbol AND p.day = CAST(t.ts AS date)
        WHERE a.active AND t.qty > 0
        GROUP BY a.country, s.currency ORDER BY a.country NULLS FIRST, s.currency""",
    "five sources": """
        SELECT c.name, s.name AS company, count(DISTINCT a.id) AS holders, sum(t.qty * p.close * r.rate) AS value
        FROM bank.public.accounts a
        JOIN reference.main.countries c ON c.code = a.country
        JOIN bank.public.trades t ON t.account_id = a.id
        JOIN reference.main.symbols s ON s.symbol = t.symbol
        JOIN lake.public.prices p ON p.symbol = s.symbol AND p.day = CAST(t.ts AS date)
        JOIN fx.public.rates r ON r.currency = s.currency AND r.day = p.day
        JOIN (SELECT account_id FROM events.public.events WHERE kind = 'wire' GROUP BY account_id) e
          ON e.account_id = a.id
        GROUP BY c.name, s.name ORDER BY c.name, s.name""",
    "outer joins keep their rows": """
        SELECT a.id, a.owner, c.name, count(t.id) AS trades
        FROM bank.public.accounts a
        LEFT JOIN reference.main.countries c ON c.code = a.country
        LEFT JOIN bank.public.trades t ON t.account_id = a.id AND t.symbol = 'SAP'
        GROUP BY a.id, a.owner, c.name ORDER BY a.id""",
    "a full join": """
        SELECT s.symbol AS listed, t.symbol AS traded, t.n
        FROM reference.main.symbols s
        FULL JOIN (SELECT symbol, count(*) AS n FROM bank.public.trades GROUP BY symbol) t ON t.symbol = s.symbol
        ORDER BY s.symbol NULLS LAST, t.symbol""",
    "semi and anti": """
        SELECT a.id, a.country FROM bank.public.accounts a
        WHERE EXISTS (SELECT 1 FROM events.public.events e WHERE e.account_id = a.id AND e.amount > 50)
          AND a.country NOT IN (SELECT code FROM reference.main.countries WHERE population < 80000000)
        ORDER BY a.id""",
    "values and types": """
        SELECT t.id, t.ts, t.qty, t.price, t.fee, a.opened, a.balance, a.active, a.note, s.lot
        FROM bank.public.trades t LEFT JOIN bank.public.accounts a ON a.id = t.account_id
        LEFT JOIN reference.main.symbols s ON s.symbol = t.symbol
        WHERE t.id <= 300 ORDER BY t.id""",
    "windows": """
        SELECT p.symbol, p.day, p.close, avg(p.close) OVER (PARTITION BY p.symbol ORDER BY p.day
               ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS mean,
               rank() OVER (PARTITION BY s.currency, p.day ORDER BY p.close DESC) AS place
        FROM lake.public.prices p JOIN reference.main.symbols s ON s.symbol = p.symbol
        ORDER BY p.symbol, p.day LIMIT 200""",
    "many to few": """
        SELECT k.symbol, count(*) AS n, min(k.bid) AS low, max(k.bid) AS high
        FROM ticks.public.ticks k WHERE k.symbol IN (SELECT symbol FROM reference.main.symbols WHERE currency <> 'USD')
        GROUP BY k.symbol ORDER BY k.symbol""",
}


@pytest.fixture(scope="module")
def copies():
    """Plain DataFusion over copies of the data, under the same names."""
    context = datafusion.SessionContext()
    catalogs = {}
    for name, table in data.everything().items():
        catalog, schema, table_name = name.split(".")
        if (catalog, schema) not in catalogs:
            if not any(c == catalog for c, _ in catalogs):
                context.register_catalog_provider(catalog, datafusion.Catalog.memory_catalog())
            made = datafusion.catalog.Schema.memory_schema()
            context.catalog(catalog).register_schema(schema, made)
            catalogs[catalog, schema] = context.catalog(catalog).schema(schema)
        batches = [table.combine_chunks().to_batches()]
        frame = context.create_dataframe(batches)
        catalogs[catalog, schema].register_table(table_name, frame)
    return context


@pytest.fixture(scope="module")
def expected(copies):
    return {name: rows(copies.sql(sql).to_arrow_table()) for name, sql in QUESTIONS.items()}


@pytest.fixture(params=QUESTIONS)
def question(request, expected):
    want = expected[request.param]
    assert len(want) > 2, "the question asks nothing"
    return QUESTIONS[request.param], want


def from_text(value):
    """A cell of CSV or JSON text as a comparable value."""
    if value is None or value == "":
        return None
    if isinstance(value, (bool, int, float)):
        return plain(value)
    try:
        return f"{float(value):.9g}"
    except ValueError:
        return value


def loosely(cell):
    """Texts of times differ between formats in ways that do not matter here."""
    if cell is None or cell == "":
        return None
    try:
        return f"{float(cell):.9g}"
    except ValueError:
        return cell.replace("T", " ").replace("+00:00", "").replace("Z", "")


def same(got, want):
    got = [tuple(map(loosely, row)) for row in got]
    want = [tuple(map(loosely, row)) for row in want]
    assert len(got) == len(want)
    for at, (one, other) in enumerate(zip(got, want)):
        assert one == other, f"row {at}"


@pytest.mark.parametrize("pushdown", ["auto", "none"])
def test_pyarrow_only(flight, question, pushdown):
    sql, want = question
    assert rows(query(flight, sql, x_synoptic_pushdown=pushdown)) == want


@pytest.mark.parametrize("dynamic", ["on", "off"])
def test_dynamic_filters_change_nothing(flight, question, dynamic):
    sql, want = question
    assert rows(query(flight, sql, x_synoptic_dynamic_filters=dynamic)) == want


def test_adbc(server, question):
    sql, want = question
    with adbc.connect(server.url) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        assert rows(cursor.fetch_arrow_table()) == want


def test_synoptic_sql_over_flight_as_csv(server, question):
    sql, want = question
    done = synoptic("sql", "--url", server.url, "--format", "csv", "-e", sql, check=True)
    header, *lines = list(csv.reader(io.StringIO(done.stdout)))
    same([tuple(from_text(c) for c in line) for line in lines], want)


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_synoptic_sql_over_flight_as_json(server, question, form):
    sql, want = question
    done = synoptic("sql", "--url", server.url, "--format", form, "-e", sql, check=True)
    objects = json.loads(done.stdout) if form == "json" else [json.loads(l) for l in done.stdout.splitlines()]
    columns = []
    for row in objects:
        columns += [name for name in row if name not in columns]
    assert len(columns) == len(want[0])
    if all(list(row) == columns for row in objects):
        same([tuple(from_text(row[c]) for c in columns) for row in objects], want)
    else:
        assert len(objects) == len(want)


def test_synoptic_sql_with_sources_of_its_own(good_config, question):
    sql, want = question
    done = synoptic("sql", "-c", good_config, "--format", "csv", "-e", sql, check=True)
    header, *lines = list(csv.reader(io.StringIO(done.stdout)))
    same([tuple(from_text(c) for c in line) for line in lines], want)


def test_a_standby_gives_the_same_rows(flight, postgres, standby):
    sql = "SELECT id, symbol, ts, qty, price, fee FROM {}.public.trades ORDER BY id"
    assert rows(query(flight, sql.format("standby"))) == rows(query(flight, sql.format("bank")))


def test_scans_of_one_source_in_one_statement_read_one_snapshot(flight, postgres):
    """A writer moves money between two accounts for ever; the total never changes."""
    import threading
    postgres.run("CREATE TABLE IF NOT EXISTS purses (id integer PRIMARY KEY, coins bigint)", "bank")
    postgres.run("TRUNCATE purses", "bank")
    postgres.run("INSERT INTO purses SELECT i, 100 FROM generate_series(1, 10) i", "bank")
    done = threading.Event()

    def write():
        with postgres.connect("bank") as connection:
            while not done.is_set():
                connection.execute("UPDATE purses SET coins = coins + CASE id WHEN 1 THEN -1 ELSE 1 END WHERE id IN (1, 2)")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(15):
            (row,) = query(flight, """
                SELECT (SELECT sum(coins) FROM bank.purses WHERE id = 1) + (SELECT sum(coins) FROM bank.purses WHERE id > 1)
                     AS total""").to_pylist()
            assert row["total"] == 1000
    finally:
        done.set()
        writer.join()

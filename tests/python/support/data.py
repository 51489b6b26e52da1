"""The data of the tests: a small bank, the same every time, as Arrow tables and at its sources."""

import datetime as dt
import decimal
import json
import random
import sqlite3

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

SYMBOLS = ["AAPL", "AMZN", "GOOG", "IBM", "MSFT", "NESN", "SAP", "TM"]
CURRENCIES = ["USD", "USD", "USD", "USD", "USD", "CHF", "EUR", "JPY"]
COUNTRIES = [("CH", "Switzerland"), ("DE", "Deutschland"), ("FR", "France"), ("JP", "日本"), ("US", "United States")]
FIRST_DAY = dt.date(2024, 1, 1)
DAYS = 120
UTC = dt.timezone.utc


def _cents(rng, low, high, digits=2):
    return decimal.Decimal(rng.randrange(low, high)).scaleb(-digits)


def accounts(rows=1000):
    rng = random.Random(1)
    notes = ["", "vip", "naïve café", "O'Brien", "a\tb", None, None]
    return pa.table({
        "id": pa.array(range(1, rows + 1), pa.int64()),
        "owner": pa.array([f"owner {i % 400:03d}" for i in range(rows)]),
        "country": pa.array([rng.choice(["CH", "DE", "FR", "JP", "US", "XX", None]) for _ in range(rows)]),
        "opened": pa.array([dt.date(1960, 1, 1) + dt.timedelta(rng.randrange(23000)) for _ in range(rows)]),
        "balance": pa.array([_cents(rng, -10**7, 10**9) if rng.random() > 0.05 else None for _ in range(rows)],
                            pa.decimal128(15, 2)),
        "active": pa.array([rng.choice([True, True, False, None]) for _ in range(rows)]),
        "note": pa.array([rng.choice(notes) for _ in range(rows)]),
    })


def trades(rows=20_000, of_accounts=1000):
    rng = random.Random(2)
    start = dt.datetime.combine(FIRST_DAY, dt.time(), UTC)
    return pa.table({
        "id": pa.array(range(1, rows + 1), pa.int64()),
        # Some without an account, some of accounts that do not exist.
        "account_id": pa.array([rng.randrange(1, of_accounts + 20) if rng.random() > 0.02 else None
                                for _ in range(rows)], pa.int64()),
        "symbol": pa.array([rng.choice(SYMBOLS + ["GONE"]) for _ in range(rows)]),
        "ts": pa.array([start + dt.timedelta(microseconds=rng.randrange(DAYS * 86_400_000_000)) for _ in range(rows)],
                       pa.timestamp("us", "UTC")),
        "qty": pa.array([rng.randrange(-500, 500) for _ in range(rows)], pa.int32()),
        "price": pa.array([_cents(rng, 10_000, 9_000_000, 4) for _ in range(rows)], pa.decimal128(12, 4)),
        "fee": pa.array([rng.random() * 20 if rng.random() > 0.1 else None for _ in range(rows)], pa.float64()),
    })


def symbols():
    return pa.table({
        "symbol": pa.array(SYMBOLS),
        "name": pa.array([f"{s} Incorporated" for s in SYMBOLS]),
        "currency": pa.array(CURRENCIES),
        "lot": pa.array([1, 1, 1, 10, 1, 5, None, 100], pa.int64()),
        "listed": pa.array([dt.date(1980 + i, 1 + i, 28) for i in range(len(SYMBOLS))]),
    })


def countries():
    return pa.table({
        "code": pa.array([c for c, _ in COUNTRIES]),
        "name": pa.array([n for _, n in COUNTRIES]),
        "population": pa.array([8_900_000, 84_000_000, 68_000_000, 124_000_000, 335_000_000], pa.int64()),
    })


def prices():
    rng = random.Random(3)
    rows = [(s, FIRST_DAY + dt.timedelta(d), _cents(rng, 10_000, 9_000_000, 4), rng.randrange(10**9))
            for s in SYMBOLS for d in range(DAYS)]
    symbol, day, close, volume = zip(*rows)
    return pa.table({
        "symbol": pa.array(symbol), "day": pa.array(day), "close": pa.array(close, pa.decimal128(12, 4)),
        "volume": pa.array(volume, pa.int64()),
    })


def rates():
    rng = random.Random(4)
    rows = [(FIRST_DAY + dt.timedelta(d), c, round(0.5 + rng.random(), 6))
            for d in range(DAYS) for c in sorted(set(CURRENCIES))]
    day, currency, rate = zip(*rows)
    return pa.table({"day": pa.array(day), "currency": pa.array(currency), "rate": pa.array(rate, pa.float64())})


def events(rows=500):
    rng = random.Random(5)
    return pa.table({
        "event": pa.array(range(rows), pa.int64()),
        "account_id": pa.array([rng.randrange(1, 1000) for _ in range(rows)], pa.int64()),
        "kind": pa.array([rng.choice(["login", "logout", "wire"]) for _ in range(rows)]),
        "amount": pa.array([rng.random() * 100 if rng.random() > 0.3 else None for _ in range(rows)]),
    })


def ticks(rows=1000):
    rng = random.Random(6)
    start = dt.datetime(2024, 3, 1, 9, 30)
    return pa.table({
        "symbol": pa.array([rng.choice(SYMBOLS) for _ in range(rows)]).dictionary_encode(),
        "at": pa.array([start + dt.timedelta(milliseconds=17 * i) for i in range(rows)], pa.timestamp("ns")),
        "bid": pa.array([round(rng.random() * 100, 4) for _ in range(rows)]),
    })


def everything():
    """Plain copies of every table, by the name that the sources give it."""
    return {
        "bank.public.accounts": accounts(), "bank.public.trades": trades(),
        "reference.main.symbols": symbols(), "reference.main.countries": countries(),
        "lake.public.prices": prices(), "fx.public.rates": rates(), "events.public.events": events(),
        "ticks.public.ticks": ticks(),
    }


# --- At the sources -----------------------------------------------------------------------------

BANK = """
CREATE TABLE accounts (
    id bigint PRIMARY KEY, owner text NOT NULL, country varchar(2), opened date, balance numeric(15,2),
    active boolean, note text);
CREATE TABLE trades (
    id bigint PRIMARY KEY, account_id bigint, symbol varchar(12) NOT NULL, ts timestamptz NOT NULL, qty integer NOT NULL,
    price numeric(12,4) NOT NULL, fee double precision);
COMMENT ON TABLE accounts IS 'who has an account';
"""

MORE_OF_BANK = """
CREATE INDEX ON trades (account_id);
CREATE VIEW active_accounts AS SELECT id, owner, balance FROM accounts WHERE active;
CREATE MATERIALIZED VIEW volumes AS SELECT symbol, sum(abs(qty)) AS volume FROM trades GROUP BY symbol;
CREATE TABLE visits (day date NOT NULL, hits integer NOT NULL) PARTITION BY RANGE (day);
CREATE TABLE visits_2023 PARTITION OF visits FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE visits_2024 PARTITION OF visits FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO visits SELECT date '2023-06-01' + i, i FROM generate_series(0, 499) i;

CREATE TYPE mood AS ENUM ('calm', 'nervous');
CREATE DOMAIN posint AS integer CHECK (VALUE > 0);
CREATE TABLE kinds (
    id integer PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision,
    n numeric(10,3), wide numeric(60,10), t text, v varchar(10), c char(5), d date, tm time, ts timestamp,
    tz timestamptz, iv interval, by bytea, u uuid, j json, jb jsonb, m mood, p posint, ia integer[], ta text[],
    net inet);
INSERT INTO kinds VALUES
    (1, true, 32767, 2147483647, 9223372036854775807, 1.5, 2.25, 1234567.891, 12345678901234567890.0123456789,
     'text', 'varchar', 'ab', '2024-02-29', '13:14:15.123456', '2024-02-29 13:14:15.123456',
     '2024-02-29 13:14:15.123456+02', '1 month 2 days 3 seconds', '\\x00ff10',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1}', '{"a": [1, 2]}', 'calm', 7, '{1,NULL,3}', '{a,NULL,"c d"}',
     '10.0.0.1'),
    (2, false, -32768, -2147483648, -9223372036854775808, -1.5, -2.25, -1234567.891, -0.0000000001,
     '', '', '', '1901-01-01', '00:00:00', '1901-01-01 00:00:00', '1901-01-01 00:00:00+00', '-1 month', '',
     '00000000-0000-0000-0000-000000000000', 'null', '[]', 'nervous', 1, '{}', '{}', '::1'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE misfits (id integer, n numeric);
INSERT INTO misfits VALUES (1, 1.5), (2, 'NaN');
CREATE TABLE nan_money (id integer, n numeric(10,2));
INSERT INTO nan_money VALUES (1, 1.5), (2, 'NaN');
CREATE TABLE infinite_days (id integer, d date, ts timestamp);
INSERT INTO infinite_days VALUES (1, 'infinity', '-infinity');
CREATE SCHEMA "Mixed Case";
CREATE TABLE "Mixed Case"."Select" ("Order" integer, "with space" text, "quote""d" text, "ünï" integer);
INSERT INTO "Mixed Case"."Select" VALUES (1, 'x', 'y', 2), (2, NULL, 'z', 3);
CREATE TABLE big AS SELECT i AS id, md5(i::text) AS hash, repeat('x', 80) AS filler FROM generate_series(1, 300000) i;
-- Yields about 100 rows a second, for as long as anybody reads.
CREATE VIEW slow AS SELECT i AS id FROM generate_series(1, 100000) i WHERE pg_sleep(0.01)::text IS NOT NULL;
-- Yields nothing for a long time.
CREATE VIEW stuck AS SELECT i AS id FROM generate_series(1, 2) i WHERE pg_sleep(300)::text IS NOT NULL;
CREATE TABLE empty_one (id integer NOT NULL, t text);
ANALYZE;
"""


def load_postgres(connection, name, table):
    """Copies an Arrow table into an existing PostgreSQL table of the same columns."""
    with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
        for row in zip(*(column.to_pylist() for column in table.columns)):
            copy.write_row(row)


def make_bank(postgres):
    postgres.run("CREATE DATABASE bank")
    with postgres.connect("bank") as connection:
        connection.execute(BANK)
        load_postgres(connection, "accounts", accounts())
        load_postgres(connection, "trades", trades())
        connection.execute(MORE_OF_BANK)


SQLITE_TYPES = {"int64": "BIGINT", "int32": "INTEGER", "string": "TEXT", "date32[day]": "DATE", "double": "DOUBLE",
                "bool": "BOOLEAN"}


def sqlite_value(value):
    if isinstance(value, (dt.date, dt.datetime, decimal.Decimal)):
        return str(value)
    return value


def load_sqlite(connection, name, table, primary_key=None):
    def declared(kind):
        if pa.types.is_decimal(kind):
            return f"DECIMAL({kind.precision},{kind.scale})"
        return SQLITE_TYPES[str(kind)]

    columns = [f'"{f.name}" {declared(f.type)}' for f in table.schema]
    key = f", PRIMARY KEY ({primary_key})" if primary_key else ""
    connection.execute(f"CREATE TABLE {name} ({', '.join(columns)}{key})")
    rows = zip(*([sqlite_value(v) for v in column.to_pylist()] for column in table.columns))
    connection.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * table.num_columns)})", rows)


def make_reference(path):
    connection = sqlite3.connect(path)
    load_sqlite(connection, "symbols", symbols(), "symbol")
    load_sqlite(connection, "countries", countries(), "code")
    connection.executescript("""
        CREATE TABLE misfit (id INTEGER, n INTEGER, d DATE, m DECIMAL(10,2));
        INSERT INTO misfit VALUES (1, 1, '2024-01-01', '1.50'), (2, 'abc', '2024-01-01', '1.50');
        CREATE TABLE misfit_date (id INTEGER, d DATE);
        INSERT INTO misfit_date VALUES (1, '2024-01-01'), (2, 'yesterday');
        CREATE TABLE misfit_decimal (id INTEGER, m DECIMAL(5,2));
        INSERT INTO misfit_decimal VALUES (1, '1.50'), (2, '123456.789');
        CREATE TABLE "Odd Name" ("Select" INTEGER, "with space" TEXT);
        INSERT INTO "Odd Name" VALUES (1, 'x'), (2, NULL);
        CREATE VIEW big_countries AS SELECT * FROM countries WHERE population > 70000000;
    """)
    connection.commit()
    connection.close()


def make_lake(folder):
    """Parquet, CSV, newline-delimited JSON and Arrow IPC, one folder each."""
    lake = folder / "lake" / "prices"
    lake.mkdir(parents=True)
    table, third = prices(), prices().num_rows // 3
    for part in range(3):
        pq.write_table(table.slice(part * third, third), lake / f"part-{part}.parquet", row_group_size=100)
    for name in ("fx", "events", "ticks"):
        (folder / name).mkdir()
    pa.csv.write_csv(rates(), folder / "fx" / "rates.csv", pa.csv.WriteOptions(quoting_style="needed"))
    with (folder / "events" / "events.json").open("w") as out:
        for row in events().to_pylist():
            out.write(json.dumps(row) + "\n")
    with pa.ipc.new_file(folder / "ticks" / "ticks.arrow", ticks().schema) as writer:
        writer.write_table(ticks())


def make_poisoned(folder):
    """Files that are broken, each a table of its own."""
    folder.mkdir()
    good = folder / "good.parquet"
    pq.write_table(prices(), good, compression="zstd", use_dictionary=False)
    raw = good.read_bytes()
    variants = {
        "truncated": raw[:len(raw) // 2],
        "no_footer": raw[:-8],
        "wrong_magic": raw[:-4] + b"NOPE",
        "footer_length": raw[:-8] + b"\xff\xff\xff\x7f" + raw[-4:],
        "footer_bits": raw[:-60] + bytes(b ^ 0xFF for b in raw[-60:-20]) + raw[-20:],
        "page_bits": raw[:200] + bytes(b ^ 0x5A for b in raw[200:900]) + raw[900:],
        "not_parquet": b"this is no Parquet file at all\n" * 40,
        "magic_only": b"PAR1",
    }
    for name, content in variants.items():
        (folder / f"{name}.parquet").write_bytes(content)
    return list(variants)


def make_bad_csv(folder):
    folder.mkdir()
    (folder / "ragged.csv").write_text("a,b\n1,2\n" + "3,4\n" * 50 + "1,2,3,4\n")
    (folder / "late.csv").write_text("a,b\n" + "1,2\n" * 5000 + "x,y\n")
    (folder / "binary.csv").write_bytes(b"a,b\n" + bytes(range(256)) * 4)
    (folder / "quotes.csv").write_text('a,b\n1,"open and never closed\n2,3\n')
    return ["ragged", "late", "binary", "quotes"]

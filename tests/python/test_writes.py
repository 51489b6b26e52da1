"""INSERT through real clients: exact, once, and read back where it is."""

import ctypes
import datetime as dt
import decimal
import random
import sqlite3
import struct
import textwrap
import threading
import time

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from support.server import Server, synoptic
from test_freshness import ERRORS, Answer, Pair, SHOWN, seconds


@pytest.fixture(scope="module")
def writable(folder):
    """A primary that may be written to, its standby three seconds behind, and a SQLite file."""
    made = folder / f"writable{random.randrange(1 << 30)}"
    made.mkdir()
    sqlite3.connect(made / "lite.db").executescript("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);")
    running = Pair(made, apply_delay="3s", options="writable = true", more=f"""
            [sources.lite]
            connector = "sqlite"
            path = "./lite.db"
            writable = true

            [sources.closed]
            connector = "sqlite"
            path = "./lite.db"
            """)
    running.primary.run("CREATE TABLE orders (id int PRIMARY KEY, price numeric(12, 2), at timestamptz, note text)", "bank")
    yield running
    running.stop()


def count(pair, table="orders"):
    return pair.primary.rows(f"SELECT count(*) FROM {table}", "bank")[0][0]


def info_of(pair, sql):
    return pair.client.get_flight_info(fl.FlightDescriptor.for_command(sql.encode()))


def test_adbc_execute(writable):
    price, at = decimal.Decimal("12345.67"), dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)
    with adbc.connect(writable.server.url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO bank.orders VALUES (1, 0.5, NULL, 'a'), (2, NULL, '2026-01-01T00:00:00Z', NULL)")
        assert count(writable, "orders WHERE id < 10") == 2
        cursor.execute("INSERT INTO bank.orders VALUES (?, ?, ?, ?)", (3, price, at, "Grüße"))
        assert count(writable, "orders WHERE id < 10") == 3
        with pytest.raises(Exception, match="would change"):
            cursor.execute("INSERT INTO bank.orders VALUES (?, ?, ?, ?)", (4, decimal.Decimal("0.001"), at, ""))
            cursor.fetchall()
    rows = writable.primary.rows("SELECT * FROM orders WHERE id < 10 ORDER BY id", "bank")
    assert [row[:2] for row in rows] == [(1, decimal.Decimal("0.50")), (2, None), (3, price)]
    assert rows[2][2] == at and rows[2][3] == "Grüße"


def test_adbc_update(writable):
    with adbc.connect(writable.server.url, autocommit=True) as connection, connection.cursor() as cursor:
        assert cursor.adbc_statement is not None
        cursor.adbc_statement.set_sql_query("INSERT INTO lite.notes VALUES (1, 'one'), (2, 'two')")
        assert cursor.adbc_statement.execute_update() == 2
        cursor.execute("SELECT count(*) FROM lite.notes WHERE id < 10")
        assert cursor.fetchall() == [(2,)]


def test_adbc_update_and_delete(writable):
    writable.primary.run("CREATE TABLE IF NOT EXISTS changed (id int PRIMARY KEY, price numeric(12, 2), note text)", "bank")
    writable.primary.run("TRUNCATE changed", "bank")
    writable.primary.run("INSERT INTO changed SELECT i, i, 'n' FROM generate_series(1, 10) i", "bank")
    with adbc.connect(writable.server.url, autocommit=True) as connection, connection.cursor() as cursor:
        def execute(sql):
            cursor.adbc_statement.set_sql_query(sql)
            return cursor.adbc_statement.execute_update()

        assert execute("UPDATE bank.changed SET price = price * 2, note = 'Grüße' WHERE id > 7") == 3
        assert execute("DELETE FROM bank.changed WHERE id < 3") == 2
        assert execute("DELETE FROM bank.changed WHERE id < 3") == 0
        cursor.execute("UPDATE bank.changed SET price = ?, note = ? WHERE id = ?", (decimal.Decimal("0.07"), "five", 5))
        assert execute("INSERT INTO lite.notes VALUES (501, 'a'), (502, 'b')") == 2
        assert execute("UPDATE lite.notes SET body = 'c' WHERE id > 500 AND id < 600") == 2
        assert execute("DELETE FROM lite.notes WHERE id = 501") == 1
        with pytest.raises(Exception, match="UNSUPPORTED.*upper"):
            execute("UPDATE bank.changed SET note = upper(note)")
    rows = writable.primary.rows("SELECT id, price, note FROM changed ORDER BY id", "bank")
    assert [(i, str(p), n) for i, p, n in rows] == [
        (3, "3.00", "n"), (4, "4.00", "n"), (5, "0.07", "five"), (6, "6.00", "n"), (7, "7.00", "n"),
        (8, "16.00", "Grüße"), (9, "18.00", "Grüße"), (10, "20.00", "Grüße")]
    sql = "DELETE FROM bank.changed WHERE id = 3"
    done = synoptic("sql", "-c", str(writable.config), "-e", sql, "--format", "csv", check=True)
    assert done.stdout.split() == ["count", "1"]
    token = writable.ask("DELETE FROM bank.changed").receipt["token"]
    sql = "SELECT count(*) AS n FROM bank.changed"
    assert writable.ask(sql, max_staleness="30s", token=token).rows == [{"n": 0}]


def test_flight_info_writes_once_and_its_ticket_tells(writable):
    writable.primary.run("CREATE TABLE IF NOT EXISTS eager (id int)", "bank")
    info = info_of(writable, "INSERT INTO bank.eager VALUES (1), (2)")
    # Some clients never read the answer of an update.
    assert count(writable, "eager") == 2
    for _ in range(3):
        table = writable.client.do_get(info.endpoints[0].ticket).read_all()
        assert table.to_pylist() == [{"count": 2}] and table.schema.field("count").type == pa.int64()
        assert table.schema.equals(info.schema)
    assert count(writable, "eager") == 2
    # A DoGet that carries the statement runs it.
    table = writable.client.do_get(fl.Ticket(b"INSERT INTO bank.eager VALUES (3)")).read_all()
    assert table.to_pylist() == [{"count": 1}] and count(writable, "eager") == 3


def test_command_line(writable):
    sql = "INSERT INTO lite.notes SELECT id + 1000, note FROM (VALUES (1, 'x'), (2, 'y')) AS v (id, note)"
    done = synoptic("sql", "-c", str(writable.config), "-e", sql, "--format", "csv", check=True)
    assert done.stdout.split() == ["count", "2"]
    sql = "INSERT INTO closed.notes VALUES (3, 'z')"
    refused = synoptic("sql", "-c", str(writable.config), "-e", sql)
    assert refused.returncode == 1 and "sources.closed.writable" in refused.stderr


def test_a_failure_writes_nothing(writable):
    writable.primary.run("CREATE TABLE IF NOT EXISTS keyed (id int PRIMARY KEY)", "bank")
    with pytest.raises(ERRORS, match="duplicate key"):
        info_of(writable, "INSERT INTO bank.keyed VALUES (1), (1)")
    assert count(writable, "keyed") == 0


def test_a_cancelled_write_leaves_nothing(writable):
    writable.primary.run("CREATE TABLE IF NOT EXISTS many (id bigint)", "bank")
    sql = ("INSERT INTO bank.many SELECT a.value FROM generate_series(1, 100000) AS a (value) "
           "CROSS JOIN generate_series(1, 10000) AS b (value)")
    failed = []

    def write():
        try:
            info_of(writable, sql)
        except ERRORS as error:
            failed.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(1)
    running = writable.client.do_get(fl.Ticket(
        b"SELECT query_id FROM system.queries WHERE state = 'running' AND sql LIKE 'INSERT INTO bank.many%'"
    )).read_all().to_pylist()
    call = f"CALL system.cancel('{running[0]['query_id']}')".encode()
    writable.client.do_get(fl.Ticket(call)).read_all()
    thread.join(20)
    assert not thread.is_alive() and "CANCELLED" in failed[0]
    assert count(writable, "many") == 0
    deadline = time.monotonic() + 10
    while writable.primary.running("COPY"):
        assert time.monotonic() < deadline, "the copy still runs at the server"
        time.sleep(0.1)


def test_read_your_writes_on_a_lagging_standby(writable):
    # The standby is used, and is behind.
    writable.settle(max_staleness="30s")
    for number in range(1, 6):
        token = writable.ask(f"INSERT INTO bank.ticks VALUES ({number})").receipt["token"]
        assert token
        read = writable.ask(max_staleness="30s", token=token)
        assert read.rows[0]["shown"] == number, read.receipt


def clocked(folder, section):
    """A server over a SQLite file that may be written to, with `section` as its clock."""
    made = folder / f"clocked{random.randrange(1 << 30)}"
    made.mkdir()
    sqlite3.connect(made / "lite.db").executescript("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT);")
    config = made / "synoptic.toml"
    config.write_text(textwrap.dedent(f"""
        [server]
        listen = "127.0.0.1:0"

        [clock]
        {section}

        [sources.lite]
        connector = "sqlite"
        path = "./lite.db"
        writable = true
        """))
    return config, Server(config, made / "server.log")


def test_a_commit_waits_for_its_time_to_be_past(folder):
    config, server = clocked(folder, 'source = "declared"\n        max_offset = "50ms"')
    try:
        client = fl.connect(server.url)
        for number in range(3):
            began, asked = time.monotonic(), time.time()
            answer = Answer(client, f"INSERT INTO lite.notes VALUES ({number}, 'x')")
            took, answered = time.monotonic() - began, time.time()
            assert answer.rows == [{"count": 1}]
            assert took >= 0.1, took
            stamp = seconds(answer.receipt["committed_at"])
            assert asked + 0.05 <= stamp <= answered - 0.05
        clock, = Answer(client, "SELECT * FROM system.clock").rows
        assert (clock["source"], clock["status"]) == ("declared", "synchronized") and 50 <= clock["error_ms"] < 55
        assert 100 <= clock["commit_wait_ms"] < 110 and clock["max_commit_wait_ms"] == 1000
        shown = synoptic("check", "-c", str(config), check=True).stdout
        assert "clock: declared, at most 50" in shown
    finally:
        server.stop()


def test_a_clock_that_was_asked_for_and_is_not_there_refuses_writes_only(folder):
    _, server = clocked(folder, f'source = "clockbound"\n        segment = "{folder}/nowhere"')
    try:
        client = fl.connect(server.url)
        with pytest.raises(ERRORS, match=r"\[CLOCK_UNSYNCHRONIZED\].*nothing was written.*nowhere.*clock.max_offset"):
            Answer(client, "INSERT INTO lite.notes VALUES (1, 'x')")
        assert Answer(client, "SELECT count(*) AS n FROM lite.notes").rows == [{"n": 0}]
        clock, = Answer(client, "SELECT status, error_ms, reason FROM system.clock").rows
        assert clock["status"] == "unsynchronized" and "no ClockBound segment" in clock["reason"]
    finally:
        server.stop()


def kernel_error():
    """The largest error of this machine's clock in seconds, by adjtimex(2); None when it is not synchronised."""
    timex = ctypes.create_string_buffer(256)
    state = ctypes.CDLL(None).adjtimex(timex)
    _, _, _, max_error, _, status = struct.unpack_from("Iqqqqi", timex)
    return None if state == 5 or status & 0x40 else max_error / 1e6


def test_the_kernel_is_asked_for_its_error(folder):
    """On any machine: in many containers the kernel's clock is not synchronised."""
    config, server = clocked(folder, 'source = "kernel"\n        max_commit_wait = "40s"')
    try:
        client = fl.connect(server.url)
        error, insert = kernel_error(), "INSERT INTO lite.notes VALUES (1, 'x')"
        clock, = Answer(client, "SELECT source, status, error_ms, reason FROM system.clock").rows
        assert clock["source"] == "kernel"
        shown = synoptic("check", "-c", str(config), check=True).stdout
        if error is None:
            assert (clock["status"], clock["error_ms"]) == ("unsynchronized", None) and "the kernel" in clock["reason"]
            with pytest.raises(ERRORS, match=r"\[CLOCK_UNSYNCHRONIZED\].*nothing was written.*the kernel says.*chronyd"):
                Answer(client, insert)
            assert "clock: kernel, unsynchronised (the kernel says" in shown
        else:
            assert clock["status"] == "synchronized" and clock["error_ms"] >= error * 1e3 - 1
            assert Answer(client, insert).receipt["committed_at"] and "clock: kernel, at most" in shown
        assert Answer(client, "SELECT count(*) AS n FROM lite.notes").rows == [{"n": 0 if error is None else 1}]
    finally:
        server.stop()


def segment(path, bound, status=1, generation=8):
    """What a ClockBound daemon publishes, version 2."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    void = now + 1_000 * 10**9
    body = struct.pack("=qqqqqQIiB7x", now // 10**9, now % 10**9, void // 10**9, void % 10**9, bound, 0, 1000, status, 0)
    head = struct.pack("=IIIHH", 0x414D5A4E, 0x43420200, 16 + len(body), 2, generation)
    path.write_bytes(head + body)


def test_auto_takes_the_bound_of_clockbound_when_it_is_there(folder):
    path = folder / f"shm{random.randrange(1 << 30)}"
    _, server = clocked(folder, f'segment = "{path}"')
    try:
        client = fl.connect(server.url)
        clock = lambda: Answer(client, "SELECT source, status, error_ms FROM system.clock").rows[0]
        # Without a segment the kernel is asked, and what it says refuses nothing.
        error, receipt = kernel_error(), Answer(client, "INSERT INTO lite.notes VALUES (1, 'x')").receipt
        assert ("committed_at" in receipt) == (error is not None and error < 0.49)
        assert clock()["source"] == "auto: kernel"
        assert clock()["status"] == ("unsynchronized" if error is None else "synchronized")
        segment(path, bound=20_000_000)
        assert clock()["source"] == "auto: clockbound"
        assert clock()["status"] == "synchronized" and 20 <= clock()["error_ms"] < 25
        began = time.monotonic()
        receipt = Answer(client, "INSERT INTO lite.notes VALUES (2, 'x')").receipt
        assert receipt["committed_at"] and time.monotonic() - began >= 0.04
        assert 20 <= Answer(client, "SELECT * FROM lite.notes").scan("lite")["clock_error_ms"] < 25
        segment(path, bound=20_000_000, status=3)
        assert clock()["status"] == "unsynchronized"
        assert "committed_at" not in Answer(client, "INSERT INTO lite.notes VALUES (3, 'x')").receipt
    finally:
        server.stop()

"""Hostile input: each a clear coded error of its class, the server up, the next query fine."""

import random
import re
import time

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support import data, wire
from support.postgres import PASSWORD
from support.server import Server

S = grpc.StatusCode
CLASSES = {
    "SYNTAX": {S.INVALID_ARGUMENT}, "UNKNOWN_TABLE": {S.NOT_FOUND}, "UNKNOWN_COLUMN": {S.NOT_FOUND, S.INVALID_ARGUMENT},
    "UNSUPPORTED": {S.UNIMPLEMENTED}, "INVALID_OPTION": {S.INVALID_ARGUMENT, S.NOT_FOUND}, "FRESHNESS_UNMET": {S.FAILED_PRECONDITION},
    "FRESHNESS_UNPROVABLE": {S.FAILED_PRECONDITION}, "SKEW_EXCEEDED": {S.FAILED_PRECONDITION},
    "TOKEN_LOST": {S.FAILED_PRECONDITION}, "CLOCK_UNSYNCHRONIZED": {S.FAILED_PRECONDITION},
    "SOURCE_UNAVAILABLE": {S.UNAVAILABLE}, "RATE_LIMITED": {S.RESOURCE_EXHAUSTED}, "BUDGET_EXCEEDED": {S.RESOURCE_EXHAUSTED},
    "OUT_OF_MEMORY": {S.RESOURCE_EXHAUSTED}, "QUEUE_FULL": {S.RESOURCE_EXHAUSTED}, "TIMEOUT": {S.DEADLINE_EXCEEDED},
    "OUTCOME_UNKNOWN": {S.FAILED_PRECONDITION},
    "CANCELLED": {S.CANCELLED}, "UNAUTHENTICATED": {S.UNAUTHENTICATED}, "PERMISSION_DENIED": {S.PERMISSION_DENIED},
    "DATA": {S.INVALID_ARGUMENT, S.FAILED_PRECONDITION, S.OUT_OF_RANGE, S.DATA_LOSS, S.ABORTED},
}
PREFIX = re.compile(r"^\[([A-Z_]+)\] \S")


def check(error, *codes):
    """An error of the contract: coded, of its class, short, without secrets or debug output."""
    details = error.details()
    match = PREFIX.match(details)
    assert match, f"no code: {error.code()} {details[:500]!r}"
    code = match.group(1)
    assert code != "INTERNAL", f"a bug: {details[:1000]}"
    assert code in CLASSES, f"unknown code: {details[:200]}"
    assert error.code() in CLASSES[code], f"{error.code()} with {details[:200]}"
    assert not codes or code in codes, f"expected {codes}: {details[:500]}"
    assert PASSWORD not in details and "panicked" not in details
    assert len(details.encode()) <= 4096
    for leak in ("DataFusionError", "ArrowError(", "Backtrace", "backtrace", "TonicStatus", "Os {", "src/", ".rs:"):
        assert leak not in details, details[:500]
    return details


@pytest.fixture(scope="module")
def servers(folder, config):
    """The server in use and the ones that died before it: one that dies fails one test, not all."""
    started = [Server(config, folder / "hostile-0.log")]
    yield started
    if started[-1].alive():
        assert started[-1].stop() == 0
    logs = "".join(server.logged() for server in started)
    assert "panicked at crates/" not in logs, logs[logs.index("panicked at crates/") - 200:][:3000]


@pytest.fixture
def server(servers, folder, config):
    if not servers[-1].alive():
        servers.append(Server(config, folder / f"hostile-{len(servers)}.log"))
    return servers[-1]


@pytest.fixture(autouse=True)
def fine_afterwards(server):
    yield
    # A process that aborts takes a moment to end.
    time.sleep(0.02)
    assert server.alive(), f"the server died:\n{server.logged()[-1000:]}"
    with wire.Client(server.port, timeout=20) as client:
        assert client.query("SELECT 1 AS one").table.to_pylist() == [{"one": 1}]


def refused(raw, sql, *codes, headers=None):
    with pytest.raises(grpc.RpcError) as caught:
        raw.query(sql, headers)
    return check(caught.value, *codes)


# --- SQL ----------------------------------------------------------------------------------------

BROKEN = """
SELEC 1
SELECT
SELECT FROM
SELECT * FROM
SELECT 1 +
SELECT (1
SELECT 1)
SELECT 'open
SELECT "open
SELECT $$open
SELECT /* open
SELECT 1 FROM (SELECT 2
SELECT * FROM bank.accounts WHERE
SELECT * FROM bank.accounts ORDER
SELECT * FROM bank.accounts GROUP BY
SELECT CASE WHEN 1 THEN END
SELECT 1 UNION
WITH t AS SELECT 1
)(
;;;;
SELECT 1 LIMIT
SELECT * FROM bank.accounts JOIN
SELECT CAST(1 AS )
\\d
EXPLAIN
SET
SHOW
not sql at all, just words
SELECT * FROM a.b.c.d.e
""".strip().splitlines()

# Two statements may each be right; together they are refused.
SEVERAL = ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE bank.accounts", "SET synoptic.pushdown = 'none'; SELECT 1"]

UNKNOWN = [
    ("SELECT * FROM nowhere.public.t", "UNKNOWN_TABLE"),
    ("SELECT * FROM bank.nowhere.t", "UNKNOWN_TABLE"),
    ("SELECT * FROM bank.public.nope", "UNKNOWN_TABLE"),
    ("SELECT * FROM bank.nope", "UNKNOWN_TABLE"),
    ("SELECT * FROM nope", "UNKNOWN_TABLE"),
    ("SELECT * FROM bank.public.ACCOUNTZ", "UNKNOWN_TABLE"),
    ('SELECT * FROM bank.public."Accounts"', "UNKNOWN_TABLE"),
    ("SELECT * FROM reference.main.nope", "UNKNOWN_TABLE"),
    ("SELECT * FROM lake.public.nope", "UNKNOWN_TABLE"),
    ("SELECT * FROM synoptic.system.nope", "UNKNOWN_TABLE"),
    ("SELECT * FROM bank.accounts a JOIN lake.nope b ON a.id = b.id", "UNKNOWN_TABLE"),
    ("SELECT (SELECT max(x) FROM bank.nope)", "UNKNOWN_TABLE"),
    ("SELECT nope FROM bank.accounts", "UNKNOWN_COLUMN"),
    ("SELECT a.nope FROM bank.accounts a", "UNKNOWN_COLUMN"),
    ("SELECT b.id FROM bank.accounts a", "UNKNOWN_COLUMN"),
    ("SELECT id FROM bank.accounts WHERE nope = 1", "UNKNOWN_COLUMN"),
    ("SELECT id FROM bank.accounts ORDER BY nope", "UNKNOWN_COLUMN"),
    ("SELECT count(*) FROM bank.accounts GROUP BY nope", "UNKNOWN_COLUMN"),
    ("SELECT nope", "UNKNOWN_COLUMN"),
    ('SELECT "ID" FROM bank.accounts', "UNKNOWN_COLUMN"),
]

WRONG = [
    "SELECT nope(1)", "SELECT length()", "SELECT length(1, 2, 3)", "SELECT * FROM nope(1)", "SELECT sum(owner) FROM bank.accounts",
    "SELECT id FROM bank.accounts a JOIN bank.trades t ON t.account_id = a.id", "SELECT owner, count(*) FROM bank.accounts",
    "SELECT sum(count(*)) FROM bank.accounts", "SELECT id FROM bank.accounts WHERE sum(id) > 1",
    "SELECT 1 UNION SELECT 1, 2", "SELECT (SELECT id, owner FROM bank.accounts)", "SELECT CAST(1 AS nosuchtype)",
    "SELECT id FROM bank.accounts WHERE id IN (SELECT id, owner FROM bank.accounts)",
    "SELECT -owner FROM bank.accounts", "SELECT active + 1 FROM bank.accounts", "SELECT DATE '2024-13-45'",
    "SELECT TIMESTAMP 'yesterday noon'", "SELECT INTERVAL 'some time'", "SELECT ARRAY[1]['x']", "SELECT row_number()",
    "SELECT id FROM bank.accounts LIMIT -1", "SELECT id FROM bank.accounts LIMIT owner",
    "SELECT id FROM bank.accounts ORDER BY 9", "SELECT DISTINCT ON (nope) id FROM bank.accounts",
    "WITH t AS (SELECT 1), t AS (SELECT 2) SELECT * FROM t", "SELECT $1", "SELECT ?", "SELECT $1 + $3", "SELECT $0", "SELECT $name",
]

FAILS_WHILE_RUNNING = [
    "SELECT 1 / 0", "SELECT id / (id - id) FROM bank.accounts", "SELECT CAST('x' AS integer)", "SELECT CAST(owner AS bigint) FROM bank.accounts",
    "SELECT CAST(i8 AS smallint) FROM bank.kinds", "SELECT CAST('2024-02-30' AS date)",
    "SELECT (SELECT id FROM bank.accounts)", "SELECT CAST(9999999999 AS integer)", "SELECT CAST('abc' AS decimal(5,2))",
    "SELECT CAST(123456.78 AS decimal(5,2))", "SELECT 1 % 0", "SELECT to_timestamp('not a time')", "SELECT regexp_replace('a', '(', 'b')",
    "SELECT CAST(owner AS date) FROM bank.accounts", "SELECT date_trunc('eon', now())",
]

NOT_HONOURED = """
SELECT * FROM bank.accounts FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-01 00:00:00'
SELECT * FROM bank.accounts FOR SYSTEM_TIME AS OF TIMESTAMP '2026-11-23T16:00:00Z' AS a
SELECT * FROM lake.prices VERSION AS OF 3
SELECT * FROM lake.prices TIMESTAMP AS OF '2026-01-01'
SELECT * FROM bank.accounts WITH (max_rows_read = '5')
SELECT * FROM bank.accounts WITH (copy = 'standby1') AS a
SELECT * FROM bank.accounts WITH (NOLOCK)
SELECT * FROM bank.accounts a JOIN bank.trades t WITH (on_unmet = 'never') ON t.account_id = a.id
SELECT * FROM (SELECT * FROM bank.accounts WITH (nolock)) s
SELECT (SELECT max(id) FROM bank.accounts WITH (nolock))
SELECT 1 WHERE EXISTS (SELECT 1 FROM bank.accounts FOR UPDATE)
SELECT * FROM bank.accounts SETTINGS max_threads = 1
SELECT * FROM bank.accounts FORMAT JSON
SELECT * FROM bank.accounts TABLESAMPLE BERNOULLI (10)
SELECT * FROM bank.accounts TABLESAMPLE (10 ROWS)
SELECT * FROM bank.accounts TABLESAMPLE SYSTEM (5) REPEATABLE (1)
SELECT * FROM bank.accounts FOR UPDATE
SELECT * FROM bank.accounts FOR SHARE
SELECT * FROM bank.accounts FOR UPDATE OF accounts NOWAIT
SELECT * FROM bank.accounts FOR UPDATE SKIP LOCKED
SELECT * INTO copy_of FROM bank.accounts
SELECT * FROM bank.accounts FOR XML AUTO
SELECT * FROM bank.accounts FOR JSON AUTO
SELECT * FROM bank.trades PIVOT (sum(qty) FOR symbol IN ('SAP', 'IBM'))
SELECT * FROM bank.trades UNPIVOT (v FOR n IN (qty, price))
SELECT * FROM bank.trades MATCH_RECOGNIZE (ORDER BY ts PATTERN (A B) DEFINE B AS B.qty > A.qty)
SELECT id FROM bank.accounts CONNECT BY PRIOR id = id
SELECT id FROM bank.accounts LIMIT 3 BY id
SELECT id FROM bank.accounts SORT BY id
SELECT id FROM bank.accounts CLUSTER BY id
SELECT id FROM bank.accounts DISTRIBUTE BY id
SELECT id FROM bank.accounts PREWHERE id = 1
SELECT * FROM bank.accounts PARTITION (p0)
SELECT * FROM bank.accounts, LATERAL VIEW explode(ARRAY[1]) t AS x
SELECT id FROM bank.accounts GROUP BY id WITH TOTALS
SELECT id FROM bank.accounts FETCH FIRST 10 PERCENT ROWS ONLY
SELECT id FROM bank.accounts ORDER BY id FETCH FIRST 1 ROWS WITH TIES
SELECT * FROM bank.accounts INDEXED BY foo
SELECT * FROM bank.accounts FORCE INDEX (foo)
INSERT INTO bank.accounts (id, owner) VALUES (1, 'x')
INSERT INTO bank.accounts SELECT * FROM bank.accounts
INSERT INTO reference.symbols (symbol) VALUES ('X') ON CONFLICT DO NOTHING
UPDATE bank.accounts SET owner = 'x'
UPDATE bank.accounts SET owner = 'x' RETURNING id
DELETE FROM bank.accounts
TRUNCATE bank.accounts
MERGE INTO bank.accounts a USING bank.trades t ON a.id = t.id WHEN MATCHED THEN DELETE
CREATE TABLE x (a int)
CREATE TABLE bank.public.x AS SELECT 1
CREATE TABLE synoptic.public.x AS SELECT 1
CREATE TEMPORARY TABLE x (a int)
CREATE VIEW v AS SELECT 1
CREATE OR REPLACE VIEW bank.public.v AS SELECT 1
CREATE MATERIALIZED VIEW v AS SELECT 1
CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'
CREATE SCHEMA s
CREATE DATABASE d
CREATE INDEX i ON bank.accounts (id)
CREATE FUNCTION f() RETURNS int LANGUAGE SQL AS 'SELECT 1'
DROP TABLE bank.accounts
DROP VIEW bank.active_accounts
DROP SCHEMA bank.public CASCADE
ALTER TABLE bank.accounts ADD COLUMN x int
GRANT SELECT ON bank.accounts TO public
COPY bank.accounts TO '/tmp/stolen.csv'
COPY (SELECT * FROM bank.accounts) TO '/tmp/stolen.parquet' STORED AS PARQUET
COPY bank.accounts FROM '/etc/passwd'
LOAD DATA INPATH '/etc/passwd' INTO TABLE x
ATTACH DATABASE '/etc/passwd' AS x
DETACH DATABASE bank
PRAGMA table_info(symbols)
VACUUM bank.accounts
ANALYZE bank.accounts
CALL do_something()
EXECUTE something
PREPARE p AS SELECT 1
DEALLOCATE p
DECLARE c CURSOR FOR SELECT 1
FETCH NEXT FROM c
LISTEN channel
NOTIFY channel
LOCK TABLE bank.accounts
KILL 1
USE bank.public.accounts
SELECT * FROM '/etc/passwd'
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM pg_sleep(100)
""".strip().splitlines()

# What a hint comment says is not honoured either: refused, or it is a comment like any other.
OPTIONS = [
    ("SET synoptic.nope = 'x'", "INVALID_OPTION"), ("SET synoptic.pushdown = 'sometimes'", "INVALID_OPTION"),
    ("SET synoptic.max_staleness = 'soon'", "INVALID_OPTION"), ("SET synoptic.statement_timeout = '-5s'", "INVALID_OPTION"),
    ("SET synoptic.max_rows_read = 'many'", "INVALID_OPTION"), ("SET synoptic.dynamic_filters = 'perhaps'", "INVALID_OPTION"),
    ("SET synoptic.on_unmet = 'panic'", "INVALID_OPTION"), ("SET synoptic.consistency = 'as of'", "INVALID_OPTION"),
    ("SET synoptic.token = 'forged'", "INVALID_OPTION"), ("SET synoptic.read_timestamp = '2026-11-23 16:00'", "INVALID_OPTION"),
    ("SHOW synoptic.nope", "INVALID_OPTION"), ("RESET synoptic.nope", "INVALID_OPTION"),
    ("SET datafusion.execution.batch_size = 0", None), ("SET datafusion.nope = 1", None),
    ("SET datafusion.catalog.default_catalog = 'x'", None), ("SET datafusion.runtime.memory_limit = '1K'", None),
]

HEADERS = [
    ("x-synoptic-nope", "x"), ("x-synoptic-pushdown", "sometimes"), ("x-synoptic-max-staleness", "soon"),
    ("x-synoptic-max-rows-read", "0"), ("x-synoptic-statement-timeout", "99999999999999999999h"), ("x-synoptic-", "x"),
    ("x-synoptic-consistency", "as of"), ("x-synoptic-read-timestamp", "yesterday"), ("x-synoptic-token", "forged"), ("x-synoptic-pushdown", "a" * 4000),
]

DATA = [
    "SELECT * FROM bank.misfits", "SELECT n FROM bank.misfits WHERE id = 2", "SELECT sum(n) FROM bank.nan_money",
    "SELECT n FROM bank.nan_money", "SELECT * FROM bank.infinite_days", "SELECT d FROM bank.infinite_days",
    "SELECT n FROM reference.misfit", "SELECT sum(n) FROM reference.misfit", "SELECT d FROM reference.misfit_date",
    "SELECT m FROM reference.misfit_decimal", "SELECT * FROM badcsv.late", "SELECT * FROM badcsv.ragged",
]


class TestSql:
    @pytest.mark.parametrize("sql", BROKEN)
    def test_broken(self, raw, sql):
        refused(raw, sql, "SYNTAX", "UNSUPPORTED", "UNKNOWN_TABLE", "INVALID_OPTION")

    @pytest.mark.parametrize("sql", ["", ";", "   ", "-- nothing", "\0", "SELECT \0", "\ufeff", "\ud7ff\u2028"])
    def test_nothing(self, raw, sql):
        refused(raw, sql, "SYNTAX")

    @pytest.mark.parametrize("sql", SEVERAL)
    def test_several(self, raw, sql):
        assert "one" in refused(raw, sql, "SYNTAX", "UNSUPPORTED").lower()

    @pytest.mark.parametrize(("sql", "code"), UNKNOWN)
    def test_unknown_names(self, raw, sql, code):
        assert "nope" in refused(raw, sql, code) or "nope" not in sql

    def test_a_misspelt_name_is_named_right(self, raw):
        assert "accounts" in refused(raw, "SELECT * FROM bank.public.acounts", "UNKNOWN_TABLE")
        assert "owner" in refused(raw, "SELECT ownr FROM bank.public.accounts", "UNKNOWN_COLUMN")

    @pytest.mark.parametrize("sql", WRONG)
    def test_wrong(self, raw, sql):
        refused(raw, sql)

    @pytest.mark.parametrize("sql", FAILS_WHILE_RUNNING)
    def test_fails_while_running(self, raw, sql):
        refused(raw, sql)

    @pytest.mark.parametrize("sql", [
        "SELECT i8 + 1 FROM bank.kinds", "SELECT i8 * 2 FROM bank.kinds", "SELECT -i8 FROM bank.kinds",
        "SELECT id FROM bank.kinds WHERE i8 - 2 < 0 AND i8 + 1 > 0 ORDER BY i8 * 2",
        "SELECT a.id FROM bank.kinds a JOIN bank.kinds b ON a.i8 + 1 = b.i8 + 1",
        "SELECT 9223372036854775807 + 1", "SELECT abs(-5) + 9223372036854775807",
        "SELECT a * 2 FROM (SELECT 9223372036854775807 AS a) x",
        "SELECT sum(i8) FROM (SELECT i8 FROM bank.kinds WHERE i8 > 0 UNION ALL SELECT 1) x",
        "SELECT 1 AS g, sum(i8) FROM (SELECT i8 FROM bank.kinds WHERE i8 > 0 UNION ALL SELECT 1) x GROUP BY 1",
        "SELECT sum(d) FROM (VALUES (CAST(99999999999999999999999999999999999999 AS DECIMAL(38, 0))), (1)) t(d)"])
    def test_an_overflow_is_an_error(self, raw, sql):
        """Never a number that wrapped around."""
        refused(raw, sql, "DATA")

    @pytest.mark.parametrize("sql", NOT_HONOURED)
    def test_parsed_but_not_honoured(self, raw, sql):
        refused(raw, sql, "UNSUPPORTED", "SYNTAX", "INVALID_OPTION", "UNKNOWN_TABLE", "PERMISSION_DENIED")

    def test_nothing_was_written(self, raw, postgres):
        assert postgres.rows("SELECT count(*) FROM accounts WHERE owner = 'x'", "bank") == [(0,)]
        assert raw.query("SELECT count(*) AS n FROM bank.accounts").table.to_pylist() == [{"n": 1000}]

    @pytest.mark.parametrize("sql", ["SELECT /*+ BROADCAST(a) */ * FROM bank.accounts a LIMIT 1",
                                     "SELECT * FROM lake.prices -- FOR UPDATE\nLIMIT 1"])
    def test_comments_are_comments_or_refused(self, raw, sql):
        try:
            assert raw.query(sql).table.num_rows == 1
        except grpc.RpcError as error:
            check(error, "UNSUPPORTED")

    @pytest.mark.parametrize(("sql", "code"), OPTIONS)
    def test_options(self, raw, sql, code):
        refused(raw, sql, *([code] if code else ["INVALID_OPTION", "UNSUPPORTED", "PERMISSION_DENIED"]))

    @pytest.mark.parametrize(("name", "value"), HEADERS)
    def test_headers(self, raw, name, value):
        refused(raw, "SELECT 1", "INVALID_OPTION", "UNSUPPORTED", headers=[(name, value)])

    @pytest.mark.parametrize("sql", DATA)
    def test_values_that_do_not_fit(self, raw, sql):
        details = refused(raw, sql, "DATA")
        assert any(source in details for source in ("bank", "reference", "badcsv")), details

    def test_a_value_that_does_not_fit_is_named(self, raw):
        details = refused(raw, "SELECT n FROM reference.misfit", "DATA")
        assert "reference" in details and "misfit" in details and "column n" in details

    def test_rows_read_are_bounded_when_asked(self, raw):
        refused(raw, "SELECT hash FROM bank.big", "BUDGET_EXCEEDED",
                headers=[("x-synoptic-max-rows-read", "1000")])
        assert raw.query("SELECT * FROM reference.symbols", [("x-synoptic-max-rows-read", "1000")]).table.num_rows == 8

    @pytest.mark.parametrize("sql", [
        "SELECT " + "(" * 3000 + "1" + ")" * 3000,
        "SELECT " + "NOT " * 20_000 + "true",
        "SELECT " + "- " * 20_000 + "1",
        "SELECT " + " + ".join(["1"] * 30_000) + " FROM nope",
        "SELECT 1 WHERE " + " AND ".join(["1 = 1"] * 20_000) + " AND nope",
        "SELECT CASE " + "WHEN 1 = 1 THEN (CASE " * 400 + "nope",
        "SELECT " + "coalesce(" * 1000 + "1" + ")" * 1000 + " FROM nope",
        "SELECT * FROM " + "(SELECT * FROM " * 500 + "nope" + ") t" * 500,
        " UNION ALL ".join(["SELECT 1"] * 3000) + " UNION ALL SELECT 1, 2",
        "SELECT '" + "x" * (1 << 20),
        "SELECT '" + "x" * (1 << 20) + "' FROM nope",
        "SELECT nope_" + "x" * 100_000,
        "SELECT * FROM " + "x" * 100_000,
        "x" * (1 << 20),
        "🦀" * 100_000,
        "SELECT " + ", ".join(f"{i} AS c{i}" for i in range(5000)) + " FROM nope",
    ], ids=lambda sql: f"{sql[:24]}..{len(sql)}")
    @pytest.mark.timeout(120)
    def test_huge(self, raw, sql):
        refused(raw, sql)

    def test_large_but_right(self, raw):
        keys = ", ".join(map(str, range(20_000)))
        assert raw.query(f"SELECT count(*) AS n FROM bank.accounts WHERE id IN ({keys})").table.to_pylist() == [{"n": 1000}]
        assert raw.query("SELECT length('" + "x" * (1 << 20) + "') AS n").table.to_pylist() == [{"n": 1 << 20}]

    def test_a_message_beyond_the_limit(self, raw):
        with pytest.raises(grpc.RpcError) as caught:
            raw.query("SELECT '" + "x" * (100 << 20) + "'")
        assert caught.value.code() in (S.RESOURCE_EXHAUSTED, S.OUT_OF_RANGE, S.INVALID_ARGUMENT)


# --- Bytes --------------------------------------------------------------------------------------

def garbage(seed):
    rng = random.Random(seed)
    return bytes(rng.randrange(256) for _ in range(rng.choice([1, 2, 7, 60, 500, 5000])))


HALF_RIGHT = [
    wire.any_of("CommandStatementQuery", b"\x0a\xff"), wire.any_of("CommandStatementQuery", b"\xff\xff\xff"),
    wire.any_of("CommandStatementQuery", wire.message({1: b"\xff\xfe not utf-8"})), wire.any_of("CommandStatementQuery"),
    wire.any_of("CommandNoSuchThing", b"x"), wire.any_of("CommandPreparedStatementQuery", wire.message({1: b"forged"})),
    wire.any_of("CommandPreparedStatementQuery"), wire.any_of("CommandGetTables", b"\x0a\x05ab"),
    wire.any_of("CommandGetXdbcTypeInfo", b"\x08"), wire.any_of("CommandStatementSubstraitPlan", b"\x0a\x01x"),
    wire.any_of("CommandGetPrimaryKeys", b"\x0a"), wire.any_of("TicketStatementQuery", wire.message({1: b"forged"})),
    wire.message({1: "type.googleapis.com/", 2: b""}), wire.message({1: "type.googleapis.com/google.protobuf.Any", 2: b"x"}),
    wire.message({2: b"no type"}),
]


class TestBytes:
    @pytest.mark.parametrize("seed", range(25))
    def test_garbage_as_a_command(self, raw, seed):
        for method in ("GetFlightInfo", "GetSchema", "PollFlightInfo"):
            with pytest.raises(grpc.RpcError) as caught:
                raw.unary(method, wire.cmd(garbage(seed)))
            check(caught.value)

    @pytest.mark.parametrize("seed", range(25))
    def test_garbage_as_a_ticket(self, raw, seed):
        with pytest.raises(grpc.RpcError) as caught:
            raw.do_get(garbage(seed))
        check(caught.value)

    @pytest.mark.parametrize("body", HALF_RIGHT, ids=range(len(HALF_RIGHT)))
    def test_half_right_commands_and_tickets(self, raw, body):
        for call in (lambda: raw.get_flight_info(wire.cmd(body)), lambda: raw.do_get(body)):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            check(caught.value)

    @pytest.mark.parametrize("descriptor", [
        b"", wire.message({1: 0}), wire.message({1: 2}), wire.message({1: 1}), wire.message({1: 99, 2: b"SELECT 1"}),
        wire.path(""), wire.path("", "", ""), wire.path("a", "b", "c", "d"), wire.path("bank", "public", "nope"),
        wire.path("../../etc/passwd"), wire.path("bank", "public", "accounts; DROP TABLE accounts"),
        wire.path('bank', 'public', 'accounts" --'), wire.path(*["x"] * 1000), wire.path("x" * 100_000)],
        ids=lambda d: repr(d[:30]))
    def test_descriptors(self, raw, descriptor):
        with pytest.raises(grpc.RpcError) as caught:
            raw.get_flight_info(descriptor)
        check(caught.value)

    @pytest.mark.parametrize("cut", range(12))
    def test_truncated_tickets(self, raw, cut):
        ticket = raw.get_flight_info(wire.statement("SELECT 1")).endpoints[0].ticket
        with pytest.raises(grpc.RpcError) as caught:
            raw.do_get(ticket[:len(ticket) * cut // 12])
        check(caught.value)

    @pytest.mark.parametrize("at", range(20))
    def test_forged_tickets(self, raw, at):
        ticket = bytearray(raw.get_flight_info(wire.statement("SELECT 1 AS x")).endpoints[0].ticket)
        ticket[len(ticket) * at // 20] ^= 1 << at % 8
        with pytest.raises(grpc.RpcError) as caught:
            raw.do_get(bytes(ticket))
        check(caught.value)

    def test_a_ticket_of_another_server(self, raw, folder, good_config):
        other = Server(good_config, folder / "other.log")
        try:
            with wire.Client(other.port) as client:
                ticket = client.get_flight_info(wire.statement("SELECT 1 AS x")).endpoints[0].ticket
            try:
                raw.do_get(ticket)
            except grpc.RpcError as error:
                check(error)
            else:
                pytest.fail("a ticket signed with another key was taken")
        finally:
            other.stop()

    @pytest.mark.parametrize("kind", ["", "NoSuchAction", "x" * 10_000, "createpreparedstatement", "../CloseSession"])
    def test_unknown_actions(self, raw, kind):
        with pytest.raises(grpc.RpcError) as caught:
            raw.do_action(kind, b"x")
        check(caught.value)

    @pytest.mark.parametrize("kind", ["CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo", "CancelQuery",
                                      "SetSessionOptions", "BeginTransaction", "EndTransaction", "BeginSavepoint",
                                      "CreatePreparedSubstraitPlan", "RenewFlightEndpoint"])
    def test_garbage_in_actions(self, raw, kind):
        for body in (b"\xff\xff\xff", garbage(1), wire.any_of("ActionNoSuchThing", b"x"), wire.any_of("ActionCreatePreparedStatementRequest", b"\x0a\xff")):
            try:
                raw.do_action(kind, body)
            except grpc.RpcError as error:
                check(error)
            else:
                assert kind == "BeginTransaction"

    @pytest.mark.parametrize("sql", ["SELEC 1", "SELECT nope FROM bank.accounts", "SELECT * FROM nope", "INSERT INTO bank.accounts VALUES (1)"])
    def test_preparing_what_is_wrong(self, raw, sql):
        with pytest.raises(grpc.RpcError) as caught:
            raw.prepare(sql)
        check(caught.value)

    def test_garbage_in_put(self, raw):
        batch = pa.record_batch({"a": [1]})
        streams = [
            [b""], [garbage(2)], [wire.message({1: wire.cmd(garbage(3))})], [wire.message({1: wire.path("a", "b")})],
            wire.flight_data(batch, wire.cmd(garbage(4))), wire.flight_data(batch, wire.path("bank", "public", "accounts")),
            wire.flight_data(batch, wire.cmd(wire.any_of("CommandStatementUpdate", wire.message({1: "DELETE FROM bank.accounts"})))),
            wire.flight_data(batch, wire.cmd(wire.any_of("CommandStatementIngest", wire.message({2: "t"})))),
            wire.flight_data(batch, wire.cmd(wire.any_of("CommandPreparedStatementUpdate", wire.message({1: b"forged"})))),
            wire.flight_data(batch, wire.cmd(wire.any_of("CommandPreparedStatementQuery", wire.message({1: b"forged"})))),
            [],
        ]
        for messages in streams:
            with pytest.raises(grpc.RpcError) as caught:
                raw.do_put(messages)
            check(caught.value)

    def test_garbage_in_bound_parameters(self, raw):
        prepared = raw.prepare("SELECT id FROM bank.accounts WHERE id = ?")
        descriptor = wire.cmd(prepared.command)
        good = wire.flight_data(pa.record_batch({"0": [1]}), descriptor)
        for messages in ([good[0], garbage(9)], [good[0], wire.message({2: b"\xff" * 40})],
                         [wire.message({1: descriptor, 2: b"\x10\0\0\0" * 9})], [good[0], good[1][:len(good[1]) // 2]]):
            with pytest.raises(grpc.RpcError) as caught:
                raw.do_put(messages)
                prepared.execute()
            check(caught.value)
        for batch in (pa.record_batch({"0": ["not a number"]}), pa.record_batch({"0": [1], "1": [2]})):
            with pytest.raises(grpc.RpcError) as caught:
                prepared.bind(batch)
                prepared.execute()
            check(caught.value)

    def test_exchange_handshake_and_flights(self, raw):
        for call in (lambda: raw.do_exchange([garbage(5)]), lambda: raw.do_exchange([]),
                     lambda: raw.do_exchange(wire.flight_data(pa.record_batch({"a": [1]}), wire.cmd(b"SELECT 1")))):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            check(caught.value)
        try:
            raw.stream("ListFlights", wire.message({1: garbage(6)}))
        except grpc.RpcError as error:
            check(error)
        try:
            raw.handshake([wire.message({1: 99, 2: garbage(7)})], [("authorization", "Basic !!!not base64")])
        except grpc.RpcError as error:
            check(error)

    def test_not_even_grpc(self, server):
        import socket
        for greeting in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", garbage(8), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + garbage(9),
                         b"\x16\x03\x01\x02\x00\x01\x00", b""):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as s:
                s.settimeout(1)
                try:
                    s.sendall(greeting)
                    s.recv(1000)
                except OSError:
                    pass

    def test_half_a_frame_for_ever(self, server):
        """Connections that say nothing hold nobody up."""
        import socket
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        with wire.Client(server.port, timeout=20) as client:
            assert client.query("SELECT 2 AS n").table.to_pylist() == [{"n": 2}]
        for s in held:
            s.close()


# --- Sources ------------------------------------------------------------------------------------

class TestSources:
    @pytest.mark.parametrize("sql", [
        "SELECT * FROM dead.public.t", "SELECT * FROM dead.t", "SELECT * FROM bank.accounts a JOIN dead.public.t d ON d.id = a.id",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM dead.public.t)"])
    def test_a_source_that_is_down(self, raw, sql):
        began = time.monotonic()
        assert "dead" in refused(raw, sql, "SOURCE_UNAVAILABLE")
        assert time.monotonic() - began < 15

    def test_a_table_dropped_between_plan_and_read(self, raw, postgres):
        postgres.run("CREATE TABLE brief AS SELECT 1 AS id", "bank")
        info = raw.get_flight_info(wire.statement("SELECT * FROM bank.brief"))
        postgres.run("DROP TABLE brief", "bank")
        with pytest.raises(grpc.RpcError) as caught:
            raw.do_get(info.endpoints[0].ticket)
        assert "brief" in check(caught.value, "UNKNOWN_TABLE")

    @pytest.mark.parametrize("change", [
        "ALTER TABLE shifting ALTER COLUMN n TYPE text", "ALTER TABLE shifting RENAME COLUMN n TO m", "ALTER TABLE shifting DROP COLUMN n",
        "ALTER TABLE shifting ALTER COLUMN n TYPE numeric(20,5)"])
    def test_a_column_altered_between_plan_and_read(self, raw, postgres, change):
        postgres.run("DROP TABLE IF EXISTS shifting", "bank")
        postgres.run("CREATE TABLE shifting AS SELECT 1 AS id, 2 AS n", "bank")
        info = raw.get_flight_info(wire.statement("SELECT id, n FROM bank.shifting"))
        postgres.run(change, "bank")
        try:
            answer = raw.do_get(info.endpoints[0].ticket)
        except grpc.RpcError as error:
            assert "shifting" in check(error, "UNKNOWN_TABLE", "UNKNOWN_COLUMN", "DATA")
        else:
            # A value that still fits the promised type may be read as that type.
            assert answer.schema.types == info.schema.types and answer.table.to_pylist() == [{"id": 1, "n": 2}]
        # The next statement sees the table as it is now.
        now = raw.query("SELECT * FROM bank.shifting").schema
        assert (now.names == ["id", "m"]) == ("RENAME" in change)

    def test_a_column_added_between_plan_and_read(self, raw, postgres):
        postgres.run("DROP TABLE IF EXISTS growing", "bank")
        postgres.run("CREATE TABLE growing AS SELECT 1 AS id", "bank")
        info = raw.get_flight_info(wire.statement("SELECT * FROM bank.growing"))
        postgres.run("ALTER TABLE growing ADD COLUMN more text", "bank")
        try:
            assert raw.do_get(info.endpoints[0].ticket).table.to_pylist() == [{"id": 1}]
        except grpc.RpcError as error:
            check(error, "UNKNOWN_TABLE", "UNKNOWN_COLUMN")
        assert raw.query("SELECT * FROM bank.growing").schema.names == ["id", "more"]

    def test_a_file_removed_or_replaced_between_plan_and_read(self, raw, folder):
        for change in ("remove", "replace"):
            file = folder / "lake" / "brief.parquet"
            pq.write_table(pa.table({"id": range(1000)}), file)
            info = raw.get_flight_info(wire.statement("SELECT * FROM lake.brief"))
            if change == "remove":
                file.unlink()
            else:
                pq.write_table(pa.table({"other": ["x"] * 10}), file)
            try:
                answer = raw.do_get(info.endpoints[0].ticket)
            except grpc.RpcError as error:
                check(error, "UNKNOWN_TABLE", "UNKNOWN_COLUMN", "DATA", "SOURCE_UNAVAILABLE")
            else:
                pytest.fail(f"{change}: {answer.table.num_rows} rows of a file that is gone")
        file.unlink()

    @pytest.mark.parametrize("name", ["truncated", "no_footer", "wrong_magic", "footer_length", "footer_bits", "page_bits",
                                      "not_parquet", "magic_only"])
    @pytest.mark.parametrize("sql", ["SELECT * FROM poisoned.{}", "SELECT sum(volume), sum(close), count(DISTINCT symbol), count(DISTINCT day) FROM poisoned.{}"])
    def test_poisoned_parquet(self, raw, name, sql):
        details = refused(raw, sql.format(name), "DATA")
        assert "poisoned" in details and name in details

    def test_a_poisoned_neighbour_spoils_nothing(self, raw):
        assert raw.query("SELECT count(*) AS n FROM poisoned.good").table.to_pylist() == [{"n": data.prices().num_rows}]

    @pytest.mark.parametrize("name", ["ragged", "late", "binary", "quotes"])
    def test_bad_csv(self, raw, name):
        try:
            answer = raw.query(f"SELECT * FROM badcsv.{name}")
        except grpc.RpcError as error:
            assert "badcsv" in check(error, "DATA")
        else:
            assert name in ("binary", "quotes"), answer.table

    def test_a_restarted_database(self, raw, postgres, folder, good_config):
        """Connections in the pool that died are not handed to the next statement."""
        assert raw.query("SELECT count(*) AS n FROM bank.accounts").table.num_rows == 1
        postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                     " AND pid <> pg_backend_pid()")
        for _ in range(3):
            assert raw.query("SELECT count(*) AS n FROM bank.accounts").table.to_pylist() == [{"n": 1000}]

    def test_a_connection_lost_in_the_middle(self, raw, postgres):
        info = raw.get_flight_info(wire.statement("SELECT * FROM bank.slow"))
        call = raw.do_get_raw(info.endpoints[0].ticket)
        from support.process import until
        assert until(lambda: postgres.running("%slow%"), 10) is not None
        for pid, _ in postgres.running("%slow%"):
            postgres.run(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        check(caught.value, "SOURCE_UNAVAILABLE")

    def test_secrets_are_nowhere(self, raw, server):
        for sql in ["SELECT * FROM synoptic.system.sources", "SELECT * FROM synoptic.system.settings", "SELECT * FROM synoptic.system.tables",
                    "SELECT * FROM synoptic.system.queries", "EXPLAIN VERBOSE SELECT * FROM bank.accounts"]:
            assert PASSWORD not in str(raw.query(sql).table.to_pylist()), sql
        assert PASSWORD not in server.logged()


def test_there_are_enough():
    assert len(BROKEN) + len(UNKNOWN) + len(WRONG) + len(NOT_HONOURED) + len(OPTIONS) + len(HEADERS) + len(DATA) >= 200

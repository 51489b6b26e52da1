"""What real clients do, through the real clients; and what others do, byte by byte."""

import datetime as dt
import decimal
import json
import threading
import time

import adbc_driver_flightsql.dbapi as adbc
import adbc_driver_manager
import grpc
import pandas
import polars
import pyarrow as pa
import pyarrow.flight as fl
import pytest
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions, StatementOptions

import corpus
from support import data, wire
from support.clients import query, rows, same_schema

CATALOGS = {"synoptic", "bank", "standby", "reference", "lake", "fx", "events", "ticks"}


@pytest.fixture
def connection(server):
    with adbc.connect(server.url) as opened:
        yield opened


@pytest.fixture
def cursor(connection):
    with connection.cursor() as opened:
        yield opened


# --- pyarrow only -------------------------------------------------------------------------------

class TestPyarrow:
    def test_plain_sql_as_the_descriptor(self, flight):
        table = query(flight, "SELECT id, owner, balance FROM bank.public.accounts ORDER BY id")
        want = data.accounts().select(["id", "owner", "balance"])
        assert rows(table) == rows(want)
        assert table.schema.names == want.schema.names

    def test_the_quick_start(self, server):
        client = fl.connect(server.url)
        info = client.get_flight_info(fl.FlightDescriptor.for_command("select * from bank.public.accounts limit 10"))
        assert client.do_get(info.endpoints[0].ticket).read_pandas().shape == (10, 7)
        client.close()

    def test_flight_info(self, flight):
        descriptor = fl.FlightDescriptor.for_command(b"SELECT * FROM lake.prices")
        info = flight.get_flight_info(descriptor)
        assert info.descriptor == descriptor
        assert len(info.endpoints) == 1 and list(info.endpoints[0].locations) == []
        assert info.total_records in (-1, data.prices().num_rows)
        assert [str(t) for t in info.schema.types] == ["string", "date32[day]", "decimal128(12, 4)", "int64"]

    @pytest.mark.parametrize("path", [
        ("reference", "main", "symbols"), ("reference", "symbols"), ("bank", "Mixed Case", "Select")])
    def test_a_path_is_a_table(self, flight, path):
        info = flight.get_flight_info(fl.FlightDescriptor.for_path(*path))
        table = flight.do_get(info.endpoints[0].ticket).read_all()
        assert table.num_rows == (2 if path[0] == "bank" else 8)

    def test_an_unknown_path(self, flight):
        with pytest.raises(pa.ArrowKeyError, match=r"\[UNKNOWN_TABLE\]"):
            flight.get_flight_info(fl.FlightDescriptor.for_path("reference", "main", "nope"))

    def test_get_schema_runs_nothing(self, flight, postgres):
        descriptor = fl.FlightDescriptor.for_command(b"SELECT id, 1.5 AS x FROM bank.stuck")
        began = time.monotonic()
        schema = flight.get_schema(descriptor).schema
        assert time.monotonic() - began < 10
        assert schema.names == ["id", "x"]
        assert postgres.running("%stuck%") == []

    def test_sql_as_the_ticket(self, flight):
        assert flight.do_get(fl.Ticket(b"SELECT 41 + 1 AS answer")).read_all().to_pylist() == [{"answer": 42}]

    def test_the_query_id_is_in_the_schema(self, flight):
        info = flight.get_flight_info(fl.FlightDescriptor.for_command(b"SELECT * FROM lake.prices"))
        reader = flight.do_get(info.endpoints[0].ticket)
        query_id = reader.schema.metadata[b"synoptic.query_id"].decode()
        reader.read_all()
        queries = query(flight, "SELECT * FROM synoptic.system.queries").to_pylist()
        (row,) = [r for r in queries if query_id in r.values()]
        assert any("lake.prices" in str(v) for v in row.values())

    def test_the_receipt_is_the_last_metadata(self, flight):
        sql = b"SELECT s.currency, max(p.close) FROM lake.prices p JOIN reference.symbols s USING (symbol) GROUP BY 1"
        info = flight.get_flight_info(fl.FlightDescriptor.for_command(sql))
        draft = json.loads(info.app_metadata)
        reader = flight.do_get(info.endpoints[0].ticket)
        last = None
        while True:
            try:
                chunk = reader.read_chunk()
            except StopIteration:
                break
            last = chunk.app_metadata or last
        receipt = json.loads(last.to_pybytes())
        assert receipt["query_id"] == reader.schema.metadata[b"synoptic.query_id"].decode() == draft["query_id"]
        by_source = {scan["source"]: scan for scan in receipt["scans"]}
        assert set(by_source) == {"lake", "reference"} == {scan["source"] for scan in draft["scans"]}
        assert by_source["reference"]["rows"] == 8 and by_source["reference"]["table"] == "main.symbols"
        assert by_source["lake"]["rows"] == data.prices().num_rows and by_source["lake"]["bytes"] > 0
        assert by_source["lake"]["copy"] == "primary"
        assert "symbols" in by_source["reference"]["remote_text"]

    def test_an_empty_answer_has_its_columns(self, flight):
        table = query(flight, "SELECT id, owner FROM bank.accounts WHERE false")
        assert table.num_rows == 0 and table.schema.names == ["id", "owner"]

    def test_duplicate_and_strange_column_names(self, flight):
        table = query(flight, 'SELECT 1, 1, count(*), 2 AS "ünï ""q"" ", 3 AS ""')
        assert [c.to_pylist() for c in table.columns] == [[1], [1], [1], [2], [3]]
        assert table.schema.names[3] == 'ünï "q" '

    @pytest.mark.parametrize("sql", [
        "SELECT 1;", "SELECT 1 -- done", "/* a */ SELECT /* b */ 1", "\n\tSELECT\n1\n;\n",
        "SELECT 1 WHERE '" + "x" * 10_000 + "' <> ''"])
    def test_text_around_a_statement(self, flight, sql):
        assert query(flight, sql).column(0).to_pylist() == [1]

    def test_types_are_those_that_every_client_reads(self, flight):
        """No views and no dictionaries, also within nested types."""
        table = query(flight, "SELECT symbol, make_array(symbol) AS a, struct(symbol) AS s FROM ticks.ticks LIMIT 1")
        assert table.schema.types[0] == pa.string()
        for kind in table.schema.types:
            assert "view" not in str(kind) and "dictionary" not in str(kind)

    def test_every_postgres_type_arrives(self, flight):
        table = query(flight, "SELECT * FROM bank.kinds ORDER BY id")
        first, second, third = table.to_pylist()
        assert (first["b"], first["i2"], first["i4"], first["i8"]) == (True, 32767, 2147483647, 9223372036854775807)
        assert (first["f4"], first["f8"]) == (1.5, 2.25)
        assert first["n"] == decimal.Decimal("1234567.891")
        assert first["wide"] == decimal.Decimal("12345678901234567890.0123456789")
        assert second["wide"] == decimal.Decimal("-0.0000000001")
        assert (first["t"], first["v"], first["c"].rstrip()) == ("text", "varchar", "ab")
        assert first["d"] == dt.date(2024, 2, 29) and second["d"] == dt.date(1901, 1, 1)
        assert first["tm"] == dt.time(13, 14, 15, 123456)
        assert first["ts"] == dt.datetime(2024, 2, 29, 13, 14, 15, 123456)
        assert first["tz"] == dt.datetime(2024, 2, 29, 11, 14, 15, 123456, dt.timezone.utc)
        assert str(table.schema.field("tz").type) in ("timestamp[us, tz=UTC]", "timestamp[us, tz=+00:00]")
        assert (first["iv"].months, first["iv"].days, first["iv"].nanoseconds) == (1, 2, 3 * 10**9)
        assert first["by"] == b"\x00\xff\x10"
        assert str(first["u"]) in ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",)
        assert json.loads(first["j"]) == {"a": 1} and json.loads(first["jb"]) == {"a": [1, 2]}
        assert (first["m"], first["p"]) == ("calm", 7)
        assert first["ia"] == [1, None, 3] and first["ta"] == ["a", None, "c d"]
        assert first["net"] in ("10.0.0.1", "10.0.0.1/32")
        assert all(value is None for name, value in third.items() if name != "id")

    def test_options_by_header(self, flight):
        sql = "EXPLAIN SELECT id FROM bank.accounts WHERE id = 7"

        def remote_text(**headers):
            return "\n".join(str(v) for r in query(flight, sql, **headers).to_pylist() for v in r.values())

        auto, none = remote_text(), remote_text(x_synoptic_pushdown="none")
        also_none = remote_text(**{"x-synoptic-pushdown": "none"})
        assert "7" in auto and "WHERE" in auto.upper()
        assert auto != none and "pushdown is 'none'" in none and "pushdown is 'none'" in also_none

    @pytest.mark.parametrize("compression", ["lz4", "zstd", "none", "ZSTD"])
    def test_compression_by_header(self, flight, compression):
        for sql in ("SELECT * FROM bank.accounts ORDER BY id", "SELECT id FROM bank.accounts WHERE id < 0"):
            assert query(flight, sql, x_synoptic_compression=compression).equals(query(flight, sql))

    def test_a_compression_that_is_not_known(self, flight):
        with pytest.raises(pa.ArrowInvalid, match=r"\[INVALID_OPTION\].*'none', 'lz4' or 'zstd'"):
            query(flight, "SELECT 1", x_synoptic_compression="gzip")

    def test_options_do_not_leak_from_one_call_to_the_next(self, flight):
        assert "none" in query(flight, "SHOW synoptic.pushdown", x_synoptic_pushdown="none").to_pylist()[0].values()
        assert "none" not in query(flight, "SHOW synoptic.pushdown").to_pylist()[0].values()

    def test_set_and_show_in_one_session(self, server):
        with adbc.connect(server.url) as one, adbc.connect(server.url) as other:
            with one.cursor() as a, other.cursor() as b:
                a.execute("SET synoptic.pushdown = 'none'")
                a.execute("SHOW synoptic.pushdown")
                assert "none" in a.fetchone()
                b.execute("SHOW synoptic.pushdown")
                assert "auto" in b.fetchone()
                a.execute("RESET synoptic.pushdown")
                a.execute("SHOW synoptic.pushdown")
                assert "auto" in a.fetchone()

    def test_tickets_are_signed_and_opaque(self, flight):
        info = flight.get_flight_info(fl.FlightDescriptor.for_command(b"SELECT 1"))
        ticket = info.endpoints[0].ticket.ticket
        for at in range(0, len(ticket), max(1, len(ticket) // 40)):
            forged = ticket[:at] + bytes([ticket[at] ^ 1]) + ticket[at + 1:]
            with pytest.raises((pa.ArrowException, fl.FlightError)) as caught:
                flight.do_get(fl.Ticket(forged)).read_all()
            assert "[" in str(caught.value)

    def test_a_ticket_can_be_read_twice_or_says_why_not(self, flight):
        info = flight.get_flight_info(fl.FlightDescriptor.for_command(b"SELECT 7 AS n"))
        assert flight.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"n": 7}]
        assert flight.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"n": 7}]

    def test_list_actions_and_flights(self, flight):
        actions = {action.type for action in flight.list_actions()}
        assert {"CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo"} <= actions
        listed = [tuple(p.decode() for p in info.descriptor.path) for info in flight.list_flights()]
        assert ("reference", "main", "symbols") in listed

    def test_two_hundred_reads_at_once(self, flight):
        info = flight.get_flight_info(fl.FlightDescriptor.for_command(b"SELECT * FROM reference.symbols"))
        counts, errors = [], []

        def read():
            try:
                counts.append(flight.do_get(info.endpoints[0].ticket).read_all().num_rows)
            except Exception as error:  # noqa: BLE001 - counted below
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The limit of concurrent queries may refuse some, and says so.
        assert all("[QUEUE_FULL]" in str(e) for e in errors), errors[:1]
        assert set(counts) == {8} and len(counts) >= 64

    def test_batches_fit_the_smallest_client(self, raw):
        """4 MiB is what Rust and JavaScript clients take."""
        info = raw.get_flight_info(wire.statement("SELECT * FROM bank.big"))
        sizes = [len(m) for m in raw.do_get_raw(info.endpoints[0].ticket)]
        assert len(sizes) > 5 and max(sizes) < 4 << 20


# --- ADBC ---------------------------------------------------------------------------------------

class TestAdbc:
    def test_execute_and_fetch(self, cursor):
        cursor.execute("SELECT id, owner FROM bank.accounts ORDER BY id LIMIT 3")
        assert cursor.fetchall() == [(1, "owner 000"), (2, "owner 001"), (3, "owner 002")]
        assert [d[0] for d in cursor.description] == ["id", "owner"]

    def test_a_cross_source_join(self, cursor):
        cursor.execute("""
            SELECT a.country, s.currency, sum(t.qty * p.close * r.rate) AS value, count(*) AS n
            FROM bank.accounts a JOIN bank.trades t ON t.account_id = a.id
            JOIN reference.symbols s ON s.symbol = t.symbol
            JOIN lake.prices p ON p.symbol = t.symbol AND p.day = CAST(t.ts AS date)
            JOIN fx.rates r ON r.currency = s.currency AND r.day = p.day
            GROUP BY 1, 2 ORDER BY 1, 2""")
        table = cursor.fetch_arrow_table()
        assert table.num_rows > 20 and table.schema.metadata[b"synoptic.query_id"]

    @pytest.mark.parametrize(("sql", "values", "want"), [
        ("SELECT ? + 1", [41], [42]),
        ("SELECT owner FROM bank.accounts WHERE id = ?", [5], ["owner 004"]),
        ("SELECT owner FROM bank.accounts WHERE id = $1", [5], ["owner 004"]),
        ("SELECT id FROM bank.accounts WHERE id IN (?, ?) ORDER BY id", [9, 4], [4, 9]),
        ("SELECT id FROM bank.accounts WHERE id > $2 AND id < $1 ORDER BY id", [8, 5], [6, 7]),
        ("SELECT id FROM bank.accounts WHERE id = $1 OR id = $1 + 1 ORDER BY id", [8], [8, 9]),
        ("SELECT symbol FROM reference.symbols WHERE name = ?", ["SAP Incorporated"], ["SAP"]),
        ("SELECT count(*) FROM lake.prices WHERE day = ?", ["2024-01-05"], [8]),
        ("SELECT count(*) FROM lake.prices WHERE close < ?", [0.0], [0]),
        ("SELECT count(*) FROM reference.symbols WHERE lot = ?", [None], [0]),
        ("SELECT '?' || ?", ["x"], ["?x"]),
        ("SELECT ? AS \"a?b\" -- ?\n", ["x"], ["x"]),
    ])
    def test_parameters(self, cursor, sql, values, want):
        cursor.execute(sql, values)
        assert [row[0] for row in cursor.fetchall()] == want

    def test_prepared_again_with_other_values(self, cursor):
        for key in (1, 2, 3, 500):
            cursor.execute("SELECT owner, id FROM bank.accounts WHERE id = ?", [key])
            assert cursor.fetchall() == [(f"owner {(key - 1) % 400:03d}", key)]

    def test_the_wrong_number_of_parameters(self, cursor):
        with pytest.raises(adbc.ProgrammingError, match=r"\["):
            cursor.execute("SELECT ? + ?", [1])
            cursor.fetchall()

    def test_executemany_is_refused_clearly(self, cursor):
        with pytest.raises(adbc.Error, match=r"\[[A-Z_]+\] "):
            cursor.executemany("INSERT INTO bank.accounts (id, owner) VALUES (?, ?)", [(1, "a"), (2, "b")])

    def test_ingest_is_refused_clearly(self, cursor):
        with pytest.raises(adbc.Error, match=r"\[[A-Z_]+\] "):
            cursor.adbc_ingest("new_table", pa.table({"a": [1]}), mode="create")

    @pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "columns", "all"])
    def test_get_objects(self, connection, depth):
        catalogs = connection.adbc_get_objects(depth=depth).read_all().to_pylist()
        assert CATALOGS <= {c["catalog_name"] for c in catalogs}
        bank = next(c for c in catalogs if c["catalog_name"] == "bank")
        if depth == "catalogs":
            return
        schemas = {s["db_schema_name"]: s for s in bank["catalog_db_schemas"]}
        assert {"public", "Mixed Case"} <= set(schemas)
        if depth == "db_schemas":
            return
        tables = {t["table_name"]: t for t in schemas["public"]["db_schema_tables"]}
        assert {"accounts", "trades", "active_accounts", "volumes", "visits", "kinds"} <= set(tables)
        assert tables["accounts"]["table_type"] == "TABLE" and tables["active_accounts"]["table_type"] == "VIEW"
        if depth == "tables":
            return
        columns = [c["column_name"] for c in tables["accounts"]["table_columns"]]
        assert columns == data.accounts().schema.names

    def test_get_objects_with_filters(self, connection):
        found = connection.adbc_get_objects(
            depth="tables", catalog_filter="reference", db_schema_filter="main", table_name_filter="sym%").read_all()
        (catalog,) = [c for c in found.to_pylist() if c["catalog_db_schemas"]]
        names = [t["table_name"] for s in catalog["catalog_db_schemas"] for t in s["db_schema_tables"]]
        assert names == ["symbols"]

    def test_get_table_schema(self, connection):
        schema = connection.adbc_get_table_schema("accounts", catalog_filter="bank", db_schema_filter="public")
        assert schema.names == data.accounts().schema.names
        assert not schema.field("id").nullable and schema.field("note").nullable

    def test_get_table_types(self, connection):
        assert {"TABLE", "VIEW"} <= set(connection.adbc_get_table_types())

    def test_get_info(self, connection):
        info = connection.adbc_get_info()
        assert "synoptic" in info["vendor_name"].lower()
        assert info["vendor_version"]

    def test_current_catalog_and_schema(self, connection):
        connection.adbc_current_catalog = "bank"
        connection.adbc_current_db_schema = "Mixed Case"
        assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("bank", "Mixed Case")
        with connection.cursor() as cursor:
            cursor.execute('SELECT count(*) FROM "Select"')
            assert cursor.fetchone() == (2,)
        with pytest.raises(adbc.Error):
            connection.adbc_current_catalog = "nowhere"

    def test_unqualified_names_of_the_current_catalog(self, connection):
        connection.adbc_current_catalog = "reference"
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM symbols")
            assert cursor.fetchone() == (8,)

    @pytest.mark.parametrize("level", ["database", "connection", "statement"])
    def test_options_by_call_header(self, server, level):
        name = "x-synoptic-pushdown"
        databases = {DatabaseOptions.RPC_CALL_HEADER_PREFIX.value + name: "none"} if level == "database" else {}
        connections = {ConnectionOptions.RPC_CALL_HEADER_PREFIX.value + name: "none"} if level == "connection" else {}
        with adbc.connect(server.url, db_kwargs=databases, conn_kwargs=connections) as opened:
            with opened.cursor() as cursor:
                if level == "statement":
                    cursor.adbc_statement.set_options(**{StatementOptions.RPC_CALL_HEADER_PREFIX.value + name: "none"})
                cursor.execute("EXPLAIN SELECT symbol FROM reference.symbols WHERE lot = 5")
                assert "pushdown is 'none'" in "".join(text for row in cursor.fetchall() for text in row)

    @pytest.mark.parametrize(("sql", "kind", "code"), [
        ("SELEC 1", adbc.ProgrammingError, "SYNTAX"),
        ("SELECT * FROM bank.nope", adbc.ProgrammingError, "UNKNOWN_TABLE"),
        ("SELECT nope FROM bank.accounts", adbc.ProgrammingError, "UNKNOWN_COLUMN"),
        ("INSERT INTO bank.accounts VALUES (1)", adbc.ProgrammingError, "PERMISSION_DENIED"),
        ("SET synoptic.pushdown = 'sometimes'", adbc.ProgrammingError, "INVALID_OPTION"),
        ("SELECT * FROM dead.public.t", adbc.OperationalError, "SOURCE_UNAVAILABLE"),
        ("SELECT n FROM reference.misfit", adbc.Error, "DATA"),
    ])
    def test_classes_of_errors(self, cursor, sql, kind, code):
        with pytest.raises(kind, match=rf"\[{code}\] "):
            cursor.execute(sql)
            cursor.fetchall()
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)

    def test_cancel(self, connection, postgres):
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM bank.slow")
            timer = threading.Timer(1, cursor.adbc_cancel)
            timer.start()
            with pytest.raises(adbc.Error):
                cursor.fetch_arrow_table()
            timer.join()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)

    def test_execute_schema(self, cursor):
        schema = cursor.adbc_execute_schema("SELECT id, balance FROM bank.accounts")
        assert schema.names == ["id", "balance"]

    def test_partitions(self, connection, cursor):
        partitions, schema = cursor.adbc_execute_partitions("SELECT * FROM lake.prices")
        assert schema.names == data.prices().schema.names and len(partitions) >= 1
        read = 0
        for partition in partitions:
            with connection.cursor() as reader:
                reader.adbc_read_partition(partition)
                read += reader.fetch_arrow_table().num_rows
        assert read == data.prices().num_rows

    def test_incremental(self, cursor):
        """PollFlightInfo until the server says that there is no more."""
        cursor.adbc_statement.set_options(**{adbc_driver_manager.StatementOptions.INCREMENTAL.value: "true"})
        read, seen = 0, 0
        partitions, _ = cursor.adbc_execute_partitions("SELECT * FROM lake.prices")
        while partitions:
            seen += len(partitions)
            partitions, _ = cursor.adbc_execute_partitions("SELECT * FROM lake.prices")
        assert seen >= 1 and read == 0

    def test_autocommit_or_not(self, server):
        for autocommit in (True, False):
            with adbc.connect(server.url, autocommit=autocommit) as opened, opened.cursor() as cursor:
                cursor.execute("SELECT 1")
                assert cursor.fetchone() == (1,)

    @pytest.mark.parametrize("sql", ["BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK"])
    def test_transactions_as_text(self, cursor, sql):
        cursor.execute(sql)
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


class TestFrames:
    def test_pandas_read_sql(self, connection):
        frame = pandas.read_sql("SELECT country, count(*) AS n FROM bank.accounts GROUP BY 1 ORDER BY 1", connection)
        assert list(frame.columns) == ["country", "n"] and frame["n"].sum() == 1000

    def test_pandas_read_sql_table(self, connection):
        connection.adbc_current_catalog = "reference"
        connection.adbc_current_db_schema = "main"
        frame = pandas.read_sql_table("symbols", connection)
        assert frame.shape == (8, 5)

    def test_polars_read_database(self, connection):
        frame = polars.read_database("SELECT symbol, max(close) AS top FROM lake.prices GROUP BY 1 ORDER BY 1", connection)
        assert frame["symbol"].to_list() == data.SYMBOLS

    def test_polars_in_batches(self, connection):
        frames = polars.read_database("SELECT id, hash FROM bank.big", connection, iter_batches=True, batch_size=10_000)
        assert sum(frame.height for frame in frames) == 300_000


# --- One schema per query -----------------------------------------------------------------------

QUERIES = corpus.queries()


class TestOneSchema:
    """prepare's dataset_schema, FlightInfo's and DoGet's are one, nullability included."""

    def test_the_corpus_is_large(self):
        assert len(QUERIES) >= 300 and len(set(QUERIES)) == len(QUERIES)

    @pytest.mark.parametrize("part", range(12))
    def test_corpus(self, raw, part):
        wrong = []
        for sql in QUERIES[part::12]:
            try:
                prepared = raw.prepare(sql)
                of_prepared = prepared.info()
                info = raw.get_flight_info(wire.statement(sql))
                answer = raw.do_get(info.endpoints[0].ticket)
                schema = raw.get_schema(wire.statement(sql))
                prepared.close()
            except (grpc.RpcError, pa.ArrowException) as error:
                wrong.append(f"{sql}: {error.details() if isinstance(error, grpc.RpcError) else error}")
                continue
            for name, other in (("prepare", prepared.dataset_schema), ("prepared info", of_prepared.schema),
                                ("FlightInfo", info.schema), ("GetSchema", schema)):
                if not same_schema(answer.schema, other):
                    wrong.append(f"{sql}: {name}\n{other}\nDoGet\n{answer.schema}")
            for field, column in zip(answer.schema, answer.table.columns):
                if not field.nullable and column.null_count:
                    wrong.append(f"{sql}: {field.name} is declared NOT NULL and has NULLs")
                if "view" in str(field.type) or "dictionary" in str(field.type):
                    wrong.append(f"{sql}: {field.name} is {field.type}")
        assert not wrong, f"{len(wrong)} of {len(QUERIES[part::12])}:\n" + "\n".join(wrong[:20])

    @pytest.mark.parametrize("part", range(3))
    def test_corpus_through_adbc(self, cursor, part):
        """ADBC itself compares the schemas and fails on a difference."""
        wrong = []
        for sql in QUERIES[part * 7::21]:
            try:
                cursor.execute(sql)
                cursor.fetch_arrow_table()
            except adbc.Error as error:
                wrong.append(f"{sql}: {error}")
        assert not wrong, "\n".join(wrong[:20])


# --- Other clients, replayed --------------------------------------------------------------------

CATALOGS_SCHEMA = pa.schema([pa.field("catalog_name", pa.string(), False)])
SCHEMAS_SCHEMA = pa.schema([pa.field("catalog_name", pa.string()), pa.field("db_schema_name", pa.string(), False)])
TABLES_SCHEMA = pa.schema([
    pa.field("catalog_name", pa.string()), pa.field("db_schema_name", pa.string()),
    pa.field("table_name", pa.string(), False), pa.field("table_type", pa.string(), False)])
TYPES_SCHEMA = pa.schema([pa.field("table_type", pa.string(), False)])
KEYS_SCHEMA = pa.schema([
    pa.field("catalog_name", pa.string()), pa.field("db_schema_name", pa.string()),
    pa.field("table_name", pa.string(), False), pa.field("column_name", pa.string(), False),
    pa.field("key_name", pa.string()), pa.field("key_sequence", pa.int32(), False)])

STRING, BOOL, BIGINT, INT32, LIST, MAP = range(6)
SQL_INFO = {
    STRING: [0, 1, 2, 6, 7, 504, 513, 514, 529, 530, 531],
    BOOL: [3, 4, 5, 9, 10, 11, 500, 501, 502, 506, 515, 516, 518, 519, 520, 521, 523, 524, 527, 532, 536, 537, 539,
           556, 563, 565, 566, 572, 573, 574, 575, 576],
    BIGINT: [503, 505, 507, *range(541, 556), *range(557, 563)],
    INT32: [8, 100, 101, 522, 525, 526, 528, 533, 534, 535, 538, 540, 564, 567, 568, 569, 570, 571],
    LIST: [508, 509, 510, 511, 512],
    MAP: [517],
}


class TestJava:
    """The JDBC driver's calls, in its order."""

    def test_connect_with_user_and_password(self, raw):
        for headers in ([("authorization", "Basic dTpwdw==")], [("authorization", "Bearer token")], []):
            responses, _ = raw.handshake([], headers)
            assert len(responses) <= 1

    def test_statement(self, raw):
        prepared = raw.prepare("SELECT id, owner, balance FROM bank.accounts WHERE id < 4 ORDER BY id")
        assert prepared.dataset_schema.names == ["id", "owner", "balance"]
        assert prepared.is_update in (0, None)
        info = prepared.info()
        assert len(info.endpoints) == 1 and info.endpoints[0].locations == []
        assert raw.do_get(info.endpoints[0].ticket).table.num_rows == 3
        prepared.close()
        with pytest.raises(grpc.RpcError) as caught:
            prepared.info()
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    def test_the_command_itself_as_the_ticket(self, raw):
        prepared = raw.prepare("SELECT 5 AS n")
        assert raw.do_get(prepared.command).table.to_pylist() == [{"n": 5}]

    def test_parameter_schema(self, raw):
        prepared = raw.prepare("SELECT owner FROM bank.accounts WHERE id = ? AND owner > ? AND id < ?")
        schema = prepared.parameter_schema
        assert len(schema) == 3 and all(field.nullable for field in schema)
        assert all(not pa.types.is_null(field.type) for field in schema)

    def test_parameters_in_numerical_order(self, raw):
        markers = ", ".join(f"${i}" for i in range(11, 0, -1))
        prepared = raw.prepare(f"SELECT id FROM bank.accounts WHERE id IN ({markers})")
        assert prepared.parameter_schema.names == [f"${i}" for i in range(1, 12)]

    @pytest.mark.parametrize("names", [("0", "1"), ("$1", "$2"), ("param_0", "param_1"), ("", "")])
    @pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.string(), pa.float64(), pa.decimal128(10, 0)])
    def test_binding_is_by_position_with_casts(self, raw, names, kind):
        prepared = raw.prepare("SELECT id FROM bank.accounts WHERE id >= ? AND id < ? ORDER BY id")
        values = [pa.array([v]).cast(pa.string()).cast(kind) for v in (3, 6)]
        prepared.bind(pa.record_batch(values, names=list(names)))
        assert prepared.execute().table.column(0).to_pylist() == [3, 4, 5]

    @pytest.mark.parametrize(("sql", "value"), [
        ("SELECT count(*) FROM bank.trades WHERE price > ?", pa.array([0.00001])),
        ("SELECT count(*) FROM bank.trades WHERE price = ?", pa.array(["1.23456"])),
        ("SELECT count(*) FROM lake.prices WHERE day = ?", pa.array(["2024-01-05 23:59:59"])),
        ("SELECT count(*) FROM lake.prices WHERE day = ?",
         pa.array([dt.datetime(2024, 1, 5, 12)], pa.timestamp("us", "UTC"))),
        ("SELECT count(*) FROM bank.trades WHERE ts = ?", pa.array([999], pa.timestamp("ns", "UTC"))),
        ("SELECT count(*) FROM bank.kinds WHERE ts = ?", pa.array(["2024-01-05 12:00:00+01:00"])),
        ("SELECT count(*) FROM bank.kinds WHERE ts = ?", pa.array(["2024-01-05 12:00:00.0000009"])),
        ("SELECT count(*) FROM bank.kinds WHERE f4 = ?", pa.array([0.1])),
    ])
    def test_a_value_that_would_change_is_refused(self, raw, sql, value):
        prepared = raw.prepare(sql)
        with pytest.raises(grpc.RpcError, match=r"\[DATA\] parameter \$1: "):
            prepared.bind(pa.record_batch([value], names=["0"]))
            prepared.execute()

    @pytest.mark.parametrize(("sql", "value", "want"), [
        ("SELECT count(*) FROM lake.prices WHERE day = ?", pa.array([dt.date(2024, 1, 5)]), 8),
        ("SELECT count(*) FROM lake.prices WHERE day = ?", pa.array(["2024-01-05"]), 8),
        ("SELECT count(*) FROM lake.prices WHERE day = ?",
         pa.array([dt.datetime(2024, 1, 5)], pa.timestamp("us")), 8),
        ("SELECT count(*) FROM bank.trades WHERE price < ?", pa.array([0]), 0),
        ("SELECT count(*) FROM bank.trades WHERE price < ?", pa.array([0.1]), 0),
        ("SELECT count(*) FROM bank.trades WHERE ts < ?", pa.array([0], pa.timestamp("us", "UTC")), 0),
    ])
    def test_everyday_values_are_bound(self, raw, sql, value, want):
        prepared = raw.prepare(sql)
        prepared.bind(pa.record_batch([value], names=["0"]))
        assert prepared.execute().table.column(0).to_pylist() == [want]

    def test_bound_values_stay_for_the_next_execution(self, raw):
        prepared = raw.prepare("SELECT ? + 1 AS n")
        prepared.bind(pa.record_batch([pa.array([1], pa.int64())], names=["0"]))
        assert prepared.execute().table.to_pylist() == prepared.execute().table.to_pylist() == [{"n": 2}]

    def test_a_dense_union_around_a_value(self, raw):
        """flightsql-dbapi wraps every value so."""
        union = pa.UnionArray.from_dense(
            pa.array([0], pa.int8()), pa.array([0], pa.int32()),
            [pa.array([7], pa.int64()), pa.array([], pa.float64()), pa.array([], pa.string()),
             pa.array([], pa.binary()), pa.array([], pa.bool_())], ["int", "float", "str", "bytes", "bool"])
        prepared = raw.prepare("SELECT id FROM bank.accounts WHERE id = ?")
        prepared.bind(pa.record_batch([union], names=["param_0"]))
        assert prepared.execute().table.column(0).to_pylist() == [7]

    def test_closing_twice_and_closing_the_unknown(self, raw):
        prepared = raw.prepare("SELECT 1")
        prepared.close()
        for handle in (prepared.handle, b"never seen", b""):
            prepared.handle = handle
            with pytest.raises(grpc.RpcError) as caught:
                prepared.close()
            assert caught.value.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)

    def test_set_catalog_then_close_session(self, raw):
        value = wire.message({1: "bank"})
        entry = wire.message({1: "catalog", 2: value})
        (result,) = raw.do_action("SetSessionOptions", wire.message({1: entry}))
        assert wire.fields(result) == {}
        (result,) = raw.do_action("CloseSession")
        assert wire.one(result, 1) in (1, 2)

    def test_metadata_commands(self, raw):
        for name, body, schema in [
                ("CommandGetCatalogs", b"", CATALOGS_SCHEMA),
                ("CommandGetDbSchemas", b"", SCHEMAS_SCHEMA),
                ("CommandGetTableTypes", b"", TYPES_SCHEMA),
                ("CommandGetTables", b"", TABLES_SCHEMA),
                ("CommandGetTables", wire.message({5: True}),
                 TABLES_SCHEMA.append(pa.field("table_schema", pa.binary(), False))),
                ("CommandGetPrimaryKeys", wire.message({1: "bank", 2: "public", 3: "accounts"}), KEYS_SCHEMA)]:
            info, answer = raw.command(name, body)
            assert info.schema.equals(schema), f"{name}: {info.schema}"
            assert answer.schema.equals(schema), f"{name}: {answer.schema}"
            assert answer.table.num_rows > 0, name
            keys = [tuple(row.values())[:3] for row in answer.table.to_pylist()]
            assert keys == sorted(keys, key=lambda k: tuple(v or "" for v in map(str, k))) or "Keys" in name
            assert raw.get_schema(wire.cmd(wire.any_of(name, body))).equals(schema)

    def test_a_dead_source_does_not_spoil_the_listing(self, raw):
        began = time.monotonic()
        _, answer = raw.command("CommandGetTables", wire.message({5: True}))
        assert time.monotonic() - began < 20
        assert {"bank", "reference", "lake"} <= set(answer.table.column(0).to_pylist())

    def test_table_schemas_are_readable(self, raw):
        _, answer = raw.command("CommandGetTables", wire.message({1: "bank", 3: "kinds", 5: True}))
        (row,) = answer.table.to_pylist()
        schema = pa.ipc.read_schema(pa.py_buffer(row["table_schema"]))
        wanted = raw.get_flight_info(wire.statement("SELECT * FROM bank.kinds")).schema
        assert schema.names == wanted.names and schema.types == wanted.types

    @pytest.mark.parametrize(("filters", "want"), [
        ({1: "reference", 3: "symbols"}, [("reference", "main", "symbols")]),
        ({1: "reference", 2: "ma_n", 3: "sym%"}, [("reference", "main", "symbols")]),
        ({1: "bank", 2: "Mixed Case"}, [("bank", "Mixed Case", "Select")]),
        ({1: "nowhere"}, []),
        ({1: "reference", 4: ["VIEW"]}, [("reference", "main", "big_countries")]),
        ({1: "reference", 3: "symbols", 4: ["BASE TABLE", "table"]}, [("reference", "main", "symbols")]),
        ({1: "reference", 2: "", 3: "symbols"}, [("reference", "main", "symbols")]),
    ])
    def test_filters_of_tables(self, raw, filters, want):
        _, answer = raw.command("CommandGetTables", wire.message(filters))
        assert [tuple(row.values())[:3] for row in answer.table.to_pylist()] == want

    def test_primary_keys(self, raw):
        for catalog, schema, table, column in [("bank", "public", "accounts", "id"), ("reference", "main", "symbols", "symbol")]:
            _, answer = raw.command("CommandGetPrimaryKeys", wire.message({1: catalog, 2: schema, 3: table}))
            (row,) = answer.table.to_pylist()
            assert (row["table_name"], row["column_name"], row["key_sequence"]) == (table, column, 1)

    @pytest.mark.parametrize("name", ["CommandGetExportedKeys", "CommandGetImportedKeys", "CommandGetCrossReference"])
    def test_foreign_keys_are_empty(self, raw, name):
        body = wire.message({1: "bank", 2: "public", 3: "accounts", 6: "trades"})
        info, answer = raw.command(name, body)
        assert answer.table.num_rows == 0
        assert answer.schema.names == ["pk_catalog_name", "pk_db_schema_name", "pk_table_name", "pk_column_name",
                                       "fk_catalog_name", "fk_db_schema_name", "fk_table_name", "fk_column_name",
                                       "key_sequence", "fk_key_name", "pk_key_name", "update_rule", "delete_rule"]
        assert info.schema.equals(answer.schema)

    def test_xdbc_type_info(self, raw):
        _, answer = raw.command("CommandGetXdbcTypeInfo")
        assert len(answer.schema) == 19 and answer.table.num_rows > 10
        assert answer.schema.names[:3] == ["type_name", "data_type", "column_size"]
        types = answer.table.column("data_type").to_pylist()
        some = types[0]
        _, filtered = raw.command("CommandGetXdbcTypeInfo", wire.message({1: some}))
        assert set(filtered.table.column("data_type").to_pylist()) == {some}


class TestSqlInfo:
    def read(self, raw, *keys):
        body = b"".join(wire.message({1: key}) if key else b"\x08\x00" for key in keys)
        info, answer = raw.command("CommandGetSqlInfo", body)
        assert info.schema.equals(answer.schema)
        names, values = answer.table.column(0).to_pylist(), answer.table.column(1).combine_chunks()
        return {name: (values.type_codes[i].as_py(), values[i].as_py()) for i, name in enumerate(names)}

    def test_every_key_has_its_type(self, raw):
        got = self.read(raw)
        for child, keys in SQL_INFO.items():
            for key in keys:
                assert key in got, f"SqlInfo {key} is missing"
                assert got[key][0] == child, f"SqlInfo {key} is child {got[key][0]}, not {child}"
                assert got[key][1] is not None or child == MAP, f"SqlInfo {key} is null"

    def test_the_union_has_its_children(self, raw):
        _, answer = raw.command("CommandGetSqlInfo")
        union = answer.schema.field("value").type
        assert [union.field(i).name for i in range(union.num_fields)] == [
            "string_value", "bool_value", "bigint_value", "int32_bitmask", "string_list", "int32_to_int32_list_map"]
        assert union.type_codes == list(range(6))
        assert answer.schema.field("info_name").type == pa.uint32()

    def test_asked_for_some(self, raw):
        assert set(self.read(raw, 8)) == {8}
        assert set(self.read(raw, 0, 1, 2)) == {0, 1, 2}
        assert set(self.read(raw, 0, 2, 3, 504)) == {0, 2, 3, 504}
        assert set(self.read(raw, 0, 99_999)) == {0}

    def test_what_it_says_is_true(self, raw):
        got = {key: value for key, (_, value) in self.read(raw).items()}
        assert "synoptic" in got[0].lower() and got[1]
        assert got[3] is False and got[4] is True and got[5] is False and got[10] is False
        assert got[504] == '"'
        assert "SELECT" in [w.upper() for w in got[508]] and got[510]


class TestOthers:
    def test_a_raw_statement_query(self, raw):
        """Grafana, flightsql-dbapi, ODBC: one endpoint, no location, the descriptor echoed."""
        descriptor = wire.statement("SELECT 1 AS n")
        info = raw.get_flight_info(descriptor)
        assert info.descriptor == descriptor
        assert len(info.endpoints) == 1 and info.endpoints[0].locations == []
        assert info.total_records in (-1, 1)
        assert raw.do_get(info.endpoints[0].ticket).table.to_pylist() == [{"n": 1}]

    def test_poll_flight_info(self, raw):
        descriptor, seen = wire.statement("SELECT count(*) FROM lake.prices"), None
        for _ in range(50):
            info, descriptor, _ = raw.poll(descriptor)
            seen = info
            if descriptor is None:
                break
        assert descriptor is None
        assert raw.do_get(seen.endpoints[0].ticket).table.column(0).to_pylist() == [data.prices().num_rows]

    @pytest.mark.parametrize("method", ["CancelFlightInfo", "CancelQuery"])
    def test_cancel_by_flight_info(self, raw, postgres, method):
        info = raw.get_flight_info(wire.statement("SELECT * FROM bank.slow"))
        call = raw.do_get_raw(info.endpoints[0].ticket)
        next(call)
        body = wire.message({1: info.raw})
        if method == "CancelQuery":
            body = wire.any_of("ActionCancelQueryRequest", body)
        (result,) = raw.do_action(method, body)
        if method == "CancelFlightInfo":
            assert wire.one(result, 1) in (1, 2)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() == grpc.StatusCode.CANCELLED
        assert "[CANCELLED]" in caught.value.details()

    def test_errors_carry_the_query_id(self, raw):
        with pytest.raises(grpc.RpcError) as caught:
            raw.query("SELECT 1 / 0")
        headers = {**dict(caught.value.trailing_metadata()), **dict(caught.value.initial_metadata() or ())}
        assert headers.get("x-query-id") or "query" in caught.value.details().lower()

    def test_session_options_of_every_kind(self, raw):
        (result,) = raw.do_action("GetSessionOptions")
        names = {wire.one(entry, 1).decode() for entry in wire.fields(result).get(1, [])}
        assert {"catalog", "schema"} <= names
        assert any("pushdown" in name for name in names)
        bad = wire.message({1: "no_such_option", 2: wire.message({1: "x"})})
        (result,) = raw.do_action("SetSessionOptions", wire.message({1: bad}))
        (error,) = wire.fields(result)[1]
        assert wire.one(error, 1) == b"no_such_option" and wire.one(wire.one(error, 2), 1) == 1

    def test_show_and_describe(self, flight):
        for sql in ["SHOW TABLES", "SHOW COLUMNS FROM bank.accounts", "DESCRIBE bank.accounts",
                    "SELECT * FROM information_schema.columns WHERE table_catalog = 'bank'",
                    "SELECT schema_name FROM information_schema.schemata", "SELECT current_catalog",
                    "SELECT current_schema()", "SELECT version()", "SELECT current_user"]:
            assert query(flight, sql).num_rows > 0, sql

    def test_power_bi_and_tableau_texts(self, flight):
        assert query(flight, "SELECT symbol FROM reference.symbols ORDER BY 1 FETCH FIRST 2 ROWS ONLY").num_rows == 2
        assert query(flight, "SELECT TOP 3 symbol FROM reference.symbols ORDER BY 1").num_rows == 3
        for sql in ['CREATE LOCAL TEMPORARY TABLE "#Tableau_1" (COL INTEGER) ON COMMIT PRESERVE ROWS']:
            with pytest.raises((pa.ArrowException, fl.FlightError), match=r"\[[A-Z_]+\] "):
                query(flight, sql)

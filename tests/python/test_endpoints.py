"""One answer over several endpoints: together they are the answer, however they are read."""

import json
from concurrent.futures import ThreadPoolExecutor

import adbc_driver_flightsql.dbapi as adbc
import grpc
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.flight as fl
import pytest
from adbc_driver_flightsql import ConnectionOptions

from support import wire
from support.clients import query

FOUR = [("x-synoptic-endpoints", "4")]
# A million rows, of two sources: far more than can be on their way at once.
LARGE = """SELECT a.id AS a, t.id AS t FROM bank.accounts a
           CROSS JOIN (SELECT id FROM bank.trades WHERE id <= 1000) t"""


def info_of(flight, sql, headers=FOUR):
    options = fl.FlightCallOptions(headers=[(k.encode(), v.encode()) for k, v in headers])
    return flight.get_flight_info(fl.FlightDescriptor.for_command(sql.encode()), options)


def read(reader):
    """The rows of an endpoint, and the receipt on its last message."""
    batches, receipt = [], None
    for chunk in reader:
        batches.append(chunk.data)
        if chunk.app_metadata is not None:
            assert receipt is None, "the receipt is on the last message"
            receipt = json.loads(chunk.app_metadata.to_pybytes())
    return pa.Table.from_batches(batches, reader.schema), receipt


def same_rows(tables, want):
    got = pa.concat_tables(tables)
    assert got.num_rows == want.num_rows
    order = [(name, "ascending") for name in want.schema.names]
    assert got.take(pc.sort_indices(got, order)).equals(want.take(pc.sort_indices(want, order)))


@pytest.fixture
def large(flight):
    answer = query(flight, LARGE)
    assert answer.num_rows == 1_000_000
    return answer


def test_read_at_once(server, flight, large):
    info = info_of(flight, LARGE)
    assert len({e.ticket.ticket for e in info.endpoints}) == 4
    assert all(list(e.locations) == [] for e in info.endpoints)

    def one(endpoint):
        with fl.connect(server.url) as client:
            return read(client.do_get(endpoint.ticket))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, info.endpoints))
    same_rows([table for table, _ in answers], large)
    assert sum(table.num_rows > 0 for table, _ in answers) > 1, "all went to one endpoint"
    # Every endpoint tells of the whole answer.
    receipts = [receipt for _, receipt in answers]
    assert receipts[0]["query_id"] and all(r == receipts[0] for r in receipts)
    assert sum(scan["rows"] for scan in receipts[0]["scans"]) >= 1000


def test_opened_at_once_and_read_one_after_another(flight, large):
    """As the JDBC driver does it. What an endpoint that is not read has got must not hold up the
    one that is."""
    info = info_of(flight, LARGE)
    readers = [flight.do_get(e.ticket) for e in info.endpoints]
    answers = [read(reader) for reader in readers]
    same_rows([table for table, _ in answers], large)
    assert all(receipt for _, receipt in answers)


def test_opened_one_after_another(flight, large):
    """Whoever reads all of the first endpoint before opening the second has read everything."""
    info = info_of(flight, LARGE)
    answers = [read(flight.do_get(e.ticket)) for e in info.endpoints]
    same_rows([table for table, _ in answers], large)
    assert [table.num_rows for table, _ in answers] == [large.num_rows, 0, 0, 0]
    assert all(receipt == answers[0][1] for _, receipt in answers)


def test_no_rows_at_all(flight):
    info = info_of(flight, "SELECT id, owner FROM bank.accounts WHERE id < 0")
    answers = [read(flight.do_get(e.ticket)) for e in info.endpoints]
    assert len(answers) == 4
    for table, receipt in answers:
        assert table.schema.names == ["id", "owner"] and table.num_rows == 0 and receipt


@pytest.mark.parametrize("bound", [False, True])
def test_adbc_reads_them_all(server, large, bound):
    header = {ConnectionOptions.RPC_CALL_HEADER_PREFIX.value + "x-synoptic-endpoints": "3"}
    with adbc.connect(server.url, conn_kwargs=header) as connection, connection.cursor() as cursor:
        if bound:
            cursor.execute(LARGE + " WHERE a.id <= ?", [500])
            want = large.filter(pc.less_equal(large["a"], 500))
        else:
            cursor.execute(LARGE)
            want = large
        same_rows([cursor.fetch_arrow_table()], want)


def test_adbc_partitions(server, large):
    header = {ConnectionOptions.RPC_CALL_HEADER_PREFIX.value + "x-synoptic-endpoints": "3"}
    with adbc.connect(server.url, conn_kwargs=header) as connection, connection.cursor() as cursor:
        partitions, _ = cursor.adbc_execute_partitions(LARGE)
        assert len(partitions) == 3
        tables = []
        for partition in partitions:
            with connection.cursor() as reader:
                reader.adbc_read_partition(partition)
                tables.append(reader.fetch_arrow_table())
        same_rows(tables, large)


@pytest.mark.parametrize("sql", [
    "SELECT id FROM bank.accounts ORDER BY id DESC",
    "SELECT id FROM bank.accounts ORDER BY id LIMIT 5 OFFSET 1",
    "SELECT DISTINCT ON (account_id) account_id, id FROM bank.trades ORDER BY account_id, id",
])
def test_what_has_an_order_has_one_endpoint(flight, sql):
    info = info_of(flight, sql)
    assert len(info.endpoints) == 1
    assert read(flight.do_get(info.endpoints[0].ticket))[0].equals(query(flight, sql))


def test_what_reads_no_table(flight):
    assert len(info_of(flight, "EXPLAIN SELECT id FROM bank.accounts").endpoints) == 1
    for sql, number in [("SHOW synoptic.pushdown", 1), ("SET synoptic.pushdown = 'auto'", 0)]:
        tables = [read(flight.do_get(e.ticket))[0] for e in info_of(flight, sql).endpoints]
        assert sum(table.num_rows for table in tables) == number, sql


def test_one_endpoint_unless_asked(flight):
    assert len(info_of(flight, LARGE, []).endpoints) == 1
    assert len(info_of(flight, LARGE, [("x-synoptic-endpoints", "1")]).endpoints) == 1
    for wrong in ["0", "17", "many"]:
        with pytest.raises(pa.ArrowInvalid, match=r"\[INVALID_OPTION\].*x-synoptic-endpoints.*1 to 16"):
            info_of(flight, LARGE, [("x-synoptic-endpoints", wrong)])


def refused(raw, ticket):
    with pytest.raises(grpc.RpcError) as caught:
        raw.do_get(ticket)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    return caught.value.details()


def test_an_endpoint_is_read_once(raw):
    info = raw.get_flight_info(wire.statement("SELECT id FROM bank.accounts"), FOUR)
    first, second, *_ = [e.ticket for e in info.endpoints]
    assert raw.do_get(first).table.num_rows == 1000
    assert "endpoint 1 of 4 was read before" in refused(raw, first)
    assert raw.do_get(second).table.num_rows == 0


def test_cancelled_before_it_is_read(raw):
    info = raw.get_flight_info(wire.statement("SELECT id FROM bank.accounts"), FOUR)
    raw.do_action("CancelFlightInfo", wire.message({1: info.raw}))
    for endpoint in info.endpoints:
        assert "ask for FlightInfo again" in refused(raw, endpoint.ticket)


def test_a_reader_that_goes_takes_the_answer_with_it(raw):
    """The rows it had got are missing: nobody may take the rest for the answer."""
    info = raw.get_flight_info(wire.statement(LARGE), FOUR)
    calls = [raw.do_get_raw(e.ticket) for e in info.endpoints[:3]]
    for call in calls:
        next(call)
    calls[1].cancel()
    for call in (calls[0], calls[2]):
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() == grpc.StatusCode.CANCELLED
        assert "another endpoint of this answer has gone" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        raw.do_get(info.endpoints[3].ticket)
    assert caught.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.FAILED_PRECONDITION)


def test_an_error_is_every_endpoints(raw):
    """None of them may look like the end of an answer."""
    failing = f"SELECT a, 1 / (t - 900) AS x FROM ({LARGE})"
    info = raw.get_flight_info(wire.statement(failing), FOUR)
    calls = [raw.do_get_raw(e.ticket) for e in info.endpoints]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert "[DATA]" in caught.value.details(), caught.value.details()


def test_limits_of_a_call_hold(raw):
    info = raw.get_flight_info(wire.statement("SELECT id FROM bank.slow"), FOUR)
    with pytest.raises(grpc.RpcError) as caught:
        list(raw.do_get_raw(info.endpoints[0].ticket, timeout=1))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError):
        list(raw.do_get_raw(info.endpoints[1].ticket))


def test_why_one_endpoint_broke_off_is_said_by_all(raw):
    """A row that is too large for a message, in whosever part it is."""
    too_wide = "SELECT repeat('x', CASE WHEN id = 900 THEN 20000000 ELSE 10 END) AS wide FROM bank.accounts"
    info = raw.get_flight_info(wire.statement(too_wide), FOUR)
    calls = [raw.do_get_raw(e.ticket) for e in info.endpoints]
    said = []
    for call in calls:
        try:
            # Who had come to the end before has nothing that is missing.
            list(call)
        except grpc.RpcError as error:
            said.append((error.code(), error.details()))
    assert said
    for code, text in said:
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED and "[BUDGET_EXCEEDED]" in text, text


def test_opening_waits_for_nobody(raw):
    """While the first rows of a slow source are waited for, the other endpoints can be opened."""
    info = raw.get_flight_info(wire.statement("SELECT id FROM bank.stuck"), FOUR)
    calls = [raw.do_get_raw(e.ticket, timeout=20) for e in info.endpoints]
    for call in calls:
        # The schema.
        assert next(call)
    calls[0].cancel()
    for call in calls[1:]:
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() == grpc.StatusCode.CANCELLED

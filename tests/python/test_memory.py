"""Memory stays bounded: a slow reader holds back the source, sorts and joins spill or are refused."""

import time

import grpc
import pytest

from support import wire
from support.clients import rows
from support.server import Server

MIB = 1 << 20


@pytest.fixture(scope="module")
def wide(postgres):
    """About 800 MB of rows that PostgreSQL makes while it is read."""
    postgres.run(
        "CREATE OR REPLACE VIEW endless AS SELECT i AS id, repeat(md5(i::text), 25) AS filler"
        " FROM generate_series(1, 1000000) i", "bank")


@pytest.mark.parametrize("sql", ["SELECT * FROM bank.public.endless", "SELECT a.id, b.filler FROM bank.big a CROSS JOIN"
                                 " (SELECT * FROM bank.big LIMIT 300) b"])
def test_a_slow_reader_holds_back_the_source(server, raw, wide, sql):
    raw.query("SELECT * FROM bank.big")
    before = server.rss()
    call = raw.do_get_raw(raw.get_flight_info(wire.statement(sql)).endpoints[0].ticket)
    peak = 0
    for _ in range(20):
        next(call)
        time.sleep(0.25)
        peak = max(peak, server.rss() - before)
    call.cancel()
    assert peak < 200 * MIB, f"{peak // MIB} MiB for a reader that took 20 batches"


def test_a_whole_large_answer_in_constant_memory(server, raw, wide):
    raw.query("SELECT * FROM bank.big")
    before, peak, size = server.rss(), 0, 0
    info = raw.get_flight_info(wire.statement("SELECT * FROM bank.public.endless"))
    for at, message in enumerate(raw.do_get_raw(info.endpoints[0].ticket)):
        size += len(message)
        if at % 20 == 0:
            peak = max(peak, server.rss() - before)
    assert size > 700 * MIB
    assert peak < 200 * MIB, f"{peak // MIB} MiB for {size // MIB} MiB"


@pytest.fixture(scope="module")
def small(folder, good_config, wide):
    """A server with little memory and room to spill."""
    config = folder / "small.toml"
    config.write_text(good_config.read_text().replace("[server]", '[server]\nmemory_limit = "48MiB"', 1))
    running = Server(config, folder / "small.log")
    yield running
    assert running.alive() and running.stop() == 0


def test_a_sort_spills(small):
    """About 300 MB through 48 MiB."""
    with wire.Client(small.port) as client:
        client.query("SELECT count(*) FROM bank.accounts")
        before, peak, last, count = small.rss(), 0, "", 0
        sql = ("SELECT a.hash || b.id AS k, a.filler, a.id FROM bank.big a CROSS JOIN"
               " (SELECT id FROM bank.accounts ORDER BY id LIMIT 8) b ORDER BY k")
        info = client.get_flight_info(wire.statement(sql))
        messages = []
        for at, message in enumerate(client.do_get_raw(info.endpoints[0].ticket)):
            messages.append(message)
            if at % 10 == 0:
                peak = max(peak, small.rss() - before)
        table = wire.Answer(messages).table
        keys = table.column("k").to_pylist()
        assert len(keys) == 8 * 300_000 and keys == sorted(keys)
        assert peak < 600 * MIB, f"{peak // MIB} MiB"


def test_what_cannot_spill_is_refused(small):
    """The server says so and goes on."""
    with wire.Client(small.port) as client:
        with pytest.raises(grpc.RpcError) as caught:
            client.query("SELECT count(*) FROM bank.endless a JOIN bank.endless b ON a.filler = b.filler")
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details().startswith("[OUT_OF_MEMORY] ") and "memory_limit" in caught.value.details()
        assert rows(client.query("SELECT 1").table) == [("1",)]

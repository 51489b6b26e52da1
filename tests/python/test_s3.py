"""The same folder on disk and in an S3 store gives the same rows."""

import logging
import textwrap

import boto3
import pytest
from moto.server import ThreadedMotoServer

from support import wire
from support.clients import rows
from support.process import free_port
from support.server import Server

QUESTIONS = [
    "SELECT * FROM {}.prices ORDER BY symbol, day",
    "SELECT symbol, max(close) FROM {}.prices WHERE volume > 500000000 GROUP BY symbol ORDER BY symbol",
    "SELECT count(*) FROM {}.prices WHERE symbol = 'SAP' AND day >= DATE '2024-03-01'",
    "SELECT p.symbol, s.currency FROM {}.prices p JOIN reference.symbols s USING (symbol) ORDER BY 1, 2 LIMIT 5",
]


@pytest.fixture(scope="module")
def store(folder, files):
    """An S3 store with the lake in the bucket `market`, and a server over both."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    port = free_port()
    moto = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    moto.start()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="key",
                          aws_secret_access_key="Secret-0f-S3", region_name="us-east-1")
    client.create_bucket(Bucket="market")
    for file in sorted((folder / "lake" / "prices").iterdir()):
        client.upload_file(str(file), "market", f"lake/prices/{file.name}")
    config = folder / "s3.toml"
    config.write_text(textwrap.dedent(f"""
        [server]
        listen = "127.0.0.1:0"
        [sources.local]
        connector = "files"
        location = "./lake/"
        format = "parquet"
        [sources.remote]
        connector = "files"
        location = "s3://market/lake/"
        format = "parquet"
        [sources.remote.storage]
        endpoint = "http://127.0.0.1:{port}"
        access_key_id = "key"
        secret_access_key = "Secret-0f-S3"
        region = "us-east-1"
        allow_http = "true"
        [sources.reference]
        connector = "sqlite"
        path = "./reference.db"
    """))
    server = Server(config, folder / "s3.log")
    yield server, client
    assert server.stop() == 0
    moto.stop()
    assert "Secret-0f-S3" not in server.logged()


@pytest.mark.parametrize("pushdown", ["auto", "none"])
@pytest.mark.parametrize("sql", QUESTIONS)
def test_the_same_rows(store, sql, pushdown):
    with wire.Client(store[0].port) as client:
        headers = [("x-synoptic-pushdown", pushdown)]
        local, remote = (client.query(sql.format(name), headers).table for name in ("local", "remote"))
        assert rows(remote) == rows(local) and remote.num_rows > 0


def test_an_object_replaced_between_plan_and_read(store, folder):
    """Objects are pinned by ETag: half an old and half a new state is never an answer."""
    server, s3 = store
    key = "lake/prices/part-0.parquet"
    with wire.Client(server.port) as client:
        info = client.get_flight_info(wire.statement("SELECT * FROM remote.prices"))
        s3.upload_file(str(folder / "lake" / "prices" / "part-1.parquet"), "market", key)
        try:
            with pytest.raises(Exception, match=r"\[(DATA|UNKNOWN_TABLE|SOURCE_UNAVAILABLE)\] .*remote"):
                client.do_get(info.endpoints[0].ticket)
        finally:
            s3.upload_file(str(folder / "lake" / "prices" / "part-0.parquet"), "market", key)
        assert client.query("SELECT count(*) FROM remote.prices").table.column(0).to_pylist() == [960]

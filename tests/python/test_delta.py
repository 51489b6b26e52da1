"""Delta tables that another program writes, at every version, against that program's own reader."""

import datetime as dt
import decimal
import sys
import textwrap
import time

import boto3
import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError
from deltalake import DeltaTable, write_deltalake

from support import wire
from support.clients import rows
from support.process import free_port, spawn, stop
from support.server import Server, synoptic

UTC = dt.timezone.utc


def typed(ids):
    """Every type a Delta column can have, with NULLs and edges."""
    def column(kind, make):
        return pa.array([None if i % 5 == 4 else make(i) for i in ids], kind)

    sign = [1, -1]
    return pa.table({
        "id": pa.array(ids, pa.int64()),
        "tiny": column(pa.int8(), lambda i: i % 128 * sign[i % 2]),
        "small": column(pa.int16(), lambda i: i * 100),
        "int": column(pa.int32(), lambda i: i * 10_000_000),
        "real": column(pa.float32(), lambda i: i / 4),
        "double": column(pa.float64(), lambda i: i / 3),
        "yes": column(pa.bool_(), lambda i: i % 2 == 0),
        "amount": column(pa.decimal128(38, 18), lambda i: decimal.Decimal(f"{i}.000000000000000001")),
        "price": column(pa.decimal128(9, 2), lambda i: decimal.Decimal(f"-{i}.25")),
        "day": column(pa.date32(), lambda i: dt.date(1960, 1, 1) + dt.timedelta(days=i * 500)),
        "at": column(pa.timestamp("us", "UTC"),
                     lambda i: dt.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC) + dt.timedelta(hours=i)),
        "local": column(pa.timestamp("us"), lambda i: dt.datetime(2024, 2, 29, 1, 2, 3, i)),
        "name": column(pa.string(), lambda i: f"näme {i}"),
        "raw": column(pa.binary(), lambda i: bytes([0, i % 256, 255])),
        "list": column(pa.list_(pa.int32()), lambda i: [i, None]),
        "record": column(pa.struct([("a", pa.int64()), ("b", pa.string())]), lambda i: {"a": i, "b": None}),
    })


def parted(ids):
    texts = ["plain", "a b", "a/b=c", "ü%20", None, "1:2", "q'\"?#&+"]
    return pa.table({
        "id": pa.array(ids, pa.int64()),
        "p": pa.array([texts[i % len(texts)] for i in ids], pa.string()),
        "day": pa.array([None if i % 4 == 3 else dt.date(2024, 1, 1 + i % 4) for i in ids], pa.date32()),
        "n": pa.array([i % 3 - 1 for i in ids], pa.int32()),
    })


def make(path, **store):
    """Tables with what writers do: appends, overwrites, deletes, updates, new columns, checkpoints,
    partitions. The time between two commits is more than a few milliseconds."""
    def write(table, data, **how):
        write_deltalake(f"{path}/{table}", data, **how, **store)
        time.sleep(0.02)

    def at(table):
        return DeltaTable(f"{path}/{table}", **store)

    write("typed", typed(range(20)))
    write("typed", typed(range(20, 30)), mode="append")
    at("typed").delete("id % 3 = 0")
    time.sleep(0.02)
    at("typed").update(predicate="id = 7", updates={"name": "'seven'"})
    time.sleep(0.02)
    at("typed").create_checkpoint()
    more = typed(range(30, 33)).append_column("new", pa.array(["x", None, "z"]))
    write("typed", more, mode="append", schema_mode="merge")
    at("typed").optimize.compact()
    time.sleep(0.02)
    write("typed", typed(range(3)), mode="overwrite", schema_mode="overwrite")
    for n in range(3):
        write("parted", parted(range(n * 30, n * 30 + 30)), mode="append", partition_by=["p", "day", "n"])
    at("parted").delete("p = 'a b'")
    time.sleep(0.02)
    at("parted").create_checkpoint()
    at("parted").delete("id = 3")
    time.sleep(0.02)
    write("empty", parted(range(1)))
    at("empty").delete()
    time.sleep(0.02)


def config(folder, name, location, storage=""):
    file = folder / f"{name}.toml"
    file.write_text(textwrap.dedent(f"""
        [server]
        listen = "127.0.0.1:0"
        [sources.deltas]
        connector = "files"
        location = "{location}"
    """) + storage)
    return file


@pytest.fixture(scope="module")
def local(folder):
    path = folder / "deltas"
    make(path)
    server = Server(config(folder, "deltas", "./deltas/"), folder / "deltas.log")
    yield server, path, {}
    assert server.stop() == 0


@pytest.fixture(scope="module")
def remote(folder):
    # A process of its own: deltalake may keep the interpreter's lock while it waits for an answer.
    port = free_port()
    with (folder / "moto.log").open("wb") as log:
        moto = spawn([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    store = {"endpoint": f"http://127.0.0.1:{port}", "access_key_id": "key",
             "secret_access_key": "Secret-0f-S3", "region": "us-east-1"}
    client = boto3.client("s3", endpoint_url=store["endpoint"], aws_access_key_id="key",
                          aws_secret_access_key="Secret-0f-S3", region_name="us-east-1")
    deadline = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket="deltas")
            break
        except EndpointConnectionError:
            assert moto.poll() is None and time.monotonic() < deadline, "S3 does not start"
            time.sleep(0.1)
    options = {f"aws_{key}": value for key, value in store.items()}
    options |= {"aws_endpoint_url": options.pop("aws_endpoint"), "aws_allow_http": "true",
                "aws_conditional_put": "etag"}
    store_options = {"storage_options": options}
    make("s3://deltas/base", **store_options)
    storage = "[sources.deltas.storage]\nallow_http = \"true\"\n"
    storage += "".join(f'{key} = "{value}"\n' for key, value in store.items())
    server = Server(config(folder, "deltas-s3", "s3://deltas/base/", storage), folder / "deltas-s3.log")
    yield server, "s3://deltas/base", store_options
    assert server.stop() == 0
    stop(moto)
    assert "Secret-0f-S3" not in server.logged()


@pytest.fixture(params=["local", "remote"])
def deltas(request):
    return request.getfixturevalue(request.param)


def theirs(table):
    """What Delta's own reader says, by the number of the row."""
    read = pa.table(table.to_pyarrow_table() if hasattr(table, "to_pyarrow_table") else table)
    return read.sort_by("id")


def same(ours, theirs):
    assert sorted(ours.column_names) == sorted(theirs.column_names)
    assert rows(ours) == rows(theirs.select(ours.column_names))



@pytest.mark.parametrize("name", ["typed", "parted", "empty"])
def test_every_version_by_number_and_by_time(deltas, name):
    server, path, store = deltas
    table = DeltaTable(f"{path}/{name}", **store)
    latest = table.version()
    history = {commit["version"]: commit["timestamp"] for commit in table.history()}
    assert set(history) == set(range(latest + 1)) and latest >= 1
    with wire.Client(server.port) as client:
        same(client.query(f"SELECT * FROM deltas.{name} ORDER BY id").table, theirs(table))
        for version in range(latest + 1):
            expected = DeltaTable(f"{path}/{name}", version=version, **store)
            at = dt.datetime.fromtimestamp(history[version] / 1000, UTC).isoformat()
            for state in (f"FOR VERSION AS OF {version}", f"FOR SYSTEM_TIME AS OF TIMESTAMP '{at}'"):
                ours = client.query(f"SELECT * FROM deltas.{name} {state} ORDER BY id").table
                same(ours, theirs(expected))
            if not store:  # It goes by the time of the log's files, which S3 gives in seconds.
                table.load_as_version(dt.datetime.fromtimestamp(history[version] / 1000 + 0.01, UTC))
                assert table.version() == version, "the other reader takes the same version for this time"


def test_filters_on_partitions_and_values(deltas):
    server, path, store = deltas
    all_rows = theirs(DeltaTable(f"{path}/parted", **store)).to_pylist()
    for condition, keep in [
        ("p = 'a/b=c'", lambda r: r["p"] == "a/b=c"),
        ("p IS NULL", lambda r: r["p"] is None),
        ("day = DATE '2024-01-02' AND n >= 0", lambda r: r["day"] == dt.date(2024, 1, 2) and r["n"] >= 0),
        ("id BETWEEN 20 AND 40 AND n < 1", lambda r: 20 <= r["id"] <= 40 and r["n"] < 1),
    ]:
        expected = sorted(r["id"] for r in all_rows if keep(r))
        with wire.Client(server.port) as client:
            for pushdown in ("auto", "none"):
                headers = [("x-synoptic-pushdown", pushdown)]
                sql = f"SELECT id FROM deltas.parted WHERE {condition} ORDER BY id"
                assert client.query(sql, headers).table.column(0).to_pylist() == expected, condition
        assert expected


def test_a_commit_is_seen_at_once(deltas):
    server, path, store = deltas
    with wire.Client(server.port) as client:
        for n in range(4):
            write_deltalake(f"{path}/live", parted(range(n + 1)), mode="append", **store)
            count = client.query("SELECT count(*) FROM deltas.live").table.column(0).to_pylist()
            assert count == [(n + 1) * (n + 2) // 2]
        both = "SELECT (SELECT count(*) FROM deltas.live FOR VERSION AS OF 0), count(*) FROM deltas.live"
        assert rows(client.query(both).table) == [("1", "10")]


def test_a_vacuumed_version_is_an_error(deltas):
    server, path, store = deltas
    for n in range(2):
        write_deltalake(f"{path}/old", parted([n]), mode="overwrite", **store)
    DeltaTable(f"{path}/old", **store).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    with wire.Client(server.port) as client:
        assert rows(client.query("SELECT id FROM deltas.old").table) == [("1",)]
        with pytest.raises(Exception, match=r"\[UNKNOWN_TABLE\] .*deltas.*vacuumed"):
            client.query("SELECT id FROM deltas.old FOR VERSION AS OF 0")


def test_check_lists_them(local, folder):
    done = synoptic("check", "-c", folder / "deltas.toml", check=True)
    assert "deltas" in done.stdout

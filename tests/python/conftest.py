"""The systems under test, started once for all tests: sources, then the server in front of them."""

import os
import shutil
import signal
import textwrap

import pyarrow.flight as fl
import pytest

from support import data, wire
from support.postgres import PASSWORD, Postgres
from support.process import free_port, make_folder
from support.server import Server


def pytest_configure(config):
    # A terminated run takes the way of an interrupted one, so that fixtures stop what they started.
    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(scope="session")
def folder():
    made = make_folder()
    yield made
    if not os.environ.get("SYNOPTIC_KEEP"):
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(folder):
    server = Postgres(folder / "primary")
    data.make_bank(server)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def standby(folder, postgres):
    server = Postgres(folder / "standby", of=postgres)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def files(folder):
    """The folder with SQLite, Parquet, CSV, JSON and Arrow data, good and broken."""
    data.make_reference(folder / "reference.db")
    data.make_lake(folder)
    data.make_poisoned(folder / "poisoned")
    data.make_bad_csv(folder / "badcsv")
    return folder


def sources(postgres, standby=None):
    """The `[sources]` of a configuration that lies in the folder of the data."""
    text = f"""
        [sources.bank]
        connector = "postgres"
        url = "{postgres.url('bank')}"

        [sources.reference]
        connector = "sqlite"
        path = "./reference.db"

        [sources.lake]
        connector = "files"
        location = "./lake/"
        format = "parquet"

        [sources.fx]
        connector = "files"
        location = "./fx/"
        format = "csv"

        [sources.events]
        connector = "files"
        location = "./events/"
        format = "json"

        [sources.ticks]
        connector = "files"
        location = "./ticks/"
        format = "arrow"
        """
    if standby:
        text += f"""
        [sources.standby]
        connector = "postgres"
        url = "{standby.url('bank')}"
        """
    return textwrap.dedent(text)


@pytest.fixture(scope="session")
def config(folder, postgres, standby, files):
    """The configuration of the shared server. It has a source that is down, as life has."""
    path = folder / "synoptic.toml"
    path.write_text(textwrap.dedent(f"""
        [server]
        listen = "127.0.0.1:0"
        drain_timeout = "5s"
        """) + sources(postgres, standby) + textwrap.dedent(f"""
        [sources.dead]
        connector = "postgres"
        url = "postgresql://nobody:{PASSWORD}@127.0.0.1:{free_port()}/nowhere"

        [sources.poisoned]
        connector = "files"
        location = "./poisoned/"
        format = "parquet"

        [sources.badcsv]
        connector = "files"
        location = "./badcsv/"
        format = "csv"
        """))
    return path


@pytest.fixture(scope="session")
def good_config(folder, postgres, files):
    """Only sources that answer."""
    path = folder / "good.toml"
    path.write_text('[server]\nlisten = "127.0.0.1:0"\ndrain_timeout = "5s"\n' + sources(postgres))
    return path


@pytest.fixture(scope="session")
def server(folder, config):
    running = Server(config, folder / "server.log")
    yield running
    alive = running.alive()
    code = running.stop() if alive else running.process.returncode
    log = running.logged()
    assert alive, f"the server died ({code}):\n{log[-3000:]}"
    assert code == 0, f"SIGTERM: exit {code}\n{log[-3000:]}"
    # A library may panic on a corrupt file and be caught; our own code never does.
    assert "panicked at crates/" not in log, log[log.index("panicked at crates/") - 200:][:3000]


@pytest.fixture
def flight(server):
    """pyarrow's own client."""
    with fl.connect(server.url) as client:
        yield client


@pytest.fixture
def raw(server):
    """Raw calls with exact codes."""
    with wire.Client(server.port) as client:
        yield client

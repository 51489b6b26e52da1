"""The commands: what they print, what they exit with, what they never show."""

import csv
import io
import json
import signal
import subprocess
import threading
import time

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from support import wire
from support.clients import query
from support.postgres import PASSWORD
from support.process import free_port, spawn, until
from support.server import READY, Server, binary, synoptic

SQL = "SELECT symbol, lot, listed FROM reference.main.symbols ORDER BY symbol"


# --- serve --------------------------------------------------------------------------------------

class TestServe:
    def test_one_ready_line_and_nothing_else(self, folder, good_config):
        server = Server(good_config, folder / "ready.log")
        assert READY.match(server.first_line)
        with fl.connect(server.url) as client:
            query(client, SQL)
        server.process.send_signal(signal.SIGTERM)
        rest = server.process.stdout.read()
        assert server.process.wait(20) == 0 and rest == ""

    def test_sigterm_drains_running_queries(self, folder, good_config):
        server = Server(good_config, folder / "drain.log")
        with wire.Client(server.port) as client:
            info = client.get_flight_info(wire.statement("SELECT * FROM bank.slow LIMIT 150"))
            call = client.do_get_raw(info.endpoints[0].ticket)
            messages, failed = [], []

            def read():
                try:
                    messages.extend(call)
                except Exception as error:  # noqa: BLE001 - reported below
                    failed.append(error)

            reader = threading.Thread(target=read)
            reader.start()
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            with pytest.raises(Exception):
                with wire.Client(server.port, timeout=2) as late:
                    late.query("SELECT 1")
            reader.join(20)
            assert not failed, failed
            assert wire.Answer(messages).table.num_rows == 150
        assert server.process.wait(20) == 0

    def test_sighup_adds_changes_and_removes_sources(self, folder, good_config):
        config = folder / "reload.toml"
        text = good_config.read_text()
        config.write_text(text)
        server = Server(config, folder / "reload.log")
        try:
            with wire.Client(server.port) as client:
                running = client.do_get_raw(
                    client.get_flight_info(wire.statement("SELECT * FROM bank.slow LIMIT 300")).endpoints[0].ticket)
                next(running)
                moved = text.replace("[sources.reference]", "[sources.moved]")
                config.write_text(moved + '\n[sources.more]\nconnector = "files"\nlocation = "./lake/"\n')
                server.process.send_signal(signal.SIGHUP)

                def catalogs():
                    return set(client.command("CommandGetCatalogs")[1].table.column(0).to_pylist())

                assert until(lambda: {"moved", "more"} <= catalogs(), 10) is not None
                assert "reference" not in catalogs()
                assert client.query("SELECT count(*) AS n FROM moved.symbols").table.to_pylist() == [{"n": 8}]

                # An invalid file is refused as a whole, and the old one stays.
                config.write_text(text + '\n[sources.extra]\nconnector = "files"\nlocaton = "./lake/"\n')
                server.process.send_signal(signal.SIGHUP)
                assert until(lambda: "localon" in server.logged() or "locaton" in server.logged(), 10) is not None
                assert {"moved", "more"} <= catalogs() and "extra" not in catalogs()

                # What ran before has run on.
                assert len(list(running)) >= 1
        finally:
            assert server.stop() == 0
        assert PASSWORD not in server.logged()

    @pytest.mark.parametrize(("text", "says"), [
        ('[server]\nlisten = "0.0.0.0:0"\n', "insecure"),
        ('[server]\nlisten = "nonsense"\n', "listen"),
        ('[server]\nlissten = "127.0.0.1:0"\n', "listen"),
        ('[sources.x]\nconnector = "oracle"\n', "postgres"),
    ])
    def test_what_it_refuses(self, tmp_path, text, says):
        config = tmp_path / "synoptic.toml"
        config.write_text(text)
        done = synoptic("serve", "-c", config, timeout=30)
        assert done.returncode == 1 and done.stdout == "" and says in done.stderr

    def test_a_port_that_is_taken(self, folder, good_config, server, tmp_path):
        config = folder / "taken.toml"
        config.write_text(good_config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{server.port}"))
        done = synoptic("serve", "-c", config, timeout=30)
        assert done.returncode == 1 and str(server.port) in done.stderr

    def test_metrics_and_health_when_asked(self, folder, good_config):
        """`http` is optional; when this version does not have it, the key is refused, not ignored."""
        import urllib.request
        config, port = folder / "http.toml", free_port()
        config.write_text(good_config.read_text().replace("[server]", f'[server]\nhttp = "127.0.0.1:{port}"', 1))
        try:
            server = Server(config, folder / "http.log")
        except RuntimeError as error:
            assert "http" in str(error) and "not supported" in str(error)
            return
        try:
            for path in ("metrics", "healthz", "readyz"):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                    assert answer.status == 200
        finally:
            assert server.stop() == 0


# --- check --------------------------------------------------------------------------------------

class TestCheck:
    def test_good(self, good_config):
        done = synoptic("check", "-c", good_config, check=True)
        for word in ("bank", "postgres", "reference", "sqlite", "lake", "files", "primary"):
            assert word in done.stdout, done.stdout

    def test_a_source_that_is_down(self, config):
        done = synoptic("check", "-c", config)
        assert done.returncode == 1 and "dead" in done.stdout + done.stderr
        assert "bank" in done.stdout

    def test_the_file_is_missing(self, tmp_path):
        done = synoptic("check", "-c", tmp_path / "nope.toml")
        assert done.returncode == 1 and "nope.toml" in done.stderr

    @pytest.mark.parametrize(("text", "line", "says"), [
        ('[server]\nlissten = "127.0.0.1:1"\n', 2, "listen"),
        ('[server]\n\nmemory_limit = "4 gallons"\n', 3, "memory_limit"),
        ('[query]\nmax_stalenes = "1s"\n', 2, "max_staleness"),
        ('[query]\nstatement_timeout = "soon"\n', 2, "statement_timeout"),
        ('\n[sources.a]\nconnector = "postgress"\n', 3, "postgres"),
        ('[sources.a]\nconnector = "postgres"\nurll = "postgresql://x"\n', 3, "url"),
        ('[sources.a]\nconnector = "sqlite"\n', 1, "path"),
        ('[sources.a]\nconnector = "files"\nlocation = "./x/"\nformat = "exel"\n', 4, "format"),
        ('[sources.synoptic]\nconnector = "sqlite"\npath = "x"\n', 1, "synoptic"),
        ('[sources.a]\nconnector = "sqlite"\npath = "${NO_SUCH_VARIABLE_HERE}"\n', 3, "NO_SUCH_VARIABLE_HERE"),
        ('[sources.a]\nconnector = "sqlite"\npath = "${file:/no/such/file}"\n', 3, "/no/such/file"),
        ('[server\n', 1, ""), ('[server]\nlisten = 5\n', 2, "listen"), ('[nope]\nx = 1\n', 1, "nope"),
        ('x = \n', 1, ""), ('[server]\nlisten = "a"\nlisten = "b"\n', 3, "duplicate"),
    ])
    def test_the_exact_place(self, tmp_path, text, line, says):
        config = tmp_path / "synoptic.toml"
        config.write_text(text)
        done = synoptic("check", "-c", config)
        assert done.returncode == 1
        assert f"synoptic.toml:{line}" in done.stderr or f"line {line}" in done.stderr, done.stderr
        assert says in done.stderr

    def test_several_errors_at_once(self, tmp_path):
        config = tmp_path / "synoptic.toml"
        config.write_text('[server]\nlissten = "x"\n[query]\npushdwn = "none"\n')
        done = synoptic("check", "-c", config)
        assert "lissten" in done.stderr and "pushdwn" in done.stderr

    def test_environment_and_files(self, postgres, tmp_path):
        (tmp_path / "secret").write_text(PASSWORD + "\n")
        config = tmp_path / "synoptic.toml"
        config.write_text(f"""
            [sources.bank]
            connector = "postgres"
            url = "postgresql://synoptic:${{file:secret}}@127.0.0.1:${{BANK_PORT}}/bank"
        """)
        done = synoptic("check", "-c", config, env={"BANK_PORT": str(postgres.port)}, check=True)
        assert "bank" in done.stdout

    def test_a_wrong_password_is_not_shown(self, postgres, tmp_path):
        config = tmp_path / "synoptic.toml"
        config.write_text(f"""
            [sources.bank]
            connector = "postgres"
            url = "{postgres.url('bank', 'wr0ng-S3cret')}"
        """)
        done = synoptic("check", "-c", config)
        assert done.returncode == 1 and "wr0ng-S3cret" not in done.stdout + done.stderr
        assert "bank" in done.stdout + done.stderr


# --- sql ----------------------------------------------------------------------------------------

@pytest.fixture(params=["-c", "--url"])
def where(request, good_config, server):
    """Both ways: sources of its own, and a server."""
    return ["-c", str(good_config)] if request.param == "-c" else ["--url", server.url]


class TestSql:
    def test_table(self, where):
        done = synoptic("sql", *where, "-e", SQL, check=True)
        assert "symbol" in done.stdout and "1984-05-28" in done.stdout and "NESN" in done.stdout

    def test_csv(self, where):
        done = synoptic("sql", *where, "--format", "csv", "-e", SQL, check=True)
        got = list(csv.reader(io.StringIO(done.stdout)))
        assert got[0] == ["symbol", "lot", "listed"] and got[1] == ["AAPL", "1", "1980-01-28"] and len(got) == 9

    def test_json(self, where):
        done = synoptic("sql", *where, "--format", "json", "-e", SQL, check=True)
        got = json.loads(done.stdout)
        assert len(got) == 8 and got[0] == {"symbol": "AAPL", "lot": 1, "listed": "1980-01-28"}

    def test_json_of_nothing(self, where):
        done = synoptic("sql", *where, "--format", "json", "-e", SQL.replace("ORDER", "WHERE false ORDER"), check=True)
        assert json.loads(done.stdout) == []

    def test_ndjson(self, where):
        done = synoptic("sql", *where, "--format", "ndjson", "-e", SQL, check=True)
        assert [json.loads(line)["symbol"] for line in done.stdout.splitlines()][-1] == "TM"

    def test_arrow(self, where):
        done = subprocess.run([str(binary()), "sql", *where, "--format", "arrow", "-e", SQL], capture_output=True,
                              timeout=60, check=True, stdin=subprocess.DEVNULL)
        try:
            table = pa.ipc.open_stream(done.stdout).read_all()
        except pa.ArrowInvalid:
            table = pa.ipc.open_file(pa.BufferReader(done.stdout)).read_all()
        assert table.num_rows == 8 and table.schema.names == ["symbol", "lot", "listed"]

    def test_values_that_need_care_in_text(self, where):
        sql = """SELECT 'a,"b"' AS quoted, 'two' || chr(10) || 'lines' AS lines, NULL AS nothing, '' AS empty, 1.50 AS money,
                 TIMESTAMP '2024-02-29 01:02:03.000004' AS at, 'ünï' AS uni, true AS flag"""
        (header, row) = csv.reader(io.StringIO(synoptic("sql", *where, "--format", "csv", "-e", sql, check=True).stdout))
        assert row[0] == 'a,"b"' and row[1] == "two\nlines" and row[2] == "" and row[6] == "ünï" and row[7] == "true"
        assert "01:02:03.000004" in row[5]
        (got,) = json.loads(synoptic("sql", *where, "--format", "json", "-e", sql, check=True).stdout)
        assert got["quoted"] == 'a,"b"' and got.get("nothing") is None and got["empty"] == "" and got["flag"] is True

    def test_several_statements_in_order(self, where):
        done = synoptic("sql", *where, "--format", "csv", "-e", "SET synoptic.pushdown = 'none'", "-e",
                        "SHOW synoptic.pushdown", check=True)
        assert "none" in done.stdout

    def test_a_file(self, where, tmp_path):
        script = tmp_path / "script.sql"
        script.write_text("-- two statements; in one file\nSELECT 1 AS one;\nSELECT ';' AS semicolon;\n")
        done = synoptic("sql", *where, "--format", "csv", "-f", script, check=True)
        assert "one\n1" in done.stdout and "semicolon\n;" in done.stdout

    def test_standard_input(self, where):
        done = synoptic("sql", *where, "--format", "csv", input="SELECT 1 AS one;\n", check=True)
        assert done.stdout.split() == ["one", "1"]

    def test_receipt(self, where):
        done = synoptic("sql", *where, "--receipt", "-e", SQL, check=True)
        shown = done.stdout + done.stderr
        assert "reference" in shown and "symbols" in shown

    def test_a_failing_query(self, where):
        done = synoptic("sql", *where, "-e", "SELECT nope FROM reference.symbols")
        assert done.returncode == 1 and "[UNKNOWN_COLUMN]" in done.stderr and done.stdout == ""

    def test_it_stops_at_the_first_failure(self, where):
        done = synoptic("sql", *where, "--format", "csv", "-e", "SELECT 1 AS a", "-e", "SELEC", "-e", "SELECT 2 AS b")
        assert done.returncode == 1 and "a" in done.stdout and "b" not in done.stdout

    def test_a_failure_in_the_middle_of_the_rows(self, where):
        done = synoptic("sql", *where, "--format", "csv", "-e", "SELECT n FROM reference.misfit") \
            if where[0] == "--url" else synoptic("sql", *where, "--format", "csv", "-e", "SELECT n FROM reference.misfit")
        assert done.returncode == 1 and "[DATA]" in done.stderr

    def test_a_closed_pipe(self, where):
        """`synoptic sql … | head` ends without noise."""
        child = spawn([str(binary()), "sql", *where, "--format", "csv", "-e", "SELECT * FROM bank.big"],
                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        child.stdout.readline()
        child.stdout.close()
        child.wait(30)
        assert b"panicked" not in child.stderr.read()

    def test_a_server_that_is_not_there(self):
        done = synoptic("sql", "--url", f"grpc://127.0.0.1:{free_port()}", "-e", "SELECT 1", timeout=60)
        assert done.returncode == 1 and "[SOURCE_UNAVAILABLE]" in done.stderr or "127.0.0.1" in done.stderr

    def test_a_large_answer_streams(self, where):
        done = synoptic("sql", *where, "--format", "csv", "-e", "SELECT id FROM bank.big ORDER BY id", check=True)
        assert len(done.stdout.splitlines()) == 300_001

    @pytest.mark.parametrize("args", [
        ["--nope"], ["nope"], ["sql", "--format", "excel", "-e", "SELECT 1"], ["sql", "-c"],
        ["sql", "-c", "a.toml", "--url", "grpc://127.0.0.1:1", "-e", "SELECT 1"], ["serve", "extra"], []])
    def test_wrong_usage(self, args):
        done = synoptic(*args)
        assert done.returncode == 2 and "--help" in done.stderr + done.stdout

    @pytest.mark.parametrize("args", [["--help"], ["sql", "--help"], ["serve", "--help"], ["--version"]])
    def test_help(self, args):
        done = synoptic(*args, check=True)
        assert "synoptic" in done.stdout.lower()


# --- demo ---------------------------------------------------------------------------------------

class TestDemo:
    def test_the_tour(self, tmp_path):
        done = synoptic("demo", "--dir", tmp_path / "demo", check=True, timeout=170, cwd=tmp_path)
        assert done.stdout.upper().count("SELECT") >= 6
        for word in ("sqlite", "EUR", "rows"):
            assert word in done.stdout
        assert (tmp_path / "demo").is_dir()
        # Once more over what is there.
        synoptic("demo", "--dir", tmp_path / "demo", check=True, timeout=170, cwd=tmp_path)

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("x")
        done = synoptic("demo", "--dir", tmp_path / "file" / "demo")
        assert done.returncode == 1 and "file" in done.stderr

"""As fresh as asked, and proved: a real primary, a real streaming standby, a checker that knows."""

import concurrent.futures
import datetime as dt
import json
import random
import re
import textwrap
import threading
import time

import pyarrow as pa
import pyarrow.flight as fl
import pytest

from support.postgres import Postgres
from support.process import free_port
from support.proxy import Proxy
from support.server import Server, synoptic


# What pyarrow makes of a status depends on its code.
ERRORS = (fl.FlightError, pa.ArrowException)


class Answer:
    """A whole answer with its receipt."""

    def __init__(self, client, sql, **options):
        headers = [(f"x-synoptic-{k}".replace("_", "-").encode(), v.encode()) for k, v in options.items()]
        call = fl.FlightCallOptions(headers=headers)
        self.asked = time.time()
        info = client.get_flight_info(fl.FlightDescriptor.for_command(sql.encode()), call)
        self.draft = json.loads(info.app_metadata)
        reader = client.do_get(info.endpoints[0].ticket, call)
        batches, last = [], None
        while True:
            try:
                chunk = reader.read_chunk()
            except StopIteration:
                break
            batches += [chunk.data] if chunk.data is not None else []
            last = chunk.app_metadata or last
        self.answered = time.time()
        self.rows = [row for batch in batches for row in batch.to_pylist()]
        self.receipt = json.loads(last.to_pybytes())

    def scan(self, source="bank"):
        return next(scan for scan in self.receipt["scans"] if scan["source"] == source)

    @property
    def copy(self):
        return self.scan()["copy"]


def seconds(text):
    # Python 3.11 and earlier know microseconds only.
    text = re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00")
    return dt.datetime.fromisoformat(text).timestamp()


class Ticker:
    """Writes numbered rows at the primary, and knows when each was begun and was visible."""

    def __init__(self, primary):
        self.primary, self.ticks = primary, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self):
        with self.primary.connect("bank") as connection:
            number = connection.execute("SELECT coalesce(max(n), 0) FROM ticks").fetchone()[0]
            while not self._stop.is_set():
                number += 1
                # Known before it is visible: another thread may read it at once.
                self.ticks.append((number, time.time(), float("inf")))
                connection.execute("INSERT INTO ticks VALUES (%s)", (number,))
                self.ticks[-1] = (*self.ticks[-1][:2], time.time())
                time.sleep(random.uniform(0.002, 0.02))

    def stop(self):
        self._stop.set()
        self._thread.join(10)

    def check(self, answer):
        """The receipt claims no more than the truth, and the bound is kept."""
        (row,) = answer.rows
        shown, count = row["shown"], row["count"]
        scan = answer.scan()
        ticks = list(self.ticks)
        assert shown == count, "rows are missing in the middle"
        visible = lambda moment: max((n for n, _, after in ticks if after < moment), default=0)
        started = lambda moment: max((n for n, before, _ in ticks if before <= moment), default=0)
        assert shown <= started(answer.answered), "a row from nowhere"
        if scan["as_of_lo"]:
            assert shown >= visible(seconds(scan["as_of_lo"]) - 1e-6), f"{row} lacks what {scan} claims"
        assert shown <= started(seconds(scan["as_of_hi"]) + 1e-6), f"{row} shows more than {scan} claims"
        if scan["satisfied"]:
            # What was visible at the source a bound before the question is in the answer.
            assert shown >= visible(answer.asked - scan["bound_ms"] / 1e3), f"{row} breaks the bound: {scan}"
            if scan["staleness_ms"] is not None and scan["bound_ms"]:
                assert scan["staleness_ms"] <= scan["bound_ms"] or scan["method"] in ("strong_read", "fence")
        return scan


SHOWN = "SELECT max(n) AS shown, count(*) AS count FROM bank.ticks"

# What a receipt says of each scan: CONTRACT, section 6.
SCAN = set("scan source table copy kind position as_of_lo as_of_hi staleness_ms bound_ms satisfied method "
           "clock_error_ms waited_ms attempts hedged cache rows bytes remote_text degraded_reason".split())


class Pair:
    """A primary and a standby behind proxies, and a server of ours in front."""

    def __init__(self, folder, apply_delay=None, options="", more="", clocks=(None, None)):
        self.primary = Postgres(folder / "primary", clock=clocks[0])
        self.primary.run("CREATE DATABASE bank")
        self.primary.run("CREATE TABLE ticks (n bigint PRIMARY KEY)", "bank")
        self.primary.run("CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL)", "bank")
        self.primary.run("INSERT INTO accounts SELECT i, 100 FROM generate_series(1, 50) i", "bank")
        self.primary.run("CREATE TABLE prices (price int, since timestamptz, until timestamptz)", "bank")
        self.primary.run("INSERT INTO prices VALUES (1, '2026-01-01Z', now()), (2, now(), NULL)", "bank")
        self.standby = Postgres(folder / "standby", of=self.primary, clock=clocks[1])
        self.to_primary, self.to_standby = Proxy(self.primary.port), Proxy(self.standby.port)
        if apply_delay:
            self.standby.run(f"ALTER SYSTEM SET recovery_min_apply_delay = '{apply_delay}'")
            self.standby.run("SELECT pg_reload_conf()")
        url = lambda server, proxy: server.url("bank").replace(f":{server.port}/", f":{proxy.port}/")
        config = folder / "synoptic.toml"
        config.write_text(textwrap.dedent(f"""
            [server]
            listen = "127.0.0.1:0"
            http = "127.0.0.1:{(http := free_port())}"
            drain_timeout = "2s"

            [sources.bank]
            connector = "postgres"
            url = "{url(self.primary, self.to_primary)}"
            {options}

            [[sources.bank.replicas]]
            name = "standby1"
            url = "{url(self.standby, self.to_standby)}"
            {more}
            """))
        self.config, self.http = config, http
        self.server = Server(config, folder / "server.log")
        self.client = fl.connect(self.server.url)

    def ask(self, sql=SHOWN, **options):
        return Answer(self.client, sql, **options)

    def refused(self, sql=SHOWN, **options):
        with pytest.raises(ERRORS) as caught:
            self.ask(sql, **options)
        return str(caught.value)

    def read_and_check(self, ticker, bound, reads, at_once=4):
        """Reads while rows are written: the copies that answered. A refusal claims nothing, so it is
        sound; but with the primary up there is a copy that can always answer, so they are few."""
        copies, refusals = [], []
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            asked = [pool.submit(self.ask, max_staleness=bound) for _ in range(reads)]
            for answer in concurrent.futures.as_completed(asked):
                try:
                    copies.append(ticker.check(answer.result())["copy"])
                except ERRORS as error:
                    refusals.append(str(error))
        sound = ("[FRESHNESS_UNMET]", "[SOURCE_UNAVAILABLE]")
        assert all(any(code in refusal for code in sound) for refusal in refusals), refusals
        assert len(refusals) <= reads / 50, refusals
        print(f"{bound}: {len(copies)} answers ({copies.count('standby1')} of the standby), {len(refusals)} refusals")
        return copies

    def settle(self, within=15, **options):
        """Until the standby serves what is asked."""
        deadline = time.monotonic() + within
        while True:
            answer = self.ask(**options)
            if answer.copy == "standby1":
                return answer
            assert time.monotonic() < deadline, f"the standby was never chosen: {answer.receipt}"
            time.sleep(0.1)

    def stop(self):
        self.client.close()
        alive = self.server.alive()
        self.server.stop()
        for one in (self.to_primary, self.to_standby):
            one.close()
        self.standby.stop()
        self.primary.stop()
        assert alive, self.server.logged()[-3000:]


@pytest.fixture(scope="class")
def pair(folder, tmp_path_factory):
    made = folder / f"pair{random.randrange(1 << 30)}"
    made.mkdir()
    running = Pair(made)
    yield running
    running.stop()


@pytest.fixture(scope="class")
def lagging(folder):
    """The standby is five seconds behind."""
    made = folder / f"lagging{random.randrange(1 << 30)}"
    made.mkdir()
    more = """
        [sources.bank.system_time]
        prices = ["since", "until"]

        [clock]
        source = "declared"
        max_offset = "1ms"
        """
    running = Pair(made, apply_delay="5s", more=more)
    running.ticker = Ticker(running.primary)
    # Positions are remembered from now on; the standby is five seconds behind them soon.
    running.ask(max_staleness="10s")
    time.sleep(6.5)
    yield running
    running.ticker.stop()
    running.stop()


class TestALaggingStandby:
    def data_queries(self, pair):
        return pair.primary.log.read_text(errors="replace").count("ticks") if pair.primary.log.exists() else 0

    def test_a_loose_bound_is_served_by_the_standby_and_the_primary_sees_no_data_query(self, lagging):
        lagging.settle(max_staleness="10s")
        lagging.primary.run("ALTER SYSTEM SET log_statement = 'all'")
        lagging.primary.run("SELECT pg_reload_conf()")
        time.sleep(0.3)
        log = lagging.primary.log
        before = log.stat().st_size
        for _ in range(20):
            answer = lagging.ask(max_staleness="10s")
            scan = lagging.ticker.check(answer)
            assert (answer.copy, scan["kind"], scan["method"]) == ("standby1", "replica", "position"), answer.receipt
            assert 4_000 < scan["staleness_ms"] <= 10_000 and scan["satisfied"]
        with log.open("rb") as lines:
            lines.seek(before)
            logged = lines.read().decode(errors="replace")
        lagging.primary.run("ALTER SYSTEM RESET log_statement")
        lagging.primary.run("SELECT pg_reload_conf()")
        assert "INSERT INTO ticks" in logged, "the log is on"
        assert not re.search(r'(COPY|SELECT)[^\n]*"ticks"', logged), logged[-2000:]

    def test_a_tight_bound_goes_to_the_primary(self, lagging):
        for bound in ("1s", "100ms", "0s"):
            answer = lagging.ask(max_staleness=bound)
            scan = lagging.ticker.check(answer)
            assert (answer.copy, scan["kind"], scan["method"]) == ("primary", "authoritative", "strong_read")

    def test_explain_shows_every_copy_and_why(self, lagging):
        plan = str(lagging.ask(f"EXPLAIN {SHOWN}", max_staleness="1s").rows)
        assert "copy=primary" in plan and "standby1: stale by up to" in plan, plan
        assert "usual lag up to" in plan and "proof=strong_read" in plan, plan
        plan = str(lagging.ask(f"EXPLAIN {SHOWN}", max_staleness="10s").rows)
        assert "copy=standby1" in plan and "primary: another copy is cheaper" in plan, plan
        assert re.search(r"proof=position, lag=\[stale by up to \d+ms, usual lag up to \d+ms\]", plan), plan
        pinned = "SELECT n FROM bank.ticks WITH (copy = 'primary')"
        plan = str(lagging.ask(f"EXPLAIN {pinned}", max_staleness="10s").rows)
        assert re.search(r"standby1: the statement names another copy \(stale by up to \d+ms", plan), plan

    def test_the_system_tables_say_the_same(self, lagging):
        rows = {r["copy"]: r for r in lagging.ask("SELECT * FROM synoptic.system.copies").rows}
        assert set(rows) == {"primary", "standby1"} and {r["status"] for r in rows.values()} == {"up"}
        assert re.fullmatch(r"\d+:1:[0-9A-F]+/[0-9A-F]+", rows["primary"]["position"])
        assert 3_000 < rows["standby1"]["staleness_ms"] < 9_000, rows
        read = lagging.ask(max_staleness="10s")
        kept = lagging.ask(f"SELECT * FROM synoptic.system.receipts WHERE query_id = '{read.receipt['query_id']}'").rows
        assert [(r["copy"], r["method"], r["satisfied"]) for r in kept] == [("standby1", "position", True)]
        assert kept[0]["as_of_lo"] < kept[0]["as_of_hi"] and kept[0]["position"] == read.scan()["position"]

    def test_a_copy_shows_what_was_when_it_holds_all_that_was_there(self, lagging):
        before = lambda age: (dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=age)).isoformat()
        sql = "SELECT sum(price) AS price FROM bank.prices"
        of = lambda moment: f"{sql} FOR SYSTEM_TIME AS OF TIMESTAMP '{moment}'"
        lagging.settle(max_staleness="10s")
        for age, bound, copy in [(20, "1h", "standby1"), (2, "1h", "primary"), (20, "1s", "primary"), (20, "0s", "primary")]:
            moment = before(age)
            for answer in (
                lagging.ask(of(moment), max_staleness=bound),
                lagging.ask(sql, max_staleness=bound, consistency="as_of", read_timestamp=moment),
            ):
                scan = answer.scan()
                assert (answer.copy, scan["satisfied"]) == (copy, True), (age, bound, scan)
                assert "since" in scan["remote_text"] and "until" in scan["remote_text"], scan
                assert scan["bound_ms"] <= (age + 5) * 1e3, scan
        assert lagging.ask(of("2026-02-01"), max_staleness="1h").rows == [{"price": 1}]
        assert lagging.ask(of(before(0.5))).rows == [{"price": 2}]
        assert "that is to come" in lagging.refused(of(before(-60)))
        assert "shows the present only" in lagging.refused("SELECT * FROM bank.ticks FOR SYSTEM_TIME AS OF '2026-02-01'")

    def test_a_mention_without_a_hint_keeps_its_bound(self, lagging):
        sql = "SELECT max(q.n) AS shown, count(*) AS count FROM bank.ticks WITH (max_staleness = '10s') q JOIN bank.ticks USING (n)"
        assert lagging.ask(sql, max_staleness="10s").copy == "standby1"
        assert lagging.ask(sql, max_staleness="0s").copy == "primary"

    @pytest.mark.parametrize("statement", [
        "SELECT max(a.n) AS shown, count(*) AS count FROM {one} AS a JOIN {other} AS b USING (n)",
        "SELECT (SELECT max(n) FROM {one} AS a) AS shown, count(*) AS count FROM {other} AS b",
        "WITH a AS (SELECT n FROM {one} AS x) SELECT max(n) AS shown, count(*) AS count FROM a WHERE n IN (SELECT n FROM {other} AS b)",
        "SELECT max(n) AS shown, count(DISTINCT n) AS count FROM (SELECT n FROM {one} AS a UNION ALL SELECT n FROM {other} AS b)",
        "SELECT max(n) AS shown, count(*) AS count FROM {one} AS a WHERE EXISTS (SELECT 1 FROM {other} AS b)",
    ])
    def test_the_strictest_mention_holds_for_the_source(self, lagging, statement):
        lagging.settle(max_staleness="10s")
        loose, tight = "WITH (max_staleness = '10s')", "WITH (max_staleness = '1s')"
        for one, other, copy in [
            (f"bank.ticks {loose}", f"bank.ticks {loose}", "standby1"),
            (f"bank.ticks {loose}", f"bank.ticks {tight}", "primary"),
            (f"bank.ticks {tight}", f"bank.ticks {loose}", "primary"),
            (f"bank.ticks {loose}", "bank.ticks", "primary"),
            ("bank.ticks", f"bank.ticks {loose}", "primary"),
            (f"bank.ticks {loose}", f"bank.public.ticks {tight}", "primary"),
            (f"bank.public.ticks {loose}", "bank.ticks", "primary"),
        ]:
            answer = lagging.ask(statement.format(one=one, other=other), max_staleness="2s")
            assert {scan["copy"] for scan in answer.receipt["scans"]} == {copy}, (one, other, answer.receipt)
            lagging.ticker.check(answer)

    def test_the_strictest_mention_holds_for_all_tables_of_the_source(self, lagging):
        sql = "SELECT count(*) AS n FROM bank.ticks WITH (max_staleness = '10s') a, bank.accounts{hint} b WHERE b.id = 1"
        assert lagging.ask(sql.format(hint=" WITH (max_staleness = '10s')")).copy == "standby1"
        answer = lagging.ask(sql.format(hint=" WITH (max_staleness = '1s')"))
        assert {scan["copy"] for scan in answer.receipt["scans"]} == {"primary"}
        assert {scan["bound_ms"] for scan in answer.receipt["scans"]} == {1000}

    def test_the_strictest_on_unmet_holds_for_the_source(self, lagging):
        sql = "SELECT max(a.n) AS shown FROM bank.ticks WITH (copy = 'standby1', max_staleness = '1s', on_unmet = 'stale') a"
        answer = lagging.ask(sql)
        assert (answer.copy, answer.scan()["satisfied"]) == ("standby1", False)
        for other in ("bank.ticks", "bank.ticks WITH (on_unmet = 'error')", "bank.accounts"):
            error = lagging.refused(f"{sql} WHERE EXISTS (SELECT 1 FROM {other})", max_staleness="1s")
            assert "[FRESHNESS_UNMET]" in error and "standby1" in error, error
        # Waiting is stricter than a stale answer.
        began = time.monotonic()
        waiting = "bank.ticks WITH (on_unmet = 'wait', wait_timeout = '400ms')"
        error = lagging.refused(f"{sql} WHERE EXISTS (SELECT 1 FROM {waiting})", max_staleness="1s")
        assert "[FRESHNESS_UNMET]" in error and time.monotonic() - began >= 0.4, error

    def test_one_statement_reads_one_copy_of_a_source(self, lagging):
        sql = "SELECT count(*) AS n FROM bank.ticks WITH (copy = 'standby1') a JOIN bank.{other} b ON true WHERE b.id = 1"
        error = lagging.refused(sql.format(other="accounts WITH (copy = 'primary')"), max_staleness="10s")
        assert "[INVALID_OPTION] source 'bank': one statement reads one copy of a source" in error, error
        assert "copy = 'standby1'" in error and "copy = 'primary'" in error, error
        for other in ("accounts", "accounts WITH (copy = 'standby1')", "accounts WITH (max_staleness = '20s')"):
            answer = lagging.ask(sql.format(other=other), max_staleness="10s")
            assert {scan["copy"] for scan in answer.receipt["scans"]} == {"standby1"}, (other, answer.receipt)
        error = lagging.refused("SELECT * FROM bank.ticks WITH (copy = 'standby9')")
        assert "[INVALID_OPTION]" in error and "its copies are primary, standby1" in error, error

    def test_a_receipt_says_it_all_also_to_people(self, lagging):
        answer = lagging.ask(max_staleness="10s")
        assert set(answer.receipt) >= {"query_id", "skew_ms", "token", "scans"} and set(answer.scan()) >= SCAN
        assert set(answer.draft["scans"][0]) >= SCAN
        shown = synoptic("sql", "--url", lagging.server.url, "--receipt", "-e", "SET synoptic.max_staleness = '10s'",
                         "-e", SHOWN, check=True).stderr
        for part in ("standby1", "replica", "stale by up to", "10000.000 ms", "position", "scan 0 sent: ", "skew: ", "token: "):
            assert part in shown, shown

    def test_metrics_say_what_was_chosen_and_why_not(self, lagging):
        lagging.settle(max_staleness="10s")
        lagging.ask(max_staleness="1s")
        lagging.refused("SELECT n FROM bank.ticks WITH (copy = 'standby1')", max_staleness="1s")
        lines = dict(line.rsplit(" ", 1) for line in synoptic_metrics(lagging.http).splitlines() if line[0] != "#")
        of = 'source="bank",copy="standby1"'
        assert 3 < float(lines[f'synoptic_copy_lag_seconds{{{of},quantile="0.5"}}']) < 20, lines
        assert int(lines[f'synoptic_copy_chosen_total{{{of},method="position"}}']) > 0
        assert int(lines[f'synoptic_copy_passed_over_total{{{of},reason="stale"}}']) > 0
        assert int(lines['synoptic_copy_passed_over_total{source="bank",copy="primary",reason="dearer"}']) > 0
        assert int(lines['synoptic_freshness_refused_total{source="bank",code="FRESHNESS_UNMET"}']) > 0
        waits = int(lines['synoptic_freshness_wait_seconds_count{source="bank"}'])
        assert waits == int(lines['synoptic_freshness_wait_seconds_bucket{source="bank",le="+Inf"}']) > 0
        assert 0 <= int(lines['synoptic_freshness_wait_seconds_bucket{source="bank",le="0.001"}']) <= waits

    def test_a_table_hint_beats_the_header(self, lagging):
        sql = "SELECT max(q.n) AS shown, count(*) AS count FROM bank.ticks WITH (max_staleness = '10s') AS q"
        assert lagging.ask(sql, max_staleness="0s").copy == "standby1"
        sql = sql.replace("max_staleness = '10s'", "copy = 'primary'")
        assert lagging.ask(sql, max_staleness="10s").copy == "primary"
        sql = sql.replace("copy = 'primary'", "copy = 'standby1'")
        error = lagging.refused(sql, max_staleness="1s")
        assert "[FRESHNESS_UNMET]" in error and "primary" in error and "standby1" in error, error

    def test_without_the_primary(self, lagging):
        lagging.settle(max_staleness="10s")
        lagging.ticker.stop()
        lagging.to_primary.cut()
        try:
            answer = lagging.ask(max_staleness="10s")
            assert answer.copy == "standby1" and answer.scan()["satisfied"]
            began = time.monotonic()
            error = lagging.refused(max_staleness="1s")
            assert time.monotonic() - began < 5
            assert "[FRESHNESS_UNMET]" in error, error
            assert "copy 'primary' does not answer" in error and "copy 'standby1' stale by up to" in error, error
            assert "hunter2" not in error.lower()
            answer = lagging.ask(max_staleness="1s", on_unmet="stale")
            scan = answer.scan()
            assert (answer.copy, scan["satisfied"], scan["method"]) == ("standby1", False, "unproved")
            assert "stale" in scan["degraded_reason"]
            began = time.monotonic()
            error = lagging.refused(max_staleness="1s", on_unmet="wait", wait_timeout="700ms")
            assert "[FRESHNESS_UNMET]" in error and 0.5 < time.monotonic() - began < 6, error
        finally:
            lagging.to_primary.resume()
        deadline = time.monotonic() + 20
        while True:
            try:
                assert lagging.ask(max_staleness="1s").copy == "primary"
                break
            except ERRORS:
                assert time.monotonic() < deadline, "the primary is not found again"
                time.sleep(0.2)
        lagging.ticker = Ticker(lagging.primary)


class TestAStandbyThatKeepsUp:
    @pytest.mark.parametrize("bound", ["0s", "100ms", "1s", "10s"])
    def test_every_receipt_is_true_while_rows_are_written(self, pair, bound):
        ticker = Ticker(pair.primary)
        try:
            time.sleep(0.3)
            chosen = pair.read_and_check(ticker, bound, 300)
        finally:
            ticker.stop()
        assert set(chosen) <= {"primary", "standby1"}
        if bound == "10s":
            assert chosen.count("standby1") > 200, "the standby serves a loose bound"

    def test_a_standby_too_far_away_for_the_bound_does_not_make_refusals(self, pair):
        """Fresh enough when it is chosen, and not any more when its read begins: the primary answers."""
        ticker = Ticker(pair.primary)
        pair.settle(max_staleness="10s")
        pair.to_standby.delay = 0.1
        scans = []
        try:
            for bound in (300, 400, 500, 600, 700, 800) * 3:
                scans.append(ticker.check(pair.ask(max_staleness=f"{bound}ms")))
        finally:
            pair.to_standby.delay = 0.0
            ticker.stop()
        print([(scan["copy"], scan["attempts"], scan["bound_ms"], scan["staleness_ms"]) for scan in scans])
        assert all(scan["satisfied"] for scan in scans)
        again = [scan["copy"] for scan in scans if scan["attempts"] == 3]
        assert again and set(again) == {"primary"}, "some were chosen in vain"

    def test_and_while_links_are_cut_and_replay_is_paused(self, pair):
        ticker = Ticker(pair.primary)
        errors = []
        stop = threading.Event()

        def disturb():
            chance = random.Random(7)
            while not stop.is_set():
                what = chance.randrange(3)
                if what == 0:
                    pair.to_standby.cut()
                elif what == 1:
                    pair.to_primary.delay = 0.02
                else:
                    pair.standby.run("SELECT pg_wal_replay_pause()")
                time.sleep(chance.uniform(0.1, 0.5))
                pair.to_standby.resume()
                pair.to_primary.delay = 0.0
                pair.standby.run("SELECT pg_wal_replay_resume()")
                time.sleep(chance.uniform(0.1, 0.4))

        disturbing = threading.Thread(target=disturb, daemon=True)
        disturbing.start()
        checked = 0
        try:
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                bound = random.choice(["0s", "100ms", "1s", "10s"])
                try:
                    ticker.check(pair.ask(max_staleness=bound))
                    checked += 1
                except ERRORS as error:
                    errors.append(str(error))
        finally:
            stop.set()
            disturbing.join(5)
            ticker.stop()
        assert checked > 50
        # The primary always answered, so that every bound could be kept.
        assert len(errors) <= checked / 5, errors[:5]
        assert all("[SOURCE_UNAVAILABLE]" in e or "[FRESHNESS_UNMET]" in e for e in errors), errors

    def test_two_scans_of_one_statement_never_disagree(self, pair):
        stop = threading.Event()

        def transfer(seed):
            chance = random.Random(seed)
            with pair.primary.connect("bank") as connection:
                while not stop.is_set():
                    # In one order, so that two writers never wait for each other.
                    one, other = sorted(chance.sample(range(1, 51), 2))
                    with connection.transaction():
                        connection.execute("UPDATE accounts SET balance = balance - 7 WHERE id = %s", (one,))
                        connection.execute("UPDATE accounts SET balance = balance + 7 WHERE id = %s", (other,))

        writers = [threading.Thread(target=transfer, args=(n,), daemon=True) for n in range(2)]
        for writer in writers:
            writer.start()
        sql = """
            SELECT (SELECT sum(balance) FROM bank.accounts) AS total, sum(a.balance - b.balance) AS difference,
                   (SELECT sum(balance) FROM (SELECT balance FROM bank.accounts WHERE id <= 25
                    UNION ALL SELECT balance FROM bank.accounts WHERE id > 25)) AS halves
            FROM bank.accounts a JOIN bank.accounts b USING (id)"""
        try:
            for n in range(60):
                bound = ("0s", "1s", "10s")[n % 3]
                pushdown = ("auto", "none")[n % 2]
                answer = pair.ask(sql, max_staleness=bound, pushdown=pushdown)
                assert answer.rows == [{"total": 5000, "difference": 0, "halves": 5000}], answer.receipt
                assert len({scan["copy"] for scan in answer.receipt["scans"]}) == 1
        finally:
            stop.set()
            for writer in writers:
                writer.join(5)

    def test_a_thousand_strong_reads_share_their_fences(self, pair):
        def fences():
            page = synoptic_metrics(pair.http)
            return sum(float(v) for v in re.findall(r"^synoptic_fences_total\{[^}]*\} (\S+)$", page, re.M))

        pair.settle(max_staleness="10s")
        before = fences()
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda _: pair.ask(), range(1000)))
        assert all(answer.scan()["satisfied"] for answer in answers)
        assert fences() - before < 700, "strong reads ask one by one"

    def test_a_token_carries_what_was_seen(self, pair):
        number = 10_000_000 + random.randrange(1_000_000)
        pair.standby.run("SELECT pg_wal_replay_pause()")
        try:
            pair.primary.run(f"INSERT INTO ticks VALUES ({number})", "bank")
            seen = pair.ask()
            assert seen.rows[0]["shown"] == number and seen.copy == "primary"
            token = seen.receipt["token"]
            assert token
            # The standby proves ten seconds, but not the token.
            again = pair.ask(max_staleness="10s", token=token)
            assert again.rows[0]["shown"] == number and again.copy == "primary", again.receipt
        finally:
            pair.standby.run("SELECT pg_wal_replay_resume()")
        deadline = time.monotonic() + 10
        while True:
            later = pair.ask(max_staleness="10s", token=token)
            assert later.rows[0]["shown"] >= number, "a token is never forgotten"
            if later.copy == "standby1":
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        pair.primary.run(f"DELETE FROM ticks WHERE n = {number}", "bank")
        error = pair.refused(token=token[:-2] + ("AA" if token[-2:] != "AA" else "BB"))
        assert "[INVALID_OPTION]" in error and token not in error

    def test_a_session_knows_its_token(self, pair):
        done = synoptic("sql", "--url", pair.server.url, "--format", "csv",
                        "-e", SHOWN, "-e", "SELECT synoptic_token() IS NOT NULL AS known",
                        "-e", "SELECT source, copy, satisfied FROM synoptic.system.last_receipt", check=True)
        assert "known\ntrue" in done.stdout and "bank,primary,true" in done.stdout.replace("standby1", "primary")

    def test_bounded_skew(self, pair):
        answer = pair.ask(consistency="bounded", max_skew="5s")
        assert answer.receipt["skew_ms"] <= 5_000
        error = pair.refused("SELECT a.n FROM bank.ticks a LIMIT 1", consistency="bounded", max_skew="0s")
        assert "[SKEW_EXCEEDED]" in error, error


class TestLyingClocks:
    """What the servers take for the time must not matter: not where it is, how fast it runs, or that it jumps."""

    @pytest.mark.parametrize("clocks, then", [
        (("+1h", "-1d"), ("-1h", "+1d")),
        (("-1d", "+1h"), ("+30d", "-30d")),
        (("+0 x1.5", "+2h x0.5"), ("-2h x0.5", "+0 x2")),
    ], ids=["ahead-behind", "behind-ahead", "drifting"])
    def test_receipts_are_true_whatever_the_servers_take_for_the_time(self, folder, clocks, then):
        made = folder / f"lying{random.randrange(1 << 30)}"
        made.mkdir()
        pair = Pair(made, clocks=clocks)
        wrong = lambda server: server.rows("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0] - time.time()
        servers = (pair.primary, pair.standby)
        try:
            if "x" not in clocks[0]:
                assert all(abs(wrong(server)) > 3_000 for server in servers), [wrong(server) for server in servers]
            else:
                before = [wrong(server) for server in servers]
                time.sleep(2.5)
                assert all(abs(wrong(server) - was) > 0.5 for server, was in zip(servers, before)), before
            ticker = Ticker(pair.primary)
            try:
                pair.settle(max_staleness="10s")
                for bound in ("0s", "100ms", "1s", "10s"):
                    pair.read_and_check(ticker, bound, 60)
                # A standby that does not replay is stale by our clock, whatever it says of itself.
                pair.standby.run("SELECT pg_wal_replay_pause()")
                time.sleep(1.5)
                late = pair.read_and_check(ticker, "1s", 20)
                assert set(late) == {"primary"}, late
                scan = ticker.check(pair.ask(max_staleness="1h"))
                assert scan["copy"] == "standby1" and 1_000 <= scan["staleness_ms"] < 60_000, scan
                said = pair.ask("SELECT staleness_ms, reported_lag_ms FROM system.copies WHERE copy = 'standby1'").rows[0]
                print(clocks, said)
                pair.standby.run("SELECT pg_wal_replay_resume()")
                # The clocks jump while statements run.
                jumping = threading.Timer(0.3, lambda: [s.set_clock(c) for s, c in zip(servers, then)])
                jumping.start()
                for bound in ("10s", "0s", "100ms", "1s"):
                    pair.read_and_check(ticker, bound, 60)
                jumping.join()
                if "x" not in then[0]:
                    assert all(abs(wrong(server)) > 3_000 for server in servers)
            finally:
                ticker.stop()
        finally:
            pair.stop()


class TestAPromotion:
    def test_a_lost_tail_is_a_lost_token(self, folder):
        made = folder / f"promoted{random.randrange(1 << 30)}"
        made.mkdir()
        pair = Pair(made)
        try:
            ticker = Ticker(pair.primary)
            time.sleep(0.5)
            pair.settle(max_staleness="10s")
            ticker.stop()
            # What is written now never reaches the standby.
            pair.standby.run("SELECT pg_wal_replay_pause()")
            pair.standby.run("ALTER SYSTEM SET primary_conninfo = ''")
            pair.standby.run("SELECT pg_reload_conf()")
            pair.standby.run("SELECT pg_wal_replay_resume()")
            time.sleep(0.5)
            last = pair.ask().rows[0]["shown"] or 0
            pair.primary.run(f"INSERT INTO ticks SELECT generate_series({last + 1}, {last + 100})", "bank")
            seen = pair.ask()
            assert seen.copy == "primary" and seen.rows[0]["shown"] == last + 100
            token = seen.receipt["token"]
            pair.primary.stop()
            pair.standby.run("SELECT pg_promote(true)")
            # The address of the primary leads to the promoted standby now.
            pair.to_primary.cut()
            pair.to_primary.target = pair.standby.port
            pair.to_primary.resume()
            deadline = time.monotonic() + 20
            while True:
                try:
                    answer = pair.ask()
                    break
                except ERRORS:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            assert answer.rows[0]["shown"] == last
            assert int(answer.scan()["position"].split(":")[1]) == 2, "the new timeline"
            error = pair.refused(token=token)
            assert "[TOKEN_LOST]" in error, error
            assert "[TOKEN_LOST]" in pair.refused(token=token, max_staleness="10s")
        finally:
            pair.client.close()
            pair.server.stop()
            pair.standby.stop()


def synoptic_metrics(port):
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()

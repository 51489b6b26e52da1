"""The prompt, driven through a terminal as a person would."""

import os
import re

import pexpect
import pytest

from support.process import until
from support.server import binary

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


@pytest.fixture(params=["-c", "--url"])
def prompt(request, good_config, server, tmp_path):
    where = ["-c", str(good_config)] if request.param == "-c" else ["--url", server.url]
    env = {**os.environ, "TERM": "xterm", "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"),
           "XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config"), "NO_COLOR": "1"}

    def start():
        child = pexpect.spawn(str(binary()), ["sql", *where], env=env, encoding="utf-8", timeout=30, dimensions=(40, 200))
        child.expect("synoptic[^\n]*[>#] ?")
        settle(child)
        return child

    started = []

    def make():
        started.append(start())
        return started[-1]

    yield make
    for child in started:
        if child.isalive():
            child.close(force=True)


def settle(child):
    """Waits until the prompt is there and nothing more comes: keys typed earlier may be lost."""
    while True:
        try:
            child.read_nonblocking(10_000, timeout=0.4)
        except pexpect.TIMEOUT:
            return


def say(child, text, expect):
    child.send(text + "\r")
    child.expect(expect)
    said = ESCAPES.sub("", child.before + child.after)
    settle(child)
    return said


def quit_(child):
    settle(child)
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def test_a_statement_and_the_end(prompt):
    child = prompt()
    say(child, "SELECT 40 + 2 AS answer;", "42")
    assert quit_(child) == 0


def test_several_lines_are_one_statement(prompt):
    child = prompt()
    child.send("SELECT symbol\r")
    child.send("FROM reference.symbols\r")
    child.send("WHERE symbol = 'NESN' -- ; not yet\r")
    child.send(";\r")
    child.expect(r"NESN\s")
    child.expect("synoptic")
    assert quit_(child) == 0


def test_an_error_and_on_it_goes(prompt):
    child = prompt()
    say(child, "SELECT nope FROM reference.symbols;", r"\[UNKNOWN_COLUMN\]")
    say(child, "SELECT 7 * 6 AS answer;", "42")
    assert quit_(child) == 0


def test_tables_and_columns(prompt):
    child = prompt()
    listing = say(child, r"\d", "symbols[^\n]*\n")
    assert "countries" in listing
    say(child, r"\d reference.symbols", "currency[^\n]*\n")
    assert quit_(child) == 0


def test_help_and_unknown_commands(prompt):
    child = prompt()
    say(child, r"\?", r"\\d")
    say(child, r"\nonsense", r"(?i)unknown|no such|not a command|\\\?")
    child.send("\\q\r")
    child.expect(pexpect.EOF)


def test_ctrl_c_drops_what_was_typed(prompt):
    child = prompt()
    child.send("SELECT something unfinished")
    settle(child)
    child.sendintr()
    settle(child)
    say(child, "SELECT 6 * 7 AS answer;", "42")
    assert quit_(child) == 0


def test_ctrl_c_cancels_at_the_source(prompt, postgres):
    child = prompt()
    child.send("SELECT * FROM bank.stuck;\r")
    assert until(lambda: postgres.running("%stuck%"), 20) is not None
    child.sendintr()
    took = until(lambda: not postgres.running("%stuck%"), 5)
    assert took is not None and took <= 1.0
    child.expect(r"(?i)cancel")
    settle(child)
    say(child, "SELECT 6 * 7 AS answer;", "42")
    assert quit_(child) == 0


def test_history_of_an_earlier_session(prompt):
    child = prompt()
    say(child, "SELECT 1234 + 4321 AS sum;", "5555")
    assert quit_(child) == 0
    child = prompt()
    child.send("\x1b[A")
    child.expect(r"1234 \+ 4321")
    child.send("\r")
    child.expect("5555")
    assert quit_(child) == 0


def test_completion_of_names(prompt):
    child = prompt()
    say(child, "SELECT 1 AS ready;", "ready")
    child.send("SELECT count(*) FROM reference.symb\t")
    child.expect("symbols")
    child.send(";\r")
    child.expect(r"\b8\b")
    assert quit_(child) == 0


def test_timing_is_shown(prompt):
    child = prompt()
    say(child, "SELECT * FROM reference.symbols;", r"8 rows?[^\n]*\d+(\.\d+)? ?m?s")
    assert quit_(child) == 0

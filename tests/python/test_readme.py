"""What the README says can be typed in, can."""

import re
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from support.process import ROOT, spawn, stop
from support.server import binary, synoptic

FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.M | re.S)
BLOCKS = FENCE.findall((ROOT / "README.md").read_text())
ADDRESS = re.compile(r"127\.0\.0\.1:50051|localhost:50051")


def blocks(language):
    found = [text for kind, text in BLOCKS if kind == language]
    return [pytest.param(text, id=f"{language}-{at}") for at, text in enumerate(found)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """`synoptic demo --serve`, as the README starts it; yields its address."""
    where = tmp_path_factory.mktemp("readme")
    child = spawn([str(binary()), "demo", "--dir", str(where / "demo-data"), "--serve", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=where)
    lines, ready = [], threading.Event()

    def read():
        for line in child.stdout:
            lines.append(line)
            if "synoptic listening on grpc://" in line:
                ready.set()

    errors = []
    threading.Thread(target=read, daemon=True).start()
    threading.Thread(target=lambda: errors.extend(child.stderr), daemon=True).start()
    assert ready.wait(120), "".join(lines[-20:] + errors[-20:])
    address = re.search(r"grpc://(\S+)", [l for l in lines if "listening on" in l][0]).group(1)
    yield address
    assert stop(child, signal.SIGTERM, 40) == 0


def at(address, text):
    return ADDRESS.sub(address, text)


def test_there_are_blocks():
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("sh") >= 1 and kinds.count("python") >= 2 and kinds.count("toml") >= 1


@pytest.mark.parametrize("block", blocks("python"))
def test_python(demo, block, tmp_path):
    done = subprocess.run([sys.executable, "-c", at(demo, block)], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("block", blocks("sh"))
def test_shell(demo, block, tmp_path):
    """`cargo run -- ARGS` is `synoptic ARGS` once built."""
    lines = block.replace("\\\n", " ").splitlines()
    for line in filter(None, (line.split(" # ")[0].strip() for line in lines)):
        words = shlex.split(at(demo, line))
        if words[:2] == ["cargo", "run"]:
            words = words[words.index("--") + 1:]
        elif words[0] == "synoptic":
            words = words[1:]
        else:
            pytest.fail(f"the README's `{line}` is neither cargo run nor synoptic")
        synoptic(*words, check=True, timeout=170, cwd=tmp_path)


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml(block, tmp_path):
    """The configuration is accepted: what may fail is only reaching its sources."""
    config = tmp_path / "synoptic.toml"
    config.write_text(block)
    done = synoptic("check", "-c", config, timeout=170)
    wrong = [line for line in done.stderr.splitlines() if "synoptic.toml:" in line and "[SOURCE_UNAVAILABLE]" not in line]
    assert not wrong, done.stderr
    for source in re.findall(r"^\[sources\.(\w+)\]", block, re.M):
        assert source in done.stdout + done.stderr

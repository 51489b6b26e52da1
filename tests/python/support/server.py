"""The program under test: `synoptic serve` and its other commands."""

import os
import pathlib
import re
import signal
import subprocess
import threading

from .postgres import PASSWORD
from .process import ROOT, spawn, stop

READY = re.compile(r"^synoptic listening on (grpc://127\.0\.0\.1:(\d+))$")


def binary():
    if os.environ.get("SYNOPTIC_BIN"):
        return pathlib.Path(os.environ["SYNOPTIC_BIN"])
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / "debug" / "synoptic"
    if not path.exists():
        raise RuntimeError(f"{path} is missing: ./tests/run build makes it")
    return path


def synoptic(*args, check=False, timeout=120, input=None, env=None, cwd=None):
    """Runs a command to its end; `check` demands exit code 0."""
    done = subprocess.run(
        [str(binary()), *map(str, args)], capture_output=True, text=True, timeout=timeout, input=input,
        env={**os.environ, **(env or {})}, cwd=cwd, stdin=None if input is not None else subprocess.DEVNULL)
    assert PASSWORD not in done.stdout + done.stderr, "a secret was printed"
    assert "panicked" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Server:
    """`synoptic serve` on a free port. Its standard error is kept in `log`."""

    def __init__(self, config, log, env=None):
        self.config, self.log = config, log
        with open(log, "ab") as err:
            self.process = spawn(
                [str(binary()), "serve", "-c", str(config)], stdout=subprocess.PIPE, stderr=err,
                stdin=subprocess.DEVNULL, text=True, env={**os.environ, **(env or {})})
        self.first_line = self._first_line(60)
        match = READY.match(self.first_line)
        if not match:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"not ready: {self.first_line!r}\n{self.logged()[-3000:]}")
        self.url, self.port = match.group(1), int(match.group(2))

    def _first_line(self, within):
        line = []
        reader = threading.Thread(target=lambda: line.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(within)
        return line[0].rstrip("\n") if line else ""

    def logged(self):
        return pathlib.Path(self.log).read_text(errors="replace")

    def rss(self):
        """Resident memory in bytes, without pages of files such as the program itself."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status).group(1)) * 1024

    def alive(self):
        return self.process.poll() is None

    def stop(self, how=signal.SIGTERM, within=40):
        code = stop(self.process, how, within)
        self.process.stdout.close()
        return code

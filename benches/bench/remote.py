"""An engine's process as seen from the benchmark: asked with a timeout, ended and started anew after one."""

import json
import os
import pathlib
import select
import signal
import subprocess

from support.process import spawn, stop

BENCHES = pathlib.Path(__file__).resolve().parents[1]


class Remote:
    """One engine over one placement. `python` is the interpreter that has its library."""

    def __init__(self, python: pathlib.Path, log: pathlib.Path, **setup):
        self.python, self.log, self.setup = python, log, setup
        self.process = None

    def ask(self, query: str, sql: str, timeout: float) -> dict:
        """The worker's line: seconds, rows, checksum and match, or an error."""
        if self.process is None:
            started = self._start()
            if "error" in started:
                return started
        return self._say({"query": query, "sql": sql}, timeout)

    def _start(self) -> dict:
        path = os.pathsep.join([str(BENCHES), str(BENCHES.parent / "tests" / "python")])
        with self.log.open("ab") as err:
            self.process = spawn(
                [str(self.python), "-m", "bench.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, cwd=BENCHES)
        return self._say(self.setup, 120)

    def _say(self, line: dict, timeout: float) -> dict:
        try:
            self.process.stdin.write(json.dumps(line).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._gone()
        # An answer is one line, and nothing comes unasked: readable means that it is there.
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            self.close(signal.SIGKILL)
            return {"error": f"timeout {timeout:.0f} s", "timeout": True}
        text = self.process.stdout.readline()
        return json.loads(text) if text else self._gone()

    def _gone(self) -> dict:
        code = self.process.wait(10)
        self.process = None
        return {"error": f"the engine's process ended with {code}: see {self.log.name}"}

    def close(self, how: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        stop(self.process, how)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None

"""The machine and what else runs on it: beside every figure, so that nobody takes a noisy one for a quiet one."""

import datetime as dt
import hashlib
import os
import pathlib
import subprocess

COMPILERS = {"rustc", "cc1", "cc1plus", "ld", "lld", "rust-lld", "mold", "as"}
TICK = os.sysconf("SC_CLK_TCK")


def load() -> float:
    """Processes that ran or wanted to, over the last minute."""
    return round(os.getloadavg()[0], 2)


def _stat(pid: str | int) -> list[str]:
    """Fields of /proc/PID/stat from the name on: name, state, parent, …"""
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return [text[text.index("(") + 1:text.rindex(")")], *text[text.rindex(")") + 2:].split()]


def compilers() -> int:
    """Compilers and linkers that run just now."""
    found = 0
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                name, state, *_ = _stat(pid)
            except OSError:
                continue
            found += name in COMPILERS and state not in "TZ"
    return found


def busy_seconds(pid: int) -> float:
    """Processor seconds of a process and of its children, those that ended included."""
    total = 0.0
    for other in os.listdir("/proc"):
        if other.isdigit():
            try:
                fields = _stat(other)
            except OSError:
                continue
            if int(other) == pid:
                total += sum(map(int, fields[12:16]))
            elif int(fields[2]) == pid:
                total += sum(map(int, fields[12:14]))
    return total / TICK


def described(binary: pathlib.Path, root: pathlib.Path) -> dict:
    """The first line of a file of results: what ran, where, when."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=root, capture_output=True, text=True)
    model = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown")
    with binary.open("rb") as file:
        program = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "commit": os.environ.get("SYNOPTIC_COMMIT") or commit.stdout.strip() or "unknown",
        "program": program,
        "cores": os.cpu_count(),
        "processor": model,
    }

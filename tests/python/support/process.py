"""Child processes that never outlive the tests."""

import ctypes
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_parent(how):
    # Runs in the child, after the change of user, which would clear the request.
    def before_exec():
        _libc.prctl(PR_SET_PDEATHSIG, how)

    return before_exec


def spawn(args, *, as_user=None, dies_by=signal.SIGTERM, **options):
    """Starts a child that ends when this process does, however that ends."""
    if as_user:
        entry = pwd.getpwnam(as_user)
        options |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        options["env"] = {**(options.get("env") or os.environ), "HOME": "/"}
    return subprocess.Popen(args, preexec_fn=_die_with_parent(dies_by), **options)


def run_as(args, as_user, **options):
    child = spawn(args, as_user=as_user, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    output, _ = child.communicate(timeout=120)
    if child.returncode:
        raise RuntimeError(f"{args[0]} failed ({child.returncode}): {output.decode(errors='replace')}")
    return output.decode(errors="replace")


def stop(child, how=signal.SIGTERM, within=20):
    """Ends one child by its id and returns its exit code."""
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(within)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
            raise RuntimeError(f"{child.args[0]} did not end {within} s after signal {how}") from None
    return child.returncode


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def make_folder():
    """A temporary folder that other users can walk through, unlike pytest's own."""
    for base in (None, "/tmp"):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="synoptic-test-", dir=base))
        folder.chmod(0o755)
        if all(parent.stat().st_mode & 0o001 for parent in folder.parents) or os.getuid() != 0:
            return folder
        shutil.rmtree(folder)
    raise RuntimeError("no temporary folder that the user 'postgres' can reach")


def until(condition, within, every=0.02):
    """Polls until `condition()` is true; returns the seconds it took, or None."""
    began = time.monotonic()
    while True:
        if condition():
            return time.monotonic() - began
        if time.monotonic() - began > within:
            return None
        time.sleep(every)

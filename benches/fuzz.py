"""The differential fuzzer of tests/rust/fuzz.rs over many seeds, in runs that can be stopped and gone on with.

    benches/run fuzz --cases 100000 [--until 12:50] [--seed 1] [--binary FILE] [--out FOLDER]

A run is one process over --per-run queries, at the lowest priority. What was done is kept in
FOLDER/progress.json, and the next call goes on after it; every difference, made small by the fuzzer
itself, is appended to FOLDER/failures.txt with the seed that asks it again.
"""

import argparse
import datetime as dt
import json
import os
import pathlib
import re
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
QUERIES = 50  # of one seed; as in tests/rust/fuzz.rs
TEST = "fuzz::random_queries_have_one_answer"
DONE = re.compile(r"^(\d+) queries: (\d+) with rows, (\d+) without, (\d+) with the same error, (\d+) where plain", re.M)
FAILURE = re.compile(r"^SYNOPTIC_FUZZ_SEED=\d+ .*?(?=^SYNOPTIC_FUZZ_SEED=|^\d+ queries: |\Z)", re.M | re.S)


def newest_binary() -> pathlib.Path:
    """The test program that was made last; one of a release build asks twenty times as many queries."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    found = [f for profile in ("release", "debug") for f in (target / profile / "deps").glob("all-*")
             if not f.suffix and os.access(f, os.X_OK)]
    if not found:
        raise SystemExit(f"no test program under {target}: run cargo build --locked --release --bin synoptic --test all")
    return max(found, key=lambda f: f.stat().st_mtime)


def one_run(binary: pathlib.Path, seed: int, cases: int, timeout: float) -> tuple[dict, list[str]]:
    """Asks `cases` queries from `seed` on: what was counted, and the text of every difference."""
    env = {**os.environ, "SYNOPTIC_FUZZ_SEED": str(seed), "SYNOPTIC_FUZZ_CASES": str(cases), "SYNOPTIC_FUZZ_ALL": "1"}
    began = time.monotonic()
    child = subprocess.Popen(
        ["nice", "-n", "19", str(binary), TEST, "--exact", "--nocapture"], cwd=ROOT / "tests", env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        text, _ = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        text, _ = child.communicate()
        return {"seed": seed, "timed_out": True, "seconds": round(time.monotonic() - began, 1)}, FAILURE.findall(text)
    counted = DONE.search(text)
    run = {"seed": seed, "code": child.returncode, "seconds": round(time.monotonic() - began, 1)}
    if counted:
        run |= dict(zip(("asked", "rows", "empty", "errors", "known"), map(int, counted.groups())))
    failures = FAILURE.findall(text)
    if child.returncode and not failures:
        failures = [f"SYNOPTIC_FUZZ_SEED={seed} SYNOPTIC_FUZZ_CASES={cases}: the run failed\n{text[-6000:]}\n"]
    return run, failures


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", type=int, default=100_000, help="queries over all runs, those already done included")
    options.add_argument("--seed", type=int, default=1, help="the first seed; every seed is 50 queries")
    options.add_argument("--per-run", type=int, default=1000, help="queries of one process")
    options.add_argument("--until", help="HH:MM of today, UTC: no run starts after it")
    options.add_argument("--run-timeout", type=float, default=1800, help="seconds a run may take")
    options.add_argument("--binary", type=pathlib.Path)
    options.add_argument("--out", type=pathlib.Path, default=ROOT / "target" / "fuzz")
    a = options.parse_args()
    binary = a.binary or newest_binary()
    a.out.mkdir(parents=True, exist_ok=True)
    progress = a.out / "progress.json"
    runs: list[dict] = json.loads(progress.read_text()) if progress.exists() else []
    while True:
        asked = sum(run.get("asked", 0) for run in runs)
        now = dt.datetime.now(dt.timezone.utc).strftime("%H:%M")
        if asked >= a.cases or (a.until and now >= a.until):
            break
        seed = max((run["seed"] + run["seeds"] for run in runs), default=a.seed)
        cases = min(a.per_run, a.cases - asked)
        run, failures = one_run(binary.resolve(), seed, cases, a.run_timeout)
        run |= {"seeds": -(-cases // QUERIES), "differences": len(failures)}
        runs.append(run)
        progress.write_text(json.dumps(runs, indent=0))
        if failures:
            with (a.out / "failures.txt").open("a") as file:
                file.writelines(f"{text.rstrip()}\n\n{'=' * 100}\n" for text in failures)
        print(json.dumps(run), flush=True)
    total = {key: sum(run.get(key, 0) for run in runs) for key in ("asked", "rows", "empty", "errors", "known", "differences", "seconds")}
    print(f"{total['asked']} queries in {total['seconds']:.0f} s: {total['rows']} with rows, {total['empty']} without,"
          f" {total['errors']} with the same error, {total['known']} where plain DataFusion orders"
          f" floats in another way; {total['differences']} differences")


if __name__ == "__main__":
    main()

"""TPC-H and the small questions beside other engines, side by side in one run.

    benches/run tpch [--placements P1,P3,A,B,C] [--rounds 3] [--engines synoptic,duckdb,chdb] [--queries all]

Each round asks one question of every engine in turn, and who is first changes from round to round.
Every answer is compared with DuckDB's over its own tables. Lines of JSON go to --out as they come:
a run that broke off goes on where it was (with the same program and scale), `--again` starts over.
"""

import argparse
import json
import os
import pathlib
import sys

from bench import machine, ours, questions
from bench.dataset import Dataset, say
from bench.remote import Remote
from support import tpch
from support.server import binary

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLACEMENTS = ["P1", "P3", "A", "B", "C"]
ENGINES = ["synoptic", "duckdb", "chdb"]


def chosen(text: str, of: list[str]) -> list[str]:
    return of if text == "all" else [name for name in of if name in text.split(",")]


class Results:
    """A file of results: its first line says what ran where; what it has is not measured again."""

    def __init__(self, path: pathlib.Path, about: dict, again: bool):
        self.path, self.have = path, set()
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() and not again else []
        same = lines and all(lines[0].get(key) == about[key] for key in ("program", "scale"))
        if same:
            self.have = {self.key(line) for line in lines[1:]}
            say(f"goes on with {path}, which has {len(self.have)} measurements")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                path.replace(path.with_suffix(".before.jsonl"))
            path.write_text(json.dumps(about) + "\n")

    @staticmethod
    def key(line: dict) -> tuple:
        return line["placement"], line["query"], line["engine"], line["round"]

    def add(self, line: dict) -> None:
        self.have.add(self.key(line))
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def run_placement(data: Dataset, server, placement: str, results: Results, a) -> None:
    chdb = pathlib.Path(os.environ["BENCH_VENVS"]) / "chdb" / "bin" / "python"
    engines = chosen(a.engines, ENGINES)
    remotes = {
        engine: Remote(chdb if engine == "chdb" else pathlib.Path(sys.executable), data.folder / f"{engine}.log",
                       engine=engine, places=data.places(), placement=tpch.PLACEMENTS[placement], url=server and server.url)
        for engine in engines
    }
    given_up = set()
    try:
        for query in chosen(a.queries, questions.of(placement)):
            said = {engine: [] for engine in engines}
            for turn in range(a.rounds):
                for engine in engines[turn % len(engines):] + engines[:turn % len(engines)]:
                    key = (placement, query, engine, turn)
                    if key in results.have or (engine, query) in given_up:
                        continue
                    sql = questions.text(query, placement if engine == "synoptic" else None)
                    line = dict(zip(("placement", "query", "engine", "round"), key))
                    line |= {"load": machine.load(), "compilers": machine.compilers()}
                    line |= remotes[engine].ask(query, sql, a.timeout)
                    results.add(line)
                    said[engine].append(line.get("seconds"))
                    if "error" in line:
                        # It would fail, or take that long, again.
                        given_up.add((engine, query))
                        say(f"{placement} {query} {engine}: {line['error']}")
                        for one in data.servers.values():
                            one.end_statements()
                    elif line["match"] not in ("exact", "close"):
                        say(f"{placement} {query} {engine}: WRONG, {line['match']}")
            print(placement, query, *(f"{engine} {' '.join(f'{s:.4f}' for s in seconds if s)}" for engine, seconds in said.items()),
                  flush=True)
    finally:
        for remote in remotes.values():
            remote.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=pathlib.Path, default=ROOT / "target" / "bench-data")
    options.add_argument("--scale", default="1")
    options.add_argument("--placements", default="all", help="of P1,P3,A,B,C")
    options.add_argument("--engines", default="all", help="of synoptic,duckdb,chdb")
    options.add_argument("--queries", default="all", help="q01,m01,…")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--timeout", type=float, default=60, help="seconds a question may take")
    options.add_argument("--note", default="", help="kept with the results: 'quiet', 'builds were running'")
    options.add_argument("--out", type=pathlib.Path, help="target/bench/tpch-SCALE.jsonl when not given")
    options.add_argument("--again", action="store_true", help="measures what the file of results has, too")
    a = options.parse_args()
    out = a.out or ROOT / "target" / "bench" / f"tpch-{a.scale}.jsonl"
    about = machine.described(binary(), ROOT) | {"scale": a.scale, "note": a.note}
    data = Dataset(a.data, a.scale)
    server = None
    try:
        server = ours.serve(data) if "synoptic" in chosen(a.engines, ENGINES) else None
        results = Results(out, about, a.again)
        for placement in chosen(a.placements, PLACEMENTS):
            run_placement(data, server, placement, results, a)
    finally:
        if server:
            server.stop()
        data.close()
    say(f"results in {out}")


if __name__ == "__main__":
    main()

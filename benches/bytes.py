"""Rows and bytes that left the sources for each TPC-H question and placement, by our receipts; for three
questions of each placement beside a federation written by hand (bench/by_hand.py), which must answer right.

    benches/run bytes [--placements all] [--queries all] [--scale 1]

Goal: at most 1.2 times the bytes of the one by hand. Where it is missed, EXPLAIN's reasons for what
stayed here are kept with the results.
"""

import argparse
import collections
import json
import pathlib

import pyarrow.flight as fl

from bench import answers, machine, ours, questions
from bench.by_hand import BY_HAND
from bench.dataset import Dataset, say
from bench.fetch import Fetched
from support import tpch
from support.server import binary

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLACEMENTS = ["P1", "P3", "A", "B", "C"]
SOURCES = ("lake", "lite", "pg", "pg2")
GOAL = 1.2


def asked(client, sql: str) -> tuple[list[tuple], dict]:
    """The rows of a statement and its receipt."""
    info = client.get_flight_info(fl.FlightDescriptor.for_command(sql.encode()))
    batches, last = [], b""
    for chunk in client.do_get(info.endpoints[0].ticket):
        if chunk.data is not None and chunk.data.num_rows:
            batches.append(chunk.data)
        last = chunk.app_metadata.to_pybytes() if chunk.app_metadata else last
    rows = [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns))]
    return rows, json.loads(last)


def by_source(receipt: dict) -> dict[str, dict]:
    moved = collections.defaultdict(lambda: {"rows": 0, "bytes": 0})
    for scan in receipt["scans"]:
        moved[scan["source"]]["rows"] += scan["rows"]
        moved[scan["source"]]["bytes"] += scan["bytes"]
    return dict(moved)


def stayed(client, sql: str) -> list[str]:
    """What EXPLAIN ANALYZE says of the texts sent and of what stayed here."""
    rows, _ = asked(client, f"EXPLAIN ANALYZE {sql}")
    return [line for row in rows for line in str(row[1]).splitlines()]


def measure(data: Dataset, client, placement: str, query: str, right: dict) -> dict:
    sql = questions.text(query, placement)
    rows, receipt = asked(client, sql)
    line = {"placement": placement, "query": query, "ours": by_source(receipt),
            "match": answers.compare(answers.canonical(rows), right[query]),
            "texts": [scan["remote_text"] for scan in receipt["scans"]]}
    if query in BY_HAND[placement]:
        hand = Fetched(data, tpch.PLACEMENTS[placement])
        got = answers.canonical(BY_HAND[placement][query](hand))
        match = answers.compare(got, right[query])
        if match not in ("exact", "close"):
            raise RuntimeError(f"the federation by hand of {query} on {placement} is wrong: {match}")
        line["hand"] = {source: {"rows": hand.rows[source], "bytes": hand.bytes[source]} for source in hand.rows}
        line["keys_sent"] = hand.keys_sent
        line["ratio"] = round(total(line["ours"]) / max(1, total(line["hand"])), 3)
        if line["ratio"] > GOAL:
            line["explain"] = stayed(client, sql)
    return line


def total(moved: dict, what: str = "bytes") -> int:
    return sum(source[what] for source in moved.values())


def size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count} B"


def table_of_ratios(lines: list[dict]) -> str:
    out = ["| placement, question | ours: rows, bytes | by hand: rows, bytes | bytes, ours / by hand |", "|---|---|---|---|"]
    for line in lines:
        if "hand" in line:
            cells = (f"{total(line[who], 'rows'):,}, {size(total(line[who]))}" for who in ("ours", "hand"))
            out.append(f"| {line['placement']} {line['query']} | {' | '.join(cells)} | **{line['ratio']:.2f}** |")
    return "\n".join(out)


def table_of_moved(lines: list[dict], placement: str) -> str:
    chosen = [line for line in lines if line["placement"] == placement]
    sources = [source for source in SOURCES if any(source in line["ours"] for line in chosen)]
    out = [f"| {placement} | {' | '.join(sources)} |", "|---" * (len(sources) + 1) + "|"]
    for line in chosen:
        cells = (f"{m['rows']:,}, {size(m['bytes'])}" if (m := line["ours"].get(source)) else "–" for source in sources)
        out.append(f"| {line['query']} | {' | '.join(cells)} |")
    return "\n".join(out)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=pathlib.Path, default=ROOT / "target" / "bench-data")
    options.add_argument("--scale", default="1")
    options.add_argument("--placements", default="all")
    options.add_argument("--queries", default="all")
    options.add_argument("--out", type=pathlib.Path, help="target/bench/bytes-SCALE.jsonl when not given")
    a = options.parse_args()
    out = a.out or ROOT / "target" / "bench" / f"bytes-{a.scale}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(machine.described(binary(), ROOT) | {"scale": a.scale}) + "\n")
    data, server, lines = Dataset(a.data, a.scale), None, []
    right = json.loads(data.answers.read_text())
    try:
        server = ours.serve(data, name="bytes")
        with fl.connect(server.url) as client:
            for placement in PLACEMENTS if a.placements == "all" else a.placements.split(","):
                for query in (q for q in tpch.QUERIES if a.queries == "all" or q in a.queries.split(",")):
                    line = measure(data, client, placement, query, right)
                    lines.append(line)
                    with out.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    ratio = f", {line['ratio']} × by hand" if "ratio" in line else ""
                    print(f"{placement} {query}: {total(line['ours'], 'rows')} rows, {size(total(line['ours']))}{ratio};"
                          f" {line['match']}", flush=True)
    finally:
        if server:
            server.stop()
        data.close()
    print(f"\n{table_of_ratios(lines)}")
    for placement in dict.fromkeys(line["placement"] for line in lines):
        print(f"\n{table_of_moved(lines, placement)}")
    say(f"results in {out}")


if __name__ == "__main__":
    main()

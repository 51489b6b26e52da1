"""All of one PostgreSQL table over one and over two connections, beside psql's COPY, side by side in one run.

    benches/run scan [--scale 1] [--table lineitem] [--rounds 5]

Each round runs, one after the other, with one and with two connections:
  psql      COPY … (FORMAT BINARY) to nowhere; two readers split the table by ctid and start together
  engine    EXPLAIN ANALYZE SELECT *: everything is received, decoded and executed, and then dropped
  flight    SELECT * through Flight and pyarrow, whose batches are counted and dropped

Beside the seconds stand the processor seconds of PostgreSQL, of our server and of the client (psql or
pyarrow): with as many busy processes as cores, they are what a scan's time is made of.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import time

import pyarrow.flight as fl

from bench import machine, ours
from bench.dataset import Dataset, say
from support.server import binary

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONNECTIONS = (1, 2)
WAYS = ("psql", "engine", "flight")


def psql(data: Dataset, table: str, connections: int) -> None:
    pages = data.servers["pg"].run(f"SELECT pg_relation_size('{table}') / 8192", data.database)[0][0]
    half = pages // 2
    parts = [table] if connections == 1 else [
        f"(SELECT * FROM {table} WHERE ctid < '({half},0)'::tid)", f"(SELECT * FROM {table} WHERE ctid >= '({half},0)'::tid)"]
    readers = [subprocess.Popen(["psql", "-X", "-q", data.url("pg"), "-c", f"COPY {part} TO STDOUT (FORMAT BINARY)"],
                                stdout=subprocess.DEVNULL) for part in parts]
    if any([reader.wait() for reader in readers]):
        raise RuntimeError("psql failed")


def engine(client, table: str, connections: int) -> str:
    sql = f"EXPLAIN ANALYZE SELECT * FROM pg_{connections}.public.{table}"
    return "\n".join(client_read(client, sql).read_all().column(1).to_pylist())


def flight(client, table: str, connections: int) -> int:
    """The rows that came."""
    return sum(chunk.data.num_rows for chunk in client_read(client, f"SELECT * FROM pg_{connections}.public.{table}"))


def client_read(client, sql: str):
    info = client.get_flight_info(fl.FlightDescriptor.for_command(sql.encode()))
    return client.do_get(info.endpoints[0].ticket)


def own_seconds() -> float:
    """Processor seconds of this process and of the readers that it waited for."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def measure(data: Dataset, server, client, way: str, table: str, connections: int, rows: int) -> dict:
    pids = {"postgres": data.servers["pg"].process.pid, "synoptic": server.process.pid}
    before = {name: machine.busy_seconds(pid) for name, pid in pids.items()} | {"client": own_seconds()}
    line = {"scan": way, "connections": connections, "load": machine.load(), "compilers": machine.compilers()}
    own = own_seconds()
    began = time.perf_counter()
    if way == "psql":
        psql(data, table, connections)
    elif way == "engine":
        line["plan"] = engine(client, table, connections)
    else:
        came = flight(client, table, connections)
        if came != rows:
            raise RuntimeError(f"{came} rows came, not {rows}")
    took, own = time.perf_counter() - began, own_seconds() - own
    busy = {name: round(machine.busy_seconds(pid) - before[name], 2) for name, pid in pids.items()}
    return line | {"seconds": round(took, 4), "rows": rows, "busy": busy | {"client": round(own, 2)}}


def table_of(lines: list[dict]) -> str:
    def median(way, connections, value):
        return statistics.median(value(x) for x in lines if (x["scan"], x["connections"]) == (way, connections))

    # Ratios are of one round each, and then the median: what slows the machine slows both.
    def ratio(way, connections):
        floors = [x["seconds"] for x in lines if (x["scan"], x["connections"]) == ("psql", connections)]
        own = [x["seconds"] for x in lines if (x["scan"], x["connections"]) == (way, connections)]
        return statistics.median(f / o for f, o in zip(floors, own))

    out = ["| connections | reader | seconds | M rows/s | of psql's rate | processor seconds: PostgreSQL, synoptic, client |",
           "|---|---|---|---|---|---|"]
    names = {"psql": "psql, to nowhere", "engine": "our engine, batches dropped", "flight": "ours, through Flight and pyarrow"}
    for connections in CONNECTIONS:
        for way in WAYS:
            seconds = median(way, connections, lambda x: x["seconds"])
            busy = (f"{median(way, connections, lambda x: x['busy'][who]):.2f}" for who in ("postgres", "synoptic", "client"))
            out.append(f"| {connections} | {names[way]} | {seconds:.2f} | {lines[0]['rows'] / seconds / 1e6:.2f} |"
                       f" **{ratio(way, connections):.2f}** | {', '.join(busy)} |")
    return "\n".join(out)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=pathlib.Path, default=ROOT / "target" / "bench-data")
    options.add_argument("--scale", default="1")
    options.add_argument("--table", default="lineitem")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--note", default="")
    options.add_argument("--out", type=pathlib.Path, help="target/bench/scan-SCALE.jsonl when not given")
    a = options.parse_args()
    out = a.out or ROOT / "target" / "bench" / f"scan-{a.scale}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    about = machine.described(binary(), ROOT) | {"scale": a.scale, "table": a.table, "note": a.note}
    out.write_text(json.dumps(about) + "\n")
    data, server, lines = Dataset(a.data, a.scale), None, []
    try:
        sources = "".join(
            f'[sources.pg_{n}]\nconnector = "postgres"\nurl = "{data.url("pg")}"\nmax_partitions = {n}\n' for n in CONNECTIONS)
        server = ours.serve(data, extra=sources, name="scan")
        rows = data.servers["pg"].run(f"SELECT count(*) FROM {a.table}", data.database)[0][0]
        with fl.connect(server.url) as client:
            # Round 0 warms caches and pools and is not kept.
            for turn in range(a.rounds + 1):
                for connections in CONNECTIONS:
                    for way in WAYS:
                        line = measure(data, server, client, way, a.table, connections, rows) | {"round": turn}
                        if turn == 0:
                            continue
                        lines.append(line)
                        with out.open("a") as file:
                            file.write(json.dumps(line) + "\n")
                        print(f"round {turn}: {way} {connections}: {line['seconds']:.2f} s, busy {line['busy']}", flush=True)
    finally:
        if server:
            server.stop()
        data.close()
    load = statistics.median(line["load"] for line in lines)
    print(f"\n{about['date'][:10]}, commit `{about['commit']}`, scale {a.scale}, {about['cores']} cores,"
          f" medians of {a.rounds} rounds; load {load:.1f} at the median{f' ({a.note})' if a.note else ''}.\n")
    print(table_of(lines))
    say(f"results in {out}")


if __name__ == "__main__":
    main()

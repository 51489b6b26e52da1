"""Rows per second of one read of all of lineitem from PostgreSQL, beside psql.

Each round runs, one after the other:
  psql      psql -c "COPY lineitem TO STDOUT (FORMAT BINARY)" > /dev/null: what the server can send
  synoptic  SELECT * through `synoptic serve` and pyarrow, one connection to PostgreSQL

and prints both rates and their ratio; the last line has the medians. The server's memory over the
read is printed too: it does not grow with the table.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "python"))

import pyarrow.flight as fl  # noqa: E402

from support import tpch  # noqa: E402
from support.postgres import PASSWORD, Postgres  # noqa: E402
from support.process import make_folder  # noqa: E402
from support.server import Server  # noqa: E402

SQL = "SELECT * FROM pg.public.lineitem"


def psql(postgres, database):
    began = time.monotonic()
    subprocess.run(
        ["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "synoptic", "-d", database, "-c",
         "COPY lineitem TO STDOUT (FORMAT BINARY)"],
        stdout=subprocess.DEVNULL, check=True, env={**os.environ, "PGPASSWORD": PASSWORD})
    return time.monotonic() - began


def synoptic(server):
    """Seconds, rows and the peak of the server's memory over its level before."""
    done, peak, before = threading.Event(), [0], server.rss()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], server.rss() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rows = 0
    began = time.monotonic()
    with fl.connect(server.url) as client:
        info = client.get_flight_info(fl.FlightDescriptor.for_command(SQL.encode()))
        for chunk in client.do_get(info.endpoints[0].ticket):
            rows += chunk.data.num_rows
    took = time.monotonic() - began
    done.set()
    watcher.join()
    return took, rows, peak[0]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--scale", default="1")
    options.add_argument("--runs", type=int, default=5)
    options = options.parse_args()

    Postgres.SETTINGS |= {"shared_buffers": "1GB", "jit": "off"}
    folder = make_folder()
    postgres = server = None
    try:
        postgres = Postgres(folder / "primary")
        local = tpch.generate(options.scale)
        tpch.to_postgres(local, postgres, "tpch", folder / "csv")
        local.close()
        config = folder / "synoptic.toml"
        # One partition: one connection to PostgreSQL.
        config.write_text(f"""
            [server]
            listen = "127.0.0.1:0"
            target_partitions = 1
            [sources.pg]
            connector = "postgres"
            url = "{postgres.url('tpch')}"
        """)
        server = Server(config, folder / "server.log")
        psql(postgres, "tpch")
        synoptic(server)
        ratios, rates = [], []
        for turn in range(options.runs):
            floor = psql(postgres, "tpch")
            took, rows, grew = synoptic(server)
            ratios.append(floor / took)
            rates.append((rows / floor, rows / took))
            print(f"run {turn + 1}: psql {rows / floor / 1e6:.2f} M rows/s, synoptic {rows / took / 1e6:.2f} M rows/s,"
                  f" ratio {floor / took:.2f}, server memory +{grew >> 20} MiB", flush=True)
        medians = [statistics.median(column) / 1e6 for column in zip(*rates)]
        print(f"median of {options.runs} over {rows} rows: psql {medians[0]:.2f} M rows/s,"
              f" synoptic {medians[1]:.2f} M rows/s, ratio {statistics.median(ratios):.2f}")
    finally:
        if server:
            server.stop()
        if postgres:
            postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

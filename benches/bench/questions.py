"""The questions: TPC-H's 22 (tests/tpch) and eight everyday ones (benches/queries), over each placement."""

import pathlib

from support import tpch

MICRO = [f"m{n:02d}" for n in range(1, 9)]
ALL = tpch.QUERIES + MICRO
# Accio (PVLDB 18(7)) asks these over two PostgreSQL servers.
OF_SPLITS = [f"q{n:02d}" for n in (3, 5, 7, 8, 9, 10, 12, 14, 18, 19)]
OWN = pathlib.Path(__file__).resolve().parents[1] / "queries"


def of(placement: str) -> list[str]:
    return OF_SPLITS if placement in tpch.GROUPS else ALL


def text(name: str, placement: str | None = None) -> str:
    if name in tpch.QUERIES:
        return tpch.text(name, placement)
    sql = (OWN / f"{name}.sql").read_text().strip()
    return sql if placement is None else tpch.placed(sql, placement)

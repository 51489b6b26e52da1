"""Answers in one form for all engines, and whether they are DuckDB's over its own tables."""

import datetime as dt
import decimal
import hashlib
import math


def cell(value):
    if value is None:
        return None
    if isinstance(value, (bool, int, decimal.Decimal)):
        return float(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dt.datetime):
        return value.date().isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode().rstrip()
    return str(value).rstrip()


def _place(row):
    return tuple((0, "") if c is None else (1, f"{c:.2f}") if isinstance(c, float) else (2, c) for c in row)


def canonical(rows) -> list[list]:
    """Rows as lists of None, floats and strings, sorted: ties of an ORDER BY may come in any order."""
    return sorted(([cell(value) for value in row] for row in rows), key=_place)


def checksum(rows) -> str:
    digest = hashlib.sha256()
    for row in rows:
        cells = ("" if c is None else f"{c:.2f}" if isinstance(c, float) else c for c in row)
        digest.update("|".join(cells).encode() + b"\n")
    return digest.hexdigest()[:16]


def compare(got, want) -> str:
    """`exact` at two decimals; `close` when numbers are within 0.01 or a millionth; else the first difference."""
    if checksum(got) == checksum(want):
        return "exact"
    if len(got) != len(want):
        return f"{len(got)} rows, not {len(want)}"

    def loosely(row):
        return ["" if c is None else f"{c:.3g}" if isinstance(c, float) else c for c in row]

    first = None
    for one, other in ((got, want), (sorted(got, key=loosely), sorted(want, key=loosely))):
        wrong = next((f"{g}, not {w}" for g, w in zip(one, other) if not _same_row(g, w)), None)
        if wrong is None:
            return "close"
        first = first or wrong
    return first[:160]


def _same_row(got, want) -> bool:
    return len(got) == len(want) and all(map(_same_cell, got, want))


def _same_cell(got, want) -> bool:
    if isinstance(got, float) and isinstance(want, float):
        return abs(got - want) <= max(0.0101, 1e-6 * abs(want))
    return got == want

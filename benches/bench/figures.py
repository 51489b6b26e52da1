"""What the lines of `tpch` say: medians, ratios and geometric means."""

import collections
import json
import math
import pathlib
import statistics

OURS = "synoptic"


def geometric(values) -> float:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


class Figures:
    """Medians in seconds by placement, engine and question; `failed` says why one is missing or wrong."""

    def __init__(self, file: pathlib.Path):
        self.about, *lines = map(json.loads, file.read_text().splitlines())
        seconds = collections.defaultdict(list)
        self.failed: dict[tuple, str] = {}
        for line in lines:
            key = line["placement"], line["engine"], line["query"]
            if "error" in line:
                self.failed[key] = "timeout" if line.get("timeout") else line["error"]
            elif line["match"] not in ("exact", "close"):
                self.failed[key] = f"wrong: {line['match']}"
            else:
                seconds[key].append(line["seconds"])
        self.median = {key: statistics.median(values) for key, values in seconds.items() if key not in self.failed}
        # How far the rounds lie apart, as a share of their median.
        self.spread = {key: (max(values) - min(values)) / statistics.median(values) for key, values in seconds.items()}
        self.rounds = max((line["round"] for line in lines), default=-1) + 1
        self.load = statistics.median(line["load"] for line in lines) if lines else math.nan
        self.compiling = sum(line["compilers"] > 0 for line in lines) / max(1, len(lines))
        self.answered = len(seconds)

    def placements(self) -> list[str]:
        return [p for p in ("P1", "P3", "A", "B", "C") if any(key[0] == p for key in self.median)]

    def engines(self, placement: str) -> list[str]:
        found = {key[1] for key in [*self.median, *self.failed] if key[0] == placement}
        return [engine for engine in (OURS, "duckdb", "chdb") if engine in found]

    def queries(self, placement: str, kind: str) -> list[str]:
        found = {key[2] for key in [*self.median, *self.failed] if key[0] == placement}
        return sorted(query for query in found if query.startswith(kind))

    def best_peer(self, placement: str, query: str) -> float | None:
        peers = (self.median.get((placement, e, query)) for e in self.engines(placement) if e != OURS)
        return min((s for s in peers if s), default=None)

    def ratio(self, placement: str, query: str, engine: str | None = None) -> float | None:
        """The peer's time over ours (of the best peer when none is named): above 1 we are faster."""
        ours = self.median.get((placement, OURS, query))
        peer = self.median.get((placement, engine, query)) if engine else self.best_peer(placement, query)
        return peer / ours if ours and peer else None

    def mean_ratio(self, placement: str, kind: str, engine: str | None = None) -> float:
        ratios = (self.ratio(placement, query, engine) for query in self.queries(placement, kind))
        return geometric(r for r in ratios if r)

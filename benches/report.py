"""Tables and plots out of the lines that `tpch` wrote.

    benches/run report [FILE] [--readme benches/README.md] [--plots benches/plots]

The tables replace what stands between `<!-- tpch -->` and `<!-- /tpch -->` in the page; without
--readme they are printed.
"""

import argparse
import pathlib
import re

from bench.figures import OURS, Figures, geometric
from bench.plots import plot

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = {"synoptic": "synoptic", "duckdb": "DuckDB", "chdb": "chDB"}
KINDS = {"q": "TPC-H", "m": "small questions"}
SLOWEST = 1.25


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}" if value < 0.1 else f"{value:.3f}"


def summary(f: Figures) -> list[str]:
    """Geometric means over the questions that both answered rightly, so that columns can be compared."""
    lines = ["| placement | questions | synoptic | DuckDB: mean, ratio | chDB: mean, ratio | ratio to the best peer on each |"
             f" slower than {SLOWEST} × the best peer |", "|---|---|---|---|---|---|---|"]
    for placement in f.placements():
        for kind, name in KINDS.items():
            queries = f.queries(placement, kind)
            if not queries:
                continue
            row = [placement, f"{len(queries)} {name}"]
            row.append(seconds(geometric(s for q in queries if (s := f.median.get((placement, OURS, q))))))
            for engine in ("duckdb", "chdb"):
                mean = geometric(s for q in queries if (s := f.median.get((placement, engine, q))))
                answered = sum((placement, engine, q) in f.median for q in queries)
                part = "" if answered == len(queries) else f" ({answered} of {len(queries)})"
                row.append(f"{seconds(mean)}, **{f.mean_ratio(placement, kind, engine):.2f}**{part}" if answered else "–")
            row.append(f"**{f.mean_ratio(placement, kind):.2f}**")
            slow = [q for q in queries if (r := f.ratio(placement, q)) and r < 1 / SLOWEST]
            row.append(", ".join(slow) or "none")
            lines.append(f"| {' | '.join(row)} |")
    return lines


def table(f: Figures, placement: str) -> list[str]:
    engines = f.engines(placement)
    lines = [f"| {placement} | {' | '.join(NAMES[e] for e in engines)} | best peer / synoptic |", "|---" * (len(engines) + 2) + "|"]
    for kind in KINDS:
        for query in f.queries(placement, kind):
            cells = []
            for engine in engines:
                key = placement, engine, query
                cells.append("**wrong**" if f.failed.get(key, "").startswith("wrong")
                             else "timeout" if f.failed.get(key) == "timeout"
                             else "error" if key in f.failed else seconds(f.median.get(key)))
            ratio = f.ratio(placement, query)
            cells.append("–" if ratio is None else f"{ratio:.2f}")
            lines.append(f"| {query} | {' | '.join(cells)} |")
    return lines


def page(f: Figures, plots: str) -> str:
    about = f.about
    quiet = f"load {f.load:.1f} at the median, compilers ran during {f.compiling:.0%} of the measurements"
    note = f" ({about['note']})" if about.get("note") else ""
    out = [f"{about['date'][:10]}, commit `{about['commit']}`, scale {about['scale']}, {about['cores']} cores"
           f" ({about['processor']}), medians of {f.rounds} rounds in seconds; {quiet}{note}."
           " A ratio above 1 means that we are faster.", ""]
    out += [*summary(f), ""]
    wrong = [f"- {NAMES[e]}, {p} {q}: {why}" for (p, e, q), why in sorted(f.failed.items())]
    if wrong:
        out += ["Not answered, or not as DuckDB answers over its own tables:", "", *wrong, ""]
    else:
        out += [f"All {f.answered} answers, of all engines, are DuckDB's over its own tables.", ""]
    for placement in f.placements():
        out += [f"![{placement}]({plots}/tpch-{placement}.svg)", "", "<details><summary>"
                f"{placement}, question by question</summary>", "", *table(f, placement), "", "</details>", ""]
    return "\n".join(out)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=pathlib.Path, nargs="?", default=ROOT / "target" / "bench" / "tpch-1.jsonl")
    options.add_argument("--readme", type=pathlib.Path)
    options.add_argument("--plots", type=pathlib.Path)
    a = options.parse_args()
    figures = Figures(a.file)
    if a.plots:
        a.plots.mkdir(parents=True, exist_ok=True)
        for placement in figures.placements():
            plot(figures, placement, a.plots / f"tpch-{placement}.svg")
    text = page(figures, "plots")
    if a.readme:
        old = a.readme.read_text()
        new = re.sub(r"(?s)(<!-- tpch -->\n).*?(<!-- /tpch -->)", lambda m: f"{m.group(1)}\n{text}\n{m.group(2)}", old)
        if "<!-- tpch -->" not in old:
            raise SystemExit(f"{a.readme} has no <!-- tpch --> … <!-- /tpch -->")
        a.readme.write_text(new)
    else:
        print(text)


if __name__ == "__main__":
    main()

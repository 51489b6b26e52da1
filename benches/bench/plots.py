"""Plots that can be read on a light and on a dark page: no background, middle tones."""

import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter  # noqa: E402

from .figures import OURS, Figures  # noqa: E402

GREY = "#848d97"
LOOKS = {"synoptic": ("#2f9e68", "o", 46, "synoptic"), "duckdb": ("#d98a1f", "D", 26, "DuckDB"),
         "chdb": ("#8f7ae0", "s", 24, "chDB")}


def plot(figures: Figures, placement: str, file: pathlib.Path) -> None:
    """Seconds (logarithmic) of every question by engine; a line joins us with the best peer."""
    queries = figures.queries(placement, "q") + figures.queries(placement, "m")
    style = {"svg.fonttype": "none", "svg.hashsalt": "synoptic", "font.family": "sans-serif", "font.size": 10,
             "text.color": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.edgecolor": GREY}
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(max(6, 0.33 * len(queries) + 1.6), 3.6))
        for at, query in enumerate(queries):
            ours, peer = figures.median.get((placement, OURS, query)), figures.best_peer(placement, query)
            if ours and peer:
                axes.plot([at, at], [ours, peer], color=LOOKS["synoptic"][0] if ours <= peer else "#d1533f", lw=2, zorder=1)
        for engine in figures.engines(placement):
            color, marker, size, name = LOOKS[engine]
            points = [(at, s) for at, q in enumerate(queries) if (s := figures.median.get((placement, engine, q)))]
            axes.scatter(*zip(*points), s=size, color=color, marker=marker, label=name, zorder=3 if engine == OURS else 2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(range(len(queries)), queries, rotation=90)
        axes.set_xlim(-0.7, len(queries) - 0.3)
        axes.set_ylabel("seconds")
        axes.grid(axis="y", color=GREY, alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
        figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    file.write_text("\n".join(line.rstrip() for line in file.read_text().splitlines()) + "\n")

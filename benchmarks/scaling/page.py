"""The table and the curves of growth."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.scaling.jobs import SIDES, TITLES
from benchmarks.study import markdown_table
from bitgnn.experiment.plots import GREY, style

Row = dict[str, Any]
STYLES = {"32-bit": style("fp32"), "ternary": style("absmean")}
LINES = {"full-batch": "-", "random-parts": "-.", "layer-wise": "--", "packed": ":"}
MEASURES = {"seconds": "time", "cpu_seconds": "processor time", "private_mib": "private memory"}
DRAWN = {"cpu_seconds": "processor seconds", "private_mib": "private memory, MiB"}
ABOUT = (
    "Random graphs with the shape of real ones, random weights: shapes only, nothing is said of "
    "accuracy. Time is that of the fastest of up to 3 calls, on a machine that does other things, "
    "too; *processor s* counts only the time in which threads of the call run, all together. "
    "*Private* is the highest memory above the inputs that no file backs; *peak* includes pages of "
    "mapped files (outputs, and what layer-wise inference keeps between layers), which the system "
    "takes back when it needs them. Each measurement takes place in a process of its own. Sides "
    "are bitgnn's layers with `quant=None` (32-bit: the numbers of PyG's) and as they come "
    "(ternary), and packed models of these."
)


def slope(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    r"""Returns the slope of a line through the logarithms of values over those of sizes (least
    squares): 1 where twice the size takes twice as much.

    Args:
        sizes (list): The sizes.
        values (list): What was measured at each; only what is above 0 counts.
    """
    points = [(math.log(n), math.log(v)) for n, v in zip(sizes, values, strict=True) if v > 0]
    if len({n for n, _ in points}) < 2:
        return None
    mean_n, mean_v = (sum(column) / len(points) for column in zip(*points, strict=True))
    rise = sum((n - mean_n) * (v - mean_v) for n, v in points)
    return rise / sum((n - mean_n) ** 2 for n, _ in points)


def growth(rows: Sequence[Row]) -> list[Row]:
    r"""Returns how time and memory grow with the number of nodes, a row for each line of the
    figure.

    Args:
        rows (list[dict]): What was measured.
    """
    found = []
    for graph, what, side in _lines(rows):
        mine = _line(rows, graph, what, side)
        row: Row = {"graph": graph, "what": what, "side": side, "sizes": len(mine)}
        sizes = [each["nodes"] for each in mine]
        for measure in MEASURES:
            row[f"{measure}_slope"] = slope(sizes, [each[measure] or 0.0 for each in mine])
        found.append(row)
    return found


def _lines(rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    yield from dict.fromkeys((row["graph"], row["what"], row["side"]) for row in rows)


def _line(rows: Sequence[Row], *line: str) -> list[Row]:
    mine = [row for row in rows if (row["graph"], row["what"], row["side"]) == line]
    return [row for row in mine if "why_not" not in row]


def to_markdown(rows: Sequence[Row], about: Row) -> str:
    r"""Returns the tables as text.

    Args:
        rows (list[dict]): What was measured.
        about (dict): Under which conditions.
    """
    kinds = ("s", "processor s", "private, MiB", "peak, MiB")
    header = ["graph", "nodes", "edges", "what"]
    header += [f"{side}, {kind}" for kind in kinds for side in SIDES]
    header += ["prepare, s"]
    cells, why = [], []
    for place in dict.fromkeys((row["graph"], row["nodes"], row["what"]) for row in rows):
        sides = {
            row["side"]: row for row in rows if (row["graph"], row["nodes"], row["what"]) == place
        }
        graph, nodes, what = place
        first = next(iter(sides.values()))
        line = [graph, f"{nodes:,}", f"{first['edges']:,}", TITLES[what]]
        for measure in (*MEASURES, "peak_mib"):
            line += [_cell(sides.get(side, {}).get(measure)) for side in SIDES]
        ready = sides.get("ternary", first).get("prepare_seconds") if what == "packed" else None
        cells.append([*line, _cell(ready)])
        why += [
            f"- {TITLES[what]}, {side}, {graph}, {nodes:,} nodes: {row['why_not']}"
            for side, row in sides.items()
            if "why_not" in row
        ]
    slopes = [
        [row["graph"], TITLES[row["what"]], row["side"], str(row["sizes"])]
        + [_cell(row[f"{measure}_slope"]) for measure in MEASURES]
        for row in growth(rows)
    ]
    grown = ["graph", "what", "side", "sizes", *MEASURES.values()]
    lines = ["# How time and memory grow with the graph", "", ABOUT, ""]
    lines += [markdown_table(header, cells, names=1), ""]
    if why:
        lines += ["What did not run:", "", *why, ""]
    lines += ["## Growth", "", "Slopes of logarithms over the number of nodes; edges grow with "
              "nodes. 1: twice the graph takes twice as much.", ""]  # fmt: skip
    lines += [markdown_table(grown, slopes, names=3), ""]
    lines += ["Setting: " + ", ".join(f"{name} {value}" for name, value in about.items()) + ".", ""]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"


def growth_figure(rows: Sequence[Row], title: str) -> Figure:
    r"""Draws processor time and private memory over the number of nodes, a column for each graph.

    Args:
        rows (list[dict]): What was measured.
        title (str): The model.
    """
    graphs = list(dict.fromkeys(row["graph"] for row in rows))
    figure = Figure(figsize=(1.8 + 3.4 * max(len(graphs), 1.5), 6.4), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold")
    axes = figure.subplots(len(DRAWN), len(graphs), squeeze=False, sharex="col", sharey="row")
    for (measure, name), line in zip(DRAWN.items(), axes, strict=True):
        for graph, ax in zip(graphs, line, strict=True):
            _draw(ax, [row for row in rows if row["graph"] == graph], measure)
            if measure == "cpu_seconds":
                ax.set_title(f"shape of ogbn-{graph}", fontsize=10)
            else:
                ax.set_xlabel("nodes (log scale)")
        line[0].set_ylabel(f"{name} (log scale)")
    handles = [Line2D([], [], color=color, marker=m, label=s) for s, (color, m) in STYLES.items()]
    handles += [
        Line2D([], [], color=GREY, ls=LINES[what], label=TITLES[what].replace(", ", ",\n"))
        for what in dict.fromkeys(row["what"] for row in rows)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    note = (
        "Random graphs and weights: shapes only. Memory is above the inputs, without mapped files"
    )
    figure.supxlabel(note, fontsize=9, color=GREY)
    return figure


def _draw(ax: Axes, rows: Sequence[Row], measure: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#E5E5E5", lw=0.8)
    ax.set_axisbelow(True)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for graph, what, side in _lines(rows):
        mine = [row for row in _line(rows, graph, what, side) if (row[measure] or 0.0) > 0]
        color, marker = STYLES[side]
        sizes, values = [row["nodes"] for row in mine], [row[measure] for row in mine]
        ax.plot(sizes, values, LINES[what], color=color, marker=marker, ms=5, mec="white", mew=0.5)
    ax.set_xticks(sorted({row["nodes"] for row in rows}))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _count(nodes: float) -> str:
    if nodes < 1e6:
        return f"{nodes / 1e3:.0f} k" if nodes >= 1e4 else f"{nodes:,.0f}"
    return f"{nodes / 1e6:.1f} M"

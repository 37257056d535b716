"""How fast packed models are beside PyG's 32-bit ones, run in every way PyG has.

    python -m benchmarks.speed                       # all of the table: an hour, 12 GiB
    python -m benchmarks.speed --graph Cora PubMed   # a part of it
    python -m benchmarks.speed --json rows.json      # the rows alone

PyG's ways are edge_index, the sparse matrix (CSR), torch-sparse's SparseTensor (with torch-scatter,
and without it where PyG would call it), sparse features and torch.compile, each with the memory
allocator as it comes and tuned in two ways. Each runs by itself, in a process of its own; then the
fastest of them, edge_index as it comes, and packed models take turns; of training steps, bitgnn's
layers, which are no packed models yet. Writes `results/speed.json`
and `results/speed.md`, after each model. Random graphs have the shape of real ones and random
weights: nothing is said of accuracy.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

if __package__ in (None, ""):  # python benchmarks/speed.py
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.study import RESULTS, Results, command_line, main, markdown_table
from bitgnn.cli import options
from bitgnn.experiment.passport import package_version
from bitgnn.experiment.speed import FOOTNOTE, Case, race, setting
from bitgnn.experiment.speed.table import COLUMNS
from bitgnn.files import write_whole

Row = dict[str, Any]
REAL = ("Cora", "CiteSeer", "PubMed")
CASES = [
    *(Case(model, "arxiv", 3, 256) for model in ("mlp", "gcn", "sage", "gat")),
    Case("gat", "arxiv", 3, 256, 8),
    *(Case(model, graph) for graph in REAL for model in ("gcn", "sage", "gat")),
    Case("gcn", "request", 3, 256),
    *(Case(model, "arxiv", 3, 256, train=True) for model in ("gcn", "sage")),
]
PACKAGES = ("torch-geometric", "torch-scatter", "torch-sparse")


@dataclass(frozen=True)
class Bar:
    """How much is asked for: the least ratio to PyG's fastest way, and to edge_index."""

    fastest: float
    edge_index: float | None


BARS = {
    ("gcn", "arxiv"): Bar(8, 50),
    ("sage", "arxiv"): Bar(8, 35),
    ("gat", "arxiv"): Bar(20, 60),
    ("mlp", "arxiv"): Bar(5, None),
    ("gcn", "request"): Bar(5, 6),
    ("gcn", "training step"): Bar(2, 12),
    ("sage", "training step"): Bar(2, None),
    **{(model, graph): Bar(5, 8) for graph in REAL for model in ("gcn", "sage", "gat")},
}
MEMORY = {"leanest": 3, "edge_index": 20}  # how many times as much PyG takes, at least


def speed(
    graph: Annotated[list[str] | None, typer.Option("--graph", metavar="NAME...")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", metavar="NAME...")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Else one a core.")] = None,
    seconds: Annotated[float, typer.Option(help="How long the rounds of a model may take.")] = 60.0,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile")] = True,
    results: Results = RESULTS,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the rows here too.")
    ] = None,
    root: options.Root = None,
) -> None:
    """Time all models of the table, and print it."""
    cases = [
        case
        for case in CASES
        if case.graph in (graph or [case.graph]) and case.model in (model or [case.model])
    ]
    if not cases:
        raise ValueError(f"The table has no model {model} on a graph {graph}")
    threads = threads or len(os.sched_getaffinity(0))
    about = setting(threads, seconds)
    about |= {name: package_version(name) or "not installed" for name in PACKAGES}
    rows: list[Row] = []
    for case in cases:
        with Console(stderr=True).status("") as status:
            rows.append(race(case, threads, root, compiled, seconds, status.update).row())
        text = json.dumps({"setting": about, "rows": rows}, indent=1) + "\n"
        write_whole(results / "speed.json", text.encode())
        write_whole(results / "speed.md", to_markdown(rows, about).encode())
    typer.echo(to_markdown(rows, about))
    if json_file is not None:
        write_whole(json_file, (json.dumps(rows, indent=1) + "\n").encode())


def verdicts(rows: Sequence[Row]) -> list[list[str]]:
    r"""Returns for each model what was asked for, and whether it is met.

    Args:
        rows (list[dict]): What was measured.
    """
    found = []
    for row in rows:
        name, *rest = row["model"].split(" ", 1)
        trains = rest[0].endswith("training step")
        bar = BARS[name, "training step" if trains else row["graph"]]
        cells = [row["model"], row["graph"], _verdict(row["vs_fastest"], bar.fastest)]
        edge = bar.edge_index
        cells.append("-" if edge is None else _verdict(row["vs_edge_index"], edge))
        for name, least in MEMORY.items():
            if trains or row["peak_mib"] is None or (name == "edge_index" and edge is None):
                cells.append("-")
                continue
            cells.append(_verdict(row[f"{name}_peak_mib"] / max(row["peak_mib"], 0.1), least))
        found.append(cells)
    return found


def _verdict(ratio: float, least: float) -> str:
    return f"{ratio:.1f} of {least:g}: {'met' if ratio >= least else '**missed**'}"


def to_markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    r"""Returns the tables as text.

    Args:
        rows (list[dict]): What was measured.
        about (dict): Under which conditions.
    """
    cells = [[cell(row) for cell in COLUMNS.values()] for row in rows]
    table = markdown_table(list(COLUMNS), cells, names=2)
    bars = markdown_table(
        ["model", "graph", "to PyG's fastest", "to edge_index", "memory, to PyG's leanest",
         "memory, to edge_index"],
        verdicts(rows), names=2,
    )  # fmt: skip
    paths = [heat["path"] for row in rows for heat in row["heats"]]
    paths = list(dict.fromkeys(paths))
    ways = markdown_table(
        ["way, ms", *(f"{row['model']}, {row['graph']}" for row in rows)],
        [[path, *(_alone(row, path) for row in rows)] for path in paths],
    )
    lines = [
        "# How fast packed models are", "", FOOTNOTE, "", table, "", "## What was asked for", "",
        bars, "", "## Each way by itself", "",
        "Not in turns, so that differences of a few percent say nothing. A dash: there is no such "
        "way, or it failed.", "", ways, "",
        "Setting: " + ", ".join(f"{name} {value}" for name, value in about.items()) + ".", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _alone(row: Row, path: str) -> str:
    for heat in row["heats"]:
        if heat["path"] == path and heat["ms"] is not None:
            return f"{heat['ms']:.3g}"
    return "-"


if __name__ == "__main__":
    main(command_line(__doc__, speed))

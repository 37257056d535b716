"""How time and memory grow with the graph: a training epoch, layer-wise inference and packed
inference, in 32 bits and ternary, over graphs with the shape of ogbn-arxiv and ogbn-products.

    python -m benchmarks.scale                       # all: 12 GiB of memory, 12 on disk
    python -m benchmarks.scale --graph arxiv         # a part of it
    python -m benchmarks.scale --part 0.01 0.02      # of smaller graphs
    python -m benchmarks.scale --what random-parts --name scale-parts  # to files of its own

Graphs are random, with sources by a power law, and are written to disk in pieces; features and
edges are read from there. Each measurement takes place in a process of its own, the two sides one
after the other; one that takes more memory than `--limit` is ended, and the table says so. Writes
`results/scale.json`, `results/scale.md` and `docs/images/scale.png`, after each graph. Weights are
random, too: these are shapes only, and nothing is said of accuracy.
"""

import json
import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.scaling.graphs import SHAPES, part_of
from benchmarks.scaling.jobs import SIDES, WHATS, Job
from benchmarks.scaling.page import growth, growth_figure, to_markdown
from benchmarks.scaling.processes import run, write
from benchmarks.study import (
    IMAGES,
    RESULTS,
    Images,
    Results,
    command_line,
    main,
    write_figure,
)
from bitgnn.experiment.speed import setting
from bitgnn.experiment.speed.case import MODELS
from bitgnn.files import write_whole

PARTS = (0.125, 0.25, 0.5, 1.0)


def scale(
    graph: Annotated[list[str] | None, typer.Option("--graph", metavar="NAME...")] = None,
    part: Annotated[
        list[float] | None,
        typer.Option("--part", metavar="PART...", help="Of the nodes. Else 1/8, 1/4, 1/2 and 1."),
    ] = None,
    what: Annotated[list[str] | None, typer.Option("--what", metavar="NAME...")] = None,
    model: Annotated[str, typer.Option(help="One of gcn, sage, gat, sgc.")] = "gcn",
    layers: Annotated[int, typer.Option(min=1)] = 3,
    hidden: Annotated[int, typer.Option(min=1)] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Nodes of a range.")] = 16_384,
    threads: Annotated[int | None, typer.Option(min=1, help="Else one a core.")] = None,
    seconds: Annotated[float, typer.Option(help="How long calls are repeated.")] = 3.0,
    limit: Annotated[float, typer.Option(help="GiB that a measurement may take.")] = 12.0,
    scratch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where graphs lie meanwhile.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the files that are written.")] = "scale",
    results: Results = RESULTS,
    images: Images = IMAGES,
) -> None:
    """Measure how time and memory grow, and print the tables."""
    graphs = _known(graph, SHAPES, "graph")
    whats = _known(what, WHATS, "measurement")
    _known([model], [name for name in MODELS if name != "mlp"], "model")
    parts = sorted(part or PARTS)
    if min(parts) <= 0 or max(parts) > 1:
        raise ValueError(f"'--part' must be above 0, and at most 1 (got {parts})")
    threads = threads or len(os.sched_getaffinity(0))
    title = f"{model.upper()}, {layers} layers of {hidden}"
    about = setting(threads, seconds) | {
        "load_before": os.getloadavg()[0],
        "model": title,
        "batch_size": batch_size,
        "limit_gib": limit,
    }
    how = (model, layers, hidden, batch_size, threads, seconds)
    rows: list[dict[str, Any]] = []
    with Console(stderr=True).status("") as status:
        for each, size in ((each, size) for each in graphs for size in parts):
            shape = part_of(SHAPES[each], size)
            with tempfile.TemporaryDirectory(prefix="bitgnn-scale-", dir=scratch) as folder:
                status.update(f"{each}, {shape.num_nodes:,} nodes: writing the graph")
                write(shape, Path(folder))
                for job in (
                    Job(doing, side, each, size, *how, Path(folder))
                    for doing in whats
                    for side in SIDES
                ):
                    status.update(f"{each}, {shape.num_nodes:,} nodes: {job.what}, {job.side}")
                    row = {"graph": each, "part": size, "nodes": shape.num_nodes}
                    row |= {"edges": shape.num_edges, "model": title}
                    rows.append({**row, "what": job.what, "side": job.side, **run(job, limit)})
            found = {"setting": about, "growth": growth(rows), "rows": rows}
            write_whole(results / f"{name}.json", (json.dumps(found, indent=1) + "\n").encode())
            write_whole(results / f"{name}.md", to_markdown(rows, about).encode())
            write_figure(images / f"{name}.png", growth_figure(rows, title))
    typer.echo(to_markdown(rows, about))


def _known(names: Collection[str] | None, all_of: Collection[str], what: str) -> list[str]:
    for name in names or ():
        if name not in all_of:
            raise ValueError(f"There is no {what} '{name}'; there are {', '.join(all_of)}")
    return list(names or all_of)


if __name__ == "__main__":
    main(command_line(__doc__, scale))

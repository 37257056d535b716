import os
from itertools import product
from typing import Annotated

import typer
from rich.console import Console

from bitgnn.cli import options
from bitgnn.cli.output import print_table, write_json
from bitgnn.experiment.speed import Case, Failed, race, setting, speed_table
from bitgnn.files import check_writable
from bitgnn.kernels import native

Datasets = Annotated[
    list[str],
    typer.Option(
        "--dataset",
        metavar="NAME...",
        help="Data sets; arxiv, a random graph of that size (takes 6 GiB); request, the "
        "neighbourhood of one node.",
    ),
]


def bench(
    dataset: Datasets,
    model: options.Models,
    layers: Annotated[int, typer.Option(min=1)] = 2,
    hidden: Annotated[int, typer.Option(min=1, help="The hidden width.")] = 64,
    heads: Annotated[int, typer.Option(min=1, help="Of GAT.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Else one a core.")] = None,
    seconds: Annotated[float, typer.Option(help="How long each comparison may take.")] = 30.0,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Whether torch.compile takes part.")
    ] = True,
    json: options.Json = None,
    root: options.Root = None,
) -> None:
    """Time packed models on this machine, beside PyG's 32-bit ones run in every way PyG has.

    Weights are random: time does not depend on them. Each way runs by itself first, then the
    fastest of them and packed models take turns.

    \b
    Examples:
      bitgnn bench --dataset Digits --model gcn
      bitgnn bench --dataset Cora PubMed --model gcn sage gat mlp
      bitgnn bench --dataset arxiv request --model gcn --layers 3 --hidden 256
    """
    if not native.enabled():
        raise ValueError(f"There is nothing to time: native kernels are {native.status()}")
    if json is not None:
        check_writable(json)
    threads = threads or len(os.sched_getaffinity(0))
    rows = []
    console = Console(stderr=True)
    with console.status("") as status:
        for graph, name in product(dataset, model):
            case = Case(name, graph, layers, hidden, heads)
            try:
                result = race(case, threads, root, compiled, seconds, status.update)
            except Failed as error:
                raise ValueError(str(error)) from None
            rows.append(result.row())
    if json is not None:  # Before the output, whose reader may leave early.
        write_json(json, rows)
    print_table(speed_table(rows))
    about = setting(threads, seconds)
    print(f"{threads} threads, {about['machine']}, torch {about['torch']}")

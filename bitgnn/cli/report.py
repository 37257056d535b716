from pathlib import Path
from typing import Annotated

from typer import Option

from bitgnn.cli import options
from bitgnn.cli.output import print_comparison, write_json
from bitgnn.experiment.compare import stored_comparison

Names = Annotated[list[str] | None, Option(metavar="NAME...", help="Only these; else all.")]


def report(
    store: options.StoreFile = None,
    out: options.Out = Path("bitgnn-report"),
    dataset: Names = None,
    model: Names = None,
    precision: Names = None,
    split: options.Split = None,
    json: options.Json = None,
) -> None:
    """Write the report of what a store holds, without training.

    \b
    Examples:
      bitgnn report
      bitgnn report --store results.sqlite --dataset Cora --model gcn gat --out cora
    """
    comparison = stored_comparison(
        store, out, dataset=dataset, model=model, precision=precision, split_kind=split
    )
    if json is not None:  # Before the output, whose reader may leave early.
        write_json(json, comparison.rows)
    print_comparison(comparison)
    print(f"Report: {comparison.report}")

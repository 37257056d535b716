import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bitgnn.experiment.compare import Comparison
from bitgnn.experiment.format import memory, metric_name, share
from bitgnn.experiment.table import ComparisonTable
from bitgnn.files import write_whole


def print_comparison(comparison: Comparison) -> None:
    """Prints the table of a comparison, and how much of it is new."""
    Console().print(ComparisonTable(comparison.rows))
    stored = len(comparison.records) - comparison.num_trained
    print(f"{comparison.num_trained} runs trained now, {stored} taken from the store")
    for failure in comparison.failures:
        print(failure)
    if comparison.failures:
        count = len(comparison.failures)
        print(f"{count} run{'s' * (count > 1)} failed: the same command tries again")


def print_record(record: dict[str, Any]) -> None:
    """Prints what a single run came to."""
    cost = record["cost"]
    if record["diverged"]:
        print(f"Diverged after epoch {record['epochs']}: a lower lr may help (--set lr=0.001)")
    else:
        print(
            f"Test {metric_name(record['metric'])} {record['test']:.2f} % "
            f"(validation {record['val']:.2f} %) at epoch {record['best_epoch']} of "
            f"{record['epochs']}, {record['seconds']:.1f} s"
        )
    zeros = "" if cost["zeros"] is None else f", {share(cost['zeros'])} zeros"
    size = f"{memory(cost['weight_bytes'])} (32-bit: {memory(cost['weight_bytes_fp32'])})"
    print(f"Weights {size}{zeros}")


def print_table(table: Table) -> None:
    """Prints a table; into a file or a pipe without breaking lines."""
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    console.print(table, highlight=False)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, under a temporary name first."""
    write_whole(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())

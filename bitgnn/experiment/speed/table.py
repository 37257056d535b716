"""Races as tables."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.table import Table

from bitgnn.experiment.passport import passport

Row = dict[str, Any]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _times(value: float) -> str:
    return f"{value:.1f}x"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row["model"],
    "graph": lambda row: row["graph"],
    "bitgnn, ms": lambda row: _ms(row["ours_ms"]),
    "PyG's fastest": lambda row: row["fastest_path"],
    "ms": lambda row: _ms(row["fastest_ms"]),
    "ratio": lambda row: _times(row["vs_fastest"]),
    "edge_index, ms": lambda row: _ms(row["edge_index_ms"]),
    "ratio to it": lambda row: _times(row["vs_edge_index"]),
    "bitgnn 32-bit, ms": lambda row: _ms(row["fp32_fused_ms"]),
    "by quantization": lambda row: _times(row["vs_fp32_fused"]),
    "by kernels": lambda row: _times(row["vs_fastest"] / row["vs_fp32_fused"]),
    "peak, MiB": lambda row: _mib(row["peak_mib"]),
    "PyG's leanest": lambda row: _mib(row["leanest_peak_mib"]),
    "prepare, ms": lambda row: _ms(row["prepare_ms"]),
}
LEFT = ("model", "graph", "PyG's fastest")
FOOTNOTE = (
    "Medians of rounds in which all sides take turns, each in a process of its own; a turn begins "
    "with an untimed call, unless a call takes 3 s; ratios are medians of ratios of the same round."
    " 'bitgnn' is the packed model, and 'bitgnn 32-bit' the "
    "same kernels with numbers of 32 bits: the ratio to it is what quantization brings, the rest "
    "is what the kernels bring. Peak memory is above that of model and inputs. To prepare a graph"
    " is not part of a call, but where each call gets a new one (request). A training step "
    "(forward, backward, Adam; all nodes) is that of bitgnn's layers on a sparse matrix, with "
    "freed memory retained; 32 bits are its layers with quant=None."
)


def speed_table(rows: Sequence[Row]) -> Table:
    r"""Returns races as a table for the terminal.

    Args:
        rows (list[dict]): Their rows.
    """
    table = Table(box=None, pad_edge=False, caption=FOOTNOTE, caption_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in LEFT else "right")
    for row in rows:
        table.add_row(*(cell(row) for cell in COLUMNS.values()))
    return table


def setting(threads: int, seconds: float) -> dict[str, Any]:
    r"""Returns under what conditions a race took place.

    Args:
        threads (int): The number of threads.
        seconds (float): How long the rounds of a race could take.
    """
    return {
        **passport(),
        "threads": threads,
        "seconds": seconds,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }

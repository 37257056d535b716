"""1.58-bit (ternary-weight) graph neural networks for PyTorch Geometric."""

__version__ = "0.1.0"

import bitgnn.imports  # noqa: F401 - before what imports PyG
from bitgnn.checks import check
from bitgnn.data import task
from bitgnn.experiment import compare
from bitgnn.nn import convert, set_strength
from bitgnn.packed import load, pack, prepare
from bitgnn.quant import QuantConfig, StrengthSchedule

__all__ = [
    "QuantConfig",
    "StrengthSchedule",
    "check",
    "compare",
    "convert",
    "load",
    "pack",
    "prepare",
    "set_strength",
    "task",
]

"""1.58-bit (ternary-weight) graph neural networks for PyTorch Geometric."""

from bitgnn.data import task
from bitgnn.nn import convert, set_strength
from bitgnn.quant import QuantConfig, StrengthSchedule

__version__ = "0.1.0"

__all__ = ["QuantConfig", "StrengthSchedule", "convert", "set_strength", "task"]

"""The operators on which layers stand; :mod:`bitgnn.kernels.reference` is the oracle."""

from bitgnn.kernels.blockwise import blockwise_linear, pays_blockwise
from bitgnn.kernels.linear import quantized_linear

__all__ = ["blockwise_linear", "pays_blockwise", "quantized_linear"]

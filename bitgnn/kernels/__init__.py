"""The operators on which layers stand; :mod:`bitgnn.kernels.reference` is the oracle."""

from bitgnn.kernels.linear import quantized_linear

__all__ = ["quantized_linear"]

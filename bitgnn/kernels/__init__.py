"""The operators on which layers stand; :mod:`bitgnn.kernels.reference` is the oracle."""

from bitgnn.kernels import attention_ops  # noqa: F401  It registers an operator.
from bitgnn.kernels.attention import graph_attention, with_self_loops
from bitgnn.kernels.blockwise import blockwise_linear, pays_blockwise
from bitgnn.kernels.dropout import Dropout, dropout
from bitgnn.kernels.linear import dense_linear, quantized_linear
from bitgnn.kernels.memo import Fingerprint, Memo, promises, static_inputs, vouch
from bitgnn.kernels.rows import quantize_rows
from bitgnn.kernels.sparse import is_fast, sparse_product, with_values
from bitgnn.kernels.spmm import spmm
from bitgnn.kernels.weight import quantize_weight

__all__ = [
    "Dropout",
    "Fingerprint",
    "Memo",
    "blockwise_linear",
    "dense_linear",
    "dropout",
    "graph_attention",
    "is_fast",
    "pays_blockwise",
    "promises",
    "quantize_rows",
    "quantize_weight",
    "quantized_linear",
    "sparse_product",
    "spmm",
    "static_inputs",
    "vouch",
    "with_self_loops",
    "with_values",
]

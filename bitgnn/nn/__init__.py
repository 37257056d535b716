"""Ternary layers and models for PyTorch Geometric."""

from bitgnn.kernels import static_inputs
from bitgnn.nn.conv import BitGATConv, BitGCNConv, BitSAGEConv, BitSGConv
from bitgnn.nn.convert import convert, set_strength
from bitgnn.nn.embedding_bag import BitEmbeddingBag
from bitgnn.nn.hetero_linear import BitHeteroLinear
from bitgnn.nn.layerwise import layerwise_inference
from bitgnn.nn.linear import BitLinear
from bitgnn.nn.models import BitGAT, BitGCN, BitGraphSAGE, BitMLP, BitSGC, BitWideMLP

__all__ = [
    "BitEmbeddingBag",
    "BitGAT",
    "BitGATConv",
    "BitGCN",
    "BitGCNConv",
    "BitGraphSAGE",
    "BitHeteroLinear",
    "BitLinear",
    "BitMLP",
    "BitSAGEConv",
    "BitSGC",
    "BitSGConv",
    "BitWideMLP",
    "convert",
    "layerwise_inference",
    "set_strength",
    "static_inputs",
]

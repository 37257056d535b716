"""Models of ternary layers; each also runs in full precision with :obj:`quant=None`."""

from bitgnn.nn.models.basic_gnn import BitGAT, BitGCN, BitGraphSAGE
from bitgnn.nn.models.mlp import BitMLP
from bitgnn.nn.models.sgc import BitSGC
from bitgnn.nn.models.wide_mlp import BitWideMLP

__all__ = ["BitGAT", "BitGCN", "BitGraphSAGE", "BitMLP", "BitSGC", "BitWideMLP"]

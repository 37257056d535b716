"""Ternary twins of PyG's convolutions: its constructors plus :obj:`quant=`."""

from bitgnn.nn.conv.gat import BitGATConv
from bitgnn.nn.conv.gcn import BitGCNConv
from bitgnn.nn.conv.sage import BitSAGEConv
from bitgnn.nn.conv.sg import BitSGConv

__all__ = ["BitGATConv", "BitGCNConv", "BitSAGEConv", "BitSGConv"]

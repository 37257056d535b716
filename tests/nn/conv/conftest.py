from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv, SAGEConv, SGConv

# PyG compiles a class when it is first built. Its own layers come first here, before any test
# runs, as where both sides of a comparison are trained: what ours inherit is compiled already.
for conv in (GATConv, GCNConv, SAGEConv, SGConv):
    conv(1, 1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(12345)


def _ternary(weight: Tensor) -> Tensor:
    scale = weight.abs().mean()
    return (weight / scale).round().clamp(-1, 1) * scale


def _rows(x: Tensor) -> Tensor:
    scale = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=1e-8)
    return (x / scale).round() * scale


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out = _rows(x) @ _ternary(weight).t()
    return out if bias is None else out + bias


def _gcn_adjacency(edge_index: Tensor, num_nodes: int, weight: Tensor | None = None) -> Tensor:
    weight = torch.ones(edge_index.size(1)) if weight is None else weight
    adj = torch.eye(num_nodes).index_put((edge_index[1], edge_index[0]), weight, accumulate=True)
    norm = adj.sum(dim=1).rsqrt()
    return norm.view(-1, 1) * adj * norm


@pytest.fixture
def oracle() -> SimpleNamespace:
    """The mathematics of the preset "b158" on dense matrices, as the formulas read."""
    return SimpleNamespace(
        ternary=_ternary, rows=_rows, linear=_linear, gcn_adjacency=_gcn_adjacency
    )

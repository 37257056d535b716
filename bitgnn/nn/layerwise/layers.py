r"""Convolutions in two halves: what is done with each row by itself, and then with the edges of a
range of targets. So nothing is computed twice, although many targets read the same source."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch_geometric.nn import (
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    MessagePassing,
    SAGEConv,
    SGConv,
)

from bitgnn.kernels import graph_attention, spmm
from bitgnn.nn.conv import BitGATConv, BitGCNConv, BitSAGEConv, BitSGConv
from bitgnn.nn.layerwise.edges import Block, EdgesByTarget, Range

# Exactly these types: a subclass may send other messages.
GCN, SAGE, GAT = (GCNConv, BitGCNConv), (SAGEConv, BitSAGEConv), (GATConv, BitGATConv)
SGC, BIPARTITE = (SGConv, BitSGConv), (GATv2Conv, GINConv, EdgeConv)
REDUCTIONS = ("sum", "add", "mean", "max", "min")


class Layer:
    r"""A convolution in two halves, on the device of what they are given."""

    loops: bool = False  # whether each node has exactly one edge to itself
    fill: float | None = None  # the weight of that edge, where the graph has none

    def rows(self, x: Tensor, nodes: Range) -> tuple[Tensor, ...]:
        r"""Returns, row by row, what is read of the nodes: first what is read over edges.

        Args:
            x (torch.Tensor): The rows of some nodes.
            nodes (Range): Which these are.
        """
        raise NotImplementedError

    def edges(
        self, block: Block, sources: tuple[Tensor, ...], targets: tuple[Tensor, ...]
    ) -> Tensor:
        r"""Returns the rows of targets.

        Args:
            block (Block): Their edges.
            sources (tuple): What :meth:`rows` has made of all rows that the edges start from.
            targets (tuple): What it has made of the targets.
        """
        raise NotImplementedError


class Propagation(Layer):
    r"""The sum over edges with the normalization of GCN, :math:`\mathbf{\hat{D}}^{-1/2}
    \mathbf{\hat{A}} \mathbf{\hat{D}}^{-1/2}`, of rows that a linear map comes before: one number a
    node instead of one an edge, of degrees in the whole graph.

    Args:
        conv (GCNConv or SGConv): The convolution.
        graph (EdgesByTarget): The whole graph.
        batch_size (int): The targets whose edges are looked at together.
        lin (torch.nn.Module, optional): The linear map. (default: :obj:`None`)
        bias (torch.Tensor, optional): The bias behind the sum. (default: :obj:`None`)
    """

    def __init__(
        self,
        conv: MessagePassing,
        graph: EdgesByTarget,
        batch_size: int,
        lin: Module | None = None,
        bias: Tensor | None = None,
    ) -> None:
        self.lin, self.bias = lin, bias
        normalize = getattr(conv, "normalize", True)
        self.loops = normalize and conv.add_self_loops
        # Of edges without weights, unless they are a matrix, PyG fills with 1, `improved` or not.
        has_weights = graph.weight is not None or graph.is_matrix
        improved = getattr(conv, "improved", False) and has_weights
        self.fill = 2.0 if improved else 1.0
        self.factor: Tensor | None = None
        if normalize:
            self.factor = graph.normalization(batch_size, self.loops, self.fill)

    def rows(self, x: Tensor, nodes: Range) -> tuple[Tensor, ...]:
        x = x if self.lin is None else self.lin(x)
        return (self._scaled(x, nodes),)

    def edges(
        self, block: Block, sources: tuple[Tensor, ...], targets: tuple[Tensor, ...]
    ) -> Tensor:
        (x,) = sources
        out = self._scaled(spmm(block.matrix(x.size(0), x.dtype), x), block.targets)
        return out if self.bias is None else out + self.bias

    def _scaled(self, x: Tensor, nodes: Range) -> Tensor:
        if self.factor is None:
            return x
        return x * self.factor[nodes.slice].view(-1, 1).to(x.device, x.dtype)


class Neighborhood(Layer):
    r"""The two halves of :class:`~torch_geometric.nn.SAGEConv`: rows are quantized once, not once
    for each that reads them.

    Args:
        conv (SAGEConv): The convolution.
    """

    def __init__(self, conv: SAGEConv) -> None:
        self.conv = conv

    def rows(self, x: Tensor, nodes: Range) -> tuple[Tensor, ...]:
        conv = self.conv
        pair = (conv.lin(x).relu() if conv.project else x, x)
        if getattr(conv, "quant", None) is not None:
            pair = conv._quantize(pair)
        return pair[:1] if pair[0] is pair[1] else pair

    def edges(
        self, block: Block, sources: tuple[Tensor, ...], targets: tuple[Tensor, ...]
    ) -> Tensor:
        conv, x = self.conv, sources[0]
        out = conv.lin_l(spmm(block.matrix(x.size(0), x.dtype), x, conv.aggr))
        if conv.root_weight:
            out = out + conv.lin_r(targets[-1])
        return F.normalize(out, p=2.0, dim=-1) if conv.normalize else out


class Attention(Layer):
    r"""The two halves of :class:`~torch_geometric.nn.GATConv`, without a tensor of edges times
    channels.

    Args:
        conv (GATConv): The convolution.
    """

    def __init__(self, conv: GATConv) -> None:
        self.conv, self.loops = conv, conv.add_self_loops

    def rows(self, x: Tensor, nodes: Range) -> tuple[Tensor, ...]:
        conv = self.conv
        h = conv.lin(x)
        by_head = h.view(-1, conv.heads, conv.out_channels)
        scores = [(by_head * att).sum(dim=-1) for att in (conv.att_src, conv.att_dst)]
        return (h, *scores) if conv.res is None else (h, *scores, conv.res(x))

    def edges(
        self, block: Block, sources: tuple[Tensor, ...], targets: tuple[Tensor, ...]
    ) -> Tensor:
        conv = self.conv
        h = sources[0].view(-1, conv.heads, conv.out_channels)
        matrix = block.matrix(h.size(0), h.dtype)
        out = graph_attention(matrix, h, sources[1], targets[2], conv.negative_slope)
        out = out.flatten(start_dim=1) if conv.concat else out.mean(dim=1)
        out = out if conv.res is None else out + targets[3]
        return out if conv.bias is None else out + conv.bias


class Bipartite(Layer):
    r"""Any convolution that takes other sources than targets, called as a whole: rows that several
    ranges read are computed anew for each.

    Args:
        conv (MessagePassing): The convolution.
    """

    def __init__(self, conv: MessagePassing) -> None:
        self.conv = conv

    def rows(self, x: Tensor, nodes: Range) -> tuple[Tensor, ...]:
        return (x,)

    def edges(
        self, block: Block, sources: tuple[Tensor, ...], targets: tuple[Tensor, ...]
    ) -> Tensor:
        return self.conv((sources[0], targets[0]), block.edge_index())


def layer_of(
    conv: Any, graph: EdgesByTarget, batch_size: int, name: str, device: torch.device
) -> Layer:
    r"""Returns the two halves of a convolution.

    Args:
        conv (torch.nn.Module): The convolution.
        graph (EdgesByTarget): The whole graph.
        batch_size (int): The targets whose edges are looked at together.
        name (str): Its name in the model.
        device (torch.device): Where it runs.

    Raises:
        ValueError: If there are none.
    """
    kind, flow = type(conv), getattr(conv, "flow", None)
    if flow == "target_to_source":
        raise ValueError(f"'{name}' sends messages against edges (flow='{flow}'): turn the edges")
    if kind in GCN and conv.aggr == "add":
        return Propagation(conv, graph, batch_size, conv.lin, conv.bias)
    if graph.weight is not None and kind in (*SAGE, *GAT, *BIPARTITE):
        raise ValueError(f"'{name}' ({kind.__name__}) takes no weights of edges: leave them")
    if kind in SAGE and conv.aggr in REDUCTIONS:
        return Neighborhood(conv)
    if kind in GAT and conv.lin is not None and conv.aggr == "add" and device.type == "cpu":
        return Attention(conv)
    # PyG's LSTM needs an edge at least, which a range may not have.
    if kind in (*SAGE, *GAT, *BIPARTITE) and conv.aggr != "lstm":
        return Bipartite(conv)
    known = ", ".join(each[0].__name__ for each in (GCN, SAGE, GAT, SGC))
    known += ", " + ", ".join(each.__name__ for each in BIPARTITE)
    raise ValueError(
        f"'{name}' ({kind.__name__}, aggr='{getattr(conv, 'aggr', None)}') cannot be run on a "
        f"range of nodes; what can are {known} with their own aggregations, and their ternary "
        "twins. Call the model on the whole graph"
    )

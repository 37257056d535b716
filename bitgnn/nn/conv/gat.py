from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import GATConv, MessagePassing
from torch_geometric.typing import Adj, OptPairTensor, OptTensor, Size

from bitgnn.kernels import graph_attention, is_fast, with_self_loops
from bitgnn.nn.altered import sends_messages_of
from bitgnn.nn.conv.entry import ChecksAdjacency
from bitgnn.nn.twin import quantize_children
from bitgnn.quant import Quant, resolve_quant


class BitGATConv(ChecksAdjacency, GATConv):
    r"""The ternary twin of :class:`torch_geometric.nn.GATConv`, from `"Graph
    Attention Networks" <https://arxiv.org/abs/1710.10903>`_,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i) \cup \{ i \}}
        \alpha_{i,j} \mathbf{h}_j + \mathbf{b}, \quad
        \mathbf{h}_j = (\mathbf{x}_{q,j} \mathbf{W}_q^{\top}) \, s_{x,j} s_w.

    All linear maps are ternary: of source and target nodes, of edge features
    and of the residual. The attention vectors :math:`\mathbf{a}`, which score
    :math:`\alpha_{i,j}`, stay in 32 bits.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to
            derive the size from the first input(s) to the forward method.
            A tuple corresponds to the sizes of source and target
            dimensionalities in case of a bipartite graph.
        out_channels (int): Size of each output sample.
        *args (optional): Further arguments of
            :class:`torch_geometric.nn.GATConv`, in its order.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's layer. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.GATConv`.

    Shapes:
        As in :class:`torch_geometric.nn.GATConv`.
    """

    # PyG compiles them for each class, from what the class has. What it inherits may be
    # compiled already, without the parts that explanations need.
    propagate = MessagePassing.propagate
    edge_updater = MessagePassing.edge_updater

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        *args: Any,
        quant: Quant = "b158",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, *args, **kwargs)
        self.quant = resolve_quant(quant)
        quantize_children(self, self.quant)

    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: Adj,
        edge_attr: OptTensor = None,
        size: Size = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        plain = edge_attr is None and size is None and return_attention_weights is None
        if plain and self._attends(x, edge_index):
            return self._attend(x, edge_index)
        return super().forward(x, edge_index, edge_attr, size, return_attention_weights)

    def _attends(self, x: Tensor | OptPairTensor, adj_t: Adj) -> bool:
        """Whether :func:`bitgnn.kernels.graph_attention` computes what is asked for."""
        return (
            isinstance(adj_t, Tensor)
            and is_fast(adj_t)
            and isinstance(x, Tensor)
            and x.dim() == 2
            and adj_t.size(0) == adj_t.size(1) == x.size(0)
            and self.lin is not None
            and self.edge_dim is None
            and (self.aggr, self.flow) == ("add", "source_to_target")
            and sends_messages_of(self, BitGATConv)
        )

    def _attend(self, x: Tensor, adj_t: Tensor) -> Tensor:
        h = self.lin(x)
        score_src, score_dst = self._scores(h)
        adj_t = with_self_loops(adj_t) if self.add_self_loops else adj_t
        out = graph_attention(
            adj_t,
            h.view(-1, self.heads, self.out_channels).to(score_src.dtype),
            score_src,
            score_dst,
            self.negative_slope,
            self.dropout,
            self.training,
        )
        out = out.flatten(start_dim=1) if self.concat else out.mean(dim=1)
        out = out if self.res is None else out + self.res(x)
        return out if self.bias is None else out + self.bias

    def _scores(self, h: Tensor) -> tuple[Tensor, Tensor]:
        # Of all heads and both sides at once: a product with the attention vectors as the blocks
        # of a diagonal.
        heads = torch.eye(self.heads, dtype=h.dtype).view(-1, self.heads, 1)
        src, dst = ((heads * att).flatten(start_dim=1) for att in (self.att_src, self.att_dst))
        return h @ src.t(), h @ dst.t()

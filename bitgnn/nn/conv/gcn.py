from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.typing import Adj

from bitgnn.kernels import spmm, vouch
from bitgnn.nn.altered import is_fused
from bitgnn.nn.conv.entry import ChecksAdjacency
from bitgnn.nn.twin import quantize_children
from bitgnn.quant import Quant, resolve_quant


class BitGCNConv(ChecksAdjacency, GCNConv):
    r"""The ternary twin of :class:`torch_geometric.nn.GCNConv`, from
    `"Semi-supervised Classification with Graph Convolutional Networks"
    <https://arxiv.org/abs/1609.02907>`_,

    .. math::
        \mathbf{X}^{\prime} = \mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}}
        \mathbf{\hat{D}}^{-1/2} \, (\mathbf{X}_q \mathbf{W}_q^{\top}) \,
        \mathbf{s}_x s_w + \mathbf{b}.

    The aggregation is linear: inference may as well aggregate the 8-bit rows
    :math:`\mathbf{X}_q \mathbf{s}_x` first and multiply afterwards.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            the size from the first input(s) to the forward method.
        out_channels (int): Size of each output sample.
        *args (optional): Further arguments of
            :class:`torch_geometric.nn.GCNConv`, in its order.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's layer. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.GCNConv`.

    Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F_{in})`, dense or sparse,
          edge indices :math:`(2, |\mathcal{E}|)`
          or sparse matrix :math:`(|\mathcal{V}|, |\mathcal{V}|)`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*
        - **output:** node features :math:`(|\mathcal{V}|, F_{out})`
    """

    # PyG compiles it for each class, from what the class has. What it inherits may be
    # compiled already, without the parts that explanations need.
    propagate = MessagePassing.propagate

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *args: Any,
        quant: Quant = "b158",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, *args, **kwargs)
        self.quant = resolve_quant(quant)
        quantize_children(self, self.quant)
        self.fuse = is_fused(self, BitGCNConv)

    def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self._vouch(adj_t)
        return spmm(adj_t, x, reduce=self.aggr)

    @torch.jit.unused
    def _vouch(self, adj_t: Adj) -> None:
        # With self-loops, the normalized matrix shares no memory with the caller's.
        if adj_t is self._cached_adj_t and self.add_self_loops and isinstance(adj_t, Tensor):
            vouch(adj_t)

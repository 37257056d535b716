from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing, SGConv
from torch_geometric.typing import Adj

from bitgnn.kernels import spmm, vouch
from bitgnn.nn.altered import is_fused
from bitgnn.nn.conv.entry import ChecksAdjacency
from bitgnn.nn.twin import quantize_children
from bitgnn.quant import Quant, resolve_quant


class BitSGConv(ChecksAdjacency, SGConv):
    r"""The ternary twin of :class:`torch_geometric.nn.SGConv`, from
    `"Simplifying Graph Convolutional Networks"
    <https://arxiv.org/abs/1902.07153>`_,

    .. math::
        \mathbf{X}^{\prime} = (\mathbf{H}_q \mathbf{W}_q^{\top}) \,
        \mathbf{s}_h s_w + \mathbf{b}, \quad
        \mathbf{H} = {\left(\mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}}
        \mathbf{\hat{D}}^{-1/2} \right)}^K \mathbf{X}.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            the size from the first input(s) to the forward method.
        out_channels (int): Size of each output sample.
        *args (optional): Further arguments of
            :class:`torch_geometric.nn.SGConv`, in its order.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's layer. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.SGConv`.

    Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F_{in})`,
          edge indices :math:`(2, |\mathcal{E}|)`,
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
        self.fuse = is_fused(self, BitSGConv)

    def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
        out = spmm(adj_t, x, reduce=self.aggr)
        if not torch.jit.is_scripting():
            self._vouch(out)
        return out

    @torch.jit.unused
    def _vouch(self, out: Tensor) -> None:
        if self.cached:  # The layer keeps it to itself.
            vouch(out)

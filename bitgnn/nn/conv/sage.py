from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing, SAGEConv
from torch_geometric.typing import Adj, OptPairTensor, Size, SparseTensor

from bitgnn.kernels import spmm
from bitgnn.nn.altered import is_fused
from bitgnn.nn.conv.entry import ChecksAdjacency
from bitgnn.nn.linear import BitLinear
from bitgnn.nn.rows import RowQuantizer
from bitgnn.nn.static import StaticMemo
from bitgnn.nn.twin import quantize_children
from bitgnn.quant import Quant, resolve_quant


class BitSAGEConv(ChecksAdjacency, SAGEConv):
    r"""The ternary twin of :class:`torch_geometric.nn.SAGEConv`, from
    `"Inductive Representation Learning on Large Graphs"
    <https://arxiv.org/abs/1706.02216>`_,

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{W}_{1} Q \left( \mathrm{mean}_{j \in
        \mathcal{N}(i)} Q(\mathbf{x}_j) \right) + \mathbf{W}_{2}
        Q(\mathbf{x}_i),

    with ternary :math:`\mathbf{W}_1`, :math:`\mathbf{W}_2` and the row
    quantizer :math:`Q(\mathbf{x}) = \mathbf{x}_q s_x`. Input rows are quantized
    once and shared by both branches, and the aggregate is quantized again, so
    that inference gathers 8-bit rows and multiplies integers. What an
    aggregation learns itself, such as an LSTM, stays in 32 bits.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to
            derive the size from the first input(s) to the forward method.
            A tuple corresponds to the sizes of source and target
            dimensionalities.
        out_channels (int): Size of each output sample.
        *args (optional): Further arguments of
            :class:`torch_geometric.nn.SAGEConv`, in its order.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's layer. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.SAGEConv`.

    Shapes:
        As in :class:`torch_geometric.nn.SAGEConv`.
    """

    # PyG compiles it for each class, from what the class has. What it inherits may be
    # compiled already, without the parts that explanations need.
    propagate = MessagePassing.propagate

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
        self.fuse = is_fused(self, BitSAGEConv)
        self._aggregates: StaticMemo[Tensor] = StaticMemo()
        if self.quant is not None:
            self._rows_l, self._rows_r = RowQuantizer(self.quant), RowQuantizer(self.quant)
            if self.root_weight:
                # What reaches `lin_r` has been quantized already.
                shared = self.quant.replace(activation_bits=None, layer_norm=False)
                self.lin_r: BitLinear = BitLinear.from_linear(self.lin_r, shared)

    def forward(
        self,
        x: Tensor | OptPairTensor,
        edge_index: Adj,
        size: Size = None,
    ) -> Tensor:
        if isinstance(x, Tensor):
            x = (x, x)

        if self.project and hasattr(self, "lin"):
            x = (self.lin(x[0]).relu(), x[1])

        # TorchScript can't compile `self.quant`, so that a nested `if` keeps it out of sight.
        if not torch.jit.is_scripting():  # noqa: SIM102
            if self.quant is not None:
                x = self._quantize(x)

        # propagate_type: (x: OptPairTensor)
        out = self.propagate(edge_index, x=x, size=size)
        out = self.lin_l(out)

        x_r = x[1]
        if self.root_weight and x_r is not None:
            out = out + self.lin_r(x_r)

        if self.normalize:
            out = F.normalize(out, p=2.0, dim=-1)

        return out

    def message_and_aggregate(self, adj_t: Adj, x: OptPairTensor) -> Tensor:
        if isinstance(adj_t, SparseTensor):
            adj_t = adj_t.set_value(None, layout=None)
        elif not torch.jit.is_scripting():
            return self._aggregate(adj_t, x[0])
        return spmm(adj_t, x[0], reduce=self.aggr)

    @torch.jit.unused
    def _aggregate(self, adj_t: Tensor, x: Tensor) -> Tensor:
        # In full-batch training, what the first layer aggregates never changes.
        return self._aggregates(
            x, lambda x: spmm(adj_t, x, reduce=self.aggr), self.training, beside=adj_t
        )

    @torch.jit.unused
    def _quantize(self, x: OptPairTensor) -> OptPairTensor:
        strength = self.lin_l.strength
        x_l, _ = self._rows_l.rescaled(x[0], strength, self.training)
        if x[1] is None or x[1] is x[0]:
            return x_l, (None if x[1] is None else x_l)
        x_r, _ = self._rows_r.rescaled(x[1], strength, self.training)
        return x_l, x_r

from typing import Any

from torch_geometric.nn import GATConv, MessagePassing

from bitgnn.nn.twin import quantize_children
from bitgnn.quant import Quant, resolve_quant


class BitGATConv(GATConv):
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

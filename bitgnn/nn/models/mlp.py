from typing import Any

from torch_geometric.nn import MLP

from bitgnn.nn.twin import quantize_children
from bitgnn.quant import Quant, resolve_quant


class BitMLP(MLP):
    r"""The ternary twin of :class:`torch_geometric.nn.MLP`, made of
    :class:`bitgnn.nn.BitLinear`.

    Args:
        *args (optional): Arguments of :class:`torch_geometric.nn.MLP`.
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's model. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.MLP`.
    """

    def __init__(self, *args: Any, quant: Quant = "b158", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quant = resolve_quant(quant)
        quantize_children(self.lins, self.quant)

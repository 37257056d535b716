from typing import Any

from torch_geometric.nn import GAT, GCN, GATv2Conv, GraphSAGE, MessagePassing

from bitgnn.nn.conv import BitGATConv, BitGCNConv, BitSAGEConv
from bitgnn.nn.twin import quantize_children
from bitgnn.quant import Quant, resolve_quant


class _BitGNN:
    """What turns a :class:`~torch_geometric.nn.models.BasicGNN` into a ternary one: all
    layers get :obj:`quant`, the linear map behind jumping knowledge too. What scores the
    layers in :obj:`jk="lstm"` stays in 32 bits, as attention does elsewhere."""

    def __init__(self, *args: Any, quant: Quant = "b158", **kwargs: Any) -> None:
        config = resolve_quant(quant)
        super().__init__(*args, quant=config, **kwargs)  # type: ignore[call-arg]
        self.quant = config
        quantize_children(self, config)  # type: ignore[arg-type]


class BitGCN(_BitGNN, GCN):
    r"""The ternary twin of :class:`torch_geometric.nn.GCN`, made of
    :class:`bitgnn.nn.BitGCNConv`.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            the size from the first input(s) to the forward method.
        hidden_channels (int): Size of each hidden sample.
        num_layers (int): Number of message passing layers.
        out_channels (int, optional): Size of each output sample.
            (default: :obj:`None`, :obj:`hidden_channels`)
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's model. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.GCN`.
    """

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> MessagePassing:
        return BitGCNConv(in_channels, out_channels, **kwargs)


class BitGraphSAGE(_BitGNN, GraphSAGE):
    r"""The ternary twin of :class:`torch_geometric.nn.GraphSAGE`, made of
    :class:`bitgnn.nn.BitSAGEConv`.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to
            derive the size from the first input(s) to the forward method.
            A tuple corresponds to the sizes of source and target
            dimensionalities.
        hidden_channels (int): Size of each hidden sample.
        num_layers (int): Number of message passing layers.
        out_channels (int, optional): Size of each output sample.
            (default: :obj:`None`, :obj:`hidden_channels`)
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's model. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.GraphSAGE`.
    """

    def init_conv(
        self, in_channels: int | tuple[int, int], out_channels: int, **kwargs: Any
    ) -> MessagePassing:
        return BitSAGEConv(in_channels, out_channels, **kwargs)


class BitGAT(_BitGNN, GAT):
    r"""The ternary twin of :class:`torch_geometric.nn.GAT`, made of
    :class:`bitgnn.nn.BitGATConv`, or of
    :class:`torch_geometric.nn.GATv2Conv` with ternary linears.

    Args:
        in_channels (int or tuple): Size of each input sample, or :obj:`-1` to
            derive the size from the first input(s) to the forward method.
            A tuple corresponds to the sizes of source and target
            dimensionalities.
        hidden_channels (int): Size of each hidden sample, all heads together.
        num_layers (int): Number of message passing layers.
        out_channels (int, optional): Size of each output sample.
            (default: :obj:`None`, :obj:`hidden_channels`)
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's model. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.GAT`, such as :obj:`heads` and
            :obj:`v2`.
    """

    def init_conv(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        v2: bool = False,
        quant: Quant = "b158",
        **kwargs: Any,
    ) -> MessagePassing:
        # The last layer averages its heads, as PyG's does.
        concat = concat and not getattr(self, "_is_conv_to_out", False)
        if concat and out_channels % heads != 0:
            raise ValueError(
                f"Ensure that the number of output channels of '{self.__class__.__name__}' "
                f"(got '{out_channels}') is divisible by the number of heads (got '{heads}')"
            )
        kwargs = {"heads": heads, "concat": concat, "dropout": self.dropout.p, **kwargs}
        out_channels = out_channels // heads if concat else out_channels
        if not v2:
            return BitGATConv(in_channels, out_channels, quant=quant, **kwargs)
        conv = GATv2Conv(in_channels, out_channels, **kwargs)
        quantize_children(conv, quant)
        return conv

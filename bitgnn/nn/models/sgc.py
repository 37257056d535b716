from typing import Any

from torch import Tensor
from torch.nn import Module
from torch_geometric.typing import Adj, OptTensor

from bitgnn.nn.conv import BitSGConv
from bitgnn.quant import Quant


class BitSGC(Module):
    r"""The model of `"Simplifying Graph Convolutional Networks"
    <https://arxiv.org/abs/1902.07153>`_: one ternary
    :class:`bitgnn.nn.BitSGConv`, a single linear map behind :obj:`K`
    propagation steps.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive
            the size from the first input(s) to the forward method.
        out_channels (int): Size of each output sample.
        K (int, optional): Number of propagation steps. (default: :obj:`2`)
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's layer. (default: :obj:`"b158"`)
        **kwargs (optional): Further arguments of
            :class:`torch_geometric.nn.SGConv`, such as :obj:`cached`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int = 2,
        quant: Quant = "b158",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.conv = BitSGConv(in_channels, out_channels, K=K, quant=quant, **kwargs)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters of the module."""
        self.conv.reset_parameters()

    def forward(self, x: Tensor, edge_index: Adj, edge_weight: OptTensor = None) -> Tensor:
        r"""Forward pass.

        Args:
            x (torch.Tensor): The input node features.
            edge_index (torch.Tensor or SparseTensor): The edge indices.
            edge_weight (torch.Tensor, optional): The edge weights.
                (default: :obj:`None`)
        """
        return self.conv(x, edge_index, edge_weight)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.conv.in_channels}, {self.conv.out_channels}, "
            f"K={self.conv.K})"
        )

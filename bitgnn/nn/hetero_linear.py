import itertools

import torch_geometric.nn
from torch import Tensor
from torch_geometric.nn.dense.linear import is_uninitialized_parameter

from bitgnn.nn.functional import bit_linear
from bitgnn.quant import Quant, QuantConfig, resolve_quant


class BitHeteroLinear(torch_geometric.nn.HeteroLinear):
    r"""A :class:`torch_geometric.nn.HeteroLinear` with ternary weights: one
    :class:`bitgnn.nn.BitLinear` for each type :math:`\kappa`,

    .. math::
        \mathbf{x}^{\prime}_{\kappa} = (\mathbf{x}_{q,\kappa}
        \mathbf{W}^{\top}_{q,\kappa}) \, s_x \, s_{w,\kappa} +
        \mathbf{b}_{\kappa}.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to
            initialize lazily.
        out_channels (int): Size of each output sample.
        num_types (int): The number of types.
        is_sorted (bool, optional): If set to :obj:`True`, assumes that
            :obj:`type_vec` is sorted. (default: :obj:`False`)
        quant (QuantConfig or str, optional): How to quantize; :obj:`None` is
            full precision, exactly PyG's layer. (default: :obj:`"b158"`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.Linear`.

    Shapes:
        - **input:**
          features :math:`(*, F_{in})`,
          type vector :math:`(*)`
        - **output:** features :math:`(*, F_{out})`

    Raises:
        ValueError: If :obj:`quant` adds the bias before the rescale.
    """

    quant: QuantConfig | None
    strength: float

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_types: int,
        is_sorted: bool = False,
        quant: Quant = "b158",
        **kwargs: object,
    ) -> None:
        super().__init__(in_channels, out_channels, num_types, is_sorted, **kwargs)
        self.quant, self.strength = resolve_quant(quant), 1.0
        if self.quant is not None and self.quant.rescale_bias:
            raise ValueError(
                f"'{self.__class__.__name__}' adds its bias after the rescale; use a "
                f"configuration with 'rescale_bias=False' (got {self.quant})"
            )

    @classmethod
    def from_linear(
        cls,
        linear: torch_geometric.nn.HeteroLinear,
        quant: Quant = "b158",
    ) -> "BitHeteroLinear":
        """Turns a :class:`torch_geometric.nn.HeteroLinear` into a ternary one that
        holds the same parameters (the very same objects), without drawing random
        numbers.

        Args:
            linear (torch_geometric.nn.HeteroLinear): The layer.
            quant (QuantConfig or str, optional): How to quantize.
                (default: :obj:`"b158"`)
        """
        # A lazy layer draws no random numbers.
        out = cls(
            -1,
            linear.out_channels,
            linear.num_types,
            linear.is_sorted,
            quant,
            **linear.kwargs,
        )
        out.in_channels, out.weight = linear.in_channels, linear.weight
        out.register_parameter("bias", linear.bias)
        if not is_uninitialized_parameter(linear.weight):
            out._hook.remove()
            del out._hook
        return out.train(linear.training)

    def forward_naive(self, x: Tensor, type_ptr: Tensor) -> Tensor:
        """Multiplies the rows of each type; PyG's :meth:`forward` sorts and adds the bias."""
        if self.quant is None:
            return super().forward_naive(x, type_ptr)
        out = x.new_empty(x.size(0), self.out_channels)
        for i, (start, end) in enumerate(itertools.pairwise(type_ptr)):
            out[start:end] = bit_linear(
                x[start:end], self.weight[i].t(), None, self.quant, self.strength, self.training
            )
        return out

    def forward_segmm(self, x: Tensor, type_ptr: Tensor) -> Tensor:
        if self.quant is None:
            return super().forward_segmm(x, type_ptr)
        return self.forward_naive(x, type_ptr)

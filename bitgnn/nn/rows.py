from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import pays_blockwise, quantize_rows, with_values
from bitgnn.nn.static import StaticMemo
from bitgnn.quant import QuantConfig, dequantize_rows, straight_through
from bitgnn.quant.straight_through import is_transformed


class Rows(NamedTuple):
    """Rows, their integers and their scales; the gradient belongs to :obj:`x`."""

    x: Tensor
    values: Tensor
    scale: Tensor


class Deferred(NamedTuple):
    """Rows that the product quantizes itself, block by block."""

    x: Tensor


class RowQuantizer:
    r"""Quantizes the rows a layer receives, and static rows only once
    (:class:`bitgnn.nn.static.StaticMemo`).

    Args:
        config (QuantConfig): How to quantize.
    """

    def __init__(self, config: QuantConfig) -> None:
        self.config = config
        self._integers: StaticMemo[tuple[Tensor, Tensor]] = StaticMemo()
        self._rescaled: StaticMemo[tuple[Tensor, Tensor]] = StaticMemo()

    def normalize(self, x: Tensor) -> Tensor:
        """Applies what comes before quantization: layer normalization, if configured."""
        if not self.config.layer_norm:
            return x
        x = x if x.layout == torch.strided else x.to_dense()
        return F.layer_norm(x, x.shape[-1:])

    def integers(self, x: Tensor, training: bool = False) -> Rows | Deferred:
        r"""Returns :math:`\mathbf{x}_q` and :math:`s_x` of rows, dense or sparse.

        Args:
            x (torch.Tensor): The activations.
            training (bool, optional): Whether static rows may be kept.
                (default: :obj:`False`)
        """
        kept = self._integers.kept(x, self._quantize, training)
        if kept is not None:
            return Rows(x, *kept)
        x = self.normalize(x)
        if pays_blockwise(x, self.config):
            return Deferred(x)
        return Rows(x, *quantize_rows(x, self.config))

    def rescaled(
        self, x: Tensor, strength: float = 1.0, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        r"""Returns rows as quantization leaves them, :math:`\mathbf{x}_q s_x`, with a
        straight-through gradient, and :math:`s_x`.

        Args:
            x (torch.Tensor): The activations, dense or sparse.
            strength (float, optional): Between full precision (0) and
                quantized (1). (default: :obj:`1.0`)
            training (bool, optional): Whether static rows may be kept.
                (default: :obj:`False`)
        """
        if self.config.activation_bits is None:
            return self.normalize(x), torch.ones((), dtype=x.dtype, device=x.device)
        target, scale = self._rescaled(x, self._rescale, training)
        if not x.requires_grad and strength == 1.0 and not is_transformed():
            return target, scale
        x = self.normalize(x)
        if x.layout != torch.strided:
            return _blend(x, target, strength), scale
        return straight_through(x, target, strength), scale

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return quantize_rows(self.normalize(x), self.config)

    def _rescale(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_q, scale = self._quantize(x)
        return dequantize_rows(x_q, scale).to(x.dtype), scale


def _blend(x: Tensor, target: Tensor, strength: float) -> Tensor:
    if target.layout == torch.sparse_csr:
        # Of the same row and column: quantization changes values only.
        return with_values(x, torch.lerp(x.values(), target.values(), strength))
    x = x.to_sparse_coo()
    return target if strength == 1.0 else x + strength * (target - x)

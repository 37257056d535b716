import torch
from torch import Tensor

from bitgnn import quant
from bitgnn.kernels import native, row_ops
from bitgnn.kernels.sparse import check_operand, with_values
from bitgnn.quant import QuantConfig

PAYS = 2**17  # Numbers of rows: what torch.compile makes of fewer takes no longer than a call.


def quantize_rows(x: Tensor, config: QuantConfig) -> tuple[Tensor, Tensor]:
    r"""The :func:`bitgnn.quant.quantize_rows` that reads and writes memory once: the same numbers.

    Args:
        x (torch.Tensor): The activations, dense or a sparse matrix.
        config (QuantConfig): Bits and range.

    Shapes:
        As in :func:`bitgnn.quant.quantize_rows`.
    """
    check_operand(x, "x")
    x = x.detach()
    bounds = *config.activation_range, config.eps
    if x.layout == torch.sparse_csr and native.applies(x.values()):
        offsets = x.crow_indices().long()
        values, scale = native.quantize_rows(x.values(), *bounds, offsets)
        return with_values(x, values), scale
    if x.layout == torch.strided and x.dim() > 0 and native.applies(x):
        return native.quantize_rows(x, *bounds)
    if torch.compiler.is_compiling() and native.takes(x) and native.exceeds(x, PAYS):
        assert config.activation_bits is not None
        return row_ops.quantize_rows(x, config.activation_bits, config.full_range, config.eps)
    return quant.quantize_rows(x, config)


def round_rows(x: Tensor, scale: Tensor, config: QuantConfig) -> Tensor:
    r"""Returns the integers of rows whose scale is known (:func:`bitgnn.quant.round_rows`).

    Args:
        x (torch.Tensor): The activations.
        scale (torch.Tensor): The scale of each row.
        config (QuantConfig): Bits and range.

    Shapes:
        As in :func:`bitgnn.quant.round_rows`.
    """
    if native.applies(x):  # To find the scale once more costs nothing beside reading the row.
        return quantize_rows(x, config)[0]
    return quant.round_rows(x, scale, config)

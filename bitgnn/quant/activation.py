import torch
from torch import Tensor

from bitgnn.quant.config import QuantConfig

BLOCK = 2**16  # Elements that fit into a core's second-level cache with their temporaries.


def quantize_rows(x: Tensor, config: QuantConfig) -> tuple[Tensor, Tensor]:
    r"""Quantizes activations to integers with one scale a row,

    .. math::
        \mathbf{x}_q = \mathrm{clamp}(\mathrm{round}(\mathbf{x} / s_x), -127,
        127), \quad s_x = \max |\mathbf{x}| / 127

    at 8 bits, and with :math:`2^{b-1} - 1` for 127 at :math:`b` bits. The
    integers come as floating point numbers. A row of zeros stays zero; a row
    with NaN or infinity becomes NaN, and no other row does.

    Args:
        x (torch.Tensor): The activations, dense or a sparse matrix.
        config (QuantConfig): Bits and range.

    Shapes:
        - **x:** :math:`(*, F)`
        - **outputs:** :math:`\mathbf{x}_q` of :math:`(*, F)`, sparse (COO) if
          :math:`\mathbf{x}` is, and a dense :math:`s_x` of :math:`(*, 1)`, in
          at least 32 bits
    """
    x = x.detach()
    if x.layout != torch.strided:
        return _quantize_sparse_rows(x, config)
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if x.size(-1) == 0:
        return x, x.new_full((*x.shape[:-1], 1), config.eps)
    if x.device.type == "cpu" and x.numel() > 16 * BLOCK and not torch.compiler.is_compiling():
        return _quantize_blocks(x, config)
    scale = _scale(x.abs().amax(dim=-1, keepdim=True), config)
    return _round(x / scale, config), scale


def _quantize_blocks(x: Tensor, config: QuantConfig) -> tuple[Tensor, Tensor]:
    # Row by row the same numbers, but what a block needs stays in the processor's cache.
    rows = x.reshape(-1, x.size(-1))
    x_q, scale = torch.empty_like(rows), rows.new_empty(rows.size(0), 1)
    size = max(BLOCK // rows.size(1), 1)
    for i in range(0, rows.size(0), size):
        block = rows[i : i + size]
        block_scale = _scale(block.abs().amax(dim=-1, keepdim=True), config)
        scale[i : i + size] = block_scale
        _round(torch.div(block, block_scale, out=x_q[i : i + size]), config)
    return x_q.view(x.shape), scale.view(*x.shape[:-1], 1)


def _quantize_sparse_rows(x: Tensor, config: QuantConfig) -> tuple[Tensor, Tensor]:
    x = x.to_sparse_coo().coalesce()
    row, value = x.indices()[0], x.values()
    value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    # Entries that are not stored are zeros: they never are the largest.
    absmax = value.new_zeros(x.size(0)).scatter_reduce_(0, row, value.abs(), "amax")
    scale = _scale(absmax, config)
    value = _round(value / scale[row], config)
    x_q = torch.sparse_coo_tensor(
        x.indices(), value, x.shape, is_coalesced=True, check_invariants=False
    )
    return x_q, scale.unsqueeze(-1)


def dequantize_rows(x_q: Tensor, scale: Tensor) -> Tensor:
    r"""Returns :math:`\mathbf{x}_q s_x`, sparse (COO) if :math:`\mathbf{x}_q` is.

    Args:
        x_q (torch.Tensor): The integers of the rows.
        scale (torch.Tensor): The scale of each row.

    Shapes:
        - **x_q:** :math:`(*, F)`
        - **scale:** :math:`(*, 1)`
        - **output:** :math:`(*, F)`
    """
    if x_q.layout == torch.strided:
        return x_q * scale
    value = x_q.values() * scale[x_q.indices()[0], 0]
    return torch.sparse_coo_tensor(
        x_q.indices(), value, x_q.shape, is_coalesced=True, check_invariants=False
    )


def _scale(absmax: Tensor, config: QuantConfig) -> Tensor:
    return (absmax / -_low(config)).clamp_(min=config.eps)


def _low(config: QuantConfig) -> int:
    return config.activation_range[0]


def _round(ratio: Tensor, config: QuantConfig) -> Tensor:
    low, high = config.activation_range
    ratio = ratio.round_()
    # In the symmetric range the scale itself bounds the ratio: no clamp is needed.
    return ratio.clamp_(low, high) if config.full_range else ratio

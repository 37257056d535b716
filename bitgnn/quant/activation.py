import torch
from torch import Tensor

from bitgnn.quant.config import QuantConfig


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
        - **outputs:** :math:`\mathbf{x}_q` of :math:`(*, F)`, sparse (COO or
          CSR) if :math:`\mathbf{x}` is, and a dense :math:`s_x` of
          :math:`(*, 1)`, in at least 32 bits
    """
    x = x.detach()
    if x.layout != torch.strided:
        return _quantize_sparse_rows(x, config)
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if x.size(-1) == 0:
        return x, x.new_full((*x.shape[:-1], 1), config.eps)
    scale = _scale(x.abs().amax(dim=-1, keepdim=True), config)
    return round_rows(x, scale, config), scale


def round_rows(x: Tensor, scale: Tensor, config: QuantConfig) -> Tensor:
    r"""Returns :math:`\mathbf{x}_q` of rows whose scale is known.

    Args:
        x (torch.Tensor): The activations.
        scale (torch.Tensor): The scale of each row.
        config (QuantConfig): Bits and range.

    Shapes:
        - **x:** :math:`(*, F)`
        - **scale:** :math:`(*, 1)`
        - **output:** :math:`(*, F)`
    """
    low, high = config.activation_range
    x_q = (x / scale).round_()
    # In the symmetric range the scale itself bounds the ratio: no clamp is needed.
    return x_q.clamp_(low, high) if config.full_range else x_q


def _quantize_sparse_rows(x: Tensor, config: QuantConfig) -> tuple[Tensor, Tensor]:
    x = x if x.layout == torch.sparse_csr else x.to_sparse_coo().coalesce()
    value = x.values()
    value = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    # Entries that are not stored are zeros: they never are the largest.
    if x.layout == torch.sparse_csr:
        absmax = torch.segment_reduce(value.abs(), "max", offsets=x.crow_indices(), initial=0)
    else:
        row = x.indices()[0]
        absmax = value.new_zeros(x.size(0)).scatter_reduce_(0, row, value.abs(), "amax")
    scale = _scale(absmax, config)
    value = round_rows(value, _of_each_value(scale, x), config)
    return _with_values(x, value), scale.unsqueeze(-1)


def dequantize_rows(x_q: Tensor, scale: Tensor) -> Tensor:
    r"""Returns :math:`\mathbf{x}_q s_x`, sparse (COO or CSR) if
    :math:`\mathbf{x}_q` is.

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
    return _with_values(x_q, x_q.values() * _of_each_value(scale.squeeze(-1), x_q))


def _of_each_value(rows: Tensor, x: Tensor) -> Tensor:
    """Repeats what belongs to the rows of a sparse matrix for each of its values."""
    if x.layout == torch.sparse_csr:
        count = x.crow_indices().diff()
        return torch.repeat_interleave(rows, count, output_size=x.values().numel())
    return rows[x.indices()[0]]


def _with_values(x: Tensor, value: Tensor) -> Tensor:
    """Returns a sparse matrix with other values at the same places."""
    if x.layout == torch.sparse_csr:
        return torch.sparse_csr_tensor(
            x.crow_indices(), x.col_indices(), value, x.shape, check_invariants=False
        )
    return torch.sparse_coo_tensor(
        x.indices(), value, x.shape, is_coalesced=True, check_invariants=False
    )


def _scale(absmax: Tensor, config: QuantConfig) -> Tensor:
    return (absmax / -config.activation_range[0]).clamp_(min=config.eps)

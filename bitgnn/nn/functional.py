import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import (
    blockwise_linear,
    dense_linear,
    quantize_weight,
    quantized_linear,
    sparse_product,
)
from bitgnn.nn.rows import Deferred, RowQuantizer
from bitgnn.quant import QuantConfig, straight_through
from bitgnn.quant.straight_through import is_transformed


def bit_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    config: QuantConfig,
    strength: float = 1.0,
    training: bool = False,
    rows: RowQuantizer | None = None,
) -> Tensor:
    r"""What :class:`bitgnn.nn.BitLinear` computes, on tensors.

    Integers are multiplied exactly where 32-bit floating point carries them.
    Where it does not (half precision, or a strength below 1, which blends both
    operands with their full-precision values), and under the transforms of
    :mod:`torch.func`, the rescaled operands are multiplied instead.

    Args:
        x (torch.Tensor): The input features, dense or a sparse matrix.
        weight (torch.Tensor): The latent weight.
        bias (torch.Tensor or None): The bias.
        config (QuantConfig): How to quantize.
        strength (float, optional): Between full precision (0) and quantized
            (1). (default: :obj:`1.0`)
        training (bool, optional): Whether stochastic rounding and static rows
            apply. (default: :obj:`False`)
        rows (RowQuantizer, optional): What remembers static rows.
            (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(*, F_{in})`
        - **weight:** :math:`(F_{out}, F_{in})`
        - **output:** :math:`(*, F_{out})`
    """
    rows = rows if rows is not None else RowQuantizer(config)
    integers = (
        config.activation_bits is not None
        and config.weight_bits is not None
        and strength == 1.0
        and x.dtype in (torch.float32, torch.float64)
        and not _autocasts(x)
        and not is_transformed()
    )
    if integers:
        row = rows.integers(x, training)
        weight_q, weight_scale = quantize_weight(weight, config, training)
        if isinstance(row, Deferred):
            return blockwise_linear(row.x, weight, bias, weight_q, weight_scale, config)
        return quantized_linear(
            row.x, weight, bias, row.values, row.scale, weight_q, weight_scale, config.rescale_bias
        )

    operand, x_scale = rows.rescaled(x, strength, training)
    weight_operand, weight_scale = _blended_weight(weight, config, strength, training)
    if bias is not None and config.rescale_bias:
        out = linear_product(operand, weight_operand, None)
        return out + (bias * x_scale * weight_scale.view(-1)).to(out.dtype)
    if operand.layout == torch.strided and not _autocasts(operand):
        return dense_linear(operand, weight_operand, bias)
    return linear_product(operand, weight_operand, bias)


def _blended_weight(
    weight: Tensor, config: QuantConfig, strength: float, training: bool
) -> tuple[Tensor, Tensor]:
    if config.weight_bits is None:
        return weight, weight.new_ones(())
    weight_q, scale = quantize_weight(weight, config, training)
    return straight_through(weight, (weight_q * scale).to(weight.dtype), strength), scale


def _autocasts(x: Tensor) -> bool:
    # Of the meta device torch refuses to say; asking whether it would breaks the graphs that older
    # releases (2.8) compile.
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def linear_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""The :func:`torch.nn.functional.linear` that takes sparse features, too.

    Args:
        x (torch.Tensor): The input features, dense or a sparse matrix.
        weight (torch.Tensor): The weight.
        bias (torch.Tensor, optional): The bias. (default: :obj:`None`)

    Shapes:
        - **x:** :math:`(*, F_{in})`
        - **weight:** :math:`(F_{out}, F_{in})`
        - **output:** :math:`(*, F_{out})`
    """
    if x.layout == torch.strided:
        return F.linear(x, weight, bias)
    out = sparse_product(x, weight.t(), name="x")
    return out if bias is None else out + bias

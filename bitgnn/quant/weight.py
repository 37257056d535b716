import torch
from torch import Tensor

from bitgnn.quant.config import QuantConfig


def weight_scale(weight: Tensor, config: QuantConfig, median: Tensor | None = None) -> Tensor:
    r"""Computes the scale :math:`s_w` of a weight matrix.

    For ternary weights it is :math:`\mathrm{measure}(|\mathbf{W}|)`. For
    :math:`k` bits it is :math:`2 \, \mathrm{measure}(|\mathbf{W}|) /
    \sqrt{2^{k-1} - 1}`, the start value of `"Learned Step Size Quantization"
    <https://arxiv.org/abs/1902.08153>`_, Section 2.1, and
    :math:`\max|\mathbf{W}| / (2^{k-1} - 1)` for absmax.

    An absmedian at or below :obj:`config.eps` would zero the layer's output
    (more than half the weights are zero): the absmean stands in for it.

    Args:
        weight (torch.Tensor): The latent weight.
        config (QuantConfig): Measure, granularity and bits.
        median (torch.Tensor, optional): The lower median of :math:`|\mathbf{W}|`, of the shape
            of the output, if it is known. (default: :obj:`None`)

    Shapes:
        - **weight:** :math:`(F_{out}, F_{in})`
        - **output:** :math:`()`, or :math:`(F_{out}, 1)` per channel, in at
          least 32 bits
    """
    size = weight.detach().abs()
    size = size.float() if size.dtype in (torch.float16, torch.bfloat16) else size
    if weight.numel() == 0:
        shape = (weight.size(0), 1) if config.granularity == "channel" else ()
        return size.new_full(shape, config.eps)

    top = config.weight_range[1]
    if config.weight_measure == "absmax":
        scale = _reduce(torch.amax, size, config) / top
    else:
        scale = _reduce(torch.mean, size, config)
        if config.weight_measure == "absmedian":
            median = _median(size, config) if median is None else median
            scale = torch.where(median <= config.eps, scale, median)
        if not config.ternary:
            scale = scale * (2 / top**0.5)
    return scale.clamp(min=config.eps)


def _reduce(measure, size: Tensor, config: QuantConfig) -> Tensor:  # type: ignore[no-untyped-def]
    return measure(size, dim=1, keepdim=True) if config.granularity == "channel" else measure(size)


def _median(size: Tensor, config: QuantConfig) -> Tensor:
    if config.granularity == "channel":
        return size.median(dim=1, keepdim=True).values
    return size.median()


def quantize_weight(
    weight: Tensor,
    config: QuantConfig,
    training: bool = False,
    median: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Quantizes a weight matrix to integers and a scale,

    .. math::
        \mathbf{W}_q = \mathrm{clamp}(\mathrm{round}(\mathbf{W} / s_w), l, h),

    with :math:`(l, h) = (-1, 1)` for ternary weights and :math:`(-2^{k-1},
    2^{k-1} - 1)` for :math:`k` bits. The integers come as floating point
    numbers, the form in which torch multiplies matrices fastest.

    Args:
        weight (torch.Tensor): The latent weight.
        config (QuantConfig): Measure, granularity, bits and rounding.
        training (bool, optional): Whether stochastic rounding applies.
            (default: :obj:`False`)
        median (torch.Tensor, optional): As in :func:`weight_scale`. (default: :obj:`None`)

    Shapes:
        - **weight:** :math:`(F_{out}, F_{in})`
        - **outputs:** :math:`\mathbf{W}_q` of :math:`(F_{out}, F_{in})` and
          :math:`s_w` of :math:`()` or :math:`(F_{out}, 1)`
    """
    scale = weight_scale(weight, config, median)
    low, high = config.weight_range
    ratio = weight.detach().to(scale.dtype) / scale
    if training and config.rounding == "stochastic":
        ratio = ratio.add_(torch.rand_like(ratio)).floor_()
    else:
        ratio = ratio.round_()
    return ratio.clamp_(low, high), scale

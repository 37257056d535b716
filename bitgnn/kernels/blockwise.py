from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bitgnn.kernels import native, ops
from bitgnn.kernels.linear import bias_grad, dense_linear, flat, rescale_
from bitgnn.kernels.rows import quantize_rows, round_rows
from bitgnn.kernels.second_order import creates_graph, differentiable_gradients
from bitgnn.quant import QuantConfig

BLOCK = 2**18  # Elements of a block of rows: 1 MiB, which a core's caches hold.
PAYS = 2**20  # Below, the rows as a whole are in the cache.


def pays_blockwise(x: Tensor, config: QuantConfig) -> bool:
    """Whether :func:`blockwise_linear` is the faster form for these rows.

    Args:
        x (torch.Tensor): The rows.
        config (QuantConfig): How rows and weights are quantized.
    """
    if torch.compiler.is_compiling():
        return _is_native(x, config) and native.exceeds(x, PAYS)
    return x.layout == torch.strided and x.device.type == "cpu" and x.numel() > PAYS


def _is_native(x: Tensor, config: QuantConfig) -> bool:
    """Whether native kernels multiply: rows of 32 bits, ternary weights, no bias to rescale."""
    ternary = config.weight_bits == 1.58 and not config.rescale_bias
    return ternary and native.takes(x)


def blockwise_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_q: Tensor,
    weight_scale: Tensor,
    config: QuantConfig,
) -> Tensor:
    r"""Quantizes rows and multiplies them, block by block: the numbers of
    :func:`bitgnn.kernels.quantized_linear`, but :math:`\mathbf{x}_q` is never
    held as a whole.

    The backward pass rounds the rows once more, which in the cache costs less
    than memory does. Native kernels multiply the integers as such.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The latent weight; only its gradient is used.
        bias (torch.Tensor or None): The bias.
        weight_q (torch.Tensor): The integers of the weight.
        weight_scale (torch.Tensor): The scale of the weight.
        config (QuantConfig): How to quantize rows, and where the bias goes.

    Shapes:
        - **x:** :math:`(*, F_{in})`
        - **weight, weight_q:** :math:`(F_{out}, F_{in})`
        - **weight_scale:** :math:`()` or :math:`(F_{out}, 1)`
        - **bias:** :math:`(F_{out})`
        - **output:** :math:`(*, F_{out})`
    """
    if not _is_native(x, config):
        return _BlockwiseLinear.apply(x, weight, bias, weight_q, weight_scale, config)
    bits = config.activation_bits
    assert bits is not None
    how = bits, config.full_range, config.eps
    out = ops.ternary_product(flat(x), weight, weight_q, weight_scale, *how)
    out = out if bias is None else out + bias
    return out.view(*x.shape[:-1], out.size(-1))


class _BlockwiseLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_q: Tensor,
        weight_scale: Tensor,
        config: QuantConfig,
    ) -> Tensor:
        rows = flat(x)
        out = rows.new_empty(rows.size(0), weight_q.size(0))
        x_scale = rows.new_empty(rows.size(0), 1)
        for block in _blocks(rows):
            x_q, x_scale[block] = quantize_rows(rows[block], config)
            torch.mm(x_q, weight_q.t(), out=out[block])
        twice = not torch.compiler.is_compiling() and all(ctx.needs_input_grad[:2])
        ctx.save_for_backward(x, weight if twice else None, x_scale, weight_q, weight_scale)
        ctx.config = config
        out = rescale_(out, x_scale, weight_scale, bias, config.rescale_bias)
        return out.view(*x.shape[:-1], out.size(-1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, x_scale, weight_q, weight_scale = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        grad_x = grad_weight = grad_bias = None
        rows = flat(x)
        if creates_graph():
            x_hat = (round_rows(rows.detach(), x_scale, ctx.config) * x_scale).view(x.shape)
            grad_x, grad_weight = differentiable_gradients(
                (of_x, of_weight), grad, x, x_hat, weight, weight_q * weight_scale
            )
            of_x = of_weight = False
        if of_x:
            grad_x = dense_linear(grad, (weight_q * weight_scale).t())
        grad = flat(grad)
        if of_weight:
            scaled = grad * x_scale
            grad_weight = torch.zeros_like(weight_q)
            for block in _blocks(rows):
                x_q = round_rows(rows[block], x_scale[block], ctx.config)
                grad_weight.addmm_(scaled[block].t(), x_q)
        if of_bias:
            grad_bias = bias_grad(grad, x_scale, weight_scale, ctx.config.rescale_bias)
        return grad_x, grad_weight, grad_bias, None, None, None


def _blocks(rows: Tensor) -> Iterator[slice]:
    size = max(BLOCK // rows.size(1), 1)
    return (slice(start, start + size) for start in range(0, rows.size(0), size))

r"""Native products as operators of torch, :obj:`torch.ops.bitgnn`: each with its shape, its
gradient, and torch in its place where no native kernel applies. :func:`torch.compile` keeps them
whole."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import native, native_products
from bitgnn.kernels.second_order import creates_graph, differentiable_gradients
from bitgnn.quant import QuantConfig, dequantize_rows, quantize_rows, straight_through


@torch.library.custom_op("bitgnn::product", mutates_args=(), device_types="cpu")
def product(x: Tensor, weight: Tensor) -> Tensor:
    r"""Multiplies rows by the transpose of a weight.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The weight.

    Shapes:
        - **x:** :math:`(M, K)`
        - **weight:** :math:`(N, K)`
        - **output:** :math:`(M, N)`
    """
    if x.dtype == torch.float32 and native.applies(x, weight):
        return native_products.product(x, weight)
    return F.linear(x, weight)


@product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.size(0), weight.size(0))


@torch.library.custom_op("bitgnn::weight_gradient", mutates_args=(), device_types="cpu")
def weight_gradient(
    x: Tensor, grad: Tensor, bits: int | None, full_range: bool, eps: float
) -> Tensor:
    r"""Returns :math:`\mathbf{G}^{\top} \mathbf{X}`, the gradient of a linear layer's weight.

    Args:
        x (torch.Tensor): The rows.
        grad (torch.Tensor): The gradient of the output.
        bits (int, optional): If given, rows stand for what quantization to so many bits leaves of
            them.
        full_range (bool): As in :class:`bitgnn.QuantConfig`.
        eps (float): As in :class:`bitgnn.QuantConfig`.

    Shapes:
        - **x:** :math:`(M, K)`
        - **grad:** :math:`(M, N)`
        - **output:** :math:`(N, K)`
    """
    config = None if bits is None else _config(bits, full_range, eps)
    if x.dtype == torch.float32 and native.applies(x, grad):
        bounds = None if config is None else (*config.activation_range, eps)
        return native_products.weight_gradient(x, grad, bounds)
    return grad.t() @ (x if config is None else dequantize_rows(*quantize_rows(x, config)))


@weight_gradient.register_fake
def _(x: Tensor, grad: Tensor, bits: int | None, full_range: bool, eps: float) -> Tensor:
    return x.new_empty(grad.size(1), x.size(1))


@torch.library.custom_op("bitgnn::ternary_product", mutates_args=(), device_types="cpu")
def ternary_product(
    x: Tensor,
    weight: Tensor,
    weight_q: Tensor,
    weight_scale: Tensor,
    bits: int,
    full_range: bool,
    eps: float,
) -> Tensor:
    r"""Quantizes rows and multiplies them by a ternary weight,
    :math:`(\mathbf{x}_q \mathbf{W}_q^{\top}) \, s_x \, s_w`; gradients pass straight through both
    quantizers.

    Args:
        x (torch.Tensor): The rows.
        weight (torch.Tensor): The latent weight; only its gradient is used.
        weight_q (torch.Tensor): The integers of the weight.
        weight_scale (torch.Tensor): The scale of the weight.
        bits (int): The bits of the rows' integers.
        full_range (bool): As in :class:`bitgnn.QuantConfig`.
        eps (float): As in :class:`bitgnn.QuantConfig`.

    Shapes:
        - **x:** :math:`(M, K)`
        - **weight, weight_q:** :math:`(N, K)`
        - **weight_scale:** :math:`()` or :math:`(N, 1)`
        - **output:** :math:`(M, N)`
    """
    config = _config(bits, full_range, eps)
    if x.dtype == torch.float32 and native.applies(x, weight_q):
        return native_products.ternary_product(
            x, weight_q, weight_scale, *config.activation_range, eps
        )
    x_q, x_scale = quantize_rows(x, config)
    return F.linear(x_q, weight_q) * x_scale * weight_scale.view(-1)


@ternary_product.register_fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.size(0), weight.size(0))


def _config(bits: int, full_range: bool, eps: float) -> QuantConfig:
    return QuantConfig(activation_bits=bits, full_range=full_range, eps=eps)


def _keep_operands(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients_of_product(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    of_x, of_weight = ctx.needs_input_grad
    grad_x = product(grad, weight.t()) if of_x else None
    return grad_x, weight_gradient(x, grad, None, False, 0.0) if of_weight else None


def _keep_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, weight_q, weight_scale, *ctx.how = inputs
    ctx.save_for_backward(x, weight, weight_q, weight_scale)


def _gradients_of_ternary_product(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, weight_q, weight_scale = ctx.saved_tensors
    of_x, of_weight, *others = ctx.needs_input_grad
    if creates_graph():
        x_hat = dequantize_rows(*quantize_rows(x, _config(*ctx.how)))
        operands = x, x_hat, weight, weight_q * weight_scale
        grads = differentiable_gradients((of_x, of_weight), grad, *operands)
        return *grads, *(None for _ in others)
    grad_x = product(grad, (weight_q * weight_scale).t()) if of_x else None
    grad_weight = weight_gradient(x, grad, *ctx.how) if of_weight else None
    return grad_x, grad_weight, *(None for _ in others)


def _keep_operands_and_bits(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, *ctx.how = inputs
    ctx.save_for_backward(x, grad)


def _gradients_of_weight_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, grad_out = ctx.saved_tensors
    of_x, of_grad, *others = ctx.needs_input_grad
    grad_x = product(grad_out, grad.t()) if of_x else None
    if of_grad and ctx.how[0] is not None:
        x = straight_through(x, dequantize_rows(*quantize_rows(x, _config(*ctx.how))))
    return grad_x, product(x, grad) if of_grad else None, *(None for _ in others)


product.register_autograd(_gradients_of_product, setup_context=_keep_operands)
weight_gradient.register_autograd(
    _gradients_of_weight_gradient, setup_context=_keep_operands_and_bits
)
ternary_product.register_autograd(_gradients_of_ternary_product, setup_context=_keep_rows)

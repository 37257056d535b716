"""Gradients that are differentiated again (:obj:`create_graph=True`)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.quant import straight_through


class _StandIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.new_zeros(()).expand(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def stand_in(x: Tensor) -> Tensor:
    r"""Returns zeros of the shape of a tensor that take no memory, and whose gradient is that of
    the tensor: what a second derivative needs to keep of rows that were quantized.

    Args:
        x (torch.Tensor): The tensor.
    """
    return x if x.layout != torch.strided else _StandIn.apply(x)


def creates_graph() -> bool:
    """Whether a backward pass is itself differentiated (:obj:`create_graph=True`)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def differentiable_gradients(
    wanted: tuple[bool, bool],
    grad: Tensor,
    x: Tensor,
    x_hat: Tensor,
    weight: Tensor | None,
    weight_hat: Tensor,
) -> tuple[Tensor | None, Tensor | None]:
    r"""Returns the gradients of rows and weight as differentiable functions of :obj:`grad` and of
    both: derivatives pass straight through the quantizers at any order.

    Args:
        wanted (tuple): Which of the two gradients to compute.
        grad (torch.Tensor): The gradient of the output.
        x (torch.Tensor): The rows before quantization, of which only the gradient is used.
        x_hat (torch.Tensor): The rows as quantization leaves them, :math:`\mathbf{x}_q s_x`.
        weight (torch.Tensor or None): The latent weight, of which only the gradient is used;
            :obj:`None` if it has none.
        weight_hat (torch.Tensor): The weight as quantization leaves it,
            :math:`\mathbf{W}_q s_w`.
    """
    of_x, of_weight = wanted
    weight_hat = weight_hat if weight is None else straight_through(weight, weight_hat)
    grad_x = F.linear(grad, weight_hat.t()) if of_x else None
    grad_weight = None
    if of_weight:
        rows = straight_through(x, x_hat).reshape(-1, x.size(-1))
        grad_weight = grad.reshape(-1, grad.size(-1)).t() @ rows
    return grad_x, grad_weight

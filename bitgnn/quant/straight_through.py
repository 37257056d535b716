from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, target: Tensor, strength: float) -> Tensor:
        return target if strength == 1.0 else torch.lerp(value, target, strength)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


def straight_through(value: Tensor, target: Tensor, strength: float = 1.0) -> Tensor:
    r"""Replaces a value by its quantized form, but not its gradient,

    .. math::
        \mathbf{v} + \lambda \cdot \mathrm{detach}(\mathbf{v}_q - \mathbf{v}),

    the straight-through estimator of `"Estimating or Propagating Gradients
    Through Stochastic Neurons" <https://arxiv.org/abs/1308.3432>`_. At
    :math:`\lambda = 1` the output equals :math:`\mathbf{v}_q` to the last bit.

    Args:
        value (torch.Tensor): What the gradient flows to.
        target (torch.Tensor): What the forward pass returns.
        strength (float, optional): The :math:`\lambda` between full precision
            (0) and quantized (1). (default: :obj:`1.0`)
    """
    return _StraightThrough.apply(value, target, strength)

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, target: Tensor, strength: float) -> Tensor:
        return _blend(value, target, strength)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


class _Transformed(torch.autograd.Function):
    """The same under :mod:`torch.func`; torch takes three times as long to call it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, target: Tensor, strength: float) -> Tensor:
        return _blend(value, target.view_as(target), strength)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None

    @staticmethod
    def jvp(ctx: Any, value: Tensor, *others: None) -> Tensor:
        return value.view_as(value)


def _blend(value: Tensor, target: Tensor, strength: float) -> Tensor:
    return target if strength == 1.0 else torch.lerp(value, target, strength)


def is_transformed() -> bool:
    """Whether a transform of :mod:`torch.func` or forward-mode differentiation is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_differentiated() -> bool:
    """Whether a transform of :mod:`torch.func` that differentiates is active: any but
    :func:`torch.func.vmap`."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return False
    derivatives = TransformType.Grad, TransformType.Jvp
    return any(each.key() in derivatives for each in get_interpreter_stack() or ())


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
    estimator = _Transformed if is_transformed() else _StraightThrough
    return estimator.apply(value, target, strength)

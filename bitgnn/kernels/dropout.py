from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import native, row_ops


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    r"""The :func:`torch.nn.functional.dropout` that takes a tenth of its time on a CPU, where it
    draws numbers by the vector instead of one by one, and again in the backward pass instead of
    keeping them; without native kernels a third.

    Args:
        x (torch.Tensor): The values.
        p (float): The probability that a value is dropped.
        training (bool, optional): Whether values are dropped at all. (default: :obj:`True`)

    Raises:
        ValueError: If the probability is not between 0 and 1.
    """
    if training and 0.0 < p < 1.0 and native.applies(x):
        return _Dropout.apply(x, p, native.draw_seed())
    compiling = torch.compiler.is_compiling()
    if training and 0.0 < p < 1.0 and compiling and native.takes(x):
        return row_ops.dropout(x, p, torch.randint(native.SEEDS, ()))
    vectors = x.device.type == "cpu" and x.is_floating_point() and not compiling
    if not (training and vectors and 0.0 < p < 1.0):
        return F.dropout(x, p, training)
    keep = torch.rand_like(x, requires_grad=False).ge_(p)
    return x * keep.mul_(1.0 / (1.0 - p))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return native.dropout(x, p, seed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Dropout.apply(grad, ctx.p, ctx.seed), None, None


class Dropout(torch.nn.Dropout):
    r"""The :class:`torch.nn.Dropout` that calls :func:`dropout`.

    Args:
        p (float, optional): The probability that a value is dropped. (default: :obj:`0.5`)
    """

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)

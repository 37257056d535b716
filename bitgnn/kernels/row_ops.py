r"""What native kernels do row by row, as operators of torch, :obj:`torch.ops.bitgnn`: the form that
:func:`torch.compile` keeps whole. Elsewhere the kernels are called themselves, which takes less
time on small graphs."""

from typing import Any

import torch
from torch import Tensor

from bitgnn import quant
from bitgnn.kernels import native
from bitgnn.quant import QuantConfig


@torch.library.custom_op("bitgnn::quantize_rows", mutates_args=(), device_types="cpu")
def quantize_rows(x: Tensor, bits: int, full_range: bool, eps: float) -> tuple[Tensor, Tensor]:
    r"""Quantizes rows (:func:`bitgnn.quant.quantize_rows`). There is no gradient.

    Args:
        x (torch.Tensor): The rows, of 32 or 64 bits.
        bits (int): The bits of their integers.
        full_range (bool): As in :class:`bitgnn.QuantConfig`.
        eps (float): As in :class:`bitgnn.QuantConfig`.

    Shapes:
        - **x:** :math:`(*, F)`
        - **outputs:** :math:`(*, F)` and :math:`(*, 1)`
    """
    config = QuantConfig(activation_bits=bits, full_range=full_range, eps=eps)
    if native.applies(x):
        return native.quantize_rows(x, *config.activation_range, eps)
    x_q, scale = quant.quantize_rows(x.contiguous(), config)
    return x_q.clone() if x.size(-1) == 0 else x_q, scale  # No output may be an input.


@quantize_rows.register_fake
def _(x: Tensor, bits: int, full_range: bool, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((*x.shape[:-1], 1))


@torch.library.custom_op("bitgnn::dropout", mutates_args=(), device_types="cpu")
def dropout(x: Tensor, p: float, seed: Tensor) -> Tensor:
    r"""Drops values (:func:`bitgnn.kernels.dropout`); which ones, the seed says.

    Args:
        x (torch.Tensor): The values, of 32 or 64 bits.
        p (float): The probability that a value is dropped, below 1.
        seed (torch.Tensor): A number from 0 to :math:`2^{63} - 1`.
    """
    if native.applies(x):
        return native.dropout(x, p, int(seed))
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(int(seed)), dtype=x.dtype)
    return x.contiguous() * noise.ge_(p).mul_(1.0 / (1.0 - p))


@dropout.register_fake
def _(x: Tensor, p: float, seed: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _keep_seed(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.p, seed = inputs
    ctx.save_for_backward(seed)


def _gradient_of_dropout(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return dropout(grad, ctx.p, *ctx.saved_tensors), None, None


dropout.register_autograd(_gradient_of_dropout, setup_context=_keep_seed)

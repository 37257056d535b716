"""The native kernels of attention over edges."""

from typing import Any

import torch
from torch import Tensor

from bitgnn.kernels import native

MOST_HEADS = 0 if native._native is None else int(native._native.most_heads)


def attention(
    crow: Tensor,
    col: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    p: float,
    noise: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The forward pass of :func:`bitgnn.kernels.graph_attention`.

    Args:
        crow (torch.Tensor): Where the edges of each target start, and their number.
        col (torch.Tensor): The source of each edge, a node that there is.
        x (torch.Tensor): The features of each source and head.
        score_src (torch.Tensor): The score of each source and head.
        score_dst (torch.Tensor): The score of each target and head.
        negative_slope (float): The slope of LeakyReLU below zero.
        p (float): The dropout of attention coefficients.
        noise (torch.Tensor or None): A number from :math:`[0, 1)` for each edge and head, where
            there is dropout.

    Shapes:
        - **crow, col:** :math:`(N + 1)` and :math:`(E)`, in 64 bits
        - **x:** :math:`(M, H, C)`
        - **score_src, score_dst:** :math:`(M, H)` and :math:`(N, H)`
        - **noise:** :math:`(E, H)`
        - **outputs:** :math:`(N, H, C)`, and the coefficients :math:`(E, H)` without and with
          dropout
    """
    heads, channels = x.shape[1:]
    out = x.new_empty(score_dst.size(0), heads, channels)
    alpha = x.new_empty(col.numel(), heads)
    weight = alpha if noise is None else torch.empty_like(alpha)
    native.of(x).attention(
        *_operands(crow, col, x, score_src, score_dst, negative_slope),
        native.span(noise),
        p,
        *map(native.span, (out, alpha, weight)),
        torch.get_num_threads(),
    )
    return out, alpha, weight


def attention_backward(
    crow: Tensor,
    col: Tensor,
    transpose: tuple[Tensor, Tensor, Tensor],
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    grad: Tensor,
    out: Tensor,
    alpha: Tensor,
    weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The gradients of features and of both scores.

    Args:
        crow (torch.Tensor): As in :func:`attention`, as are the other arguments.
        transpose (tuple): The transposed matrix: where each of its rows starts, its columns, and
            the place of each of its values in the matrix (in 32 bits).
        grad (torch.Tensor): The gradient of the output.
    """
    crow_t, col_t, order = transpose
    grad_x, grad_src, grad_dst = map(torch.empty_like, (x, score_src, score_dst))
    grad_edge = torch.empty_like(alpha)
    native.of(x).attention_backward(
        *_operands(crow, col, x, score_src, score_dst, negative_slope),
        *map(native.span, (crow_t, col_t, order, grad, out, alpha, weight)),
        *map(native.span, (grad_edge, grad_x, grad_src, grad_dst)),
        torch.get_num_threads(),
    )
    return grad_x, grad_src, grad_dst


def _operands(
    crow: Tensor,
    col: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
) -> tuple[Any, ...]:
    """The arguments that both passes of attention take first."""
    matrix = native.span(crow), native.span(col), score_dst.size(0)
    return *matrix, *x.shape, *map(native.span, (x, score_src, score_dst)), negative_slope

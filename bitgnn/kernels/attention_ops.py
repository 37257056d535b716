r"""Attention as an operator of torch, :obj:`torch.ops.bitgnn.attention`, of the parts of a sparse
matrix: :func:`torch.compile` keeps it whole, but takes no sparse matrices."""

from typing import Any

import torch
from torch import Tensor

from bitgnn.kernels import native, native_attention, reference
from bitgnn.kernels.attention import check_shapes, is_sound
from bitgnn.kernels.attention_torch import differentiable_gradients
from bitgnn.kernels.second_order import creates_graph
from bitgnn.kernels.sparse import check_operand, csr_matrix, transposition


@torch.library.custom_op("bitgnn::attention", mutates_args=(), device_types="cpu")
def attention(
    crow: Tensor,
    col: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    p: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Aggregates neighbors by attention (:func:`bitgnn.kernels.graph_attention`).

    Args:
        crow (torch.Tensor): Where the edges of each target start, and their number.
        col (torch.Tensor): The source of each edge.
        x (torch.Tensor): The features of each source and head.
        score_src (torch.Tensor): The score of each source and head.
        score_dst (torch.Tensor): The score of each target and head.
        negative_slope (float): The slope of LeakyReLU below zero.
        p (float): The dropout of attention coefficients, below 1.
        seed (torch.Tensor or None): A number from 0 to :math:`2^{63} - 1`, which says what is
            dropped, where there is dropout.

    Shapes:
        - **crow, col:** :math:`(N + 1)` and :math:`(E)`
        - **x:** :math:`(M, H, C)`
        - **score_src, score_dst:** :math:`(M, H)` and :math:`(N, H)`
        - **outputs:** :math:`(N, H, C)`, and for the backward pass the coefficients
          :math:`(E, H)` without and, where there is dropout, with it

    Raises:
        ValueError: If the shapes do not fit, the parts are none of a matrix, or there is dropout
            without a seed.
    """
    x, score_src, score_dst = (each.contiguous() for each in (x, score_src, score_dst))
    is_native = _is_native(crow, col, x, score_src, score_dst)
    noise = _noise(p, seed, (col.numel(), x.size(1)), x, is_native)
    run = native_attention.attention if is_native else reference.attention
    out, alpha, weight = run(crow, col, x, score_src, score_dst, negative_slope, p, noise)
    return out, alpha, alpha.new_empty(0) if weight is alpha else weight


@attention.register_fake
def _(
    crow: Tensor,
    col: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float,
    p: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    edges = col.numel(), x.size(1)
    out = x.new_empty(score_dst.size(0), *x.shape[1:])
    return out, x.new_empty(edges), x.new_empty(edges if p > 0.0 else 0)


@torch.library.custom_op("bitgnn::attention_backward", mutates_args=(), device_types="cpu")
def attention_backward(
    crow: Tensor,
    col: Tensor,
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
        grad (torch.Tensor): The gradient of the output.
        weight (torch.Tensor): The coefficients with dropout, those without where there is none.
    """
    x, score_src, score_dst, grad = (each.contiguous() for each in (x, score_src, score_dst, grad))
    operands = x, score_src, score_dst, negative_slope, grad, out, alpha, weight
    if not _is_native(crow, col, x, score_src, score_dst):
        return reference.attention_backward(crow, col, *operands)
    how = transposition(_matrix(crow, col, x, score_dst))
    return native_attention.attention_backward(crow, col, (how.crow, how.col, how.order), *operands)


@attention_backward.register_fake
def _(
    crow: Tensor, col: Tensor, x: Tensor, score_src: Tensor, score_dst: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return tuple(each.new_empty(each.shape) for each in (x, score_src, score_dst))


def _matrix(crow: Tensor, col: Tensor, x: Tensor, score_dst: Tensor) -> Tensor:
    """The matrix whose parts are given. Its values do not count."""
    return csr_matrix(crow, col, col, (score_dst.size(0), x.size(0)))


def _is_native(crow: Tensor, col: Tensor, x: Tensor, score_src: Tensor, score_dst: Tensor) -> bool:
    rows, edges = score_dst.size(0), col.numel()
    ends = crow[[0, -1]].tolist() if crow.numel() == rows + 1 else None
    if ends != [0, edges] or bool((crow.diff() < 0).any()):
        raise ValueError(
            f"The edges of {rows} targets start at {rows + 1} places from 0 to their number, "
            f"{edges}, in ascending order (got {crow.numel()} places)"
        )
    matrix = _matrix(crow, col, x, score_dst)
    check_shapes(matrix, x, score_src, score_dst)
    few = x.size(1) <= native_attention.MOST_HEADS
    return is_sound(matrix) and few and native.applies(x, score_src, score_dst)


def _noise(
    p: float, seed: Tensor | None, shape: tuple[int, int], x: Tensor, is_native: bool
) -> Tensor | None:
    if p <= 0.0:
        return None
    if seed is None:
        raise ValueError(f"Dropout of {p} takes a seed (got None)")
    if is_native:
        return native.uniform(shape, int(seed))
    return torch.rand(shape, generator=torch.Generator().manual_seed(int(seed)), dtype=x.dtype)


def _keep_operands(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *operands, ctx.negative_slope, ctx.p, _ = inputs
    out, alpha, weight = output
    ctx.mark_non_differentiable(alpha, weight)
    ctx.save_for_backward(*operands, out, alpha, weight if ctx.p > 0.0 else alpha)


def _gradients(ctx: Any, grad: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
    *operands, out, alpha, weight = ctx.saved_tensors
    if creates_graph():
        crow, col, x, _, score_dst = operands
        adj_t = _matrix(crow, col, x, score_dst)
        check_operand(adj_t, "edge_index")
        how = ctx.negative_slope, ctx.p, alpha, weight
        grads = differentiable_gradients(adj_t, operands[2:], *how, grad)
        return None, None, *grads, None, None, None
    grads = attention_backward(*operands, ctx.negative_slope, grad, out, alpha, weight)
    return None, None, *grads, None, None, None


attention.register_autograd(_gradients, setup_context=_keep_operands)

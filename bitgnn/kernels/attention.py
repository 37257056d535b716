from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import native, native_attention
from bitgnn.kernels.attention_torch import TorchAttention, differentiable_gradients, targets
from bitgnn.kernels.memo import Memo
from bitgnn.kernels.second_order import creates_graph
from bitgnn.kernels.sparse import check_operand, check_sparse, csr_matrix, transposition


def graph_attention(
    adj_t: Tensor,
    x: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    negative_slope: float = 0.2,
    p: float = 0.0,
    training: bool = False,
) -> Tensor:
    r"""Aggregates neighbors by attention, head by head,

    .. math::
        \mathbf{y}_i = \sum_{j \in \mathcal{N}(i)} d_{i,j} \, \alpha_{i,j} \,
        \mathbf{x}_j, \quad \alpha_{i,j} = \mathrm{softmax}_{j \in \mathcal{N}(i)}
        \left( \mathrm{LeakyReLU}(s_j + t_i) \right),

    with dropout :math:`d_{i,j}`. There is never a tensor of edges times channels: the native
    kernel gathers neighbors, and without it sums over them are products of sparse matrices
    (:mod:`bitgnn.kernels.sparse`). In the backward pass, with the gradient
    :math:`\mathbf{g}_i` of :math:`\mathbf{y}_i`,

    .. math::
        \nabla_{e_{i,j}} = \alpha_{i,j} \, ( d_{i,j} \, \mathbf{g}_i^{\top} \mathbf{x}_j -
        \mathbf{g}_i^{\top} \mathbf{y}_i )

    is that of what the softmax is taken of.

    Args:
        adj_t (torch.Tensor): The adjacency matrix (CSR, on a CPU), with targets as rows, whose
            values do not count.
        x (torch.Tensor): The features of each source and head.
        score_src (torch.Tensor): The score :math:`s` of each source and head.
        score_dst (torch.Tensor): The score :math:`t` of each target and head.
        negative_slope (float, optional): The slope of LeakyReLU below zero.
            (default: :obj:`0.2`)
        p (float, optional): The dropout of attention coefficients. (default: :obj:`0.0`)
        training (bool, optional): Whether dropout applies. (default: :obj:`False`)

    Shapes:
        - **adj_t:** :math:`(N, M)`
        - **x:** :math:`(M, H, C)`
        - **score_src:** :math:`(M, H)`
        - **score_dst:** :math:`(N, H)`
        - **output:** :math:`(N, H, C)`

    Raises:
        ValueError: If the shapes do not fit, or the matrix has a column beyond its shape.
    """
    p = p if training else 0.0
    operands = x, score_src, score_dst
    check_shapes(adj_t, *operands)
    if x.dtype in (torch.float16, torch.bfloat16):
        # Sums over neighbors and the softmax are computed in 32 bits.
        h, src, dst = (each.float() for each in operands)
        return graph_attention(adj_t, h, src, dst, negative_slope, p, p > 0.0).to(x.dtype)
    applies = (
        native.applies(*operands) and x.size(1) <= native_attention.MOST_HEADS and 0.0 <= p < 1.0
    )
    if applies and is_sound(adj_t):
        return _NativeAttention.apply(*operands, adj_t, negative_slope, p)
    check_operand(adj_t, "edge_index")
    return TorchAttention.apply(*operands, adj_t, negative_slope, p)


def check_shapes(adj_t: Tensor, x: Tensor, score_src: Tensor, score_dst: Tensor) -> None:
    """Refuses features and scores that are not of the nodes of a matrix."""
    rows, columns = adj_t.shape
    fit = x.dim() == 3 and x.size(0) == columns
    if not fit or score_src.shape != x.shape[:2] or score_dst.shape != (rows, x.size(1)):
        raise ValueError(
            f"A matrix of shape {(rows, columns)} takes features of shape ({columns}, heads, "
            f"channels) and scores of shape ({columns}, heads) and ({rows}, heads) (got "
            f"{tuple(x.shape)}, {tuple(score_src.shape)} and {tuple(score_dst.shape)})"
        )


@Memo
def is_sound(adj_t: Tensor) -> bool:
    """Whether the native kernel, which looks at nothing twice, may have the matrix."""
    check_sparse(adj_t, "edge_index")
    col = adj_t.col_indices()
    return col.dtype == torch.int64 and col.numel() < 2**31


class _NativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        score_src: Tensor,
        score_dst: Tensor,
        adj_t: Tensor,
        negative_slope: float,
        p: float,
    ) -> Tensor:
        operands = x, score_src, score_dst
        x, src, dst = (each.contiguous() for each in operands)
        edges = adj_t.values().numel(), x.size(1)
        noise = native.uniform(edges, native.draw_seed()) if p > 0.0 else None
        parts = adj_t.crow_indices(), adj_t.col_indices()
        saved = native_attention.attention(*parts, x, src, dst, negative_slope, p, noise)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(adj_t, *operands, *saved)
        ctx.negative_slope, ctx.p = negative_slope, p
        return saved[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        adj_t, x, score_src, score_dst, out, alpha, weight = ctx.saved_tensors
        check_operand(adj_t, "edge_index")  # NumPy may have rewritten it, unseen by autograd.
        if creates_graph():
            how = ctx.negative_slope, ctx.p, alpha, weight
            grads = differentiable_gradients(adj_t, (x, score_src, score_dst), *how, grad)
            return *grads, None, None, None
        x, score_src, score_dst = (each.contiguous() for each in (x, score_src, score_dst))
        transpose = transposition(adj_t)
        grads = native_attention.attention_backward(
            adj_t.crow_indices(),
            adj_t.col_indices(),
            (transpose.crow, transpose.col, transpose.order),
            x,
            score_src,
            score_dst,
            ctx.negative_slope,
            grad.resolve_neg().contiguous(),
            out,
            alpha,
            weight,
        )
        return *grads, None, None, None


@Memo
def with_self_loops(adj_t: Tensor) -> Tensor:
    r"""Returns a square CSR matrix with ones on its diagonal, in place of what was there;
    computed once for a matrix that lives on unchanged.

    Args:
        adj_t (torch.Tensor): The matrix (CSR).
    """
    check_sparse(adj_t, "edge_index")
    size = adj_t.size(0)
    row, col = targets(adj_t), adj_t.col_indices()
    others, nodes = row != col, torch.arange(size)
    row, col = torch.cat([row[others], nodes]), torch.cat([col[others], nodes])
    values = torch.cat([adj_t.values()[others], adj_t.values().new_ones(size)])
    order = torch.argsort(row, stable=True)
    crow = F.pad(torch.bincount(row, minlength=size).cumsum(0), (1, 0))
    return csr_matrix(crow, col[order], values[order], (size, size))

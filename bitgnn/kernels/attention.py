from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bitgnn.kernels import native, native_attention
from bitgnn.kernels.dropout import dropout
from bitgnn.kernels.memo import Memo
from bitgnn.kernels.sparse import bag_product, csr_matrix, transposition, with_values

BLOCK = 2**18  # Edges of a group of heads: their scores take 1 MiB, which a core's caches hold.
VECTOR = 8  # Below, torch computes inner products number by number, ten times slower.


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
    _check_shapes(adj_t, *operands)
    applies = (
        native.applies(*operands) and x.size(1) <= native_attention.MOST_HEADS and 0.0 <= p < 1.0
    )
    if applies and _is_sound(adj_t):
        return _NativeAttention.apply(*operands, adj_t, negative_slope, p)
    return _GraphAttention.apply(*operands, adj_t, negative_slope, p)


def _check_shapes(adj_t: Tensor, x: Tensor, score_src: Tensor, score_dst: Tensor) -> None:
    targets, sources = adj_t.shape
    fit = x.dim() == 3 and x.size(0) == sources
    if not fit or score_src.shape != x.shape[:2] or score_dst.shape != (targets, x.size(1)):
        raise ValueError(
            f"A matrix of shape {(targets, sources)} takes features of shape ({sources}, heads, "
            f"channels) and scores of shape ({sources}, heads) and ({targets}, heads) (got "
            f"{tuple(x.shape)}, {tuple(score_src.shape)} and {tuple(score_dst.shape)})"
        )


@Memo
def _is_sound(adj_t: Tensor) -> bool:
    """Whether the native kernel, which looks at nothing twice, may have the matrix."""
    col, size = adj_t.col_indices(), adj_t.size(1)
    if col.numel() > 0 and not 0 <= int(col.min()) <= int(col.max()) < size:
        raise ValueError(
            f"A matrix of shape {tuple(adj_t.shape)} has columns from 0 to {size - 1} (got "
            f"{int(col.min())} to {int(col.max())})"
        )
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
        x, src, dst = (each.contiguous() for each in (x, score_src, score_dst))
        edges = adj_t.values().numel(), x.size(1)
        noise = native.uniform(edges, native.draw_seed()) if p > 0.0 else None
        saved = native_attention.attention(adj_t, x, src, dst, negative_slope, p, noise)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(adj_t, x, src, dst, *saved)
        ctx.negative_slope = negative_slope
        return saved[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        adj_t, x, score_src, score_dst, out, alpha, weight = ctx.saved_tensors
        transpose = transposition(adj_t)
        grads = native_attention.attention_backward(
            adj_t,
            (transpose.crow, transpose.col, transpose.order),
            x,
            score_src,
            score_dst,
            ctx.negative_slope,
            grad.contiguous(),
            out,
            alpha,
            weight,
        )
        return *grads, None, None, None


class _GraphAttention(torch.autograd.Function):
    # Several heads at once are one graph: its copies side by side. As many as the caches hold.

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
        groups = _groups(adj_t, x.size(1))
        outs, saved = [], []
        for heads in groups:
            adj, x_k = _side_by_side(adj_t, heads), _stacked(x, heads)
            src, dst = (each[:, heads].t().flatten() for each in (score_src, score_dst))
            score = src.index_select(0, adj.col_indices()).add_(_of_target(adj, dst))
            alpha = _softmax(adj, F.leaky_relu(score, negative_slope))
            weight = dropout(alpha, p)
            outs.append(bag_product(adj.crow_indices(), adj.col_indices(), weight, x_k))
            saved += [x_k, score, alpha, weight]
        out = _unstacked(outs, x.size(1))
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(adj_t, out, *saved)
        ctx.groups, ctx.negative_slope = groups, negative_slope
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        adj_t, out, *saved = ctx.saved_tensors
        inner = (grad * out).sum(dim=-1).t()
        grad_x, grad_src, grad_dst = [], [], []
        for k, heads in enumerate(ctx.groups):
            x_k, score, alpha, weight = saved[4 * k : 4 * k + 4]
            adj, grad_k = _side_by_side(adj_t, heads), _stacked(grad, heads)
            transpose = transposition(adj)
            grad_x.append(bag_product(transpose.crow, transpose.col, transpose(weight), grad_k))
            grad_e = _inner_products(adj, grad_k, x_k).mul_(weight)
            grad_e.addcmul_(alpha, _of_target(adj, inner[heads].flatten()), value=-1.0)
            grad_e = torch.ops.aten.leaky_relu_backward(grad_e, score, ctx.negative_slope, False)
            grad_src.append(_sum_at(adj.col_indices(), grad_e, adj.size(1)))
            grad_dst.append(_sum_at(_targets(adj), grad_e, adj.size(0)))
        size = grad.size(1)
        grad_scores = (torch.cat(each).view(size, -1).t() for each in (grad_src, grad_dst))
        return _unstacked(grad_x, size), *grad_scores, None, None, None


def _groups(adj_t: Tensor, heads: int) -> list[slice]:
    size = max(BLOCK // max(adj_t.values().numel(), 1), 1)
    return [slice(k, min(k + size, heads)) for k in range(0, heads, size)]


def _side_by_side(adj_t: Tensor, heads: slice) -> Tensor:
    count = heads.stop - heads.start
    if count == 1:
        return adj_t
    copies = _copies(adj_t)
    if count not in copies:
        copies[count] = _block_diagonal(adj_t, count)
    return copies[count]


@Memo
def _copies(adj_t: Tensor) -> dict[int, Tensor]:
    return {}


def _block_diagonal(adj_t: Tensor, count: int) -> Tensor:
    """A matrix with as many copies of another one on its diagonal."""
    (rows, columns), nnz = adj_t.shape, adj_t.values().numel()
    k = torch.arange(count).view(-1, 1)
    crow = (adj_t.crow_indices()[:-1] + k * nnz).flatten()
    crow = torch.cat([crow, crow.new_tensor([count * nnz])])
    col = (adj_t.col_indices() + k * columns).flatten()
    return csr_matrix(crow, col, adj_t.values().repeat(count), (count * rows, count * columns))


def _stacked(x: Tensor, heads: slice) -> Tensor:
    """The rows of each head below those of the one before."""
    return x[:, heads].transpose(0, 1).flatten(end_dim=1).contiguous()


def _unstacked(groups: list[Tensor], heads: int) -> Tensor:
    """The inverse of :func:`_stacked` for all groups of heads together."""
    x = torch.cat(groups)
    return x.view(heads, x.size(0) // heads, x.size(1)).transpose(0, 1).contiguous()


def _softmax(adj_t: Tensor, score: Tensor) -> Tensor:
    """The softmax of the edges of each target, in place."""
    # Without the largest score, `exp` could overflow.
    largest = torch.segment_reduce(score, "max", offsets=adj_t.crow_indices())
    score = score.sub_(_of_target(adj_t, largest)).exp_()
    total = _sum_at(_targets(adj_t), score, adj_t.size(0))
    return score.div_(_of_target(adj_t, total))


def _sum_at(index: Tensor, values: Tensor, size: int) -> Tensor:
    return values.new_zeros(size).scatter_add_(0, index, values)


def _inner_products(adj_t: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """The product of the rows of target and source for each edge."""
    if source.size(1) < VECTOR:
        missing = (0, VECTOR - source.size(1))
        target, source = F.pad(target, missing), F.pad(source, missing)
    out = with_values(adj_t, target.new_zeros(adj_t.values().shape))
    return torch.sparse.sampled_addmm(out, target, source.t(), beta=0.0, out=out).values()


def _of_target(adj_t: Tensor, values: Tensor) -> Tensor:
    """Repeats what belongs to targets for each of their edges."""
    return values.index_select(0, _targets(adj_t))


@Memo
def _targets(adj_t: Tensor) -> Tensor:
    count = adj_t.crow_indices().diff()
    nodes = torch.arange(adj_t.size(0))
    return torch.repeat_interleave(nodes, count, output_size=adj_t.col_indices().numel())


@Memo
def with_self_loops(adj_t: Tensor) -> Tensor:
    r"""Returns a square CSR matrix with ones on its diagonal, in place of what was there;
    computed once for a matrix that lives on unchanged.

    Args:
        adj_t (torch.Tensor): The matrix (CSR).
    """
    size = adj_t.size(0)
    row, col = _targets(adj_t), adj_t.col_indices()
    others, nodes = row != col, torch.arange(size)
    row, col = torch.cat([row[others], nodes]), torch.cat([col[others], nodes])
    values = torch.cat([adj_t.values()[others], adj_t.values().new_ones(size)])
    order = torch.argsort(row, stable=True)
    crow = F.pad(torch.bincount(row, minlength=size).cumsum(0), (1, 0))
    return csr_matrix(crow, col[order], values[order], (size, size))

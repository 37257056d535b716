"""Attention by torch, where no native kernel applies."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitgnn.kernels import reference
from bitgnn.kernels.dropout import dropout
from bitgnn.kernels.memo import Memo, vouch
from bitgnn.kernels.second_order import creates_graph
from bitgnn.kernels.sparse import (
    bag_product,
    check_operand,
    csr_matrix,
    transposition,
    with_values,
)

BLOCK = 2**18  # Edges of a group of heads: their scores take 1 MiB, which a core's caches hold.
ALPHA, WEIGHT = 2, 3  # Their places among the four tensors that each group of heads saves.
VECTOR = 8  # Below, torch computes inner products number by number, ten times slower.


class TorchAttention(torch.autograd.Function):
    """What :func:`bitgnn.kernels.graph_attention` computes, by products of sparse matrices."""

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
            ctx.save_for_backward(adj_t, x, score_src, score_dst, out, *saved)
        ctx.groups, ctx.negative_slope, ctx.p = groups, negative_slope, p
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        adj_t, *operands, out = ctx.saved_tensors[:5]
        saved = ctx.saved_tensors[5:]
        check_operand(adj_t, "edge_index")  # NumPy may have rewritten it, unseen by autograd.
        if creates_graph():
            alpha, weight = (
                torch.cat(saved[k::4]).view(grad.size(1), -1).t() for k in (ALPHA, WEIGHT)
            )
            how = ctx.negative_slope, ctx.p, alpha, weight
            return *differentiable_gradients(adj_t, operands, *how, grad), None, None, None
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
            grad_dst.append(_sum_at(targets(adj), grad_e, adj.size(0)))
        size = grad.size(1)
        grad_scores = (torch.cat(each).view(size, -1).t() for each in (grad_src, grad_dst))
        return _unstacked(grad_x, size), *grad_scores, None, None, None


def differentiable_gradients(
    adj_t: Tensor,
    operands: Sequence[Tensor],
    negative_slope: float,
    p: float,
    alpha: Tensor,
    weight: Tensor,
    grad: Tensor,
) -> tuple[Tensor | None, ...]:
    r"""Returns the gradients of features and of both scores as differentiable functions of all
    three and of :obj:`grad`, by the formula in plain torch
    (:func:`bitgnn.kernels.reference.attention`).

    Args:
        adj_t (torch.Tensor): The adjacency matrix (CSR), with targets as rows.
        operands (tuple): The features and both scores.
        negative_slope (float): The slope of LeakyReLU below zero.
        p (float): The dropout of attention coefficients.
        alpha (torch.Tensor): The coefficients without dropout.
        weight (torch.Tensor): The coefficients with dropout, which say what was kept.
        grad (torch.Tensor): The gradient of the output.
    """
    # Aliases: a score that is computed from the features would count twice.
    aliases = [each.view_as(each) for each in operands]
    wanted = [each for each in aliases if each.requires_grad]
    # What was dropped stays dropped: 1 lies above every probability, 0 below.
    noise = (weight != 0).to(alpha.dtype) if p > 0.0 else None
    x, src, dst = aliases
    crow, col = adj_t.crow_indices(), adj_t.col_indices()
    out, _, _ = reference.attention(crow, col, x, src, dst, negative_slope, p, noise)
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return tuple(next(found) if each.requires_grad else None for each in aliases)


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
        vouch(copies[count])
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
    total = _sum_at(targets(adj_t), score, adj_t.size(0))
    return score.div_(_of_target(adj_t, total))


def _sum_at(index: Tensor, values: Tensor, size: int) -> Tensor:
    return values.new_zeros(size).scatter_add_(0, index, values)


def _inner_products(adj_t: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """The product of the rows of target and source for each edge."""
    if has_multi_edges(adj_t):
        edges = zip(targets(adj_t).split(BLOCK), adj_t.col_indices().split(BLOCK), strict=True)
        products = [(target[to] * source[of]).sum(dim=1) for to, of in edges]
        return torch.cat(products) if products else target.new_zeros(0)
    if source.size(1) < VECTOR:
        missing = (0, VECTOR - source.size(1))
        target, source = F.pad(target, missing), F.pad(source, missing)
    out = with_values(adj_t, target.new_zeros(adj_t.values().shape))
    return torch.sparse.sampled_addmm(out, target, source.t(), beta=0.0, out=out).values()


@Memo
def has_multi_edges(adj_t: Tensor) -> bool:
    r"""Returns whether two edges have the same ends, of which torch's sampled product writes one,
    and beyond the end of its arrays; computed once for a matrix that lives on unchanged.

    Args:
        adj_t (torch.Tensor): The adjacency matrix (CSR), with targets as rows.
    """
    ends = (targets(adj_t) * adj_t.size(1) + adj_t.col_indices()).sort().values
    return bool((ends[1:] == ends[:-1]).any())


def _of_target(adj_t: Tensor, values: Tensor) -> Tensor:
    """Repeats what belongs to targets for each of their edges."""
    return values.index_select(0, targets(adj_t))


@Memo
def targets(adj_t: Tensor) -> Tensor:
    r"""Returns the target of each edge; computed once for a matrix that lives on unchanged.

    Args:
        adj_t (torch.Tensor): The adjacency matrix (CSR), with targets as rows.
    """
    count = adj_t.crow_indices().diff()
    nodes = torch.arange(adj_t.size(0))
    return torch.repeat_interleave(nodes, count, output_size=adj_t.col_indices().numel())

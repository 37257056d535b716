import torch
import torch_geometric.utils
from torch import Tensor
from torch_geometric.typing import Adj

from bitgnn.kernels.memo import Memo
from bitgnn.kernels.sparse import (
    PAYS,
    check_before_backward,
    check_operand,
    from_scipy,
    is_fast,
    sparse_product,
    to_scipy,
    with_values,
)


def spmm(adj_t: Adj, x: Tensor, reduce: str = "sum") -> Tensor:
    r"""PyG's :func:`torch_geometric.utils.spmm`, which aggregates the features of neighbors, by
    the products of :mod:`bitgnn.kernels.sparse` where they apply, and of sparse features, too.

    Args:
        adj_t (torch.Tensor or SparseTensor): The adjacency matrix, with targets as rows.
        x (torch.Tensor): The features, dense or, where the adjacency matrix is in CSR form on a
            CPU and they need no gradient, a CSR matrix.
        reduce (str, optional): The aggregation, :obj:`"sum"` (or :obj:`"add"`),
            :obj:`"mean"`, :obj:`"min"` or :obj:`"max"`. (default: :obj:`"sum"`)

    Shapes:
        - **adj_t:** :math:`(N, M)`
        - **x:** :math:`(M, F)`
        - **output:** :math:`(N, F)`, in CSR form if :math:`\mathbf{x}` is and few entries
          differ from zero
    """
    # TorchScript knows no sparse layouts; a nested `if` keeps them out of its sight.
    if not torch.jit.is_scripting():  # noqa: SIM102
        if isinstance(adj_t, Tensor):
            return _of_matrix(adj_t, x, reduce)
    return torch_geometric.utils.spmm(adj_t, x, reduce)


@torch.jit.unused
def _of_matrix(adj_t: Tensor, x: Tensor, reduce: str) -> Tensor:
    sums = reduce in ("sum", "add", "mean")
    if sums and is_fast(adj_t) and not _learns_values(adj_t, x):
        return _fast(adj_t, x, reduce)
    return _of_torch(adj_t, x, reduce)


@torch.jit.unused
def _learns_values(adj_t: Tensor, x: Tensor) -> bool:
    """Whether values of a sparse matrix need a gradient, for which there are no kernels."""
    sparse_x = x.requires_grad and x.layout != torch.strided
    return torch.is_grad_enabled() and (adj_t.requires_grad or sparse_x)


@torch.jit.unused
def _of_torch(adj_t: Tensor, x: Tensor, reduce: str) -> Tensor:
    check_operand(adj_t, "edge_index")
    out = torch_geometric.utils.spmm(adj_t, x, reduce)
    return check_before_backward(out, adj_t, "edge_index")


@torch.jit.unused
def _fast(adj_t: Tensor, x: Tensor, reduce: str) -> Tensor:
    if reduce == "mean" or x.layout != torch.strided:
        check_operand(adj_t, "edge_index")
        check_operand(x, "x")
    if x.dtype in (torch.float16, torch.bfloat16):  # Sums over neighbors are those of 32 bits.
        return _fast(adj_t, x.float(), reduce).to(x.dtype)
    matrix = mean_matrix(adj_t) if reduce == "mean" else adj_t
    if x.layout == torch.strided:
        return sparse_product(matrix, x, name="edge_index")
    return _sparse_features(matrix, x)


@Memo
def mean_matrix(adj_t: Tensor) -> Tensor:
    r"""Returns a CSR matrix with each row divided by the number of its entries; computed once
    for a matrix that lives on unchanged.

    Args:
        adj_t (torch.Tensor): The matrix (CSR).
    """
    count = adj_t.crow_indices().diff()
    share = count.to(adj_t.dtype).reciprocal()
    share = torch.repeat_interleave(share, count, output_size=adj_t.values().numel())
    return with_values(adj_t, adj_t.values() * share)


def _sparse_features(adj_t: Tensor, x: Tensor) -> Tensor:
    out = to_scipy(adj_t) @ to_scipy(x.detach())
    if out.nnz > PAYS * adj_t.size(0) * x.size(1):
        return torch.from_numpy(out.toarray())
    out.sort_indices()
    return from_scipy(out)

"""The forms in which callers give a graph, checked and brought to one."""

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor

from bitgnn.kernels.plain import plain
from bitgnn.kernels.sparse import check_sparse

# PyG's layers treat self-loops and weights of these in three ways; see `PreparedGraph`.
EDGES, MATRIX, SPARSE_TENSOR = "edge_index", "sparse matrix", "SparseTensor"

MOST_NODES = 2**31 - 1  # Sources are kept in 32 bits.
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
NUMBERS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, *INTEGERS)


class Adjacency(NamedTuple):
    r"""Edges as they were given. Nodes are not checked yet: whoever sorts them does that.

    Args:
        form (str): :obj:`EDGES`, :obj:`MATRIX` or :obj:`SPARSE_TENSOR`.
        first (torch.Tensor): The target of each edge, or, with :obj:`by_target`, where the edges
            of each target start, and their number.
        source (torch.Tensor): The source of each edge.
        by_target (bool): Whether edges come by target.
        weight (torch.Tensor, optional): The weight of each edge, in 32 bits. (default: :obj:`None`)
        size (tuple, optional): The numbers of sources and targets: those of a matrix, or what an
            :class:`~torch_geometric.EdgeIndex` says. (default: :obj:`None`)
        has_merged (bool, optional): Whether several values of a COO matrix at one place were added.
            (default: :obj:`False`)
    """

    form: str
    first: Tensor
    source: Tensor
    by_target: bool
    weight: Tensor | None = None
    size: tuple[int, int] | None = None
    has_merged: bool = False


def adjacency(edge_index: Any, edge_weight: Any = None) -> Adjacency:
    r"""Returns the edges of a graph in any form that PyG's layers take.

    Args:
        edge_index (torch.Tensor or SparseTensor): The edges :math:`(2, |\mathcal{E}|)`, or the
            adjacency matrix (CSR, CSC or COO) with targets as rows.
        edge_weight (torch.Tensor, optional): The weights of the edges. (default: :obj:`None`)

    Raises:
        TypeError: If the edges are neither, or not in memory.
        ValueError: If shapes or types of the parts do not fit.
    """
    if isinstance(edge_index, SparseTensor):
        return _sparse_tensor(edge_index, edge_weight)
    if not isinstance(edge_index, Tensor):
        raise TypeError(
            f"'edge_index' must be edges or a sparse matrix (got {type(edge_index).__name__})"
        )
    edges = plain(edge_index, "edge_index")
    if edges.layout != torch.strided:
        return _matrix(edges, edge_weight)
    if edges.dtype not in INTEGERS or edges.dim() != 2 or edges.size(0) != 2:
        raise ValueError(
            f"'edge_index' must hold integers of shape (2, number of edges) (got "
            f"{edges.dtype} of shape {tuple(edges.shape)})"
        )
    edges = edges.long().contiguous()
    source, target = edges.unbind()
    weight = None if edge_weight is None else _weight(edge_weight, source.numel())
    size = _size_of(edge_index) if isinstance(edge_index, EdgeIndex) else None
    return Adjacency(EDGES, target, source, False, weight, size)


def number_of_nodes(num_nodes: Any, name: str = "num_nodes") -> int:
    r"""Returns a number of nodes that was given, as an integer.

    Args:
        num_nodes (int): The number.
        name (str, optional): The name of the argument. (default: :obj:`"num_nodes"`)

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is negative, or larger than packed models count.
    """
    try:
        if isinstance(num_nodes, bool) or getattr(num_nodes, "dtype", None) == torch.bool:
            raise TypeError  # Python and torch would take it for 0 or 1.
        found = operator.index(num_nodes)
    except TypeError:
        raise TypeError(f"'{name}' must be an integer (got {num_nodes!r})") from None
    if not 0 <= found <= MOST_NODES:
        raise ValueError(f"'{name}' must be from 0 to {MOST_NODES} (got {found})")
    return found


def _matrix(matrix: Tensor, edge_weight: Any) -> Adjacency:
    if edge_weight is not None:
        raise ValueError("The values of a sparse matrix are its weights: leave 'edge_weight'")
    if matrix.layout not in (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo):
        raise TypeError(
            f"'edge_index' must be a sparse matrix in CSR, CSC or COO form (got {matrix.layout})"
        )
    if matrix.dim() != 2:
        raise ValueError(f"'edge_index' must be a matrix (got {matrix.dim()} dimensions)")
    check_sparse(matrix, "edge_index")
    targets, sources = matrix.shape
    size, merged = (sources, targets), False
    if matrix.layout == torch.sparse_csr:
        first, source, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    elif matrix.layout == torch.sparse_csc:
        count = matrix.ccol_indices().diff()
        source = torch.arange(sources, device="cpu").repeat_interleave(count)
        first, values = matrix.row_indices(), matrix.values()
    else:
        given = matrix._nnz()
        matrix = matrix.coalesce()
        merged = matrix._nnz() < given
        (first, source), values = matrix.indices(), matrix.values()
    weight = _unless_ones(_weight(values, source.numel()))
    first, source = first.long().contiguous(), source.long().contiguous()
    by_target = matrix.layout == torch.sparse_csr
    return Adjacency(MATRIX, first, source, by_target, weight, size, merged)


def _sparse_tensor(matrix: Any, edge_weight: Any) -> Adjacency:
    if edge_weight is not None:
        raise ValueError("The values of a sparse matrix are its weights: leave 'edge_weight'")
    row, col, value = matrix.coo()
    row, col = (plain(each, "edge_index").long().contiguous() for each in (row, col))
    targets, sources = matrix.sizes()[:2]
    weight = None if value is None else _unless_ones(_weight(value, row.numel()))
    return Adjacency(SPARSE_TENSOR, row, col, False, weight, (sources, targets))


def _weight(weight: Any, count: int) -> Tensor:
    weight = plain(weight, "edge_weight")
    if weight.layout != torch.strided or weight.shape != (count,):
        raise ValueError(
            f"'edge_weight' has one number an edge, {count} (got shape {tuple(weight.shape)})"
        )
    if weight.dtype not in NUMBERS:
        raise ValueError(f"'edge_weight' must hold numbers (got {weight.dtype})")
    return weight.float().contiguous()


def _unless_ones(weight: Tensor) -> Tensor | None:
    return None if bool((weight == 1).all()) else weight


def _size_of(edge_index: EdgeIndex) -> tuple[int, int] | None:
    sources, targets = edge_index.sparse_size()
    return None if sources is None or targets is None else (sources, targets)

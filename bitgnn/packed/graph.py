r"""A graph that is looked at once and used many times."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.typing import Adj, SparseTensor
from torch_geometric.utils import add_self_loops, remove_self_loops

from bitgnn.kernels import native as kernels
from bitgnn.kernels.sparse import csr_matrix
from bitgnn.packed.program import Edges, Relation


class PreparedGraph:
    r"""The edges of a graph by target node, in every form that a model asks for, each of which is
    computed once.

    Args:
        edge_index (torch.Tensor or SparseTensor): The edges :math:`(2, |\mathcal{E}|)`, or the
            adjacency matrix with targets as rows.
        num_nodes (int or tuple, optional): The number of nodes; of sources and of targets, where
            these are nodes of two types. (default: :obj:`None`, what the edges show)
        edge_weight (torch.Tensor, optional): The weights of the edges.
            (default: :obj:`None`, all 1)

    Raises:
        TypeError: If the edges are neither.
        ValueError: If an edge has a node that is not there, or weights do not fit.
    """

    def __init__(
        self,
        edge_index: Adj,
        num_nodes: int | tuple[int, int] | None = None,
        edge_weight: Tensor | None = None,
    ) -> None:
        edges, weights, sizes = _edges_of(edge_index, edge_weight)
        least, most = _range(edges)
        if least < 0:
            raise ValueError(f"Nodes are counted from 0 (got {least} in 'edge_index')")
        if isinstance(num_nodes, tuple):
            sizes = sizes or _sizes(edges)
        else:
            sizes = (max(sizes or (most + 1,)),) * 2
            num_nodes = sizes if num_nodes is None else (int(num_nodes),) * 2
        self.num_sources, self.num_nodes = num_nodes
        for size, given in zip(sizes, num_nodes, strict=True):
            if given < size:
                raise ValueError(
                    f"Edges have nodes up to {size - 1}, more than num_nodes={given}: pass the "
                    "number of all nodes"
                )
        if weights is not None and weights.shape != edges.shape[1:]:
            raise ValueError(
                f"'edge_weight' has one number an edge, {edges.size(1)} (got shape "
                f"{tuple(weights.shape)})"
            )
        self.edge_index, self.edge_weight = edges, weights
        self._matrices: dict[Edges, Tensor] = {}
        self._native: dict[Edges, tuple[Any, Any]] = {}

    @property
    def num_edges(self) -> int:
        """The number of edges."""
        return self.edge_index.size(1)

    def matrix(self, edges: Edges) -> Tensor:
        r"""Returns the edges as a layer sums over them, as a sparse matrix (CSR) with targets as
        rows.

        Args:
            edges (Edges): What the layer makes of them.
        """
        if edges not in self._matrices:
            self._matrices[edges] = self._build(edges)
        return self._matrices[edges]

    def native(self, edges: Edges) -> Any:
        r"""Returns the same for the native engine.

        Args:
            edges (Edges): What the layer makes of them.
        """
        if edges not in self._native:
            library = kernels.library()
            gcn = edges.norm == "gcn"
            given = self.edge_weight if edges.weighted else None
            given = None if given is None else given.float().contiguous()
            total = self.num_edges + edges.self_loops * self.num_nodes
            # PyG's `gcn_norm` fills with 1 where edges have no weights, `improved` or not.
            fill = edges.fill if given is not None else 1.0
            index = self.edge_index.contiguous()
            source, target = index.data_ptr(), index.data_ptr() + 8 * self.num_edges
            crow = torch.empty(self.num_nodes + 1, dtype=torch.long)
            # Sources, weights and what nodes count for lie in one piece, which is soon got.
            counts = total, 0 if given is None else total, self.num_nodes * (gcn and given is None)
            piece = torch.empty(sum(counts), dtype=torch.int32)
            starts = accumulate(counts, initial=0)
            places = [
                piece.data_ptr() + 4 * start if count else 0
                for start, count in zip(starts, counts, strict=False)
            ]
            most = library.sort_edges(
                source, target, 0 if given is None else given.data_ptr(), self.num_edges,
                self.num_nodes, gcn, edges.self_loops, gcn, fill, crow.data_ptr(), *places,
            )  # fmt: skip
            sizes = self.num_nodes, most, self.num_sources
            made = library.Edges(crow.data_ptr(), *places, *sizes)
            self._native[edges] = made, (crow, piece)
        return self._native[edges][0]

    def _build(self, edges: Edges) -> Tensor:
        index = self.edge_index
        weight = self.edge_weight if edges.weighted else None
        if edges.norm == "gcn":
            index, weight = gcn_norm(
                index, weight, self.num_nodes, edges.fill == 2.0, edges.self_loops,
                dtype=torch.get_default_dtype(),
            )  # fmt: skip
        elif edges.self_loops:  # GAT's: one a node, in place of one that is there.
            index, _ = remove_self_loops(index)
            index, _ = add_self_loops(index, num_nodes=self.num_nodes)
        if weight is None:
            weight = torch.ones(index.size(1))
        order = torch.argsort(index[1], stable=True)
        count = torch.bincount(index[1], minlength=self.num_nodes)
        crow = F.pad(count.cumsum(0), (1, 0))
        shape = (self.num_nodes, self.num_sources)
        return csr_matrix(crow, index[0][order], weight[order], shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, num_edges={self.num_edges})"


class PreparedHeteroGraph:
    r"""The edges of a graph of several types of nodes and edges: a :class:`PreparedGraph` for each
    type of edges.

    Args:
        edge_index_dict (dict): The edges by type :obj:`(source, name, target)`.
        num_nodes (dict, optional): The number of nodes by type. (default: :obj:`None`, what the
            edges show)

    Raises:
        TypeError: If a type of edges is no such triplet.
        ValueError: If the edges of a type do not fit.
    """

    def __init__(
        self, edge_index_dict: Mapping[Relation, Adj], num_nodes: Mapping[str, int] | None = None
    ) -> None:
        self.graphs: dict[Relation, PreparedGraph] = {}
        self.num_nodes = dict(num_nodes or {})
        for relation, edge_index in edge_index_dict.items():
            if not isinstance(relation, tuple) or len(relation) != 3:
                raise TypeError(f"A type of edges is (source, name, target) (got {relation!r})")
            ends = relation[0], relation[2]
            if num_nodes is not None and not {*ends} <= {*num_nodes}:
                raise ValueError(f"'num_nodes' has {list(num_nodes)}, but not both of {ends}")
            if num_nodes is None:
                edges, _, sizes = _edges_of(edge_index, None)
                for end, size in zip(ends, sizes or _sizes(edges), strict=True):
                    self.num_nodes[end] = max(self.num_nodes.get(end, 0), size)
        for relation, edge_index in edge_index_dict.items():
            sources, targets = self.num_nodes[relation[0]], self.num_nodes[relation[2]]
            try:
                self.graphs[relation] = PreparedGraph(edge_index, (sources, targets))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{relation}: {error}") from None

    def __getitem__(self, relation: Relation) -> PreparedGraph:
        """Returns the edges of a type."""
        if relation not in self.graphs:
            raise ValueError(
                f"The model reads edges of type {relation}: pass them, (2, 0) if there are none"
            )
        return self.graphs[relation]

    def matrix(self, edges: Edges) -> Tensor:
        r"""Returns the edges as a layer sums over them; see :meth:`PreparedGraph.matrix`.

        Args:
            edges (Edges): What the layer makes of them.
        """
        assert edges.relation is not None
        return self[edges.relation].matrix(edges)

    def native(self, edges: Edges) -> Any:
        r"""Returns the same for the native engine.

        Args:
            edges (Edges): What the layer makes of them.
        """
        assert edges.relation is not None
        return self[edges.relation].native(edges)

    def __repr__(self) -> str:
        num_edges = {relation: graph.num_edges for relation, graph in self.graphs.items()}
        return f"{type(self).__name__}(num_nodes={self.num_nodes}, num_edges={num_edges})"


@overload
def prepare(
    edge_index: Mapping[Relation, Adj], num_nodes: Mapping[str, int] | None = None
) -> PreparedHeteroGraph: ...
@overload
def prepare(
    edge_index: Adj, num_nodes: int | None = None, edge_weight: Tensor | None = None
) -> PreparedGraph: ...
def prepare(edge_index: Any, num_nodes: Any = None, edge_weight: Tensor | None = None) -> Any:
    r"""Prepares a graph for packed models, once for all of them.

    Args:
        edge_index (torch.Tensor, SparseTensor or dict): The edges :math:`(2, |\mathcal{E}|)`, or
            the adjacency matrix with targets as rows; where there are several types of edges,
            those of each type.
        num_nodes (int or dict, optional): The number of nodes, or that of each type.
            (default: :obj:`None`, what the edges show)
        edge_weight (torch.Tensor, optional): The weights of the edges.
            (default: :obj:`None`, all 1)

    Raises:
        TypeError: If the edges are neither.
        ValueError: If an edge has a node that is not there, or weights do not fit.
    """
    if isinstance(edge_index, Mapping):
        if edge_weight is not None:
            raise ValueError("Of several types of edges none has weights: leave 'edge_weight'")
        return PreparedHeteroGraph(edge_index, num_nodes)
    return PreparedGraph(edge_index, num_nodes, edge_weight)


def _edges_of(
    edge_index: Adj, edge_weight: Tensor | None
) -> tuple[Tensor, Tensor | None, tuple[int, int] | None]:
    """Edges by source and target, their weights, and, of a matrix, the number of both."""
    if isinstance(edge_index, SparseTensor):
        row, col, value = edge_index.coo()
        targets, sources = edge_index.sizes()
        return torch.stack([col, row]), value, (sources, targets)
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"'edge_index' must be edges or a sparse matrix (got {type(edge_index)})")
    if edge_index.layout != torch.strided:
        if edge_weight is not None:
            raise ValueError("The values of a sparse matrix are its weights: leave 'edge_weight'")
        coo = edge_index.to_sparse_coo().coalesce()
        targets, sources = coo.shape
        return coo.indices().flip(0), coo.values(), (sources, targets)
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise ValueError(
            f"'edge_index' must hold integers of shape (2, number of edges) (got "
            f"{edge_index.dtype} of shape {tuple(edge_index.shape)})"
        )
    return edge_index.long(), edge_weight, None


def _range(nodes: Tensor) -> tuple[int, int]:
    """The least and the largest number of nodes."""
    if not nodes.numel():
        return 0, -1
    least, most = nodes.aminmax()
    return int(least), int(most)


def _sizes(edges: Tensor) -> tuple[int, int]:
    """The numbers of sources and of targets that edges speak of."""
    return _range(edges[0])[1] + 1, _range(edges[1])[1] + 1

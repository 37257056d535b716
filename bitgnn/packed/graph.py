r"""Graphs as packed models read them."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.typing import Adj

from bitgnn.kernels import native as kernels
from bitgnn.kernels.sparse import check_rows, csr_matrix
from bitgnn.packed.adjacency import (
    EDGES,
    MATRIX,
    SPARSE_TENSOR,
    Adjacency,
    adjacency,
    number_of_nodes,
)
from bitgnn.packed.program import Edges, Relation, Step

# What becomes of self-loops, as in csrc/graph.h.
NO_LOOPS, ADDED, REPLACED, KEPT = range(4)


class Rule(NamedTuple):
    """What a layer makes of the edges of a graph, given their form."""

    gcn: bool
    loops: int
    fill: float
    weighted: bool


class Rows(NamedTuple):
    """Edges by target, in one piece of memory: where those of each target start, the source of
    each, the weight of each, if they have weights, and a number for each node, if it is these that
    normalize edges."""

    memory: Tensor  # 64 bits; all but the first part is in 32
    targets: int
    room: int  # for so many edges
    weighted: bool = False
    noded: bool = False
    left_out: bool = False  # whether the last edge of each target is a self-loop that was added

    @staticmethod
    def empty(targets: int, room: int, weighted: bool, noded: bool) -> "Rows":
        """Returns memory for edges."""
        size = targets + 1 + (room * (1 + weighted) + targets * noded + 1) // 2
        memory = torch.empty(size, dtype=torch.int64, device="cpu")
        return Rows(memory, targets, room, weighted, noded)

    def edges(self, count: int, weighted: bool) -> tuple[tuple[int, int], ...]:
        """What the native library reads of edges: where each part is, and its bytes."""
        crow, size = self.memory.data_ptr(), 8 * (self.targets + 1)
        col = crow + size
        weight = (col + 4 * self.room, 4 * count) if weighted and self.weighted else (0, 0)
        return (crow, size), (col, 4 * count), weight

    def layout(self) -> tuple[tuple[int, int], int, bool, bool]:
        """What the native library needs to know to find the parts."""
        return kernels.span(self.memory), self.room, self.weighted, self.noded

    @property
    def crow(self) -> Tensor:
        """Where the edges of each target start, and their number."""
        return self.memory[: self.targets + 1]

    @property
    def col(self) -> Tensor:
        """The source of each edge, as far as there are edges."""
        return self._rest[: self.room]

    @property
    def weight(self) -> Tensor | None:
        """The weight of each edge."""
        return self._rest[self.room : 2 * self.room].view(torch.float32) if self.weighted else None

    @property
    def node(self) -> Tensor | None:
        """The number of each node."""
        if not self.noded:
            return None
        start = self.room * (1 + self.weighted)
        return self._rest[start : start + self.targets].view(torch.float32)

    @property
    def _rest(self) -> Tensor:
        return self.memory[self.targets + 1 :].view(torch.int32)


class PreparedGraph:
    r"""The edges of a graph, sorted by target node once, and in every form that a layer sums over,
    each of which is computed once.

    It holds a copy: whatever happens to the tensors that it was made of, it stays the same graph.
    Any number of threads may use it.

    The form in which a graph is given has a meaning, which is that of PyG's layers:

    ========================== =========================== ===========================
    form                       weights of edges            self-loops of GCN
    ========================== =========================== ===========================
    :obj:`edge_index`          for layers that are called  one a node; that of the
                               with :obj:`edge_weight`     graph is kept
    sparse matrix              for all layers but GAT      one a node, in addition to
                                                           those of the graph
    :obj:`SparseTensor`        for GCN and SGC             one a node, in place of
                                                           those of the graph
    ========================== =========================== ===========================

    Args:
        edge_index (torch.Tensor, EdgeIndex or SparseTensor): The edges
            :math:`(2, |\mathcal{E}|)`, or the adjacency matrix with targets as rows.
        num_nodes (int or tuple, optional): The number of nodes; of sources and of targets, where
            these are nodes of two types. (default: :obj:`None`, what the edges show)
        edge_weight (torch.Tensor, optional): The weights of the edges.
            (default: :obj:`None`, all 1)
        copy (bool, optional): If set to :obj:`False`, the edges are read when they are used; this
            is for a graph that is used in one call. (default: :obj:`True`)

    Raises:
        TypeError: If the edges are neither, or a number of nodes is no integer.
        ValueError: If an edge has a node that is not there, or weights do not fit.
    """

    def __init__(
        self,
        edge_index: Adj,
        num_nodes: int | tuple[int, int] | None = None,
        edge_weight: Tensor | None = None,
        copy: bool = True,
    ) -> None:
        given = adjacency(edge_index, edge_weight)
        self.num_sources, self.num_nodes = _sizes(given, num_nodes)
        self.form, self.num_edges = given.form, given.source.numel()
        self.has_weights = given.weight is not None
        self._doubles = True if given.has_merged else None
        self._given: Adjacency | None = given
        self._rows: Rows | None = None
        self._start()
        if copy:
            self._sorted()

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._matrices: dict[Edges, Tensor] = {}
        self._native: dict[Edges, tuple[Any, Rows | None]] = {}

    @property
    def borrowed(self) -> list[Tensor]:
        """The tensors of the caller that it still reads."""
        given = self._given
        parts = () if given is None else (given.first, given.source, given.weight)
        return [part for part in parts if part is not None]

    def matrix(self, edges: Edges) -> Tensor:
        r"""Returns the edges as a layer sums over them, as a sparse matrix (CSR) with targets as
        rows.

        Args:
            edges (Edges): What the layer makes of them.
        """
        found = self._matrices.get(edges)
        if found is None:
            with self._lock:
                found = self._matrices.get(edges)
                if found is None:
                    found = self._matrices[edges] = self._build(self._rule(edges))
        return found

    def native(self, edges: Edges) -> Any:
        r"""Returns the same for the native engine.

        Args:
            edges (Edges): What the layer makes of them.
        """
        made = self._native.get(edges)
        if made is None:
            with self._lock:
                made = self._native.get(edges)
                if made is None:
                    made = self._native[edges] = self._build_native(self._rule(edges))
        return made[0]

    def check_use(self, steps: Sequence[Step]) -> None:
        r"""Refuses weights that a model would not read as the trained one does.

        Args:
            steps (list): The steps of the model that read this graph.

        Raises:
            ValueError: If no step reads the weights, or what one makes of them is not known.
        """
        attends = self.form == MATRIX and any(step.op == "attend" for step in steps)
        if attends and self._has_doubles():
            raise ValueError(
                "'edge_index' is a sparse matrix with several values at one place, which PyG's "
                "attention takes for several edges or for one: pass edges, or a matrix with one"
            )
        if not self.has_weights:
            return
        read = [self._reads_weights(step) for step in steps]
        sums = [step.op == "aggregate" for step in steps]
        if self.form == EDGES:
            if not any(read):
                raise ValueError(
                    "The model reads no edge weights, neither in a layer nor as an argument called "
                    "'edge_weight' of its forward: leave 'edge_weight', or rename the argument"
                )
        elif not any(read) or read != sums:
            pairs = zip(steps, read, strict=True)
            unread = [step.name or step.op for step, each in pairs if not each]
            raise ValueError(
                f"The values of the {self.form} are not all 1, and are not read by {unread}: pass "
                "it with values of 1, or as 'edge_index'"
            )

    def _has_doubles(self) -> bool:
        """Whether several values of a sparse matrix are at one place, or were."""
        if self._doubles is None:
            target, source = self._ends(self._sorted())
            place = target * self.num_sources + source
            step = place.diff()
            if bool((step < 0).any()):
                step = place.sort().values.diff()
            self._doubles = bool((step == 0).any())
        return self._doubles

    def _reads_weights(self, step: Step) -> bool:
        assert step.edges is not None
        return step.op == "aggregate" and self._rule(step.edges).weighted

    def _rule(self, edges: Edges) -> Rule:
        """What PyG's layers make of edges in this form, in the words of `Edges`."""
        gcn, weighted = edges.norm == "gcn", self.has_weights
        if self.form == EDGES:
            weighted = weighted and edges.weighted
        elif self.form == SPARSE_TENSOR:
            weighted = weighted and (gcn or edges.weighted)
        if not edges.self_loops:
            return Rule(gcn, NO_LOOPS, 1.0, weighted)
        if not gcn:  # GAT's, which reads no weights.
            return Rule(gcn, REPLACED, 1.0, False)
        # `gcn_norm` fills edge_index without weights with 1, `improved` or not.
        fill = edges.fill if weighted or self.form != EDGES else 1.0
        loops = {EDGES: KEPT, MATRIX: ADDED, SPARSE_TENSOR: REPLACED}[self.form]
        return Rule(gcn, loops, fill, weighted or fill != 1.0)

    def _sorted(self) -> Rows:
        """The edges by target, which replace what was given."""
        with self._lock:
            if self._rows is None:
                if kernels.enabled():
                    self._rows = self._sort(Rule(False, NO_LOOPS, 1.0, self.has_weights))[0]
                else:
                    self._rows = self._sort_by_torch()
                self._given = None
            return self._rows

    def _build_native(self, rule: Rule) -> tuple[Any, Rows]:
        rows = self._rows
        if rows is not None and not (rule.gcn or rule.loops or rows.left_out):
            made = rows._replace(weighted=rule.weighted)
            most = int(rows.crow.diff().max()) if self.num_nodes else 0
        else:
            made, most = self._sort(rule)
            adds = rows is not None and rule.loops and not (rows.weighted or made.weighted)
            if adds and int(made.crow[-1]) == self.num_edges + self.num_nodes:
                # These are all edges of the graph, and more: they take the place of the former.
                self._rows = made._replace(noded=False, left_out=True)
        memory, *how = made.layout()
        sizes = most, self.num_sources
        return kernels.library().Edges(memory, self.num_nodes, *how, *sizes), made

    def _sort(self, rule: Rule) -> tuple[Rows, int]:
        """Sorts edges natively; also returns the number of edges of the target that has most."""
        sources, targets, count = self.num_sources, self.num_nodes, self.num_edges
        if (rule.gcn or rule.loops) and sources != targets:
            raise ValueError(
                f"Self-loops and normalization are for nodes of one type (got {sources} sources "
                f"and {targets} targets)"
            )
        room = count + targets if rule.loops else count
        try:
            made = Rows.empty(targets, room, rule.weighted, rule.gcn and not rule.weighted)
        except RuntimeError as error:
            raise ValueError(f"There is no memory for {targets} nodes and {count} edges") from error
        how = sources, targets, rule.gcn, rule.loops, rule.fill, *made.layout()
        given, rows, library = self._given, self._rows, kernels.library()
        if given is None:
            assert rows is not None
            stored = count + targets * rows.left_out
            edges = rows.edges(stored, rule.weighted)
            most = library.sort_rows(*edges, stored, rows.left_out, *how)
        else:
            weight = kernels.span(given.weight if rule.weighted else None)
            first, source = kernels.span(given.first), kernels.span(given.source)
            if given.by_target:
                most = library.sort_wide_rows(first, source, weight, count, False, *how)
            else:
                most = library.sort_edges(source, first, weight, count, *how)
        if most < 0:
            self._refuse()
        return made, most

    def _refuse(self) -> None:
        """Says what is wrong with edges that could not be sorted."""
        if self._given is not None:
            _check_nodes(self._given, self.num_sources, self.num_nodes)
        raise ValueError("'edge_index' was written to while it was read: pass a copy of it")

    def _sort_by_torch(self) -> Rows:
        given = self._given
        assert given is not None
        _check_nodes(given, self.num_sources, self.num_nodes)
        crow, source, weight = given.first, given.source, given.weight
        if not given.by_target:
            order = torch.argsort(given.first, stable=True)
            count = torch.bincount(given.first, minlength=self.num_nodes)
            crow = F.pad(count.cumsum(0), (1, 0))
            source, weight = source[order], None if weight is None else weight[order]
        rows = Rows.empty(self.num_nodes, source.numel(), weight is not None, False)
        rows.crow.copy_(crow)
        rows.col.copy_(source)
        if rows.weight is not None and weight is not None:
            rows.weight.copy_(weight)
        return rows

    def _ends(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The target and the source of each edge of the graph."""
        nodes = torch.arange(self.num_nodes, device="cpu")
        target = nodes.repeat_interleave(rows.crow.diff())
        source = rows.col[: target.numel()].long()
        if not rows.left_out:
            return target, source
        stays = torch.ones(target.numel(), dtype=torch.bool, device="cpu")
        stays[rows.crow[1:] - 1] = False
        return target[stays], source[stays]

    def _build(self, rule: Rule) -> Tensor:
        rows, nodes = self._sorted(), torch.arange(self.num_nodes, device="cpu")
        target, source = self._ends(rows)
        weight = rows.weight if rule.weighted else None
        if weight is None:
            weight = torch.ones(source.numel(), dtype=torch.float32, device="cpu")
        if rule.loops:
            own, same = weight.new_full((self.num_nodes,), rule.fill), source == target
            if rule.loops == KEPT and rule.weighted:
                own[target[same]] = weight[same]
            stays = same.new_ones(same.shape) if rule.loops == ADDED else ~same
            source, target = torch.cat([source[stays], nodes]), torch.cat([target[stays], nodes])
            weight = torch.cat([weight[stays], own])
        if rule.gcn:
            edges = torch.stack([source, target])
            _, weight = gcn_norm(edges, weight, self.num_nodes, add_self_loops=False)
        order = torch.argsort(target, stable=True)
        crow = F.pad(torch.bincount(target, minlength=self.num_nodes).cumsum(0), (1, 0))
        return csr_matrix(crow, source[order], weight[order], (self.num_nodes, self.num_sources))

    # What is computed of a graph goes with it when it is copied, but not what has addresses.

    def __getstate__(self) -> dict[str, Any]:
        self._sorted()
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("_lock", "_matrices", "_native")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()
        rows = self._rows
        assert rows is not None
        count, weighted = self.num_edges + rows.targets * rows.left_out, rows.weighted
        size = rows.targets + 1 + (rows.room * (1 + weighted) + 1) // 2
        fits = rows.targets == self.num_nodes and count <= rows.room
        fits = fits and rows.memory.dtype == torch.int64 and rows.memory.numel() >= size
        if not fits or weighted != self.has_weights:
            raise ValueError("'graph' is damaged: prepare it again")
        check_rows(rows.crow, rows.col[:count], (self.num_nodes, self.num_sources), count, "graph")

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
        if num_nodes is not None and not isinstance(num_nodes, Mapping):
            raise TypeError(
                "'num_nodes' must be a dict of each type's number of nodes (got "
                f"{type(num_nodes).__name__})"
            )
        self.graphs: dict[Relation, PreparedGraph] = {}
        given = dict(num_nodes or {}).items()
        self.num_nodes = {
            kind: number_of_nodes(size, f"num_nodes[{kind!r}]") for kind, size in given
        }
        for relation in edge_index_dict:
            ends = _ends(relation)
            if num_nodes is not None and not {*ends} <= {*num_nodes}:
                raise ValueError(f"'num_nodes' has {list(num_nodes)}, but not both of {ends}")
        for relation, edge_index in edge_index_dict.items():
            if num_nodes is None:
                with _about(relation):
                    sizes = _shown(adjacency(edge_index))
                for end, size in zip(_ends(relation), sizes, strict=True):
                    self.num_nodes[end] = max(self.num_nodes.get(end, 0), size)
        for relation, edge_index in edge_index_dict.items():
            source, target = _ends(relation)
            with _about(relation):
                sizes = self.num_nodes[source], self.num_nodes[target]
                self.graphs[relation] = PreparedGraph(edge_index, sizes)

    def check_use(self, steps: Sequence[Step]) -> None:
        r"""Refuses weights that a model would not read as the trained one does; see
        :meth:`PreparedGraph.check_use`.

        Args:
            steps (list): The steps of the model that read edges.
        """
        for relation, graph in self.graphs.items():
            with _about(relation):
                graph.check_use(
                    [step for step in steps if step.edges and step.edges.relation == relation]
                )

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


def _ends(relation: Any) -> tuple[str, str]:
    names = relation if isinstance(relation, tuple) else ()
    if len(names) != 3 or not all(isinstance(name, str) for name in names):
        raise TypeError(f"A type of edges is (source, name, target) (got {relation!r})")
    return names[0], names[2]


@contextmanager
def _about(relation: Relation) -> Iterator[None]:
    """Says of which type of edges an error speaks."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{relation}: {error}") from None


def _sizes(given: Adjacency, num_nodes: Any) -> tuple[int, int]:
    """The numbers of sources and of targets."""
    if isinstance(num_nodes, tuple):
        sources, targets = num_nodes
        sizes = number_of_nodes(sources), number_of_nodes(targets)
    elif num_nodes is None:
        sizes = _shown(given)
        if given.form == EDGES:
            sizes = (max(sizes),) * 2
    else:
        sizes = (number_of_nodes(num_nodes),) * 2
    if given.form == EDGES:
        return sizes
    assert given.size is not None
    if sizes != given.size:
        raise ValueError(
            f"'edge_index' is a matrix of shape {given.size[::-1]}, with targets as rows: there "
            f"must be as many sources and targets (got {sizes[0]} and {sizes[1]})"
        )
    if not isinstance(num_nodes, tuple) and sizes[0] != sizes[1]:
        raise ValueError(
            f"An adjacency matrix of one type of nodes is square (got shape {given.size[::-1]})"
        )
    return sizes


def _shown(given: Adjacency) -> tuple[int, int]:
    """The numbers of sources and of targets that edges tell, or speak of."""
    if given.size is not None:
        return given.size
    first, last = zip(*map(_range, (given.source, given.first)), strict=True)
    if min(first) < 0:
        raise ValueError(f"Nodes are counted from 0 (got {min(first)} in 'edge_index')")
    return last[0] + 1, last[1] + 1


def _check_nodes(given: Adjacency, num_sources: int, num_nodes: int) -> None:
    ends = [(given.source, num_sources)] + [(given.first, num_nodes)] * (not given.by_target)
    for nodes, size in ends:
        least, most = _range(nodes)
        if least < 0:
            raise ValueError(f"Nodes are counted from 0 (got {least} in 'edge_index')")
        if most >= size:
            raise ValueError(
                f"Edges have nodes up to {most}, more than num_nodes={size}: pass the number of "
                "all nodes"
            )


def _range(nodes: Tensor) -> tuple[int, int]:
    """The least and the largest number of nodes."""
    if not nodes.numel():
        return 0, -1
    least, most = nodes.aminmax()
    return int(least), int(most)

r"""The edges of a graph by target, of which a range of targets is taken at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.typing import Adj

from bitgnn.kernels.sparse import check_sparse, csr_matrix

CHUNK = 2**24  # Edges that are looked at together.


class Range(NamedTuple):
    """Some nodes, one after the other."""

    start: int
    stop: int

    @property
    def slice(self) -> slice:
        """What selects their rows."""
        return slice(self.start, self.stop)


class Block(NamedTuple):
    r"""The edges of a range of targets.

    Args:
        targets (Range): The targets.
        crow (torch.Tensor): Where the edges of each target start, and their number.
        col (torch.Tensor): The source of each edge.
        weight (torch.Tensor, optional): The weight of each edge.
    """

    targets: Range
    crow: Tensor
    col: Tensor
    weight: Tensor | None

    def matrix(self, num_sources: int, dtype: torch.dtype) -> Tensor:
        r"""Returns the edges as a sparse matrix (CSR) with targets as rows.

        Args:
            num_sources (int): The number of columns.
            dtype (torch.dtype): The type of its values, which are 1 where edges have no weights.
        """
        weight = self.weight
        ones = self.crow.new_ones(self.col.shape, dtype=dtype)
        values = ones if weight is None else weight.to(dtype)
        return csr_matrix(self.crow, self.col, values, (self.crow.numel() - 1, num_sources))

    def edge_index(self) -> Tensor:
        """The edges by source and target, where targets are counted within the range."""
        rows = torch.arange(self.crow.numel() - 1, device=self.crow.device)
        return torch.stack([self.col, rows.repeat_interleave(self.crow.diff())])

    def gathered(self) -> tuple["Block", Tensor]:
        """The same edges between fewer sources, and which these are: first the targets
        themselves, then the others."""
        start, stop = self.targets
        inside = (self.col >= start) & (self.col < stop)
        others, place = self.col[~inside].unique(return_inverse=True)
        col = self.col - start
        col[~inside] = place + (stop - start)
        nodes = torch.cat([torch.arange(start, stop), others])
        return self._replace(col=col), nodes

    def to(self, device: torch.device) -> "Block":
        """The same edges on a device."""
        weight = None if self.weight is None else self.weight.to(device)
        return self._replace(crow=self.crow.to(device), col=self.col.to(device), weight=weight)


class EdgesByTarget:
    r"""The edges of a graph by target node. Edges that come so already are not copied, whether they
    lie in memory or in a file.

    Args:
        edge_index (torch.Tensor): The edges :math:`(2, |\mathcal{E}|)`, or the adjacency matrix
            in CSR form with targets as rows.
        num_nodes (int): The number of nodes.
        edge_weight (torch.Tensor, optional): The weights of the edges. (default: :obj:`None`)

    Raises:
        TypeError: If the edges are neither.
        ValueError: If an edge has a node that is not there, or weights do not fit.
    """

    def __init__(self, edge_index: Adj, num_nodes: int, edge_weight: Tensor | None = None) -> None:
        self.num_nodes, self.is_matrix = num_nodes, False
        self._normalizations: dict[tuple[bool, float], Tensor] = {}
        if isinstance(edge_index, Tensor) and edge_index.layout == torch.sparse_csr:
            if edge_weight is not None:
                raise ValueError(
                    "The values of a sparse matrix are its weights: leave 'edge_weight'"
                )
            if tuple(edge_index.shape) != (num_nodes, num_nodes):
                raise ValueError(
                    f"The adjacency matrix has one row and column a row of 'x', {num_nodes} (got "
                    f"shape {tuple(edge_index.shape)})"
                )
            self.is_matrix = True
            check_sparse(edge_index, "edge_index")
            self.crow, self.col = edge_index.crow_indices(), edge_index.col_indices()
            values = edge_index.values()
            self.weight = None if bool((values == 1).all()) else values
            return
        _check(edge_index, num_nodes, edge_weight)
        source, target = edge_index
        count = torch.bincount(target, minlength=num_nodes)
        self.crow = F.pad(count.cumsum(0), (1, 0))
        self.col, self.weight = source, edge_weight
        if not _ascends(target):
            order = torch.argsort(target, stable=True)
            self.col = source[order]
            self.weight = None if edge_weight is None else edge_weight[order]

    def ranges(self, batch_size: int) -> Iterator[Range]:
        """All nodes, so many at a time."""
        for start in range(0, self.num_nodes, batch_size):
            yield Range(start, min(start + batch_size, self.num_nodes))

    def block(self, targets: Range, loops: bool = False, fill: float | None = None) -> Block:
        r"""Returns the edges of some targets, in their order.

        Args:
            targets (Range): The targets.
            loops (bool, optional): If set to :obj:`True`, each target gets an edge to itself, its
                last, in place of those that it has. (default: :obj:`False`)
            fill (float, optional): The weight of this edge where the graph has none; that of one
                which is there is kept. In a matrix, where PyG's normalization adds such edges,
                those of the graph stay. (default: :obj:`None`, 1 for all)
        """
        crow = self.crow[targets.start : targets.stop + 1]
        first, last = int(crow[0]), int(crow[-1])
        col, crow = self.col[first:last].long(), (crow - first).long()
        weight = None if self.weight is None else self.weight[first:last]
        block = Block(targets, crow, col, weight)
        return _with_loops(block, fill, self.is_matrix and fill is not None) if loops else block

    def normalization(self, batch_size: int, loops: bool, fill: float) -> Tensor:
        r"""Returns :math:`\mathbf{\hat{D}}^{-1/2}`, a number a node, which is computed once.

        Args:
            batch_size (int): The targets whose edges are looked at together.
            loops (bool): As in :meth:`block`.
            fill (float): As in :meth:`block`.
        """
        if (loops, fill) not in self._normalizations:
            degrees = torch.zeros(self.num_nodes, dtype=torch.double)
            for targets in self.ranges(batch_size):
                block = self.block(targets, loops, fill)
                if block.weight is None:
                    degrees[targets.slice] = block.crow.diff().double()
                else:
                    row = block.edge_index()[1]
                    degrees[targets.slice].scatter_add_(0, row, block.weight.double())
            inverse = degrees.pow_(-0.5)
            self._normalizations[loops, fill] = inverse.masked_fill_(inverse == torch.inf, 0.0)
        return self._normalizations[loops, fill]


def _with_loops(block: Block, fill: float | None, adds: bool) -> Block:
    (start, stop), crow, col, weight = block
    if adds and weight is None and fill != 1.0:
        weight = torch.ones(col.shape)
    nodes = torch.arange(start, stop)
    row = nodes.repeat_interleave(crow.diff())
    own = None if weight is None else weight.new_full((len(nodes),), 1.0 if fill is None else fill)
    same = row == col
    if not adds and bool(same.any()):
        if own is not None and weight is not None and fill is not None:
            own[row[same] - start] = weight[same]
        others = ~same
        row, col = row[others], col[others]
        weight = None if weight is None else weight[others]
        crow = F.pad(torch.bincount(row - start, minlength=len(nodes)).cumsum(0), (1, 0))
    # Each edge moves on by the loops of the targets before.
    crow = crow + torch.arange(len(crow))
    place, loop = row.sub_(start).add_(torch.arange(len(row))), crow[1:] - 1
    size = len(col) + len(nodes)
    col = col.new_empty(size).scatter_(0, place, col).scatter_(0, loop, nodes)
    if weight is not None and own is not None:
        weight = weight.new_empty(size).scatter_(0, place, weight).scatter_(0, loop, own)
    return Block(block.targets, crow, col, weight)


def _check(edge_index: Adj, num_nodes: int, edge_weight: Tensor | None) -> None:
    if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided:
        raise TypeError(
            "'edge_index' must be edges (2, number of edges) or a sparse matrix in CSR form "
            f"(got {getattr(edge_index, 'layout', type(edge_index).__name__)})"
        )
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise ValueError(
            f"'edge_index' must hold integers of shape (2, number of edges) (got "
            f"{edge_index.dtype} of shape {tuple(edge_index.shape)})"
        )
    _check_nodes(edge_index, num_nodes)
    if edge_weight is not None and edge_weight.shape != edge_index.shape[1:]:
        raise ValueError(
            f"'edge_weight' has one number an edge, {edge_index.size(1)} (got shape "
            f"{tuple(edge_weight.shape)})"
        )


def _check_nodes(nodes: Tensor, num_nodes: int) -> None:
    if nodes.numel() == 0:
        return
    low, high = int(nodes.min()), int(nodes.max())
    if low < 0 or high >= num_nodes:
        raise ValueError(
            f"Edges have nodes from {low} to {high}, but 'x' has rows 0 to {num_nodes - 1}"
        )


def _ascends(numbers: Tensor) -> bool:
    # In pieces: the differences of all edges would take as much memory as the edges.
    for start in range(0, max(numbers.numel() - 1, 0), CHUNK):
        piece = numbers[start : start + CHUNK + 1]
        if not bool((piece[1:] >= piece[:-1]).all()):
            return False
    return True

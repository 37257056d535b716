r"""All nodes of a graph, range by range: what rows become one by one, and what they read over
edges."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from bitgnn.nn.layerwise.edges import EdgesByTarget, Range
from bitgnn.nn.layerwise.layers import Bipartite, Layer
from bitgnn.nn.layerwise.storage import Storage

Rows = Callable[..., Tensor]
Step = tuple[str, Layer, Rows | None]  # its name, the layer, and what follows on each row
Tell = Callable[[str, int, int], None]


class Passes:
    r"""Passes over all nodes, each range by range.

    Args:
        storage (Storage): Where rows of all nodes are kept.
        num_nodes (int): The number of nodes.
        batch_size (int): The nodes of a range.
        device (torch.device): Where is computed. What edges read is gathered for another one than
            the CPU, where it stays in its place.
        tell (callable): Is told what is done, of how many nodes, and how many there are.
    """

    def __init__(
        self,
        storage: Storage,
        num_nodes: int,
        batch_size: int,
        device: torch.device,
        tell: Tell,
    ) -> None:
        self.storage, self.num_nodes, self.batch_size = storage, num_nodes, batch_size
        self.device, self.tell = device, tell
        self.gathers = device.type != "cpu"

    def by_row(self, name: str, make: Rows, *xs: Tensor) -> Tensor:
        """Applies to each row by itself, or to rows of several matrices."""
        (out,) = self._fill(name, lambda nodes: (make(*self._take(xs, nodes)),))
        return out

    def through(
        self, graph: EdgesByTarget, steps: Iterable[Step], x: Tensor, keep: bool = False
    ) -> list[Tensor]:
        """Applies layers one after the other. Returns the output of the last one, or, if it is to
        keep them, of all; nothing else is held longer than it is read."""
        kept: list[Tensor] = []
        for name, layer, then in steps:
            read = self._fill(name, partial(self._rows, layer, x), same=x)
            self._free((x,), but=(*read, *kept))
            del x
            x = self._fill(f"{name}, edges", partial(self._edges, layer, graph, read, then))[0]
            self._free(read, but=kept)
            del read
            if keep:
                kept.append(x)
        return kept or [x]

    def _rows(self, layer: Layer, x: Tensor, nodes: Range) -> tuple[Tensor, ...]:
        return layer.rows(x[nodes.slice].to(self.device), nodes)

    def _edges(
        self,
        layer: Layer,
        graph: EdgesByTarget,
        read: tuple[Tensor, ...],
        then: Rows | None,
        nodes: Range,
    ) -> tuple[Tensor, ...]:
        block, sources = graph.block(nodes, layer.loops, layer.fill), read
        if self.gathers or isinstance(layer, Bipartite):
            block, places = block.gathered()
            sources = tuple(each[places].to(self.device) for each in read)
        out = layer.edges(block.to(self.device), sources, self._take(read, nodes))
        return (out if then is None else then(out),)

    def _free(self, matrices: Iterable[Tensor], but: Iterable[Tensor]) -> None:
        for matrix in matrices:
            if not any(matrix is other for other in but):
                self.storage.free(matrix)

    def _take(self, xs: Sequence[Tensor], nodes: Range) -> tuple[Tensor, ...]:
        return tuple(x[nodes.slice].to(self.device) for x in xs)

    def _fill(
        self, name: str, make: Callable[[Range], tuple[Tensor, ...]], same: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Fills matrices range by range; what only hands a matrix on is not copied."""
        outs: tuple[Tensor, ...] = ()
        for start in range(0, max(self.num_nodes, 1), self.batch_size):
            nodes = Range(start, min(start + self.batch_size, self.num_nodes))
            made = make(nodes)
            if same is not None and len(made) == 1 and _is_view(made[0], same, nodes):
                return (same,)
            if not outs:
                outs = tuple(
                    self.storage.empty(self.num_nodes, each.size(1), each.dtype) for each in made
                )
            for each, rows in zip(outs, made, strict=True):
                each[nodes.slice] = rows
            self.tell(name, nodes.stop, self.num_nodes)
        return outs


def _is_view(rows: Tensor, x: Tensor, nodes: Range) -> bool:
    """Whether rows are those of a matrix, and not only equal to them."""
    there = x[nodes.slice]
    same = rows.data_ptr() == there.data_ptr() and rows.shape == there.shape
    return same and x.is_contiguous()  # Else each sum over edges would copy it.

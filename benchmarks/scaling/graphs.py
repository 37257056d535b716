"""Random graphs on disk, written in pieces and read by mapping them into memory."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitgnn.experiment.speed.graphs import SHAPES as SMALL
from bitgnn.experiment.speed.graphs import Shape, draw_sources

SHAPES = {"arxiv": SMALL["arxiv"], "products": Shape(2_449_029, 123_718_280, 100, 47)}
PIECE = 2**23  # edges, or numbers of features, that are drawn at once


class Graph(NamedTuple):
    """Features and edges, the latter by target."""

    x: Tensor
    edge_index: Tensor

    @property
    def num_nodes(self) -> int:
        """The number of nodes."""
        return self.x.size(0)


def part_of(shape: Shape, part: float) -> Shape:
    r"""Returns a shape with a part of the nodes and as many edges a node.

    Args:
        shape (Shape): The shape.
        part (float): The part.

    Raises:
        ValueError: If there are not so many edges between so few nodes.
    """
    nodes, edges = (round(part * count) for count in (shape.num_nodes, shape.num_edges))
    if edges > nodes * (nodes - 1) // 2:
        raise ValueError(f"{nodes} nodes have no room for {edges} edges: take a larger part")
    return Shape(nodes, edges, shape.num_features, shape.num_classes)


def write_graph(shape: Shape, folder: Path, seed: int = 0) -> None:
    r"""Writes a graph: sources follow the power law of
    :func:`bitgnn.experiment.speed.graphs.random_graph`, each range of targets gets its share of the
    edges, none is there twice and none leads from a node to itself. It takes the memory of a piece.

    Args:
        shape (Shape): Its size.
        folder (Path): Where to.
        seed (int, optional): The seed. (default: :obj:`0`)
    """
    generator = torch.Generator().manual_seed(seed)
    nodes, edges = shape.num_nodes, shape.num_edges
    called = torch.randperm(nodes, generator=generator)
    index = np.memmap(folder / "edges", np.int64, "w+", shape=(2, edges))
    pieces = max(1, -(-edges // PIECE))
    for piece in range(pieces):
        first, last = (nodes * each // pieces for each in (piece, piece + 1))
        start, stop = (edges * each // nodes for each in (first, last))
        keys = _draw(called, range(first, last), stop - start, generator)
        index[0, start:stop], index[1, start:stop] = keys % nodes, keys // nodes
    x = np.memmap(folder / "x", np.float32, "w+", shape=(nodes, shape.num_features))
    for start in range(0, nodes, PIECE // shape.num_features):
        rows = x[start : start + PIECE // shape.num_features]
        rows[:] = torch.randn(rows.shape, generator=generator)


def _draw(called: Tensor, targets: range, count: int, generator: torch.Generator) -> Tensor:
    """So many edges to some targets, each as a number that grows with target, then source."""
    nodes, keys = len(called), torch.empty(0, dtype=torch.long)
    while len(keys) < count:
        size = count - len(keys) + count // 16 + 16  # Some will be there twice.
        source = draw_sources(called, size, generator)
        target = torch.randint(targets.start, targets.stop, (size,), generator=generator)
        keys = torch.cat([keys, (nodes * target + source)[source != target]]).unique()
    kept = torch.randperm(len(keys), generator=generator)[:count]
    return keys[kept.sort().values]


def read_graph(shape: Shape, folder: Path) -> Graph:
    r"""Returns a graph that was written, mapped into memory.

    Args:
        shape (Shape): Its size.
        folder (Path): Where it is.
    """
    nodes, edges, width = shape.num_nodes, shape.num_edges, shape.num_features
    x = torch.from_file(str(folder / "x"), size=nodes * width).view(nodes, width)
    index = torch.from_file(str(folder / "edges"), size=2 * edges, dtype=torch.long)
    return Graph(x, index.view(2, edges))

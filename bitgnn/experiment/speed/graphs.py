"""Graphs to time models on: real ones, and random ones with the shape of a larger one."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_torch_csr_tensor

from bitgnn.data import task
from bitgnn.kernels.sparse import is_sparse


@dataclass(frozen=True)
class Shape:
    r"""What is kept of a graph when its edges are drawn at random.

    Args:
        num_nodes (int): The number of nodes.
        num_edges (int): The number of directed edges.
        num_features (int): The width of the features.
        num_classes (int): The number of classes.
    """

    num_nodes: int
    num_edges: int
    num_features: int
    num_classes: int


# `request` is what a query for one node takes: its neighbourhood of two hops.
SHAPES = {
    "arxiv": Shape(169_343, 2_315_598, 128, 40),
    "request": Shape(250, 600, 128, 40),
}


def random_graph(shape: Shape, seed: int = 0) -> Data:
    r"""Returns a graph whose edges come from few nodes often and go to all alike: the node of rank
    :math:`r` is a source with a probability in proportion to :math:`r^{-2/3}`, so that degrees
    follow a power law with exponent 2.5. No edge is there twice, none leads from a node to itself,
    and what nodes are called says nothing of their rank. Features are drawn from a normal
    distribution.

    Args:
        shape (Shape): Its size.
        seed (int, optional): The seed. (default: :obj:`0`)
    """
    generator, nodes = torch.Generator().manual_seed(seed), shape.num_nodes
    called = torch.randperm(nodes, generator=generator)
    edges = torch.empty(0, dtype=torch.long)
    while len(edges) < shape.num_edges:
        size = (shape.num_edges,)
        source = draw_sources(called, shape.num_edges, generator)
        target = torch.randint(nodes, size, generator=generator)
        more = (nodes * source + target)[source != target]
        edges = torch.cat([edges, more]).unique()
    edges = edges[torch.randperm(len(edges), generator=generator)[: shape.num_edges]]
    edge_index = torch.stack([edges // nodes, edges % nodes])
    x = torch.randn(nodes, shape.num_features, generator=generator)
    return Data(x=x, edge_index=edge_index, num_nodes=nodes)


def draw_sources(called: Tensor, count: int, generator: torch.Generator) -> Tensor:
    r"""Returns sources of edges: the node of rank :math:`r` with a probability in proportion to
    :math:`r^{-2/3}`.

    Args:
        called (torch.Tensor): The node of each rank.
        count (int): How many.
        generator (torch.Generator): What draws.
    """
    share = torch.rand(count, generator=generator, dtype=torch.double)
    return called[(len(called) * share**3).long()]


def graph_of(name: str, root: str | None = None) -> tuple[Data, int]:
    r"""Returns a graph and its number of classes.

    Args:
        name (str): One of :obj:`SHAPES` or a data set.
        root (str, optional): Where data sets lie. (default: :obj:`None`)
    """
    if name in SHAPES:
        return random_graph(SHAPES[name]), SHAPES[name].num_classes
    t = task(name, root)
    return Data(x=t.data.x, edge_index=t.data.edge_index, num_nodes=t.num_nodes), t.num_classes


def sparse_features(x: Tensor) -> Tensor:
    r"""Returns features as a sparse matrix if few enough of them are not 0.

    Args:
        x (torch.Tensor): The features.
    """
    return x.to_sparse_csr() if is_sparse(x) else x


def csr(edge_index: Tensor, num_nodes: int) -> Tensor:
    r"""Returns the adjacency matrix, targets as rows, in PyG's faster form.

    Args:
        edge_index (torch.Tensor): The edges.
        num_nodes (int): The number of nodes.
    """
    return to_torch_csr_tensor(edge_index.flip(0), size=num_nodes)

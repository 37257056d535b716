r"""What the steps of an epoch see: the whole graph, or parts of it.

Row scales belong to nodes and weight scales to layers: what is quantized does not depend on the
batch that a node is in.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric import typing as pyg
from torch_geometric.data import Data
from torch_geometric.loader import (
    ClusterData,
    ClusterLoader,
    GraphSAINTRandomWalkSampler,
    NeighborLoader,
    RandomNodeLoader,
)
from torch_geometric.nn import MLP
from torch_geometric.utils import sort_edge_index

from bitgnn.data import Split, Task
from bitgnn.nn import BitSGC, layerwise_inference, static_inputs
from bitgnn.training.distributed import ALONE, Group
from bitgnn.training.inputs import edges_for, model_inputs, normalize_features
from bitgnn.training.order import Order
from bitgnn.training.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    r"""What a step sees.

    Args:
        x (torch.Tensor): The features.
        graph (tuple): What else the model is called with: edges, or nothing.
        nodes (torch.Tensor, optional): The nodes of the graph that the step learns from, which the
            first rows of the output belong to; :obj:`None` for all of them, in their order.
    """

    x: Tensor
    graph: tuple[Tensor, ...]
    nodes: Tensor | None = None

    def outputs(self, out: Tensor) -> Tensor:
        """Returns the rows of an output that belong to :obj:`nodes`."""
        return out if self.nodes is None else out[: self.nodes.numel()]


class Batches(Protocol):
    """The steps of a training run, and what the model says after them."""

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the batches of an epoch, the same for the same number and random state."""
        ...

    def logits(self) -> Tensor:
        """Returns the logits of all nodes, each by all its neighbors, in evaluation."""
        ...


def build_batches(
    model: nn.Module,
    t: Task,
    split: Split,
    recipe: Recipe,
    seed: int = 0,
    device: str | torch.device = "cpu",
    group: Group = ALONE,
) -> Batches:
    r"""Returns the steps of a training run.

    Sampled neighborhoods (:class:`~torch_geometric.loader.NeighborLoader`) lead from the nodes of
    a batch outwards; the others are subgraphs, with the edges among their nodes: random parts
    (:class:`~torch_geometric.loader.RandomNodeLoader`), random walks
    (:class:`~torch_geometric.loader.GraphSAINTRandomWalkSampler`) and clusters
    (:class:`~torch_geometric.loader.ClusterLoader`). GCN normalizes by the degrees within a batch,
    as PyG's examples do. An MLP sees no graph: each of these gives it rows of the features.

    A step learns from the training nodes of its batch and, with a teacher, from all of its nodes;
    so without one, neighborhoods are those of training nodes, and with one, those of all nodes.

    Args:
        model (torch.nn.Module): The model.
        t (Task): The data set.
        split (Split): The nodes that train.
        recipe (Recipe): The hyper-parameters.
        seed (int, optional): Of the order of nodes. (default: :obj:`0`)
        device (str or torch.device, optional): Where batches go. (default: :obj:`"cpu"`)
        group (Group, optional): The processes that share each step. (default: this one alone)

    Raises:
        ValueError: If the recipe's batches need a package that is not there, or several processes
            are to share steps that each see the whole graph.
    """
    if recipe.batch is None:
        if group.size > 1:
            raise ValueError(
                f"{group.size} processes cannot share steps that see the whole graph: set "
                "batch=neighbor or batch=random (--set batch=random)"
            )
        return WholeGraph(model, t, recipe, device)
    nodes = split.train.nonzero().view(-1) if recipe.teacher is None else torch.arange(t.num_nodes)
    if isinstance(model, MLP):
        return Rows(model, t, recipe, nodes, seed, device, group)
    return Parts(model, t, recipe, nodes, seed, device, group)


class WholeGraph:
    """One step an epoch, that sees the whole graph."""

    def __init__(
        self, model: nn.Module, t: Task, recipe: Recipe, device: str | torch.device
    ) -> None:
        self.model = model
        self.x, *self.graph = model_inputs(model, t, recipe, device)
        self.static = static_inputs(self.x, *self.graph)  # Nothing here writes to them.

    def epoch(self, number: int) -> Iterator[Batch]:
        with self.static:
            yield Batch(self.x, tuple(self.graph))

    @torch.no_grad()
    def logits(self) -> Tensor:
        with self.static:
            return self.model.eval()(self.x, *self.graph)


class Rows:
    """Nodes without their graph."""

    def __init__(
        self,
        model: nn.Module,
        t: Task,
        recipe: Recipe,
        nodes: Tensor,
        seed: int,
        device: str | torch.device,
        group: Group,
    ) -> None:
        self.model, self.device = model, torch.device(device)
        self.x = normalize_features(t.data.x, recipe.feature_norm)
        self.nodes, self.size = nodes, recipe.batch_size
        self.order = Order(nodes.numel(), recipe.batch_size, seed, group)

    def epoch(self, number: int) -> Iterator[Batch]:
        for positions in torch.tensor(list(self.order.of(number))).split(self.size):
            nodes = self.nodes[positions]
            yield Batch(self.x[nodes].to(self.device), (), nodes.to(self.device))

    def logits(self) -> Tensor:
        return layerwise_inference(self.model.eval(), self.x, device=self.device).to(self.device)


class Parts:
    """Parts of a graph, by one of PyG's loaders."""

    def __init__(
        self,
        model: nn.Module,
        t: Task,
        recipe: Recipe,
        nodes: Tensor,
        seed: int,
        device: str | torch.device,
        group: Group,
    ) -> None:
        self.model, self.device = model, torch.device(device)
        self.x = normalize_features(t.data.x, recipe.feature_norm)
        # In the order in which inference reads them.
        self.edge_index = sort_edge_index(t.data.edge_index, sort_by_row=False)
        depth = recipe.K if isinstance(model, BitSGC) else recipe.num_layers
        load = LOADERS[str(recipe.batch)]
        data = Data(x=self.x, edge_index=self.edge_index, n_id=torch.arange(t.num_nodes))
        self.loader, self.order = load(data, recipe, depth, nodes, seed, group)

    def epoch(self, number: int) -> Iterator[Batch]:
        if self.order is not None:
            self.order.of(number)
        for part in self.loader:
            # Only neighborhoods have nodes that are there for others to see.
            learned = part.n_id[: getattr(part, "batch_size", None)]
            x = part.x.to(self.device)
            edges = edges_for(self.model, part.edge_index, x.size(0), x.dtype, self.device)
            with static_inputs(edges):
                yield Batch(x, (edges,), learned.to(self.device))

    def logits(self) -> Tensor:
        model, device = self.model.eval(), self.device
        return layerwise_inference(model, self.x, self.edge_index, device=device).to(device)


Loader = tuple[DataLoader, Order | None]


def _neighbor(
    data: Data, recipe: Recipe, depth: int, nodes: Tensor, seed: int, group: Group
) -> Loader:
    if not pyg.WITH_PYG_LIB:
        _check_torch_sparse("neighbor")
    order = Order(nodes.numel(), recipe.batch_size, seed, group)
    given = recipe.num_neighbors[:depth]
    hops = [*given, *[given[-1]] * (depth - len(given))]
    loader = NeighborLoader(data, hops, nodes, batch_size=recipe.batch_size, sampler=order)
    return loader, order


def _random(
    data: Data, recipe: Recipe, depth: int, nodes: Tensor, seed: int, group: Group
) -> Loader:
    total = _check_parts(data, recipe)
    order = Order(total, math.ceil(total / recipe.num_parts), seed, group)
    return RandomNodeLoader(data, recipe.num_parts, sampler=order), order


def _saint(
    data: Data, recipe: Recipe, depth: int, nodes: Tensor, seed: int, group: Group
) -> Loader:
    _check_torch_sparse("saint")
    # An epoch sees about as many nodes as the graph has.
    steps = math.ceil(int(data.num_nodes or 0) / (recipe.batch_size * (depth + 1) * group.size))
    return GraphSAINTRandomWalkSampler(data, recipe.batch_size, depth, steps), None


def _cluster(
    data: Data, recipe: Recipe, depth: int, nodes: Tensor, seed: int, group: Group
) -> Loader:
    _check_parts(data, recipe)
    try:
        clusters = ClusterData(data, recipe.num_parts, log=False)
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"batch='cluster' needs METIS, in pyg-lib or in a torch-sparse that was compiled with "
            f"it ({str(error).splitlines()[0]}): install one, or set batch='random'"
        ) from None
    order = Order(len(clusters), recipe.batch_size, seed, group)
    return ClusterLoader(clusters, batch_size=recipe.batch_size, sampler=order), order


LOADERS = {"neighbor": _neighbor, "random": _random, "saint": _saint, "cluster": _cluster}


def _check_parts(data: Data, recipe: Recipe) -> int:
    total = int(data.num_nodes or 0)
    if recipe.num_parts > total:
        raise ValueError(
            f"'num_parts' must be at most {total}, the number of nodes (got {recipe.num_parts})"
        )
    return total


def _check_torch_sparse(name: str) -> None:
    if not pyg.WITH_TORCH_SPARSE:
        raise ValueError(
            f"batch='{name}' needs torch-sparse: `pip install --no-build-isolation torch-scatter "
            f"torch-sparse`, or set batch='random', which needs neither"
        )

"""What is measured: a model on a graph, in training or inference."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.scaling.graphs import SHAPES, Graph, part_of, read_graph
from bitgnn.data import Split, Task
from bitgnn.data.splits import FixedSplit
from bitgnn.experiment.speed import Case
from bitgnn.experiment.speed.graphs import Shape
from bitgnn.experiment.speed.memory import forget_peak, give_back, resident
from bitgnn.kernels.sparse import csr_matrix
from bitgnn.nn import layerwise_inference
from bitgnn.packed import pack, prepare
from bitgnn.quant import QuantConfig
from bitgnn.training import Recipe
from bitgnn.training.batches import build_batches

Call = Callable[[], Any]
SIDES = {"32-bit": None, "ternary": QuantConfig()}
MOST_CALLS = 3
NODES_OF_A_PART = 50_000


@dataclass(frozen=True)
class Job:
    r"""A measurement.

    Args:
        what (str): One of :obj:`WHATS`.
        side (str): One of :obj:`SIDES`.
        graph (str): One of :obj:`benchmarks.scaling.graphs.SHAPES`.
        part (float): The part of its nodes that the graph has.
        model (str): One of :obj:`bitgnn.experiment.speed.case.MODELS`.
        layers (int): The number of layers.
        hidden (int): The hidden width.
        batch_size (int): The nodes of a range, in layer-wise inference.
        threads (int): The number of threads.
        seconds (float): How long calls go on.
        folder (Path): Where the graph is, and files may be written.
    """

    what: str
    side: str
    graph: str
    part: float
    model: str
    layers: int
    hidden: int
    batch_size: int
    threads: int
    seconds: float
    folder: Path

    @property
    def shape(self) -> Shape:
        """The size of the graph."""
        return part_of(SHAPES[self.graph], self.part)

    def build(self, train: bool = False) -> torch.nn.Module:
        """The model, with random weights."""
        torch.manual_seed(0)
        case = Case(self.model, self.graph, self.layers, self.hidden, train=train)
        shape = self.shape
        return case.build(shape.num_features, shape.num_classes, SIDES[self.side], twin=True)


def full_batch(job: Job, graph: Graph) -> Call:
    """A training step on all nodes, which is an epoch: forward, backward, Adam."""
    model, (x, edge_index) = job.build(train=True), graph
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    y = torch.randint(job.shape.num_classes, (graph.num_nodes,))
    crow = F.pad(torch.bincount(edge_index[1], minlength=graph.num_nodes).cumsum(0), (1, 0))
    ones = torch.ones(edge_index.size(1))
    adj_t = csr_matrix(crow, edge_index[0], ones, (graph.num_nodes, graph.num_nodes))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x, adj_t), y).backward()
        optimizer.step()

    return step


def random_parts(job: Job, graph: Graph) -> Call:
    """An epoch of steps on random parts of the graph, as `batch=random` trains."""
    model, (x, edge_index), shape = job.build(train=True), graph, job.shape
    for module in model.modules():
        if hasattr(module, "cached"):
            module.cached = False  # Each part has edges of its own.
    y = torch.randint(shape.num_classes, (graph.num_nodes,))
    nodes = torch.ones(graph.num_nodes, dtype=torch.bool)
    split = Split("all", nodes, nodes, nodes)
    data = Data(x=x, edge_index=edge_index, y=y)
    t = Task(job.graph, data, "accuracy", "public", "", None, FixedSplit(split))
    num_parts = max(2, round(graph.num_nodes / NODES_OF_A_PART))
    recipe = Recipe(feature_norm="none", batch="random", num_parts=num_parts)
    batches = build_batches(model, t, split, recipe)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def epoch() -> None:
        for batch in batches.epoch(1):
            optimizer.zero_grad()
            F.cross_entropy(model(batch.x, *batch.graph), y[batch.nodes]).backward()
            optimizer.step()

    return epoch


def layer_wise(job: Job, graph: Graph) -> Call:
    """Inference layer by layer, with all that is kept of nodes in files."""
    model, out = job.build(), job.folder / "out.npy"
    return partial(layerwise_inference, model, *graph, batch_size=job.batch_size, out=out)


def packed(job: Job, graph: Graph) -> Call:
    """Inference with the packed model, its output in a file; the graph is prepared before."""
    model, shape = pack(job.build()), (graph.num_nodes, job.shape.num_classes)
    path = str(job.folder / "out")
    out = torch.from_file(path, shared=True, size=shape[0] * shape[1]).view(shape)
    prepared = prepare(graph.edge_index, graph.num_nodes)
    for edges in {step.edges for step in model.program.steps if step.edges is not None}:
        prepared.native(edges)
    return partial(model, graph.x, prepared, out=out)


WHATS: dict[str, Callable[[Job, Graph], Call]] = {
    "full-batch": full_batch,
    "random-parts": random_parts,
    "layer-wise": layer_wise,
    "packed": packed,
}
TITLES = {
    "full-batch": "training epoch, full batch",
    "random-parts": "training epoch, random parts",
    "layer-wise": "layer-wise inference",
    "packed": "packed inference",
}


def measure(job: Job, begin: Callable[[], None]) -> dict[str, Any]:
    r"""Returns the seconds of the fastest call, those of processors in it, those of what comes
    before, and the highest memory, in MiB, above that of the inputs, which are in memory by then.

    Args:
        job (Job): What is measured.
        begin (callable): Is called when inputs are there.
    """
    torch.set_num_threads(job.threads)
    graph = read_graph(job.shape, job.folder)
    for each in graph:
        _touch(each)
    give_back()
    before = resident("VmRSS")
    forget_peak()
    begin()
    start = time.perf_counter()
    call = WHATS[job.what](job, graph)
    prepare_seconds = time.perf_counter() - start
    times: list[tuple[float, float]] = []
    # The first step of training also finds out how to transpose the graph.
    least = 2 if job.what == "full-batch" else 1
    while len(times) < least or (
        len(times) < MOST_CALLS and sum(wall for wall, _ in times) < job.seconds
    ):
        start, of_processors = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - start, time.process_time() - of_processors))
    peak = resident("VmHWM")
    seconds, cpu_seconds = min(times)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "calls": len(times),
        "prepare_seconds": prepare_seconds,
        "peak_mib": None if peak is None or before is None else peak - before,
    }


def _touch(mapped: Tensor) -> None:
    for piece in mapped.view(-1).split(2**24):
        piece.sum()

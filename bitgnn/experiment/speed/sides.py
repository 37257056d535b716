r"""The ways to run a model: PyG's in 32 bits, with the memory allocator as it comes and tuned, and
bitgnn's, ternary and in 32 bits: packed models, or layers that are trained."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.typing import Adj

from bitgnn.experiment.speed.case import Case
from bitgnn.experiment.speed.graphs import SHAPES, csr, sparse_features
from bitgnn.packed import pack, prepare
from bitgnn.quant import QuantConfig

# What keeps the pages of freed memory for the next tensor, instead of having the system clear new
# ones: huge pages (a setting of torch), or a heap that gives nothing back (glibc's).
ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "huge pages": {"THP_MEM_ALLOC_ENABLE": "1"},
    "retained": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)},
}
FORMS = ("edge_index", "CSR", "SparseTensor", "sparse x", "compiled")
PACKED = ("packed", "packed 32-bit", "packed dense x", "packed exact")
TRAINED = ("ternary", "bitgnn 32-bit")

Run = Callable[[], Any]


@dataclass(frozen=True)
class Side:
    r"""A way to run a model, in a process of its own.

    Args:
        form (str): One of :obj:`FORMS`, which are PyG's, of :obj:`PACKED`, or, for training, of
            :obj:`TRAINED`.
        allocator (str, optional): One of :obj:`ALLOCATORS`. (default: :obj:`"default"`)
        scatter (bool, optional): Whether PyG may use torch-scatter, if it is installed.
            (default: :obj:`True`)
    """

    form: str
    allocator: str = "default"
    scatter: bool = True

    @property
    def is_pygs(self) -> bool:
        """Whether it is a way of PyG."""
        return self.form in FORMS

    @property
    def name(self) -> str:
        """How a table calls it."""
        parts = [self.form]
        if self.allocator != "default":
            parts.append(self.allocator)
        if not self.scatter:
            parts.append("no torch-scatter")
        return ", ".join(parts)


def ours(case: Case) -> list[Side]:
    r"""Returns bitgnn's ways: the one that is compared, the same kernels with numbers of 32 bits,
    and others.

    Args:
        case (Case): The model.
    """
    if case.train:  # What a step allocates is the user's to keep, on all sides.
        return [Side(form, allocator) for allocator in ("retained", "default") for form in TRAINED]
    sides = [Side("packed"), Side("packed 32-bit")]
    return sides if case.graph in SHAPES else [*sides, Side("packed dense x")]


def sides_of(case: Case, compiled: bool = True) -> list[Side]:
    r"""Returns PyG's ways to run a model.

    Args:
        case (Case): The model.
        compiled (bool, optional): Whether :func:`torch.compile` is among them; of training steps it
            is not. (default: :obj:`True`)
    """
    forms = ["edge_index"] if case.model == "mlp" else ["edge_index", "CSR", "SparseTensor"]
    if case.graph not in SHAPES:
        forms.append("sparse x")
    forms += ["compiled"] * (compiled and not case.train)
    sides = [Side(form, allocator) for form in forms for allocator in ALLOCATORS]
    if case.model == "gat":  # In inference PyG calls torch-scatter for its softmax only.
        sides += [Side("CSR", allocator, scatter=False) for allocator in ALLOCATORS]
    return sides


class Built(NamedTuple):
    """What one call is, and what is done once for a graph beforehand, if packed models do it."""

    call: Run
    prepare: Run | None = None


def build(side: Side, case: Case, data: Data, num_classes: int) -> Built:
    r"""Returns what one call is, with everything made that outlives a call.

    Args:
        side (Side): How the model is run.
        case (Case): The model.
        data (Data): The graph.
        num_classes (int): The number of classes.

    Raises:
        Exception: If this side cannot run it.
    """
    torch.manual_seed(0)
    if side.form in PACKED:
        return _packed(side, case, data, num_classes)
    if side.form in TRAINED:
        quant = QuantConfig() if side.form == "ternary" else None
        twin = case.build(data.num_features, num_classes, quant, twin=True)
        inputs = [data.x] if case.model == "mlp" else [data.x, _adjacency("CSR", data)]
        return Built(_step(twin, inputs, num_classes))
    import torch_geometric.typing

    torch_geometric.typing.WITH_TORCH_SCATTER &= side.scatter
    model = case.build(data.num_features, num_classes, None, twin=False)
    if side.form == "compiled":
        model = torch.compile(model)  # type: ignore[assignment]
    x = data.x.to_sparse_csr() if side.form == "sparse x" else data.x
    if case.model == "mlp":
        return Built(_step(model, [x], num_classes) if case.train else lambda: model(x))
    if case.fresh:
        return Built(lambda: model(x, _adjacency(side.form, data)))
    adjacency = _adjacency(side.form, data)
    if case.train:
        return Built(_step(model, [x, adjacency], num_classes))
    return Built(lambda: model(x, adjacency))


def _step(model: nn.Module, inputs: list[Any], num_classes: int) -> Run:
    """A training step on all nodes, which returns the loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    y = torch.randint(num_classes, (inputs[0].size(0),))

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(*inputs), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _adjacency(form: str, data: Data) -> Adj:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        if form in ("CSR", "sparse x"):
            return csr(data.edge_index, data.num_nodes)
    if form == "SparseTensor":
        from torch_sparse import SparseTensor

        size = (data.num_nodes, data.num_nodes)
        row, col = data.edge_index.flip(0)
        return SparseTensor(row=row, col=col, sparse_sizes=size)
    return data.edge_index


def _packed(side: Side, case: Case, data: Data, num_classes: int) -> Built:
    full = side.form == "packed 32-bit"
    quant = None if full else QuantConfig()
    model = pack(case.build(data.num_features, num_classes, quant, twin=not full))
    exact = side.form == "packed exact"
    x = data.x if side.form == "packed dense x" else sparse_features(data.x)
    if case.model == "mlp":
        return Built(lambda: model(x, exact=exact))
    if case.fresh:
        return Built(lambda: model(x, data.edge_index, exact=exact))
    graph = prepare(data.edge_index, data.num_nodes)

    def once() -> None:
        again = prepare(data.edge_index, data.num_nodes)
        for edges in {step.edges for step in model.program.steps if step.edges is not None}:
            again.native(edges)

    return Built(lambda: model(x, graph, exact=exact), once)

r"""The ways to run a model: PyG's in 32 bits, with the memory allocator as it comes and tuned, and
packed models, ternary and in 32 bits."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
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

Run = Callable[[], Any]


@dataclass(frozen=True)
class Side:
    r"""A way to run a model, in a process of its own.

    Args:
        form (str): One of :obj:`FORMS`, which are PyG's, or :obj:`PACKED`.
        allocator (str, optional): One of :obj:`ALLOCATORS`. (default: :obj:`"default"`)
        scatter (bool, optional): Whether PyG may use torch-scatter, if it is installed.
            (default: :obj:`True`)
    """

    form: str
    allocator: str = "default"
    scatter: bool = True

    @property
    def name(self) -> str:
        """How a table calls it."""
        parts = [self.form]
        if self.allocator != "default":
            parts.append(self.allocator)
        if not self.scatter:
            parts.append("no torch-scatter")
        return ", ".join(parts)


def sides_of(case: Case, compiled: bool = True) -> list[Side]:
    r"""Returns PyG's ways to run a model.

    Args:
        case (Case): The model.
        compiled (bool, optional): Whether :func:`torch.compile` is among them.
            (default: :obj:`True`)
    """
    forms = ["edge_index"] if case.model == "mlp" else ["edge_index", "CSR", "SparseTensor"]
    if case.graph not in SHAPES:
        forms.append("sparse x")
    forms += ["compiled"] * compiled
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
    import torch_geometric.typing

    torch_geometric.typing.WITH_TORCH_SCATTER &= side.scatter
    model = case.build(data.num_features, num_classes, None, twin=False)
    if side.form == "compiled":
        model = torch.compile(model)  # type: ignore[assignment]
    x = data.x.to_sparse_csr() if side.form == "sparse x" else data.x
    if case.model == "mlp":
        return Built(lambda: model(x))
    if case.fresh:
        return Built(lambda: model(x, _adjacency(side.form, data)))
    adjacency = _adjacency(side.form, data)
    return Built(lambda: model(x, adjacency))


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
        return Built(lambda: model(x, prepare(data.edge_index, data.num_nodes), exact=exact))
    graph = prepare(data.edge_index, data.num_nodes)

    def once() -> None:
        again = prepare(data.edge_index, data.num_nodes)
        for edges in {step.edges for step in model.program.steps if step.edges is not None}:
            again.native(edges)

    return Built(lambda: model(x, graph, exact=exact), once)

"""What `convert` makes of every convolution of PyG.

`python tests/nn/test_convert_table.py` writes the table to docs/convert.md.
"""

import importlib
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import torch_geometric
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.testing import withPackage

from bitgnn import convert
from bitgnn.nn import BitHeteroLinear, BitLinear
from bitgnn.nn.parameters import parameter_share

DOC = Path(__file__).parents[2] / "docs" / "convert.md"
F_IN, F_OUT = 8, 16
N, E = 5, 8

EDGE_INDEX = torch.tensor([[0, 1, 2, 3, 4, 0, 2, 4], [1, 0, 1, 2, 3, 4, 0, 2]])
EDGE_TYPE = torch.arange(E) % 2
METADATA = (["v", "w"], [("v", "to", "w"), ("w", "to", "v")])
EDGE_INDEX_DICT = {edge_type: EDGE_INDEX for edge_type in METADATA[1]}

# Not built or not run here, and why.
NOT_BUILT = {
    "CuGraphGATConv": "needs pylibcugraphops; its kernel runs on NVIDIA GPUs only",
    "CuGraphRGCNConv": "needs pylibcugraphops; its kernel runs on NVIDIA GPUs only",
    "CuGraphSAGEConv": "needs pylibcugraphops; its kernel runs on NVIDIA GPUs only",
    "FusedGATConv": "needs dgNN; its kernel runs on NVIDIA GPUs only",
}
NOT_RUN = {"PANConv": "torch-sparse"}
NEED_KNN = ("GravNetConv", "DynamicEdgeConv", "XConv")  # of pyg-lib from PyG 2.8 on


def x(size: int = F_IN) -> Tensor:
    return torch.randn(N, size)


def edge(size: int) -> Tensor:
    return torch.randn(E, size)


def x_dict() -> dict[str, Tensor]:
    return {"v": x(), "w": x()}


class Bare(pyg.MessagePassing):
    """PyG's base class: to build it itself would compile `propagate` for all classes to come."""


class Given(nn.Sequential):
    """A network that a convolution is given, to tell its layers from the convolution's own."""


def given(*sizes: int) -> Given:
    return Given(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2]))


def simple(name: str, *args: Any, **kwargs: Any) -> Callable[[], tuple[Any, ...]]:
    return lambda: (getattr(pyg, name)(*args, **kwargs), x(), EDGE_INDEX)


# One line a class: how it is built and what it is called with.
CASES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "MessagePassing": lambda: (Bare(),),
    "SimpleConv": simple("SimpleConv"),
    "GCNConv": simple("GCNConv", F_IN, F_OUT),
    "ChebConv": simple("ChebConv", F_IN, F_OUT, K=3),
    "SAGEConv": simple("SAGEConv", F_IN, F_OUT, project=True),
    "GraphConv": simple("GraphConv", F_IN, F_OUT),
    "GravNetConv": lambda: (pyg.GravNetConv(F_IN, F_OUT, 3, 4, k=2), x()),
    "GatedGraphConv": simple("GatedGraphConv", F_OUT, num_layers=2),
    "ResGatedGraphConv": simple("ResGatedGraphConv", F_IN, F_OUT),
    "GATConv": lambda: (
        pyg.GATConv(F_IN, F_OUT, heads=2, edge_dim=3, residual=True), x(), EDGE_INDEX, edge(3)
    ),
    "GATv2Conv": lambda: (
        pyg.GATv2Conv(F_IN, F_OUT, heads=2, edge_dim=3, residual=True), x(), EDGE_INDEX, edge(3)
    ),
    "TransformerConv": lambda: (
        pyg.TransformerConv(F_IN, F_OUT, heads=2, edge_dim=3, beta=True), x(), EDGE_INDEX, edge(3)
    ),
    "AGNNConv": simple("AGNNConv"),
    "TAGConv": simple("TAGConv", F_IN, F_OUT, K=2),
    "GINConv": lambda: (pyg.GINConv(given(F_IN, 8, F_OUT)), x(), EDGE_INDEX),
    "GINEConv": lambda: (
        pyg.GINEConv(given(F_IN, 8, F_OUT), edge_dim=3), x(), EDGE_INDEX, edge(3)
    ),
    "ARMAConv": simple("ARMAConv", F_IN, F_OUT, num_stacks=2, num_layers=2),
    "SGConv": simple("SGConv", F_IN, F_OUT, K=2),
    "SSGConv": simple("SSGConv", F_IN, F_OUT, alpha=0.1, K=2),
    "APPNP": simple("APPNP", K=2, alpha=0.1),
    "MFConv": simple("MFConv", F_IN, F_OUT, max_degree=3),
    "RGCNConv": lambda: (pyg.RGCNConv(F_IN, F_OUT, 2), x(), EDGE_INDEX, EDGE_TYPE),
    "FastRGCNConv": lambda: (pyg.FastRGCNConv(F_IN, F_OUT, 2), x(), EDGE_INDEX, EDGE_TYPE),
    "RGATConv": lambda: (
        pyg.RGATConv(F_IN, F_OUT, 2, edge_dim=3), x(), EDGE_INDEX, EDGE_TYPE, edge(3)
    ),
    "SignedConv": lambda: (
        pyg.SignedConv(F_IN, F_OUT, first_aggr=True), x(), EDGE_INDEX, EDGE_INDEX.flip(0)
    ),
    "DNAConv": lambda: (pyg.DNAConv(F_IN, heads=2), torch.randn(N, 3, F_IN), EDGE_INDEX),
    "PointNetConv": lambda: (
        pyg.PointNetConv(given(F_IN + 3, 8, 8), given(8, 8, F_OUT)), x(), x(3), EDGE_INDEX
    ),
    "GMMConv": lambda: (
        pyg.GMMConv(F_IN, F_OUT, dim=3, kernel_size=2), x(), EDGE_INDEX, edge(3).sigmoid()
    ),
    "SplineConv": lambda: (
        pyg.SplineConv(F_IN, F_OUT, dim=1, kernel_size=3), x(), EDGE_INDEX, edge(1).sigmoid()
    ),
    "NNConv": lambda: (
        pyg.NNConv(F_IN, F_OUT, given(3, 8, F_IN * F_OUT)), x(), EDGE_INDEX, edge(3)
    ),
    "CGConv": lambda: (pyg.CGConv(F_IN, dim=3), x(), EDGE_INDEX, edge(3)),
    "EdgeConv": lambda: (pyg.EdgeConv(given(2 * F_IN, 8, F_OUT)), x(), EDGE_INDEX),
    "DynamicEdgeConv": lambda: (pyg.DynamicEdgeConv(given(2 * F_IN, 8, F_OUT), k=2), x()),
    "XConv": lambda: (pyg.XConv(F_IN, F_OUT, dim=3, kernel_size=2), x(), x(3)),
    "PPFConv": lambda: (
        pyg.PPFConv(given(F_IN + 4, 8, 8), given(8, 8, F_OUT)), x(), x(3), x(3), EDGE_INDEX
    ),
    "FeaStConv": simple("FeaStConv", F_IN, F_OUT, heads=2),
    "PointTransformerConv": lambda: (
        pyg.PointTransformerConv(F_IN, F_OUT), x(), x(3), EDGE_INDEX
    ),
    "HypergraphConv": simple("HypergraphConv", F_IN, F_OUT),
    "LEConv": simple("LEConv", F_IN, F_OUT),
    "PNAConv": lambda: (
        pyg.PNAConv(F_IN, F_OUT, ["mean", "max"], ["identity"], torch.ones(4).long(), edge_dim=3),
        x(), EDGE_INDEX, edge(3),
    ),
    "ClusterGCNConv": simple("ClusterGCNConv", F_IN, F_OUT),
    "GENConv": lambda: (pyg.GENConv(F_IN, F_OUT, edge_dim=3), x(), EDGE_INDEX, edge(3)),
    "GCN2Conv": lambda: (pyg.GCN2Conv(F_IN, alpha=0.1), x(), x(), EDGE_INDEX),
    "PANConv": simple("PANConv", F_IN, F_OUT, filter_size=2),
    "WLConv": lambda: (pyg.WLConv(), torch.arange(N), EDGE_INDEX),
    "WLConvContinuous": simple("WLConvContinuous"),
    "FiLMConv": simple("FiLMConv", F_IN, F_OUT),
    "SuperGATConv": simple("SuperGATConv", F_IN, F_OUT, heads=2),
    "FAConv": lambda: (pyg.FAConv(F_IN), x(), x(), EDGE_INDEX),
    "EGConv": simple("EGConv", F_IN, F_OUT),
    "PDNConv": lambda: (
        pyg.PDNConv(F_IN, F_OUT, edge_dim=3, hidden_channels=8), x(), EDGE_INDEX, edge(3)
    ),
    "GeneralConv": lambda: (
        pyg.GeneralConv(F_IN, F_OUT, in_edge_channels=3, attention=True), x(), EDGE_INDEX, edge(3)
    ),
    "HGTConv": lambda: (
        pyg.HGTConv(F_IN, F_OUT, METADATA, heads=2), x_dict(), EDGE_INDEX_DICT
    ),
    "HEATConv": lambda: (
        pyg.HEATConv(F_IN, F_OUT, 2, 2, 4, 3, 4, heads=2),
        x(), EDGE_INDEX, torch.arange(N) % 2, EDGE_TYPE, edge(3),
    ),
    "HeteroConv": lambda: (
        pyg.HeteroConv({key: pyg.SAGEConv(F_IN, F_OUT) for key in EDGE_INDEX_DICT}),
        x_dict(), EDGE_INDEX_DICT,
    ),
    "HANConv": lambda: (
        pyg.HANConv(F_IN, F_OUT, METADATA, heads=2), x_dict(), EDGE_INDEX_DICT
    ),
    "LGConv": simple("LGConv"),
    "PointGNNConv": lambda: (
        pyg.PointGNNConv(given(F_IN, 8, 3), given(F_IN + 3, 8, 8), given(8, 8, F_IN)),
        x(), x(3), EDGE_INDEX,
    ),
    "GPSConv": lambda: (
        pyg.GPSConv(F_IN, pyg.GCNConv(F_IN, F_IN), heads=2), x(), EDGE_INDEX
    ),
    "AntiSymmetricConv": simple("AntiSymmetricConv", F_IN),
    "DirGNNConv": lambda: (pyg.DirGNNConv(pyg.SAGEConv(F_IN, F_OUT)), x(), EDGE_INDEX),
    "MixHopConv": simple("MixHopConv", F_IN, F_OUT, powers=[0, 1, 2]),
    "MeshCNNConv": lambda: (
        pyg.MeshCNNConv(F_IN, F_OUT), x(), torch.stack([torch.arange(4 * N) // 4,
                                                        torch.arange(4 * N) % N])
    ),
}  # fmt: skip


@contextmanager
def stand_ins() -> Iterator[None]:
    """What pyg-lib compiles, in plain torch, for the convolutions that can't do without."""

    def knn(x: Tensor, y: Tensor, ptr_x: None, ptr_y: None, k: int, *args: Any) -> Tensor:
        col = torch.cdist(y, x).topk(k, largest=False).indices.view(-1)
        return torch.stack([torch.arange(y.size(0)).repeat_interleave(k), col])

    def spline_basis(u: Tensor, kernel_size: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        position = u.view(-1) * (kernel_size - 1)  # One dimension, degree 1, open.
        low = position.long()
        basis = torch.stack([1 - (position - low), position - low], dim=1)
        return basis, torch.stack([low, (low + 1).clamp(max=int(kernel_size) - 1)], dim=1)

    def spline_weighting(x: Tensor, weight: Tensor, basis: Tensor, index: Tensor) -> Tensor:
        return torch.einsum("ei,ekio,ek->eo", x, weight[index], basis)

    spline_conv = importlib.import_module("torch_geometric.nn.conv.spline_conv")
    with (
        mock.patch.object(torch_geometric.typing, "WITH_KNN", True, create=True),
        mock.patch.object(torch.ops, "pyg", SimpleNamespace(knn=knn)),
        mock.patch.object(spline_conv, "spline_basis", spline_basis),
        mock.patch.object(spline_conv, "spline_weighting", spline_weighting),
    ):
        yield


@dataclass
class Row:
    name: str
    linears: int | str = "?"
    ternary: int | str = "?"
    in_use: int | str = "?"
    remark: str = ""

    def __str__(self) -> str:
        return f"| {self.name} | {self.linears} | {self.ternary} | {self.in_use} | {self.remark} |"


def linear_layers(conv: nn.Module) -> dict[str, nn.Module]:
    """All layers that call themselves linear and hold a weight, whatever their class."""
    return {
        name: module
        for name, module in conv.named_modules()
        if type(module).__name__.endswith("Linear") and hasattr(module, "weight")
    }


def tensors(out: Any) -> list[Tensor]:
    if isinstance(out, Tensor):
        return [out] if out.is_floating_point() else []
    values = out.values() if isinstance(out, dict) else out if isinstance(out, tuple) else []
    return [tensor for value in values for tensor in tensors(value)]


def run(conv: nn.Module, original: nn.Module, args: tuple[Any, ...]) -> tuple[set[str], set[str]]:
    """Runs a converted convolution forward and backward, and returns the names of the ternary
    layers it called and of those whose weight it used without calling them."""
    called: set[str] = set()
    for name in conv.converted:
        layer = conv.get_submodule(name)
        # No hook: some of PyG's convolutions call `lin.forward(x)`, which runs none.
        layer.forward = _counted(layer.forward, name, called)
    outs = tensors(conv(*args))
    assert outs and all(out.isfinite().all() for out in outs)
    expected = tensors(original(*args))
    assert [out.shape for out in outs] == [out.shape for out in expected]
    assert not all(torch.allclose(*pair, atol=1e-4) for pair in zip(outs, expected, strict=True))

    sum(out.square().sum() for out in outs).backward()
    grads = {name: conv.get_submodule(name).weight.grad for name in conv.converted}
    assert all(grads[name] is not None and grads[name].isfinite().all() for name in called)
    assert any(grads[name].abs().sum() > 0 for name in called)
    return called, {name for name in set(grads) - called if grads[name] is not None}


def _counted(forward: Callable[..., Tensor], name: str, called: set[str]) -> Callable[..., Tensor]:
    def wrapped(*args: Any) -> Tensor:
        called.add(name)
        return forward(*args)

    return wrapped


def row(name: str) -> Row:
    """Converts a convolution, runs it and says what became of its linear layers."""
    if name in NOT_BUILT:
        return Row(name, remark=f"not built here: {NOT_BUILT[name]}")
    torch.manual_seed(12345)
    with stand_ins():
        conv, *args = CASES[name]()
        conv.eval()
        linears = linear_layers(conv)
        if not linears:
            return Row(name, 0, 0, 0, why_none(conv))
        own = {n for n, m in linears.items() if not type(m).__module__.endswith("linear")}
        if own == set(linears):
            kind = type(next(iter(linears.values())))
            return Row(name, len(linears), 0, 0, f"a `Linear` of its own ({kind.__module__})")

        converted = convert(conv)
        ternary = linear_layers(converted)
        kinds = (BitLinear, BitHeteroLinear)
        assert {n for n, m in ternary.items() if isinstance(m, kinds)} == set(converted.converted)
        counts = len(linears), len(converted.converted)
        if name in NOT_RUN:
            return Row(name, *counts, "?", f"not run here: needs {NOT_RUN[name]}")
        called, read = run(converted, conv, tuple(args))

    remarks = []
    in_given = [n for n in linears if _is_given(conv, n)]
    if in_given:
        which = "all" if len(in_given) == len(linears) else str(len(in_given))
        remarks.append(f"{which} in the network it is given")
    for n, m in linears.items():
        if n not in converted.converted:
            remarks.append(f"`{n}` is a {type(m).__name__}, which may do more than a linear map")
    if read:
        remarks.append(f"never called, but their weights are read: {_quoted(read)}")
    if idle := set(converted.converted) - called - read:
        remarks.append(f"it has no use for {_quoted(idle)}")
    return Row(name, *counts, len(called), "; ".join(remarks))


def _quoted(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _is_given(conv: nn.Module, name: str) -> bool:
    return any(isinstance(m, Given) and name.startswith(f"{n}.") for n, m in conv.named_modules())


def why_none(conv: nn.Module) -> str:
    if type(conv) is Bare:
        return "the base class"
    weights = [f"`{name}`" for name, _ in conv.named_parameters(recurse=False)]
    parts = [
        f"a {type(module).__name__} (`{name}`)"
        for name, module in conv.named_children()
        if any(True for _ in module.parameters())
    ]
    if not weights and not parts:
        return "has no weights"
    return f"its weights are plain parameters: {', '.join(weights + parts)}"


def document() -> str:
    """Returns docs/convert.md."""
    rows = [row(name) for name in sorted(pyg.conv.__all__)]
    owners = [r for r in rows if r.linears != "?" and r.ternary]
    whole = [r for r in owners if r.linears == r.ternary == r.in_use]
    return f"""\
<!-- Written by `python tests/nn/test_convert_table.py`, compared by the tests: don't edit. -->

# Converting PyG's convolutions

`bitgnn.convert` replaces the linear layers of any model, `torch.nn.Linear`,
`torch_geometric.nn.Linear`, `HeteroLinear` and those within `HeteroDictLinear`, by ternary ones:

```python
from torch_geometric.nn import GAT
import bitgnn

model = GAT(16, 64, num_layers=2, out_channels=7, heads=8)
model = bitgnn.convert(model, include="convs.*", exclude="*.lin_edge")
```

Weights that are no linear layer's, such as attention vectors, stay in 32 bits, and messages are
aggregated in 32 bits. Subclasses of these layers, and layers with hooks or parametrizations, are
left as they are; `convert` says which and why, how many of all parameters are ternary, and what
holds the others. Of an RGCN with a linear head it says:

```
{_share()}
```

The table was made with PyG {_release()}, by converting and running each class in
`torch_geometric.nn.conv`: how many linear layers it has, how many turned ternary, and how many of
these its forward calls. Of {len(rows)} classes {len(owners)} have linear layers that can be
converted; {len(whole)} of these are ternary throughout.

| Convolution | Linear layers | Ternary | In use | Remark |
| --- | --: | --: | --: | --- |
{chr(10).join(map(str, rows))}
"""


def _share() -> str:
    """What `convert` says of a model most of whose weights are no linear layer's."""
    model = nn.ModuleDict(
        {"conv": pyg.RGCNConv(64, 64, num_relations=10), "head": pyg.Linear(64, 2)}
    )
    return "\n".join(textwrap.wrap(str(parameter_share(convert(model))), 95))


def _release() -> str:
    return ".".join(torch_geometric.__version__.split(".")[:2])


def test_every_convolution_has_a_case():
    assert set(pyg.conv.__all__) <= set(CASES) | set(NOT_BUILT), "add the new classes to CASES"


@pytest.mark.parametrize("name", CASES)
def test_every_linear_layer_is_ternary_and_in_use(name):
    if name not in pyg.conv.__all__:
        pytest.skip(f"PyG {torch_geometric.__version__} has no {name}")
    if name in NEED_KNN and not hasattr(torch_geometric.typing, "WITH_KNN"):
        pytest.skip(f"PyG {torch_geometric.__version__} needs torch-cluster for {name}")
    result = row(name)
    expected = {
        "DNAConv": (3, 0, 0),  # A grouped linear layer of its own.
        "DirGNNConv": (5, 5, 3),  # It switches the root weights of its two copies off.
        "GPSConv": (4, 3, 3),  # The output of torch's attention, which is read, not called.
        "PANConv": (1, 1, "?"),
    }.get(name, (result.linears,) * 3)
    assert (result.linears, result.ternary, result.in_use) == expected
    assert result.linears or result.remark


@withPackage("torch_sparse")
def test_pan_conv():
    torch.manual_seed(12345)
    conv, *args = CASES["PANConv"]()
    assert run(convert(conv), conv, tuple(args)) == ({"lin"}, set())


def test_the_table_in_the_docs_is_this_one():
    release = re.search(r"made with PyG (\S+),", DOC.read_text())
    assert release is not None
    if release[1] != _release():
        pytest.skip(f"the table was made with PyG {release[1]}, here is {_release()}")
    assert DOC.read_text() == document(), "run: python tests/nn/test_convert_table.py"


if __name__ == "__main__":
    temporary = DOC.with_suffix(".tmp")
    temporary.write_text(document())
    os.replace(temporary, DOC)
